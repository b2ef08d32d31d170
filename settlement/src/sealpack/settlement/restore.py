"""Restoring a backup into an empty database of either kind, in one transaction.

Source: specs/backup.md. Everything is compared with the manifest before the transaction ends: a process that
dies, or a backup that is damaged, leaves the database as empty as it was.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.settlement import audit, backup, db, evidence
from sealpack.settlement.audit import Actor
from sealpack.settlement.evidence import Place
from sealpack.settlement.evidence_store import DATABASE, open_store

MARGIN = 1000  # acknowledgements of one log that may have been made since the backup
_ROWS = 500
_MANIFEST_BYTES = 1 << 20
_ANY_ROW = sa.literal(1)


@dataclass(frozen=True, slots=True)
class Restored:
    """What is there now. `digest` is that of the backup's manifest, `head` of the audit trail."""

    created_at: int
    digest: str
    rows: int
    files: int
    named: int
    head: str


def restore(database: db.Database, source: Path, *, actor: Actor, location: str | None = None) -> Restored:
    """Fill an empty database from a backup; raw files go to `location`, else into the database.

    OUTPUT_EXISTS when the database is not empty, BACKUP_INVALID, STATE_NEWER, AUDIT_BROKEN, STORE_*.
    """
    with _opened(source) as archive:
        manifest, digest = _manifest(archive)
        store = open_store(location) if location is not None else None
        if store is not None:
            store.prepare()
        with database.write() as connection:
            _require_empty(connection)
            for table in backup.tables():
                _fill(connection, archive, manifest, table)
            held, named = _bring(connection, archive, manifest, _place(connection, actor, location))
            _check_trail(connection, manifest)
            _note(connection, manifest, digest, actor)
            _, head = audit.check(connection)
    rows = sum(said["rows"] for said in manifest["tables"].values())
    return Restored(manifest["created_at"], digest, rows, held, named, head)


@contextmanager
def _opened(source: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what is wrong with it as BACKUP_INVALID."""
    try:
        with zipfile.ZipFile(source) as archive:
            yield archive
    except OSError as error:
        raise io_error(error, source, "read") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
        raise _invalid(f"{source.name} is damaged: {error}"[:300]) from None


def _invalid(message: str) -> SealpackError:
    return SealpackError("BACKUP_INVALID", message)


def _manifest(archive: zipfile.ZipFile) -> tuple[dict[str, Any], str]:
    """What the backup says of itself, as far as it is written for this version."""
    if archive.getinfo(backup.MANIFEST).file_size > _MANIFEST_BYTES:
        raise _invalid("its manifest is too large to be one")
    data = archive.read(backup.MANIFEST)
    try:
        said = json.loads(data)
        known = said["schema"] == backup.SCHEMA and canonical.dumps(said) == data
        version = int(said["schema_version"])
    except (ValueError, LookupError, TypeError, SealpackError):
        known, version = False, 0
    if not known:
        raise _invalid("it is no backup of a settlement database")
    if version > db.SCHEMA_VERSION:
        raise SealpackError("STATE_NEWER", f"the backup has schema {version}, this is {db.SCHEMA_VERSION}")
    columns = {table.name: [column.name for column in table.c] for table in backup.tables()}
    if version < db.SCHEMA_VERSION or {n: t["columns"] for n, t in said["tables"].items()} != columns:
        raise SealpackError(
            "BACKUP_INVALID", f"the backup was made by another version (schema {version})",
            remedy="restore it with the version that made it, then open the database with this one",
        )  # fmt: skip
    return said, hashlib.sha256(data).hexdigest()


def _require_empty(connection: sa.Connection) -> None:
    for table in (*backup.tables(), db.evidence):
        if connection.execute(sa.select(_ANY_ROW).select_from(table).limit(1)).first() is not None:
            raise SealpackError(
                "OUTPUT_EXISTS", f"the database is not empty: it has {table.name}",
                remedy="restore into a new file, or a new database on the server",
            )  # fmt: skip


def _fill(
    connection: sa.Connection, archive: zipfile.ZipFile, manifest: dict[str, Any], table: sa.Table
) -> None:
    """A table's rows, as many and with the digest that the manifest says."""
    said, digest, rows, count = manifest["tables"][table.name], hashlib.sha256(), list[dict[str, Any]](), 0
    with archive.open(f"tables/{table.name}.jsonl") as file:
        for line in file:
            digest.update(line)
            rows.append(_row(table, line))
            count += 1
            if len(rows) == _ROWS:
                connection.execute(sa.insert(table), rows)
                rows = []
    if (count, digest.hexdigest()) != (said["rows"], said["sha256"]):
        raise _invalid(f"table {table.name} is not what the manifest says")
    if rows:
        connection.execute(sa.insert(table), rows)


def _row(table: sa.Table, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
        row = dict(zip(table.c.keys(), values, strict=True))
        for column in table.c:
            if isinstance(column.type, sa.LargeBinary) and row[column.name] is not None:
                row[column.name] = base64.b64decode(row[column.name], validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise _invalid(f"table {table.name} has a row that is none") from None
    return row


def _place(connection: sa.Connection, actor: Actor, location: str | None) -> Place:
    """Where raw files of the backup go; new ones, too, unless these went to object storage."""
    found = evidence.place(connection)
    wanted = location or DATABASE
    if found.location == wanted:
        return found
    if location is None and backup.is_remote(found.location):
        return Place()
    number = (connection.execute(sa.select(sa.func.max(db.stores.c.number))).scalar() or 0) + 1
    connection.execute(sa.insert(db.stores).values(number=number, location=wanted, since=actor.at))
    return evidence.place(connection)


def _bring(
    connection: sa.Connection, archive: zipfile.ZipFile, manifest: dict[str, Any], to: Place
) -> tuple[int, int]:
    """Raw files to their place, each compared with its digest; how many, and how many are only named."""
    names = set(archive.namelist())
    held = named = 0
    for digest, location in backup.places(connection):
        if (name := f"evidence/{digest}") not in names:
            if not backup.is_remote(location):
                raise _invalid(f"file {digest[:16]} is missing")
            named += 1
            continue
        data = archive.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise _invalid(f"file {digest[:16]} was changed")
        this = db.files.c.sha256 == digest
        connection.execute(sa.update(db.files).where(this).values(store=to.number))
        if to.store is None:
            connection.execute(sa.insert(db.evidence).values(sha256=digest, data=data))
        else:
            to.store.put(digest, data)
        held += 1
    said = manifest["evidence"]
    if (held, named) != (said["files"], said["named"]):
        raise _invalid(f"it holds {held} raw files and names {named}, not what its manifest says")
    return held, named


def _check_trail(connection: sa.Connection, manifest: dict[str, Any]) -> None:
    """The audit trail is whole, ends where it did, and fits every document and transaction."""
    said = manifest["audit"]
    if audit.check(connection) != (said["entries"], said["head"]):
        raise SealpackError("AUDIT_BROKEN", "the audit trail ends elsewhere than the manifest says")


def _note(connection: sa.Connection, manifest: dict[str, Any], digest: str, actor: Actor) -> None:
    """What was forgotten since the backup is not known: replies go on behind all that may have been given."""
    last = connection.execute(sa.select(sa.func.max(db.acks.c.ack_seq))).scalar() or 0
    number = (connection.execute(sa.select(sa.func.max(db.restores.c.number))).scalar() or 0) + 1
    row = {"number": number, "made_at": manifest["created_at"], "at": actor.at, "next_ack": last + MARGIN}
    connection.execute(sa.insert(db.restores).values(row))
    audit.note(connection, actor, "restore", backup=digest, made_at=manifest["created_at"])
