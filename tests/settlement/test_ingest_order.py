"""Nothing is lost or billed twice, whatever order, duplication or damage files arrive in."""

from __future__ import annotations

import gzip
import tempfile
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings, strategies as st
from support.books import NOW, Books
from support.device import Device

from sealpack.settlement import billing, db, epochs
from sealpack.settlement.reconcile import reconcile

DEVICE = Device().work(620, step_ms=300_000)
SIZE = DEVICE.size
FILES: dict[tuple[int, int], bytes] = {}


def part(start: int, end: int) -> bytes:
    """The usage file with receipts [start, end)."""
    if (start, end) not in FILES:
        FILES[start, end] = DEVICE.export(start, end)
    return FILES[start, end]


def result(files: list[bytes]) -> tuple[Any, ...]:
    """What settlement knows after these files: log, roll-ups, lease ceilings and invoice."""
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder)).learn(DEVICE)
        for data in files:
            books.ingest(data)
        assert reconcile(books.database, NOW).ok
        bill = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 1))
        log = books.log(DEVICE)
        found = log.stamp, log.state.to_dict(), books.rows(db.rollups), bill.files
        books.database.close()
    return found


ONCE = result([part(0, SIZE)])


def test_once_is_right() -> None:
    stamp, state, _, _ = ONCE
    assert stamp == (SIZE, DEVICE.frontier(SIZE).root.hex(), False)
    assert state["registers"] == DEVICE.registers.to_tally()


def test_twice_and_in_two_halves_in_either_order() -> None:
    whole, first, second = part(0, SIZE), part(0, 300), part(300, SIZE)
    for files in ([whole, whole], [first, second], [second, first], [second, first, whole], [first, whole]):
        assert result(files) == ONCE


@st.composite
def arrivals(draw: st.DrawFn) -> list[bytes]:
    """Files that together cover the log: overlapping, repeated, unpacked, torn, shuffled."""
    cuts = sorted(draw(st.sets(st.integers(1, SIZE - 1), max_size=4)))
    bounds = [0, *cuts, SIZE]
    ranges = [
        (max(0, start - draw(st.integers(0, 40))), min(SIZE, end + draw(st.integers(0, 40))))
        for start, end in pairwise(bounds)
    ]
    files = [part(*span) for span in ranges]
    extra = draw(st.lists(st.sampled_from(files), max_size=3))
    for data in extra:
        how = draw(st.sampled_from(("same", "unpacked", "torn")))
        if how == "unpacked":
            data = gzip.decompress(data)
        elif how == "torn":
            data = data[: draw(st.integers(0, len(data)))]
        files.append(data)
    return draw(st.permutations(files))


@given(arrivals())
@settings(max_examples=25, deadline=None)
def test_any_order_gives_the_same_log_and_the_same_money(files: list[bytes]) -> None:
    assert result(files) == ONCE


# --- two logs: the first one was set back -----------------------------------------------------------

OLD = Device().work(200, step_ms=300_000)
NEW = OLD.wait(3_600_000).restored().work(60, step_ms=300_000)
Piece = tuple[int, int, int]  # epoch, and a range of receipts: the usage file that holds it
PAIR: dict[Piece, bytes] = {}


def bytes_of(piece: Piece) -> bytes:
    if piece not in PAIR:
        epoch, start, end = piece
        PAIR[piece] = (OLD, NEW)[epoch].export(start, end)
    return PAIR[piece]


def result_of_both(pieces: list[Piece]) -> tuple[Any, ...]:
    """What settlement knows of both logs: logs, roll-ups, differences, usage, ceilings and invoice."""
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder)).learn(OLD)
        for piece in pieces:
            books.ingest(bytes_of(piece))
        assert reconcile(books.database, NOW).ok
        bill = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 1))
        with books.database.read() as connection:
            members = epochs.family(connection, "L-1", OLD.id)
            usage = billing.usage_of(connection, "L-1")
        found = members, books.rows(db.rollups), usage, epochs.totals(members), bill.files
        books.database.close()
    return found


def total_of(usage: dict[tuple[int, str, str], int], meter: str) -> int:
    return sum(amount for (_, _, name), amount in usage.items() if name == meter)


@st.composite
def covering(draw: st.DrawFn, epoch: int, end: int) -> list[Piece]:
    """Files that together hold the first `end` receipts of a log, some of them twice."""
    cuts = sorted(draw(st.sets(st.integers(1, end - 1), max_size=3)))
    spans = [
        (epoch, max(0, start - draw(st.integers(0, 9))), stop) for start, stop in pairwise([0, *cuts, end])
    ]
    return spans + draw(st.lists(st.sampled_from(spans), max_size=2))


@given(st.data(), st.sampled_from([2, 57, OLD.size - 1, OLD.size]))
@settings(max_examples=25, deadline=None)
def test_two_logs_in_any_order_with_the_end_of_the_first_or_without(data: st.DataObject, came: int) -> None:
    """What of the first log never comes is billed once, as a difference; what comes is not billed twice."""
    pieces = data.draw(covering(0, came)) + data.draw(covering(1, NEW.size))
    found = result_of_both(data.draw(st.permutations(pieces)))
    assert found == result_of_both([(0, 0, came), (1, 0, NEW.size)])
    for meter in ("calls", "tok_in", "tok_out", "ms"):
        used = OLD.registers.total(meter) + NEW.registers.total(meter)
        assert total_of(found[2], meter) == found[3][meter] == used
