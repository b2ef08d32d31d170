"""The clock model's state in the database, and the moment a transaction happens at."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from sealpack.runtime import clock, machine
from sealpack.runtime.clock import ClockState, Event, Reading, Stage, Times

GLANCE_MS = 60_000  # how long nobody need remember having looked
DRIFT_MS = 1000  # how far wall and run time may part meanwhile
_MAX_EVENTS = 64  # kept until a log takes them; a device without a log needs no more


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at the clocks inside a transaction: what to judge by, and what a record is stamped with."""

    times: Times
    uptime_ms: int
    boot_id: str
    wall: int | None  # what the machine's own clock said, ms
    state: ClockState


def observe(db: sqlite3.Connection) -> Moment:
    """Read the machine's clocks, move the stored clock on, and say what time it is.

    Events wait in the database for the next record that is written (:func:`take_events`).
    """
    reading = machine.reading()
    state = load(db) or clock.start(0)
    after, times, events = clock.observe(state, reading)
    store(db, after)
    if events:
        waiting = (_events(db) + [[event.name, event.delta] for event in events])[-_MAX_EVENTS:]
        db.execute("UPDATE clock SET events=?", (json.dumps(waiting),))
    return _moment(reading, after, times)


def _moment(reading: Reading, state: ClockState, times: Times) -> Moment:
    return Moment(times, reading.monotonic, reading.boot_id, reading.wall, state)


def glance(last: Moment) -> Moment | None:
    """What time it is shortly after `last`, without remembering that anybody looked.

    None when the clock did anything but go on: then :func:`observe` must look and remember. So nothing is
    gained by a wall clock that is only ahead while it is glanced at.
    """
    reading = machine.reading()
    if reading.monotonic == last.uptime_ms and reading.boot_id == last.boot_id:
        return last
    elapsed = reading.monotonic - last.uptime_ms
    if reading.wall is None or last.wall is None or reading.boot_id != last.boot_id:
        return None
    if not 0 <= elapsed <= GLANCE_MS or abs(reading.wall - last.wall - elapsed) > DRIFT_MS:
        return None
    after, times, events = clock.observe(last.state, reading)
    return None if events else _moment(reading, after, times)


def take_events(db: sqlite3.Connection) -> list[Event]:
    """The clock events nobody has written down yet; they are forgotten here."""
    events = [Event(name, delta) for name, delta in _events(db)]
    if events:
        db.execute("UPDATE clock SET events='[]'")
    return events


def _events(db: sqlite3.Connection) -> list[list[Any]]:
    row = db.execute("SELECT events FROM clock").fetchone()
    found: list[list[Any]] = json.loads(row[0]) if row else []
    return found


def anchor(db: sqlite3.Connection, issued_at: int) -> None:
    """Take a verified issuer time (Unix seconds) as proof that it is at least that late."""
    state = load(db)
    proof = issued_at * 1000
    store(db, clock.start(proof) if state is None else clock.anchor(state, proof))


def restart(db: sqlite3.Connection, issued_at: int) -> None:
    """A new root version: begin again at the newest issuer time (Unix seconds) that still counts."""
    state = load(db)
    proof = issued_at * 1000
    store(db, clock.start(proof) if state is None else clock.restart(state, proof))


def repair(db: sqlite3.Connection, now: int) -> int:
    """Take an issuer's word for what time it is (Unix seconds); how far that moved the accepted time, ms."""
    before = load(db) or clock.start(0)
    after = clock.repair(before, now * 1000)
    store(db, after)
    return after.soft - before.soft


def load(db: sqlite3.Connection) -> ClockState | None:
    """The stored clock, or None before the first document or reading."""
    row = db.execute(
        "SELECT hard, soft, budget, boot_id, monotonic, pending_wall, pending_run, behind, own, stage"
        " FROM clock"
    ).fetchone()
    if row is None:
        return None
    hard, soft, budget, boot_id, monotonic, pending_wall, pending_run, behind, own, stage = row
    return ClockState(
        hard,
        soft,
        budget,
        boot_id,
        monotonic,
        pending_wall,
        pending_run,
        behind=bool(behind),
        own=own,
        stage=Stage(stage),
    )


def store(db: sqlite3.Connection, state: ClockState) -> None:
    """Keep the clock, and add up what runs out by accepted time: set back later, it gives none of it back."""
    db.execute("UPDATE lapses SET spent=spent + max(0, ?1 - seen), seen=?1 WHERE seen<>?1", (state.soft,))
    db.execute(
        "INSERT INTO clock(id, hard, soft, budget, boot_id, monotonic, pending_wall, pending_run, behind,"
        " own, stage, events) VALUES(1,?,?,?,?,?,?,?,?,?,?,'[]') ON CONFLICT(id) DO UPDATE SET"
        " hard=excluded.hard, soft=excluded.soft, budget=excluded.budget, boot_id=excluded.boot_id,"
        " monotonic=excluded.monotonic, pending_wall=excluded.pending_wall,"
        " pending_run=excluded.pending_run, behind=excluded.behind, own=excluded.own, stage=excluded.stage",
        (
            state.hard,
            state.soft,
            state.budget,
            state.boot_id,
            state.monotonic,
            state.pending_wall,
            state.pending_run,
            int(state.behind),
            state.own,
            int(state.stage),
        ),
    )
