"""Usage counts between the times that settlement itself gave, whatever the device's clock said."""

from __future__ import annotations

import tempfile
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings, strategies as st
from support.books import NOW, Books
from support.device import T0, Device

from sealpack.format import documents, records
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.settlement import billing, db, epochs, ingest
from sealpack.settlement.reconcile import reconcile
from sealpack.settlement.times import latest

HOUR = 3_600_000
QUARTER = 900_000


def taken(books: Books, device: Device, now: int, **lied: int) -> None:
    """The device imports its newest acknowledgement, made at `now`."""
    (sealed,) = Parcel.from_bytes(books.reply(device, now=now).data).documents
    said = documents.payload_fields(sealed, "acknowledgement")
    names = {name: said.integer(name) for name in ("ack_seq", "size", "server_time")}
    device.put(records.ACKNOWLEDGED, digest=sealed.digest, **(names | lied))


def quarters(books: Books) -> dict[int, int]:
    """Calls by quarter of an hour, in hours after T0."""
    found: dict[int, int] = {}
    for row in books.rows(db.rollups):
        at = (row["quarter_ms"] - T0 * 1000 // QUARTER * QUARTER) // QUARTER
        found[at] = found.get(at, 0) + row["calls"]
    return found


def used(device: Device, calls: int, time_ms: int) -> None:
    """One record of that time, whatever the time is."""
    meters = {"calls": calls}
    device.put(records.USAGE, route="r1", status="ok", meters=meters, wait_ms=0, time_ms=time_ms)


def test_usage_before_the_acknowledgement_it_follows_counts_when_that_was_given(books: Books) -> None:
    device = Device().use()
    books.learn(device)
    assert books.code(device.export()) == "OK"
    taken(books, device, T0 + 7200)
    start = device.size
    assert books.code(device.use(calls=2).use(calls=4).export(start - 1)) == "OK"
    assert quarters(books) == {0: 1, 8: 6}
    start = device.size
    assert books.code(device.use(calls=8).export(start)) == "OK"  # also in a later file
    assert quarters(books) == {0: 1, 8: 14}
    assert reconcile(books.database, NOW).ok


def test_usage_ahead_of_the_acknowledgement_of_it_counts_when_that_was_given(books: Books) -> None:
    device = Device().use()
    used(device, 2, T0 * 1000 + 10 * HOUR)
    books.learn(device)
    assert books.code(device.export(), now=T0 + 60) == "W120"
    size = device.size
    assert quarters(books) == {0: 1, 40: 2}
    used(device, 4, T0 * 1000 + HOUR)  # not acknowledged yet when that one was made
    taken(books, device, T0 + 60)
    device.wait(11 * HOUR).use(calls=8)
    assert books.code(device.export(size), now=NOW) == "OK"
    assert quarters(books) == {0: 3, 4: 4, 44: 8}
    assert reconcile(books.database, NOW).ok


def test_a_month_that_was_invoiced_is_told_of(books: Books) -> None:
    october = 1_790_812_800  # 2026-10-01, midnight UTC
    device = Device().until((october + 3600) * 1000).use()
    books.learn(device)
    assert books.code(device.export(), now=october - 3600) == "W120"
    size = device.size
    billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 1))
    taken(books, device, october - 3600)
    assert books.code(device.use().export(size), now=october + 7200) == "W130"


def test_settlements_own_clock_may_be_set_back(books: Books) -> None:
    device = Device().use()
    books.learn(device)
    books.ingest(device.export())
    taken(books, device, T0 + 7200)
    books.ingest(device.use().export(), now=T0 + 7300)
    taken(books, device, T0 + 3600)
    size = device.size
    assert books.code(device.use().export(size - 1), now=NOW) == "OK"
    assert quarters(books) == {0: 1, 8: 2}
    assert reconcile(books.database, NOW).ok


def test_damaged_evidence_moves_nothing(books: Books) -> None:
    device = Device().use()
    used(device, 2, T0 * 1000 + 10 * HOUR)
    books.learn(device)
    books.ingest(device.export(), now=T0 + 60)
    size = device.size
    taken(books, device, T0 + 60)
    with books.database.write() as connection:
        connection.execute(sa.update(db.evidence).values(data=device.export(0, 1)))
    with pytest.raises(SealpackError, match="was changed") as caught:
        books.ingest(device.use().export(size), now=NOW)
    assert caught.value.code == "STORE_CORRUPT"
    assert quarters(books) == {0: 1, 40: 2}


@pytest.mark.parametrize("lied", [{"size": 1}, {"server_time": T0 + 1}])
def test_what_a_device_says_of_an_acknowledgement_must_be_so(books: Books, lied: dict[str, int]) -> None:
    device = Device().use()
    books.learn(device)
    books.ingest(device.export())
    size = device.size
    taken(books, device, NOW, **lied)
    (outcome,) = books.ingest(device.export(size))
    assert (outcome.code, next(iter(lied)) in outcome.detail) == ("H214", True)


def test_a_bound_holds_for_everything_before_it() -> None:
    at = latest([(5, 100), (9, 50), (20, 70)])
    assert [at(position) for position in (0, 4, 5, 8, 9, 19, 20)] == [50, 50, 50, 50, 70, 70, None]
    assert latest([])(0) is None


# --- in any order, cut anywhere -------------------------------------------------------------------------


def put_right() -> Device:
    """A device whose clock was 20 hours ahead until a repair, and jumped once more."""
    device = Device().work(20)
    start = device.now_ms
    device.wait(20 * HOUR).work(30)
    device.now_ms = start + HOUR
    device.put(records.CLOCK, event="repaired", delta_ms=-1, uptime_ms=100 * HOUR)
    device.start()
    uptime = 101 * HOUR
    for step in range(30):
        device.wait(60_000)
        meters = {"calls": 1, "ms": 1 + step}
        device.put(records.USAGE, route="r1", status="ok", meters=meters, wait_ms=0, uptime_ms=uptime + step)
    device.put(records.TALLY, registers=device.registers.to_tally(), uptime_ms=102 * HOUR)
    return device


DEVICE = put_right()
SIZE = DEVICE.size


def result(cuts: list[int], order: list[int]) -> tuple[Any, ...]:
    """Roll-ups, size and invoice after the log came cut there, in that order; held files are set free."""
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder)).learn(DEVICE)
        spans = list(pairwise([0, *cuts, SIZE]))
        for index in order:
            books.ingest(DEVICE.export(*spans[index]))
        ingest.release(books.database, NOW)
        assert reconcile(books.database, NOW).ok
        with books.database.read() as connection:
            totals = epochs.totals(epochs.family(connection, "L-1", DEVICE.id))
        bill = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 1))
        found = books.log(DEVICE).stamp, books.rows(db.rollups), totals, bill.files
        books.database.close()
    return found


WHOLE = result([], [0])


def test_what_was_ahead_counts_when_the_clock_was_put_right() -> None:
    latest_quarter = max(row["quarter_ms"] for row in WHOLE[1])
    assert latest_quarter <= DEVICE.now_ms < T0 * 1000 + 20 * HOUR


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_totals_do_not_depend_on_where_the_log_was_cut_or_on_the_order(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, SIZE - 1), max_size=4)))
    order = data.draw(st.permutations(range(len(cuts) + 1)))
    assert result(cuts, order) == WHOLE
