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
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sealpack.format.errors import SealpackError
from sealpack.settlement import postgres
from sealpack.settlement.postgres import Conflict as Conflict

SCHEMA_VERSION = 3  # what an older one lacks, upgrade.py adds
WAIT_S = 60  # for another process that writes
metadata = sa.MetaData()
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits either way
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # in the order of its bytes either way


def _table(name: str, *columns: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, sqlite_strict=True)


def _text(name: str, *more: Any, **options: Any) -> sa.Column[str]:
    return sa.Column(name, _TEXT, *more, nullable=options.pop("nullable", False), **options)


def _int(name: str, *more: Any, **options: Any) -> sa.Column[int]:
    """A whole number, never below zero."""
    check = sa.CheckConstraint(f'"{name}" >= 0')
    return sa.Column(name, _INTEGER, *more, check, nullable=options.pop("nullable", False), **options)


def _amount(name: str) -> sa.Column[int]:
    """Minor units of the row's currency, of either sign."""
    return sa.Column(name, _INTEGER, nullable=False)


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
# Which of these ids are sub-licenses, and of what.
sublicenses = _table(
    "sublicenses",
    _text("license_id", sa.ForeignKey("licenses.license_id"), primary_key=True),
    _text("parent_id", index=True),
)
bundles = _table(
    "bundles", _text("digest", primary_key=True), _text("bundle_id"), _text("version"), _text("name")
)
activations = _table(
    "activations",
    _text("license_id", primary_key=True),
    _text("device_id", primary_key=True),
    _text("digest"),
    _int("first_at"),  # the earliest activation of this device
    _int("issued_at"),  # the newest one, which is in `envelope`
    _text("device_label"),
    _blob("envelope"),
)
# Raw uploads by digest, kept before anything is decided about them: `code` is absent until then.
files = _table(
    "files",
    _text("sha256", primary_key=True),
    _text("name"),
    _int("received_at"),
    _blob("data"),
    _text("code", nullable=True),
    _text("detail", nullable=True),
    _int("accepted", nullable=True),
    _text("origin", nullable=True, index=True),
    _text("license_id", nullable=True),
    _int("first", nullable=True),
    _int("last", nullable=True),
)
logs = _table(
    "logs",
    _text("origin", primary_key=True),
    _text("license_id", sa.ForeignKey("licenses.license_id")),
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
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("first", primary_key=True),
    _int("last"),
    _text("sha256", sa.ForeignKey("files.sha256")),
)
# Device keys that accepted receipts handed the log over to, and where.
rotations = _table(
    "rotations",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("position", primary_key=True),
    _text("device_key"),
)
rollups = _table(
    "rollups",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _text("route", primary_key=True),
    _int("quarter_ms", primary_key=True),
    _text("status", primary_key=True),
    _text("meter", primary_key=True),
    _int("amount"),
)
# What the first record of a later log says of the device's logs before it.
successions = _table(
    "successions",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("at_ms"),
    _text("license"),  # digest of the document it began under
    _text("previous_origin", nullable=True, index=True),
    _int("previous_size", nullable=True),
    _text("previous_root", nullable=True),
    _text("carried"),  # JSON: bundle digest -> meter -> total
)
# Leave to begin a further log, as issued.
epoch_tokens = _table(
    "epoch_tokens",
    _text("digest", primary_key=True),
    _text("license_id"),
    _text("device_id"),
    _int("epoch"),
    _blob("envelope"),
)
# Logs that a device ended, by its own signed proof: nothing can follow `size`.
deactivations = _table(
    "deactivations",
    _text("origin", primary_key=True),
    _text("license_id"),
    _text("device_id"),
    _int("epoch"),
    _int("size"),
    _text("root"),
    _int("closed_at"),
    _blob("envelope"),
)
# What waits for a person or for another file. A fork keeps both signed checkpoints.
cases = _table(
    "cases",
    _text("code", primary_key=True),
    _text("sha256", sa.ForeignKey("files.sha256"), primary_key=True),
    _text("origin"),
    _int("opened_at"),
    _int("closed_at", nullable=True),
    _text("detail"),
    _blob("ours", nullable=True),
    _blob("theirs", nullable=True),
)
# The number a case is called by, and what a person decided about it.
decisions = _table(
    "decisions",
    _int("number", primary_key=True),
    _text("code"),
    _text("sha256", sa.ForeignKey("files.sha256")),
    _text("verdict", nullable=True),  # accept | refuse
    _text("reason", nullable=True),
    _text("who", nullable=True),
    _int("at", nullable=True),
    sa.UniqueConstraint("code", "sha256"),
)
acks = _table(
    "acks",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("ack_seq", primary_key=True),
    _text("digest"),
    _text("basis"),
    _blob("envelope"),
)
# Who bills, as printed: one legal entity per issuer of licenses, each with its own number series.
sellers = _table("sellers", _text("issuer", primary_key=True), _blob("document"))
# Every document of a number series. `kind`: invoice | late | correction | credit; there is one `invoice` per
# license and period, the others name in `corrects` the document they add to.
invoices = _table(
    "invoices",
    _text("issuer", primary_key=True),
    _int("number", primary_key=True),
    _text("name", unique=True),
    _text("license_id", sa.ForeignKey("licenses.license_id")),
    _text("period"),
    _text("kind"),
    _text("corrects", nullable=True),
    _text("customer_id"),
    _text("currency"),
    _text("issued"),
    _text("due"),
    _amount("net"),
    _amount("total"),
    _blob("json"),
    _blob("csv"),
    _blob("html"),
)
sa.Index(
    "invoices_one_per_period", invoices.c.license_id, invoices.c.period, unique=True,
    sqlite_where=invoices.c.kind == "invoice", postgresql_where=invoices.c.kind == "invoice",
)  # fmt: skip
# The double-entry ledger: nothing is ever changed or removed. Postings of one transaction sum to zero.
transactions = _table(
    "transactions",
    _int("seq", primary_key=True),
    _text("id", unique=True),  # made of what happened, so that nothing is booked twice
    _text("issuer"),
    _text("day"),
    _text("kind"),
    _text("document"),
    _text("reference"),
    _text("narration"),
    _text("currency"),
)
postings = _table(
    "postings",
    _int("seq", sa.ForeignKey("transactions.seq"), primary_key=True),
    _int("n", primary_key=True),
    _text("account"),
    _text("party"),
    _text("document", index=True),
    _amount("amount"),  # debit above zero, credit below
)
# Who changed what, each row chained to the one before by its digest.
audit = _table(
    "audit",
    _int("seq", primary_key=True),
    _int("at"),
    _text("who"),
    _text("what"),  # canonical JSON
    _text("previous"),
    _text("digest", unique=True),
)
# Who may use the service: of a token only its digest is kept.
tokens = _table(
    "tokens",
    _text("id", primary_key=True),
    _text("name", unique=True),
    _text("role"),
    _text("scope"),  # customer:ID | license:ID | party:NAME | nothing
    _text("digest"),
    _int("created_at"),
    _int("expires_at", nullable=True),
    _int("revoked_at", nullable=True),
)


def put(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_*`, in the words of the connection's database."""
    words = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return words(table)


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
        engine = sa.create_engine(_url(target), connect_args={"timeout": WAIT_S})
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
