"""Device logs as settlement holds them, and what a usage file would add to one.

Source: specs/settlement-ingest.md, "Continuity". Nothing here writes: a :class:`Growth` says what a file
adds, and ingestion stores it if the log is then still where the growth began.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from sealpack.format import records
from sealpack.format.activation import Activation, log_origin
from sealpack.format.errors import SealpackError
from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.merkle import EMPTY_ROOT, Frontier, leaf_hash
from sealpack.format.records import Record
from sealpack.format.runs import Run
from sealpack.format.usage_reader import UsageReader, VerifiedBlock
from sealpack.settlement import db, evidence, rollups
from sealpack.settlement.outcomes import Stopped
from sealpack.settlement.rollups import Rollup
from sealpack.settlement.times import Bound, Times, latest as times_latest

_KEPT = (records.GENESIS, records.ACKNOWLEDGED, records.ROTATED, records.LOST, records.CLOCK)

RootAt = Callable[[int], bytes]  # the root of our own copy at an earlier size


@dataclass(frozen=True, slots=True)
class Log:
    """Where a device log stands here; size 0 before its first receipt."""

    origin: str
    license_id: str
    device_id: str
    epoch: int
    frontier: Frontier = field(default_factory=Frontier)
    state: LogState = field(default_factory=LogState.fresh)
    note: bytes = b""  # the newest signed checkpoint
    last_ms: int = 0
    frozen: bool = False
    floor_ms: int = 0  # what follows is not earlier: the newest server_time that the device imported

    @classmethod
    def of(cls, activation: Activation, epoch: int) -> Log:
        """Log `epoch` of a device before its first receipt."""
        origin = log_origin(activation.license_id, activation.device_id, epoch)
        return cls(origin, activation.license_id, activation.device_id, epoch)

    @property
    def size(self) -> int:
        """Receipts held."""
        return self.frontier.size

    @property
    def stamp(self) -> tuple[int, str, bool]:
        """Size, root and freeze: what is compared before the log is moved."""
        return self.size, self.frontier.root.hex(), self.frozen

    def row(self) -> dict[str, Any]:
        """Its row of the logs table."""
        return {
            "origin": self.origin, "license_id": self.license_id, "device_id": self.device_id,
            "epoch": self.epoch, "size": self.size, "root": self.frontier.root.hex(),
            "frontier": json.dumps(self.frontier.to_hex()).encode(),
            "state": json.dumps(self.state.to_dict() | {"floor_ms": self.floor_ms}).encode(),
            "note": self.note, "last_ms": self.last_ms, "frozen": int(self.frozen),
        }  # fmt: skip


def load(connection: sa.Connection, origin: str) -> Log | None:
    """The log as it stands, or None before its first receipt; STORE_CORRUPT."""
    row = connection.execute(sa.select(db.logs).where(db.logs.c.origin == origin)).first()
    if row is None:
        return None
    return Log(
        origin, row.license_id, row.device_id, row.epoch, _frontier(row), read_state(origin, row.state),
        row.note, row.last_ms, bool(row.frozen), json.loads(row.state).get("floor_ms", 0),
    )  # fmt: skip


def read_state(origin: str, stored: bytes) -> LogState:
    """The `state` of a log's row; STORE_CORRUPT."""
    try:
        return LogState.from_dict(json.loads(stored))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SealpackError("STORE_CORRUPT", f"{origin}: the stored running totals are none") from None


def _frontier(row: Any) -> Frontier:
    try:
        frontier = Frontier.from_hex(row.size, json.loads(row.frontier))
    except (ValueError, SealpackError):
        raise SealpackError("STORE_CORRUPT", f"{row.origin}: the stored tree is none") from None
    if frontier.root.hex() != row.root:
        raise SealpackError("STORE_CORRUPT", f"{row.origin}: the stored tree and its root differ")
    return frontier


@dataclass(slots=True)
class Growth:
    """What one file adds to a log: receipts from the log's end on, and what they say.

    `frontier` is the tree after them, `rollup` their metered amounts. The few records that are looked at
    again are in `said`, by kind. `held` is the roll-up of what was there before, where these receipts say
    that some of it was used earlier than it said, and `moved` are the quarters which that changes.
    """

    frontier: Frontier
    checker: LogChecker
    note: bytes
    rollup: Rollup = field(default_factory=dict)
    said: dict[str, list[Record]] = field(default_factory=dict)
    times: Times = field(default_factory=Times)
    blocks: int = 0  # valid ones in the file, known or not
    held: Rollup | None = None
    moved: frozenset[int] = frozenset()

    @classmethod
    def on(cls, log: Log) -> Growth:
        """Nothing yet, at the end of `log`."""
        times = Times(log.floor_ms, log.last_ms)
        return cls(log.frontier, LogChecker(log.state.copy()), log.note, times=times)

    @property
    def last_ms(self) -> int:
        """The latest time of the log that nothing has lowered."""
        return self.times.last_ms

    def take(self, block: VerifiedBlock) -> None:
        """Add the block's receipts beyond the end; the block begins at or before it."""
        known = self.frontier.size - block.before.size
        for part in block.records[known:] if known else block.parts:
            self.checker.follow_part(part)
            if isinstance(part, Run):
                rollups.roll_run(part, self.rollup, self.times.floor_ms)
                self.times.last_ms = max(self.times.last_ms, part.last_ms)
            else:
                self._take(part)
        follows = block.before == self.frontier
        new = block.leaves[known:]
        self.frontier = block.after if follows else self.frontier.extend(map(leaf_hash, new))
        self.note = block.note

    def _take(self, record: Record) -> None:
        rollups.roll(record, self.rollup, self.times.floor_ms)
        if record.kind not in _KEPT:
            self.times.last_ms = max(self.times.last_ms, record.time_ms)
            return
        self.said.setdefault(record.kind, []).append(record)
        if (lowered := self.times.follow(record)) is not None:
            # The accepted time was lowered, to the truth: what is dated later was used by then.
            self.rollup = rollups.not_after(self.rollup, lowered)

    def records(self, kind: str) -> list[Record]:
        """The new records of a kind, one of `_KEPT`."""
        return self.said.get(kind, [])


