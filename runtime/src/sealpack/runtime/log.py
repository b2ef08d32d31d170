"""A device log in the database: appending signed receipts inside one transaction.

Source: specs/receipts.md. One log per (device, license, epoch). A :class:`Writer` collects the records
of one transaction and closes it with frontier, registers and a signed checkpoint: either all of that
is durable or none of it, and no checkpoint leaves before its commit.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical, records
from sealpack.format.activation import Activation, log_origin
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.license import License
from sealpack.format.merkle import EMPTY_ROOT, Frontier, leaf_hash
from sealpack.format.note import Checkpoint, open_checkpoint, sign_checkpoint
from sealpack.format.records import TALLY_EVERY, Registers
from sealpack.runtime import machine, marks
from sealpack.runtime.clock import Times
from sealpack.runtime.timekeeper import Moment, take_events

QUARTER_MS = 900_000
PROVISIONAL = "provisional"  # kind of a lapse
_COLUMNS = (
    "log, origin, license_id, epoch, size, roots, checkpoint, boot, boot_key, uptime_ms, tally_size,"
    " quarter, started, acked_size, acked_roots, ack_seq, exported_size, file_seq, restarted, marked"
)
# Records that say something to settlement; the others only accompany them.
NEWS = (records.GENESIS, records.BOOT, records.USAGE, records.LOST, records.DENIED, records.CLOCK)


@dataclass(slots=True)
class Log:
    """One row of the logs table; `frontier` and `acked` are the trees at `size` and `acked_size`."""

    log: int
    origin: str
    license_id: str
    epoch: int
    size: int
    frontier: Frontier
    checkpoint: bytes
    boot: int
    boot_key: str
    uptime_ms: int
    tally_size: int
    quarter: int
    started: int | None
    acked_size: int
    acked: Frontier
    ack_seq: int
    exported_size: int
    file_seq: int
    restarted: int | None
    marked: int


def _from_row(row: tuple[Any, ...]) -> Log:
    values = list(row)
    values[5] = Frontier.from_hex(values[4], json.loads(values[5]))
    values[14] = Frontier.from_hex(values[13], json.loads(values[14]))
    return Log(*values)


def find(db: sqlite3.Connection, license_id: str) -> Log | None:
    """The newest epoch's log of a license, or None."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM logs WHERE license_id=? ORDER BY epoch DESC LIMIT 1", (license_id,)
    ).fetchone()
    return None if row is None else _from_row(row)


def find_number(db: sqlite3.Connection, license_id: str) -> int | None:
    """The number of :func:`find`'s log."""
    row = db.execute(
        "SELECT log FROM logs WHERE license_id=? ORDER BY epoch DESC LIMIT 1", (license_id,)
    ).fetchone()
    return None if row is None else int(row[0])


def by_id(db: sqlite3.Connection, log: int) -> Log:
    """The log with that number."""
    return _from_row(db.execute(f"SELECT {_COLUMNS} FROM logs WHERE log=?", (log,)).fetchone())


def by_origin(db: sqlite3.Connection, origin: str) -> Log | None:
    """The log of that origin, of whatever epoch, or None."""
    row = db.execute(f"SELECT {_COLUMNS} FROM logs WHERE origin=?", (origin,)).fetchone()
    return None if row is None else _from_row(row)


def every(db: sqlite3.Connection) -> list[Log]:
    """All logs, oldest first."""
    return [_from_row(row) for row in db.execute(f"SELECT {_COLUMNS} FROM logs ORDER BY log")]


