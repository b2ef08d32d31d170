"""Usage known by registers alone: closed gaps, tally files and meter readings, and what takes their place."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from support.books import NOW, Books
from support.device import Device, make_license
from support.rating_plans import make_plan, per_unit

from sealpack.format import documents, records
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.documents import Parcel
from sealpack.format.merkle import Frontier
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.qr import frames
from sealpack.format.records import Registers
from sealpack.settlement import (
    audit,
    billing,
    cases,
    corrections,
    db,
    epochs,
    evidence_check,
    evidence_pack,
    registry,
)
from sealpack.settlement.audit import Actor
from sealpack.settlement.cases import ACCEPT
from sealpack.settlement.outcomes import Outcome
from sealpack.settlement.reconcile import reconcile

EVA = Actor("eva", NOW)
SEPTEMBER, ISSUED = date(2026, 9, 1), date(2026, 10, 1)
METERS = ("calls", "tok_in", "tok_out", "ms")


def worked(count: int = 120) -> Device:
    """A device with `count` calls and a tally in every quarter of an hour, as a runtime writes it."""
    device = Device()
    for number in range(count):
        device.wait(90_000)
        if number % 10 == 0:
            device.tally()
        device.use(tok_out=1 + number)
    return device.tally()


def learn(books: Books, *devices: Device) -> Books:
    return books.learn(*devices, plan=make_plan(per_unit("0.01"), per=1))


def decide(books: Books, used_ms: int | None = None) -> list[Outcome]:
    """Accept the one open case."""
    (case,) = [c for c in cases.cases(books.database) if c.state == "open"]
    return cases.decide(books.database, case.number, ACCEPT, "lost", used_ms=used_ms, actor=EVA)[1]


def billed(books: Books) -> dict[str, int]:
    """What the roll-ups hold of each meter."""
    rows = books.rows(db.rollups)
    return {meter: sum(row[meter] for row in rows) for meter in METERS}


def used(device: Device, size: int | None = None) -> dict[str, int]:
    """What the device's first receipts say."""
    total = Registers()
    for leaf in device.leaves[:size]:
        total.add(records.parse_record(leaf))
    return {meter: total.total(meter) for meter in METERS}


def net(books: Books) -> str:
    bill = billing.bill(books.database, "L-1", SEPTEMBER, ISSUED, draft=True)
    found: str = json.loads(bill.json)["net"]
    return found


def ack_of(books: Books, device: Device) -> Acknowledgement:
    envelope = Parcel.from_bytes(books.reply(device).data).documents[0]
    return Acknowledgement.open(envelope, device.trust)


def holds(books: Books) -> bool:
    """Tables, evidence, and a pack of the September invoice agree."""
    found = reconcile(books.database, NOW)
    assert found.ok, found.problems
    issued = billing.bill(books.database, "L-1", SEPTEMBER, ISSUED, actor=EVA)
    with books.database.read() as connection:
        pack = evidence_pack.for_invoice(connection, issued.name)
        trust = registry.load_trust(connection)
    report = evidence_check.check(pack, trust)
    assert report.ok, report.checks[-1]
    return True


# --- a gap that a person closes ---------------------------------------------------------------------------


def test_a_gap_is_closed_as_a_difference_of_registers(books: Books) -> None:
    device = worked()
    learn(books, device)
    assert [books.code(device.export(0, 40)), books.code(device.export(80, 100))] == ["OK", "H201"]
    assert billed(books) == used(device, 40)
    (freed,) = decide(books)
    assert (freed.code, freed.accepted) == ("W154", 20)
    assert billed(books) == used(device, 100)
    assert books.code(device.export(100)) == "W154"  # the log goes on after the gap
    assert billed(books) == used(device)
    assert [case.state for case in cases.cases(books.database)] == ["accepted"]
    assert audit.verify(books.database)[0] > 0
    assert books.log(device).size == 40 and holds(books)


def test_what_was_missing_takes_the_place_of_the_difference(books: Books) -> None:
    device = worked()
    learn(books, device)
    for data in (device.export(0, 40), device.export(80, 100)):
        books.ingest(data)
    decide(books)
    books.ingest(device.export(100))
    outcomes = books.ingest(device.export(40, 80))
    assert [(o.code, o.accepted) for o in outcomes] == [("OK", 40), ("OK", 20), ("OK", device.size - 100)]
    assert books.log(device).size == device.size and holds(books)
    assert billed(books) == used(device)


