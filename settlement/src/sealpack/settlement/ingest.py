"""Ingestion: exactly-once by log position and tree, whatever order, duplication or damage files arrive in.

Source: specs/settlement-ingest.md, "Algorithm". Raw bytes are stored by digest first; then limits, parse,
signature, identity, continuity, tallies; then one transaction with compare-and-set on the log's size and
root. Files that wait for something (H201, H250) are looked at again by themselves when it arrives.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert

from sealpack.format import records
from sealpack.format.activation import Activation, log_origin
from sealpack.format.documents import kind_of
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PublicKey
from sealpack.format.license import License
from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.merkle import EMPTY_ROOT, Frontier, leaf_hash
from sealpack.format.records import Record
from sealpack.format.usage import UsageHeader
from sealpack.format.usage_reader import UsageReader, VerifiedBlock, read_header
from sealpack.settlement import db, registry
from sealpack.settlement.outcomes import Outcome

QUARTER_MS = 15 * 60 * 1000
WAITING = ("H201", "H250")
_HEADER_CODES = {"USAGE_LIMIT": "R305"}
_LOG_CODES = {"RECEIPT_TALLY": "H213", "RECEIPT_ORDER": "H213", "RECEIPT_ROUTE": "H214"}
_BLOCK_CODES = {"CHECKPOINT_INVALID": "R304", "RECEIPT_TREE": "H212", "USAGE_LIMIT": "R305"}

Rollup = Counter[tuple[str, int, str, str]]  # (route, quarter UTC ms, status, meter) -> amount


class _Held(Exception):
    """The file cannot be accepted now; raw bytes stay."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Log:
    """Where a device log stands here."""

    origin: str
    license_id: str
    device_id: str
    epoch: int
    frontier: Frontier
    state: LogState
    note: bytes = b""
    last_ms: int = 0
    frozen: bool = False


@dataclass(slots=True)
class _Growth:
    """What one file adds to a log."""

    frontier: Frontier
    checker: LogChecker
    rollup: Rollup = field(default_factory=Counter)
    rotated: list[str] = field(default_factory=list)
    note: bytes = b""
    last_ms: int = 0
    overlapped: bool = False


def ingest(database: db.Database, data: bytes, name: str, now: int) -> list[Outcome]:
    """Take in one usage file: its outcome first, then those of waiting files it set free.

    Never raises for what the file holds. STORE_* and TRUST_UNPINNED are about this side.
    """
    digest = hashlib.sha256(data).hexdigest()
    with database.write() as connection:
        row = {"sha256": digest, "name": name, "received_at": now, "data": data}
        connection.execute(upsert(db.files).values(row).on_conflict_do_nothing())
    first = _decide(database, digest, now)
    outcomes = [first]
    if first.accepted:
        outcomes += release(database, now, origin=first.origin)
    return outcomes


def release(database: db.Database, now: int, *, origin: str | None = None) -> list[Outcome]:
    """Look again at held files, until nothing more is accepted. `origin`: only files of that log."""
    freed: list[Outcome] = []
    while True:
        accepted = [o for o in _recheck(database, origin, now) if o.is_accepted]
        freed += accepted
        if not any(o.accepted for o in accepted):
            return freed


def _recheck(database: db.Database, origin: str | None, now: int) -> Iterable[Outcome]:
    query = sa.select(db.files.c.sha256).where(db.files.c.code.in_(WAITING))
    if origin is not None:
        query = query.where(db.files.c.origin == origin)
    with database.read() as connection:
        waiting = connection.execute(query.order_by(db.files.c.start, db.files.c.sha256)).scalars().all()
    return [_decide(database, digest, now) for digest in waiting]


def _decide(database: db.Database, digest: str, now: int) -> Outcome:
    """One transaction: judge a stored file against the log as it is, and apply what it adds.

    The transaction holds the write lock from its start, so the log cannot move between the comparison
    and the update: that is the compare-and-set.
    """
    with database.write() as connection:
        row = connection.execute(sa.select(db.files).where(db.files.c.sha256 == digest)).one()
        if row.code is not None and row.code[0] in "OW":
            return Outcome(digest, row.name, "W101", "", 0, row.origin, row.license_id, row.start)
        outcome = _judge(connection, digest, row.name, row.data, now)
        connection.execute(
            sa.update(db.files).where(db.files.c.sha256 == digest).values(
                code=outcome.code, detail=outcome.detail, accepted=outcome.accepted,
                origin=outcome.origin, license_id=outcome.license_id, start=outcome.start,
            )
        )  # fmt: skip
        _note_case(connection, outcome, now)
        return outcome


