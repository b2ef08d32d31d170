"""Raw uploads as evidence: kept before anything is decided about them, read back by digest.

Source: specs/settlement-ingest.md, "Evidence". Every file's row names the place of its bytes: table
`evidence` of the database itself, or one of `stores`. New files go to the newest of these, or there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.settlement import db
from sealpack.settlement.evidence_bytes import checked, gone
from sealpack.settlement.evidence_store import DATABASE, Store, open_store


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes go: `number` of a row of `stores`, None for the database itself."""

    number: int | None = None
    location: str = DATABASE

    @property
    def store(self) -> Store | None:
        """The store; None for the database."""
        return open_store(self.location)


_DATABASE = Place()


def place(connection: sa.Connection) -> Place:
    """Where new files go now."""
    newest = sa.select(db.stores).order_by(db.stores.c.number.desc()).limit(1)
    row = connection.execute(newest).first()
    return _DATABASE if row is None or row.location == DATABASE else Place(row.number, row.location)


def keep(
    database: db.Database,
    data: bytes,
    name: str,
    now: int,
    *,
    also: Callable[[sa.Connection, str], None] | None = None,
) -> str:
    """Store an upload's bytes, then its row, before anything is decided about it; its digest.

    For bytes that were not known, `also(connection, digest)` is called in the transaction that adds the row,
    which then has the database to itself. STORE_*.
    """
    digest = hashlib.sha256(data).hexdigest()
    lying: Place | None = None  # where the bytes were put
    while True:
        with database.write(*(() if also else (digest,))) as connection:
            known = sa.select(db.files.c.sha256).where(db.files.c.sha256 == digest)
            if connection.execute(known).first() is not None:
                return digest
            to = place(connection)
            if to.store is None or to == lying:
                add(connection, digest, data, name, now, to)
                if also is not None:
                    also(connection, digest)
                return digest
        to.store.put(digest, data)
        lying = to


def add(
    connection: sa.Connection, digest: str, data: bytes, name: str, now: int, to: Place = _DATABASE
) -> None:
    """The row of a file that was not known, and its bytes where they are for the database."""
    row = {"sha256": digest, "name": name, "received_at": now, "store": to.number}
    connection.execute(sa.insert(db.files).values(row))
    if to.number is None:
        connection.execute(sa.insert(db.evidence).values(sha256=digest, data=data))


def load(connection: sa.Connection, digest: str) -> bytes:
    """The bytes of a kept file, compared with their digest; STORE_CORRUPT, STORE_*."""
    data, location = connection.execute(_where(digest)).one()
    if location is not None:
        store = open_store(location)
        assert store is not None  # rows of files in the database name no store
        return store.get(digest)
    if data is None:
        raise gone(digest, "the database")
    return checked(digest, data)


def _where(digest: str) -> sa.Select[Any]:
    files = db.files
    return (
        sa.select(db.evidence.c.data, db.stores.c.location)
        .select_from(
            files.outerjoin(db.evidence, db.evidence.c.sha256 == files.c.sha256).outerjoin(
                db.stores, db.stores.c.number == files.c.store
            )
        )
        .where(files.c.sha256 == digest)
    )
