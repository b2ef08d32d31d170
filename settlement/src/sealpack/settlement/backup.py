"""A backup: all of a settlement database at one moment, as one portable file, while everybody works on.

Source: specs/backup.md. The same file is written from either kind of database and restored into either
(:mod:`sealpack.settlement.restore`). Settlement's keys are no part of the database, nor of a backup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.format import canonical
from sealpack.format.files import atomic_writer
from sealpack.settlement import audit, db, evidence
from sealpack.settlement.tables import metadata

SCHEMA = "sealpack/settlement-backup/v1"
MANIFEST = "backup.json"
_APART = (db.about.name, db.evidence.name)  # said in the manifest; files of their own
_ROWS = 1000  # read at once


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written. `digest` is that of the manifest, which names the digest of everything else."""

    manifest: dict[str, Any]
    digest: str


def tables() -> list[sa.Table]:
    """The tables that are written row by row, each after those that it names."""
    return [table for table in metadata.sorted_tables if table.name not in _APART]


def write(database: db.Database, target: Path, *, now: int, everything: bool = False) -> Backup:
    """Write a backup to `target`, whole or not at all; reads only, and stops nobody.

    Raw files in object storage are named, not copied, unless `everything` is asked for. OUTPUT_EXISTS,
    STORE_*, IO_ERROR.
    """
    with (
        atomic_writer(target, mode=0o600, replace=False) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        database.read() as connection,
    ):
        count, head = audit.check(connection)
        manifest = {
            "schema": SCHEMA,
            "schema_version": db.SCHEMA_VERSION,
            "created_at": now,
            "tables": {table.name: _dump(connection, archive, table) for table in tables()},
            "evidence": _copy(connection, archive, everything),
            "audit": {"entries": count, "head": head},
        }
        data = canonical.dumps(manifest)
        archive.writestr(_entry(MANIFEST), data)
    return Backup(manifest, hashlib.sha256(data).hexdigest())


def _entry(name: str, packed: bool = True) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # dated 1980: when it was written says nothing
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    return info


def _dump(connection: sa.Connection, archive: zipfile.ZipFile, table: sa.Table) -> dict[str, Any]:
    """Write a table's rows in the order of its key; its columns, how many, and the digest of the lines."""
    digest, count = hashlib.sha256(), 0
    with archive.open(_entry(f"tables/{table.name}.jsonl"), "w", force_zip64=True) as file:
        for line in _lines(connection, table):
            digest.update(line)
            file.write(line)
            count += 1
    return {"columns": [column.name for column in table.c], "rows": count, "sha256": digest.hexdigest()}


def _lines(connection: sa.Connection, table: sa.Table) -> Iterator[bytes]:
    query = sa.select(table).order_by(*table.primary_key.columns)
    for row in connection.execute(query, execution_options={"yield_per": _ROWS}):
        values = [base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in row]
        yield json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _copy(connection: sa.Connection, archive: zipfile.ZipFile, everything: bool) -> dict[str, int]:
    """Write raw files, each compared with its digest; how many, their bytes, and how many are only named."""
    held = size = named = 0
    for digest, location in places(connection):
        if is_remote(location) and not everything:
            named += 1
            continue
        data = evidence.load(connection, digest)
        archive.writestr(_entry(f"evidence/{digest}", packed=False), data)
        held, size = held + 1, size + len(data)
    return {"files": held, "bytes": size, "named": named}


def places(connection: sa.Connection) -> list[tuple[str, str | None]]:
    """Digest and location of every raw file; None for the database."""
    rows = connection.execute(
        sa.select(db.files.c.sha256, db.stores.c.location)
        .select_from(db.files.outerjoin(db.stores, db.stores.c.number == db.files.c.store))
        .order_by(db.files.c.sha256)
    )
    return [(digest, location) for digest, location in rows]


def is_remote(location: str | None) -> bool:
    """Whether a place is object storage, which outlives this machine by itself."""
    return location is not None and location.startswith("s3://")
