"""Which issued documents an export is made of, as they are stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import db


@dataclass(frozen=True, slots=True)
class Stored:
    """A document: `kind` as in the table of invoices, `data` its JSON and `value` that parsed."""

    name: str
    kind: str
    issuer: str
    customer: str
    license_id: str
    value: dict[str, Any]
    data: bytes = field(default=b"", repr=False)


def load(
    connection: sa.Connection, names: Sequence[str] = (), *, month: str = "", customer: str | None = None
) -> list[Stored]:
    """The documents of these numbers, else those of a month (YYYY-MM) and a customer, in the order of issue.

    INVOICE_UNKNOWN names the first number that is not here.
    """
    columns = db.invoices.c
    query = sa.select(
        columns.name, columns.kind, columns.issuer, columns.customer_id, columns.license_id, columns.json
    )
    if names:
        query = query.where(columns.name.in_(names))
    else:
        query = query.where(columns.period.startswith(month, autoescape=True))
        if customer is not None:
            query = query.where(columns.customer_id == customer)
    rows = connection.execute(query.order_by(columns.issuer, columns.number)).all()
    missing = set(names) - {row.name for row in rows}
    if missing:
        raise SealpackError("INVOICE_UNKNOWN", f"no invoice {min(missing)} was issued here")
    return [
        Stored(r.name, r.kind, r.issuer, r.customer_id, r.license_id, json.loads(r.json), bytes(r.json))
        for r in rows
    ]