def _note_case(connection: sa.Connection, outcome: Outcome, now: int) -> None:
    """Open a case for what is held; close the cases of what is accepted after all."""
    if outcome.is_accepted:
        mine = (db.cases.c.sha256 == outcome.sha256, db.cases.c.closed_at.is_(None))
        connection.execute(sa.update(db.cases).where(*mine).values(closed_at=now))
    elif outcome.code[0] == "H":
        row = {"code": outcome.code, "sha256": outcome.sha256, "origin": outcome.origin or "",
               "opened_at": now, "detail": outcome.detail}  # fmt: skip
        connection.execute(upsert(db.cases).values(row).on_conflict_do_nothing())


def _judge(connection: sa.Connection, digest: str, name: str, data: bytes, now: int) -> Outcome:
    try:
        header = read_header(data)
    except SealpackError as error:
        return Outcome(digest, name, _HEADER_CODES.get(error.code, "R301"), error.message)
    base = Outcome(digest, name, "OK", "", 0, header.origin, _license_id(header.origin), header.start)
    try:
        return _apply(connection, base, header, data, now)
    except _Held as held:
        return replace(base, code=held.code, detail=held.detail)


def _license_id(origin: str) -> str | None:
    parts = origin.split("/")
    return parts[2] if len(parts) == 5 and parts[:2] == ["sealpack", "usage"] else None


def _apply(connection: sa.Connection, base: Outcome, header: UsageHeader, data: bytes, now: int) -> Outcome:
    license, activation = _identify(connection, header)
    log = load_log(connection, header.origin) or _new_log(header, activation)
    growth = _Growth(log.frontier, LogChecker(log.state.copy()), note=log.note, last_ms=log.last_ms)
    reader = UsageReader(data, header.device_key)
    seen = _follow(connection, reader, log, growth)
    _require_blocks(reader, seen)
    if header.start > log.frontier.size:
        missing = header.start - log.frontier.size
        raise _Held("H201", f"receipts {log.frontier.size} to {header.start} ({missing}) are missing")
    accepted = growth.frontier.size - log.frontier.size
    if accepted:
        if log.frozen:
            raise _Held("H210", "the log is frozen until the case is decided")
        _check_growth(connection, license, activation, growth)
        _store(connection, base, log, growth)
    return _accepted(base, license, header, reader, growth, accepted)


def _identify(connection: sa.Connection, header: UsageHeader) -> tuple[License, Activation]:
    """License and activation of the log, and that the header's key is that device's."""
    license_id = _license_id(header.origin)
    license = registry.load_license(connection, license_id) if license_id else None
    if license is None:
        raise _Held("H250", f"license {license_id} is not known here")
    activation = _activation(connection, header, license)
    if header.origin != log_origin(license.license_id, activation.device_id, _epoch(header.origin)):
        raise _Held("R302", f"{header.origin} is not a log of this device")
    if _epoch(header.origin) != activation.epoch:
        raise _Held("H215", f"epoch {_epoch(header.origin)}, the activation says {activation.epoch}")
    keys = {activation.device_key.der} | _rotated_keys(connection, header.origin)
    if header.device_key.der not in keys:
        raise _Held(
            "R303", f"device key {header.device_key.keyid[:16]} is not that of {activation.device_id}"
        )
    return license, activation


def _epoch(origin: str) -> int:
    last = origin.rpartition("/")[2]
    return int(last) if last.isdigit() and len(last) < 10 else -1


def _activation(connection: sa.Connection, header: UsageHeader, license: License) -> Activation:
    """The registered activation, else the one that travels in the file, if the issuer signed it."""
    device = header.origin.split("/")[3]
    row = connection.execute(
        sa.select(db.activations.c.envelope).where(
            db.activations.c.license_id == license.license_id, db.activations.c.device_id == device
        )
    ).first()
    trust = registry.load_trust(connection)
    if row is not None:
        return Activation.open(Envelope.from_bytes(row.envelope, "activation"), trust)
    try:
        envelope = Envelope.from_dict(header.activation, "activation")
        if kind_of(envelope) != "activation":
            raise SealpackError("DOC_TYPE", "not an activation")
        activation = Activation.open(envelope, trust)
    except SealpackError:
        raise _Held("R302", f"{device} was never activated under {license.license_id}") from None
    if (activation.license_id, activation.device_id) != (license.license_id, device):
        raise _Held("R302", f"{device} was never activated under {license.license_id}")
    return registry.put_activation(connection, envelope, trust)


