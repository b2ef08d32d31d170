"""Reconciliation: is what the tables say what the stored evidence proves?

Source: specs/settlement-ingest.md, "Reconciliation". Every log is rebuilt from the raw files alone: leaves,
frontier, running totals, roll-ups; then compared with the tables that invoices are made from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.usage_reader import UsageReader
from sealpack.settlement import db
from sealpack.settlement.ingest import Log, Rollup, _roll, load_log

SILENT_S = 45 * 86400


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found: `problems` contradict the evidence; the rest is for a person to know."""

    logs: int
    receipts: int
    problems: tuple[str, ...]
    waiting: tuple[str, ...]
    silent: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether tables and evidence agree."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "schema": "sealpack/reconciliation/v1", "ok": self.ok, "logs": self.logs,
            "receipts": self.receipts, "problems": list(self.problems), "waiting": list(self.waiting),
            "silent": list(self.silent),
        }  # fmt: skip


def reconcile(database: db.Database, now: int) -> Reconciliation:
    """Rebuild every log from evidence and compare; reads only."""
    with database.read() as connection:
        origins = connection.execute(sa.select(db.logs.c.origin).order_by(db.logs.c.origin)).scalars().all()
        logs = [log for o in origins if (log := load_log(connection, o)) is not None]
        problems = [p for log in logs for p in _check(connection, log)]
        return Reconciliation(
            len(logs), sum(log.frontier.size for log in logs), tuple(problems),
            _waiting(connection), _silent(connection, logs, now),
        )  # fmt: skip


def _check(connection: sa.Connection, log: Log) -> list[str]:
    frontier, checker, rollup = Frontier(0, ()), LogChecker(LogState.fresh()), Counter[Any]()
    segments = connection.execute(
        sa.select(db.segments.c.start, db.segments.c.end, db.files.c.data)
        .join(db.files, db.files.c.sha256 == db.segments.c.sha256)
        .where(db.segments.c.origin == log.origin)
        .order_by(db.segments.c.start)
    )
    for segment in segments:
        if segment.start != frontier.size:
            return [f"{log.origin}: no evidence for receipts {frontier.size} to {segment.start}"]
        frontier = _replay(segment.data, segment.end, frontier, checker, rollup)
        if frontier.size != segment.end:
            return [f"{log.origin}: the file of receipts {segment.start} to {segment.end} is damaged"]
    return _differences(connection, log, frontier, checker, rollup)


def _replay(data: bytes, end: int, frontier: Frontier, checker: LogChecker, rollup: Rollup) -> Frontier:
    for block in UsageReader(data):
        known = frontier.size - block.before.size
        if known < 0 or known >= len(block.leaves) or frontier.size >= end:
            continue
        for record in block.records[known:]:
            checker.follow(record)
            _roll(record, rollup)
        frontier = frontier.extend(map(leaf_hash, block.leaves[known:]))
    return frontier


def _differences(
    connection: sa.Connection, log: Log, frontier: Frontier, checker: LogChecker, rollup: Rollup
) -> list[str]:
    found = []
    if frontier != log.frontier:
        found.append(f"{log.origin}: size or root differs from the evidence")
    if checker.end().registers != log.state.registers:
        found.append(f"{log.origin}: running totals differ from the evidence")
    stored = {
        (r.route, r.quarter_ms, r.status, r.meter): r.amount
        for r in connection.execute(sa.select(db.rollups).where(db.rollups.c.origin == log.origin))
    }
    if stored != dict(rollup):
        found.append(f"{log.origin}: roll-ups differ from the evidence")
    return found


def _waiting(connection: sa.Connection) -> tuple[str, ...]:
    rows = connection.execute(
        sa.select(db.files.c.name, db.files.c.code, db.files.c.detail)
        .where(db.files.c.code.like("H%"))
        .order_by(db.files.c.received_at, db.files.c.sha256)
    )
    return tuple(f"{r.code} {r.name}: {r.detail}" for r in rows)


def _silent(connection: sa.Connection, logs: list[Log], now: int) -> tuple[str, ...]:
    """Activated devices that have not been heard of for 45 days, or never."""
    last = {(log.license_id, log.device_id): log.last_ms // 1000 for log in logs}
    rows = connection.execute(
        sa.select(
            db.activations.c.license_id, db.activations.c.device_id, db.activations.c.issued_at
        ).order_by(db.activations.c.license_id, db.activations.c.device_id)
    )
    return tuple(
        f"{r.device_id} under {r.license_id}"
        for r in rows
        if now - last.get((r.license_id, r.device_id), r.issued_at) > SILENT_S
    )
