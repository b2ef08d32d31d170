"""Money of several currencies in the same books: kept apart everywhere, nothing is added or converted.

One customer and one creator have licenses in dollars, yen and dinars. Whatever is asked about a currency is
answered as if the others were not there: everything is done once with all licenses and once with each alone,
and what comes out for a currency must be the same.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.books import Books
from support.device import Device, make_license
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.format.errors import SealpackError
from sealpack.format.license import PlanRef
from sealpack.settlement import (
    beancount,
    billing,
    corrections,
    db,
    ledger,
    money,
    payouts,
    receivables,
    registry,
    reports,
    unbilled,
)
from sealpack.settlement.audit import Actor
from sealpack.settlement.exports import documents, focus, stripe, ubl
from sealpack.settlement.overview import customers
from sealpack.settlement.plan import Plan
from sealpack.settlement.statements import customer as customer_statements, payout as payout_statements

CURRENCIES = ("USD", "JPY", "KWD")
PRICES = {"USD": ("99.005", "0.0123"), "JPY": ("99.5", "1.5"), "KWD": ("9.0005", "0.00125")}
PAID = {"USD": "33.33", "JPY": "41", "KWD": "3.335"}
CREDITED = {"USD": "1.01", "JPY": "7", "KWD": "0.007"}
SEPTEMBER, OCTOBER = date(2026, 9, 1), date(2026, 10, 1)
LATER = 1_797_000_000  # December 2026
ME = Actor("clerk", LATER)
POOL = {"scope": ["base", "tok"], "pool": [{"party": "platform", "bps": 3333},
        {"party": "creator:a", "rest": True}]}  # fmt: skip


def plan(currency: str) -> Plan:
    amount, unit = PRICES[currency]
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "10", "per": "term",
             "billing": "prepaid", "unused": "forfeit"}  # fmt: skip
    return make_plan(
        recurring(amount, when="arrears"), per_unit(unit), per=1, commitments=[spend], shares=POOL,
        tax={"category": "S", "percent": "7.5"}, head={"id": currency.lower(), "currency": currency},
    )  # fmt: skip


def name(currency: str) -> str:
    return f"L-{currency}"


@cache
def device(currency: str) -> tuple[Device, int]:
    """A machine of the license in that currency, and where its second file begins."""
    number = CURRENCIES.index(currency) + 1
    license = make_license(license_id=name(currency), plan=PlanRef(currency.lower(), 1))
    made = Device(license, number=number).use(tok_out=1_237)
    cut = made.size
    return made.use(tok_out=777), cut


def scene(books: Books, currencies: Sequence[str]) -> None:
    """September and October: invoiced, paid in part and too much, credited, corrected, paid out, given up."""
    made = [device(currency)[0] for currency in currencies]
    books.learn(*made)
    with books.database.write() as connection:
        for currency in currencies:
            registry.put_plan(connection, plan(currency))
    for currency in currencies:
        one, cut = device(currency)
        assert books.code(one.export(0, cut), now=LATER) == "OK"
    for month in (SEPTEMBER, OCTOBER):
        for currency in currencies:
            billing.bill(books.database, name(currency), month, date(2026, 11, 2), actor=ME)
    for currency in currencies:
        first, second = numbers(books, currency)
        one, cut = device(currency)
        receivables.pay(books.database, first, PAID[currency], date(2026, 11, 9), "a", actor=ME)
        receivables.credit(books.database, first, CREDITED[currency], "slow", date(2026, 11, 10), actor=ME)
        assert books.code(one.export(cut), now=LATER) == "W130"
        corrections.correct(books.database, name(currency), date(2026, 11, 11), actor=ME)
        whole = text_of(books, second)
        receivables.pay(books.database, second, whole, date(2026, 11, 12), "b", actor=ME)
        receivables.pay(books.database, second, PAID[currency], date(2026, 11, 13), "c", actor=ME)
        receivables.apply(books.database, first, None, date(2026, 11, 14), actor=ME)
    payouts.pay_out(books.database, date(2026, 11, 15), "out", actor=ME)
    for currency in currencies:
        receivables.write_off(
            books.database, numbers(books, currency)[0], "gone", date(2026, 11, 16), actor=ME
        )


def numbers(books: Books, currency: str) -> list[str]:
    rows = [row for row in books.rows(db.invoices) if row["license_id"] == name(currency)]
    return [row["name"] for row in rows if row["kind"] == "invoice"]


def text_of(books: Books, number: str) -> str:
    (row,) = [row for row in books.rows(db.invoices) if row["name"] == number]
    return money.amount_text(row["total"], money.exponent(row["currency"]))


def asked(books: Books, currencies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Everything that sums amounts, by currency; numbers of documents by what they are of."""
    found: dict[str, dict[str, Any]] = {currency: {} for currency in currencies}
    known = {
        row["name"]: f"{row['license_id']}/{row['period']}/{row['kind']}" for row in books.rows(db.invoices)
    }

    def put(what: str, currency: str, value: Any) -> None:
        plain = re.sub(r"INV-\d{6}", lambda m: known[m[0]], json.dumps(value, default=str, sort_keys=True))
        found[currency].setdefault(what, []).append(plain)

    with books.database.read() as connection:
        for aged in reports.aging(connection, date(2026, 12, 20)):
            put("aging", aged.currency, aged.cells())
        for item in reports.statement(connection, "hospital", None, None):
            put("statement", item.currency, item.cells())
        for payout in payouts.payouts(connection):
            put("payouts", payout.currency, payout.to_dict())
        for (_, currency), accounts in ledger.trial_balance(connection).items():
            put("balance", currency, sorted(map(str, accounts.items())))
            assert sum(accounts.values()) == 0
        for standing in receivables.standings(connection):
            put("standings", standing.document.issued.currency, standing.to_dict())
        for balance in customers.balances(connection)["hospital"]:
            put("overview", balance.currency, [balance.open, balance.on_account])
        for one in customer_statements.statements(connection, "hospital", None, date(2026, 12, 20)):
            put("customer statement", one.value["currency"], one.value)
        for one in payout_statements.of_payout(connection, "creator:a", "out"):
            put("payout statement", one.value["currency"], one.value)
        issued = documents.load(connection, list(known))
        for row in csv.DictReader(io.StringIO(focus.to_csv(connection, issued).decode(), newline="")):
            put("focus", row["BillingCurrency"], row)
        text = beancount.text(ledger.transactions(connection))
    for block in text.split("\n\n")[1:]:
        for currency in currencies:
            if f" {currency}\n" in block + "\n":
                assert not any(f" {other}\n" in block + "\n" for other in CURRENCIES if other != currency)
                put("beancount", currency, block.strip())
    for row in unbilled.unbilled(books.database, LATER):
        put("unbilled", row.currency, row.cells())
    return found


