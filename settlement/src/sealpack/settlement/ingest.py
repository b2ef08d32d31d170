"""Ingestion: exactly-once by log position and tree, whatever order, duplication or damage files arrive in.

Source: specs/settlement-ingest.md, "Algorithm". Raw bytes are stored by digest first; then limits, parse,
signature, identity, continuity, tallies, registry, all without a lock; then one transaction that compares
the log's size and root with what was looked at and moves it, or starts over. Held files are looked at again
by themselves when something arrives that they may have waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from sealpack.format import records, tallies
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError, printable
from sealpack.format.files import read_bounded
from sealpack.format.limits import LIMITS
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import UsageReader, read_header
from sealpack.settlement import (
    checks,
    db,
    decisions,
    epochs,
    evidence,
    leases,
    logs,
    meter_readings,
    registry,
    rollups,
    seats,
    stated,
)
from sealpack.settlement.checks import Identity
from sealpack.settlement.epochs import Difference, Member, Stamp
from sealpack.settlement.logs import Growth, Log
from sealpack.settlement.outcomes import FINAL, FLAGS, REPLAY, Outcome, Stopped, is_accepted
from sealpack.settlement.periods import local_day
from sealpack.settlement.stated import Statement

_CONFLICTS = 10  # that the database gave a transaction up for another one's sake, in a row
_HEADER_CODES = {"USAGE_LIMIT": "R305"}


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What is to be written about a file: its outcome, and what it adds to `log` as that was seen."""

    outcome: Outcome
    log: Log | None = None
    growth: Growth | None = None
    said: Statement | None = None  # what it says beyond the log's receipts
    new_activation: Envelope | None = None
    fork: tuple[bytes | None, bytes | None] = (None, None)
    frozen: tuple[str, ...] = ()  # origins of other logs of the device that the fork concerns
    seen: tuple[Stamp, ...] = ()  # all logs of the device, as they were


def ingest_file(database: db.Database, path: Path, now: int) -> list[Outcome]:
    """:func:`ingest` of a file; one over the size limit is refused without keeping it."""
    try:
        data = read_bounded(path, LIMITS.usage_file_bytes)
    except SealpackError as error:
        if error.code != "JSON_LIMIT":
            raise
        return [Outcome("", printable(path.name), "R305", f"more than {LIMITS.usage_file_bytes >> 20} MiB")]
    return ingest(database, data, path.name, now)


def ingest(database: db.Database, data: bytes, name: str, now: int) -> list[Outcome]:
    """Take in one usage file: its outcome first, then those of held files it set free.

    Never raises for what the file holds. STORE_* and TRUST_UNPINNED are about this side.
    """
    name = printable(name)
    digest = evidence.keep(database, data, name, now)
    first = replace(_decide(database, digest, now, data), name=name)
    # Also after a known file: a process may have died between accepting it and looking at what waited.
    freed = release(database, now, origin=first.origin) if first.is_accepted else []
    return [first, *freed]


def resume(database: db.Database, digest: str, now: int) -> list[Outcome]:
    """:func:`ingest` of a file that is kept already."""
    first = _decide(database, digest, now)
    return [first, *(release(database, now, origin=first.origin) if first.is_accepted else [])]


def release(database: db.Database, now: int, *, origin: str | None = None) -> list[Outcome]:
    """Look again at files that are held or were never decided, until nothing more is accepted.

    `origin`: only files of that device's logs under that license. Returns the outcomes of the accepted ones.
    """
    freed: list[Outcome] = []
    while True:
        accepted = [
            o for digest in _waiting(database, origin) if (o := _decide(database, digest, now)).is_accepted
        ]
        freed += accepted
        if not any(outcome.accepted for outcome in accepted):
            return freed


def _waiting(database: db.Database, origin: str | None) -> Sequence[str]:
    """Digests of the files to look at again, in log order."""
    within = {}
    if origin is not None:
        start = family(origin)
        within = {"start": start, "end": start[:-1] + chr(ord(start[-1]) + 1)}
    with database.read() as connection:
        return connection.execute(_undecided(bool(within)), within).scalars().all()


