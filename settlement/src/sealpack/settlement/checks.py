"""Whose usage a file is, and whether what its log says of itself agrees with the registry.

Source: specs/settlement-ingest.md, "Identity" and "Registry". The tree proves that a device wrote these
receipts; here it is asked whether that device may, and nothing the log says decides what is billed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format import records
from sealpack.format.activation import Activation, device_id, log_origin
from sealpack.format.canonical import MAX_INT
from sealpack.format.documents import kind_of, payload_fields
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PublicKey
from sealpack.format.license import License
from sealpack.format.trust import Trust
from sealpack.format.usage import UsageHeader
from sealpack.format.usage_reader import UsageReader
from sealpack.format.values import utc_day
from sealpack.settlement import db, leases, registry, sublicenses
from sealpack.settlement.logs import Growth
from sealpack.settlement.outcomes import Stopped

FUTURE_S = 86_400
SKEW_S = 300  # a clock may be ahead of ours by so much without a word
LATE_MONTHS = 13  # where no plan says otherwise
_MONTH_S = 31 * 86_400
_BLOCK_CODES = {"CHECKPOINT_INVALID": "R304", "RECEIPT_TREE": "H212", "USAGE_LIMIT": "R305"}
_LOG_CODES = {"RECEIPT_TALLY": "H213", "RECEIPT_ORDER": "H213", "RECEIPT_ROUTE": "H214"}


@dataclass(frozen=True, slots=True)
class Identity:
    """The license, the device and which of its logs a file belongs to.

    `new` is an activation that came with the file.
    """

    license: License
    activation: Activation
    epoch: int
    new: Envelope | None = None

    @property
    def origin(self) -> str:
        """The log's name."""
        return log_origin(self.activation.license_id, self.activation.device_id, self.epoch)


def license_id_of(origin: str) -> str | None:
    """The license an origin names, or None when it is not the name of a device log."""
    parts = origin.split("/")
    return parts[2] if len(parts) == 5 and parts[:2] == ["sealpack", "usage"] else None


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose a document says it is, as the header of a usage file does: to be held against the registry."""

    origin: str
    start: int
    device_key: PublicKey
    activation: dict[str, Any] | None = None

    @property
    def end(self) -> int:
        """Where it ends: a claim has no length."""
        return self.start


def require_blocks(reader: UsageReader, blocks: int) -> None:
    """Refuse or hold a file without one valid block, by its first fault."""
    if blocks:
        return
    fault = next(iter(reader.findings), None)
    if fault is None or fault.code not in _BLOCK_CODES:
        raise Stopped("R301", fault.message if fault else "it holds no receipts")
    raise Stopped(_BLOCK_CODES[fault.code], fault.message)


def identify(connection: sa.Connection, header: UsageHeader | Claim, trust: Trust) -> Identity:
    """License and activation of the log, and that the header's key is that device's.

    Raises :class:`Stopped`: H250, R302, H220, R303.
    """
    license_id = license_id_of(header.origin)
    if license_id is None:
        raise Stopped("R302", f"{header.origin} is not the log of a device")
    license = registry.load_license(connection, license_id)
    if license is None:
        raise Stopped("H250", f"license {license_id} is not known here")
    found = _activated(connection, header, license, trust)
    activation = found.activation
    if header.origin != found.origin:
        raise Stopped("R302", f"{header.origin} is not a log of this device")
    _check_revoked(license, activation, trust)
    key = _key_at(connection, header, activation)
    if header.device_key.der != key.der:
        raise Stopped(
            "R303", f"device key {header.device_key.keyid[:16]} is not that of {activation.device_id}"
        )
    return found


def _activated(
    connection: sa.Connection, header: UsageHeader | Claim, license: License, trust: Trust
) -> Identity:
    """The registered activation, else the one that travels in the file, if the issuer signed it."""
    device = header.origin.split("/")[3]
    epoch = _epoch_of(header.origin)
    envelope = registry.load_activation(connection, license.license_id, device)
    try:
        if envelope is not None:
            activation = registry.open_activation(connection, envelope, trust, license.issuer)
            return Identity(license, activation, epoch)
        carried = Envelope.from_dict(header.activation, "activation")
        if kind_of(carried) != "activation":
            raise SealpackError("DOC_TYPE", "not an activation")
        activation = registry.open_activation(connection, carried, trust, license.issuer)
    except SealpackError as error:
        if error.code == "KEY_REVOKED":
            raise Stopped("H220", error.message) from None
        raise Stopped("R302", f"{device} was never activated under {license.license_id}") from None
    if (activation.license_id, activation.device_id) != (license.license_id, device):
        raise Stopped("R302", f"{device} was never activated under {license.license_id}")
    return Identity(license, activation, epoch, carried)


def _epoch_of(origin: str) -> int:
    """Which of the device's logs an origin names; R302 when it is no number a record can hold."""
    text = origin.rpartition("/")[2]
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > MAX_INT:
        raise Stopped("R302", f"{origin} is not the log of a device")
    return int(text)


