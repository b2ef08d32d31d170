"""Many rows at once: amounts added to those that are there, in as few words to the database as it allows.

Source: specs/settlement-ingest.md, "Storage". SQLite gets a prepared statement and its rows; a PostgreSQL
server one statement with a column of each table column, so that no row costs a journey.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa


def add(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows in the table's column order; where the key is known, the other columns are added up.

    The rows are written in the order given, and no key comes twice.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_on_postgres(table), tuple(map(_array, zip(*rows, strict=True))))
    else:
        connection.exec_driver_sql(_on_sqlite(table), list(rows))


@cache
def _on_sqlite(table: sa.Table) -> str:
    return f"INSERT INTO {table.name} VALUES ({', '.join('?' for _ in table.c)}) {_or_add(table)}"


@cache
def _on_postgres(table: sa.Table) -> str:
    # Not by adapting lists: that looks at every element, and takes four times as long.
    kinds = ("text[]" if isinstance(column.type, sa.Text) else "bigint[]" for column in table.c)
    arrays = ", ".join(f"%s::{kind}" for kind in kinds)
    return f"INSERT INTO {table.name} SELECT * FROM unnest({arrays}) {_or_add(table)}"


def _array(column: Sequence[Any]) -> str:
    """A column as PostgreSQL writes arrays."""
    if isinstance(column[0], int):
        return "{" + ",".join(map(str, column)) + "}"
    return '{"' + '","'.join(text.replace("\\", "\\\\").replace('"', '\\"') for text in column) + '"}'


def _or_add(table: sa.Table) -> str:
    keys = ", ".join(column.name for column in table.primary_key)
    added = (c.name for c in table.c if not c.primary_key)
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in added)
    return f"ON CONFLICT ({keys}) DO UPDATE SET {sums}"
