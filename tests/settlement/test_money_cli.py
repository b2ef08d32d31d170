"""Finance's verbs for money as a clerk types them: words, JSON, CSV, exit statuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import world
from support.books import CUSTOMERS
from support.device import Device

from sealpack.verifier.cli import support
from sealpack.verifier.cli.main import make_cli, run

PLAN = """
plan: {id: example, version: 1, currency: USD, tz: UTC}
meters: {m: {field: tok_out, per: 1}}
charges:
  - {id: tok, type: usage, meter: m, model: per_unit, unit: "0.01"}
tax: {category: S, percent: "20"}
shares: {scope: [tok], pool: [{party: platform, bps: 2500}, {party: "creator:acme", rest: true}]}
"""
NOW = world.T0 + 40 * 86_400  # 2026-10-31
SCHEMAS = Path(__file__).parents[2] / "specs" / "schemas"


class Till:
    """Runs `settle` with 100.00 + 20.00 tax invoiced for September."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys, self.err = folder, capsys, ""
        device = Device().use(tok_out=10_000)
        cut = device.size
        device.use(tok_out=2_500)
        for name, data in (
            ("trust.json", world.make_trust().to_bytes()), ("plan.yaml", PLAN.encode()),
            ("customers.json", json.dumps(CUSTOMERS).encode()), ("registry.jsonl", device.line()),
            ("a.usage.gz", device.export(0, cut)), ("b.usage.gz", device.export(cut)),
        ):  # fmt: skip
            (folder / name).write_bytes(data)
        self("import", *(folder / name for name in ("trust.json", "plan.yaml", "customers.json")))
        self("import", folder / "registry.jsonl")
        self("ingest", folder / "a.usage.gz")
        self("invoice", "--period", "2026-09", "--date", "2026-10-01", "--out", folder / "out")

    def __call__(self, *arguments: str | Path, status: int = 0) -> str:
        """Stdout of a verb, after checking its exit status; stderr is in `err`."""
        database = str(self.folder / "settlement.db")
        got = run(make_cli(), ["settle", "--db", database, *map(str, arguments)])
        out, self.err = self._capsys.readouterr()
        assert got == status, out + self.err
        return out

    def json(self, *arguments: str | Path) -> Any:
        """The JSON result of a verb."""
        result = json.loads(self(*arguments, "--format", "json"))
        assert result["schema"].startswith("sealpack/settle-")
        return result


