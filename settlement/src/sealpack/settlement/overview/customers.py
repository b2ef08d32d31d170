"""Customers with all that belongs to them: record, licenses, machines, what they owe.

Source: specs/console.md, "Register". A customer is known by a record that finance imported, or only by the
name in a license: then the record is missing, and invoices print the name alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.settlement import db, ledger, parties
from sealpack.settlement.overview import licenses
from sealpack.settlement.parties import Customer


@dataclass(frozen=True, slots=True)
class Balance:
    """What a customer owes and has on account in one currency, minor units."""

    currency: str
    open: int
    on_account: int


@dataclass(frozen=True, slots=True)
class Row:
    """A customer. `record` is None where only a license names it."""

    id: str
    name: str
    record: Customer | None
    licenses: int
    devices: int
    balances: tuple[Balance, ...]


def listed(connection: sa.Connection) -> list[Row]:
    """All of them, by name."""
    records = _records(connection)
    names = _names(connection, records.keys())
    counts = _counts(connection)
    owing = balances(connection)
    found = [
        Row(id, name, records.get(id), *counts.get(id, (0, 0)), owing.get(id, ()))
        for id, name in (names | {id: record.legal_name for id, record in records.items()}).items()
    ]
    return sorted(found, key=lambda row: (row.name.casefold(), row.id))


def find(connection: sa.Connection, customer_id: str) -> Row:
    """One customer; NOT_FOUND."""
    record = parties.load_customer(connection, customer_id)
    name = record.legal_name if record else _names(connection, ()).get(customer_id)
    if name is None:
        raise SealpackError("NOT_FOUND", f"there is no customer {customer_id}")
    counts = _counts(connection).get(customer_id, (0, 0))
    return Row(customer_id, name, record, *counts, balances(connection).get(customer_id, ()))


def names(connection: sa.Connection) -> dict[str, str]:
    """What each customer is called, by id."""
    rows = connection.execute(sa.select(db.customers.c.id, db.customers.c.document))
    known: dict[str, str] = {row.id: json.loads(row.document)["legal_name"] for row in rows}
    return known | _names(connection, known)


def _records(connection: sa.Connection) -> dict[str, Customer]:
    rows = connection.execute(sa.select(db.customers.c.document)).scalars()
    found = [Customer.parse(Fields(json.loads(row), "customers", "REGISTRY_INVALID")) for row in rows]
    return {one.id: one for one in found}


def _names(connection: sa.Connection, known: Any) -> dict[str, str]:
    """What licenses call the customers that are not `known`."""
    columns = db.licenses.c
    query = sa.select(columns.customer_id).distinct()
    missing = set(connection.execute(query).scalars()) - set(known)
    if not missing:
        return {}
    return {one.customer.id: one.customer.name for one in licenses.every(connection).values()
            if one.customer.id in missing}  # fmt: skip


def _counts(connection: sa.Connection) -> dict[str, tuple[int, int]]:
    """Licenses and machines of each customer."""
    owner, active = db.licenses.c, db.activations.c
    rows = connection.execute(
        sa.select(
            owner.customer_id, sa.func.count(owner.license_id.distinct()), sa.func.count(active.device_id)
        )
        .outerjoin_from(db.licenses, db.activations, active.license_id == owner.license_id)
        .group_by(owner.customer_id)
    )
    return {customer: (count, devices) for customer, count, devices in rows}


def balances(connection: sa.Connection) -> dict[str, tuple[Balance, ...]]:
    """What every customer owes and has on account, by customer and currency."""
    head, leg = db.transactions.c, db.postings.c
    rows = connection.execute(
        sa.select(leg.party, head.currency, leg.account, sa.func.sum(leg.amount))
        .join(db.transactions, head.seq == leg.seq)
        .where(leg.account.in_((ledger.RECEIVABLE, ledger.CREDIT)))
        .group_by(leg.party, head.currency, leg.account)
    )
    amounts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for party, currency, account, amount in rows:
        amounts[party, currency][account] = int(amount)
    found: dict[str, tuple[Balance, ...]] = {}
    for (party, currency), said in sorted(amounts.items()):
        one = Balance(currency, said.get(ledger.RECEIVABLE, 0), -said.get(ledger.CREDIT, 0))
        found[party] = (*found.get(party, ()), one)
    return found