def test_each_currency_stands_as_if_it_were_alone(books: Books) -> None:
    scene(books, CURRENCIES)
    together = asked(books, CURRENCIES)
    for currency in CURRENCIES:
        with tempfile.TemporaryDirectory() as folder:
            alone = Books.open(Path(folder))
            scene(alone, [currency])
            expected = asked(alone, [currency])[currency]
            alone.database.close()
        assert len(expected) >= 10
        for what, rows in expected.items():
            assert together[currency][what] == rows, (currency, what)


def amounts(books: Books, currency: str) -> dict[str, list[str]]:
    """Per document of September what it says in text: net, tax, total."""
    found = {}
    for row in books.rows(db.invoices):
        if row["license_id"] == name(currency) and row["period"] == "2026-09-01":
            value = json.loads(row["json"])
            found[row["kind"]] = [value["net"], value["tax"], value["total"]]
    return found


@pytest.mark.parametrize(
    ("currency", "documents"),
    [
        (  # 99.005 is 99.01; of 15.2151 for tokens 10 are prepaid, 5.2151 is 5.22
            "USD",
            {"invoice": ["114.23", "8.57", "122.80"], "credit": ["-1.01", "-0.08", "-1.09"],
             "late": ["9.55", "0.71", "10.26"]},
        ),
        (  # 99.5 is 100; 1845.5 beyond what is prepaid is 1846; 146.7 of tax is 147
            "JPY",
            {"invoice": ["1956", "147", "2103"], "credit": ["-7", "-1", "-8"],
             "late": ["1165", "87", "1252"]},
        ),
        (  # 9.0005 is 9.001; 1.54625 for tokens is drawn from what is prepaid, 1.425075 of tax is 1.425
            "KWD",
            {"invoice": ["19.001", "1.425", "20.426"], "credit": ["-0.007", "-0.001", "-0.008"],
             "late": ["0.000", "0.000", "0.000"]},
        ),
    ],
)  # fmt: skip
def test_places(books: Books, currency: str, documents: dict[str, list[str]]) -> None:
    scene(books, [currency])
    assert amounts(books, currency) == documents
    found, places = asked(books, [currency])[currency], money.exponent(currency)
    written = rf"-?\d+\.\d{{{places}}}" if places else r"-?\d+"
    for what, columns in (("aging", slice(3, None)), ("statement", slice(4, 6))):
        for row in found.get(what, ()):
            assert all(re.fullmatch(written, cell) for cell in json.loads(row)[columns])
    for what, members in (
        ("payouts", ("earned", "released", "paid", "due")),
        ("standings", ("total", "open")),
    ):
        for row in found[what]:
            assert all(re.fullmatch(written, json.loads(row)[member]) for member in members)


