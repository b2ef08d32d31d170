"""Statements: every sum adds up, ties to the ledger, and an earlier statement never changes."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pypdf
import pytest
from support import world
from support.books import Books, settlement_pem
from support.device import T0, Device
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.settlement import billing, corrections, ledger, payouts, pdf, receivables, reports, signing
from sealpack.settlement.audit import Actor
from sealpack.settlement.statements import customer, payout
from sealpack.settlement.statements.files import Statement, named
from sealpack.verifier import signed_document
from sealpack.verifier.cli.main import make_cli, run

ME = Actor("clerk", T0)
SCHEMAS = Path(__file__).parents[2] / "specs/schemas"
SHARES = {"scope": ["base", "tok"], "pool": [{"party": "platform", "bps": 2500},
          {"party": "creator:acme", "rest": True}]}  # fmt: skip


def opened(books: Books, months: int = 1, currency: str = "USD") -> Device:
    """Invoices of 100.00 + 20.00 tax from September on."""
    device = Device()
    head = {"currency": currency}
    plan = make_plan(recurring("100.00", when="arrears"), per_unit("1"), per=1, shares=SHARES,
                     tax={"category": "S", "percent": "20"}, head=head)  # fmt: skip
    books.learn(device, plan=plan)
    for n in range(months):
        billing.bill(books.database, "L-1", date(2026, 9 + n, 1), date(2026, 10 + n, 1), actor=ME)
    return device


def pay(books: Books, name: str, amount: str, day: date, ref: str) -> None:
    receivables.pay(books.database, name, amount, day, ref, actor=ME)


def ended(books: Books, reference: str) -> dict[str, Any]:
    with books.database.read() as connection:
        (made,) = payout.of_payout(connection, "creator:acme", reference)
    return checked(made)


def running(books: Books, on: date = date(2026, 12, 31)) -> dict[str, Any]:
    with books.database.read() as connection:
        (made,) = payout.since_last(connection, "creator:acme", on)
    return checked(made)


def checked(made: Statement) -> dict[str, Any]:
    """What a statement says, after its schema and its sums were checked as a reader checks them."""
    kind = made.value["schema"].split("/")[1]
    jsonschema.validate(made.value, json.loads((SCHEMAS / f"{kind}.json").read_text()))
    report = signed_document.verify(signing.sign(made.json, world.SETTLEMENT), world.make_trust())
    assert report.exit_status == 0, report.lines()
    value: dict[str, Any] = json.loads(made.json)
    return value


# --- payout statements --------------------------------------------------------------------------------


def test_from_earned_to_carried_forward(books: Books) -> None:
    opened(books, 2)
    pay(books, "INV-000001", "60.00", date(2026, 10, 20), "b1")
    payouts.pay_out(books.database, date(2026, 10, 31), "p1", actor=ME)
    first = ended(books, "p1")
    assert first["items"] == [
        {"license": "L-1", "period": "2026-09", "documents": ["INV-000001"], "earned": "75.00",
         "written_off": "0.00", "released": "37.50", "waiting": "37.50"},
        {"license": "L-1", "period": "2026-10", "documents": ["INV-000002"], "earned": "75.00",
         "written_off": "0.00", "released": "0.00", "waiting": "75.00"},
    ]  # fmt: skip
    assert first["payouts"] == [{"date": "2026-10-31", "reference": "p1", "amount": "37.50"}]
    assert first["available"] == {"opening": "0.00", "released": "37.50", "paid": "37.50", "closing": "0.00"}
    assert "from" not in first and first["to"] == "2026-10-31" and first["payable"] == "112.50"

    pay(books, "INV-000001", "60.00", date(2026, 11, 2), "b2")
    receivables.credit(books.database, "INV-000002", "20.00", "slow", date(2026, 11, 3), actor=ME)
    receivables.write_off(books.database, "INV-000002", "gone", date(2026, 11, 4), actor=ME)
    now = running(books)
    assert now["from"] == "2026-10-31" and now["payouts"] == []
    assert [(i["earned"], i["written_off"], i["released"], i["waiting"]) for i in now["items"]] == [
        ("0.00", "0.00", "37.50", "0.00"), ("-15.00", "60.00", "0.00", "0.00"),
    ]  # fmt: skip
    assert now["items"][1]["documents"] == ["INV-000002", "INV-000003"]
    assert now["waiting"]["opening"] == "112.50" and now["waiting"]["closing"] == "0.00"
    assert now["available"]["closing"] == now["payable"] == "37.50"
    payouts.pay_out(books.database, date(2026, 11, 30), "p2", actor=ME)
    assert ended(books, "p2")["available"] == {
        "opening": "0.00", "released": "37.50", "paid": "37.50", "closing": "0.00",
    }  # fmt: skip
    assert ended(books, "p1") == first


def test_paid_out_too_much_is_carried_forward(books: Books) -> None:
    opened(books)
    pay(books, "INV-000001", "120.00", date(2026, 10, 20), "b1")
    payouts.pay_out(books.database, date(2026, 10, 31), "p1", actor=ME)
    receivables.credit(books.database, "INV-000001", "40.00", "slow", date(2026, 11, 3), actor=ME)
    now = running(books)
    assert now["available"]["closing"] == now["payable"] == "-30.00"
    assert now["items"][0]["released"] == "-30.00"


def test_by_days(books: Books) -> None:
    opened(books, 2)
    pay(books, "INV-000001", "120.00", date(2026, 10, 20), "b1")
    payouts.pay_out(books.database, date(2026, 10, 31), "p1", actor=ME)
    pay(books, "INV-000002", "12.00", date(2026, 11, 20), "b2")
    with books.database.read() as connection:
        (october,) = payout.of_days(connection, "creator:acme", date(2026, 10, 1), date(2026, 10, 31))
        (november,) = payout.of_days(connection, "creator:acme", date(2026, 11, 1), date(2026, 11, 30))
        (whole,) = payout.of_days(connection, "creator:acme", None, date(2026, 11, 30))
    one, two, both = checked(october), checked(november), checked(whole)
    assert one["payouts"] and not two["payouts"]
    for part in ("waiting", "available"):
        assert two[part]["opening"] == one[part]["closing"] and two[part]["closing"] == both[part]["closing"]
    assert "from" not in both and two["from"] == "2026-11-01"
    assert october.name == "payout-creator-acme-USD-2026-10-31"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.sqlite_only
def test_whatever_is_done_statements_tie_to_the_ledger(books: Books, seed: int) -> None:
    """Random business: statements chain, end where payouts and ledger are, and earlier ones stay."""
    rng = random.Random(seed)
    device = opened(books, 3)
    base, seen = books.database, dict[str, dict[str, Any]]()
    for number in range(25):
        day, ref = date(2026, 12, 1 + number), f"r{number}"
        try:
            act(books, device, rng, day, ref)
        except SealpackError as error:
            assert error.code in ("AMOUNT_INVALID", "INVOICE_UNKNOWN"), error
        now = running(books)
        with base.read() as connection:
            (due,) = payouts.payouts(connection)
            owed = ledger.owed(connection, world.ISSUER, "creator:acme", "USD")
        assert cents(now["available"]["closing"]) == due.due
        assert cents(now["payable"]) == owed
        try:
            seen[ref] = ended(books, ref)
        except SealpackError as error:
            assert error.code == "USAGE"
        accounts(books, date(2026, 12, 1 + number))
    for ref, value in seen.items():
        assert ended(books, ref) == value
    chain = [*seen.values(), running(books)]
    for one, two in pairwise(chain):
        assert one["available"]["closing"] == two["available"]["opening"]
        assert one["waiting"]["closing"] == two["waiting"]["opening"]


def act(books: Books, device: Device, rng: random.Random, day: date, ref: str) -> None:
    """Something that happens to books."""
    base, name = books.database, f"INV-{rng.randrange(1, 5):06d}"
    amount = f"{rng.randrange(1, 9000) / 100:.2f}"
    kinds = ("pay", "credit", "apply", "refund", "write off", "pay out", "late")
    match rng.choices(kinds, [6, 2, 1, 1, 1, 3, 2])[0]:
        case "pay":
            receivables.pay(base, name, amount, day, ref, actor=ME)
        case "credit":
            receivables.credit(base, name, amount, "why not", day, actor=ME)
        case "apply":
            receivables.apply(base, name, None, day, actor=ME)
        case "refund":
            receivables.refund(base, name, None, day, ref, actor=ME)
        case "write off":
            receivables.write_off(base, name, "gone", day, actor=ME)
        case "pay out":
            payouts.pay_out(base, day, ref, actor=ME)
        case _:
            start = device.size
            books.ingest(device.use(tok_out=rng.randrange(1, 50)).export(start))
            corrections.correct(base, "L-1", day, actor=ME)


def cents(text: str) -> int:
    return int(text.replace(".", ""))


def accounts(books: Books, last: date) -> None:
    """A customer's statement up to a day ends where aging and the running balance do."""
    with books.database.read() as connection:
        (made,) = customer.statements(connection, "hospital", date(2026, 12, 5), last)
        items = reports.statement(connection, "hospital", None, last)
    value = checked(made)
    assert cents(value["closing"]) == items[-1].balance
    assert len(value["items"]) == len([item for item in items if item.day >= "2026-12-05"])