@cache
def _undecided(within: bool) -> sa.Select[str]:
    """The question of :func:`_waiting`, `within` a range of origins: one that the index serves.

    A key that is unknown may come by rotation.
    """
    files = db.files.c
    size = sa.select(db.logs.c.size).where(db.logs.c.origin == files.origin).scalar_subquery()
    known = sa.select(db.reaches.c.size).where(db.reaches.c.origin == files.origin).scalar_subquery()
    reached = (files.first <= sa.func.coalesce(size, 0)) | (files.first <= sa.func.coalesce(known, 0))
    open_gap = (files.code == "H201") & ~reached & ~decisions.is_accepted("H201", files.sha256)
    refused = decisions.is_refused(files.code, files.sha256)
    held = files.code.like("H%") & files.code.not_in(FINAL) & ~open_gap & ~refused
    allowed = (files.code == REPLAY) & decisions.is_accepted(REPLAY, files.sha256)
    # A log that contradicts an older one may still be let begin.
    unbegun = files.code.in_(("H210", "H211")) & size.is_(None)
    undecided = (
        files.code.is_(None) | held | allowed | unbegun | (files.code == "R303") | stated.due(files.sha256)
    )
    order = files.first.nulls_first(), files.last.nulls_first(), files.sha256
    query = sa.select(files.sha256).where(undecided).order_by(*order)
    if within:
        query = query.where(files.origin >= sa.bindparam("start"), files.origin < sa.bindparam("end"))
    return query


def _decide(database: db.Database, digest: str, now: int, data: bytes | None = None) -> Outcome:
    """Judge a stored file against the log as it is, then write the judgement if the log is still so.

    `data` are its bytes where they are at hand.
    """
    conflicts = 0
    while True:
        with database.read() as connection:
            row = connection.execute(sa.select(db.files).where(db.files.c.sha256 == digest)).one()
            if row.code is not None and is_accepted(row.code) and not stated.is_due(connection, digest):
                return _known(row)
            data = data if data is not None else evidence.load(connection, digest)
            judged = _judge(connection, row, data, now)
        try:
            with database.write(*_concerns(judged)) as connection:
                if _unmoved(connection, row, judged):
                    _apply(connection, judged, now)
                    return judged.outcome
        except db.Conflict:
            conflicts += 1
            if conflicts == _CONFLICTS:
                raise


def _concerns(judged: _Judgement) -> tuple[str, ...]:
    """What writing a judgement looks at and changes: the file, and all logs of the device."""
    log = judged.log
    return (judged.outcome.sha256,) if log is None else (judged.outcome.sha256, family(log.origin))


def family(origin: str) -> str:
    """What the names of all logs of a device under a license begin with."""
    return origin.rpartition("/")[0] + "/"


def _known(row: sa.Row[tuple[object, ...]]) -> Outcome:
    day = datetime.fromtimestamp(row.received_at, UTC).date()
    detail = f"as {row.name} on {day}, {row.accepted} receipts"
    return Outcome(
        row.sha256, row.name, "W101", detail, 0, row.origin, row.license_id, row.first, row.last, ("W101",)
    )


def _unmoved(connection: sa.Connection, row: sa.Row[tuple[object, ...]], judged: _Judgement) -> bool:
    """The compare of compare-and-set: file and logs of the device are as they were when it was judged."""
    code = connection.execute(sa.select(db.files.c.code).where(db.files.c.sha256 == row.sha256)).scalar_one()
    same: bool = code == row.code
    log = judged.log
    return same and (log is None or epochs.stamps(connection, log.license_id, log.device_id) == judged.seen)


