"""The Python API from pin to acknowledgement, on real engines."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from support import world
from support.site import INPUT, T0, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, Quota, Rate
from sealpack.format.usage_reader import verify_usage
from sealpack.runtime import api, log, receipts
from sealpack.runtime.engines import base
from sealpack.runtime.engines.base import Usage

PER_TERM = Quota("calls", "term", "device", 2, None, "deny")


def open_runtime(site: Site, bundle_id: str = "acme/tiny") -> sealpack.runtime.Runtime:
    return sealpack.runtime.open(bundle_id, state=site.state_dir, threads=1)


def refusal(site: Site, bundle_id: str = "acme/tiny") -> SealpackError:
    """What opening and calling once is refused with."""
    with pytest.raises(SealpackError) as caught, open_runtime(site, bundle_id) as runtime:
        runtime.infer(INPUT)
    return caught.value


def kinds(site: Site) -> str:
    """The kinds of all records of the first log."""
    with site.state() as state, state.read() as db:
        return "".join(record.kind for record in receipts.recent(db, 1, 1000))


def test_a_call_is_answered_metered_and_receipted(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        answer = runtime.infer(INPUT, cost_centre="ward")
    assert answer.value["labels"][0]["label"] == "b"
    assert answer.meters["calls"] == answer.meters["items"] == 1
    assert answer.meters["ms"] >= 1
    with site.state() as state:
        files = receipts.export(state, site.folder)
        assert receipts.verify_log(state, 1) == []
    report = verify_usage(files[0].path.read_bytes())
    assert report.ok
    assert report.growth.total("calls") == 1
    assert kinds(site) == "gbtute"
    mark = hashlib.sha256(files[0].origin.encode()).hexdigest()[:8]
    assert files[0].path.name == f"hospital-ward-3-{mark}-0-6.usage.gz"


def test_every_task_runs(site: Site) -> None:
    site.ready()
    site.install("words")
    site.install("talk")
    with open_runtime(site, "acme/words") as runtime:
        assert len(runtime.embed(["hello", "world"]).value["embeddings"]) == 2
    pieces: list[str] = []
    with open_runtime(site, "acme/talk") as runtime:
        answer = runtime.generate("the", max_tokens=8, on_text=pieces.append)
    assert answer.value["text"] == "".join(pieces)
    assert answer.meters["tok_in"] == 2
    assert 0 < answer.meters["tok_out"] <= 8


def test_a_cancelled_stream_bills_what_was_produced(site: Site) -> None:
    site.ready()
    site.install("talk")
    with open_runtime(site, "acme/talk") as runtime:
        answer = runtime.generate("the", max_tokens=30, on_text=lambda _: False)
    assert answer.receipt.status == "cancel"
    assert answer.meters["tok_out"] == 1


def test_input_that_is_refused_costs_nothing(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime, pytest.raises(SealpackError):
        runtime.infer({"x": [[1, 2]]})
    assert kinds(site) == "g"


def test_an_engine_failure_is_receipted_as_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ready()
    with open_runtime(site) as runtime:

        def broken(_: object) -> None:
            raise SealpackError("ENGINE_FAILED", "out of luck")

        prepared = base.Prepared(Usage(items=3), broken)  # type: ignore[arg-type]
        monkeypatch.setattr(runtime._session, "prepare", lambda _: prepared)
        with pytest.raises(SealpackError, match="out of luck"):
            runtime.infer(INPUT)
    with site.state() as state, state.read() as db:
        last = next(iter(receipts.recent(db, 1, 1)))
    assert (last.kind, last.body["status"], last.body["meters"]["items"]) == ("u", "err", 3)


def test_the_quota_is_kept_and_the_refusal_says_what_to_do(site: Site) -> None:
    site.ready(make_license(quota=(PER_TERM,)))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        runtime.infer(INPUT)
        with pytest.raises(SealpackError) as caught:
            runtime.infer(INPUT)
        with pytest.raises(SealpackError):
            runtime.infer(INPUT)
    assert caught.value.code == "QUOTA_EXCEEDED"
    assert caught.value.message == "2 of 2 calls are used for this license"
    assert caught.value.remedy.endswith("support: help@acme.example")
    assert kinds(site) == "gbtuud", "a refusal is noted once a minute, not once a call"


def test_a_lease_ceiling_stops_and_the_next_lease_goes_on(site: Site) -> None:
    site.ready(ceilings={"calls": 1})
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        with pytest.raises(SealpackError) as caught:
            runtime.infer(INPUT)
        assert "sealpack sync" in caught.value.remedy
        name = caught.value.facts["license_id"]
        device = runtime._key.public
        lease = site.lease(api.device.device_id(device), name, 2, {"calls": 3})
        site.take(Parcel((lease,)))
        runtime.infer(INPUT)  # the open runtime sees the new lease


def test_importing_a_lease_again_or_an_older_one_adds_nothing(site: Site) -> None:
    site.ready()
    with site.state() as state:
        name = api.device.name(api.device.key(state.home))
    newer = Parcel((site.lease(name, "L-1", 5, {"calls": 5}),))
    older = Parcel((site.lease(name, "L-1", 4, {"calls": 500}),))
    assert site.take(newer).leases == ["L-1"]
    assert site.take(newer, older).known == 2
    with site.state() as state, state.read() as db:
        assert api.rights.read(db, "L-1", api.anchors.current(db)).lease.lease_seq == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"exp": T0 + 1000, "nbf": T0}, "LIC_EXPIRED"),
        ({"nbf": T0 + 10**9}, "LIC_NOT_YET_VALID"),
        ({"devices": Devices("key", container=False, vm=False)}, None),
        ({"updates_until": T0 - 1}, "UPDATE_NOT_COVERED"),
        ({"bundles": ()}, "BUNDLE_MISMATCH"),
        ({"use": dataclasses.replace(make_license().use, ack_required=True)}, "TERMS_NOT_ACCEPTED"),
        ({"limits": Rate(inflight=0)}, "CONCURRENCY_LIMIT"),
        ({"quota": (Quota("items", "day", "device", 0, None, "deny"),)}, "QUOTA_EXCEEDED"),
        ({"quota": (Quota("calls", "day", "device", 0, 0, "bill"),)}, "HARD_CAP"),
    ],
)
def test_each_reason_has_its_code(
    site: Site, members: dict[str, object], code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.device.machine, "in_virtual_machine", lambda: "")
    monkeypatch.setattr(api.device.machine, "in_container", lambda: "")
    site.ready(make_license(**members))
    if code is None:
        with open_runtime(site) as runtime:
            assert runtime.infer(INPUT).value
    else:
        assert refusal(site).code == code


def test_without_a_license_nothing_is_loaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pin()
    site.install()

    def never(*_: object) -> None:
        raise AssertionError("the model was parsed before the license was checked")

    monkeypatch.setattr(api.choose, "load", never)
    assert refusal(site).code == "LIC_MISSING"


def test_a_rate_limit_answers_with_the_wait(site: Site) -> None:
    site.ready(make_license(limits=Rate(qps=1, burst=1)))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        with pytest.raises(SealpackError, match=r"try again in [0-9]+ ms") as caught:
            runtime.infer(INPUT)
    assert caught.value.code == "RATE_LIMITED"


def test_a_license_that_rides_in_the_bundle_and_binds_no_device_applies(site: Site) -> None:
    site.pin()
    free = seal_license(make_license(license_id="FREE", devices=Devices("none")))
    site.install(meta={"META/license/FREE.json": free.to_bytes()})
    with open_runtime(site) as runtime:
        assert runtime.license_id == "FREE"
        runtime.infer(INPUT)
    assert kinds(site) == "gbtu"


def test_two_licenses_that_fit_are_not_guessed_between(site: Site) -> None:
    site.ready()
    site.activate(make_license(license_id="L-2"))
    assert refusal(site).code == "LIC_AMBIGUOUS"
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, license="L-2") as runtime:
        assert runtime.license_id == "L-2"


def test_a_withdrawn_bundle_stops_once_the_list_is_here(site: Site) -> None:
    site.ready()
    digest = site.install().bundle_digest
    site.take(Parcel((world.make_revocations(version=2, bundles=[digest]),)))
    assert refusal(site).code == "BUNDLE_REVOKED"


def test_an_advisory_license_warns_and_runs(site: Site) -> None:
    site.ready(make_license(enforcement="advisory", exp=T0 + 1000, nbf=T0, quota=(PER_TERM,)))
    with open_runtime(site) as runtime:
        assert [w.code for w in runtime.standing.warnings] == ["LIC_EXPIRED"]
        for _ in range(3):
            answer = runtime.infer(INPUT)
    assert [w.code for w in answer.warnings] == ["LIC_EXPIRED", "QUOTA_EXCEEDED"]


def test_edited_counters_are_noticed(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    with site.state() as state, state.write() as db:
        db.execute("UPDATE counters SET used=0 WHERE period='term'")
    assert refusal(site).code == "STATE_TAMPERED"


def test_an_edited_receipt_is_found_by_the_full_check(site: Site) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    with site.state() as state:
        with state.write() as db:
            edited = "CAST(replace(CAST(record AS TEXT), '\"items\":1', '\"items\":2') AS BLOB)"
            db.execute(f"UPDATE leaves SET record={edited} WHERE kind='u'")
            db.execute("UPDATE registers SET total=2 WHERE meter='items'")
            db.execute("UPDATE counters SET used=2 WHERE meter='items'")
            log.check(db, log.by_id(db, 1), api.device.key(state.home).public)  # the quick look cannot see it
        with pytest.raises(SealpackError) as caught:
            receipts.verify_log(state, 1)
    assert caught.value.code == "STATE_TAMPERED"


def test_an_edited_copy_in_the_store_is_refused(site: Site) -> None:
    installed = site.ready().install()
    path = installed.path(site.home)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"x")
    assert refusal(site).code == "BUNDLE_INVALID"


def test_the_newest_release_runs_unless_one_is_named(site: Site) -> None:
    site.ready()
    site.install(version="1.1.0", release_index=2)
    with open_runtime(site) as runtime:
        assert runtime.manifest.version == "1.1.0"
    with open_runtime(site, "acme/tiny@1.0.0") as runtime:
        assert runtime.manifest.version == "1.0.0"
    assert refusal(site, "acme/other").code == "NOT_INSTALLED"


def test_a_log_signed_by_another_key_is_refused(site: Site) -> None:
    site.pin()
    site.install()
    site.take(Parcel((seal_license(make_license(license_id="FREE", devices=Devices("none"))),)))
    site.home.device_key.unlink()
    assert refusal(site).code == "STATE_TAMPERED"