# --- customers' statements ----------------------------------------------------------------------------


def test_a_customers_account(books: Books) -> None:
    opened(books, 2)
    pay(books, "INV-000001", "130.00", date(2026, 10, 20), "b1")
    with books.database.read() as connection:
        (made,) = customer.statements(connection, "hospital", date(2026, 10, 15), date(2026, 12, 20))
    value = checked(made)
    assert (value["opening"], value["closing"], value["on_account"]) == ("120.00", "110.00", "10.00")
    assert value["open"] == [
        {"number": "INV-000002", "date": "2026-11-01", "due": "2026-12-01", "total": "120.00",
         "open": "120.00", "days_overdue": 19},
    ]  # fmt: skip
    assert value["aging"]["days_1_30"] == "120.00"
    assert value["customer"]["name"] == "Hospital Nord gGmbH"
    rows = list(csv.DictReader(io.StringIO(made.files[f"{made.name}.csv"].decode(), newline="")))
    assert [row["record"] for row in rows] == ["opening", "item", "item", "closing", "open", "on account"]
    page = made.files[f"{made.name}.html"].decode()
    for words in ("Statement of account", "USD 110.00", "To be paid", "Payment, b1", "1–30 days"):
        assert words in page
    said = " ".join(pypdf.PdfReader(io.BytesIO(pdf.to_pdf(made.json))).pages[0].extract_text().split())
    for words in ("Statement of account", "15 October 2026 to 20 December 2026", "USD 110.00", "Payment, b1",
                  "INV-000002", "Page 1 of 1"):  # fmt: skip
        assert words in said


