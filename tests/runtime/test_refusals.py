"""What a deployment may insist on, and what an issuer may: kind of license, features, a list not left out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format.activation import Ceiling, Lease
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Allowance, Devices, IssuedUnder, LeaseTerms, License, Quota
from sealpack.runtime import overview
from sealpack.runtime.admission import Build, Facts, admit
from sealpack.runtime.clock import Times
from sealpack.verifier.cli.main import make_cli, run

FREE = Devices("none")
UNDER_3 = IssuedUnder(1, 3)
DEVICE = "dev-" + "0" * 32
WANT = {"calls": 1, "items": 1}


def opened(site: Site, **options: Any) -> sealpack.runtime.Runtime:
    return sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1, **options)


def refusal(site: Site, **options: Any) -> SealpackError:
    with pytest.raises(SealpackError) as caught, opened(site, **options) as runtime:
        runtime.infer(INPUT)
    return caught.value


# --- ENV_MISMATCH -----------------------------------------------------------------------------------------


def test_a_machine_in_earnest_use_refuses_a_test_license(site: Site) -> None:
    site.ready(make_license(environment="test"))
    error = refusal(site, environment="live")
    assert error.code == "ENV_MISMATCH"
    assert error.message == "license L-1 is a test license, a live license is asked for"
    assert error.remedy == (
        "install a live license with `sealpack activate install FILE`; support: help@acme.example"
    )
    with opened(site, environment="test") as runtime, opened(site):
        assert runtime.infer(INPUT).meters["calls"] == 1
    assert refusal(site, environment="live", license="L-1").code == "ENV_MISMATCH", "also when it is named"


def test_of_a_live_and_a_test_license_the_kind_decides(site: Site) -> None:
    site.ready()
    site.activate(make_license(license_id="L-test", environment="test"))
    assert refusal(site).code == "LIC_AMBIGUOUS"
    for kind, name in (("live", "L-1"), ("test", "L-test")):
        with opened(site, environment=kind) as runtime:
            assert runtime.license_id == name


def test_an_unknown_environment_is_a_wrong_call(site: Site) -> None:
    assert refusal(site, environment="staging").code == "USAGE"


def test_run_require_live(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.ready(make_license(environment="test"))
    (site.folder / "in.json").write_text('{"x": [[2, 1, 0]]}')
    command = ["run", "acme/tiny", "--input", str(site.folder / "in.json"), "--state", str(site.state_dir)]
    assert run(make_cli(), [*command, "--require-live"]) == 4
    assert "error[ENV_MISMATCH]" in capsys.readouterr().err
    assert run(make_cli(), command) == 0


# --- FEATURE_NOT_LICENSED ---------------------------------------------------------------------------------


def test_a_bundle_that_needs_a_feature_runs_only_under_a_license_that_has_it(site: Site) -> None:
    site.pin()
    site.install(requires_features=("batch", "voice"))
    site.activate(make_license(features=("voice",)))
    error = refusal(site)
    assert error.code == "FEATURE_NOT_LICENSED"
    assert error.message == "acme/tiny 1.0.0 needs batch; license L-1 has voice"
    with site.state() as state:
        (license,) = overview.gather(state)["licenses"]
    assert license["standing"][0]["code"] == "FEATURE_NOT_LICENSED", "status says so before anything runs"
    site.activate(make_license(seq=2, features=("voice", "batch")))
    with opened(site) as runtime:
        assert runtime.infer(INPUT).meters["calls"] == 1


def test_an_application_asks_for_features(site: Site) -> None:
    site.ready(make_license(features=("batch",)))
    with opened(site) as runtime:
        assert runtime.features == ("batch",)
        runtime.require("batch")
        with pytest.raises(SealpackError) as caught:
            runtime.require("batch", "export")
    assert caught.value.code == "FEATURE_NOT_LICENSED"
    assert caught.value.message == "the application needs export; license L-1 has batch"


# --- REVLIST_OLD ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "known", "refused"),
    [(1, 2, True), (1, 3, False), (1, 4, False), (2, 1, False)],
)
def test_what_a_device_must_know(root: int, known: int, refused: bool) -> None:
    assert UNDER_3.is_newer_than(root, known) is refused
    assert IssuedUnder(2, 1).is_newer_than(root, known) is (root == 1)


def test_a_list_that_was_left_out_of_the_parcel_is_missed(site: Site) -> None:
    site.pin()
    site.install()
    envelope = seal_license(make_license(devices=FREE, issued_under=UNDER_3))
    site.take(Parcel((envelope,)))
    error = refusal(site)
    assert error.code == "REVLIST_OLD"
    assert error.message == (
        "this machine knows revocation list 1 of root 1, the license goes with list 3 of root 1"
    )
    site.take(Parcel((world.make_revocations(3),)))
    with opened(site) as runtime:
        assert runtime.infer(INPUT).meters["calls"] == 1


def test_the_order_in_which_list_and_license_come_does_not_matter(site: Site) -> None:
    site.pin()
    site.install()
    envelope = seal_license(make_license(devices=FREE, issued_under=UNDER_3))
    site.take(Parcel((envelope, world.make_revocations(3))))
    with opened(site) as runtime:
        assert runtime.infer(INPUT).meters["calls"] == 1


def test_a_lease_states_the_list_too(site: Site) -> None:
    site.ready()
    with opened(site) as runtime:
        device = sealpack.runtime.api.device.name(runtime._key)
    lease = Lease("L-1", device, 0, 2, world.T0, None, (), UNDER_3)
    site.take(Parcel((sealpack.format.documents.seal("lease", lease.to_dict(), world.SETTLEMENT),)))
    assert refusal(site).code == "REVLIST_OLD"


# --- UNSETTLED_LIMIT --------------------------------------------------------------------------------------


def at_ceiling(license: License, used: int, limit: int = 5) -> Facts:
    lease = Lease("L-1", DEVICE, 0, 1, world.T0, None, (Ceiling("calls", limit),))
    build = Build("acme/tiny", "1.0.0", "ab" * 32, 1, world.CREATOR.keyid, "cd" * 32, world.T0)
    now = world.T0 * 1000
    return Facts(
        replace(license, devices=replace(license.devices, binding="none")),
        None,
        lease,
        world.make_trust().revocations,
        DEVICE,
        build,
        Times(now, now, 0),
        used={("term", "calls"): used},
    )


def settled(on_stale: str, **more: Any) -> License:
    return make_license(lease=LeaseTerms(True, None, None, on_stale, (Allowance("calls", 5),)), **more)


@pytest.mark.parametrize(("on_stale", "delay"), [("throttle", 1000), ("warn", 0)])
def test_at_a_ceiling_the_license_says_what_happens(on_stale: str, delay: int) -> None:
    assert admit(at_ceiling(settled(on_stale), 4), WANT).warnings == ()
    verdict = admit(at_ceiling(settled(on_stale), 5), WANT)
    assert [w.code for w in verdict.warnings] == ["UNSETTLED_LIMIT"]
    assert verdict.delay_ms == delay


@pytest.mark.parametrize("license", [settled("deny"), make_license()], ids=["deny", "no lease terms"])
def test_at_a_ceiling_that_denies(license: License) -> None:
    with pytest.raises(SealpackError) as caught:
        admit(at_ceiling(license, 5), WANT)
    assert caught.value.code == "UNSETTLED_LIMIT"
    assert caught.value.message == "5 of 5 calls are used until usage is settled"
    assert caught.value.spec.http == 402
    assert "sealpack sync" in caught.value.remedy


@pytest.mark.parametrize(
    ("hard_cap", "on_exceed", "share", "code"),
    [(None, "deny", 5, "QUOTA_EXCEEDED"), (12, "bill", 6, "HARD_CAP")],
)
@pytest.mark.parametrize("on_stale", ["deny", "warn"])
def test_no_settlement_raises_a_share_of_a_quota(
    hard_cap: int | None, on_exceed: str, share: int, code: str, on_stale: str
) -> None:
    """Two devices share ten calls; what `on_stale` says is about settling, not about the quota."""
    rule = Quota("calls", "term", "license", 10, hard_cap, on_exceed)
    license = settled(on_stale, quota=(rule,), devices=Devices("key", 2))
    assert admit(at_ceiling(license, share - 1, share), WANT).delay_ms == 0
    with pytest.raises(SealpackError) as caught:
        admit(at_ceiling(license, share, share), WANT)
    assert caught.value.code == code
    assert caught.value.message == f"{share} of {share} calls are used for this license"
    assert caught.value.remedy == "ask the vendor for more; support: help@acme.example"


# --- STATE_ROLLED_BACK ------------------------------------------------------------------------------------


def test_the_second_restored_backup_in_one_lease_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALPACK_MARKS", str(tmp_path / "marks"))
    site.ready()

    def use() -> None:
        with opened(site) as runtime:
            runtime.infer(INPUT)

    def back_to(backup: Path) -> None:
        shutil.rmtree(site.state_dir)
        shutil.copytree(backup, site.state_dir)

    use()
    backup = tmp_path / "backup"
    shutil.copytree(site.state_dir, backup)
    use()
    back_to(backup)
    use()  # an honest restore goes on
    back_to(backup)
    error = refusal(site)
    assert error.code == "STATE_ROLLED_BACK"
    assert error.spec.http == 409
    assert "sealpack activate install" in error.remedy
