"""Usage by day, customer, model and machine: the same sums as the roll-ups, whatever happened to the logs."""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from settlement.test_times import taken, used
from support import office, rating_plans
from support.books import NOW, Books
from support.device import T0, Device, make_license

from sealpack.format.license import Customer
from sealpack.settlement import billing, daily, db
from sealpack.settlement.console import charts
from sealpack.settlement.exports import usage as export
from sealpack.settlement.overview import usage
from sealpack.settlement.overview.usage import Choice
from sealpack.settlement.plan import FIELDS, Plan
from sealpack.settlement.reconcile import reconcile

EVER = Choice(date(2026, 1, 1), date(2027, 12, 31), tests=True)
HOUR_MS = 3_600_000


def in_zone(tz: str) -> Plan:
    return rating_plans.make_plan(head={"tz": tz})


def totals(books: Books, *by: str, choice: Choice = EVER) -> dict[tuple[str, ...], int]:
    with books.database.read() as connection:
        return {key: said["calls"] for key, said in usage.totals(connection, choice, by).items()}


def test_days_are_those_of_the_price_plan(books: Books) -> None:
    device = Device()
    device.until((T0 - T0 % 86_400) * 1000 + 22 * HOUR_MS + 1).use(3)  # 2026-09-21 22:00 UTC, next day there
    device.wait(HOUR_MS).use(2)
    books.learn(device, plan=in_zone("Asia/Tokyo"))
    assert books.code(device.export()) == "OK"
    assert totals(books, "day") == {("2026-09-22",): 5}
    assert totals(books, "month", "status") == {("2026-09", "ok"): 5}


def test_each_key_and_each_choice(books: Books) -> None:
    other = make_license(license_id="L-2", customer=Customer("clinic", "Clinic"))
    trial = make_license(license_id="L-3", environment="test")
    one, two, three = Device().use(3), Device(other, 2).use(4), Device(trial, 3).use(5)
    books.learn(one, two, three)
    for device in (one, two, three):
        books.ingest(device.export())
    day = "2026-09-21"
    assert totals(books, "customer") == {("hospital",): 8, ("clinic",): 4}
    assert totals(books, "customer", choice=Choice(EVER.first, EVER.last)) == {
        ("hospital",): 3,
        ("clinic",): 4,
    }
    assert totals(books, "day", "license") == {(day, "L-1"): 3, (day, "L-2"): 4, (day, "L-3"): 5}
    assert totals(books, "machine", choice=Choice(EVER.first, EVER.last, "clinic")) == {(two.id,): 4}
    assert totals(books, "license", choice=Choice(EVER.first, EVER.last, license_id="L-1")) == {("L-1",): 3}
    assert totals(books, "day", choice=Choice(date(2026, 9, 22), EVER.last)) == {}
    assert totals(books, "model") == {(one_build(books),): 12}
    with books.database.read() as connection:
        names = usage.names(connection)
    assert names.of("model", one_build(books)) == "Tiny 1.0.0"
    assert (names.of("customer", "hospital"), names.of("machine", one.id)) == (
        "Hospital Nord gGmbH",
        "ward 3",
    )
    assert (names.of("customer", "nobody"), names.of("model", "")) == ("nobody", "not named")


def one_build(books: Books) -> str:
    (digest,) = {row["digest"] for row in books.rows(db.bundles)}
    return str(digest)


def test_what_a_later_log_carries_over_counts_where_invoices_count_it(books: Books) -> None:
    device = Device().use(3)
    early = device.size
    device.use(4)
    later = device.wait(2 * 86_400_000).restored().use(5)
    books.learn(device)
    books.ingest(device.export(0, early)), books.ingest(later.export())
    assert totals(books, "day", "status") == {
        ("2026-09-21", "ok"): 3, ("2026-09-23", "ok"): 5, ("2026-09-23", "lost"): 4
    }  # fmt: skip
    assert sum(totals(books, "license").values()) == billed(books, "L-1")["calls"]
    books.ingest(device.export())  # what was missing comes after all
    assert totals(books, "day", "status") == {("2026-09-21", "ok"): 7, ("2026-09-23", "ok"): 5}


def billed(books: Books, license_id: str) -> Counter[str]:
    found: Counter[str] = Counter()
    with books.database.read() as connection:
        for (_, _, meter), amount in billing.usage_of(connection, license_id).items():
            found[meter] += amount
    return found


