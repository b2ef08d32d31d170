"""The newest documents of a customer or a license, and what is open on them.

Source: specs/console.md, "Register".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.settlement import db, ledger

MOST = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A document; amounts in minor units, `open` is what is still to be paid."""

    name: str
    kind: str
    license_id: str
    period: str
    issued: str
    due: str
    currency: str
    total: int
    open: int
    state: str  # credit note | paid | written off | open | overdue


def newest(connection: sa.Connection, on: date, *where: sa.ColumnElement[bool]) -> list[Row]:
    """At most :data:`MOST` of them as they stand on a day, the newest first.

    `where` is about `db.invoices`.
    """
    columns = db.invoices.c
    rows = connection.execute(
        sa.select(
            columns.name, columns.kind, columns.license_id, columns.period, columns.issued, columns.due,
            columns.currency, columns.total,
        )
        .where(*where)
        .order_by(columns.issued.desc(), columns.issuer, columns.number.desc())
        .limit(MOST)
    ).all()  # fmt: skip
    leg = db.postings.c
    sums = connection.execute(
        sa.select(leg.document, sa.func.sum(leg.amount))
        .where(leg.account == ledger.RECEIVABLE, leg.document.in_([row.name for row in rows]))
        .group_by(leg.document)
    )
    open_on = {name: int(amount) for name, amount in sums}
    head = db.transactions.c
    lost = connection.execute(
        sa.select(head.document).where(head.kind == "writeoff", head.document.in_([row.name for row in rows]))
    )
    given_up = set(lost.scalars())
    found = []
    for row in rows:
        left = open_on.get(row.name, 0)
        found.append(Row(*row, left, _state(row, left, row.name in given_up, on)))
    return found


def _state(row: Any, left: int, given_up: bool, on: date) -> str:
    if row.total < 0:
        return "credit note"
    if left <= 0:
        return "written off" if given_up else "paid"
    return "overdue" if row.due and row.due < on.isoformat() else "open"
