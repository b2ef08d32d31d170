"""Files that are kept and wait for a worker: who has which, for how long, and how often it was tried.

Source: specs/settlement-ingest.md, "Queue". A claim takes the waiting files of one device, so that workers do
not judge each other's files twice; it runs out, so a worker that dies gives them back. The clock is the
database's. Nothing here is needed for correctness: a file that two workers decide is decided once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.usage_reader import UsageReader
from sealpack.settlement import db, evidence, ingest

TRIES = 5
LEASE_S = 120  # longer than the largest file takes
_BATCH = 64  # files of one claim
_HEAD_BYTES = 1 << 17  # of a file, enough for its first line
_WAITING, _WORKING, _FAILED = "waiting", "working", "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A file in the queue; `state` is waiting | working | failed."""

    sha256: str
    name: str
    origin: str | None
    queued_at: int
    tries: int
    state: str
    detail: str | None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        said = {
            "sha256": self.sha256, "file": self.name, "origin": self.origin, "queued_at": self.queued_at,
            "tries": self.tries, "state": self.state, "detail": self.detail,
        }  # fmt: skip
        return {name: value for name, value in said.items() if value is not None}


def add(connection: sa.Connection, digest: str, data: bytes, now: int) -> None:
    """Queue a kept file, unless it is queued already."""
    row = {"sha256": digest, "family": digest, "queued_at": now, "tries": 0, **_named(data)}
    connection.execute(db.put(connection, db.queue).values(row).on_conflict_do_nothing())


def add_undecided(database: db.Database, now: int) -> None:
    """Queue what was kept and never decided."""
    files, queued = db.files.c, sa.exists().where(db.queue.c.sha256 == db.files.c.sha256)
    with database.read() as connection:
        query = sa.select(files.sha256).where(files.code.is_(None), ~queued).order_by(files.sha256)
        found = connection.execute(query).scalars().all()
    for digest in found:
        with database.write(digest) as connection:
            add(connection, digest, evidence.load(connection, digest), now)


def _named(data: bytes) -> dict[str, Any]:
    """Whose a file says it is; a hint, nothing of it is believed."""
    try:
        header = UsageReader(data[:_HEAD_BYTES]).header
    except SealpackError:
        return {}
    family = ingest.family(header.origin)
    return {"family": family, "origin": header.origin, "first": header.start, "last": header.end}