def _check_revoked(license: License, activation: Activation, trust: Trust) -> None:
    if activation.device_id in trust.revocations.devices:
        raise Stopped("H220", f"device {activation.device_id} was revoked")
    for name in (license.license_id, license.parent_id):
        if name in trust.revocations.licenses:
            raise Stopped("H220", f"license {name} was revoked")


def _key_at(connection: sa.Connection, header: UsageHeader | Claim, activation: Activation) -> PublicKey:
    """The device key in force where the file begins, as far as rotations are known."""
    pem = connection.execute(
        sa.select(db.rotations.c.device_key)
        .where(db.rotations.c.origin == header.origin, db.rotations.c.position < header.start)
        .order_by(db.rotations.c.position.desc())
        .limit(1)
    ).scalar()
    return activation.device_key if pem is None else PublicKey.from_pem(pem)


def check_growth(
    connection: sa.Connection,
    identity: Identity,
    growth: Growth,
    trust: Trust,
    now: int,
    waived: Collection[str] = (),
) -> None:
    """The new receipts against themselves, the registry and the clock; :class:`Stopped` H213 to H250.

    What a person decided to take all the same, by code, is in `waived`.
    """
    for finding in growth.checker.findings:
        raise Stopped(_LOG_CODES.get(finding.code, "H213"), finding.message)
    state = growth.checker.end()
    if state.registers is not None and any(n > MAX_INT for n in state.registers.totals.values()):
        raise Stopped("H213", "a register passes 2^53 - 1, more than a tally can say")
    for genesis in growth.records(records.GENESIS):
        with unless(waived):
            _check_genesis(connection, genesis.body, identity, trust)
    _check_plan(connection, identity.license)
    for route, entry in (state.routes or {}).items():
        with unless(waived):
            _check_route(connection, route, entry, identity.license.license_id)
    for leaf in growth.records(records.ACKNOWLEDGED):
        with unless(waived):
            _check_acknowledged(connection, identity, leaf.body)
    with unless(waived):
        _check_times(connection, identity.license, growth, now)


@contextmanager
def unless(waived: Collection[str]) -> Iterator[None]:
    """A check that a person may have waived; the code says which."""
    try:
        yield
    except Stopped as stop:
        if stop.code not in waived:
            raise


def _check_genesis(connection: sa.Connection, body: dict[str, Any], identity: Identity, trust: Trust) -> None:
    activation = identity.activation
    if not _is_key_of(body["device"], activation.device_id):
        raise Stopped("H214", "the log's first record names another device")
    if body["epoch"] != identity.epoch or body["origin"] != identity.origin:
        raise Stopped("H214", f"the log's first record says it is log {body['epoch']} of the device")
    if trust.root.version == 1 and body["root"] != trust.root_digest:
        raise Stopped("H214", f"the device trusts root {body['root'][:16]}, which is not ours")
    version = registry.load_license_version(connection, digest=body["license"])
    if version is None:
        raise Stopped("H250", f"license document {body['license'][:16]} is not known here")
    if version.license_id != activation.license_id:
        raise Stopped("H214", f"the log's first record names license {version.license_id}")


def _is_key_of(pem: str, device: str) -> bool:
    """Whether a record's key is the device's first one; it may also be no key at all."""
    try:
        return device_id(PublicKey.from_pem(pem)) == device
    except SealpackError:
        return False