def create(
    db: sqlite3.Connection,
    key: PrivateKey,
    license: License,
    activation: Activation | None,
    root_digest: str,
    device_id: str,
    moment: Moment,
    *,
    epoch: int | None = None,
    after: Before | None = None,
) -> Log:
    """Open the log of a license on this device with its genesis record.

    `epoch` is by default the activation's; `after` is the lost end of the log before, in whose place this
    one goes on.
    """
    if epoch is None:
        epoch = activation.epoch if activation else 0
    origin = log_origin(license.license_id, device_id, epoch)
    # A term runs from the very first start: a new epoch does not begin it again.
    started = db.execute("SELECT min(started) FROM logs WHERE license_id=?", (license.license_id,))
    cursor = db.execute(
        "INSERT INTO logs(origin, license_id, epoch, size, roots, checkpoint, boot, boot_key, uptime_ms,"
        " tally_size, quarter, started, acked_size, acked_roots, ack_seq, exported_size, file_seq, restarted)"
        " VALUES(?,?,?,0,'[]',?,1,'',0,0,0,?,0,'[]',0,0,0,?)",
        (
            origin,
            license.license_id,
            epoch,
            b"",
            started.fetchone()[0],
            moment.times.soft if after else None,
        ),
    )
    writer = Writer(db, by_id(db, int(cursor.lastrowid or 0)), key, moment)
    writer.add(
        records.GENESIS,
        origin=origin,
        device=key.public.pem,
        license=license.digest,
        root=root_digest,
        epoch=epoch,
        activation=activation.digest if activation else None,
        **(after.members() if after else {}),
    )
    return writer.finish()


@dataclass(frozen=True, slots=True)
class Before:
    """The end of a log that this device wrote and lost: where it stood, and registers per build and meter."""

    origin: str
    size: int
    root: str
    registers: Mapping[str, Mapping[str, int]]

    def members(self) -> dict[str, Any]:
        """What the genesis record of the next log says of it."""
        previous = {"origin": self.origin, "size": self.size, "root": self.root}
        return {"previous": previous, "carried": dict(self.registers) or None}