def test_a_gap_is_dated_by_the_first_receipt_after_it_or_by_a_person(books: Books) -> None:
    device = Device().use(tok_out=5).tally()
    first = device.size
    device.wait(3 * 86_400_000).use(tok_out=70).tally()
    gone = device.size
    device.wait(86_400_000).use(tok_out=1).tally()
    learn(books, device)
    books.ingest(device.export(0, first))
    books.ingest(device.export(gone))
    day = device.now_ms - 86_400_000 - 3600_000
    decide(books, used_ms=day)
    rows = {row["quarter_ms"]: row["tok_out"] for row in books.rows(db.rollups)}
    assert rows[day - day % 900_000] == 70 and billed(books) == used(device)
    assert holds(books)


def test_a_file_that_does_not_say_what_was_before_it_waits(books: Books) -> None:
    device = Device().work(20)
    learn(books, device)
    books.ingest(device.export(0, 5))
    assert books.code(device.export(10)) == "H201"
    assert decide(books) == []
    assert billed(books) == used(device, 5)
    outcome = books.ingest(device.tally().export(10))[0]
    assert outcome.code == "H201"  # another file, another decision
    decide(books)
    assert billed(books) == used(device)


def test_a_gap_that_hid_a_fork(books: Books) -> None:
    """The missing file comes and does not lead to what was taken after it."""
    device = worked(40)
    other = device.clone()
    device.use(tok_out=3).tally()
    other.use(tok_out=4).tally()
    cut = device.size
    device.use(tok_out=9).tally()
    learn(books, device)
    books.ingest(device.export(0, 30))
    books.ingest(device.export(cut))
    decide(books)
    outcome = books.ingest(other.export(30))[0]
    assert outcome.code == "H210" and books.log(device).frozen
    (case,) = [c for c in cases.cases(books.database) if c.code == "H210"]
    assert case.ours and case.theirs
    with books.database.read() as connection:
        trust = registry.load_trust(connection)
    report = evidence_check.check(evidence_pack.for_case(books.database, case.number), trust)
    assert report.ok and "two histories" in report.checks[-1].detail


def test_what_comes_after_the_invoice_is_corrected(books: Books) -> None:
    device = worked()
    learn(books, device)
    books.ingest(device.export(0, 40))
    books.ingest(device.export(80))
    decide(books)
    billing.bill(books.database, "L-1", SEPTEMBER, ISSUED, actor=EVA)
    assert corrections.correct(books.database, "L-1", ISSUED, actor=EVA) == []
    assert books.code(device.export(40, 80)) == "W130"
    assert (
        corrections.correct(books.database, "L-1", ISSUED, actor=EVA) == []
    )  # the month's total is the same
    assert billed(books) == used(device)


# --- tally files ------------------------------------------------------------------------------------------


def test_a_tally_file_bills_what_its_receipts_would(books: Books) -> None:
    device = worked()
    learn(books, device)
    outcome = books.ingest(device.tallies())[0]
    assert (outcome.code, outcome.accepted) == ("W152", device.size)
    assert billed(books) == used(device)
    assert books.log(device).size == 0 and holds(books)
    ack = ack_of(books, device)
    assert (ack.size, ack.root) == (device.size, device.frontier(device.size).root.hex())
    assert ack.lease is not None
    assert books.code(device.tallies()) == "W101"


def test_receipts_of_tallies_may_still_be_asked_for(books: Books) -> None:
    """An acknowledgement of tallies lets a device forget nothing."""
    device = worked(30)
    learn(books, device)
    books.ingest(device.tallies())
    assert ack_of(books, device).prune_below == 0
    cut = device.size
    device.wait(900_000).tally().use(tok_out=2).tally()
    books.ingest(device.tallies(cut))
    second = ack_of(books, device)
    assert (second.ack_seq, second.size, second.prune_below) == (2, device.size, 0)
    books.ingest(device.export(0, cut))
    third = ack_of(books, device)
    assert (third.size, third.prune_below) == (device.size, cut)


