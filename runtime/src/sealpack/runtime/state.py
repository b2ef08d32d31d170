"""The one SQLite database of a device: documents, clock, logs, counters and open reservations.

Source: specs/runtime-state.md, "Database". STRICT tables with CHECKs, WAL, synchronous=FULL: what
`write()` has committed survives a power cut. Documents are kept as signed bytes and verified again
when read; the database is not trusted to say what they mean.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.runtime.home import Home

VERSION = 3
APPLICATION_ID = 0x5345414C  # "SEAL"
BUSY_SECONDS = 10.0
_LOW_SPACE = 1 << 16  # bytes free below which an I/O error means a full disk

_SCHEMA = """
CREATE TABLE trust(
  anchor TEXT PRIMARY KEY,            -- digest of the root that was pinned
  pinned BLOB NOT NULL,               -- trust file as pinned
  newer BLOB NOT NULL                 -- parcel of every newer trust document taken over since
) STRICT;
CREATE TABLE requests(
  nonce TEXT PRIMARY KEY,
  digest TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  answered TEXT                       -- digest of the activation that answered it
) STRICT;
CREATE TABLE documents(
  kind TEXT NOT NULL,                 -- of specs/documents.md; what is kept of each: `rights`
  license_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  envelope BLOB NOT NULL,
  PRIMARY KEY(kind, license_id)
) STRICT;
CREATE TABLE bundles(
  bundle_digest TEXT PRIMARY KEY,
  bundle_id TEXT NOT NULL,
  record BLOB NOT NULL,               -- canonical JSON, authenticated by mac
  mac BLOB NOT NULL CHECK(length(mac) = 32)
) STRICT;
CREATE TABLE terms(
  license_id TEXT NOT NULL,
  terms_digest TEXT NOT NULL,
  accepted_at INTEGER NOT NULL,
  PRIMARY KEY(license_id, terms_digest)
) STRICT;
CREATE TABLE clock(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  hard INTEGER NOT NULL CHECK(hard >= 0),
  soft INTEGER NOT NULL CHECK(soft >= hard),
  budget INTEGER NOT NULL CHECK(budget >= 0),
  boot_id TEXT NOT NULL,
  monotonic INTEGER NOT NULL,
  pending_wall INTEGER,
  pending_run INTEGER NOT NULL CHECK(pending_run >= 0),
  behind INTEGER NOT NULL CHECK(behind IN (0, 1)),
  events TEXT NOT NULL,               -- JSON list of [name, delta] no record tells of yet
  own INTEGER NOT NULL,               -- soft without what documents alone added
  stage INTEGER NOT NULL CHECK(stage IN (0, 1, 2))  -- of believing a first wall clock
) STRICT;
CREATE TABLE logs(
  log INTEGER PRIMARY KEY,
  origin TEXT NOT NULL UNIQUE,
  license_id TEXT NOT NULL,
  epoch INTEGER NOT NULL CHECK(epoch >= 0),
  size INTEGER NOT NULL CHECK(size >= 0),
  roots TEXT NOT NULL,                -- frontier at size, hex
  checkpoint BLOB NOT NULL,           -- signed note at size
  boot INTEGER NOT NULL CHECK(boot >= 0),
  boot_key TEXT NOT NULL,             -- what the newest boot record stands for
  uptime_ms INTEGER NOT NULL,
  tally_size INTEGER NOT NULL,        -- size after the newest tally
  quarter INTEGER NOT NULL,           -- quarter hour of the newest tally; 0 asks for another one
  started INTEGER,                    -- soft time of the first admitted call, ms
  acked_size INTEGER NOT NULL CHECK(acked_size <= size),
  acked_roots TEXT NOT NULL,
  ack_seq INTEGER NOT NULL,
  exported_size INTEGER NOT NULL,
  file_seq INTEGER NOT NULL,
  restarted INTEGER,                  -- soft time at which this device began the epoch by itself, ms
  marked INTEGER NOT NULL DEFAULT 0 CHECK(marked IN (0, 1)),  -- a high-water mark was written
  UNIQUE(license_id, epoch)
) STRICT;
CREATE TABLE leaves(
  log INTEGER NOT NULL,
  n INTEGER NOT NULL,
  kind TEXT NOT NULL,
  record BLOB NOT NULL,
  PRIMARY KEY(log, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE routes(
  log INTEGER NOT NULL,
  route TEXT NOT NULL,
  entry TEXT NOT NULL,                -- canonical JSON of the boot record's entry
  PRIMARY KEY(log, route),
  UNIQUE(log, entry)
) STRICT;
CREATE TABLE registers(
  log INTEGER NOT NULL,
  route TEXT NOT NULL,
  status TEXT NOT NULL,
  meter TEXT NOT NULL,
  total INTEGER NOT NULL CHECK(total >= 0),
  PRIMARY KEY(log, route, status, meter)
) STRICT, WITHOUT ROWID;
CREATE TABLE counters(
  license_id TEXT NOT NULL,
  period TEXT NOT NULL,               -- day:N, month:YYYY-MM, term, bundle:<digest>
  meter TEXT NOT NULL,
  used INTEGER NOT NULL CHECK(used >= 0),
  reserved INTEGER NOT NULL CHECK(reserved >= 0),
  PRIMARY KEY(license_id, period, meter)
) STRICT, WITHOUT ROWID;
CREATE TABLE reservations(
  id INTEGER PRIMARY KEY,
  log INTEGER NOT NULL,
  license_id TEXT NOT NULL,
  owner TEXT NOT NULL,                -- lock file of the process that holds it
  route TEXT NOT NULL,
  periods TEXT NOT NULL,              -- JSON list of the counter periods it counts in
  calls INTEGER NOT NULL CHECK(calls >= 0),
  tok_in INTEGER NOT NULL CHECK(tok_in >= 0),
  tok_out INTEGER NOT NULL CHECK(tok_out >= 0),
  items INTEGER NOT NULL CHECK(items >= 0),
  progress INTEGER NOT NULL CHECK(progress >= 0),        -- tok_out already produced
  progress_ms INTEGER NOT NULL CHECK(progress_ms >= 0),  -- in how much time
  streaming INTEGER NOT NULL CHECK(streaming IN (0, 1)),
  ahead INTEGER NOT NULL DEFAULT 0 CHECK(ahead >= 0),  -- generation of a hold made ahead
  boot_id TEXT NOT NULL DEFAULT ''    -- the boot in which it was held ahead
) STRICT;
CREATE TABLE carried(                 -- registers of receipts that a restore lost, as the mark told them
  license_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,             -- the log that carries them on
  bundle_digest TEXT NOT NULL,
  meter TEXT NOT NULL,
  total INTEGER NOT NULL CHECK(total > 0),
  PRIMARY KEY(license_id, epoch, bundle_digest, meter)
) STRICT, WITHOUT ROWID;
CREATE TABLE lapses(
  license_id TEXT NOT NULL,
  kind TEXT NOT NULL,                 -- provisional, break-glass
  per TEXT NOT NULL,                  -- lease or license number it was for; "" for provisional
  began INTEGER NOT NULL,             -- accepted time, ms
  spent INTEGER NOT NULL CHECK(spent >= 0),  -- accepted time that has passed since, ms
  seen INTEGER NOT NULL,              -- accepted time of the newest look
  reason TEXT NOT NULL,               -- for people; never leaves the machine
  PRIMARY KEY(license_id, kind, per)
) STRICT;
CREATE TABLE hardware(                -- fingerprints that a repair put in place of the activation's
  license_id TEXT PRIMARY KEY,
  replaces TEXT NOT NULL,             -- nonce of the request that the activation answers
  nonce TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  mac BLOB NOT NULL CHECK(length(mac) = 32)
) STRICT;
CREATE TABLE drift(
  license_id TEXT NOT NULL,
  seen TEXT NOT NULL,                 -- parts met in place of the accepted ones, once in the log
  PRIMARY KEY(license_id, seen)
) STRICT, WITHOUT ROWID;
CREATE TABLE site_keys(
  license_id TEXT NOT NULL,
  bundle_digest TEXT NOT NULL,
  enc_ct BLOB NOT NULL,               -- key a site code opened, wrapped for this device's own key
  PRIMARY KEY(license_id, bundle_digest)
) STRICT;
CREATE TABLE denials(
  log INTEGER NOT NULL,
  code TEXT NOT NULL,
  minute INTEGER NOT NULL,
  PRIMARY KEY(log, code)
) STRICT;
"""

# What brings a database of the version before up to date: {version before: statements}.
_UPGRADES = {
    1: (
        "ALTER TABLE clock ADD COLUMN own INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE clock ADD COLUMN stage INTEGER NOT NULL DEFAULT 2 CHECK(stage IN (0, 1, 2))",
        "UPDATE clock SET own=soft",
    ),
    2: (
        "CREATE TABLE documents_3(kind TEXT NOT NULL, license_id TEXT NOT NULL, digest TEXT NOT NULL,"
        " envelope BLOB NOT NULL, PRIMARY KEY(kind, license_id)) STRICT",
        "INSERT INTO documents_3 SELECT kind, license_id, digest, envelope FROM documents",
        "DROP TABLE documents",
        "ALTER TABLE documents_3 RENAME TO documents",
        "CREATE TABLE lapses(license_id TEXT NOT NULL, kind TEXT NOT NULL, per TEXT NOT NULL,"
        " began INTEGER NOT NULL, spent INTEGER NOT NULL CHECK(spent >= 0), seen INTEGER NOT NULL,"
        " reason TEXT NOT NULL, PRIMARY KEY(license_id, kind, per)) STRICT",
        "CREATE TABLE hardware(license_id TEXT PRIMARY KEY, replaces TEXT NOT NULL, nonce TEXT NOT NULL,"
        " fingerprint TEXT NOT NULL, mac BLOB NOT NULL CHECK(length(mac) = 32)) STRICT",
        "CREATE TABLE drift(license_id TEXT NOT NULL, seen TEXT NOT NULL,"
        " PRIMARY KEY(license_id, seen)) STRICT, WITHOUT ROWID",
        "CREATE TABLE site_keys(license_id TEXT NOT NULL, bundle_digest TEXT NOT NULL,"
        " enc_ct BLOB NOT NULL, PRIMARY KEY(license_id, bundle_digest)) STRICT",
        "ALTER TABLE reservations ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0 CHECK(ahead >= 0)",
        "ALTER TABLE reservations ADD COLUMN boot_id TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE logs ADD COLUMN restarted INTEGER",
        "ALTER TABLE logs ADD COLUMN marked INTEGER NOT NULL DEFAULT 0 CHECK(marked IN (0, 1))",
        "CREATE TABLE carried(license_id TEXT NOT NULL, epoch INTEGER NOT NULL, bundle_digest TEXT NOT NULL,"
        " meter TEXT NOT NULL, total INTEGER NOT NULL CHECK(total > 0),"
        " PRIMARY KEY(license_id, epoch, bundle_digest, meter)) STRICT, WITHOUT ROWID",
        "DROP TABLE buckets",
    ),
}


class Connection(sqlite3.Connection):
    """A connection that remembers what is to be done once its transaction is durable.

    `home` is where its database lies; `after` maps a name to an action, so that of several for one thing
    the last counts; `guarded` are the logs that were compared with their high-water marks.
    """

    home: Home

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.after: dict[str, Callable[[], None]] = {}
        self.guarded: set[str] = set()


def afterwards(db: sqlite3.Connection, name: str, action: Callable[[], None]) -> None:
    """Do `action` when the transaction that is open on `db` is durable, and not at all if it is undone."""
    assert isinstance(db, Connection), "only connections of State open write transactions"
    db.after[name] = action


class State:
    """An open database. One connection, usable from several threads, one transaction at a time."""

    def __init__(self, home: Home, *, busy_seconds: float = BUSY_SECONDS) -> None:
        """Open or create the database of `home`; STORE_*, STATE_LOCKED or STATE_NEWER."""
        self.home = home
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._names = [Path(f"{home.database.absolute()}{end}") for end in ("", "-wal", "-shm")]
        self._files: list[tuple[int, int] | None] = []  # behind these names, since the first transaction
        with storage_errors(home.path):
            if not home.database.exists():
                os.close(os.open(home.database, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(
                home.database,
                timeout=busy_seconds,
                isolation_level=None,
                check_same_thread=False,
                factory=Connection,
            )
            self._db.home = home
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        with storage_errors(self.home.path):
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise SealpackError(
                    "STATE_NEWER", f"{self.home.database} has schema {version}, this version knows {VERSION}"
                )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
        if version < VERSION:
            with self.write() as db:
                _migrate(db)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_same_process(self) -> None:
        """A connection that crosses a fork damages the database."""
        if os.getpid() != self._pid:
            raise SealpackError(
                "USAGE",
                f"the state was opened by process {self._pid}, this is {os.getpid()}",
                remedy="open the runtime after the fork, in the process that uses it",
            )

    def _require_same_files(self) -> None:
        """STATE_TAMPERED when a file of the open database was removed or replaced.

        What is written to a removed log nobody else sees: its units would be sold twice.
        """
        found = [_identity(path) for path in self._names]
        if not self._files:
            self._files = found
        if found != self._files:
            raise SealpackError(
                "STATE_TAMPERED",
                f"files of {self.home.database} were removed or replaced while it was in use",
                remedy="stop every process that uses this state and start again; else ask support",
            )

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction: durable when the block ends, undone when it raises."""
        self._require_same_process()
        with self._lock, storage_errors(self.home.path):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.after.clear()
            ended = False
            try:
                self._require_same_files()
                yield self._db
                ended = True
                self._db.execute("COMMIT")
            except BaseException as error:
                # After some errors (a full disk) SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                elif ended and not isinstance(error, sqlite3.Error):
                    self._finish()  # a signal handler raised when COMMIT returned: it is durable
                raise
            self._finish()

    def _finish(self) -> None:
        """Do what was left for after the commit: all of it, and no failure takes back what is durable."""
        raised: BaseException | None = None
        for action in self._db.after.values():
            try:
                action()
            except (OSError, sqlite3.Error, SealpackError):  # a mark is missing, or a dead owner's file stays
                continue
            except BaseException as error:  # a signal handler's
                raised = raised or error
        if raised is not None:
            raise raised

    def version(self) -> int:
        """Changes when another connection, of this or any process, has committed something."""
        try:
            with self._lock:
                found: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            with storage_errors(self.home.path):
                raise
        return found

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot."""
        self._require_same_process()
        with self._lock, storage_errors(self.home.path):
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has that name now."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _migrate(db: sqlite3.Connection) -> None:
    # Another process may have done it between our look and our lock.
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        for statement in _SCHEMA.split(";\n"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for before in range(version or VERSION, VERSION):
        for statement in _UPGRADES[before]:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into the code that says what to do about it."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        code = _code(name, folder)
        raise SealpackError(code, f"state in {folder}: {str(error).lower()}") from None
    except PermissionError as error:
        raise SealpackError("STORE_READONLY", f"state in {folder}: {error.strerror}".lower()) from None
    except OSError as error:
        code = {28: "STORE_FULL", 122: "STORE_FULL", 30: "STORE_READONLY"}.get(error.errno or 0, "STORE_IO")
        raise SealpackError(code, f"state in {folder}: {(error.strerror or 'i/o error').lower()}") from None


def _code(name: str, folder: Path) -> str:
    if name.startswith("SQLITE_FULL"):
        return "STORE_FULL"
    if name.startswith("SQLITE_READONLY"):
        return "STORE_READONLY"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "STATE_LOCKED"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return "STORE_CORRUPT"
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return _why_io(folder)
    # The tables' checks only break where the accounts were changed from outside.
    return "STATE_TAMPERED" if name.startswith("SQLITE_CONSTRAINT") else "STORE_IO"


def _why_io(folder: Path) -> str:
    """SQLite reports a full or read-only disk as a plain I/O error at some of its calls."""
    with contextlib.suppress(OSError):
        space = os.statvfs(folder)
        if space.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
            return "STORE_READONLY"
        if space.f_bavail * space.f_frsize < _LOW_SPACE:
            return "STORE_FULL"
    return "STORE_IO"