def test_an_amount_with_too_many_places_is_none(books: Books) -> None:
    scene(books, CURRENCIES)
    for currency, amount in (("USD", "1.001"), ("JPY", "1.5"), ("KWD", "1.0001")):
        number = numbers(books, currency)[1]
        for act in (
            lambda: receivables.pay(books.database, number, amount, date(2026, 12, 1), "x", actor=ME),  # noqa: B023
            lambda: receivables.credit(books.database, number, amount, "x", date(2026, 12, 1), actor=ME),  # noqa: B023
        ):
            with pytest.raises(SealpackError) as caught:
                act()
            assert caught.value.code == "AMOUNT_INVALID"


def test_what_is_on_account_in_one_currency_pays_nothing_in_another(books: Books) -> None:
    scene(books, CURRENCIES)
    yen, dollars = numbers(books, "JPY")[1], numbers(books, "USD")[1]
    receivables.pay(books.database, yen, "5000", date(2026, 12, 1), "much", actor=ME)
    with books.database.read() as connection:
        seller = make_license().issuer
        assert ledger.on_account(connection, seller, "hospital", "JPY") >= 5000
        assert ledger.on_account(connection, seller, "hospital", "USD") == 0
    with pytest.raises(SealpackError) as caught:
        receivables.refund(books.database, dollars, None, date(2026, 12, 2), "x", actor=ME)
    assert caught.value.code == "AMOUNT_INVALID"


def test_exports_write_the_currencys_own_digits_or_refuse(books: Books) -> None:
    scene(books, CURRENCIES)
    names = stripe.Names({"hospital": "cus_1"}, {"creator:a": "acct_1"})
    with books.database.read() as connection:
        found = {currency: documents.load(connection, numbers(books, currency))[0] for currency in CURRENCIES}
    for currency, total in (("USD", 12_280), ("JPY", 2103)):
        items = stripe.invoice_items(found[currency], names)
        assert sum(item["amount"] for item in items) == total
        assert {item["currency"] for item in items} == {currency.lower()}
    for refused in (
        lambda: stripe.invoice_items(found["KWD"], names),  # 9.001: the last digit is not 0
        lambda: ubl.to_xml(found["KWD"].value),
    ):
        with pytest.raises(SealpackError) as caught:
            refused()
        assert caught.value.code == "EXPORT_REFUSED"
