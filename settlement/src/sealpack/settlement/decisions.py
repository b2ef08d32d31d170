"""What a person decided about held files, as ingestion asks for it.

Source: specs/settlement-ledger.md, "Cases".
"""

from __future__ import annotations

import sqlalchemy as sa

from sealpack.settlement import db

ACCEPT, REFUSE = "accept", "refuse"


def waived(connection: sa.Connection, sha256: str) -> frozenset[str]:
    """The codes that a file is taken in spite of."""
    columns = db.decisions.c
    query = sa.select(columns.code).where(columns.sha256 == sha256, columns.verdict == ACCEPT)
    return frozenset(connection.execute(query).scalars())


def used_ms(connection: sa.Connection, sha256: str) -> int | None:
    """When a person said that what a gap swallowed before a file was used, UTC ms; None: nobody did."""
    columns = db.decisions.c
    query = sa.select(columns.used_ms).where(columns.sha256 == sha256, columns.verdict == ACCEPT)
    found: int | None = connection.execute(query.where(columns.used_ms.is_not(None))).scalar()
    return found


def is_accepted(code: str, sha256: sa.ColumnElement[str]) -> sa.Exists:
    """Whether it was decided that a file is taken in spite of what holds it."""
    columns = db.decisions.c
    return sa.exists().where(columns.sha256 == sha256, columns.code == code, columns.verdict == ACCEPT)


def is_refused(code: sa.ColumnElement[str] | str, sha256: sa.ColumnElement[str] | str) -> sa.Exists:
    """Whether it was decided that a file stays out for what holds it."""
    columns = db.decisions.c
    return sa.exists().where(columns.sha256 == sha256, columns.code == code, columns.verdict == REFUSE)
