"""`build --check`: the same inputs give the same bundle, anywhere; other inputs are named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builder.conftest import T0, Builder, sealpack

from sealpack.builder import config
from sealpack.builder.assemble import MarkOrder
from sealpack.builder.watermark.vault import Vault
from sealpack.format.container import BundleReader, Member, write_bundle
from sealpack.format.keys import PrivateKey
from sealpack.format.statement import SIG_NAME

SEALPACK = str(Path(sys.executable).with_name("sealpack"))


@pytest.fixture
def bundle(build: Builder, gguf_model: Path, tmp_path: Path) -> Path:
    return build(gguf_model, tmp_path / "b.sealpack").path


def check(home: Path, model: Path, bundle: Path, *more: str | Path) -> int:
    return sealpack("build", model, "--config", home / "sealpack.toml", "--check", bundle, *more)


def test_a_public_key_is_enough_and_nothing_is_written(
    home: Path, gguf_model: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.name for p in bundle.parent.iterdir())
    assert check(home, gguf_model, bundle, "--key", home / "keys/bundle.pub.pem", "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["same"] and said["signed_at"] == T0 and said["differences"] == []
    assert said["entries"] > 5
    assert check(home, gguf_model, bundle) == 0  # the private key of sealpack.toml
    assert sorted(p.name for p in bundle.parent.iterdir()) == before


def test_a_project_without_its_private_keys_is_enough(home: Path, gguf_model: Path, bundle: Path) -> None:
    (home / "keys/bundle.pem").unlink()
    assert check(home, gguf_model, bundle) == 0  # the public half beside it
    (home / "keys/bundle.pub.pem").unlink()
    assert check(home, gguf_model, bundle) == 1


def test_a_bundle_with_two_signatures(
    build: Builder, home: Path, gguf_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sealpack("key", "new", tmp_path / "second.pem", "--scheme", "ml-dsa-65") == 0
    key = PrivateKey.load(tmp_path / "second.pem")
    bundle = build(gguf_model, tmp_path / "h.sealpack", mldsa_key=key, trust=None).path
    assert check(home, gguf_model, bundle, "--mldsa-key", tmp_path / "second.pub.pem") == 0
    assert check(home, gguf_model, bundle) == 3
    assert "SIG_SCHEME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda home, model: (home / "card.md").write_text("# Another card\n"), "card.md"),
        (lambda home, model: model.write_bytes(model.read_bytes()[:-1] + b"\x55"), "payload/model.gguf"),
        (
            lambda home, model: (home / "sealpack.toml").write_text(
                (home / "sealpack.toml").read_text().replace('version = "1', 'version = "2', 1)
            ),
            "manifest.json: version is",
        ),
    ],
    ids=["card", "weights", "version"],
)
def test_what_differs_is_named(  # type: ignore[no-untyped-def]
    home: Path, gguf_model: Path, bundle: Path, capsys: pytest.CaptureFixture[str], change, named: str
) -> None:
    change(home, gguf_model)
    assert check(home, gguf_model, bundle) == 3
    captured = capsys.readouterr()
    assert "BUILD_DIFFERS" in captured.err
    assert named in captured.out


def test_an_entry_more_or_less_is_named(
    build: Builder, home: Path, gguf_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "vocab.txt").write_text("[PAD]\n")
    extended = home / "extended.toml"
    text = (home / "sealpack.toml").read_text()
    extended.write_text(text + '\n[[files]]\npath = "vocab.txt"\nrole = "vocabulary"\n')
    more = build(gguf_model, tmp_path / "m.sealpack", config=config.load(extended)).path
    assert check(home, gguf_model, more) == 3
    assert "payload/vocab.txt: only in the bundle" in capsys.readouterr().out
    less = build(gguf_model, tmp_path / "l.sealpack").path
    assert sealpack("build", gguf_model, "--config", extended, "--check", less) == 3
    assert "payload/vocab.txt: not in the bundle" in capsys.readouterr().out


def test_the_signature_must_be_the_given_keys(
    home: Path, gguf_model: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sealpack("key", "new", tmp_path / "other.pem") == 0
    assert check(home, gguf_model, bundle, "--key", tmp_path / "other.pub.pem") == 3
    assert "SIG_KEY_UNKNOWN" in capsys.readouterr().err
    data = bytearray(bundle.read_bytes())
    data[-1] ^= 1
    bundle.write_bytes(data)
    assert check(home, gguf_model, bundle) == 3
    assert "CONTAINER_" in capsys.readouterr().err
    assert check(home, gguf_model, tmp_path / "none.sealpack") == 1


def test_the_signature_must_be_over_these_entries(
    build: Builder, home: Path, gguf_model: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signature of the same key over another release is not good for standing beside these files."""
    text = (home / "sealpack.toml").read_text()
    (home / "other.toml").write_text(text.replace('version = "1', 'version = "2', 1))
    other = build(gguf_model, bundle.with_name("o.sealpack"), config=config.load(home / "other.toml")).path
    with BundleReader.open(bundle) as ours, BundleReader.open(other) as theirs:
        digest = hashlib.sha256(ours.read("manifest.json")).hexdigest()
        members = [Member.of_bytes(n, b"".join(ours.blocks(n))) for n in ours.signed_names]
        members.append(Member.of_bytes(SIG_NAME, theirs.read(SIG_NAME)))
    swapped = bundle.with_name("swapped.sealpack")
    with swapped.open("wb") as file:
        write_bundle(file, members)
    assert check(home, gguf_model, swapped, "--format", "json") == 3
    captured = capsys.readouterr()
    said = json.loads(captured.out.partition("\n}\n")[0] + "}")
    names = ["manifest.json", "sbom.cdx.json"]
    assert said["differences"] == [f"META/model.sig: signs another {name}" for name in names]
    assert said["bundle_digest"] == digest


def test_a_marked_copy_is_made_again_from_its_record(
    build: Builder, home: Path, external_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passphrase = tmp_path / "pass"
    passphrase.write_text("a vault passphrase\n")
    vault = tmp_path / "v.vault"
    assert sealpack("vault", "new", vault, "--passphrase-file", passphrase) == 0
    mark = MarkOrder(Vault.open(vault, "a vault passphrase"), "Ward 7", "L-7", T0)
    marked = build(external_model, tmp_path / "m.sealpack", mark=mark).path
    options = ["--licensee", "Ward 7", "--license-id", "L-7", "--vault", vault]
    options += ["--vault-passphrase-file", passphrase]
    assert check(home, external_model, marked, *options) == 0
    assert check(home, external_model, marked) == 3  # the clean weights are not those


def test_other_surroundings_give_the_same_file(home: Path, gguf_model: Path, tmp_path: Path) -> None:
    """Another folder, home, time zone, locale, hash seed, umask, file times: what two machines differ in."""
    made = []
    for number, surroundings in enumerate(
        (
            {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "1"},
            {"TZ": "America/Anchorage", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"},
        )
    ):
        place = tmp_path / f"machine{number}"
        shutil.copytree(home, place / "deep" / "project")
        model = place / "model.gguf"
        shutil.copyfile(gguf_model, model)
        os.utime(model, (number + 1, number + 1))
        umask = os.umask(0o077 * number)
        try:
            subprocess.run(
                [SEALPACK, "build", "model.gguf", "--config", "deep/project/sealpack.toml",
                 "--out", "b.sealpack", "--signed-at", str(T0)],
                cwd=place, check=True, capture_output=True,
                env=os.environ | surroundings | {"HOME": str(place)},
            )  # fmt: skip
        finally:
            os.umask(umask)
        made.append((place / "b.sealpack").read_bytes())
    assert made[0] == made[1]
