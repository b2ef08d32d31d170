"""The settlement database: tables and transactions.

Source: specs/settlement-ingest.md, "Storage". SQLAlchemy Core, so that the same code can speak to another
database by URL; embedded SQLite is the default. A transaction takes the write lock at once: two
ingesting processes never interleave inside one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError

SCHEMA_VERSION = 1
metadata = sa.MetaData()
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits either way


def _table(name: str, *columns: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, sqlite_strict=True)


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=options.pop("nullable", False), **options)


def _int(name: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, _INTEGER, nullable=options.pop("nullable", False), **options)


def _blob(name: str, **options: Any) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=options.pop("nullable", False), **options)


about = _table("about", _int("schema_version"))
trust = _table("trust", _text("anchor", primary_key=True), _blob("data"))
customers = _table("customers", _text("id", primary_key=True), _blob("document"))
plans = _table(
    "plans",
    _text("id", primary_key=True),
    _int("version", primary_key=True),
    _text("digest"),
    _blob("document"),
)
licenses = _table(
    "licenses",
    _text("license_id", primary_key=True),
    _int("seq"),
    _text("digest"),
    _text("customer_id"),
    _blob("envelope"),
)
# Every license document ever seen: a log's genesis may name an older one.
license_versions = _table(
    "license_versions", _text("digest", primary_key=True), _text("license_id"), _int("seq"), _blob("envelope")
)
bundles = _table(
    "bundles", _text("digest", primary_key=True), _text("bundle_id"), _text("version"), _text("name")
)
activations = _table(
    "activations",
    _text("license_id", primary_key=True),
    _text("device_id", primary_key=True),
    _text("digest"),
    _int("issued_at"),
    _text("device_key"),
    _text("device_label"),
    _blob("envelope"),
)
# Raw uploads by digest, kept before anything is decided about them.
files = _table(
    "files",
    _text("sha256", primary_key=True),
    _text("name"),
    _int("received_at"),
    _blob("data"),
    _text("code", nullable=True),
    _text("detail", nullable=True),
    _int("accepted", nullable=True),
    _text("origin", nullable=True),
    _text("license_id", nullable=True),
    _int("start", nullable=True),
)
logs = _table(
    "logs",
    _text("origin", primary_key=True),
    _text("license_id"),
    _text("device_id"),
    _int("epoch"),
    _int("size"),
    _text("root"),
    _blob("frontier"),
    _blob("state"),
    _blob("note"),
    _int("last_ms"),
    _int("frozen"),
)
segments = _table(
    "segments",
    _text("origin", primary_key=True),
    _int("start", primary_key=True),
    _int("end"),
    _text("sha256"),
)
# Device keys that accepted receipts handed the log over to.
rotations = _table("rotations", _text("origin", primary_key=True), _text("device_key", primary_key=True))
rollups = _table(
    "rollups",
    _text("origin", primary_key=True),
    _text("route", primary_key=True),
    _int("quarter_ms", primary_key=True),
    _text("status", primary_key=True),
    _text("meter", primary_key=True),
    _int("amount"),
)
cases = _table(
    "cases",
    _text("code", primary_key=True),
    _text("sha256", primary_key=True),
    _text("origin"),
    _int("opened_at"),
    _int("closed_at", nullable=True),
    _text("detail"),
)
acks = _table(
    "acks",
    _text("origin", primary_key=True),
    _int("ack_seq", primary_key=True),
    _text("digest"),
    _text("basis"),
    _blob("envelope"),
)
invoices = _table(
    "invoices",
    _int("number", primary_key=True),
    _text("name", unique=True),
    _text("license_id"),
    _text("period"),
    _blob("json"),
    _blob("csv"),
    _blob("html"),
    sa.UniqueConstraint("license_id", "period"),
)


class Database:
    """A settlement database. `write()` is one transaction, `read()` a consistent look."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Database:
        """Open or make the SQLite file at `path`; STORE_*, STATE_NEWER."""
        target = Path(path)
        if not target.parent.is_dir():
            raise SealpackError("FILE_MISSING", f"folder {target.parent} does not exist")
        engine = sa.create_engine(f"sqlite:///{target}", connect_args={"timeout": 30})
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        database = cls(engine)
        try:
            database._prepare()
        except BaseException:
            engine.dispose()
            raise
        return database

    def _prepare(self) -> None:
        with self.write() as connection:
            metadata.create_all(connection)
            found = connection.execute(sa.select(about.c.schema_version)).scalar()
            if found is None:
                connection.execute(sa.insert(about).values(schema_version=SCHEMA_VERSION))
            elif found > SCHEMA_VERSION:
                raise SealpackError(
                    "STATE_NEWER", f"the database has schema {found}, this is {SCHEMA_VERSION}"
                )

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise _store_error(error) from None

    read = write  # SQLite: the same lock; a reader never sees half a transaction


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are ours: BEGIN IMMEDIATE
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _store_error(error: sa.exc.DBAPIError) -> SealpackError:
    name = getattr(error.orig, "sqlite_errorname", "") or ""
    for start, code in (
        ("SQLITE_FULL", "STORE_FULL"),
        ("SQLITE_READONLY", "STORE_READONLY"),
        ("SQLITE_CANTOPEN", "STORE_READONLY"),
        ("SQLITE_BUSY", "STATE_LOCKED"),
        ("SQLITE_LOCKED", "STATE_LOCKED"),
        ("SQLITE_CORRUPT", "STORE_CORRUPT"),
        ("SQLITE_NOTADB", "STORE_CORRUPT"),
    ):
        if name.startswith(start):
            return SealpackError(code, f"settlement database: {error.orig}")
    return SealpackError("STORE_IO", f"settlement database: {error.orig}")
