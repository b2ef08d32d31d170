"""What of a month is billed by estimate, or would be: per device and meter.

Source: specs/settlement-ledger.md, "Reports". Of an invoiced month it is what the newest document for
it says: `settle correct` brings that up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.settlement import db, drafts
from sealpack.settlement.corrections import RATED

COLUMNS = ("customer", "license", "device", "period", "meter", "amount", "known_to", "months", "document")


@dataclass(frozen=True, slots=True)
class Row:
    """So much of a meter (base units) of one device; `document` is a number, or nothing for a draft."""

    customer: str
    license_id: str
    device_id: str
    period: date
    meter: str
    amount: str
    known_to: str
    months: tuple[str, ...]
    document: str

    def cells(self) -> list[str]:
        """A row of the table."""
        return [self.customer, self.license_id, self.device_id, f"{self.period:%Y-%m}", self.meter,
                self.amount, self.known_to, " ".join(self.months), self.document]  # fmt: skip


def rows(database: db.Database, month: date, now: int, customer: str | None = None) -> list[Row]:
    """Every estimated amount of a month, by customer, license, device and meter."""
    entries = list(drafts.everything(database, month, now, customer))
    with database.read() as connection:
        issued = _newest(connection, month, [one.license_id for one in entries if one.number])
    found = []
    for entry in entries:
        number, value = issued.get(entry.license_id, ("", entry.draft or {}))
        found += list(_rows(entry.customer, month, number, value))
    return sorted(found, key=lambda one: one.cells())


def _newest(connection: sa.Connection, month: date, names: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """License -> number and JSON of the newest document for a month that usage makes."""
    columns = db.invoices.c
    query = sa.select(columns.license_id, columns.name, columns.json).where(
        columns.period == month.replace(day=1).isoformat(), columns.kind.in_(RATED)
    )
    rows = connection.execute(query.order_by(columns.number))
    return {row.license_id: (row.name, json.loads(row.json)) for row in rows if row.license_id in set(names)}


def _rows(customer: str, month: date, number: str, value: dict[str, Any]) -> Iterator[Row]:
    for one in value.get("estimates", ()):
        for meter, amount in one["amounts"].items():
            months = tuple(one["months"])
            yield Row(customer, one["license"], one["device"], month, meter, amount, one["known_to"], months,
                      number)  # fmt: skip