def _rotated_keys(connection: sa.Connection, origin: str) -> set[bytes]:
    """Device keys that accepted receipts of the log handed over to."""
    rows = connection.execute(sa.select(db.rotations.c.device_key).where(db.rotations.c.origin == origin))
    return {PublicKey.from_pem(row.device_key).der for row in rows}


def _new_log(header: UsageHeader, activation: Activation) -> Log:
    return Log(
        header.origin, activation.license_id, activation.device_id, activation.epoch,
        Frontier(0, ()), LogState.fresh(),
    )  # fmt: skip


def load_log(connection: sa.Connection, origin: str) -> Log | None:
    """The log as it stands, or None before its first receipt."""
    row = connection.execute(sa.select(db.logs).where(db.logs.c.origin == origin)).first()
    if row is None:
        return None
    return Log(
        origin, row.license_id, row.device_id, row.epoch,
        Frontier.from_hex(row.size, json.loads(row.frontier)),
        LogState.from_dict(json.loads(row.state)), row.note, row.last_ms, bool(row.frozen),
    )  # fmt: skip


def _follow(connection: sa.Connection, reader: UsageReader, log: Log, growth: _Growth) -> int:
    """Walk the file's valid blocks: compare what is known, gather what is new. Returns their number."""
    blocks, compared = 0, log.frontier.size == 0
    last: VerifiedBlock | None = None
    for block in reader:
        blocks += 1
        last = block
        end = block.checkpoint.size
        if end < log.frontier.size or (block.before.size > log.frontier.size and not compared):
            continue
        if not compared:
            _compare(connection, block, log.frontier.size, log.frontier.root, log)
            compared = True
        _take(block, growth)
    growth.overlapped = reader.header.start < log.frontier.size
    if last is not None and last.checkpoint.size < log.frontier.size:
        size = last.checkpoint.size
        _compare(connection, last, size, root_at(connection, log, size), log)
    return blocks


def _compare(connection: sa.Connection, block: VerifiedBlock, size: int, root: bytes, log: Log) -> None:
    """Require the file's tree at `size` to have our root there; else two histories are signed."""
    count = size - block.before.size
    tree = block.before.extend(map(leaf_hash, block.leaves[:count]))
    if tree.root != root:
        connection.execute(sa.update(db.logs).where(db.logs.c.origin == log.origin).values(frozen=1))
        raise _Held(
            "H210",
            f"at {size} receipts this file's tree is {tree.root.hex()[:16]}, ours is {root.hex()[:16]}; "
            f"both signed checkpoints are kept",
        )


def _take(block: VerifiedBlock, growth: _Growth) -> None:
    """Add the block's receipts beyond the log's end."""
    known = growth.frontier.size - block.before.size
    if known < 0 or known >= len(block.leaves):
        return
    for record in block.records[known:]:
        growth.checker.follow(record)
        _roll(record, growth.rollup)
        if record.kind == records.ROTATED:
            growth.rotated.append(record.body["device"])
        growth.last_ms = max(growth.last_ms, record.time_ms)
    growth.frontier = growth.frontier.extend(map(leaf_hash, block.leaves[known:]))
    growth.note = block.note


def _roll(record: Record, rollup: Rollup) -> None:
    """Count a record's meters into its quarter hour."""
    if record.kind == records.USAGE:
        status = record.body["status"]
    elif record.kind == records.LOST:
        status = records.LOST_STATUS
    else:
        return
    quarter = record.time_ms - record.time_ms % QUARTER_MS
    for meter, amount in record.body["meters"].items():
        rollup[record.body["route"], quarter, status, meter] += amount


def _require_blocks(reader: UsageReader, blocks: int) -> None:
    """Refuse or hold a file without one valid block, by its first fault."""
    if blocks:
        return
    fault = next((f for f in reader.findings), None)
    if fault is None or fault.code not in _BLOCK_CODES:
        raise _Held("R301", fault.message if fault else "it holds no receipts")
    raise _Held(_BLOCK_CODES[fault.code], fault.message)