def test_tallies_then_receipts_then_tallies(books: Books) -> None:
    device = worked()
    learn(books, device)
    assert books.code(device.tallies(0, 50)) == "W152"
    assert books.code(device.export(50, 90)) == "W154"
    assert books.code(device.tallies(90)) == "W152"
    assert billed(books) == used(device)
    assert [o.code for o in books.ingest(device.export(0, 50))] == ["OK", "OK"]
    assert books.log(device).size == 90 and holds(books)
    assert billed(books) == used(device)


def test_a_torn_tally_file_counts_up_to_its_last_whole_block(books: Books) -> None:
    device = Device()
    for number in range(400):
        device.wait(900_000).tally().use(tok_out=number + 1)
    learn(books, device.tally())
    whole = device.tallies()
    data = whole[: len(whole) * 3 // 4]
    outcome = books.ingest(data)[0]
    assert outcome.code == "W104" and 0 < outcome.accepted < device.size
    assert books.code(device.tallies(outcome.accepted)) == "W152"
    assert billed(books) == used(device) and holds(books)


@pytest.mark.parametrize("kinds", ["tt", "tu", "ut", "tr", "rt", "ur", "ru"])
def test_two_histories_are_found_whatever_tells_of_them(books: Books, kinds: str) -> None:
    device = worked(20)
    other = device.clone()
    for machine, tokens in ((device, 5), (other, 6)):
        machine.wait(900_000).tally().use(tok_out=tokens).tally()
    learn(books, device)
    makers = {"t": "tallies", "u": "export", "r": "reading"}
    first, second = (getattr(m, makers[k])() for m, k in zip((device, other), kinds, strict=True))
    assert books.code(first) in ("OK", "W152", "W153")
    assert books.code(second) == "H210"
    assert books.log(device).frozen and ack_of(books, device).lease is None
    (case,) = [c for c in cases.cases(books.database) if c.code == "H210"]
    with books.database.read() as connection:
        trust = registry.load_trust(connection)
    report = evidence_check.check(evidence_pack.for_case(books.database, case.number), trust)
    assert report.ok, report.checks[-1]


def test_tallies_that_fall_are_held(books: Books) -> None:
    device = worked(20)
    device.registers = Registers()
    device.tally()
    learn(books, device)
    assert books.code(device.tallies()) == "H213"
    assert billed(books) == dict.fromkeys(METERS, 0)


def test_a_tally_file_of_a_test_license_is_not_billed(books: Books) -> None:
    device = Device(make_license(environment="test")).use().tally()
    learn(books, device)
    assert books.ingest(device.tallies())[0].flags == ("W150", "W152")


# --- meter readings ---------------------------------------------------------------------------------------


def test_a_reading_bills_the_difference_of_the_registers(books: Books) -> None:
    device = worked()
    learn(books, device)
    books.ingest(device.export(0, 40))
    outcome = books.ingest(device.reading(100))[0]
    assert (outcome.code, outcome.detail) == ("W153", "registers up to receipt 100")
    assert billed(books) == used(device, 100)
    assert books.code(device.reading()) == "W153" and books.code(device.reading()) == "W101"
    assert billed(books) == used(device) and holds(books)
    assert net(books) == f"{used(device)['tok_out'] / 100:.2f}"


def test_a_reading_moves_no_acknowledgement_but_the_lease(books: Books) -> None:
    """The receipts behind it are still wanted; what it shows is settled for the ceilings."""
    device = worked(30)
    learn(books, device)
    books.ingest(device.export(0, 20))
    before = ack_of(books, device)
    books.ingest(device.reading())
    after = ack_of(books, device)
    assert (after.size, after.root, after.prune_below) == (before.size, before.root, 20)
    assert after.ack_seq == 2 and after.lease is not None
    assert "running totals" in (after.statement or "")
    with books.database.read() as connection:
        total = epochs.totals(epochs.family(connection, "L-1", device.id))
    assert total["calls"] == used(device)["calls"]


def test_a_reading_is_all_that_is_known(books: Books) -> None:
    device = worked(30)
    learn(books, device)
    assert books.code(device.reading()) == "W153"
    assert billed(books) == used(device)
    ack = ack_of(books, device)
    assert (ack.size, ack.prune_below) == (0, 0) and ack.lease is not None
    assert [o.code for o in books.ingest(device.export())] == ["OK"]
    assert billed(books) == used(device) and books.log(device).size == device.size and holds(books)


def test_an_invoice_of_readings_is_corrected_by_receipts(books: Books) -> None:
    """They fall into the same month, so nothing is left to correct."""
    device = worked(30)
    learn(books, device)
    books.ingest(device.reading())
    assert holds(books)
    assert books.code(device.export()) == "W130"
    assert corrections.correct(books.database, "L-1", ISSUED, actor=EVA) == [] and holds(books)


def test_readings_of_what_is_known_are_duplicates(books: Books) -> None:
    device = worked(30)
    learn(books, device)
    books.ingest(device.export())
    assert books.code(device.reading(12)) == "W103"
    assert books.code(device.reading()) == "W103"
    assert billed(books) == used(device)


def test_a_scanned_reading_is_one_code_of_letters_and_digits(books: Books) -> None:
    device = worked(30)
    learn(books, device)
    (text,) = frames(device.reading())
    assert text.isalnum() and len(text) < 1500
    assert books.code(f"\n{text.lower()}\n".encode()) == "W153"
    assert billed(books) == used(device)


def changed(device: Device, **members: Any) -> bytes:
    """A reading that says something else, signed by the device."""
    payload = json.loads(Parcel.from_bytes(device.reading()).documents[0].payload)
    payload.pop("schema")
    return Parcel((documents.seal("reading", payload | members, device.key),)).to_bytes()


def test_a_reading_that_its_receipts_contradict(books: Books) -> None:
    device = worked(30)
    learn(books, device)
    more = json.loads(json.dumps(device.registers.to_tally()))
    more["r1"]["ok"]["calls"] += 100
    assert books.code(changed(device, registers=more)) == "W153"
    assert books.code(device.export()) == "H213"


def test_readings_that_nobody_can_have_signed(books: Books) -> None:
    device, stranger = worked(10), Device(number=9).use().tally()
    learn(books, device)
    broken = device.reading().replace(b'"sig":"', b'"sig":"AAAA', 1)
    assert books.code(broken) == "R301"
    assert books.code(stranger.reading()) == "R302"
    other = Checkpoint(device.origin, device.size, Frontier().root)
    forged = sign_checkpoint(other, stranger.key).decode()
    assert books.code(changed(device, checkpoint=forged)) == "R301"
    assert books.code(changed(device, ack_seq=7)) == "H214"
    assert books.code(changed(device, routes={"r1": {"seq": 1, "bundle_digest": "ab" * 32}})) == "H250"
    assert books.code(changed(device, used_at=(NOW + 90_000) * 1000)) == "H221"
    assert billed(books) == dict.fromkeys(METERS, 0)


@pytest.mark.parametrize(
    "members",
    [
        {"registers": {"r1": {"good": {"calls": 1}}}},
        {"registers": {"r1": {"ok": {"words": 1}}}},
        {"registers": {"r9": {"ok": {"calls": 1}}}},
        {"registers": {"R 1": {"ok": {"calls": 1}}}},
        {"used_at": -1},
        {"routes": {"r1": {"seq": 1}}},
    ],
)
def test_readings_that_are_none(books: Books, members: dict[str, Any]) -> None:
    device = worked(10)
    learn(books, device)
    assert books.code(changed(device, **members)) == "R301"


def test_a_log_with_readings_that_another_one_followed(books: Books) -> None:
    """A rolled back device: what its mark carries over and what a reading showed is counted once."""
    old = worked(30)
    new = old.wait(3_600_000).restored()
    new.tally().use(tok_out=8).tally()
    learn(books, old)
    for data in (old.reading(), new.export()):
        books.ingest(data)
    with books.database.read() as connection:
        total = epochs.totals(epochs.family(connection, "L-1", old.id))
        usage = billing.usage_of(connection, "L-1")
    expected = used(old)["tok_out"] + 8
    assert total["tok_out"] == expected
    assert sum(n for (_, _, meter), n in usage.items() if meter == "tok_out") == expected


def test_a_reading_past_the_point_where_another_log_began(books: Books) -> None:
    old = worked(30)
    new = old.wait(3_600_000).restored()
    new.tally().use(tok_out=8).tally()
    learn(books, old)
    books.ingest(new.export())
    assert books.code(old.use(tok_out=5).tally().reading()) == "H211"
