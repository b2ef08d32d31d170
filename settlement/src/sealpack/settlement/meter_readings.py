"""Meter readings: what a site that lets nothing out shows on a screen.

Source: specs/reading.md and specs/settlement-ingest.md, "Registers without receipts". A reading counts until
the receipts in front of its checkpoint arrive, and proves a fork when they are not the ones it signed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from sealpack.format import qr
from sealpack.format.documents import Parcel, kind_of
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.merkle import EMPTY_ROOT
from sealpack.format.reading import Reading
from sealpack.format.trust import Trust
from sealpack.settlement import checks, db, epochs, leases, logs, rollups, seats, stated
from sealpack.settlement.checks import Claim, Identity
from sealpack.settlement.logs import Growth, Log
from sealpack.settlement.outcomes import Stopped
from sealpack.settlement.readings import Limit, Mark
from sealpack.settlement.stated import READING, Statement
from sealpack.settlement.times import Times

_HEAD = 64  # bytes in which scanned or typed text shows what it is
_MARK = b'"application/vnd.sealpack.reading+json"'


def is_reading(data: bytes) -> bool:
    """Whether bytes are a meter reading: its document, or the scanned texts of its codes."""
    if len(data) > LIMITS.parcel_bytes:
        return False
    if _compact(data[:_HEAD]).startswith(qr.PREFIX):
        try:
            data = _document(data)
        except SealpackError:
            return False
    return data.startswith(b"{") and _MARK in data


def _document(data: bytes) -> bytes:
    if data.startswith(b"{"):
        return data
    # Scanned or typed: where a line ends says nothing, each code begins with the same letters.
    return qr.join(qr.PREFIX + text for text in _compact(data).split(qr.PREFIX) if text)


def _compact(data: bytes) -> str:
    return "".join(data.decode("utf-8-sig", "replace").split()).upper()


def read(data: bytes) -> Reading:
    """The reading in an upload, verified against its own key; DOC_*, JSON_*, SIG_*, CHECKPOINT_INVALID."""
    parcel = Parcel.from_bytes(_document(data), "reading")
    found = parcel.of_kind("reading")
    if len(found) != 1 or len(parcel.documents) != 1:
        kinds = ", ".join(sorted({kind_of(document) for document in parcel.documents}))
        raise SealpackError("DOC_TYPE", f"a meter reading stands alone, this holds {kinds}")
    return Reading.open(found[0])


def claim(reading: Reading) -> Claim:
    """Whose it says it is."""
    checkpoint = reading.checkpoint
    return Claim(checkpoint.origin, checkpoint.size, reading.device_key)


def judge(
    connection: sa.Connection,
    identity: Identity,
    log: Log,
    reading: Reading,
    trust: Trust,
    now: int,
    waived: Collection[str],
) -> Statement:
    """What a reading says beyond the log's receipts; :class:`Stopped` H210 to H250."""
    said = state(connection, log, reading)
    if said.known:
        return said
    if log.frozen:
        raise Stopped("H210", "the log is frozen until the case is decided")
    _check_routes(connection, log, said.routes)
    stated.count(connection, log, said)
    checks.check_growth(connection, identity, said.growth, trust, now, waived)
    with checks.unless(waived):
        seats.check(connection, identity.license, identity.activation, trust)
    _check_leave(connection, identity, log, trust)
    epochs.check(connection, identity, log, said.growth, trust)
    epochs.check_later(connection, log.origin, said.size, said.root, reading.note)
    return said


def state(connection: sa.Connection, log: Log, reading: Reading) -> Statement:
    """What a reading states, held against the trees that are known; :class:`Stopped` H210, H214."""
    size, root = reading.checkpoint.size, reading.checkpoint.root.hex()
    _compare(connection, log, reading)
    mark = _mark(connection, log.origin, reading)
    routes = {
        route: {"license_id": log.license_id, "seq": seq, "bundle_digest": digest}
        for route, (seq, digest) in sorted(reading.routes.items())
    }
    end = LogState(size, registers=reading.registers, routes=routes)
    growth = Growth(log.frontier, LogChecker(end), reading.note, times=Times(log.floor_ms, mark.used_ms))
    return Statement(READING, size, size, root, growth, marks=[mark], routes=routes, known=size <= log.size)


def reread(connection: sa.Connection, row: Any, data: bytes) -> tuple[list[Mark], list[Limit]]:
    """Marks and limits as the stored file of a row of `stated` gives them, of whatever kind it is."""
    if row.kind != READING:
        return stated.reread(connection, row, data)
    reading = read(data)
    return [_mark(connection, row.origin, reading)], []


def _mark(connection: sa.Connection, origin: str, reading: Reading) -> Mark:
    size = reading.checkpoint.size
    used_ms = max(reading.used_at, _not_before(connection, origin, reading.ack_seq))
    return Mark(size, size, used_ms, reading.registers)


def _compare(connection: sa.Connection, log: Log, reading: Reading) -> None:
    """The tree it signs is the one that is known at its size; H210."""
    size, root = reading.checkpoint.size, reading.checkpoint.root.hex()
    known = list(stated.anchors(connection, log.origin))
    if size <= log.size:
        ours = logs.root_at(connection, log, size) if size else EMPTY_ROOT
        known.append((size, ours.hex(), log.note))
    for at, other, note in known:
        if at == size and other != root:
            raise Stopped(
                "H210", f"at {size} receipts the reading's tree is {root[:16]}, ours is {other[:16]}; both "
                f"signed checkpoints are kept", ours=note, theirs=reading.note,
            )  # fmt: skip


def _not_before(connection: sa.Connection, origin: str, ack_seq: int) -> int:
    """The time of the acknowledgement that the device had taken, UTC ms; H214 when it is none of ours."""
    if not ack_seq:
        return 0
    said = leases.server_time(connection, origin, ack_seq)
    if said is None:
        raise Stopped("H214", f"the reading names acknowledgement {ack_seq}, which is not one of ours")
    return said * 1000


def _check_routes(connection: sa.Connection, log: Log, routes: stated.Routes) -> None:
    """What it calls a route is what the log's own records call so; H214."""
    known = rollups.routes(connection, log.origin, log.state.routes or {})
    for route, entry in routes.items():
        if route in known and any(known[route][name] != member for name, member in entry.items()):
            raise Stopped("H214", f"route {route} of the reading is another one in the log")


def _check_leave(connection: sa.Connection, identity: Identity, log: Log, trust: Trust) -> None:
    """Of a further log without leave the first record must be seen, which says what it follows; H215."""
    begun = connection.execute(sa.select(db.logs.c.size).where(db.logs.c.origin == log.origin)).scalar()
    if not begun and epochs.is_self_started(connection, identity, log.epoch, trust):
        raise Stopped(
            "H215", f"log {log.epoch} of the device began without leave, and its beginning is unknown"
        )