@pytest.fixture
def till(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Till:
    monkeypatch.setattr(support, "now", lambda: NOW)
    return Till(tmp_path, capsys)


def test_late_usage_is_corrected(till: Till) -> None:
    assert till("correct", "--out", till.folder / "out") == "nothing to correct\n"
    till("ingest", till.folder / "b.usage.gz")
    assert till("correct", "--draft", "--out", till.folder / "out") == "draft-L-1-2026-09-late  L-1\n"
    made = till.json("correct", "--license", "L-1", "--by", "eva", "--out", till.folder / "out")
    assert [one["number"] for one in made["documents"]] == ["INV-000002"] and made["skipped"] == []
    schema = json.loads((SCHEMAS / "invoice.json").read_text())
    for name in ("INV-000001", "INV-000002"):
        jsonschema.validate(json.loads((till.folder / "out" / f"{name}.json").read_text()), schema)
    page = (till.folder / "out" / "INV-000002.html").read_text()
    assert "late usage for September 2026" in page and "Adds to invoice" in page
    assert "eva" in till("audit", "list")


def test_from_invoice_to_payout(till: Till) -> None:
    paid = till("payment", "INV-000001", "60.00", "--ref", "b1", "--date", "2026-10-20")
    assert paid == "INV-000001  partly paid, 60.00 USD open\n"
    (row,) = till.json("payouts")["payouts"]
    assert row == {
        "party": "creator:acme", "issuer": "Acme Models (test)", "currency": "USD", "earned": "75.00",
        "released": "37.50", "paid": "0.00", "due": "37.50",
    }  # fmt: skip
    assert till.json("payouts", "--pay", "--ref", "p1")["booked"] is True
    assert till("payouts", "--pay", "--ref", "p2") == "nothing\n"
    note = till("credit", "INV-000001", "10.00", "--reason", "an outage", "--out", till.folder / "out")
    assert note == "INV-000002  credits INV-000001, which is partly paid\n"
    schema = json.loads((SCHEMAS / "invoice.json").read_text())
    jsonschema.validate(json.loads((till.folder / "out" / "INV-000002.json").read_text()), schema)
    assert till.json("payment", "INV-000001", "60.00", "--ref", "b2")["invoice"]["state"] == "paid"
    refunded = till.json("refund", "INV-000001", "2.00", "--ref", "b3")
    assert (refunded["refunded"], refunded["customer"]) == ("2.00", "hospital")
    (one,) = till.json("aging")["customers"]
    assert (one["open"], one["on_account"]) == ("0.00", "10.00")
    listed = till.json("invoices")["invoices"]
    assert [(one["kind"], one["state"]) for one in listed] == [("invoice", "paid"), ("credit", "issued")]
    assert till("invoices", "--open", "--customer", "hospital") == "nothing\n"
    rows = list(csv.DictReader(io.StringIO(till("statement", "hospital", "--format", "csv"))))
    assert [row["balance"] for row in rows] == ["120.00", "60.00", "48.00", "-12.00", "-10.00"]
    later = till.json("statement", "hospital", "--from", "2026-10-21", "--to", "2026-10-31")
    assert len(later["items"]) == 3 and later["customer"] == "hospital"
    accounts = till.json("ledger", "--beancount", till.folder / "books.beancount")["accounts"]
    assert sum(int(row["balance"].replace(".", "")) for row in accounts) == 0
    assert "open Assets:" in (till.folder / "books.beancount").read_text()


def test_on_account_and_written_off(till: Till) -> None:
    till("payment", "INV-000001", "150.00", "--ref", "b1")
    till("ingest", till.folder / "b.usage.gz")
    till("correct", "--out", till.folder / "out")
    assert till("apply", "INV-000002", "20") == "INV-000002  partly paid, 10.00 USD open\n"
    gone = till("write-off", "INV-000002", "--reason", "too small")
    assert gone == "INV-000002  written off, 0.00 USD open\n"


def test_what_cannot_be_done_says_why(till: Till) -> None:
    till("payment", "INV-7", "1", "--ref", "x", status=2)
    assert "error[INVOICE_UNKNOWN]: no invoice INV-7" in till.err
    till("credit", "INV-000001", "100.01", "--reason", "x", status=2)
    assert "error[AMOUNT_INVALID]: a credit of 100.01 USD is more than the 100.00 that is left" in till.err
    till("payment", "INV-000001", "1", "--ref", "x")
    till("payment", "INV-000001", "1", "--ref", "x", status=2)
    assert "error[PAYMENT_KNOWN]" in till.err
    till("payouts", "--pay", status=2)
    assert "--ref" in till.err
    assert not (till.folder / "INV-000002.json").exists()


def test_the_trail_is_verified(till: Till) -> None:
    first = till.json("audit", "verify")
    assert first["entries"] == 1
    till("payment", "INV-000001", "1", "--ref", "x", "--by", "eva")
    assert till("audit", "verify", "--head", first["head"]).startswith("2 entries, whole; newest ")
    till("audit", "verify", "--head", "ab" * 32, status=3)
    assert "error[AUDIT_BROKEN]" in till.err
    assert [entry["who"] for entry in till.json("audit", "list")["entries"]][1:] == ["eva"]


def test_approve_issue_and_what_is_not_billed(till: Till) -> None:
    october = ("--period", "2026-10")
    till("approve", *october, "--license", "L-1", status=2)
    assert "waited for until 2026-11-10" in till.err
    till("approve", *october, status=2)
    (row,) = (r for r in till.json("invoices", *october)["invoices"] if r["state"] == "open")
    assert (row["license"], row["number"], row["total"]) == ("L-1", "", "0.00")
    (one,) = till.json("approve", *october, "--license", "L-1", "--early")["approved"]
    assert one["license"] == "L-1" and len(one["draft"]) == 64
    till("approve", *october, "--license", "L-1", "--early", "--draft", "0" * 64, status=2)
    (row,) = (r for r in till.json("invoices", *october)["invoices"] if r["state"] == "approved")
    till("approve", *october, "--license", "L-1", "--withdraw", "wrong order")
    assert till("invoice", *october, "--approved", "--out", till.folder / "o") == "nothing to bill\n"
    till("approve", *october, "--all", "--early")
    said = till("invoice", *october, "--approved", "--out", till.folder / "o")
    assert said == "INV-000002  L-1\n"
    assert till("approve", *october, "--all", "--early") == "nothing to approve\n"


def test_unbilled_and_held(till: Till) -> None:
    assert till.json("unbilled")["unbilled"] == []
    assert till("held") == "nothing\n"
    till("ingest", till.folder / "b.usage.gz")
    (row,) = till.json("unbilled")["unbilled"]
    assert (row["license"], row["period"], row["kind"], row["total"]) == ("L-1", "2026-09", "late", "30.00")
    assert till("unbilled", "--customer", "nobody") == "nothing\n"
    assert till("unbilled", "--format", "csv").startswith("customer,license,period,kind")
