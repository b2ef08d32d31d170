"""Finance's reports from the ledger: who owes how much for how long, and what happened with a customer.

Source: specs/settlement-ledger.md, "Reports". Reports are as of a day: what is dated later does not count.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

from sealpack.settlement import db, ledger, money
from sealpack.settlement.invoice import guarded
from sealpack.settlement.ledger import CREDIT, RECEIVABLE

BUCKETS = ("not due", "1-30", "31-60", "61-90", "over 90")


@dataclass(frozen=True, slots=True)
class Aged:
    """What a customer owes an issuer, by how many days it is overdue, minor units."""

    issuer: str
    customer: str
    currency: str
    buckets: tuple[int, ...]  # as BUCKETS
    on_account: int

    @property
    def open(self) -> int:
        """Everything that is open."""
        return sum(self.buckets)

    def cells(self) -> list[str]:
        """A row of the table."""
        places = money.exponent(self.currency)
        amounts = (*self.buckets, self.open, self.on_account)
        return [
            self.customer, self.issuer, self.currency,
            *(money.amount_text(amount, places) for amount in amounts),
        ]  # fmt: skip


AGING_COLUMNS = ("customer", "issuer", "currency", *BUCKETS, "open", "on account")


def aging(connection: sa.Connection, on: date) -> list[Aged]:
    """Every customer with something open or on account on a day."""
    rows = connection.execute(sa.select(db.invoices.c.name, db.invoices.c.due))
    due = {row.name: row.due for row in rows}
    owing: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
    for transaction in ledger.transactions(connection):
        if transaction.day > on.isoformat():
            continue
        for leg in transaction.postings:
            row = transaction.issuer, leg.party, transaction.currency
            if leg.account == RECEIVABLE:
                owing[row][_bucket(due[leg.document], on)] += leg.amount
            elif leg.account == CREDIT:
                owing[row][-1] -= leg.amount
    return [
        Aged(issuer, customer, currency, tuple(row[:-1]), row[-1])
        for (issuer, customer, currency), row in sorted(owing.items())
        if any(row)
    ]


def _bucket(due: str, on: date) -> int:
    days = (on - date.fromisoformat(due)).days if due else 0
    return 0 if days <= 0 else min(4, 1 + (days - 1) // 30)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a statement: above zero the customer owes more. `balance` is after it."""

    day: str
    kind: str
    document: str
    reference: str
    currency: str
    issuer: str
    amount: int
    balance: int

    def cells(self) -> list[str]:
        """A row of the table."""
        places = money.exponent(self.currency)
        return [
            self.day, self.kind, self.document, self.reference, money.amount_text(self.amount, places),
            money.amount_text(self.balance, places), self.currency, self.issuer,
        ]  # fmt: skip


STATEMENT_COLUMNS = ("date", "what", "document", "reference", "amount", "balance", "currency", "issuer")


def statement(connection: sa.Connection, customer: str, first: date | None, last: date | None) -> list[Item]:
    """What happened with a customer from `first` to `last`, by day; balances count what was before."""
    rows = []
    for transaction in ledger.transactions(connection):
        legs = [p for p in transaction.postings if p.account in (RECEIVABLE, CREDIT) and p.party == customer]
        if legs:
            rows.append((transaction, sum(leg.amount for leg in legs)))
    rows.sort(key=lambda row: row[0].day)  # stable: of one day in the order of booking
    balances: dict[tuple[str, str], int] = defaultdict(int)
    found = []
    for booked, amount in rows:
        key = booked.issuer, booked.currency
        balances[key] += amount
        if (first is None or booked.day >= first.isoformat()) and (
            last is None or booked.day <= last.isoformat()
        ):
            found.append(
                Item(
                    booked.day, booked.kind, booked.document, booked.reference, booked.currency,
                    booked.issuer, amount, balances[key],
                )
            )  # fmt: skip
    return found


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for spreadsheets: no cell is run as a formula."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(guarded(list(row)) for row in rows)
    return stream.getvalue()


def as_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table for people."""
    table = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[n]) for row in table) for n in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                     for row in table)  # fmt: skip