def follow(reader: UsageReader, log: Log, root_at: RootAt) -> Growth:
    """Walk a file's valid blocks: compare what is known, gather what is new.

    Raises :class:`Stopped` H210 when the file's signed tree and ours do not extend each other. A file that
    begins behind the log's end adds nothing.
    """
    growth = Growth.on(log)
    compared = False
    last: VerifiedBlock | None = None
    for block in reader:
        growth.blocks += 1
        last = block
        if block.checkpoint.size < log.size or block.before.size > growth.frontier.size:
            continue
        if not compared:
            _compare(block, log.size, log.frontier.root, log)
            compared = True
        growth.take(block)
    if last is not None and last.checkpoint.size < log.size:
        _compare(last, last.checkpoint.size, root_at(last.checkpoint.size), log)
    return growth


def _compare(block: VerifiedBlock, size: int, root: bytes, log: Log) -> None:
    """Require the file's tree at `size` to have our root there; else two histories are signed."""
    count = size - block.before.size
    tree = block.before.extend(map(leaf_hash, block.leaves[:count]))
    if tree.root != root:
        raise Stopped(
            "H210",
            f"at {size} receipts this file's tree is {tree.root.hex()[:16]}, ours is {root.hex()[:16]}; "
            f"both signed checkpoints are kept",
            ours=log.note,
            theirs=block.note,
        )


def lower(connection: sa.Connection, log: Log, growth: Growth) -> None:
    """Roll up anew what is held when the new receipts say that some of it was used earlier."""
    if any(bound < log.last_ms for _, bound in growth.times.bounds):
        growth.held = roll_up(connection, log.origin, growth.times.bounds)
        before, after = rollups.stored(connection, log.origin), growth.held
        changed = (cell for cell in before.keys() | after.keys() if before.get(cell) != after.get(cell))
        growth.moved = frozenset(quarter for _, quarter, _ in changed)


def roll_up(connection: sa.Connection, origin: str, bounds: Iterable[Bound] = ()) -> Rollup:
    """The roll-up of all that is held of a log, from the stored evidence and further `bounds`."""
    return roll_up_by(connection, origin, lambda _: "", bounds).get("", {})


def roll_up_by(
    connection: sa.Connection, origin: str, name: Callable[[Record], str], bounds: Iterable[Bound] = ()
) -> dict[str, Rollup]:
    """The same, apart for what `name` says of each record."""
    times = Times()
    for record in _held(connection, origin):
        times.follow(record)
    latest = times_latest((*times.bounds, *bounds))
    found: dict[str, Rollup] = defaultdict(dict)
    again = Times()
    for record in _held(connection, origin):
        rollups.roll(record, found[name(record)], again.floor_ms, latest(record.position))
        again.follow(record)
    return dict(found)


def _held(connection: sa.Connection, origin: str) -> Iterator[Record]:
    """Every record of a log, from the stored files that brought them; STORE_CORRUPT."""
    segments = connection.execute(
        sa.select(db.segments.c.first, db.segments.c.last, db.segments.c.sha256)
        .where(db.segments.c.origin == origin)
        .order_by(db.segments.c.first)
    )
    following = 0
    for segment in segments:
        for block in UsageReader(evidence.load(connection, segment.sha256)):
            for record in block.records:
                if following <= record.position < segment.last:
                    following += 1
                    yield record
        if following != segment.last:
            raise SealpackError(
                "STORE_CORRUPT", f"the stored file of receipt {following} of {origin} is damaged"
            )


def root_at(connection: sa.Connection, log: Log, size: int) -> bytes:
    """The root of our own copy of a log at an earlier size, from the stored evidence; STORE_CORRUPT."""
    if size == 0:
        return EMPTY_ROOT
    digest = connection.execute(
        sa.select(db.segments.c.sha256).where(
            db.segments.c.origin == log.origin, db.segments.c.first < size, db.segments.c.last >= size
        )
    ).scalar()
    if digest is None:
        raise SealpackError("STORE_CORRUPT", f"no stored file holds receipt {size - 1} of {log.origin}")
    for block in UsageReader(evidence.load(connection, digest)):
        if block.checkpoint.size >= size:
            return block.before.extend(map(leaf_hash, block.leaves[: size - block.before.size])).root
    raise SealpackError("STORE_CORRUPT", f"the stored file of receipt {size - 1} of {log.origin} is damaged")
