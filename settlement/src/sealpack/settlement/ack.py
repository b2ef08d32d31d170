"""Acknowledgements: what settlement sends back for a device log.

Source: specs/acknowledgement.md and specs/settlement-ingest.md, "Replies". A log gets a new acknowledgement
when what there is to say changed (size, held files, a frozen log); otherwise the newest stored one is given
again, byte for byte. The lease inside is made by the one rule of `sealpack.format.leasing`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format import documents, leasing, note
from sealpack.format.acknowledgement import Acknowledgement, FileOutcome, HeldRange
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import License
from sealpack.format.trust import Trust
from sealpack.format.values import METERS
from sealpack.settlement import db, registry
from sealpack.settlement.ingest import Log, load_log

WITNESS_NAME = "sealpack/settlement"
FIRST_LEASE = 1  # the issuer's; every acknowledgement carries the next one
PRUNE_BEHIND = 1  # acknowledgements a device keeps the receipts of


@dataclass(frozen=True, slots=True)
class Signers:
    """Settlement's keys: one acknowledges, the other (where there is one) cosigns checkpoints."""

    ack: PrivateKey
    witness: PrivateKey | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An acknowledgement to carry back: a file name a person can read, and the bytes."""

    name: str
    origin: str
    ack_seq: int
    data: bytes


def replies(database: db.Database, signers: Signers, origins: list[str], now: int) -> list[Reply]:
    """The newest acknowledgement of each log, made now where there is something new to say.

    Unknown origins (nothing was accepted yet) get none. SIG_KEY_UNKNOWN or SIG_KEY_ROLE when the trust does
    not let the key acknowledge.
    """
    with database.write() as connection:
        trust = registry.load_trust(connection)
        trust.entry(signers.ack.keyid, "ack", "")
        logs = [log for o in dict.fromkeys(origins) if (log := load_log(connection, o)) is not None]
        return [_reply(connection, log, trust, signers, now) for log in logs]


def _reply(connection: sa.Connection, log: Log, trust: Trust, signers: Signers, now: int) -> Reply:
    license = registry.load_license(connection, log.license_id)
    if license is None:
        raise SealpackError("REGISTRY_INVALID", f"license {log.license_id} is gone from the registry")
    outcomes = _outcomes(connection, log.origin)
    held = _held(connection, log)
    basis = _basis(log, license, outcomes, held)
    newest = connection.execute(
        sa.select(db.acks).where(db.acks.c.origin == log.origin).order_by(db.acks.c.ack_seq.desc()).limit(1)
    ).first()
    if newest is not None and newest.basis == basis:
        return _file(connection, log, license, trust, newest.ack_seq, newest.envelope)
    ack = _make(connection, log, license, trust, signers, outcomes, held, now)
    envelope = documents.seal("acknowledgement", ack.to_dict(), signers.ack)
    row = {"origin": log.origin, "ack_seq": ack.ack_seq, "digest": envelope.digest, "basis": basis,
           "envelope": envelope.to_bytes()}  # fmt: skip
    connection.execute(sa.insert(db.acks).values(row))
    return _file(connection, log, license, trust, ack.ack_seq, envelope.to_bytes())


def _basis(log: Log, license: License, outcomes: tuple[FileOutcome, ...], held: tuple[HeldRange, ...]) -> str:
    """A digest of everything an acknowledgement says but its time: the same basis, the same reply."""
    said = [log.frontier.size, log.frozen, license.digest, [o.sha256 + o.code for o in outcomes],
            [[h.start, h.end, h.code] for h in held]]  # fmt: skip
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _make(
    connection: sa.Connection, log: Log, license: License, trust: Trust, signers: Signers,
    outcomes: tuple[FileOutcome, ...], held: tuple[HeldRange, ...], now: int,
) -> Acknowledgement:  # fmt: skip
    earlier = connection.execute(
        sa.select(db.acks.c.ack_seq, db.acks.c.digest, db.acks.c.envelope)
        .where(db.acks.c.origin == log.origin)
        .order_by(db.acks.c.ack_seq.desc())
        .limit(PRUNE_BEHIND)
    ).all()
    ack_seq = earlier[0].ack_seq + 1 if earlier else 1
    lease = None
    if not log.frozen:
        made = leasing.next_lease(
            license, log.device_id, log.epoch, FIRST_LEASE + ack_seq, now, settled_meters(log)
        )
        lease = documents.seal("lease", made.to_dict(), signers.ack)
    return Acknowledgement(
        origin=log.origin,
        license_id=log.license_id,
        device_id=log.device_id,
        epoch=log.epoch,
        size=log.frontier.size,
        root=log.frontier.root.hex(),
        ack_seq=ack_seq,
        server_time=now,
        outcomes=outcomes,
        held=held,
        previous=earlier[0].digest if earlier else None,
        prune_below=_acknowledged_size(earlier[-1].envelope) if earlier else 0,
        statement=_statement(log, license, held),
        checkpoint=_cosigned(log, signers, now),
        trust=trust.envelopes,
        lease=lease,
    )


def settled_meters(log: Log) -> dict[str, int]:
    """Cumulative settled amounts per meter over all routes and statuses."""
    found = log.state.registers
    return {} if found is None else {meter: found.total(meter) for meter in METERS}


def _acknowledged_size(envelope: bytes) -> int:
    size = json.loads(Envelope.from_bytes(envelope, "acknowledgement", max_bytes=1 << 20).payload)["size"]
    return int(size)


def _cosigned(log: Log, signers: Signers, now: int) -> str | None:
    if signers.witness is None:
        return None
    return note.cosign(log.note, WITNESS_NAME, signers.witness, now).decode()


def _statement(log: Log, license: License, held: tuple[HeldRange, ...]) -> str:
    """A few words for the site."""
    calls = settled_meters(log).get("calls", 0)
    lines = [f"{license.customer.name}: {calls} calls settled in {log.frontier.size} receipts."]
    lines += [f"Held: receipts {h.start} to {h.end} ({h.code}): {h.detail}" for h in held]
    if log.frozen:
        lines.append("This log is frozen until the case is decided; no further lease is given.")
    if license.support:
        lines.append(f"Questions: {license.support}")
    return "\n".join(lines)


def _outcomes(connection: sa.Connection, origin: str) -> tuple[FileOutcome, ...]:
    """The last files of the log that were decided, oldest first."""
    rows = connection.execute(
        sa.select(db.files)
        .where(db.files.c.origin == origin, db.files.c.code.is_not(None))
        .order_by(db.files.c.received_at.desc(), db.files.c.start.desc(), db.files.c.sha256)
        .limit(64)
    ).all()
    return tuple(FileOutcome(r.sha256, r.code, r.accepted or 0, r.detail or "") for r in reversed(rows))


def _held(connection: sa.Connection, log: Log) -> tuple[HeldRange, ...]:
    """What the log waits for or what waits for a person."""
    rows = connection.execute(
        sa.select(db.files)
        .where(db.files.c.origin == log.origin, db.files.c.code.like("H%"))
        .order_by(db.files.c.start, db.files.c.sha256)
        .limit(64)
    ).all()
    return tuple(
        HeldRange(min(log.frontier.size, r.start), max(log.frontier.size, r.start), r.code, r.detail or "")
        for r in rows
    )


def _file(
    connection: sa.Connection, log: Log, license: License, trust: Trust, ack_seq: int, envelope: bytes
) -> Reply:
    label = connection.execute(
        sa.select(db.activations.c.device_label).where(
            db.activations.c.license_id == log.license_id, db.activations.c.device_id == log.device_id
        )
    ).scalar()
    name = "-".join(_readable(part) for part in (license.customer.name, label or log.device_id))
    parcel = Parcel((Envelope.from_bytes(envelope, "acknowledgement", max_bytes=1 << 20),))
    return Reply(f"{name}-{ack_seq}.ack", log.origin, ack_seq, parcel.to_bytes())


def _readable(text: str) -> str:
    """A file name part a person recognises."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "x"
