"""Databases of older versions: new tables, and what was issued before there was a ledger is booked.

Source: specs/settlement-ledger.md, "Older databases". Everything happens in the transaction that raises the
schema version, so a process that dies leaves the older database.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from sealpack.format.records import METER_ORDER
from sealpack.settlement import audit, daily, invoice, ledger, rollups, tables

_OLD = "invoices_before_3"
_OLD_ROLLUPS = "rollups_before_4"


def run(connection: sa.Connection) -> None:
    """Bring every table to the newest form."""
    inspected = sa.inspect(connection)
    had_invoices = inspected.has_table(tables.invoices.name)
    old = had_invoices and "kind" not in {c["name"] for c in inspected.get_columns(tables.invoices.name)}
    if old:
        connection.exec_driver_sql(f"ALTER TABLE {tables.invoices.name} RENAME TO {_OLD}")
    old_rollups = "meter" in {c["name"] for c in inspected.get_columns(tables.rollups.name)}
    if old_rollups:
        connection.exec_driver_sql(f"ALTER TABLE {tables.rollups.name} RENAME TO {_OLD_ROLLUPS}")
    tables.metadata.create_all(connection)
    if old_rollups:
        _turn_rollups(connection)
        connection.exec_driver_sql(f"DROP TABLE {_OLD_ROLLUPS}")
    if "used_ms" not in {c["name"] for c in inspected.get_columns(tables.decisions.name)}:
        _date_gaps(connection)
    if "data" in {c["name"] for c in inspected.get_columns(tables.files.name)}:
        _part_bytes(connection)
    if old:
        _take_over(connection)
        connection.exec_driver_sql(f"DROP TABLE {_OLD}")


def _turn_rollups(connection: sa.Connection) -> None:
    """A row per meter became a column per meter with schema 4, and their sums per license a table."""
    meters = (f"SUM(CASE meter WHEN '{meter}' THEN amount ELSE 0 END)" for meter in METER_ORDER)
    keys = "origin, route, quarter_ms, status"
    connection.exec_driver_sql(
        f"INSERT INTO {tables.rollups.name} SELECT {keys}, {', '.join(meters)} FROM {_OLD_ROLLUPS} "
        f"GROUP BY {keys}"
    )
    licenses = sa.select(tables.logs.c.license_id).distinct()
    for name in connection.execute(licenses).scalars().all():
        rollups.put_usage(connection, name, rollups.summed(connection, name))
    for log in connection.execute(sa.select(tables.logs.c.origin, tables.logs.c.state)).all():
        routes = json.loads(log.state)["routes"]
        daily.put(connection, log.origin, routes, rollups.stored(connection, log.origin))


def _date_gaps(connection: sa.Connection) -> None:
    """A person may say since schema 4 when what a gap swallowed was used."""
    integer = "BIGINT" if connection.dialect.name == "postgresql" else "INTEGER"
    connection.exec_driver_sql(
        f"ALTER TABLE {tables.decisions.name} ADD COLUMN used_ms {integer} CHECK (used_ms >= 0)"
    )


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
