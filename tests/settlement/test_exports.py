"""FOCUS and usage reports: sums are those of the invoices, cells are safe to open."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from support.books import NOW, Books
from support.device import Device, make_license
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.settlement import billing, corrections, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.exports import documents, focus, usage
from sealpack.settlement.plan import FIELDS, Plan
from sealpack.verifier.cli.main import make_cli, run

pytestmark = pytest.mark.sqlite_only
ME = Actor("clerk", NOW)
MONTH, DAY = date(2026, 9, 1), date(2026, 10, 5)
FIRST, LAST = MONTH, date(2026, 9, 30)


def a_plan(**more: Any) -> Plan:
    charges = recurring("100.01", when="arrears"), per_unit("0.01")
    made: Plan = make_plan(*charges, per=1, tax={"category": "S", "percent": "19"}, **more)
    return made


def focus_rows(books: Books, *names: str) -> list[dict[str, str]]:
    with books.database.read() as connection:
        data = focus.to_csv(connection, documents.load(connection, names))
    assert data.count(b"\r\n") == data.count(b"\n")
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def billed(books: Books) -> Device:
    device = Device().work(40)
    books.learn(device, plan=a_plan(head={"tz": "Europe/Berlin"}))
    assert books.code(device.export()) == "OK"
    billing.bill(books.database, "L-1", MONTH, DAY, actor=ME)
    return device


def test_focus_says_what_was_billed(books: Books) -> None:
    device = billed(books)
    rows = focus_rows(books, "INV-000001")
    assert tuple(rows[0]) == focus.COLUMNS
    base, used, tax = rows
    assert base["ChargeCategory"] == "Purchase" and base["ChargeFrequency"] == "Recurring"
    assert base["PricingQuantity"] == "1" and base["ConsumedQuantity"] == base["ConsumedUnit"] == ""
    tokens = device.registers.total("tok_out")
    assert used["ChargeCategory"] == "Usage" and used["ChargeFrequency"] == "Usage-Based"
    assert used["ConsumedQuantity"] == used["PricingQuantity"] == str(tokens)
    assert used["ConsumedUnit"] == used["PricingUnit"] == "Output Tokens"
    assert tax["ChargeCategory"] == "Tax" and tax["SkuId"] == tax["PricingUnit"] == ""
    for row in rows:
        assert row["BillingPeriodStart"] == "2026-08-31T22:00:00Z"
        assert row["BillingPeriodEnd"] == "2026-09-30T22:00:00Z"
        assert row["BillingAccountId"] == "hospital" and row["SubAccountId"] == "L-1"
        assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == row["ContractedCost"]
        assert row["ChargeClass"] == row["SkuPriceId"] == row["Tags"] == ""
    assert used["BilledCost"] == f"{Decimal(tokens) / 100:.2f}"


def test_focus_sums_are_the_documents_totals(books: Books) -> None:
    device = billed(books)
    size = device.size
    assert books.code(device.work(9).export(size)) == "W130"
    (late,) = corrections.correct(books.database, "L-1", DAY, actor=ME)
    credit = receivables.credit(books.database, "INV-000001", "10.00", "slow", DAY, actor=ME)
    rows = focus_rows(books)
    with books.database.read() as connection:
        for document in documents.load(connection):
            mine = [row for row in rows if row["x_InvoiceNumber"] == document.name]
            assert sum(Decimal(row["BilledCost"]) for row in mine) == Decimal(document.value["total"])
    classes = {row["x_InvoiceNumber"]: row["ChargeClass"] for row in rows}
    assert classes == {"INV-000001": "", late.name: "Correction", credit.name: ""}
    given = next(row for row in rows if row["x_InvoiceNumber"] == credit.name)
    assert (given["ChargeCategory"], given["BilledCost"]) == ("Credit", "-10.00")
    assert given["x_CorrectsInvoiceNumber"] == "INV-000001"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(books: Books, start: str) -> None:
    device = Device().work(3)
    books.learn(device, plan=a_plan())
    customer = {"id": "hospital", "legal_name": f"{start}cmd|'/c calc'!A0"}
    books.take("c.json", json.dumps({"schema": "sealpack/customers/v1", "customers": [customer]}).encode())
    assert books.code(device.export()) == "OK"
    billing.bill(books.database, "L-1", MONTH, DAY, actor=ME)
    assert focus_rows(books)[0]["BillingAccountName"].startswith(f"'{start}")


def test_focus_without_its_plan(books: Books) -> None:
    billed(books)
    with books.database.read() as connection:
        (document,) = documents.load(connection)
        document.value["plan"]["version"] = 9
        rows = list(csv.DictReader(io.StringIO(focus.to_csv(connection, [document]).decode())))
    assert [row["PricingUnit"] for row in rows] == ["Units", "Units", ""]


def total(report: usage.Report) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in report.rows:
        cells = dict(zip(report.columns, row, strict=True))
        if cells.get("billed", "yes") == "yes":
            for meter in ("calls", "tok_out"):
                found[meter] += int(cells[meter])
    return found


def test_usage_is_what_is_billed(books: Books) -> None:
    """Two devices, one of which lost its state: the report sums to what rating reads."""
    one, two = Device().work(300), Device(number=2, label="ward 4").work(20)
    one.tally()
    later = one.restored()
    later.work(10)
    books.learn(one, two, plan=a_plan(head={"tz": "Europe/Berlin"}))
    for device in (two, later):
        books.ingest(device.export())
    with books.database.read() as connection:
        found = usage.report(connection, FIRST, LAST)
        rated = Counter[str]()
        for (_, _, meter), amount in billing.usage_of(connection, "L-1").items():
            rated[meter] += amount
        by_license = usage.report(connection, FIRST, LAST, by=("license",))
        nobody = usage.report(connection, FIRST, LAST, customer="nobody")
        before = usage.report(connection, date(2026, 8, 1), date(2026, 8, 31))
    assert total(found)["tok_out"] == rated["tok_out"] > 0
    assert total(found)["calls"] == rated["calls"]
    assert found.columns[:7] == usage.PLAIN
    assert {row[3] for row in found.rows} == {one.id, two.id}
    assert {row[4] for row in found.rows} == {"acme/tiny 1.0.0"}
    assert [row[0] for row in by_license.rows] == ["L-1"]
    assert total(by_license) == total(found)
    assert nobody.rows == before.rows == ()


def by_centre(books: Books, *keys: str) -> dict[tuple[str, ...], int]:
    """Tokens by cost centre; the report sums to what it says without them."""
    with books.database.read() as connection:
        found = usage.report(connection, FIRST, LAST, by=(*keys, "cost_centre"))
        plain = usage.report(connection, FIRST, LAST)
    assert total(found) == total(plain)
    end, tokens = len(found.columns) - len(FIELDS), found.columns.index("tok_out")
    return {row[:end]: int(row[tokens]) for row in found.rows}


def test_usage_by_cost_centre(books: Books) -> None:
    """In two files, from two machines, one of which names none; what was lost has none either."""
    one, two = Device(), Device(number=2).use(tok_out=7)
    for centre, amount in (("radiology", 100), ("surgery", 20), ("radiology", 3)):
        one.spend(centre, amount)
    cut = one.size
    one.use(tok_out=50).lose(tok_out=900).wait(3_600_000).spend("surgery", 1)
    books.learn(one, two, plan=a_plan())
    for data in (one.export(0, cut), one.export(cut), two.export()):
        assert books.code(data) in ("OK", "W140")
    assert by_centre(books) == {("",): 957, ("radiology",): 103, ("surgery",): 21}
    assert by_centre(books, "device") == {
        (one.id, ""): 950, (one.id, "radiology"): 103, (one.id, "surgery"): 21, (two.id, ""): 7,
    }  # fmt: skip


def test_usage_that_no_receipt_shows_has_no_cost_centre(books: Books) -> None:
    """The end of a log never came, the next log says what it was."""
    one = Device()
    one.spend("radiology", 100)
    one.tally()
    cut = one.size
    one.spend("radiology", 40)
    later = one.tally().restored()
    later.spend("surgery", 5)
    books.learn(one, plan=a_plan())
    for data in (one.export(0, cut), later.export()):
        books.ingest(data)
    assert by_centre(books) == {("",): 40, ("radiology",): 100, ("surgery",): 5}


def test_test_usage_is_told_and_not_billed(books: Books) -> None:
    device = Device(make_license(environment="test")).work(5)
    books.learn(device, plan=a_plan())
    assert books.code(device.export()) == "W150"
    with books.database.read() as connection:
        found = usage.report(connection, FIRST, LAST, by=("billed",))
    assert [row[0] for row in found.rows] == ["no"]


def test_commands(books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    billed(books)
    export = ["settle", "--db", books.address, "export"]
    assert run(make_cli(), [*export, "focus", "INV-000001", "--out", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o/focus.csv").read_bytes().startswith(b"AvailabilityZone,BilledCost,")
    assert run(make_cli(), [*export, "focus", "--period", "2026-01", "--out", str(tmp_path / "o")]) == 0
    assert "nothing to export" in capsys.readouterr().out
    september = [*export, "usage", "--period", "2026-09"]
    assert run(make_cli(), [*september, "--by", "day,model", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("day,model,calls,")
    assert run(make_cli(), [*september, "--by", "cost_centre", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("cost_centre,calls,")
    assert run(make_cli(), [*export, "usage", "--period", "2026-12", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] == []
    assert run(make_cli(), [*september, "--by", "mood"]) == 2
    assert "is none of day" in capsys.readouterr().err