class Writer:
    """Appends to one log within one transaction; nothing counts until :meth:`finish`."""

    def __init__(self, db: sqlite3.Connection, log: Log, key: PrivateKey, moment: Moment) -> None:
        self._db = db
        self._log = log
        self._key = key
        self._moment = moment
        self._lines: list[tuple[int, int, str, bytes]] = []  # rows of `leaves`
        self._registers: Registers | None = None  # as they stand, read when they are first needed
        self._grown: dict[records.Key, int] = {}
        if log.size:
            marks.guard(db, log, key.public)
            self._begin()

    @property
    def position(self) -> int:
        """The index of the next record."""
        return self._log.size + len(self._lines)

    @property
    def _tally_due(self) -> bool:
        return self.position - self._log.tally_size >= TALLY_EVERY - 1

    def _begin(self) -> None:
        """A boot record when this is another boot, runtime or route table; then the clock's events."""
        log, moment = self._log, self._moment
        table = routes(self._db, log.log)
        key = json.dumps([moment.boot_id, machine.runtime_digest(), sorted(table)])
        if key != log.boot_key or moment.uptime_ms < log.uptime_ms:
            log.boot += 1
            log.boot_key = key
            version, digest = machine.runtime_version(), machine.runtime_digest()
            self.add(
                records.BOOT,
                nonce=secrets.token_hex(16),
                runtime={"version": version, "digest": digest},
                routes=table,
            )
            self.tally()
        for event in take_events(self._db):
            self.add(records.CLOCK, event=event.name, delta_ms=event.delta)

    def add(self, kind: str, at: Times | None = None, /, **members: Any) -> int:
        """Append one record, after the tally that 256 records without one call for; return its index.

        `at` is when it happened, where that was before now.
        """
        log, times = self._log, at or self._moment.times
        if kind != records.TALLY and self._tally_due:
            self.tally(at)
        position = self.position
        line = records.encode(
            records.make(
                kind,
                position=position,
                boot=log.boot,
                time_ms=times.soft,
                skew_ms=times.skew,
                uptime_ms=self._moment.uptime_ms,
                **members,
            )
        )
        self._lines.append((log.log, position, kind, line))
        return position

    def usage(
        self,
        route: str,
        status: str,
        meters: Mapping[str, int],
        wait_ms: int,
        cost_centre: str | None = None,
        at: Times | None = None,
    ) -> int:
        """Append one call's receipt, a tally before it in a new quarter of an hour, and count it."""
        self._tally_if_due(at)
        self._count(route, status, meters)
        return self.add(
            records.USAGE,
            at,
            route=route,
            status=status,
            meters=meters,
            wait_ms=wait_ms,
            cost_centre=cost_centre,
        )

    def lost(self, route: str, meters: Mapping[str, int]) -> int:
        """Append what was held for calls whose receipts an unclean stop destroyed, and count it."""
        self._tally_if_due()
        self._count(route, records.LOST_STATUS, meters)
        return self.add(records.LOST, route=route, meters=meters)

    def _quarter(self, at: Times | None) -> int:
        return (at or self._moment.times).soft // QUARTER_MS

    def _tally_if_due(self, at: Times | None = None) -> None:
        """Before the registers move: what lies between two tallies was used in the quarter of the first."""
        if self._quarter(at) != self._log.quarter or self._tally_due:
            self.tally(at)

    def _count(self, route: str, status: str, meters: Mapping[str, int]) -> None:
        for meter, count in meters.items():
            if count:
                key = (route, status, meter)
                self._grown[key] = self._grown.get(key, 0) + count

    def tally(self, at: Times | None = None) -> None:
        """Append the registers, unless the record before this one holds them, of the same quarter."""
        if self.position == self._log.tally_size and self._quarter(at) == self._log.quarter:
            return
        if self._registers is None:
            self._registers = registers(self._db, self._log.log)
        sums = self._registers.copy()
        for (route, status, meter), count in self._grown.items():
            sums.charge(route, status, {meter: count})
        self.add(records.TALLY, at, registers=sums.to_tally())
        self._log.tally_size = self.position
        self._log.quarter = self._quarter(at)

    def exported(self, **members: Any) -> None:
        """Append an export record; usage behind it begins with a tally of its own."""
        self.add(records.EXPORTED, **members)
        self._log.quarter = 0

    def finish(self) -> Log:
        """Store the records, the registers and the new frontier under a signed checkpoint."""
        log, db = self._log, self._db
        if not self._lines:
            return log
        db.executemany("INSERT INTO leaves VALUES(?,?,?,?)", self._lines)
        db.executemany(
            "INSERT INTO registers VALUES(?,?,?,?,?) ON CONFLICT DO UPDATE SET total=total+excluded.total",
            ((log.log, *key, count) for key, count in self._grown.items()),
        )
        log.frontier = log.frontier.extend([leaf_hash(line) for _, _, _, line in self._lines])
        log.size = log.frontier.size
        log.checkpoint = sign_checkpoint(Checkpoint(log.origin, log.size, log.frontier.root), self._key)
        log.uptime_ms = self._moment.uptime_ms
        log.marked = log.marked or int(marks.is_written(log.origin))
        self._lines, self._grown, self._registers = [], {}, None
        db.execute(
            "UPDATE logs SET size=?, roots=?, checkpoint=?, boot=?, boot_key=?, uptime_ms=?, tally_size=?,"
            " quarter=?, marked=? WHERE log=?",
            (
                log.size,
                json.dumps(log.frontier.to_hex()),
                log.checkpoint,
                log.boot,
                log.boot_key,
                log.uptime_ms,
                log.tally_size,
                log.quarter,
                log.marked,
                log.log,
            ),
        )
        marks.raise_to(db, log)
        return log


def is_closed(db: sqlite3.Connection, log: Log) -> bool:
    """Whether a log has its last record: nothing may follow it."""
    row = db.execute("SELECT kind FROM leaves WHERE log=? AND n=?", (log.log, log.size - 1)).fetchone()
    return row is not None and row[0] == records.CLOSED


def is_first(db: sqlite3.Connection, log: Log, code: str, minute: int) -> bool:
    """Whether a code is new in this minute; remembered, so that a retrying client does not fill the log."""
    cursor = db.execute(
        "INSERT INTO denials VALUES(?,?,?) ON CONFLICT(log, code) DO UPDATE SET minute=excluded.minute"
        " WHERE minute<>excluded.minute",
        (log.log, code, minute),
    )
    return cursor.rowcount > 0


def note_start(db: sqlite3.Connection, log: Log, soft: int) -> None:
    """Remember when the first admitted call began, accepted ms; provisional use runs out from there."""
    log.started = soft
    db.execute("UPDATE logs SET started=? WHERE log=?", (soft, log.log))
    row = (log.license_id, PROVISIONAL, "", soft, soft, "")
    db.execute("INSERT OR IGNORE INTO lapses VALUES(?,?,?,?,0,?,?)", row)


