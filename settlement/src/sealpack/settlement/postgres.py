"""PostgreSQL as the settlement database: its address, its locks, its words for what went wrong.

Source: specs/settlement-ingest.md, "Storage". A reading transaction is REPEATABLE READ and read-only: one
moment, nobody stopped. A writing one is READ COMMITTED behind advisory locks that it takes before it looks at
anything, so what it then sees cannot change under it, rows that are not there yet included: first the whole
database, shared by those that say what they concern and alone for those that do not; then each thing named.
Locks end with the transaction, also when the process or the server dies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError

DRIVER = "postgresql+psycopg"
READS = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
_SCHEMES = ("postgresql://", "postgres://", f"{DRIVER}://")
_EVERYTHING = "everything"
POOL = 25  # connections beyond the usual five: a service has so many threads

# The beginning of an SQLSTATE -> our code, and the next thing to do where it is not the code's own.
_CODES = (
    ("53100", "STORE_FULL", "free some space on the database server; nothing was lost"),
    ("25006", "STORE_READONLY", "connect to a server that takes changes"),  # a standby, or so configured
    ("42501", "STORE_READONLY", "let this database user write the tables"),
    ("40", "STATE_LOCKED", None),  # given up for another transaction's sake: serialization, deadlock
    ("55P03", "STATE_LOCKED", None),  # waited too long
    ("53300", "STATE_LOCKED", None),  # too many connections
    ("XX001", "STORE_CORRUPT", None),
    ("XX002", "STORE_CORRUPT", None),
)


class Conflict(SealpackError):
    """The server gave this transaction up for another one's sake; nothing of it was kept, do it again."""


def is_url(target: object) -> bool:
    """Whether a database is named by address instead of by file."""
    return isinstance(target, str) and target.startswith(_SCHEMES)


def make_engine(address: str, wait_s: int) -> sa.Engine:
    """Connections to the server at `address`, opened when needed; USAGE, EXTRA_MISSING."""
    try:
        url = sa.make_url(address).set(drivername=DRIVER)
    except (sa.exc.ArgumentError, ValueError):  # its own message would repeat a password
        raise SealpackError("USAGE", "the address of the database is none") from None
    try:
        # A connection that a restarted server has forgotten is replaced before it is used.
        engine = sa.create_engine(url, pool_pre_ping=True, max_overflow=POOL)
    except ModuleNotFoundError:
        raise SealpackError(
            "EXTRA_MISSING", "a PostgreSQL database needs psycopg, which is not installed",
            remedy="pip install 'sealpack[postgres]'",
        ) from None  # fmt: skip

    def configure(connection: Any, _record: object) -> None:
        """A commit is durable when it returns, and nobody waits for ever."""
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{wait_s}s'")
            cursor.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()

    sa.event.listen(engine, "connect", configure)
    return engine


def lock(connection: sa.Connection, keys: Iterable[str]) -> None:
    """Take what a writing transaction needs, always in the same order; held to its end.

    Nothing may have been read before: READ COMMITTED then sees all that was committed by the holders before.
    """
    numbers = sorted(map(_number, keys))
    shared = "_shared" if numbers else ""
    calls = [f"pg_advisory_xact_lock{shared}(%s)", *("pg_advisory_xact_lock(%s)" for _ in numbers)]
    connection.exec_driver_sql(f"SELECT {', '.join(calls)}", (_number(_EVERYTHING), *numbers))


def _number(key: str) -> int:
    digest = hashlib.sha256(f"sealpack/settlement/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def store_error(error: sa.exc.DBAPIError) -> SealpackError:
    """Our code for what the server or the driver said."""
    state = getattr(error.orig, "sqlstate", None) or ""
    said = " ".join(str(error.orig).split()) or "the connection was lost"
    message = f"settlement database: {said}"
    for start, code, remedy in _CODES:
        if state.startswith(start):
            made = Conflict if start == "40" else SealpackError
            return made(code, message, remedy=remedy)
    # No state at all: nobody answered. 08: connection, 28 and 3D: who and which; 57P: server stops or starts.
    if not state or state.startswith(("08", "28", "3D", "57P")):
        remedy = "see that the database server runs and lets this user in, then try again; nothing was lost"
        return SealpackError("STORE_IO", message, remedy=remedy)
    return SealpackError("STORE_IO", message)