def _check_growth(
    connection: sa.Connection, license: License, activation: Activation, growth: _Growth
) -> None:
    """The new receipts against themselves and against the registry."""
    for finding in growth.checker.findings:
        raise _Held(_LOG_CODES.get(finding.code, "H213"), finding.message)
    for route, entry in (growth.checker.end().routes or {}).items():
        if entry["license_id"] != license.license_id:
            raise _Held("H214", f"route {route} is of license {entry['license_id']}")
        known = connection.execute(
            sa.select(db.bundles).where(db.bundles.c.digest == entry["bundle_digest"])
        ).first()
        if known is None:
            raise _Held("H250", f"bundle {entry['bundle_digest'][:16]} is not known here")
        if not license.covers(known.bundle_id, known.version, known.digest):
            raise _Held("H214", f"{known.bundle_id} {known.version} is not covered by {license.license_id}")


def _store(connection: sa.Connection, base: Outcome, log: Log, growth: _Growth) -> None:
    """Move the log forward: its row, the segment, the roll-ups, all in the running transaction."""
    state = growth.checker.end()
    row = {
        "origin": log.origin, "license_id": log.license_id, "device_id": log.device_id, "epoch": log.epoch,
        "size": growth.frontier.size, "root": growth.frontier.root.hex(),
        "frontier": json.dumps(growth.frontier.to_hex()).encode(),
        "state": json.dumps(state.to_dict()).encode(),
        "note": growth.note, "last_ms": growth.last_ms, "frozen": 0,
    }  # fmt: skip
    connection.execute(upsert(db.logs).values(row).on_conflict_do_update(["origin"], set_=row))
    segment = {"origin": log.origin, "start": log.frontier.size, "end": growth.frontier.size,
               "sha256": base.sha256}  # fmt: skip
    connection.execute(sa.insert(db.segments).values(segment))
    for pem in growth.rotated:
        key = {"origin": log.origin, "device_key": pem}
        connection.execute(upsert(db.rotations).values(key).on_conflict_do_nothing())
    add_rollup(connection, log.origin, growth.rollup)


def add_rollup(connection: sa.Connection, origin: str, rollup: Rollup) -> None:
    """Add amounts to the stored roll-ups of a log."""
    if not rollup:
        return
    rows = [
        {"origin": origin, "route": route, "quarter_ms": quarter, "status": status, "meter": meter,
         "amount": amount}
        for (route, quarter, status, meter), amount in sorted(rollup.items())
    ]  # fmt: skip
    statement = upsert(db.rollups)
    statement = statement.on_conflict_do_update(
        ["origin", "route", "quarter_ms", "status", "meter"],
        set_={"amount": db.rollups.c.amount + statement.excluded.amount},
    )
    connection.execute(statement, rows)


def _accepted(
    base: Outcome, license: License, header: UsageHeader, reader: UsageReader, growth: _Growth, accepted: int
) -> Outcome:
    """The outcome of a file that was taken: the gravest flag first."""
    flags = []
    damage = next((f for f in reader.findings), None)
    if not reader.complete:
        flags.append("W104")
    if license.environment == "test":
        flags.append("W150")
    if not accepted and header.count:
        flags.append("W103")
    elif growth.overlapped:
        flags.append("W102")
    detail = f"{accepted} receipts accepted" if accepted else "nothing new"
    if "W104" in flags and damage is not None:
        detail += f"; {damage.message}"
    return replace(
        base, code=flags[0] if flags else "OK", detail=detail, accepted=accepted, flags=tuple(flags)
    )


def root_at(connection: sa.Connection, log: Log, size: int) -> bytes:
    """The root of our own copy of a log at an earlier size, from the stored evidence."""
    if size == 0:
        return EMPTY_ROOT
    row = connection.execute(
        sa.select(db.files.c.data)
        .join(db.segments, db.segments.c.sha256 == db.files.c.sha256)
        .where(db.segments.c.origin == log.origin, db.segments.c.start < size, db.segments.c.end >= size)
    ).first()
    if row is None:
        raise SealpackError("STORE_CORRUPT", f"no stored file holds receipt {size - 1} of {log.origin}")
    for block in UsageReader(row.data):
        if block.checkpoint.size >= size:
            return block.before.extend(map(leaf_hash, block.leaves[: size - block.before.size])).root
    raise SealpackError("STORE_CORRUPT", f"the stored file of receipt {size - 1} of {log.origin} is damaged")
