"""What customers owe: states, credits, payments, refunds, write-offs, and what parties are paid of it."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from beancount import loader
from beancount.core import inventory, realization
from hypothesis import given, settings, strategies as st
from support.books import Books
from support.device import T0, Device, make_license
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.settlement import (
    audit,
    beancount,
    billing,
    corrections,
    db,
    ledger,
    money,
    payouts,
    receivables,
    reports,
)
from sealpack.settlement.audit import Actor
from sealpack.settlement.payouts import Payout
from sealpack.settlement.plan import Plan
from sealpack.settlement.receivables import Standing
from sealpack.settlement.reconcile import reconcile

ME = Actor("clerk", T0)
DAY = date(2026, 10, 20)
SHARES = {"scope": ["base", "tok"], "pool": [{"party": "platform", "bps": 3000},
          {"party": "creator:a", "bps": 4500}, {"party": "creator:b", "rest": True}]}  # fmt: skip
TAX = {"category": "S", "percent": "19"}


def a_plan() -> Plan:
    return make_plan(recurring("100.01", when="arrears"), per_unit("1"), per=1, shares=SHARES, tax=TAX)


def opened(books: Books, months: int = 1) -> str:
    """Invoices of 100.01 + 19.00 tax from September on; the number of the first."""
    books.learn(Device(), plan=a_plan())
    names = [
        billing.bill(books.database, "L-1", date(2026, 9 + n, 1), date(2026, 10 + n, 1), actor=ME).name
        for n in range(months)
    ]
    return names[0]


def credit(books: Books, name: str, amount: str | None = None) -> dict[str, Any]:
    made = receivables.credit(books.database, name, amount, "slow answers", DAY, actor=ME)
    value: dict[str, Any] = json.loads(made.json)
    return value


def pay(books: Books, name: str, amount: str, ref: str = "r1") -> Standing:
    return receivables.pay(books.database, name, amount, DAY, ref, actor=ME)


def now(books: Books, name: str) -> tuple[str, str, str]:
    """State, paid and open."""
    with books.database.read() as connection:
        value = receivables.standing(connection, name).to_dict()
    return str(value["state"]), str(value["paid"]), str(value["open"])


def account(books: Books) -> int:
    with books.database.read() as connection:
        return ledger.on_account(connection, "Acme Models (test)", "hospital", "USD")


def due(books: Books) -> dict[str, tuple[int, int, int, int]]:
    """Per party: earned, released, paid, due."""
    with books.database.read() as connection:
        return {p.party: (p.earned, p.released, p.paid, p.due) for p in payouts.payouts(connection)}


def refused(code: str, call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code, caught.value
    return caught.value.message


# --- payments ---------------------------------------------------------------------------------------


def test_a_payment_in_parts(books: Books) -> None:
    name = opened(books)
    assert now(books, name) == ("issued", "0.00", "119.01")
    assert pay(books, name, "19.01").state == "partly paid"
    assert now(books, name) == ("partly paid", "19.01", "100.00")
    assert pay(books, name, "100", "r2").state == "paid"
    assert now(books, name) == ("paid", "119.01", "0.00")
    assert account(books) == 0


def test_more_than_is_owed_stays_on_account_for_the_next_invoice(books: Books) -> None:
    name = opened(books, 2)
    pay(books, name, "150.00")
    assert (now(books, name)[0], account(books)) == ("paid", 3_099)
    second = receivables.apply(books.database, "INV-000002", "10", DAY, actor=ME)
    assert (second.state, second.open) == ("partly paid", 10_901)
    assert receivables.apply(books.database, "INV-000002", None, DAY, actor=ME).open == 8_802
    assert account(books) == 0
    message = refused("AMOUNT_INVALID", receivables.apply, books.database, "INV-000002", None, DAY, actor=ME)
    assert "nothing is on account" in message


def test_a_refund_is_of_what_is_on_account(books: Books) -> None:
    name = opened(books)
    refuse = lambda amount: refused(  # noqa: E731
        "AMOUNT_INVALID", receivables.refund, books.database, name, amount, DAY, "x", actor=ME
    )
    assert "nothing on account" in refuse(None)
    pay(books, name, "120.00")
    assert refuse("1.00") == "a refund of 1.00 USD is more than the 0.99 that is left"
    assert receivables.refund(books.database, name, "0.90", DAY, "b1", actor=ME) == 90
    assert receivables.refund(books.database, name, None, DAY, "b2", actor=ME) == 9
    assert account(books) == 0 and now(books, name)[0] == "paid"


def test_the_same_payment_is_booked_once(books: Books) -> None:
    name = opened(books)
    pay(books, name, "1.00")
    refused("PAYMENT_KNOWN", pay, books, name, "1.00")
    pay(books, name, "1.00", "another")
    assert now(books, name)[1] == "2.00"


@pytest.mark.parametrize("amount", ["0", "-1", "1.001", "x", "", "1e3", "99999999999999999"])
def test_amounts_that_are_none(books: Books, amount: str) -> None:
    refused("AMOUNT_INVALID", pay, books, opened(books), amount)
    assert not [row for row in books.rows(db.transactions) if row["kind"] == "payment"]


def test_documents_that_cannot_be_paid(books: Books) -> None:
    name = opened(books)
    refused("INVOICE_UNKNOWN", pay, books, "INV-000009", "1")
    note = credit(books, name, "1.00")["number"]
    assert "credit note" in refused("AMOUNT_INVALID", pay, books, note, "1")
    assert now(books, note)[0] == "issued"


def test_a_write_off(books: Books) -> None:
    """Half was paid: parties keep half of their parts, and get no more."""
    name = opened(books)
    pay(books, name, "59.51")
    refused("USAGE", receivables.write_off, books.database, name, " ", DAY, actor=ME)
    assert receivables.write_off(books.database, name, "insolvent", DAY, actor=ME).state == "written off"
    refused("AMOUNT_INVALID", receivables.write_off, books.database, name, "again", DAY, actor=ME)
    with books.database.read() as connection:
        (balances,) = ledger.trial_balance(connection).values()
    assert balances["receivable", "hospital"] == 0 and sum(balances.values()) == 0
    assert {party: row[1] for party, row in due(books).items()} == {
        party: -balances["payable", party] for party in ("creator:a", "creator:b")
    }
    pay(books, name, "59.50", "after all")
    assert account(books) == 5_950


# --- credits ----------------------------------------------------------------------------------------


def test_a_whole_credit_takes_everything_back(books: Books) -> None:
    name = opened(books)
    note = credit(books, name)
    assert (note["kind"], note["corrects"], note["reason"]) == ("credit_note", name, "slow answers")
    assert (note["net"], note["tax"], note["total"]) == ("-100.01", "-19.00", "-119.01")
    assert now(books, name) == ("credited", "0.00", "0.00")
    with books.database.read() as connection:
        (balances,) = ledger.trial_balance(connection).values()
    assert set(balances.values()) == {0}
    assert "nothing is left" in refused("AMOUNT_INVALID", credit, books, name)
    assert corrections.correct(books.database, "L-1", DAY, actor=ME) == []


def test_credits_never_come_to_more_than_the_invoice(books: Books) -> None:
    name = opened(books)
    assert [credit(books, name, "33.33")["tax"] for _ in range(2)] == ["-6.33", "-6.33"]
    message = refused("AMOUNT_INVALID", credit, books, name, "33.36")
    assert message == "a credit of 33.36 USD is more than the 33.35 that is left"
    assert credit(books, name, "33.35")["tax"] == "-6.34"  # all that is left of it
    assert now(books, name)[0] == "credited"
    assert {row[0] for row in due(books).values()} == {0}


def test_a_credit_on_a_paid_invoice_stays_on_account(books: Books) -> None:
    name = opened(books)
    pay(books, name, "100.00")
    credit(books, name, "50.00")
    assert now(books, name) == ("paid", "59.51", "0.00")
    assert account(books) == 4_049


def test_a_credit_needs_a_reason(books: Books) -> None:
    name = opened(books)
    refused("USAGE", receivables.credit, books.database, name, None, "  ", DAY, actor=ME)
    assert len(books.rows(db.invoices)) == 1


def test_a_credit_of_what_nobody_earned_is_the_platforms(books: Books) -> None:
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "100.00", "per": "term",
             "billing": "prepaid", "overage_factor": "1", "unused": "forfeit"}  # fmt: skip
    shares = {"scope": ["tok"], "pool": [{"party": "creator:a", "rest": True}]}
    books.learn(Device(), plan=make_plan(per_unit("1"), per=1, commitments=[spend], shares=shares))
    name = billing.bill(books.database, "L-1", date(2026, 9, 1), DAY).name
    assert credit(books, name, "40.00")["shares"] == [{"party": "platform", "amount": "-40.00"}]


def test_the_site_is_told_of_credits(books: Books) -> None:
    device = Device().use(tok_out=5)
    books.learn(device, plan=a_plan())
    books.ingest(device.export())
    name = billing.bill(books.database, "L-1", date(2026, 9, 1), DAY).name
    credit(books, name, "1.00")
    (envelope,) = Parcel.from_bytes(books.reply(device).data, "reply").documents
    said = Acknowledgement.open(envelope, device.trust).statement
    assert "Billed: INV-000001 for 2026-09.\nCredited: INV-000002 for 2026-09." in said


# --- payouts ----------------------------------------------------------------------------------------


def test_parties_are_paid_when_customers_have_paid(books: Books) -> None:
    name = opened(books)
    assert due(books) == {"creator:a": (4501, 0, 0, 0), "creator:b": (2500, 0, 0, 0)}
    pay(books, name, "39.67")  # a third of 119.01
    assert due(books) == {"creator:a": (4501, 1500, 0, 1500), "creator:b": (2500, 833, 0, 833)}
    made = payouts.pay_out(books.database, DAY, "p1", minimum="10.00", actor=ME)
    assert [(p.party, p.due) for p in made] == [("creator:a", 1500)]
    pay(books, name, "79.34")
    assert due(books) == {"creator:a": (4501, 4501, 1500, 3001), "creator:b": (2500, 2500, 0, 2500)}
    assert len(payouts.pay_out(books.database, DAY, "p2", actor=ME)) == 2
    assert payouts.pay_out(books.database, DAY, "p3", actor=ME) == []
    with books.database.read() as connection:
        (balances,) = ledger.trial_balance(connection).values()
    assert balances["payable", "creator:a"] == balances["payable", "creator:b"] == 0
    assert balances["cash", ""] == 11_901 - 7_001


def test_what_was_paid_out_too_much_is_kept_from_the_next(books: Books) -> None:
    name = opened(books, 2)
    pay(books, name, "119.01")
    payouts.pay_out(books.database, DAY, "p1", party="creator:a", actor=ME)
    credit(books, name)
    assert due(books)["creator:a"] == (4501, 0, 4501, -4501)
    assert payouts.pay_out(books.database, DAY, "p2", actor=ME) == []
    pay(books, "INV-000002", "119.01")
    assert due(books)["creator:a"] == (4501, 4501, 4501, 0)


def test_the_platform_pays_itself(books: Books) -> None:
    opened(books)
    refused("USAGE", payouts.pay_out, books.database, DAY, "p", party="platform", actor=ME)


def test_drawn_money_is_released_once_the_prepayment_is_paid(books: Books) -> None:
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "100.00", "per": "term",
             "billing": "prepaid", "overage_factor": "1", "unused": "forfeit"}  # fmt: skip
    shares = {"scope": ["tok"], "pool": [{"party": "creator:a", "rest": True}]}
    device = Device()
    books.learn(device, plan=make_plan(per_unit("1"), per=1, commitments=[spend], shares=shares))
    name = billing.bill(books.database, "L-1", date(2026, 9, 1), DAY).name
    device.use(tok_out=60)
    books.ingest(device.export())
    assert len(corrections.correct(books.database, "L-1", DAY)) == 1
    assert due(books) == {"creator:a": (6000, 0, 0, 0)}
    pay(books, name, "50.00")
    assert due(books) == {"creator:a": (6000, 3000, 0, 3000)}
    pay(books, name, "50.00", "r2")
    assert due(books) == {"creator:a": (6000, 6000, 0, 6000)}


# --- what was looked at -----------------------------------------------------------------------------


def test_nothing_is_booked_on_what_changed_meanwhile(books: Books) -> None:
    name = opened(books)
    with books.database.read() as connection:
        seen = receivables.events(connection, name)
    assert seen == 1
    receivables.credit(books.database, name, "10.00", "slow", DAY, seen=seen, actor=ME)
    base = books.database
    for again in (
        lambda: receivables.credit(base, name, "10.00", "slow", DAY, seen=seen, actor=ME),
        lambda: receivables.pay(base, name, "10.00", DAY, "r", seen=seen, actor=ME),
        lambda: receivables.apply(base, name, None, DAY, seen=seen, actor=ME),
        lambda: receivables.refund(base, name, None, DAY, "r", seen=seen, actor=ME),
        lambda: receivables.write_off(base, name, "gone", DAY, seen=seen, actor=ME),
    ):
        refused("CHANGED_MEANWHILE", again)
    receivables.pay(base, name, "107.11", DAY, "r", seen=seen + 1, actor=ME)
    assert now(books, name) == ("paid", "107.11", "0.00")


def test_payouts_only_of_what_was_looked_at(books: Books) -> None:
    name = opened(books)
    pay(books, name, "39.67")
    with books.database.read() as connection:
        seen = {one.key: one.due for one in payouts.payouts(connection) if one.party == "creator:a"}
    pay(books, name, "79.34")
    refused("CHANGED_MEANWHILE", payouts.pay_out, books.database, DAY, "p1", expect=seen, actor=ME)
    seen = dict.fromkeys(seen, 4501)
    made = payouts.pay_out(books.database, DAY, "p1", expect=seen, actor=ME)
    assert [(one.party, one.due) for one in made] == [("creator:a", 4501)]
    refused("CHANGED_MEANWHILE", payouts.pay_out, books.database, DAY, "p1", expect=seen, actor=ME)


def test_standings_are_those_that_the_transactions_say(books: Books) -> None:
    """Summed in the database as when every transaction is read."""
    first = opened(books, 3)
    pay(books, first, "200.00")
    credit(books, "INV-000002", "5.00")
    receivables.apply(books.database, "INV-000002", None, DAY, actor=ME)
    receivables.write_off(books.database, "INV-000003", "gone", DAY, actor=ME)
    with books.database.read() as connection:
        stood = receivables.standings(connection)
        credited = {one.document.name: one.credited for one in stood}
        said = receivables.stand(
            [one.document for one in stood], ledger.transactions(connection), credited
        )  # fmt: skip
        assert stood == said and len(stood) == 4
        for one in stood:
            assert receivables.standing(connection, one.document.name) == one


# --- reports ----------------------------------------------------------------------------------------


def test_aging(books: Books) -> None:
    name = opened(books, 3)  # due on October 31, December 1 and December 31
    pay(books, name, "19.01")
    with books.database.read() as connection:
        days = ((10, 31), (11, 1), (11, 30), (12, 1), (12, 30))
        rows = [reports.aging(connection, date(2026, *day))[0].buckets for day in days]
        assert rows == [
            (10_000, 0, 0, 0, 0), (11_901, 10_000, 0, 0, 0), (11_901, 10_000, 0, 0, 0),
            (23_802, 0, 10_000, 0, 0), (11_901, 11_901, 10_000, 0, 0),
        ]  # fmt: skip
        (late,) = reports.aging(connection, date(2027, 3, 1))
        assert (late.buckets, late.open) == ((0, 0, 11_901, 11_901, 10_000), 33_802)
        assert reports.aging(connection, date(2026, 9, 1)) == []


def test_a_statement(books: Books) -> None:
    name = opened(books, 2)
    pay(books, name, "150.00", "=cmd()")
    credit(books, name, "1.00")
    with books.database.read() as connection:
        found = reports.statement(connection, "hospital", None, None)
        later = reports.statement(connection, "hospital", date(2026, 10, 2), date(2026, 10, 31))
        assert reports.statement(connection, "clinic", None, None) == []
    assert [(item.kind, item.amount, item.balance) for item in found] == [
        ("invoice", 11_901, 11_901), ("payment", -15_000, -3_099), ("credit", -119, -3_218),
        ("invoice", 11_901, 8_683),
    ]  # fmt: skip
    assert later == found[1:3]
    table = reports.as_csv(reports.STATEMENT_COLUMNS, [item.cells() for item in found])
    assert "'=cmd()" in table and ",-150.00,-30.99,USD," in table


def test_what_was_written_off_is_not_credited(books: Books) -> None:
    name = opened(books)
    receivables.write_off(books.database, name, "gone", DAY, actor=ME)
    said = refused(
        "AMOUNT_INVALID", receivables.credit, books.database, name, "1.00", "why not", DAY, actor=ME
    )
    assert "was written off" in said


# --- the ledger -------------------------------------------------------------------------------------

ACTS = st.lists(
    st.tuples(
        st.sampled_from(("pay", "credit", "apply", "refund", "write off", "late", "pay out")),
        st.integers(1, 3),
        st.integers(1, 15_000),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(ACTS)
def test_the_books_balance_whatever_is_done(acts: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder))
        device = Device()
        books.learn(device, plan=a_plan())
        for month in (9, 10, 11):
            billing.bill(books.database, "L-1", date(2026, month, 1), date(2026, 12, 1), actor=ME)
        for number, (what, which, amount) in enumerate(acts):
            act(books, device, what, f"INV-{which:06d}", money.amount_text(amount, 2), f"r{number}")
            check_books(books)
        check_beancount(books)
        books.database.close()


def act(books: Books, device: Device, what: str, name: str, amount: str, ref: str) -> None:
    """Do it, unless there is too little for it."""
    base = books.database
    try:
        if what == "pay":
            receivables.pay(base, name, amount, DAY, ref, actor=ME)
        elif what == "credit":
            receivables.credit(base, name, amount, "why not", DAY, actor=ME)
        elif what == "apply":
            receivables.apply(base, name, amount, DAY, actor=ME)
        elif what == "refund":
            receivables.refund(base, name, amount, DAY, ref, actor=ME)
        elif what == "write off":
            receivables.write_off(base, name, "gone", DAY, actor=ME)
        elif what == "pay out":
            payouts.pay_out(base, DAY, ref, actor=ME)
        else:
            start = device.size
            books.ingest(device.use(tok_out=int(float(amount))).export(start))
            corrections.correct(base, "L-1", DAY, actor=ME)
    except SealpackError as error:
        assert error.code == "AMOUNT_INVALID", error


def check_books(books: Books) -> None:
    with books.database.read() as connection:
        assert ledger.unbalanced(connection) == []
        (balances,) = ledger.trial_balance(connection).values()
        standings = receivables.standings(connection)
        parties: list[Payout] = payouts.payouts(connection)
    assert sum(balances.values()) == 0
    assert ledger.total(balances, "receivable") == sum(s.open for s in standings)
    assert all(s.open >= 0 for s in standings)
    assert balances.get(("credit", "hospital"), 0) <= 0
    assert all(0 <= p.released <= p.earned for p in parties)
    assert all(-balances.get(("payable", p.party), 0) >= p.due for p in parties)
    audit.verify(books.database)


def check_beancount(books: Books) -> None:
    """The real program reads the export without a complaint and comes to the same balances."""
    with books.database.read() as connection:
        text = beancount.text(ledger.transactions(connection))
        expected: dict[str, int] = {}
        for (issuer, _), balances in ledger.trial_balance(connection).items():
            for (name, party), amount in balances.items():
                key = beancount.account(issuer, ledger.Posting(name, 0, party))
                expected[key] = expected.get(key, 0) + amount
    entries, errors, _ = loader.load_string(text)
    assert not errors, errors
    found = {
        account.account: int(amount.units.number * 100)
        for account in realization.iter_children(realization.realize(entries))
        for amount in account.balance
        if isinstance(account.balance, inventory.Inventory)
    }
    assert found == {name: amount for name, amount in expected.items() if amount}


def test_parties_that_look_alike_have_accounts_of_their_own() -> None:
    names = ["creator:a", "creator-a", "Creator-a", "creator a", "a", "A", "ä", "", "9x"]
    found = [beancount.account("x", ledger.Posting(ledger.PAYABLE, 1, name)) for name in names]
    assert len(set(found)) == len(names)


def test_a_transaction_that_does_not_balance_is_not_booked(books: Books) -> None:
    bad = ledger.Transaction(
        id="x", issuer="i", day="2026-10-20", kind="payment", document="", currency="USD",
        postings=(ledger.Posting(ledger.CASH, 1),),
    )  # fmt: skip
    with pytest.raises(ValueError, match="balance"), books.database.write() as connection:
        ledger.book(connection, bad)


def test_reconciling_tells_of_a_transaction_that_does_not_balance(books: Books) -> None:
    opened(books)
    assert reconcile(books.database, T0).problems == ()
    with books.database.write() as connection:
        connection.execute(sa.text("UPDATE postings SET amount = amount + 1 WHERE n = 0"))
    assert reconcile(books.database, T0).problems == (
        "document:INV-000001: the transaction does not balance",
    )  # fmt: skip


# --- the audit trail --------------------------------------------------------------------------------

CHANGES = [
    "UPDATE audit SET who = 'nobody' WHERE seq = 1",
    "DELETE FROM audit WHERE seq = 2",
    "DELETE FROM audit WHERE seq = 1",
    "UPDATE invoices SET json = html",
    "UPDATE postings SET amount = amount * 2",
    "UPDATE transactions SET day = '2020-01-01' WHERE kind = 'payment'",
    "DELETE FROM invoices WHERE number = 1",
    "DELETE FROM audit",
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_by_hand_is_found(books: Books, change: str) -> None:
    name = opened(books)
    pay(books, name, "1.00")
    credit(books, name, "1.00")
    count, head = audit.verify(books.database)
    assert count == 3 and audit.verify(books.database, head) == (3, head)
    with books.database.write() as connection:
        connection.execute(sa.text(change))
    refused("AUDIT_BROKEN", audit.verify, books.database)


def test_an_end_that_was_cut_off_shows_against_a_noted_digest(books: Books) -> None:
    name = opened(books)
    pay(books, name, "1.00")
    _, head = audit.verify(books.database)
    with books.database.write() as connection:
        seq = connection.execute(sa.select(sa.func.max(db.transactions.c.seq))).scalar_one()
        connection.execute(sa.delete(db.audit).where(db.audit.c.seq == 2))
        connection.execute(sa.delete(db.postings).where(db.postings.c.seq == seq))
        connection.execute(sa.delete(db.transactions).where(db.transactions.c.seq == seq))
    assert audit.verify(books.database)[0] == 1
    assert "removed" in refused("AUDIT_BROKEN", audit.verify, books.database, head)


def test_who_and_what_is_in_the_trail(books: Books) -> None:
    name = opened(books)
    pay(books, name, "1.00", "bank 7")
    with books.database.read() as connection:
        found = list(audit.entries(connection))
    assert [(e.seq, e.at, e.who, e.what["verb"]) for e in found] == [
        (1, T0, "clerk", "issue"), (2, T0, "clerk", "payment"),
    ]  # fmt: skip
    assert (found[1].what["amount"], found[1].what["reference"]) == ("1.00 USD", "bank 7")


# --- a database of version 2 ------------------------------------------------------------------------

VERSION_2 = """
CREATE TABLE old (issuer TEXT NOT NULL, number INTEGER CHECK ("number" >= 0) NOT NULL, name TEXT NOT NULL,
  license_id TEXT NOT NULL, period TEXT NOT NULL, json BLOB NOT NULL, csv BLOB NOT NULL, html BLOB NOT NULL,
  PRIMARY KEY (issuer, number), UNIQUE (name), UNIQUE (license_id, period)) STRICT;
