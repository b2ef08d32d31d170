"""Acknowledgements: what settlement sends back for a device log.

Source: specs/acknowledgement.md and specs/settlement-ingest.md, "Replies". A log gets a new acknowledgement
when what there is to say changed (size, files, a frozen log, the license); otherwise the newest stored one
is given again, byte for byte. The lease inside is made by the one rule of `sealpack.format.leasing`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format import documents, leasing, note
from sealpack.format.acknowledgement import MAX_TRUST, Acknowledgement, FileOutcome, HeldRange
from sealpack.format.activation import Activation, Ceiling
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import IssuedUnder, License
from sealpack.format.limits import LIMITS
from sealpack.format.trust import Trust
from sealpack.format.values import readable
from sealpack.settlement import db, epochs, logs, readings, registry, sublicenses
from sealpack.settlement.epochs import Member
from sealpack.settlement.logs import Log
from sealpack.settlement.outcomes import REPLAY, TAMPER
from sealpack.settlement.sublicenses import Below

Labels = dict[tuple[str, str], str]  # (license, device) -> name
WITNESS_NAME = "sealpack/settlement"
FIRST_LEASE = 1  # the issuer's; every acknowledgement carries the next one
NAMED_FILES = 64  # outcomes in one acknowledgement, the newest
_SENTENCE = 300  # characters of one reason
_MAX_ENVELOPE = 1 << 20


@dataclass(frozen=True, slots=True)
class Signers:
    """Settlement's keys: one acknowledges, the other (where there is one) cosigns checkpoints."""

    ack: PrivateKey
    witness: PrivateKey | None = None

    def check(self, trust: Trust) -> None:
        """SIG_KEY_UNKNOWN or SIG_KEY_ROLE when devices would not believe these keys."""
        trust.entry(self.ack.keyid, "ack", "")
        if self.witness is not None:
            trust.entry(self.witness.keyid, "witness", "")


@dataclass(frozen=True, slots=True)
class Reply:
    """An acknowledgement to carry back: a file name a person can read, and the bytes."""

    name: str
    origin: str
    ack_seq: int
    data: bytes


def replies(database: db.Database, signers: Signers, origins: Iterable[str], now: int) -> list[Reply]:
    """The newest acknowledgement of each log, made now where there is something new to say.

    An origin of which nothing was accepted yet stands for its device's newest known log. SIG_KEY_UNKNOWN,
    SIG_KEY_ROLE, TRUST_UNPINNED.
    """
    with database.write() as connection:
        trust = registry.load_trust(connection)
        signers.check(trust)
        named = dict.fromkeys(_known(connection, origin) for origin in origins)
        known = [log for o in named if o and (log := logs.load(connection, o)) is not None]
        labels = _labels(connection)
        return [_reply(connection, log, trust, signers, labels, now) for log in known]


def newest(database: db.Database, origins: Iterable[str]) -> list[Reply]:
    """The newest acknowledgement of each log as it was made; none is made here."""
    columns = db.acks.c
    with database.read() as connection:
        labels = _labels(connection)
        found = []
        for origin in dict.fromkeys(_known(connection, origin) for origin in origins):
            row = connection.execute(
                sa.select(db.acks).where(columns.origin == origin).order_by(columns.ack_seq.desc()).limit(1)
            ).first()
            log = logs.load(connection, origin) if origin else None
            license = registry.load_license(connection, log.license_id) if log else None
            if row is not None and log is not None and license is not None:
                found.append(_carry(log, license, labels, row.ack_seq, row.envelope))
    return found


def _carry(log: Log, license: License, labels: Labels, ack_seq: int, data: bytes) -> Reply:
    parcel = Parcel((Envelope.from_bytes(data, "acknowledgement", max_bytes=_MAX_ENVELOPE),))
    return Reply(f"{_name(log, license, labels)}-{ack_seq}.ack", log.origin, ack_seq, parcel.to_bytes())