def test_usage_that_is_moved_to_its_true_time_moves_to_its_day(books: Books) -> None:
    """As tests/settlement/test_times.py: dated ahead of the acknowledgement that covers it."""
    device = Device().use()
    used(device, 2, T0 * 1000 + 10 * HOUR_MS)
    books.learn(device)
    assert books.code(device.export(), now=T0 + 60) == "W120"
    assert totals(books, "day") == {("2026-09-21",): 1, ("2026-09-22",): 2}
    size = device.size
    taken(books, device, T0 + 60)
    device.wait(11 * HOUR_MS).use(8)
    assert books.code(device.export(size), now=NOW) == "OK"
    assert totals(books, "day") == {("2026-09-21",): 3, ("2026-09-22",): 8}
    assert reconcile(books.database, NOW).ok


def test_the_days_say_what_the_usage_export_says(tmp_path: Path) -> None:
    """A whole vendor's books: forks, gaps, late files, sub-licenses, five zones."""
    found = office.make(tmp_path)
    with found.database.read() as connection:
        report = export.report(connection, EVER.first, EVER.last, by=("day", "customer", "license"))
        ours = usage.totals(connection, EVER, ("day", "customer", "license"))
        assert all(
            daily.sums(connection, row.origin) for row in connection.execute(sa.select(db.logs.c.origin))
        )
    found.database.close()
    theirs = {row[:3]: dict(zip(FIELDS, map(int, row[3:]), strict=True)) for row in report.rows}
    assert {key: {field: said[field] for field in FIELDS} for key, said in ours.items()} == theirs


def test_reconcile_notices_a_day_that_was_changed(books: Books) -> None:
    device = Device().use(3)
    books.learn(device)
    books.ingest(device.export())
    assert reconcile(books.database, NOW).ok
    with books.database.write() as connection:
        connection.execute(sa.update(db.daily).values(calls=db.daily.c.calls + 1))
    (problem,) = reconcile(books.database, NOW).problems
    assert problem.endswith("the days of the charts differ from the roll-ups")


# --- charts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "step"),
    [(0, 1), (1, 1), (4, 1), (5, 2), (8, 2), (9, 5), (20, 5), (21, 10), (999, 500), (10**9, 5 * 10**8)],
)
def test_axes_have_round_steps(top: int, step: int) -> None:
    assert charts.step_of(top) == step
    assert step * 4 >= top


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1 k"),
        (1550, "1.5 k"),
        (2_000_000, "2 M"),
        (10**10, "10 G"),
        (10**12, "1 T"),
    ],
)
def test_numbers_of_an_axis_are_short(value: int, text: str) -> None:
    assert charts.short(value) == text


def test_columns_stack_up_to_the_sum() -> None:
    chart = charts.columns("Calls", ["a", "b"], ["a", ""], [("x", [10, 0]), ("y", [5, 8])])
    assert [(box.series, box.words) for box in chart.boxes] == [
        (1, "a, x: 10"), (2, "a, y: 5"), (2, "b, y: 8")
    ]  # fmt: skip
    first, second, _ = chart.boxes
    assert second.y + second.height == pytest.approx(first.y, abs=0.11)
    assert first.height == pytest.approx(2 * second.height, abs=0.21)
    assert max(box.x + box.width for box in chart.boxes) <= chart.width
    assert chart.legend == ((1, "x"), (2, "y")) and "the most, 15, on a" in chart.words
    assert [label.text for label in chart.labels if label.anchor == "middle"] == ["a"]
    assert charts.columns("Nothing", [], [], []).boxes == ()


def test_more_than_five_series_are_drawn_as_five_and_the_others() -> None:
    amounts = {f"n{n}": [n, n] for n in range(1, 9)}
    split = charts.split(amounts)
    assert [name for name, _ in split] == ["n8", "n7", "n6", "n5", "n4", charts.OTHERS]
    assert list(split[-1][1]) == [6, 6]
    rows = charts.rows(
        "By size", [(f"a very long name of a customer, number {n}", 20 - n) for n in range(15)]
    )
    assert len(rows.boxes) == charts.ROWS + 1 and rows.boxes[-1].series == 6
    assert all(len(label.text) <= 36 for label in rows.labels)
