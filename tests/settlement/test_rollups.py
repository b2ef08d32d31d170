"""Roll-ups of logs, their sums per license, and databases from before there were any."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.books import NOW, Books
from support.device import Device, make_license

from sealpack.format.records import METER_ORDER
from sealpack.settlement import billing, bulk, db, rollups
from sealpack.settlement.periods import local_day
from sealpack.settlement.reconcile import reconcile

RELEASE = Path(__file__).parents[1] / "releases/0.4.0/settlement.db.gz"
MONTH, ISSUED = date(2026, 9, 1), date(2026, 10, 1)
STRANGE = ("null", "", 'a"b', "c\\d", "{e,f}", "g'h", "\u00e4\n")


@contextmanager
def statements(books: Books) -> Iterator[list[str]]:
    """The SQL that is run meanwhile."""
    said: list[str] = []

    def note(_c: Any, _k: Any, statement: str, *_more: Any) -> None:
        said.append(statement)

    sa.event.listen(books.database._engine, "before_cursor_execute", note)
    try:
        yield said
    finally:
        sa.event.remove(books.database._engine, "before_cursor_execute", note)


def test_amounts_are_added_to_rows_that_are_there(books: Books) -> None:
    books.learn(Device())
    first = [("L-1", 900_000, 1, status, 1, 2, 3, 4, 5) for status in sorted(STRANGE)]
    more = [("L-1", 900_000, 1, "null", 10, 0, -3, 0, 1), ("L-1", 1_800_000, 1, "ok", 0, 0, 0, 2**62, 0)]
    with books.database.write() as connection:
        bulk.add(connection, db.license_usage, first)
        bulk.add(connection, db.license_usage, more)
        bulk.add(connection, db.license_usage, [])
    found = {
        (row["quarter_ms"], row["status"]): [row[m] for m in METER_ORDER]
        for row in books.rows(db.license_usage)
    }
    expected = {(900_000, status): [1, 2, 3, 4, 5] for status in STRANGE}
    assert found == expected | {(900_000, "null"): [11, 2, 0, 4, 6], (1_800_000, "ok"): [0, 0, 0, 2**62, 0]}


def test_usage_of_a_license_has_as_many_rows_for_six_devices_as_for_one(books: Books) -> None:
    devices = [Device(number=n).work(20) for n in range(1, 7)]
    books.learn(*devices)
    rows = []
    for device in devices:
        assert books.code(device.export()) == "OK"
        rows.append(len(books.rows(db.license_usage)))
    assert len(set(rows)) == 1 < len(books.rows(db.rollups)) / rows[0]
    with books.database.read() as connection:
        assert rollups.usage_of(connection, "L-1") == rollups.summed(connection, "L-1")
        tokens = sum(
            n for (_, _, meter), n in billing.usage_of(connection, "L-1").items() if meter == "tok_out"
        )
    assert tokens == sum(device.registers.total("tok_out") for device in devices)


def test_an_invoice_reads_nothing_that_grows_with_receipts(books: Books) -> None:
    books.learn(device := Device().work(30))
    books.code(device.export())
    with statements(books) as said:
        billing.bill(books.database, "L-1", MONTH, ISSUED)
    assert any("license_usage" in statement for statement in said)
    assert not any(
        f" {name} " in f"{statement} " for statement in said for name in ("rollups", "files", "segments")
    )


@pytest.mark.parametrize("tz", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "Europe/Berlin"])
def test_what_is_summed_by_month_is_of_that_month_in_every_zone(books: Books, tz: str) -> None:
    """Every quarter hour around the ends of months, and some between, each with an amount of its own."""
    books.learn(Device())
    instants = [
        datetime(2025, 12, 1, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 3, 1, tzinfo=UTC),
    ]
    quarters = {
        int((instant + timedelta(minutes=15 * n)).timestamp()) * 1000
        for instant in instants
        for n in (*range(-70, 71), 500, 1000, 1500)
    }
    rows = [("L-1", ms, seq, "ok", ms % 7919, 1, 0, seq, 3) for ms in sorted(quarters) for seq in (1, 2)]
    with books.database.write() as connection:
        bulk.add(connection, db.license_usage, rows)
    with books.database.read() as connection:
        fine, coarse = rollups.usage_of(connection, "L-1"), rollups.usage_by_month(connection, "L-1")
        assert rollups.usage_by_month(connection, "L-2") == {}
    assert len(fine) == len(rows) > 1.2 * len(coarse)
    assert by_month(coarse, tz) == by_month(fine, tz)


def by_month(usage: rollups.Usage, tz: str) -> dict[tuple[str, int], list[int]]:
    """Amounts per month of a zone and number."""
    found: dict[tuple[str, int], list[int]] = {}
    for (quarter, seq, _), amounts in usage.items():
        key = f"{local_day(quarter, tz):%Y-%m}", seq
        found[key] = [a + b for a, b in zip(found.get(key, [0] * 5), amounts, strict=True)]
    return found


# --- a database of version 3 ------------------------------------------------------------------------

_SPLIT = "INSERT INTO old SELECT origin, route, quarter_ms, status, '{0}', {0} FROM rollups WHERE {0} > 0;"
TO_3 = f"""
CREATE TABLE old (origin TEXT, route TEXT, quarter_ms BIGINT, status TEXT, meter TEXT, amount BIGINT,
  PRIMARY KEY (origin, route, quarter_ms, status, meter));
{"".join(map(_SPLIT.format, METER_ORDER))}
DROP TABLE rollups; DROP TABLE license_usage; DROP TABLE daily; ALTER TABLE old RENAME TO rollups;
UPDATE about SET schema_version = 3
"""


def test_rows_of_version_3_are_turned(books: Books) -> None:
    devices = Device().work(40), Device(number=2).work(10)
    tested = Device(make_license(license_id="L-2", environment="test"), number=3).work(10)
    books.learn(*devices, tested)
    for device in (*devices, tested):
        books.code(device.export())
    before = books.rows(db.rollups), books.rows(db.license_usage)
    with books.database.write() as connection:
        for statement in TO_3.split(";"):
            connection.exec_driver_sql(statement)
    books.database.close()
    again = Books.open(books.folder, books.url)
    assert (again.rows(db.rollups), again.rows(db.license_usage)) == before
    assert "rollups_before_4" not in sa.inspect(again.database._engine).get_table_names()
    assert reconcile(again.database, NOW).ok
    again.database.close()


@pytest.mark.sqlite_only
def test_a_database_that_0_4_0_made(books: Books) -> None:
    """Two devices, one with lost records; a file twice, an overlap, a test license, no usage; an invoice."""
    books.database.close()
    (books.folder / "settlement.db").write_bytes(gzip.decompress(RELEASE.read_bytes()))
    with sqlite3.connect(books.folder / "settlement.db") as old:
        total = dict(old.execute("SELECT meter, sum(amount) FROM rollups GROUP BY meter"))
        assert old.execute("SELECT schema_version FROM about").fetchall() == [(3,)]
    old.close()
    again = Books.open(books.folder)
    found = again.rows(db.rollups)
    assert {meter: n for meter in METER_ORDER if (n := sum(row[meter] for row in found))} == total
    assert reconcile(again.database, NOW).ok
    (issued,) = again.rows(db.invoices)
    with again.database.write() as connection:
        connection.execute(sa.delete(db.postings))
        connection.execute(sa.delete(db.transactions))
        connection.execute(sa.delete(db.invoices))
    anew = billing.bill(again.database, "L-1", MONTH, ISSUED)
    assert (anew.name, anew.json) == (issued["name"], issued["json"])
    again.database.close()