def test_what_is_in_the_customers_favour(books: Books) -> None:
    opened(books)
    pay(books, "INV-000001", "150.00", date(2026, 10, 20), "b1")
    with books.database.read() as connection:
        (made,) = customer.statements(connection, "hospital", None, date(2026, 12, 20))
    assert checked(made)["closing"] == "-30.00"
    page = made.files[f"{made.name}.html"].decode()
    assert "In your favour" in page and "USD 30.00" in page and "What is open" not in page


def test_nothing_is_known(books: Books) -> None:
    opened(books)
    with books.database.read() as connection:
        for call in (
            lambda: customer.statements(connection, "nobody", None, date(2026, 12, 1)),
            lambda: payout.since_last(connection, "creator:nobody", date(2026, 12, 1)),
            lambda: payout.since_last(connection, "platform", date(2026, 12, 1)),
            lambda: payout.of_payout(connection, "creator:acme", "p9"),
        ):
            with pytest.raises(SealpackError) as caught:
                call()
            assert caught.value.code == "USAGE"


def test_places_of_a_currency(books: Books) -> None:
    opened(books, currency="KWD")
    pay(books, "INV-000001", "60.000", date(2026, 10, 20), "b1")
    value = running(books)
    assert value["available"]["closing"] == "37.500" and value["currency"] == "KWD"


def test_the_specifications_example() -> None:
    text = (SCHEMAS.parent / "statements.md").read_text()
    lines = [line.strip() for line in text.split("## Example")[1].splitlines() if line.startswith("    ")]
    value = json.loads("".join(lines))
    jsonschema.validate(value, json.loads((SCHEMAS / "payout-statement.json").read_text()))
    made = Statement("example", value)
    assert made.json == "".join(lines).encode() and checked(made) == value


# --- the command line ---------------------------------------------------------------------------------


class Desk:
    """Runs `settle` on books."""

    def __init__(self, books: Books, capsys: pytest.CaptureFixture[str]) -> None:
        self.books, self._capsys, self.err = books, capsys, ""
        self.out = books.folder / "out"

    def __call__(self, *arguments: object, status: int = 0) -> str:
        got = run(make_cli(), ["settle", "--db", self.books.address, *map(str, arguments)])
        out, self.err = self._capsys.readouterr()
        assert got == status, out + self.err
        return out


@pytest.fixture
def desk(books: Books, capsys: pytest.CaptureFixture[str]) -> Desk:
    opened(books)
    pay(books, "INV-000001", "60.00", date(2026, 10, 20), "b1")
    payouts.pay_out(books.database, date(2026, 10, 31), "p1", actor=ME)
    return Desk(books, capsys)


