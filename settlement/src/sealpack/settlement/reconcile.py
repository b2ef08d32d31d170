"""Reconciliation: is what the tables say what the stored evidence proves?

Source: specs/settlement-ingest.md, "Reconciliation". Every log is rebuilt from the raw files alone: leaves,
frontier, running totals, roll-ups; then compared with the tables that invoices are made from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format import documents, records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PublicKey
from sealpack.format.records import METER_ORDER, Registers
from sealpack.format.usage_reader import UsageReader, read_header
from sealpack.settlement import (
    daily,
    db,
    epochs,
    evidence,
    ledger,
    logs,
    meter_readings,
    readings,
    registry,
    rollups,
    work_queue,
)
from sealpack.settlement.epochs import Succession
from sealpack.settlement.logs import Growth, Log
from sealpack.settlement.outcomes import Stopped
from sealpack.settlement.readings import Limit, Mark
from sealpack.settlement.rollups import Rollup

SILENT_S = 45 * 86400


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found: `problems` contradict the evidence; the rest is for a person to know.

    `waiting` are held files and open gaps, `silent` activated devices that were not heard of for 45 days.
    """

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
    """Rebuild every log from evidence and compare; reads only, and stops nobody."""
    held: list[Log] = []
    problems: list[str] = []
    with database.read() as connection:
        problems += _damaged(connection)
        problems += [f"{name}: the transaction does not balance" for name in ledger.unbalanced(connection)]
        for origin in connection.execute(sa.select(db.logs.c.origin).order_by(db.logs.c.origin)).scalars():
            try:
                held += [log] if (log := logs.load(connection, origin)) else []
            except SealpackError as error:
                problems.append(error.message)
        problems += [problem for log in held for problem in _check(connection, log)]
        problems += _usage_differs(connection)
        waiting, silent = _waiting(connection, held), _silent(connection, held, now)
    return Reconciliation(len(held), sum(log.size for log in held), tuple(problems), waiting, silent)


def _usage_differs(connection: sa.Connection) -> Iterator[str]:
    """Licenses whose usage, from which they are invoiced, is not the sum of the roll-ups of their logs."""
    licenses = sa.select(db.logs.c.license_id).union(sa.select(db.license_usage.c.license_id))
    for name in sorted(connection.execute(licenses).scalars()):
        if rollups.usage_of(connection, name) != rollups.summed(connection, name):
            yield f"license {name}: its usage is not the sum of its roll-ups"


def _damaged(connection: sa.Connection) -> Iterator[str]:
    """Stored files whose bytes are not those that came in."""
    for row in connection.execute(sa.select(db.files.c.sha256, db.files.c.name)).all():
        try:
            evidence.load(connection, row.sha256)
        except SealpackError as error:
            if error.code != "STORE_CORRUPT":
                raise
            yield f"{row.name}: {error.message}"


def _check(connection: sa.Connection, log: Log) -> list[str]:
    """Everything wrong with one log."""
    growth = Growth.on(Log(log.origin, log.license_id, log.device_id, log.epoch))
    segments = connection.execute(
        sa.select(db.segments.c.first, db.segments.c.last, db.segments.c.sha256)
        .where(db.segments.c.origin == log.origin)
        .order_by(db.segments.c.first)
    )
    ends = {0: 0}  # the latest time up to the end of each file
    try:
        device = _device_key(connection, log)
        for segment in segments:
            _replay(segment, evidence.load(connection, segment.sha256), growth, device)
            ends[growth.frontier.size] = growth.last_ms
    except SealpackError as error:
        return [f"{log.origin}: {error.message}"]
    return [f"{log.origin}: {problem}" for problem in _differences(connection, log, growth, ends)]


def _device_key(connection: sa.Connection, log: Log) -> PublicKey:
    """The key the device was activated with; the activation was verified when it came in."""
    envelope = registry.load_activation(connection, log.license_id, log.device_id)
    if envelope is None:
        raise SealpackError("STORE_CORRUPT", "the device's activation is gone")
    return PublicKey.from_pem(documents.payload_fields(envelope, "activation").text("device_key"))


def _replay(segment: Any, data: bytes, growth: Growth, device: PublicKey) -> None:
    """Take the receipts that a stored file brought, as ingestion did; STORE_CORRUPT if it holds others."""
    first, last = segment.first, segment.last
    if first != growth.frontier.size:
        raise SealpackError(
            "STORE_CORRUPT", f"no evidence for receipts {growth.frontier.size} to {first - 1}"
        )
    start = read_header(data).start
    for record in growth.records(records.ROTATED):
        if record.position < start:
            device = PublicKey.from_pem(record.body["device"])
    for block in UsageReader(data, device):
        if block.before.size <= growth.frontier.size < block.checkpoint.size <= last:
            growth.take(block)
    if growth.frontier.size != last:
        raise SealpackError("STORE_CORRUPT", f"the file of receipts {first} to {last - 1} is damaged")


