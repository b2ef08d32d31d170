"""Each way a usage file can arrive, and what becomes of it."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from support import world
from support.books import NOW, Books
from support.device import BUNDLE, T0, Device, make_license, seal_license

from sealpack.format import canonical, documents, records
from sealpack.format.keys import PrivateKey
from sealpack.format.license import BundleGrant, PlanRef
from sealpack.format.limits import LIMITS
from sealpack.format.note import open_checkpoint
from sealpack.format.usage import checkpoint_line
from sealpack.settlement import db, evidence, ingest, registry
from sealpack.settlement.reconcile import reconcile

QUARTER_MS = 900_000


def agrees(books: Books) -> bool:
    return reconcile(books.database, NOW).ok


# --- accepted ---------------------------------------------------------------------------------------


def test_a_whole_file_is_accepted_and_rolled_up(books: Books) -> None:
    device = Device().work(300)
    books.learn(device)
    (outcome,) = books.ingest(device.export())
    assert (outcome.code, outcome.accepted, outcome.flags) == ("OK", device.size, ())
    log = books.log(device)
    assert (log.size, log.frontier) == (device.size, device.frontier(device.size))
    assert log.state.registers == device.registers
    rollups = books.rows(db.rollups)
    total = sum(row["tok_out"] for row in rollups)
    assert total == device.registers.total("tok_out")
    assert all(row["quarter_ms"] % QUARTER_MS == 0 for row in rollups)
    assert open_checkpoint(log.note, device.key.public).size == device.size
    assert agrees(books)


def test_accepted_bytes_again(books: Books) -> None:
    device = Device().work(20)
    books.learn(device)
    books.ingest(device.export(), "monday.usage.gz")
    before = books.rows(db.rollups)
    (again,) = books.ingest(device.export(), "copy.usage.gz")
    assert (again.code, again.accepted, again.name) == ("W101", 0, "copy.usage.gz")
    assert "monday.usage.gz" in again.detail
    assert books.rows(db.rollups) == before


def test_an_overlap_adds_only_what_is_new(books: Books) -> None:
    device = Device().work(100)
    books.learn(device)
    assert books.code(device.export(0, 60)) == "OK"
    (outcome,) = books.ingest(device.export(30))
    assert (outcome.code, outcome.accepted) == ("W102", device.size - 60)
    assert books.log(device).state.registers == device.registers
    assert agrees(books)


def test_an_older_copy(books: Books) -> None:
    device = Device().work(100)
    books.learn(device)
    assert books.code(device.export()) == "OK"
    assert books.code(device.export(0, 40)) == "W103"
    assert books.code(device.export(10, 77)) == "W103"
    assert books.code(gzip.decompress(device.export())) == "W103"
    assert books.log(device).size == device.size
    assert agrees(books)


@pytest.mark.parametrize("left", [0.5, 0.75, 0.99])
def test_a_torn_file_gives_its_whole_blocks_and_the_whole_one_the_rest(books: Books, left: float) -> None:
    device = Device().work(900)
    books.learn(device)
    whole = device.export()
    (torn,) = books.ingest(whole[: int(len(whole) * left)])
    assert torn.code == "W104"
    assert torn.accepted % 256 == 0 and 0 < torn.accepted < device.size
    assert "ends early" in torn.detail
    assert agrees(books)
    (rest,) = books.ingest(whole)
    assert (rest.code, rest.accepted) == ("W102", device.size - torn.accepted)
    assert books.log(device).frontier == device.frontier(device.size)
    assert agrees(books)


def test_damage_behind_good_blocks(books: Books) -> None:
    device = Device().work(600)
    books.learn(device)
    lines = gzip.decompress(device.export()).splitlines(keepends=True)
    lines[400] = lines[400].replace(b'"ms":31', b'"ms":30')
    (outcome,) = books.ingest(b"".join(lines))
    assert (outcome.code, outcome.accepted) == ("W104", 256)
    assert agrees(books)


def test_lost_records_and_clock_events_are_flagged(books: Books) -> None:
    device = Device().work(3)
    device.lose(calls=2, tok_out=500)
    device.put(records.CLOCK, event="went-back", delta_ms=-5_000)
    books.learn(device)
    (outcome,) = books.ingest(device.export())
    assert (outcome.code, outcome.flags) == ("W140", ("W140", "W121"))
    (lost,) = (row for row in books.rows(db.rollups) if row["status"] == "lost")
    assert (lost["calls"], lost["tok_out"], lost["tok_in"]) == (2, 500, 0)


def test_a_test_license_is_flagged(books: Books) -> None:
    device = Device(make_license(environment="test")).work(3)
    books.learn(device)
    assert books.code(device.export()) == "W150"


def test_a_rotated_key_goes_on(books: Books) -> None:
    device = Device().work(10)
    cut = device.rotate(77).size
    device.work(10)
    books.learn(device)
    assert books.code(device.export(0, cut)) == "OK"
    assert books.code(device.export(cut)) == "OK"
    assert agrees(books)


def test_a_key_that_comes_by_a_rotation_still_to_come(books: Books) -> None:
    device = Device().work(10)
    cut = device.rotate(77).size
    device.work(10)
    books.learn(device)
    assert books.code(device.export(cut)) == "R303"
    outcomes = books.ingest(device.export(0, cut))
    assert [o.code for o in outcomes] == ["OK", "OK"]
    assert books.log(device).size == device.size
    assert agrees(books)


def test_the_key_before_a_rotation_signs_nothing_more(books: Books) -> None:
    device = Device().work(10)
    old = device.clone()
    cut = device.rotate(77).size
    books.learn(device)
    assert books.code(device.export(0, cut)) == "OK"
    old.leaves = list(device.leaves)
    old.work(5)
    assert books.code(old.export(cut)) == "R303"


# --- held -------------------------------------------------------------------------------------------


def test_a_gap_is_held_and_freed_by_what_was_missing(books: Books) -> None:
    device = Device().work(100)
    books.learn(device)
    assert books.code(device.export(0, 20)) == "OK"
    (late,) = books.ingest(device.export(70))
    (middle,) = books.ingest(device.export(50, 70))
    assert (late.code, middle.code) == ("H201", "H201")
    assert late.detail == "receipts 20 to 69 are missing (50)"
    assert len([c for c in books.rows(db.cases) if c["closed_at"] is None]) == 2
    filled = books.ingest(device.export(20, 50))
    assert [(o.code, o.accepted) for o in filled] == [("OK", 30), ("OK", 20), ("OK", device.size - 70)]
    assert all(case["closed_at"] == NOW for case in books.rows(db.cases))
    assert books.log(device).frontier == device.frontier(device.size)
    assert agrees(books)


def test_files_before_their_registry(books: Books) -> None:
    device = Device().work(30)
    books.take("trust.json", device.trust.to_bytes())
    assert books.code(device.export(0, 10)) == "H250"
    assert books.code(device.export(10)) == "H250"
    books.learn(device)
    freed = ingest.release(books.database, NOW)
    assert [o.code for o in freed] == ["OK", "OK"]
    assert books.log(device).size == device.size


def test_a_bundle_that_is_not_known_yet(books: Books) -> None:
    device = Device().work(5)
    books.learn()
    books.take("ward.license", device.parcel())
    (outcome,) = books.ingest(device.export())
    assert outcome.code == "H250" and BUNDLE.bundle_digest[:16] in outcome.detail
    books.take("registry.jsonl", device.line())
    assert [o.code for o in ingest.release(books.database, NOW)] == ["OK"]


def test_a_bundle_that_the_license_names_by_digest_needs_no_line(books: Books) -> None:
    grant = BundleGrant("acme/tiny", bundle_digest=BUNDLE.bundle_digest)
    device = Device(make_license(bundles=(grant,))).work(5)
    books.learn()
    books.take("ward.license", device.parcel())
    assert books.code(device.export()) == "OK"


def test_a_plan_that_is_not_known_yet(books: Books) -> None:
    device = Device(make_license(plan=PlanRef("other", 3))).work(5)
    books.learn(device)
    (outcome,) = books.ingest(device.export())
    assert (outcome.code, outcome.detail) == ("H250", "plan other version 3 is not known here")


def test_the_activation_may_come_with_the_file(books: Books) -> None:
    device = Device().work(5)
    books.learn(Device(number=2))
    assert books.code(device.export()) == "OK"
    assert {row["device_id"] for row in books.rows(db.activations)} >= {device.id}


def fork(books: Books) -> tuple[Device, Device]:
    device = Device().work(50)
    twin = device.clone()
    device.work(30)
    twin.wait(1).work(20)
    books.learn(device)
    return device, twin


@pytest.mark.parametrize("start", [0, 30, 52, 60])
def test_two_machines_with_one_identity(books: Books, start: int) -> None:
    device, twin = fork(books)
    assert books.code(device.export()) == "OK"
    before = books.log(device)
    (outcome,) = books.ingest(twin.export(start))
    assert outcome.code == "H210"
    log = books.log(device)
    assert log.frozen and log.frontier == before.frontier
    (case,) = books.rows(db.cases)
    ours = open_checkpoint(case["ours"], device.key.public)
    theirs = open_checkpoint(case["theirs"], device.key.public)
    assert ours.root == device.frontier(ours.size).root
    assert theirs.root == twin.frontier(theirs.size).root
    assert books.code(device.work(5).export()) == "H210"
    assert books.code(device.export(0, 20)) == "W103"
    assert agrees(books)


def test_a_fork_that_only_a_gap_hid(books: Books) -> None:
    device, twin = fork(books)
    assert books.code(twin.export(60)) == "H201"
    assert [o.code for o in books.ingest(device.export(0, 60))] == ["OK"]
    assert books.codes() == ["H210", "OK"]
    assert books.log(device).frozen


def test_a_longer_twin(books: Books) -> None:
    device, twin = fork(books)
    assert books.code(twin.export()) == "OK"
    assert books.code(device.export()) == "H210"
    assert books.log(device).frontier == twin.frontier(twin.size)


def test_receipts_that_do_not_fit_their_checkpoint(books: Books) -> None:
    device = Device().work(5)
    books.learn(device)
    changed = gzip.decompress(device.export()).replace(b'"ms":31', b'"ms":30', 1)
    assert books.code(changed) == "H212"
    assert books.code(device.export()) == "OK"


def test_a_tally_that_is_too_low(books: Books) -> None:
    device = Device().work(5)
    device.put(records.TALLY, registers={"r1": {"ok": {"calls": 1}}})
    books.learn(device)
    (outcome,) = books.ingest(device.export())
    assert (outcome.code, outcome.detail[:5]) == ("H213", "tally")
    assert not books.rows(db.logs) and not books.rows(db.rollups)


def test_a_tally_is_compared_across_files(books: Books) -> None:
    device = Device().work(5)
    cut = device.size
    device.registers.charge("r1", "ok", {"calls": 1})
    device.tally()
    books.learn(device)
    assert books.code(device.export(0, cut)) == "OK"
    assert books.code(device.export(cut)) == "H213"


def other_license(device: Device) -> None:
    device.start(license_id="L-2")


def other_plan(device: Device) -> None:
    device.start(plan={"id": "cheaper", "version": 1})


def changed_route(device: Device) -> None:
    device.start(model_digest="ee" * 32)


def foreign_acknowledgement(device: Device) -> None:
    device.put(records.ACKNOWLEDGED, digest="ab" * 32, ack_seq=1, size=2, server_time=T0)


@pytest.mark.parametrize("act", [other_license, other_plan, changed_route, foreign_acknowledgement])
def test_a_log_that_contradicts_the_registry(books: Books, act: Any) -> None:
    device = Device().work(3)
    act(device)
    books.learn(device)
    assert books.code(device.export()) == "H214"
    assert not books.rows(db.logs)


def genesis(log: Device, **members: Any) -> Device:
    first = canonical.loads(log.leaves[0])
    log.leaves[0] = canonical.dumps(first | members)
    return log


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"device": PrivateKey.from_seed(bytes(32)).public.pem}, "H214"),
        ({"epoch": 1}, "H214"),
        ({"root": "ab" * 32}, "H214"),
        ({"license": "ab" * 32}, "H250"),
    ],
)
def test_a_first_record_that_is_not_true(books: Books, members: dict[str, Any], code: str) -> None:
    device = genesis(Device(), **members).work(3)
    books.learn(device)
    assert books.code(device.export()) == code


def test_a_bundle_outside_the_license(books: Books) -> None:
    device = Device(make_license(bundles=(BundleGrant("acme/other"),))).work(3)
    books.learn(device)
    assert books.code(device.export()) == "H214"


def test_a_further_log_without_leave(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    again = Device(epoch=1).work(3)
    assert books.code(again.export()) == "H215"


@pytest.mark.parametrize("what", ["devices", "licenses"])
def test_a_revoked_device_or_license(books: Books, what: str) -> None:
    device = Device().work(3)
    books.learn(device)
    name = device.id if what == "devices" else "L-1"
    revoked = world.Trust.from_envelopes(
        world.make_root(), world.make_keyring(), world.make_revocations(2, **{what: [name]})
    )
    books.take("trust.json", revoked.to_bytes())
    assert books.code(device.export()) == "H220"


def test_a_revoked_license_key(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    gone = [{"keyid": world.LICENSER.keyid, "good": []}]
    revoked = world.Trust.from_envelopes(
        world.make_root(), world.make_keyring(), world.make_revocations(2, keys=gone)
    )
    books.take("trust.json", revoked.to_bytes())
    assert books.code(device.export()) == "H220"


def test_usage_from_the_future_waits_until_it_is_past(books: Books) -> None:
    device = Device().until((NOW + 30 * 3600) * 1000).work(3)
    books.learn(device)
    assert books.code(device.export()) == "H221"
    assert ingest.release(books.database, NOW) == []
    assert [o.code for o in ingest.release(books.database, NOW + 7 * 3600)] == ["W120"]


def test_use_after_the_end_waits_for_a_renewal(books: Books) -> None:
    short = make_license(exp=T0 + 3600, grace_s=600)
    device = Device(short).until((T0 + 3600 + 700) * 1000).wait(QUARTER_MS).work(3)
    books.learn(device)
    assert books.code(device.export()) == "H230"
    renewed = Device(replace(short, seq=2, exp=T0 + 86_400))
    books.take("registry.jsonl", renewed.line())
    assert [o.code for o in ingest.release(books.database, NOW)] == ["OK"]


def test_an_advisory_license_has_no_end_that_holds(books: Books) -> None:
    lax = make_license(exp=T0 + 3600, enforcement="advisory")
    device = Device(lax).until((T0 + 10 * 3600) * 1000).work(3)
    books.learn(device)
    assert books.code(device.export()) == "OK"


def test_very_late_usage(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    assert books.code(device.export(), now=T0 + 500 * 86_400) == "H231"


# --- refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", b"hello\n", b"\x1f\x8b", gzip.compress(b"hello\n"), b'{"schema":"x"}\n']
)
def test_bytes_that_are_no_usage_file(books: Books, data: bytes) -> None:
    books.learn()
    assert books.code(data) == "R301"
    (row,) = books.rows(db.files)
    with books.database.read() as connection:
        assert evidence.load(connection, row["sha256"]) == data


def test_a_file_that_ends_before_its_first_checkpoint(books: Books) -> None:
    device = Device().work(300)
    books.learn(device)
    plain = gzip.decompress(device.export())
    assert books.code(plain[: plain.index(b'{"checkpoint"')]) == "R301"


def test_a_device_nobody_activated(books: Books) -> None:
    device = Device(number=5).work(3)
    books.learn(Device())
    assert books.code(device.export(activation=None)) == "R302"
    other = Device().activation.to_dict()
    assert books.code(device.export(activation=other)) == "R302"
    forged = documents.seal("activation", device_payload(device), world.STRANGER).to_dict()
    assert books.code(device.export(activation=forged)) == "R302"


def device_payload(device: Device) -> dict[str, Any]:
    payload = canonical.loads(device.activation.payload)
    return {name: value for name, value in payload.items() if name != "schema"}


def test_another_devices_key(books: Books) -> None:
    device, other = Device().work(3), Device(number=2).work(3)
    books.learn(device, other)
    assert books.code(device.export(device_key=other.key.public)) == "R303"
    thief = device.clone()
    thief.key = thief.first_key = other.key
    assert books.code(thief.export(origin=device.origin)) in ("R302", "R303")
    assert not books.rows(db.logs)


def test_a_wrong_signature(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    note = device.blocks()[-1].note
    other = device.clone()
    other.key = PrivateKey.from_seed(bytes(32))
    other.handovers = {}
    forged = other.blocks()[-1].note
    plain = gzip.decompress(device.export()).replace(checkpoint_line(note), checkpoint_line(forged))
    assert books.code(plain) == "R304"
    assert not books.rows(db.logs)


def test_a_bomb(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    head = gzip.decompress(device.export()).split(b"\n", 1)[0]
    bomb = gzip.compress(head + b"\n" + b" " * (LIMITS.usage_line_bytes + 1))
    assert books.code(bomb) == "R305"


def test_a_file_over_the_limit_is_not_kept(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "LIMITS", replace(LIMITS, usage_file_bytes=100))
    path = books.folder / "big.usage.gz"
    path.write_bytes(bytes(101))
    (outcome,) = ingest.ingest_file(books.database, path, NOW)
    assert outcome.code == "R305"
    assert not books.rows(db.files)


# --- whatever happens -------------------------------------------------------------------------------


def test_refused_bytes_are_judged_again_when_they_come_again(books: Books) -> None:
    device = Device(number=5).work(3)
    books.learn(Device())
    data = device.export(activation=None)
    assert books.code(data) == "R302"
    books.take("registry.jsonl", device.line())
    assert books.code(data) == "OK"


def test_a_renewed_license_and_the_old_ones_routes(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    renewed = make_license(seq=2, bundles=(BundleGrant("acme/other"),))
    with books.database.write() as connection:
        registry.put_license(connection, seal_license(renewed), device.trust)
    assert books.code(device.export()) == "OK"


def test_two_devices_do_not_mix(books: Books) -> None:
    one, two = Device().work(30), Device(number=2, label="ward 4").work(20)
    books.learn(one, two)
    assert [books.code(d.export()) for d in (one, two)] == ["OK", "OK"]
    assert books.log(one).size == one.size and books.log(two).size == two.size
    assert agrees(books)


def test_a_device_whose_clock_was_put_right_is_settled(books: Books) -> None:
    """Its clock had stood in 2038; what was used then counts when the repair was taken, and once."""
    device = Device().work(3)
    books.learn(device)
    assert books.code(device.export()) == "OK"
    start, right = device.size, device.now_ms
    device.until(2_150_000_000_000).work(5)
    assert books.code(device.export(start, device.size)) == "H221", "nobody knows yet"
    device.now_ms = right + 3_600_000
    device.put(records.CLOCK, event="repaired", delta_ms=-1, uptime_ms=2_150_000_000_000)
    device.start()
    device.work(2)
    assert books.code(device.export(start)).startswith(("OK", "W"))
    with books.database.read() as connection:
        quarters = set(connection.execute(sa.select(db.rollups.c.quarter_ms)).scalars())
    assert max(quarters) <= device.now_ms
    assert reconcile(books.database, NOW).ok