def _judge(connection: sa.Connection, row: sa.Row[tuple[object, ...]], data: bytes, now: int) -> _Judgement:
    """Decide what becomes of a file; reads only."""
    base = Outcome(row.sha256, row.name, "OK", "")
    try:
        reading = meter_readings.read(data) if meter_readings.is_reading(data) else None
        header = meter_readings.claim(reading) if reading else read_header(data)
    except SealpackError as error:
        return _Judgement(replace(base, code=_HEADER_CODES.get(error.code, "R301"), detail=error.message))
    base = replace(
        base, origin=header.origin, license_id=checks.license_id_of(header.origin), first=header.start,
        last=header.end,
    )  # fmt: skip
    trust = registry.load_trust(connection)
    log = None
    seen: tuple[Stamp, ...] = ()
    try:
        identity = checks.identify(connection, header, trust)
        log = logs.load(connection, header.origin) or Log.of(identity.activation, identity.epoch)
        seen = epochs.stamps(connection, log.license_id, log.device_id)
        waived = decisions.waived(connection, row.sha256)
        reader, said = None, None
        if reading is not None:
            said = meter_readings.judge(connection, identity, log, reading, trust, now, waived)
        else:
            reader = tallies.open_reader(data, header.device_key, follow=False)
            said = stated.judge(connection, identity, log, reader, trust, now, row.sha256)
        if said is None and reader is not None:
            growth = _grow(connection, identity, log, reader, data, trust, now, waived)
        elif said is not None:
            growth = said.growth
    except Stopped as stop:
        outcome = replace(base, code=stop.code, detail=stop.detail[:1000])
        return _Judgement(outcome, log, fork=(stop.ours, stop.theirs), frozen=stop.also, seen=seen)
    accepted = _accepted(connection, base, identity, reader, log, growth, said, trust, now)
    return _Judgement(accepted, log, growth, said, identity.new, seen=seen)


def _grow(
    connection: sa.Connection, identity: Identity, log: Log, reader: UsageReader, data: bytes, trust: Trust,
    now: int, waived: Collection[str],
) -> Growth:  # fmt: skip
    growth = logs.follow(reader, log, lambda size: logs.root_at(connection, log, size))
    checks.require_blocks(reader, growth.blocks)
    if growth.frontier.size > log.size:
        if log.frozen:
            raise Stopped("H210", "the log is frozen until the case is decided")
        checks.check_growth(connection, identity, growth, trust, now, waived)
        with checks.unless(waived):
            seats.check(connection, identity.license, identity.activation, trust)
        logs.lower(connection, log, growth)
        epochs.check(connection, identity, log, growth, trust)
        stated.check_receipts(connection, log, growth, data)
    return growth


def _accepted(
    connection: sa.Connection,
    base: Outcome,
    identity: Identity,
    reader: UsageReader | None,
    log: Log,
    growth: Growth,
    said: Statement | None,
    trust: Trust,
    now: int,
) -> Outcome:
    """The outcome of a file that is taken: the gravest flag is its code."""
    accepted = said.accepted if said else growth.frontier.size - log.size
    is_new = not said.known if said else bool(accepted)
    before = epochs.family(connection, log.license_id, log.device_id)
    registers = said.registers if said else None
    after = epochs.grown(connection, before, log, growth, registers) if is_new else before
    moved = {*epochs.differences(before)} ^ {*epochs.differences(after)}
    torn = reader is not None and not reader.complete
    flags = {
        "W104": torn,
        "W150": identity.license.environment == "test",
        "W103": not is_new,
        "W102": bool(accepted)
        and reader is not None
        and reader.header.start < growth.frontier.size - accepted,
        "W130": _is_late(connection, identity, growth, moved),
        "W151": _is_self_started(connection, identity, growth, trust),
        "W140": bool(growth.records(records.LOST)),
        "W110": bool(growth.rollup) and _is_over(connection, identity, after),
        "W121": bool(growth.records(records.CLOCK)),
        "W120": is_new and growth.last_ms > (now + checks.SKEW_S) * 1000,
        **{flag: is_new and said is not None and said.flag == flag for flag in stated.FLAG.values()},
    }
    raised = tuple(flag for flag in FLAGS if flags[flag])
    detail = said.detail if said else f"{accepted} receipts accepted" if accepted else "nothing new"
    if reader is not None and torn:
        detail += "".join(f"; {finding.message}" for finding in reader.findings[:1])
    code = raised[0] if raised else "OK"
    return replace(base, code=code, detail=detail[:1000], accepted=accepted, flags=raised)


def _is_late(
    connection: sa.Connection, identity: Identity, growth: Growth, moved: Iterable[Difference]
) -> bool:
    """Whether new usage falls into a month invoiced already, or such a month changes."""
    license = identity.license
    plan = registry.load_plan(connection, license.plan) if license.plan else None
    if plan is None or license.environment == "test":
        return False
    quarters = {quarter for _, quarter, _ in growth.rollup} | {d.quarter_ms for d in moved} | growth.moved
    months = {local_day(quarter, plan.tz).replace(day=1).isoformat() for quarter in quarters}
    found = sa.select(sa.func.count()).where(
        db.invoices.c.license_id == (license.parent_id or license.license_id),
        db.invoices.c.period.in_(months),
    )
    return bool(connection.execute(found).scalar())