@pytest.mark.sqlite_only
def test_statements_as_files(desk: Desk) -> None:
    key = settlement_pem(desk.books.folder)
    of = ("payouts", "--statement", "creator:acme", "--out", desk.out)
    result = json.loads(desk(*of, "--ref", "p1", "--pdf", "--key", key, "--format", "json"))
    name = "payout-creator-acme-USD-2026-10-31"
    ends = ("csv", "html", "json", "pdf", "signed.json")
    assert result["statements"] == [name] and result["files"] == [f"{name}.{end}" for end in ends]
    assert sorted(path.name for path in desk.out.iterdir()) == result["files"]
    assert (desk.out / f"{name}.pdf").read_bytes() == pdf.to_pdf((desk.out / f"{name}.json").read_bytes())
    told = desk("statement", "hospital", "--to", "2026-11-30", "--out", desk.out, "--pdf")
    assert "statement-hospital-USD-2026-11-30.pdf" in told
    desk(
        "payouts",
        "--statement",
        "creator:acme",
        "--from",
        "2026-10-01",
        "--to",
        "2026-10-30",
        "--out",
        desk.out,
    )
    desk("payouts", "--statement", "creator:acme", "--out", desk.out)


@pytest.mark.sqlite_only
def test_options_that_do_not_go_together(desk: Desk) -> None:
    for arguments in (
        ("payouts", "--statement", "creator:acme", "--pay", "--ref", "x"),
        ("payouts", "--statement", "creator:acme", "--ref", "x", "--from", "2026-10-01"),
        ("payouts", "--from", "2026-10-01"),
        ("payouts", "--pdf"),
        ("statement", "hospital", "--pdf"),
        ("statement", "hospital", "--out", desk.out, "--format", "csv"),
    ):
        desk(*arguments, status=2)
        assert "error[USAGE]" in desk.err
    assert not desk.out.exists()


@pytest.mark.sqlite_only
def test_documents_in_all_forms(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    key = settlement_pem(desk.books.folder)
    desk("export", "pdf", "INV-000001", "--out", desk.out)
    desk("export", "signed", "INV-000001", "--key", key, "--out", desk.out)
    first = {path.name: path.read_bytes() for path in desk.out.iterdir()}
    assert sorted(first) == ["INV-000001.pdf", "INV-000001.signed.json"]
    again = desk.books.folder / "again"
    desk("invoice", "--period", "2026-09", "--pdf", "--key", key, "--out", again)
    assert {name: (again / name).read_bytes() for name in first} == first
    desk("credit", "INV-000001", "5.00", "--reason", "slow", "--pdf", "--key", key, "--out", again)
    assert (again / "INV-000002.pdf").exists() and (again / "INV-000002.signed.json").exists()
    desk("invoice", "--period", "2026-10", "--draft", "--pdf", "--key", key, "--out", again)
    assert (again / "draft-L-1-2026-10.pdf").exists() and not list(again.glob("draft*signed*"))
    trust = desk.books.folder / "trust.json"
    for name in ("INV-000001", "INV-000002"):
        signed = str(again / f"{name}.signed.json")
        assert run(make_cli(), ["verify", signed, "--trust", str(trust)]) == 0
        assert capsys.readouterr().out.startswith("PASS\n  ok    signature: Acme Models (test), key ")


@pytest.mark.sqlite_only
def test_a_key_that_nobody_believes_is_told_before_anything_is_issued(desk: Desk) -> None:
    stranger = desk.books.folder / "stranger.pem"
    stranger.write_bytes(PrivateKey.from_seed(b"sealpack-test-another-settlement").to_pem())
    desk("credit", "INV-000001", "5.00", "--reason", "x", "--key", stranger, "--out", desk.out, status=3)
    assert "SIG_KEY_UNKNOWN" in desk.err and not desk.out.exists()
    with desk.books.database.read() as connection:
        assert len(receivables.standings(connection)) == 1


@pytest.mark.sqlite_only
def test_what_cannot_be_printed_keeps_nothing_else_back(desk: Desk) -> None:
    record = {"id": "hospital", "legal_name": "בית חולים"}
    desk.books.take("c.json", json.dumps({"schema": "sealpack/customers/v1", "customers": [record]}).encode())
    for verb in (("invoice", "--period", "2026-10"), ("credit", "INV-000001", "1.00", "--reason", "x")):
        told = desk(*verb, "--pdf", "--out", desk.out, status=5)
        assert "refused" in told and "U+05D1" in told
    assert {path.suffix for path in desk.out.iterdir()} == {".json", ".csv", ".html"}
    assert "refused  INV-000002" in desk(
        "export", "pdf", "INV-000001", "INV-000002", "--out", desk.out, status=5
    )
    assert (desk.out / "INV-000001.pdf").exists()


def test_names_of_statements_differ() -> None:
    assert [made.name for made in named([("a", {}), ("b", {}), ("a", {})])] == ["a-1", "b", "a-2"]
