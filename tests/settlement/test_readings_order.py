"""Usage files, tally files, meter readings and closed gaps of one device, in any order: the same truth."""

from __future__ import annotations

import tempfile
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import given, settings, strategies as st
from support.books import Books
from support.device import T0, Device

from sealpack.settlement import billing, cases, db, epochs, evidence_check, evidence_pack, registry
from sealpack.settlement.audit import Actor
from sealpack.settlement.cases import ACCEPT
from sealpack.settlement.reconcile import reconcile

NOW = T0 + 40 * 86_400
EVA = Actor("eva", NOW)
QUARTER_MS = 900_000
METERS = ("calls", "tok_in", "tok_out", "ms")
Piece = tuple[str, int, int]  # usage | tallies | reading, and a range of receipts


def busy() -> Device:
    """A device with a month's end in its log, and a tally wherever a runtime writes one."""
    device, quarter = Device(), 0
    for count in range(260):
        device.wait(60_000 if count % 17 else 41 * 3_600_000)
        if device.now_ms // QUARTER_MS != quarter:
            device.tally()
            quarter = device.now_ms // QUARTER_MS
        device.use(tok_out=1 + count % 97, status="err" if count % 11 == 0 else "ok")
    return device.tally()


DEVICE = busy()
SIZE = DEVICE.size
BYTES: dict[Piece, bytes] = {}


def bytes_of(piece: Piece) -> bytes:
    if piece not in BYTES:
        kind, start, end = piece
        makers = {"usage": DEVICE.export, "tallies": DEVICE.tallies}
        BYTES[piece] = DEVICE.reading(end) if kind == "reading" else makers[kind](start, end)
    return BYTES[piece]


def accept_gaps(books: Books) -> None:
    """A person closes one gap after the other; what that sets free needs nobody."""
    while waiting := [c for c in cases.cases(books.database) if c.code == "H201" and c.state == "open"]:
        cases.decide(books.database, waiting[0].number, ACCEPT, "the stick is lost", actor=EVA)


def result(pieces: list[Piece], *, close: bool = False) -> dict[str, Any]:
    """What settlement knows after these files; with `close` a person closes every gap at the end."""
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder)).learn(DEVICE)
        for piece in pieces:
            books.ingest(bytes_of(piece), "-".join(map(str, piece)), NOW)
        if close:
            accept_gaps(books)
        found = reconcile(books.database, NOW)
        assert found.ok, found.problems
        with books.database.read() as connection:
            held = connection.execute(sa.select(db.logs.c.origin)).scalar()
            pack = evidence_pack.for_log(connection, held) if held else None
            trust = registry.load_trust(connection)
        if pack is not None:
            report = evidence_check.check(pack, trust)
            assert report.ok, report.checks[-1]
        bills = [
            billing.bill(books.database, "L-1", month, date(2026, 11, 1), draft=True)
            for month in (date(2026, 9, 1), date(2026, 10, 1))
        ]
        with books.database.read() as connection:
            settled = epochs.totals(epochs.family(connection, "L-1", DEVICE.id))
            usage = billing.usage_of(connection, "L-1")
        known = {
            "codes": books.codes(), "settled": settled, "usage": usage, "rollups": books.rows(db.rollups),
            "bills": [bill.json for bill in bills],
        }  # fmt: skip
        books.database.close()
    return known


def total(usage: dict[tuple[int, str, str], int], meter: str) -> int:
    return sum(amount for (_, _, name), amount in usage.items() if name == meter)


WHOLE = result([("usage", 0, SIZE)])


def test_the_device_is_worth_testing() -> None:
    """Its usage lies in two months."""
    assert len({bill for bill in WHOLE["bills"]}) == 2
    assert {total(WHOLE["usage"], meter) > 0 for meter in METERS} == {True}


def test_tallies_alone_bill_the_same_in_the_same_quarters() -> None:
    """Every quarter of an hour, status and meter as with the receipts themselves."""
    found = result([("tallies", 0, SIZE)])
    assert found["usage"] == WHOLE["usage"] and found["rollups"] == WHOLE["rollups"]
    assert found["settled"] == WHOLE["settled"] and found["codes"] == ["W152"]


@st.composite
def pieces(draw: st.DrawFn, *, whole: bool) -> list[Piece]:
    """Files of every kind in any order; with `whole` the usage files among them hold everything."""
    cuts = sorted(draw(st.sets(st.integers(2, SIZE - 1), max_size=4)))
    spans = list(pairwise([0, *cuts, SIZE]))
    found: list[Piece] = []
    for start, end in spans:
        kinds = draw(st.sets(st.sampled_from(("usage", "tallies")), min_size=1))
        found += [(kind, max(0, start - draw(st.integers(0, 9)) * (kind == "usage")), end) for kind in kinds]
        if whole and "usage" not in kinds:
            found.append(("usage", start, end))
    found += [("reading", 0, draw(st.integers(2, SIZE))) for _ in range(draw(st.integers(0, 3)))]
    found += draw(st.lists(st.sampled_from(found), max_size=2))
    return draw(st.permutations(found))


@given(pieces(whole=True))
@settings(max_examples=25, deadline=None)
def test_once_all_receipts_are_here_nothing_else_is_left_of_it(found: list[Piece]) -> None:
    known = result(found)
    for name in ("settled", "usage", "rollups", "bills"):
        assert known[name] == WHOLE[name], name


@given(pieces(whole=False), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_of_files_does_not_matter(found: list[Piece], random: Any) -> None:
    """Also while receipts are missing."""
    again = list(found)
    random.shuffle(again)
    one, other = result(found), result(again)
    for name in ("settled", "usage", "rollups", "bills"):
        assert one[name] == other[name], name
    for meter in METERS:
        assert one["settled"][meter] == total(one["usage"], meter)


@given(pieces(whole=False), st.data())
@settings(max_examples=15, deadline=None)
def test_closed_gaps_lose_nothing_and_count_nothing_twice(found: list[Piece], data: st.DataObject) -> None:
    """Whatever is missing when gaps are closed, all that was used in front of a tally is billed."""
    kept = [p for p in found if data.draw(st.booleans())] + [("usage", 0, 2), ("usage", SIZE - 30, SIZE)]
    known = result(data.draw(st.permutations(kept)), close=True)
    for meter in METERS:
        assert total(known["usage"], meter) == total(WHOLE["usage"], meter) == known["settled"][meter]