def _is_self_started(connection: sa.Connection, identity: Identity, growth: Growth, trust: Trust) -> bool:
    """Whether the log began without a document that gave leave for it."""
    begins = bool(growth.records(records.GENESIS))
    return begins and epochs.is_self_started(connection, identity, identity.epoch, trust)


def _is_over(connection: sa.Connection, identity: Identity, members: list[Member]) -> bool:
    """Whether a meter of the device's logs is past every ceiling that was given for it."""
    limits = leases.ceilings(connection, identity.license, [m.origin for m in members])
    used = epochs.totals(members)
    return any(used[meter] > limit for meter, limit in limits.items())


# --- writing ----------------------------------------------------------------------------------------


def _apply(connection: sa.Connection, judged: _Judgement, now: int) -> None:
    """Write a judgement: all of it in the running transaction."""
    outcome = judged.outcome
    connection.execute(
        sa.update(db.files).where(db.files.c.sha256 == outcome.sha256).values(
            code=outcome.code, detail=outcome.detail, accepted=outcome.accepted, origin=outcome.origin,
            license_id=outcome.license_id, first=outcome.first, last=outcome.last,
        )
    )  # fmt: skip
    _note_case(connection, judged, now)
    if judged.log is not None and any(judged.fork):
        mine = db.logs.c.origin.in_((judged.log.origin, *judged.frozen))
        connection.execute(sa.update(db.logs).where(mine).values(frozen=1))
    if judged.new_activation is not None:
        registry.put_activation(connection, judged.new_activation, registry.load_trust(connection))
    if judged.log is not None and judged.said is not None:
        stated.store(connection, outcome.sha256, judged.log, judged.said)
    elif judged.log is not None and judged.growth is not None and outcome.accepted:
        store(connection, outcome, judged.log, judged.growth)


def _note_case(connection: sa.Connection, judged: _Judgement, now: int) -> None:
    """Open a case for what is held; close the cases of what is held for another reason or not any more."""
    outcome, cases = judged.outcome, db.cases.c
    over = (cases.sha256 == outcome.sha256, cases.code != outcome.code, cases.closed_at.is_(None))
    connection.execute(sa.update(db.cases).where(*over).values(closed_at=now))
    if outcome.code[0] != "H":
        return
    ours, theirs = judged.fork
    row = {"code": outcome.code, "sha256": outcome.sha256, "origin": outcome.origin or "",
           "opened_at": now, "closed_at": None, "detail": outcome.detail, "ours": ours,
           "theirs": theirs}  # fmt: skip
    refused = sa.select(decisions.is_refused(outcome.code, outcome.sha256))
    if connection.execute(refused).scalar():
        return
    again = {"closed_at": None, "detail": outcome.detail}
    statement = db.put(connection, db.cases).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["code", "sha256"], set_=again))


def store(connection: sa.Connection, outcome: Outcome, log: Log, growth: Growth) -> None:
    """Move the log forward: its row, the segment, the rotations, the roll-ups."""
    moved = replace(
        log, frontier=growth.frontier, state=growth.checker.end(), note=growth.note,
        last_ms=growth.last_ms, floor_ms=growth.times.floor_ms,
    )  # fmt: skip
    whole = stated.grown(connection, log, moved, growth)
    row = moved.row()
    statement = db.put(connection, db.logs).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["origin"], set_=row))
    segment = {"origin": log.origin, "first": log.size, "last": moved.size, "sha256": outcome.sha256}
    connection.execute(sa.insert(db.segments).values(segment))
    stated.note_records(connection, log.origin, growth)
    routes = moved.state.routes or {}
    if whole is None:
        rollups.store(connection, log.origin, log.license_id, routes, growth.rollup, growth.held)
    else:
        routes = rollups.routes(connection, log.origin, routes)
        rollups.store(connection, log.origin, log.license_id, routes, {}, whole)
