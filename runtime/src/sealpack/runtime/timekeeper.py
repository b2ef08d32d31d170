"""The clock model's state in the database, and the moment a transaction happens at."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from sealpack.runtime import clock, machine
from sealpack.runtime.clock import ClockState, Event, Stage, Times

_MAX_EVENTS = 64  # kept until a log takes them; a device without a log needs no more


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at the clocks inside a transaction: what to judge by, and what a record is stamped with."""

    times: Times
    uptime_ms: int
    boot_id: str


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
    return Moment(times, reading.monotonic, reading.boot_id)


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
    """Keep the clock."""
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