def store_acknowledged(db: sqlite3.Connection, log: Log) -> None:
    """Keep how far settlement has acknowledged the log."""
    db.execute(
        "UPDATE logs SET acked_size=?, acked_roots=?, ack_seq=? WHERE log=?",
        (log.acked_size, json.dumps(log.acked.to_hex()), log.ack_seq, log.log),
    )


def store_exported(db: sqlite3.Connection, log: Log) -> None:
    """Keep how far the log was exported and under which number."""
    db.execute(
        "UPDATE logs SET exported_size=?, file_seq=? WHERE log=?", (log.exported_size, log.file_seq, log.log)
    )


def routes(db: sqlite3.Connection, log: int) -> dict[str, Any]:
    """The route table of a log."""
    rows = db.execute("SELECT route, entry FROM routes WHERE log=?", (log,))
    return {route: json.loads(entry) for route, entry in rows}


def registers(db: sqlite3.Connection, log: int) -> Registers:
    """The running totals of a log."""
    rows = db.execute("SELECT route, status, meter, total FROM registers WHERE log=?", (log,))
    return Registers({(route, status, meter): total for route, status, meter, total in rows if total})


def leaves(db: sqlite3.Connection, log: int, start: int, end: int) -> Iterator[bytes]:
    """The stored records [start, end)."""
    for (record,) in db.execute(
        "SELECT record FROM leaves WHERE log=? AND n>=? AND n<? ORDER BY n", (log, start, end)
    ):
        yield record


def news_since(db: sqlite3.Connection, log: Log, size: int) -> int:
    """How many records from index `size` on are worth carrying to settlement."""
    marks = ",".join("?" * len(NEWS))
    row = db.execute(
        f"SELECT count(*) FROM leaves WHERE log=? AND n>=? AND kind IN ({marks})", (log.log, size, *NEWS)
    ).fetchone()
    return int(row[0])


def route_for(db: sqlite3.Connection, log: Log, entry: Mapping[str, Any]) -> str:
    """The short name under which a log's usage records mean this license and build; made when new.

    LOG_FULL when the log has as many as a boot record can name.
    """
    text = canonical.dumps(dict(entry)).decode()
    row = db.execute("SELECT route FROM routes WHERE log=? AND entry=?", (log.log, text)).fetchone()
    if row:
        return str(row[0])
    count = db.execute("SELECT count(*) FROM routes WHERE log=?", (log.log,)).fetchone()[0]
    if count >= records.MAX_ROUTES:
        raise SealpackError("LOG_FULL", f"log {log.origin} knows {count} releases and licenses, the most")
    route = f"r{count + 1}"
    db.execute("INSERT INTO routes VALUES(?,?,?)", (log.log, route, text))
    return route


def check(db: sqlite3.Connection, log: Log, key: PublicKey) -> None:
    """STATE_TAMPERED unless tree and registers agree with what this device signed last.

    Looks at the newest checkpoint and at the records since the newest tally, so it costs the same for a
    log of any length; `receipts verify` reads everything.
    """
    if not is_signed(log, key):
        raise SealpackError("STATE_TAMPERED", f"log {log.origin} is not what this device signed last")
    kept, recounted = registers(db, log.log), _recount(db, log)
    if kept != recounted:
        raise SealpackError("STATE_TAMPERED", f"registers of {log.origin} differ from its receipts")


def is_signed(log: Log, key: PublicKey) -> bool:
    """Whether the newest checkpoint is this device's, and names the tree that is stored."""
    try:
        signed = open_checkpoint(log.checkpoint, key)
    except SealpackError:
        return False
    root = log.frontier.root if log.size else EMPTY_ROOT
    return (signed.origin, signed.size, signed.root) == (log.origin, log.size, root)


def _recount(db: sqlite3.Connection, log: Log) -> Registers:
    counted = Registers()
    start = max(log.tally_size - 1, 0)
    for line in leaves(db, log.log, start, log.size):
        record = records.parse_record(line)
        if record.kind == records.TALLY:
            counted = Registers.from_tally(record.body["registers"])
        else:
            counted.add(record)
    return counted
