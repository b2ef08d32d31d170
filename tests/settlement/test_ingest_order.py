"""Nothing is lost or billed twice, whatever order, duplication or damage files arrive in."""

from __future__ import annotations

import gzip
import tempfile
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.books import NOW, Books
from support.device import Device

from sealpack.settlement import billing, db
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