INSERT INTO old SELECT issuer, number, name, license_id, period, json, csv, html FROM invoices;
DROP TABLE invoices; DROP TABLE postings; DROP TABLE transactions; DROP TABLE audit;
ALTER TABLE old RENAME TO invoices; UPDATE about SET schema_version = 2;
"""


@pytest.mark.sqlite_only
def test_what_an_older_version_issued_is_booked(books: Books) -> None:
    name = opened(books, 2)
    before = books.rows(db.invoices)
    with books.database.read() as connection:
        balances = ledger.trial_balance(connection)
    books.database.close()
    connection = sqlite3.connect(books.folder / "settlement.db")
    connection.executescript(VERSION_2)
    connection.close()
    again = Books.open(books.folder)
    assert again.rows(db.invoices) == before
    with again.database.read() as reading:
        assert ledger.trial_balance(reading) == balances
    assert audit.verify(again.database)[0] == 2
    assert pay(again, name, "119.01").state == "paid"
    assert corrections.correct(again.database, "L-1", DAY) == []
    again.database.close()


def test_licenses_of_two_customers_are_kept_apart(books: Books) -> None:
    from dataclasses import replace

    other = make_license(license_id="L-2", customer=replace(make_license().customer, id="clinic"))
    books.learn(Device(), Device(other, number=2), plan=a_plan())
    for license in ("L-1", "L-2"):
        billing.bill(books.database, license, date(2026, 9, 1), DAY)
    pay(books, "INV-000001", "200.00")
    message = refused("AMOUNT_INVALID", receivables.apply, books.database, "INV-000002", None, DAY, actor=ME)
    assert "on account" in message
    with books.database.read() as connection:
        assert {row.customer: row.open for row in reports.aging(connection, DAY)} == {
            "clinic": 11_901, "hospital": 0,
        }  # fmt: skip