def _differences(connection: sa.Connection, log: Log, growth: Growth, ends: dict[int, int]) -> Iterator[str]:
    state = growth.checker.end()
    if growth.frontier != log.frontier or growth.note != log.note:
        yield "size, root or checkpoint differs from the evidence"
    if state != log.state:
        yield "running totals or routes differ from the evidence"
    stored, rolled = rollups.stored(connection, log.origin), growth.rollup
    if any(bound < ends.get(end, growth.last_ms) for end, bound in growth.times.bounds):
        rolled = logs.roll_up(connection, log.origin)
    beyond = readings.load(connection, log.origin, log.size)
    rolled = rollups.joined(rolled, beyond.rollup(log))
    yield from _stated_differs(connection, log)
    if stored != rolled:
        yield "roll-ups differ from the evidence"
    elif daily.sums(connection, log.origin) != _by_status(stored):
        yield "the days of the charts differ from the roll-ups"
    said = next((Succession.of(genesis) for genesis in growth.records(records.GENESIS)), None)
    if epochs.load(connection, log.origin) != said and (log.size or not beyond.marks):
        yield "what it carries over differs from the evidence"
    if state.registers is not None and _sums(stored) != beyond.registers(state.registers):
        yield "roll-ups do not add up to the running totals"


def _stated_differs(connection: sa.Connection, log: Log) -> Iterator[str]:
    """Files that speak of a log beyond its receipts, whose registers are not those that are stored."""
    said, reading, bound = db.stated.c, db.readings.c, db.reading_bounds.c
    rows = connection.execute(
        sa.select(db.stated).where(said.origin == log.origin, said.size > log.size)
    ).all()
    for row in rows:
        mine = sa.select(db.readings).where(reading.sha256 == row.sha256).order_by(reading.position)
        limits = sa.select(db.reading_bounds).where(bound.sha256 == row.sha256).order_by(bound.position)
        stored = (
            [Mark.of(r) for r in connection.execute(mine)],
            [Limit.of(r) for r in connection.execute(limits)],
        )
        try:
            data = evidence.load(connection, row.sha256)
            marks, said_limits = meter_readings.reread(connection, row, data)
        except (SealpackError, Stopped) as error:
            yield f"the file {row.sha256[:16]}: {error}"
            continue
        if stored != (sorted(marks, key=lambda m: m.position), said_limits):
            yield f"the registers of the file {row.sha256[:16]} differ from the evidence"


def _by_status(rollup: Rollup) -> dict[str, list[int]]:
    total: dict[str, list[int]] = {}
    for (_, _, status), amounts in rollup.items():
        known = total.get(status, [0] * len(METER_ORDER))
        total[status] = [a + b for a, b in zip(known, amounts, strict=True)]
    return total


def _sums(rollup: Rollup) -> Registers:
    total = Registers()
    for (route, _, status), amounts in rollup.items():
        total.charge(route, status, dict(zip(METER_ORDER, amounts, strict=True)))
    return total


def _waiting(connection: sa.Connection, held: list[Log]) -> tuple[str, ...]:
    """Held files, and the ends of logs that a device followed by another one before they arrived."""
    rows = connection.execute(
        sa.select(db.files.c.name, db.files.c.code, db.files.c.detail)
        .where(db.files.c.code.like("H%"))
        .order_by(db.files.c.received_at, db.files.c.sha256)
    )
    sizes = {log.origin: log.size for log in held}
    named = connection.execute(
        sa.select(db.successions.c.previous_origin, db.successions.c.previous_size)
        .where(db.successions.c.previous_origin.is_not(None))
        .order_by(db.successions.c.origin)
    )
    missing = tuple(
        f"W151 {origin}: receipts {sizes.get(origin, 0)} to {size - 1} never came; what a later log carries "
        f"over of them is billed"
        for origin, size in named
        if sizes.get(origin, 0) < size
    )
    given_up = tuple(
        f"{job.name}: in the queue, it waits for nobody any more: {job.detail}"
        for job in work_queue.jobs(connection)
        if job.state == "failed"
    )
    return tuple(f"{r.code} {r.name}: {r.detail}" for r in rows) + missing + given_up


def _silent(connection: sa.Connection, held: list[Log], now: int) -> tuple[str, ...]:
    """Activated devices that have not been heard of for 45 days, or never."""
    last: dict[tuple[str, str], int] = {}
    for log in held:
        device = (log.license_id, log.device_id)
        last[device] = max(log.last_ms // 1000, last.get(device, 0))
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
