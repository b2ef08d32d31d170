"""Site codes on a device: an encrypted kit opens with a code, once and on this device only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.encrypted import INPUT_KEY, EncryptedSpec
from support.site import INPUT, T0, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import License, Provisional
from sealpack.format.site_key import SiteKey, new_code
from sealpack.runtime import site_codes, store
from sealpack.runtime.cli.activate import activate

pytest.importorskip("onnxruntime")

N = 1 << 15  # as little work as a license may ask for
OTHER_DIGEST = "cd" * 32


def with_kit(site: Site, code: str, digest: str | None = None, **members: Any) -> License:
    """An encrypted bundle and a license whose code opens it, before any activation."""
    spec = EncryptedSpec(**{"bundle_id": "acme/tiny"} | site._tiny())
    path = site.folder / "e.sealpack"
    path.write_bytes(spec.build())
    site.pin()
    with site.state() as state:
        installed = store.install(state, path, T0)
    key = SiteKey.seal(code, INPUT_KEY, digest or installed.bundle_digest, "L-1", n=N)
    license = make_license(provisional=Provisional(3600, 9), site_keys=(key,), **members)
    site.take(Parcel((seal_license(license),)))
    return license


def call(site: Site) -> dict[str, Any]:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        return runtime.infer(INPUT).value


def refused(site: Site) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        call(site)
    assert caught.value.code == "KEY_UNWRAP", caught.value
    return caught.value


def type_in(site: Site, code: str) -> Result:
    path = site.folder / "code"
    path.write_text(code + "\n", encoding="utf-8")
    args = ["site-code", "--state", str(site.state_dir), "--code-file", str(path)]
    return CliRunner().invoke(activate, args)


def test_a_kit_opens_with_its_code_and_stays_open(site: Site) -> None:
    code = new_code()
    with_kit(site, code)
    assert "sealpack activate site-code --license L-1" in refused(site).remedy
    result = type_in(site, code.lower().replace("-", " "))
    assert result.exit_code == 0 and "opens on this machine now" in result.output
    assert call(site)["labels"][0]["label"] == call(site)["labels"][0]["label"] == "b"


def test_the_code_is_kept_nowhere(site: Site) -> None:
    code = new_code()
    with_kit(site, code)
    assert type_in(site, code).exit_code == 0
    (site.folder / "code").unlink()
    kept = b"".join(path.read_bytes() for path in site.state_dir.rglob("*") if path.is_file())
    assert code.encode() not in kept and code.replace("-", "").encode() not in kept
    assert INPUT_KEY not in kept


@pytest.mark.parametrize("typed", ["", "AAAAA", "süß-und-falsch-xxxxx", "U" * 20])
def test_what_is_no_code(site: Site, typed: str) -> None:
    with_kit(site, new_code())
    with pytest.raises(SealpackError) as caught, site.state() as state:
        site_codes.enter(state, make_license(), typed)
    assert caught.value.code == "KEY_UNWRAP"
    refused(site)


def test_another_code_opens_nothing(site: Site) -> None:
    license = with_kit(site, new_code())
    with pytest.raises(SealpackError) as caught, site.state() as state:
        site_codes.enter(state, license, new_code())
    assert caught.value.code == "KEY_UNWRAP" and "ask the vendor" in caught.value.remedy
    refused(site)


def test_a_license_without_codes(site: Site) -> None:
    site.ready()
    with pytest.raises(SealpackError) as caught, site.state() as state:
        site_codes.enter(state, make_license(), new_code())
    assert (caught.value.code, caught.value.message) == ("KEY_UNWRAP", "license L-1 takes no site code")


def test_a_code_for_another_build_opens_nothing(site: Site) -> None:
    code = new_code()
    with_kit(site, code, OTHER_DIGEST)
    assert type_in(site, code).exit_code == 0
    assert "the activation holds no key" in refused(site).message


def test_an_opened_key_is_worth_nothing_on_another_device(site: Site, tmp_path: Path) -> None:
    code = new_code()
    with_kit(site, code)
    assert type_in(site, code).exit_code == 0
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", site.models, site.trust)
    with_kit(other, code)
    other.request()
    with other.state() as state, state.write() as db, site.state() as first, first.read() as rows:
        for row in rows.execute("SELECT * FROM site_keys").fetchall():
            db.execute("INSERT INTO site_keys VALUES(?,?,?)", row)
    assert "not wrapped for this device" in refused(other).message


def test_after_the_activation_the_code_still_counts(site: Site) -> None:
    code = new_code()
    license = with_kit(site, code)
    assert type_in(site, code).exit_code == 0
    site.take(site.reply(site.request(), license))  # an activation without keys
    assert call(site)["labels"][0]["label"] == "b"