def claim(database: db.Database, worker: str, lease_s: int = LEASE_S) -> Sequence[str]:
    """Digests of the waiting files of one device, in log order; none when nobody's wait."""
    queue = db.queue.c
    with database.write(f"worker {worker}") as connection:
        now = _clock(connection)
        _bury(connection, now)
        family = connection.execute(_next_family(now)).scalar()
        if family is None:
            return ()
        order = queue.first.nulls_first(), queue.last.nulls_first(), queue.sha256
        mine = (
            sa.select(queue.sha256)
            .where(queue.family == family, queue.failed.is_(None), _free(queue, now))
            .order_by(*order)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        digests = connection.execute(mine).scalars().all()
        held = {"worker": worker, "until": now + lease_s}
        connection.execute(sa.update(db.queue).where(queue.sha256.in_(digests)).values(held))
        return digests


def _next_family(now: int) -> sa.Select[tuple[str]]:
    """The device whose file waits longest, of those that no worker has; its row is locked.

    Only the first waiting file of a device is looked at, so who skips that row skips the device.
    """
    one, other = db.queue.alias("one").c, db.queue.alias("other").c
    same = (other.family == one.family, other.failed.is_(None))
    earlier = sa.tuple_(other.queued_at, other.sha256) < sa.tuple_(one.queued_at, one.sha256)
    first = ~sa.exists().where(*same, earlier)
    taken = sa.exists().where(*same, other.until > now)
    return (
        sa.select(one.family)
        .where(one.failed.is_(None), first, ~taken)
        .order_by(one.queued_at, one.sha256)
        .limit(1)
        .with_for_update(skip_locked=True, of=one.sha256.table)
    )


def _free(row: Any, now: int) -> sa.ColumnElement[bool]:
    return sa.or_(row.until.is_(None), row.until <= now)


def _bury(connection: sa.Connection, now: int) -> None:
    """Give up on files whose workers died every time."""
    queue = db.queue.c
    dead = (queue.failed.is_(None), queue.tries >= TRIES, _free(queue, now))
    told = {"failed": f"its worker died, {TRIES} times", "worker": None, "until": None}
    connection.execute(sa.update(db.queue).where(*dead).values(told))


def begin(database: db.Database, worker: str, digest: str, lease_s: int = LEASE_S) -> bool:
    """Count a try of a claimed file and hold the others on; False when it is not ours any more."""
    queue = db.queue.c
    with database.write(f"worker {worker}") as connection:
        until = _clock(connection) + lease_s
        mine = queue.worker == worker
        tried = {"tries": queue.tries + 1, "until": until}
        found = connection.execute(sa.update(db.queue).where(mine, queue.sha256 == digest).values(tried))
        if found.rowcount:
            connection.execute(sa.update(db.queue).where(mine).values(until=until))
        return bool(found.rowcount)


def done(database: db.Database, digest: str) -> None:
    """Forget a file that is decided."""
    with database.write(digest) as connection:
        connection.execute(sa.delete(db.queue).where(db.queue.c.sha256 == digest))


def fail(database: db.Database, digest: str, why: str) -> bool:
    """Put a file back that could not be decided, a little later each time; True after the last try."""
    queue = db.queue.c
    with database.write(digest) as connection:
        tries = connection.execute(sa.select(queue.tries).where(queue.sha256 == digest)).scalar()
        if tries is None:
            return False
        last = bool(tries >= TRIES)
        told = {"failed": why[:1000] if last else None, "worker": None,
                "until": None if last else _clock(connection) + 2**tries}  # fmt: skip
        connection.execute(sa.update(db.queue).where(queue.sha256 == digest).values(told))
        return last


def give_back(database: db.Database, worker: str, digest: str | None = None) -> None:
    """Let others take what a worker has claimed; the try of `digest` was not its fault and does not count."""
    queue = db.queue.c
    with database.write(f"worker {worker}") as connection:
        if digest is not None:
            this = (queue.worker == worker, queue.sha256 == digest, queue.tries > 0)
            connection.execute(sa.update(db.queue).where(*this).values(tries=queue.tries - 1))
        mine = queue.worker == worker
        connection.execute(sa.update(db.queue).where(mine).values(worker=None, until=None))


def retry(database: db.Database) -> int:
    """Let failed files be tried again; how many."""
    queue = db.queue.c
    with database.write() as connection:
        again = sa.update(db.queue).where(queue.failed.is_not(None))
        return connection.execute(again.values(failed=None, tries=0)).rowcount


def pending(connection: sa.Connection) -> int:
    """How many files wait or are worked on."""
    left = sa.select(sa.func.count()).select_from(db.queue).where(db.queue.c.failed.is_(None))
    return connection.execute(left).scalar_one()


def jobs(connection: sa.Connection, digest: str | None = None) -> list[Job]:
    """Every file in the queue in the order in which they came, or that one."""
    queue, now = db.queue.c, _clock(connection)
    query = sa.select(db.queue, db.files.c.name).join(db.files, db.files.c.sha256 == queue.sha256)
    if digest is not None:
        query = query.where(queue.sha256 == digest)
    return [_job(row, now) for row in connection.execute(query.order_by(queue.queued_at, queue.sha256))]


def _job(row: Any, now: int) -> Job:
    working = row.worker is not None and row.until > now
    state = _FAILED if row.failed is not None else _WORKING if working else _WAITING
    return Job(row.sha256, row.name, row.origin, row.queued_at, row.tries, state, row.failed)


def _clock(connection: sa.Connection) -> int:
    """Unix seconds by the database."""
    server = connection.dialect.name == "postgresql"
    said = "floor(extract(epoch FROM clock_timestamp()))" if server else "strftime('%s', 'now')"
    return int(connection.exec_driver_sql(f"SELECT {said}").scalar_one())
