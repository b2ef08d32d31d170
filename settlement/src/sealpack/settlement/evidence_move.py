"""Telling raw files where to lie, and moving what lies elsewhere.

Source: specs/settlement-ingest.md, "Evidence". New files go to the new place from the first transaction on;
the others follow in small ones, copied first and named afterwards, so a process that dies anywhere leaves a
database whose every file is found, and the same call again moves the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db, evidence
from sealpack.settlement.audit import Actor
from sealpack.settlement.evidence import Place
from sealpack.settlement.evidence_store import DATABASE, open_store

_FILES, _BYTES = 64, 32 << 20  # of one step


@dataclass(frozen=True, slots=True)
class Lying:
    """How many files lie at a place; `current` is where new ones go."""

    location: str
    files: int
    current: bool


def location_of(target: str, endpoint: str | None = None) -> str:
    """What `stores` records of `database`, a folder or s3://BUCKET/PREFIX; USAGE."""
    if target.startswith("s3://"):
        from sealpack.settlement import evidence_s3

        return evidence_s3.location_of(target, endpoint)
    if endpoint is not None:
        raise SealpackError("USAGE", "--endpoint goes with s3://BUCKET/PREFIX")
    return target if target == DATABASE else str(Path(target).absolute())


def lying(connection: sa.Connection) -> list[Lying]:
    """Every place that holds files, and the one for new files."""
    current = evidence.place(connection).location
    location = sa.func.coalesce(db.stores.c.location, DATABASE)
    rows = connection.execute(
        sa.select(location, sa.func.count())
        .select_from(db.files.outerjoin(db.stores, db.stores.c.number == db.files.c.store))
        .group_by(location)
    )
    counts = {current: 0, **{where: count for where, count in rows}}
    return [Lying(where, counts[where], where == current) for where in sorted(counts)]


def move(database: db.Database, location: str, *, actor: Actor) -> int:
    """Let new files go to `location`, then bring all others there; how many were moved.

    What a folder or a bucket held stays there, too. STORE_*, EXTRA_MISSING; STATE_LOCKED when somebody names
    another place meanwhile.
    """
    store = open_store(location)
    if store is not None:
        store.prepare()
    to, moved = _name(database, location, actor), 0
    for digests in _elsewhere(database, to):
        moved += _step(database, to, digests)
    return moved


def _name(database: db.Database, location: str, actor: Actor) -> Place:
    """Record the place for new files; one that is named already stays as it is."""
    with database.write() as connection:
        found = evidence.place(connection)
        if found.location == location:
            return found
        number = (connection.execute(sa.select(sa.func.max(db.stores.c.number))).scalar() or 0) + 1
        row = {"number": number, "location": location, "since": actor.at}
        connection.execute(sa.insert(db.stores).values(row))
        audit.note(connection, actor, "store", location=location)
        return evidence.place(connection)


def _elsewhere(database: db.Database, to: Place) -> Iterator[Sequence[str]]:
    """Digests of the files that lie at another place, some at a time, until there are none."""
    query = (
        sa.select(db.files.c.sha256)
        .where(db.files.c.store.is_distinct_from(to.number))
        .order_by(db.files.c.sha256)
        .limit(_FILES)
    )
    while True:
        with database.read() as connection:
            digests = connection.execute(query).scalars().all()
        if not digests:
            return
        yield digests


def _step(database: db.Database, to: Place, digests: Sequence[str]) -> int:
    """Copy some files, then name their new place in one transaction; how many."""
    copied: dict[str, bytes] = {}
    size = 0
    with database.read() as connection:
        for digest in digests:
            data = _bytes(connection, to, digest)
            size += len(data)
            if to.store is not None:
                to.store.put(digest, data)
            copied[digest] = data if to.store is None else b""
            if size > _BYTES:
                break
    with database.write() as connection:
        if evidence.place(connection) != to:
            raise SealpackError(
                "STATE_LOCKED", "another place was named meanwhile", remedy="see settle store"
            )
        mine = db.files.c.sha256.in_(copied)
        connection.execute(sa.update(db.files).where(mine).values(store=to.number))
        connection.execute(sa.delete(db.evidence).where(db.evidence.c.sha256.in_(copied)))
        if to.store is None:
            rows = [{"sha256": digest, "data": data} for digest, data in copied.items()]
            connection.execute(sa.insert(db.evidence), rows)
    return len(copied)


def _bytes(connection: sa.Connection, to: Place, digest: str) -> bytes:
    """A file from where it lies; or a copy that somebody brought to the new place, when it is gone there."""
    try:
        return evidence.load(connection, digest)
    except SealpackError as error:
        if to.store is None or not error.code.startswith("STORE_"):
            raise
        try:
            return to.store.get(digest)
        except SealpackError:
            raise error from None
