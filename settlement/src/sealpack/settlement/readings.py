"""What is known of a log beyond its receipts: registers at positions, as an electricity meter shows them.

Source: specs/settlement-ingest.md, "Registers without receipts". Tally files, meter readings and usage files
behind a gap say how much was used up to a position, not by which calls. What that is more than the receipts
at hand counts in the roll-ups, and is replaced by the receipts when they come. It follows from what is stored
and not from the order in which it was stored, so that order cannot matter.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any

import sqlalchemy as sa

from sealpack.format.logcheck import LogState
from sealpack.format.merkle import Frontier
from sealpack.format.records import METER_ORDER, Registers
from sealpack.format.runs import QUARTER_MS
from sealpack.settlement import db, logs, rollups, times
from sealpack.settlement.logs import Log
from sealpack.settlement.rollups import Rollup


@dataclass(frozen=True, slots=True)
class Mark:
    """Registers over the records before `position`. What was used in [since, position) was used at `used_ms`,
    and by then all that was used since the mark before it."""

    position: int
    since: int
    used_ms: int
    registers: Registers

    def row(self) -> dict[str, Any]:
        """Its columns of the readings table, without its file."""
        return {
            "position": self.position, "since": self.since, "used_ms": self.used_ms,
            "registers": json.dumps(self.registers.to_tally(), sort_keys=True),
        }  # fmt: skip

    @classmethod
    def of(cls, row: Any) -> Mark:
        """From a row of the readings table."""
        return cls(row.position, row.since, row.used_ms, Registers.from_tally(json.loads(row.registers)))


@dataclass(frozen=True, slots=True)
class Limit:
    """What the record at `position` says of times: receipts before `end` were used by `used_ms`, those from
    `position` on not before `floor_ms`."""

    position: int
    end: int
    used_ms: int
    floor_ms: int = 0

    def row(self) -> dict[str, Any]:
        """Its columns of the reading_bounds table, without its file."""
        return {
            "position": self.position, "end": self.end, "used_ms": self.used_ms, "floor_ms": self.floor_ms,
        }  # fmt: skip

    @classmethod
    def of(cls, row: Any) -> Limit:
        """From a row of the reading_bounds table."""
        return cls(row.position, row.end, row.used_ms, row.floor_ms)


@dataclass(frozen=True, slots=True)
class Beyond:
    """All that statements say of a log behind its receipts."""

    marks: tuple[Mark, ...] = ()
    limits: tuple[Limit, ...] = ()

    def rollup(self, log: Log) -> Rollup:
        """What was used beyond the receipts of `log`, by quarters of an hour."""
        floor = _floors(log.floor_ms, self.limits)
        latest = times.latest([(one.end, max(one.used_ms, floor(one.position))) for one in self.limits])
        rollup: Rollup = {}
        known, start = log.state.registers or Registers(), log.size
        beyond = sorted((m for m in self.marks if m.position > log.size), key=lambda m: m.position)
        for position, group in groupby(beyond, key=lambda m: m.position):
            marks = list(group)
            ahead = beyond[bisect_right(beyond, position - 1, key=lambda m: m.position) :]
            used_ms = max(_used(start, marks, ahead), floor(start))
            bound = latest(position - 1)
            used_ms = used_ms if bound is None else min(used_ms, bound)
            known = _count(known, marks[0].registers, used_ms - used_ms % QUARTER_MS, rollup)
            start = position
        return rollup

    def registers(self, known: Registers) -> Registers:
        """The farthest registers, none below what is known."""
        farthest = max(self.marks, key=lambda m: m.position, default=None)
        return known if farthest is None else _larger(known, farthest.registers)


def _used(start: int, marks: Sequence[Mark], ahead: Iterable[Mark]) -> int:
    """When what lies between `start` and the marks at one position was used: by the narrowest of the ranges
    around it that was used at one time, else by the time of the marks themselves."""
    exact = [m for m in marks if m.since <= start] or [m for m in ahead if m.since <= start]
    if exact:
        return min(exact, key=lambda m: (m.position - m.since, m.used_ms)).used_ms
    return min(m.used_ms for m in marks)


def _floors(first_ms: int, limits: Iterable[Limit]) -> Callable[[int], int]:
    """For a position the time before which nothing from there on was used."""
    told = sorted((limit.position, limit.floor_ms) for limit in limits if limit.floor_ms)
    floors = list(accumulate((ms for _, ms in told), max, initial=first_ms))
    return lambda position: floors[bisect_right(told, position, key=lambda one: one[0])]


def _count(known: Registers, told: Registers, quarter: int, rollup: Rollup) -> Registers:
    """Count what is told beyond what is known; returns what is known then."""
    more: dict[tuple[str, str], list[int]] = {}
    for (route, status, meter), total in told.totals.items():
        if (amount := total - known.totals.get((route, status, meter), 0)) > 0:
            row = more.setdefault((route, status), [0] * len(METER_ORDER))
            row[METER_ORDER.index(meter)] = amount
    for (route, status), amounts in more.items():
        rollups.add(rollup, (route, quarter, status), amounts)
    return _larger(known, told)


def _larger(one: Registers, other: Registers) -> Registers:
    totals = one.totals | other.totals
    return Registers({key: max(one.totals.get(key, 0), other.totals.get(key, 0)) for key in totals})


# --- what is stored -----------------------------------------------------------------------------------


def load(connection: sa.Connection, origin: str, size: int) -> Beyond:
    """What is stored of a log beyond its first `size` receipts."""
    said = db.stated.c
    mine = sa.select(said.sha256).where(said.origin == origin, said.size > size)
    digests = list(connection.execute(mine).scalars())
    if not digests:
        return Beyond()
    reading, bound = db.readings.c, db.reading_bounds.c
    marks = connection.execute(
        sa.select(db.readings).where(reading.sha256.in_(digests), reading.position > size)
    )
    limits = connection.execute(sa.select(db.reading_bounds).where(bound.sha256.in_(digests)))
    return Beyond(
        tuple(map(Mark.of, marks)),
        tuple(map(Limit.of, limits)),
    )


def reach(connection: sa.Connection, log: Log) -> Log:
    """How far a log is known, by receipts and by statements that follow them; `log` itself without any."""
    row = connection.execute(
        sa.select(db.reaches).where(db.reaches.c.origin == log.origin, db.reaches.c.size > log.size)
    ).first()
    if row is None:
        return log
    frontier = Frontier.from_hex(row.size, json.loads(row.frontier))
    state = logs.read_state(log.origin, row.state)
    return replace(log, frontier=frontier, state=state, note=row.note, last_ms=max(row.last_ms, log.last_ms))


def farthest(connection: sa.Connection, log: Log) -> tuple[int, str, bytes]:
    """Size, root and signed checkpoint of the farthest point of a log that is known."""
    said = db.stated.c
    row = connection.execute(
        sa.select(said.size, said.root, said.note)
        .where(said.origin == log.origin, said.size > log.size)
        .order_by(said.size.desc(), said.sha256)
        .limit(1)
    ).first()
    return (row.size, row.root, row.note) if row else (log.size, log.frontier.root.hex(), log.note)


def furthest(connection: sa.Connection, origin: str, size: int, state: LogState) -> LogState:
    """Registers and routes of a log as far as anything tells; `state` where its receipts tell it all."""
    said = db.stated.c
    any_more = sa.select(said.sha256).where(said.origin == origin, said.size > size).limit(1)
    if connection.execute(any_more).first() is None:
        return state
    registers = load(connection, origin, size).registers(state.registers or Registers())
    return replace(state, registers=registers, routes=rollups.routes(connection, origin, state.routes or {}))


def files(connection: sa.Connection, logs_: sa.ColumnElement[bool]) -> dict[str, tuple[str, ...]]:
    """Per log the digests of the files that say something of it beyond its receipts, in order."""
    said, log = db.stated.c, db.logs.c
    query = (
        sa.select(said.origin, said.sha256)
        .join(db.logs, (log.origin == said.origin) & (log.size < said.size))
        .where(logs_)
        .order_by(said.origin, said.sha256)
    )
    found: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(query):
        found[row.origin] = (*found.get(row.origin, ()), row.sha256)
    return found


def tips(connection: sa.Connection, license_id: str, device: str) -> tuple[tuple[str, int, str], ...]:
    """What statements say of a device's logs, for comparing: each file's digest with its size and root."""
    rows = connection.execute(
        sa.select(db.stated.c.sha256, db.stated.c.size, db.stated.c.root)
        .join(db.logs, db.logs.c.origin == db.stated.c.origin)
        .where(db.logs.c.license_id == license_id, db.logs.c.device_id == device)
        .order_by(db.stated.c.sha256)
    )
    return tuple((row.sha256, row.size, row.root) for row in rows)
