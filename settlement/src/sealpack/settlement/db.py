"""The settlement database: tables and transactions.

Source: specs/settlement-ingest.md, "Storage". SQLAlchemy Core, so that the same code speaks to PostgreSQL by
URL (:mod:`sealpack.settlement.postgres`); embedded SQLite is the default. Reading sees one moment and stops
nobody; a writing transaction takes its lock at once, so that nothing it has looked at can change under it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import postgres
from sealpack.settlement.postgres import Conflict as Conflict
from sealpack.settlement.tables import (
    about as about,
    acks as acks,
    activations as activations,
    approvals as approvals,
    audit as audit,
    bundles as bundles,
    cases as cases,
    customers as customers,
    daily as daily,
    deactivations as deactivations,
    decisions as decisions,
    drops as drops,
    epoch_tokens as epoch_tokens,
    evidence as evidence,
    files as files,
    invoices as invoices,
    license_usage as license_usage,
    license_versions as license_versions,
    licenses as licenses,
    logs as logs,
    metadata as metadata,
    plans as plans,
    postings as postings,
    put as put,
    queue as queue,
    rated as rated,
    reaches as reaches,
    reading_bounds as reading_bounds,
    readings as readings,
    restores as restores,
    rollups as rollups,
    rotations as rotations,
    segments as segments,
    sellers as sellers,
    sessions as sessions,
    stated as stated,
    stores as stores,
    sublicenses as sublicenses,
    successions as successions,
    tokens as tokens,
    transactions as transactions,
    trust as trust,
    users as users,
)

SCHEMA_VERSION = 4  # what an older one lacks, upgrade.py adds
WAIT_S = 60  # for another process that writes


class Database:
    """A settlement database. `write()` is one transaction, `read()` a consistent look."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._is_postgres = engine.dialect.name == "postgresql"
        self._reader = engine.execution_options(**(postgres.READS if self._is_postgres else {_READS: True}))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Database:
        """Open the SQLite file at `path`, or the PostgreSQL database of a URL; make what is not there yet.

        STORE_*, STATE_NEWER, STATE_LOCKED, EXTRA_MISSING.
        """
        if isinstance(path, str) and postgres.is_url(path):
            return cls(postgres.make_engine(path, WAIT_S))._prepared()
        target = Path(path)
        if not target.parent.is_dir():
            raise SealpackError("FILE_MISSING", f"folder {target.parent} does not exist")
        engine = sa.create_engine(_url(target), max_overflow=postgres.POOL, connect_args={"timeout": WAIT_S})
        sa.event.listen(engine, "connect", _configure)
        sa.event.listen(engine, "begin", _begin)
        return cls(engine)._prepared()

    def _prepared(self) -> Database:
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        return self

    def _prepare(self) -> None:
        with self.read() as connection:
            found = _schema_version(connection)
        if found is not None and found > SCHEMA_VERSION:
            raise SealpackError("STATE_NEWER", f"the database has schema {found}, this is {SCHEMA_VERSION}")
        if found is None or found < SCHEMA_VERSION:
            from sealpack.settlement import upgrade  # it books what an older version issued, so it needs us

            with self.write() as connection:
                if _schema_version(connection) is None:
                    metadata.create_all(connection)
                    connection.execute(sa.insert(about).values(schema_version=SCHEMA_VERSION))
                else:
                    upgrade.run(connection)
                    connection.execute(sa.update(about).values(schema_version=SCHEMA_VERSION))

    @property
    def kind(self) -> str:
        """SQLite | PostgreSQL."""
        return "PostgreSQL" if self._is_postgres else "SQLite"

    def close(self) -> None:
        """Release the file or the connections."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def write(self, *concerns: str) -> Iterator[sa.Connection]:
        """One transaction: committed when the block ends, rolled back when it raises.

        No other one writes meanwhile. With `concerns`, names of the things it looks at and changes, only
        others that concern one of these wait, where the database can tell (PostgreSQL).
        """
        with _told(), self._engine.begin() as connection:
            if self._is_postgres:
                postgres.lock(connection, concerns)
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """The database as it is at the first question, whatever is written meanwhile."""
        with _told(), self._reader.begin() as connection:
            yield connection


def _schema_version(connection: sa.Connection) -> int | None:
    """What the database says of itself; None in a new one."""
    if not sa.inspect(connection).has_table(about.name):
        return None
    return connection.execute(sa.select(about.c.schema_version)).scalar()


def _url(path: Path) -> sa.URL:
    """A database nobody can write, such as an auditor's copy on a disc, is read as it stands."""
    writable = os.access(path.parent, os.W_OK) and (os.access(path, os.W_OK) or not path.exists())
    if writable or not path.exists():
        return sa.URL.create("sqlite", database=str(path))
    if (wal := path.with_name(path.name + "-wal")).exists() and wal.stat().st_size:
        raise SealpackError("STORE_READONLY", f"{path} has changes in {wal.name} that cannot be joined to it")
    query = {"immutable": "1", "mode": "ro", "uri": "true"}
    return sa.URL.create("sqlite", database=f"file:{quote(str(path.resolve()))}", query=query)


_READS = "sealpack_reads"


def _begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the database says into our codes."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _store_error(error) from None
    except sa.exc.TimeoutError:  # all connections are in use
        raise SealpackError("STATE_LOCKED", "settlement database: too much at the same time") from None
    except UnicodeDecodeError as error:  # overwritten pages: what the database itself says is no text
        raise SealpackError("STORE_CORRUPT", f"settlement database: {error.reason}") from None


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are ours: BEGIN IMMEDIATE
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _store_error(error: sa.exc.DBAPIError) -> SealpackError:
    if not isinstance(error.orig, sqlite3.Error):
        return postgres.store_error(error)
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
