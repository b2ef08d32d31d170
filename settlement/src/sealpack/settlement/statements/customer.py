"""A customer's statement of account: what was booked from day to day, and what is open at the end.

Source: specs/statements.md, "Customer statement".
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ledger, money, parties, reports
from sealpack.settlement.invoice import business_dict
from sealpack.settlement.parties import Customer
from sealpack.settlement.reports import BUCKETS, Aged, Item
from sealpack.settlement.statements.files import Statement, named

SCHEMA = "sealpack/customer-statement/v1"


def statements(connection: sa.Connection, customer: str, first: date | None, last: date) -> list[Statement]:
    """One statement per issuer and currency that anything was ever booked in; USAGE when nothing was."""
    items = reports.statement(connection, customer, None, last)
    keys = sorted({(item.issuer, item.currency) for item in items})
    if not keys:
        raise SealpackError(
            "USAGE", f"nothing was booked for customer {customer} up to {last}",
            remedy="see `sealpack settle invoices` for ids of customers",
        )  # fmt: skip
    aged = {
        (one.issuer, one.currency): one for one in reports.aging(connection, last) if one.customer == customer
    }
    found = []
    for issuer, currency in keys:
        own = [item for item in items if (item.issuer, item.currency) == (issuer, currency)]
        value = _statement(connection, customer, own, aged.get((issuer, currency)), first, last)
        found.append((f"statement-{customer}-{currency}-{last}", value))
    return named(found)


def _statement(
    connection: sa.Connection, customer: str, items: list[Item], aged: Aged | None, first: date | None,
    last: date,
) -> dict[str, Any]:  # fmt: skip
    issuer, currency = items[0].issuer, items[0].currency
    places = money.exponent(currency)
    since = first.isoformat() if first else ""
    earlier = [item for item in items if item.day < since]
    aged = aged or Aged(issuer, customer, currency, (0,) * len(BUCKETS), 0)
    record = parties.load_customer(connection, customer) or Customer(customer, customer)

    def text(amount: int) -> str:
        return money.amount_text(amount, places)

    return {
        "schema": SCHEMA, "issuer": issuer, "customer_id": customer, "currency": currency,
        "seller": business_dict(parties.load_seller(connection, issuer).business),
        "customer": business_dict(record.business),
        **({"from": since} if since else {}), "to": last.isoformat(),
        "opening": text(earlier[-1].balance if earlier else 0),
        "items": [
            {"date": item.day, "what": item.kind, "document": item.document, "reference": item.reference,
             "amount": text(item.amount), "balance": text(item.balance)}
            for item in items[len(earlier) :]
        ],
        "closing": text(items[-1].balance),
        "open": _open(connection, customer, issuer, currency, last),
        "aging": {_member(b): text(amount) for b, amount in zip(BUCKETS, aged.buckets, strict=True)},
        "on_account": text(aged.on_account),
    }  # fmt: skip


def _member(bucket: str) -> str:
    """A bucket of aging as a member's name: "1-30" is `days_1_30`."""
    name = bucket.replace(" ", "_").replace("-", "_")
    return f"days_{name}" if name[0].isdigit() else name


def _open(
    connection: sa.Connection, customer: str, issuer: str, currency: str, last: date
) -> list[dict[str, Any]]:
    """Documents that something is owed for on a day, the longest due first."""
    owing: dict[str, int] = defaultdict(int)
    for transaction in ledger.transactions(connection):
        if (transaction.issuer, transaction.currency) == (
            issuer,
            currency,
        ) and transaction.day <= last.isoformat():
            for leg in transaction.postings:
                if leg.account == ledger.RECEIVABLE and leg.party == customer:
                    owing[leg.document] += leg.amount
    columns = db.invoices.c
    rows = connection.execute(
        sa.select(columns.name, columns.issued, columns.due, columns.total)
        .where(columns.issuer == issuer, columns.customer_id == customer, columns.currency == currency)
        .order_by(columns.due, columns.number)
    )
    places = money.exponent(currency)
    return [
        {
            "number": row.name, "date": row.issued, **({"due": row.due} if row.due else {}),
            "total": money.amount_text(row.total, places), "open": money.amount_text(owing[row.name], places),
            "days_overdue": max(0, (last - date.fromisoformat(row.due)).days) if row.due else 0,
        }
        for row in rows
        if owing.get(row.name)
    ]  # fmt: skip
