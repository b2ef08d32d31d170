"""`settle quote`: its options, its two outputs, and what it refuses."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli.quote import quote
from sealpack.settlement.usage_table import read_rows

PLAN = """
plan: {id: p, version: 1, currency: EUR, tz: Europe/Berlin}
meters: {m: {field: calls}}
charges:
 - {id: setup, type: one_time, amount: "250.00", at: activation}
 - {id: base, type: recurring, amount: "60.00", when: advance, prorate: day}
 - {id: use, type: usage, meter: m, model: per_unit, unit: "1"}
"""
SPEND = """commitments:
 - {id: a, kind: committed_spend, scope: [use], amount: "10", billing: prepaid}
"""


class Desk:
    """A folder with a plan and a table, and the command run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan, self.usage = folder / "plan.yaml", folder / "usage.csv"
        self.plan.write_text(PLAN, encoding="utf-8")

    def text(self, table: str | bytes, *options: str) -> str:
        self.usage.write_bytes(table if isinstance(table, bytes) else table.encode())
        files = ["--plan", str(self.plan), "--usage", str(self.usage)]
        result = CliRunner().invoke(quote, [*files, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def invoices(self, table: str | bytes, *options: str) -> list[dict[str, Any]]:
        answer = json.loads(self.text(table, *options, "--format", "json"))
        found: list[dict[str, Any]] = answer["invoices"]
        return found

    def refused(self, table: str | bytes, *options: str) -> SealpackError:
        with pytest.raises(SealpackError) as caught:
            self.text(table, *options)
        return caught.value


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def amounts(invoice: dict[str, Any]) -> dict[str, str]:
    lines: list[dict[str, str]] = invoice["lines"]
    return {line["charge"]: line["amount"] for line in lines}


def test_without_an_activation_the_first_row_starts_a_whole_period(desk: Desk) -> None:
    found = desk.invoices("time,calls\n2026-04-20T10:00:00Z,5\n2026-05-20T10:00:00Z,7\n")
    assert [amounts(invoice) for invoice in found] == [
        {"setup": "250.00", "base": "60.00", "use": "5.00"},
        {"base": "60.00", "use": "7.00"},
    ]


def test_activation_and_end_prorate_and_bound_the_periods(desk: Desk) -> None:
    table = "time,calls\n2026-04-20T10:00:00Z,5\n"
    found = desk.invoices(table, "--activated", "2026-04-16", "--ended", "2026-06-15")
    assert [invoice["period_start"] for invoice in found] == ["2026-04-01", "2026-05-01", "2026-06-01"]
    assert [amounts(invoice)["base"] for invoice in found] == ["30.00", "60.00", "30.00"]
    assert (found[0]["starts_at"], found[0]["ends_at"]) == ("2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z")


def test_an_activation_is_enough_without_rows(desk: Desk) -> None:
    assert len(desk.invoices("time\n", "--activated", "2026-04-16", "--ended", "2026-05-31")) == 2
    assert len(desk.invoices("time\n", "--activated", "2026-04-16")) == 1


@pytest.mark.parametrize(
    "moment", ["2026-03-31T22:30Z", "2026-03-31t22:30:00.5z", "2026-03-31T22:30:00+00:00"]
)
def test_a_row_falls_into_its_local_month(desk: Desk, moment: str) -> None:
    (found,) = desk.invoices(f"time,calls\n{moment},5\n")
    assert found["period_start"] == "2026-04-01"


def test_columns_may_come_in_any_order_with_blank_cells_and_a_byte_order_mark(desk: Desk) -> None:
    table = b"\xef\xbb\xbfstatus,calls,time\r\n,,2026-04-01T00:00:00Z\r\nerr,4,2026-04-01T00:00:00Z\r\n\r\n"
    (found,) = desk.invoices(table)
    assert amounts(found)["use"] == "4.00"


def test_rows_out_of_order_change_nothing(desk: Desk) -> None:
    head, first, last = "time,calls\n", "2026-04-20T10:00:00Z,5\n", "2026-06-20T10:00:00Z,7\n"
    assert desk.invoices(head + first + last) == desk.invoices(head + last + first)


def test_what_was_used_before_means_the_license_started_earlier(desk: Desk) -> None:
    table = "time,calls\n2026-04-20T10:00:00Z,5\n"
    desk.plan.write_text(PLAN + SPEND, encoding="utf-8")
    assert amounts(desk.invoices(table)[0]) == {
        "setup": "250.00",
        "base": "60.00",
        "use": "0.00",
        "a": "10.00",
    }
    for used in ("8", "a=8"):
        (found,) = desk.invoices(table, "--commitment-used", used)
        assert amounts(found) == {"base": "60.00", "use": "0.00", "a": "3.00"}
        assert found["commitments"][0]["drawn"] == "2.00"
    (found,) = desk.invoices(table, "--commitment-used", "8", "--activated", "2026-04-01")
    assert amounts(found) == {"setup": "250.00", "base": "60.00", "use": "0.00", "a": "3.00"}
    assert found["net"] == "313.00"  # no second prepayment


def test_what_rolled_over_is_drawn_first_and_never_billed_again(desk: Desk) -> None:
    desk.plan.write_text(PLAN + SPEND.replace("prepaid", "prepaid, unused: rollover"), encoding="utf-8")
    for carried in ("6", "a=6"):
        (found,) = desk.invoices("time,calls\n2026-04-20T10:00:00Z,17\n", "--commitment-carried", carried)
        (prepaid, overage) = [item for item in found["lines"] if item["charge"] == "a"]
        assert (prepaid["kind"], prepaid["amount"]) == ("prepayment", "10.00")
        assert (overage["kind"], overage["amount"]) == ("overage", "1.00")
        assert found["commitments"][0]["drawn"] == "16.00"


def test_the_text_says_what_is_left_of_a_commitment(desk: Desk) -> None:
    desk.plan.write_text(PLAN + SPEND, encoding="utf-8")
    text = desk.text("time,calls\n2026-04-20T10:00:00Z,4\n")
    assert any(row.split() == ["left", "of", "a", "6.00"] for row in text.splitlines()), text


def test_the_text_shows_the_working(desk: Desk) -> None:
    text = desk.text("time,calls\n2026-04-20T10:00:00Z,5000\n")
    assert "5,000 × 1 = 5,000" in text
    assert "5,310.00" in text
    assert "2026-04-01 to 2026-04-30" in text


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"time,calls\n\xff,1\n", "UTF-8"),
        ("", "row 1 has no column 'time'"),
        ('time,calls\n2026-04-20T10:00:00Z,"5\n', "row"),
        ("time,calls\n2026-04-20T10:00:00Z,1e3\n", "row 2 calls '1e3'"),
        ("time,calls\n2026-04-20T10:00:00Z,1,2\n", "row 2 has 3 cells"),
        ("time,calls\n2026-04-20T10:00:00Z,1\n20.4.2026,2\n", "row 3 time '20.4.2026'"),
        ("time,calls\n2026-04-20T24:00:00Z,1\n", "row 2 time"),
        ("time,calls\n9999-04-20T10:00:00Z,1\n", "row 2 time"),
        ("time,calls\n2026-04-20T10:00:00Z," + "9" * 16 + "\n", "row 2 calls"),
        ("time\n", "no rows"),
        ("time;calls\n2026-04-20T10:00:00Z;1\n", "row 1 is separated by ';'; columns go with commas"),
        ("time\tcalls\n2026-04-20T10:00:00Z\t1\n", "row 1 is separated by '\\t'"),
        ("2026-04-20T10:00:00Z,1\n", "row 1 has a column '2026-04-20T10:00:00Z'"),
        ("time,calls,note\n2026-04-20T10:00:00Z,1,x\n", "row 1 has a column 'note'"),
        ("time,calls\n2026-04-20T10:00:00Z\n", "row 2 has 1 cell, the header has 2"),
        ("time,calls\n\n2026-04-20T10:00:00Z,-1\n", "row 3 calls '-1'"),
        ('time,calls\n2026-04-20T10:00:00Z,"1,000"\n', "row 2 calls '1,000'"),
        ("time,calls\n2026-04-20T10:00:00Z,1.0\n", "row 2 calls '1.0'"),
        ("time,calls\n2026-04-20T10:00:00Z,1\n2026-04-20T10:00:00Z,0\x00\n", "row 3 calls"),
        ("time,calls\n2026-04-20T10:00:00,1\n", "row 2 time"),
        ("time,calls\n2026-04-20T10:00:00+02:00,1\n", "row 2 time"),
        ("time,calls\n2026-04-20T10:00:00.0123456789Z,1\n", "row 2 time"),
        ("time,calls\n2026-02-29T10:00:00Z,1\n", "row 2 time"),
        ("time,calls\n,1\n", "row 2 time ''"),
        ("time,status\n2026-04-20T10:00:00Z,OK\n", "row 2 status 'OK'"),
        ("time,calls\n2026-04-20T10:00:00Z,1\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_a_faulty_table_names_its_row(desk: Desk, table: str | bytes, words: str) -> None:
    error = desk.refused(table)
    assert error.code == "USAGE_TABLE_INVALID"
    assert words in error.message


@pytest.mark.parametrize(
    "table",
    [
        '"time","calls"\n"2026-04-20T10:00:00Z","5"\n',
        " time , calls \r\n 2026-04-20T10:00:00Z , 5 \r\n\r\n",
        "time,calls\r2026-04-20T10:00:00Z,5\r",
        "time,calls\n2026-04-20T10:00:00Z,2\n2026-04-20T10:00:00Z,2\n2026-04-01T00:00:00Z,1",
        "time,calls\n2026-04-20T10:00:00.123456789Z,000000000000005\n",
        "calls,ms,items,tok_in,tok_out,status,time\n5,,,,,,2026-04-20 10:00:00-00:00\n",
    ],
)
def test_every_honest_spelling_of_a_table_is_read_alike(desk: Desk, table: str) -> None:
    (found,) = desk.invoices(table)
    assert amounts(found)["use"] == "5.00"


def test_a_long_table_is_read_row_by_row() -> None:
    def lines() -> Iterator[str]:
        yield "time,calls\n"
        for n in range(20_000):
            yield f"2026-04-{n % 28 + 1:02}T10:00:00Z,1\n"

    tracemalloc.start()
    total = sum(row.amounts[0] for row in read_rows(lines(), what="long"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 20_000
    assert peak < 200_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--activated", "2026-04-21"], "row 2 is on 2026-04-20, before the activation"),
        (["--ended", "2026-04-19"], "row 2 is on 2026-04-20, after the end"),
    ],
)
def test_a_row_outside_the_license_is_named(desk: Desk, options: list[str], words: str) -> None:
    error = desk.refused("time,calls\n2026-04-20T10:00:00Z,5\n", *options)
    assert (error.code, words in error.message) == ("USAGE_TABLE_INVALID", True)


@pytest.mark.parametrize(
    "options",
    [
        ["--activated", "2026-04-02", "--ended", "2026-04-01"],
        ["--activated", "1066-10-14"],
        ["--take-base", "-5"],
        ["--commitment-used", "b=5"],
        ["--commitment-used", "5"],
        ["--commitment-carried", "b=5"],
        ["--commitment-carried", "5"],
    ],
)
def test_options_that_make_no_sense(desk: Desk, options: list[str]) -> None:
    assert desk.refused("time\n2026-04-01T10:00:00Z\n", *options).code == "USAGE"


def test_missing_files_are_named(desk: Desk) -> None:
    missing = str(desk.folder / "nowhere")
    for files in (["--plan", missing, "--usage", missing], ["--plan", str(desk.plan), "--usage", missing]):
        with pytest.raises(SealpackError) as caught:
            CliRunner().invoke(quote, files, catch_exceptions=False)
        assert (caught.value.code, "nowhere" in caught.value.message) == ("FILE_MISSING", True)
    with pytest.raises(SealpackError) as caught:
        CliRunner().invoke(quote, ["--plan", str(desk.folder), "--usage", missing], catch_exceptions=False)
    assert caught.value.code == "IO_ERROR"