def _known(connection: sa.Connection, origin: str) -> str | None:
    """The log of that name; while nothing of it is held, the newest one of its device."""
    family = origin.rpartition("/")[0] + "/"
    rows = connection.execute(
        sa.select(db.logs.c.origin)
        .where(db.logs.c.origin.startswith(family, autoescape=True))
        .order_by(db.logs.c.epoch.desc())
    )
    known = [other for other in rows.scalars() if other.startswith(family)]
    return origin if origin in known else next(iter(known), None)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How the device stands with all its logs; `frozen` by this log's fork or by a newer log's."""

    members: list[Member]
    frozen: bool
    tampered: bool
    newest: bool  # this log is the device's newest
    settled: Mapping[str, int]
    closed: bool  # the device proved that this log ended
    shares: tuple[Ceiling, ...]  # its activation's parts of license-wide quotas
    below: Below | None  # what stands above it when its license is a sub-license
    registers: int  # how far this log is known by registers alone, 0 where it is not

    @classmethod
    def of(cls, connection: sa.Connection, log: Log, license: License, trust: Trust) -> _Standing:
        """Cases of logs before the newest one that was issued are decided: the issuer let it begin."""
        members = epochs.family(connection, log.license_id, log.device_id)
        floor = _issued(connection, log, license, trust)
        family = log.origin.rpartition("/")[0] + "/"
        cases = db.cases.c
        origins = connection.execute(
            sa.select(cases.origin).where(cases.code.in_(TAMPER), cases.closed_at.is_(None))
        ).scalars()
        found = {int(origin.removeprefix(family)) for origin in origins if origin.startswith(family)}
        return cls(
            members,
            log.frozen or any(m.frozen for m in members if m.epoch >= floor),
            any(epoch >= floor or epoch == log.epoch for epoch in found),
            log.epoch == max(m.epoch for m in members),
            epochs.totals(members),
            registry.load_deactivation(connection, log.origin) is not None
            or (log.epoch > floor and epochs.closed_since(connection, log, floor) is not None),
            _shares(connection, log),
            sublicenses.load(connection, log.license_id),
            size if (size := readings.farthest(connection, log)[0]) > log.size else 0,
        )


def _shares(connection: sa.Connection, log: Log) -> tuple[Ceiling, ...]:
    envelope = registry.load_activation(connection, log.license_id, log.device_id)
    return () if envelope is None else Activation.read(envelope).shares


def _issued(connection: sa.Connection, log: Log, license: License, trust: Trust) -> int:
    envelope = registry.load_activation(connection, log.license_id, log.device_id)
    if envelope is None:
        raise SealpackError("STORE_CORRUPT", f"the activation of {log.device_id} is gone from the registry")
    activated = documents.payload_fields(envelope, "activation").integer("epoch", default=0)
    return epochs.newest_issued(connection, license, log.device_id, activated, trust)


def _reply(
    connection: sa.Connection, log: Log, trust: Trust, signers: Signers, labels: Labels, now: int
) -> Reply:
    license = registry.load_license(connection, log.license_id)
    if license is None:
        raise SealpackError("STORE_CORRUPT", f"license {log.license_id} is gone from the registry")
    far = readings.reach(connection, log)
    outcomes, held = _outcomes(connection, log.origin), _held(connection, far)
    standing = _Standing.of(connection, log, license, trust)
    basis = _basis(log, far, license, outcomes, held, standing)
    newest = connection.execute(
        sa.select(db.acks).where(db.acks.c.origin == log.origin).order_by(db.acks.c.ack_seq.desc()).limit(1)
    ).first()
    ack_seq, data = (newest.ack_seq, newest.envelope) if newest else (0, b"")
    if newest is None or newest.basis != basis:
        ack_seq = max(ack_seq + 1, floor := _floor(connection))
        # Restored from a backup, with receipts to come again: the device's own lease is made of all of them.
        behind = floor > 1 and any(h.code == "H201" for h in held)
        previous = Envelope.from_bytes(data, "acknowledgement", max_bytes=_MAX_ENVELOPE) if newest else None
        ack = Acknowledgement(
            origin=log.origin,
            license_id=log.license_id,
            device_id=log.device_id,
            epoch=log.epoch,
            size=far.size,
            root=far.frontier.root.hex(),
            ack_seq=ack_seq,
            server_time=now,
            outcomes=outcomes,
            held=held,
            previous=previous.digest if previous else None,
            # What is known by its registers alone may still be asked for.
            prune_below=min(_size_of(previous), log.size) if previous else 0,
            statement=_statement(connection, log, license, held, standing),
            checkpoint=_cosigned(far, signers, now),
            trust=_carried(trust),
            lease=None if behind else _lease(log, license, trust, standing, signers, ack_seq, now),
            frozen=standing.frozen or None,
        )
        envelope = documents.seal("acknowledgement", ack.to_dict(), signers.ack)
        data = envelope.to_bytes()
        row = {"origin": log.origin, "ack_seq": ack_seq, "digest": envelope.digest, "basis": basis,
               "envelope": data}  # fmt: skip
        connection.execute(sa.insert(db.acks).values(row))
    return _carry(log, license, labels, ack_seq, data)


def _floor(connection: sa.Connection) -> int:
    """The least number for an acknowledgement: behind those that a restored database does not know."""
    return connection.execute(sa.select(sa.func.max(db.restores.c.next_ack))).scalar() or 1


def _carried(trust: Trust) -> tuple[Envelope, ...]:
    """The newest trust documents, with the roots that led there where there is room for them."""
    chain = trust.chain
    small = sum(len(e.to_bytes()) for e in chain) <= LIMITS.document_bytes // 4
    return chain if small and len(chain) <= MAX_TRUST else trust.envelopes


def _basis(
    log: Log,
    far: Log,
    license: License,
    outcomes: tuple[FileOutcome, ...],
    held: tuple[HeldRange, ...],
    standing: _Standing,
) -> str:
    """A digest of everything an acknowledgement says but its time: the same basis, the same reply."""
    said: list[Any] = [log.stamp, license.digest, [[o.sha256, o.code] for o in outcomes],
            [[h.start, h.end, h.code] for h in held]]  # fmt: skip
    if standing.closed:
        said.append("closed")
    if standing.below is not None:  # its own document stays the same when the parent is renewed
        said.append([standing.below.parent.digest, standing.below.ended_at])
    if standing.shares:
        said.append([[share.meter, share.limit] for share in standing.shares])
    if far.size > log.size:
        said.append([far.size, far.frontier.root.hex()])
    if standing.registers:
        said.append([standing.registers, sorted(standing.settled.items())])
    if len(standing.members) > 1:
        said.append([standing.frozen, standing.newest, sorted(standing.settled.items())])
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _size_of(previous: Envelope) -> int:
    """What the device was told before it was told this: it may forget receipts up to there."""
    size: int = documents.payload_fields(previous, "acknowledgement").integer("size")
    return size


def _lease(
    log: Log,
    license: License,
    trust: Trust,
    standing: _Standing,
    signers: Signers,
    ack_seq: int,
    now: int,
) -> Envelope | None:
    """The next lease, for the device's newest log; none once it is closed, while one is frozen, while a
    tamper case is open, or when the parent of a sub-license took it back."""
    if standing.frozen or standing.tampered or not standing.newest or standing.closed:
        return None
    if standing.below is not None and standing.below.ended_at is not None:
        return None
    number = FIRST_LEASE + ack_seq
    under = IssuedUnder.of(trust)  # the acknowledgement carries these documents
    settled = standing.settled
    lease = leasing.next_lease(
        license, log.device_id, log.epoch, number, now, settled, under, standing.shares
    )
    return documents.seal("lease", lease.to_dict(), signers.ack)


def _cosigned(log: Log, signers: Signers, now: int) -> str | None:
    if (
        signers.witness is None or not log.note
    ):  # only a meter reading is known: nothing of it is acknowledged
        return None
    return note.cosign(log.note, WITNESS_NAME, signers.witness, now).decode()


def _statement(
    connection: sa.Connection,
    log: Log,
    license: License,
    held: tuple[HeldRange, ...],
    standing: _Standing,
) -> str:
    """A few words for the site: what is settled, what was billed, what waits."""
    calls, receipts = standing.settled.get("calls", 0), sum(m.size for m in standing.members)
    lines = [f"{license.customer.name}: {calls} calls settled in {receipts} receipts."]
    carried = sum(d.amount for d in epochs.differences(standing.members) if d.meter == "calls")
    if carried:
        lines.append(f"{carried} of them are known from registers alone: their receipts never came.")
    if standing.registers:
        lines.append(f"Receipts {log.size} to {standing.registers} are billed by their running totals.")
    lines += [f"{word}: {name} for {period[:7]}." for word, name, period in _invoices(connection, license)]
    lines += [f"Held: receipts {h.start} to {h.end} ({h.code}): {h.detail[:_SENTENCE]}" for h in held[:8]]
    if standing.frozen:
        lines.append("This log is frozen until the case is decided; no further lease is given.")
    if license.support:
        lines.append(f"Questions: {license.support}")
    return "\n".join(lines)


def _invoices(connection: sa.Connection, license: License) -> list[tuple[str, str, str]]:
    """The newest dozen documents of the license, oldest period first: (what it does, number, period)."""
    columns = db.invoices.c
    rows = connection.execute(
        sa.select(columns.name, columns.period, columns.total)
        .where(columns.license_id == license.license_id)
        .order_by(columns.period.desc(), columns.number.desc())
        .limit(12)
    ).all()
    return [("Credited" if row.total < 0 else "Billed", row.name, row.period) for row in reversed(rows)]


def _outcomes(connection: sa.Connection, origin: str) -> tuple[FileOutcome, ...]:
    """The last files of the log that were decided, in log order."""
    files = db.files.c
    rows = connection.execute(
        sa.select(files.sha256, files.code, files.accepted, files.detail, files.first)
        .where(files.origin == origin, files.code != REPLAY)
        .order_by(files.received_at.desc(), files.first.desc(), files.sha256.desc())
        .limit(NAMED_FILES)
    ).all()
    return tuple(FileOutcome(r.sha256, r.code, r.accepted, r.detail[:_SENTENCE]) for r in reversed(rows))


def _held(connection: sa.Connection, log: Log) -> tuple[HeldRange, ...]:
    """The ranges the log waits for (H201), and those that wait for a person."""
    files = db.files.c
    rows = connection.execute(
        sa.select(files.first, files.last, files.code, files.detail)
        .where(files.origin == log.origin, files.code.like("H%"), files.code != REPLAY)
        .order_by(files.first, files.last, files.sha256)
        .limit(NAMED_FILES)
    )
    found = []
    for row in rows:
        start, end = (log.size, row.first) if row.code == "H201" else (row.first, row.last)
        found.append(HeldRange(start, end, row.code, row.detail[:_SENTENCE]))
    return tuple(found)


def _labels(connection: sa.Connection) -> Labels:
    """What a person calls each device under each license: its label, else its id, fit for a file name."""
    rows = connection.execute(
        sa.select(db.activations.c.license_id, db.activations.c.device_id, db.activations.c.device_label)
    )
    return {(r.license_id, r.device_id): readable(r.device_label, r.device_id) for r in rows}


def _name(log: Log, license: License, labels: Labels) -> str:
    """A file name that no other log's replies have: customers, too, may be called the same."""
    label = labels.get((log.license_id, log.device_id)) or readable(log.device_id)
    parts = [readable(license.customer.id), label]
    if list(labels.values()).count(label) > 1:
        parts += [readable(log.license_id), log.device_id[-8:]]
    parts += [f"log{log.epoch}"] if log.epoch else []
    return "-".join(parts)