def _check_plan(connection: sa.Connection, license: License) -> None:
    if license.plan is not None and registry.load_plan(connection, license.plan) is None:
        raise Stopped("H250", f"plan {license.plan.id} version {license.plan.version} is not known here")


def _check_route(connection: sa.Connection, route: str, entry: dict[str, Any], license_id: str) -> None:
    """A route's license, build and plan must be what the issuer signed under that number."""
    if entry["license_id"] != license_id:
        raise Stopped("H214", f"route {route} is of license {entry['license_id']}")
    forms = registry.load_license_forms(connection, license_id=license_id, seq=entry["seq"])
    if not forms:
        raise Stopped("H250", f"license {license_id} number {entry['seq']} is not known here")
    digest = entry["bundle_digest"]
    known = registry.load_bundle(connection, digest)
    if known is None and all(g.bundle_digest != digest for form in forms for g in form.bundles):
        raise Stopped("H250", f"bundle {digest[:16]} is not known here")
    if known is not None and not any(f.covers(known.bundle_id, known.version, digest) for f in forms):
        raise Stopped("H214", f"{known.bundle_id} {known.version} is not covered by {license_id}")
    plans = [form.plan and {"id": form.plan.id, "version": form.plan.version} for form in forms]
    if entry.get("plan", plans[0]) not in plans:
        raise Stopped(
            "H214", f"route {route} names price plan {entry['plan']['id']}, which is not its license's"
        )


def _check_acknowledged(connection: sa.Connection, identity: Identity, body: dict[str, Any]) -> None:
    """An acknowledgement the device says it imported must be one we made for it."""
    data = connection.execute(
        sa.select(db.acks.c.envelope).where(
            db.acks.c.origin == identity.origin,
            db.acks.c.ack_seq == body["ack_seq"],
            db.acks.c.digest == body["digest"],
        )
    ).scalar()
    if data is None:
        if _was_forgotten(connection, identity.origin, body):
            return
        raise Stopped("H214", f"the log names acknowledgement {body['ack_seq']}, which is not one of ours")
    envelope = Envelope.from_bytes(data, "acknowledgement", max_bytes=leases.MAX_ENVELOPE)
    said = payload_fields(envelope, "acknowledgement")
    for name in ("size", "server_time"):
        if said.integer(name) != body[name]:
            raise Stopped(
                "H214",
                f"the log says acknowledgement {body['ack_seq']} has {name} {body[name]}, it is "
                f"{said.integer(name)}",
            )


def _was_forgotten(connection: sa.Connection, origin: str, body: dict[str, Any]) -> bool:
    """Whether we may have made it after the backup that this database was restored from, and before that."""
    ours = sa.exists().where(db.acks.c.origin == origin, db.acks.c.ack_seq == body["ack_seq"])
    said = db.restores.c
    between = (said.made_at <= body["server_time"], said.at >= body["server_time"])
    found = sa.exists().where(*between, said.next_ack > body["ack_seq"])
    return bool(connection.execute(sa.select(found & ~ours)).scalar())


def _check_times(connection: sa.Connection, license: License, growth: Growth, now: int) -> None:
    """Times are the device's word; far outside what can be true they wait for a person."""
    if growth.last_ms > (now + FUTURE_S) * 1000:
        raise Stopped(
            "H221", f"receipts are {(growth.last_ms // 1000 - now) // 3600} hours ahead of our clock"
        )
    quarters = {quarter for _, quarter, _ in growth.rollup}
    if not quarters:
        return
    below = sublicenses.load(connection, license.license_id)
    if below is not None and below.ended_at is not None and max(quarters) >= below.ended_at * 1000:
        raise Stopped(
            "H230",
            f"license {below.parent.license_id} does not allow {license.license_id} since "
            f"{utc_day(below.ended_at)}",
        )
    over = license.exp is not None and max(quarters) > (license.exp + license.grace_s) * 1000
    if over and license.enforcement == "enforce":
        raise Stopped("H230", f"license {license.license_id} and its days of grace were over")
    plan = registry.load_plan(connection, license.plan) if license.plan else None
    months = plan.late_window_months if plan else LATE_MONTHS
    if min(quarters) < (now - months * _MONTH_S) * 1000:
        raise Stopped("H231", f"some of it is more than {months} months old")
