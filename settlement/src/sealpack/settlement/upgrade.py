"""Databases of older versions: new tables, and what was issued before there was a ledger is booked.

Source: specs/settlement-ledger.md, "Older databases". Everything happens in the transaction that raises the
schema version, so a process that dies leaves the older database.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from sealpack.settlement import audit, invoice, ledger, tables

_OLD = "invoices_before_3"


def run(connection: sa.Connection) -> None:
    """Bring every table to the newest form."""
    inspected = sa.inspect(connection)
    had_invoices = inspected.has_table(tables.invoices.name)
    old = had_invoices and "kind" not in {c["name"] for c in inspected.get_columns(tables.invoices.name)}
    if old:
        connection.exec_driver_sql(f"ALTER TABLE {tables.invoices.name} RENAME TO {_OLD}")
    tables.metadata.create_all(connection)
    if "data" in {c["name"] for c in inspected.get_columns(tables.files.name)}:
        _part_bytes(connection)
    if old:
        _take_over(connection)
        connection.exec_driver_sql(f"DROP TABLE {_OLD}")


def _part_bytes(connection: sa.Connection) -> None:
    """Raw files have a table of their own since schema 4, and their rows a place."""
    for statement in (
        "INSERT INTO evidence (sha256, data) SELECT sha256, data FROM files",
        "ALTER TABLE files DROP COLUMN data",
        "ALTER TABLE files ADD COLUMN store {} REFERENCES stores (number) CHECK (store >= 0)",
    ):
        integer = "BIGINT" if connection.dialect.name == "postgresql" else "INTEGER"
        connection.exec_driver_sql(statement.format(integer))


def _take_over(connection: sa.Connection) -> None:
    """The invoices of schema 2, byte for byte, with what their columns now say and what the ledger needs."""
    names = ("issuer", "number", "name", "license_id", "period", "json", "csv", "html")
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in names]
    found = connection.execute(
        sa.select(*columns).select_from(sa.table(_OLD)).order_by("issuer", "number")
    ).mappings()
    for row in [dict(row) for row in found]:
        issued = invoice.Issued.of(json.loads(row["json"]))
        customer = connection.execute(
            sa.select(tables.licenses.c.customer_id).where(tables.licenses.c.license_id == row["license_id"])
        ).scalar_one()
        full = row | issued.columns("invoice") | {"customer_id": customer}
        connection.execute(sa.insert(tables.invoices).values(full))
        transaction = ledger.book_document(connection, row["issuer"], customer, "invoice", issued)
        audit.note(
            connection, audit.Actor("upgrade to schema 3", 0), "issue",
            number=row["name"], document=audit.sha256(row["json"]), booked=transaction,
        )  # fmt: skip
