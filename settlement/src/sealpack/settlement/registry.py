"""What settlement knows: trust, plans, licenses, activations, bundles.

Source: specs/settlement-ingest.md, "Registry". Signed documents are opened under the pinned trust before
they are stored; nothing a usage log says of itself comes in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from sealpack.format import documents
from sealpack.format.activation import Activation
from sealpack.format.deactivation import Deactivation
from sealpack.format.dsse import Envelope
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.license import License, PlanRef, open_license
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.format.repair import Repair
from sealpack.format.trust import ROOT_ROLES, Trust
from sealpack.settlement import sublicenses, tables
from sealpack.settlement.plan import Plan

# What is kept of a parcel.
KINDS = ("license", "sublicense", "activation", "epoch-token", "repair", "deactivation")
LEAVE = ("epoch-token", "repair")  # what lets a device begin a further log

# --- trust --------------------------------------------------------------------------------------------


def put_trust(connection: sa.Connection, found: Trust) -> str:
    """Pin the first trust file that comes; later ones only bring what is newer. TRUST_CONFLICT."""
    data = connection.execute(sa.select(tables.trust.c.data)).scalar()
    if data is None:
        connection.execute(sa.insert(tables.trust).values(anchor=found.root_digest, data=found.to_bytes()))
        return f"pinned root {found.root_digest[:16]}"
    newer = _advance(connection, Trust.load(data), found.envelopes)
    return f"trust: keyring v{newer.keyring.version}, revocations v{newer.revocations.version}"


def _advance(connection: sa.Connection, known: Trust, chain: Iterable[Envelope]) -> Trust:
    newer = known.update(chain)
    if newer.to_bytes() != known.to_bytes():
        connection.execute(sa.update(tables.trust).values(data=newer.to_bytes()))
    return newer


def load_trust(connection: sa.Connection) -> Trust:
    """The pinned trust; TRUST_UNPINNED."""
    data = connection.execute(sa.select(tables.trust.c.data)).scalar()
    if data is None:
        raise SealpackError(
            "TRUST_UNPINNED", "settlement has no trust yet", remedy="run `sealpack settle import trust.json`"
        )
    return _trust(data)


@lru_cache(maxsize=8)
def _trust(data: bytes) -> Trust:
    """The trust of our own table, read once."""
    return Trust.load(data)


# --- plans --------------------------------------------------------------------------------------------


def put_plan(connection: sa.Connection, plan: Plan) -> str:
    """Store a plan; PLAN_INVALID when its id and version are known with other content."""
    row = connection.execute(
        sa.select(tables.plans.c.digest).where(
            tables.plans.c.id == plan.id, tables.plans.c.version == plan.version
        )
    ).first()
    if row is not None and row.digest != plan.digest:
        raise SealpackError(
            "PLAN_INVALID",
            f"plan {plan.id} version {plan.version} is known with other content",
            remedy="give the changed plan a new version",
        )
    if row is None:
        values = {"id": plan.id, "version": plan.version, "digest": plan.digest, "document": plan.document}
        connection.execute(sa.insert(tables.plans).values(values))
    return f"plan {plan.id} version {plan.version}"


def load_plan(connection: sa.Connection, ref: PlanRef) -> Plan | None:
    """A plan by id and version."""
    document = connection.execute(
        sa.select(tables.plans.c.document).where(
            tables.plans.c.id == ref.id, tables.plans.c.version == ref.version
        )
    ).scalar()
    return None if document is None else _plan(document)


@lru_cache(maxsize=256)
def _plan(document: bytes) -> Plan:
    """A plan of our own table, read once."""
    return Plan.from_json(document)


def load_plan_of(connection: sa.Connection, license: License) -> Plan:
    """The plan a license names; PLAN_INVALID when it names none or an unknown one."""
    if license.plan is None:
        raise SealpackError("PLAN_INVALID", f"license {license.license_id} names no price plan")
    plan = load_plan(connection, license.plan)
    if plan is None:
        raise SealpackError(
            "PLAN_INVALID",
            f"plan {license.plan.id} version {license.plan.version} is not known here",
            remedy="run `sealpack settle import PLAN.yaml`",
        )
    return plan


# --- licenses, activations, bundles -------------------------------------------------------------------


def put_documents(connection: sa.Connection, envelopes: Iterable[Envelope]) -> str:
    """Take in trust documents and those of `KINDS`, in whatever order they come; others are left.

    TRUST_UNPINNED, and every error of a document that the trust does not vouch for.
    """
    by_kind: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        by_kind.setdefault(documents.kind_of(envelope), []).append(envelope)
    chain = [e for kind in ROOT_ROLES for e in by_kind.get(kind, ())]
    trust = _advance(connection, load_trust(connection), chain)
    for envelope in by_kind.get("license", ()):
        put_license(connection, envelope, trust)
    for envelope in by_kind.get("sublicense", ()):
        sublicenses.put(connection, envelope, trust)
    for envelope in by_kind.get("activation", ()):
        put_activation(connection, envelope, trust)
    for kind in LEAVE:
        for envelope in by_kind.get(kind, ()):
            put_leave(connection, envelope, trust)
    for envelope in by_kind.get("deactivation", ()):
        put_deactivation(connection, envelope)
    kept = [(kind, len(by_kind[kind])) for kind in KINDS if kind in by_kind]
    named = [f"{n} {kind.replace('-', ' ')}{'s' * (n != 1)}" for kind, n in kept]
    return ", ".join(named) or "trust documents"


def put_line(connection: sa.Connection, line: RegistryLine, trust: Trust) -> bool:
    """Take in what a registry line holds; False when a revoked key signed some of it, which is left out.

    A registry only grows, so what was issued before a key was revoked stands in it for ever. Every other
    error of a document that the trust does not vouch for is raised.
    """
    try:
        put_license(connection, line.license, trust)
        put_bundles(connection, line.bundles)
        if line.sublicense is not None:
            sublicenses.put(connection, line.sublicense, trust)
        if line.activation is not None:
            put_activation(connection, line.activation, trust)
        if line.deactivation is not None:
            put_deactivation(connection, line.deactivation)
    except SealpackError as error:
        if error.code != "KEY_REVOKED":
            raise
        return False
    return True


def put_bundles(connection: sa.Connection, facts: Iterable[BundleFact]) -> None:
    """Learn which builds there are, by name."""
    for fact in facts:
        row = {"digest": fact.bundle_digest, "bundle_id": fact.bundle_id, "version": fact.version,
               "name": fact.name}  # fmt: skip
        connection.execute(tables.put(connection, tables.bundles).values(row).on_conflict_do_nothing())


def load_bundle(connection: sa.Connection, digest: str) -> Any:
    """The row of a build: bundle_id, version, digest, name; or None."""
    return connection.execute(sa.select(tables.bundles).where(tables.bundles.c.digest == digest)).first()


def put_license(connection: sa.Connection, envelope: Envelope, trust: Trust) -> License:
    """Store a license that the trust vouches for; LIC_CONFLICT for another of the same number."""
    license = open_license(envelope, trust)
    if not sublicenses.put_version(connection, license, envelope):
        return license
    newest = load_license(connection, license.license_id)
    if newest is not None and newest.parent_id is not None:
        raise SealpackError("LIC_CONFLICT", f"{license.license_id} is known here as a sub-license")
    if newest is None or license.seq > newest.seq:
        sublicenses.put_newest(connection, license, envelope, license.customer.id)
    return license


def put_activation(connection: sa.Connection, envelope: Envelope, trust: Trust) -> Activation:
    """Store an activation that the trust vouches for; the newest one of a device counts."""
    activation = open_activation(connection, envelope, trust)
    row = {
        "license_id": activation.license_id, "device_id": activation.device_id,
        "digest": activation.digest, "first_at": activation.issued_at, "issued_at": activation.issued_at,
        "device_label": activation.device_label or "", "envelope": envelope.to_bytes(),
    }  # fmt: skip
    mine = (tables.activations.c.license_id == activation.license_id,
            tables.activations.c.device_id == activation.device_id)  # fmt: skip
    known = connection.execute(sa.select(tables.activations).where(*mine)).first()
    if known is None:
        connection.execute(sa.insert(tables.activations).values(row))
        return activation
    first_at = min(known.first_at, activation.issued_at)
    newest = row if activation.issued_at >= known.issued_at else {}
    values = {**newest, "first_at": first_at}
    connection.execute(sa.update(tables.activations).where(*mine).values(values))
    return activation


def open_activation(
    connection: sa.Connection, envelope: Envelope, trust: Trust, issuer: str | None = None
) -> Activation:
    """Verify an activation: by the delegate of its sub-license, else by `issuer`, or any.

    SUBLICENSE_INVALID for a delegate's for anything else than the sub-license; KEY_REVOKED.
    """
    fields = documents.payload_fields(envelope, "activation")
    chain = sublicenses.open_chain(connection, fields.text("license_id"), trust)
    if chain is None:
        return Activation.open(envelope, trust, issuer)
    if chain.signed(envelope):
        return chain.open_activation(envelope)
    return Activation.open(envelope, trust, chain.license.issuer)


def put_leave(connection: sa.Connection, envelope: Envelope, trust: Trust) -> None:
    """Store leave to begin a further log, if the trust vouches for it; another repair says nothing here.

    Whether the issuer of its license does is asked later: that may not be known yet.
    """
    found = open_leave(envelope, trust)
    if found.epoch is None:
        return
    row = {"digest": found.digest, "license_id": found.license_id, "device_id": found.device_id,
           "epoch": found.epoch, "envelope": envelope.to_bytes()}  # fmt: skip
    connection.execute(tables.put(connection, tables.epoch_tokens).values(row).on_conflict_do_nothing())


def open_leave(envelope: Envelope, trust: Trust, issuer: str | None = None) -> EpochToken | Repair:
    """Verify and read an epoch token or a repair."""
    if documents.kind_of(envelope) == "repair":
        return Repair.open(envelope, trust, issuer)
    return EpochToken.open(envelope, trust, issuer)


def load_leave(connection: sa.Connection, license_id: str, device: str) -> list[Envelope]:
    """Every epoch token and repair that lets a device begin a further log under a license."""
    tokens = tables.epoch_tokens.c
    query = sa.select(tokens.envelope).where(tokens.license_id == license_id, tokens.device_id == device)
    return [Envelope.from_bytes(data, "epoch token") for data in connection.execute(query).scalars()]


def put_deactivation(connection: sa.Connection, envelope: Envelope) -> Deactivation:
    """Store a device's proof that a log of it ended; the first one for a log counts.

    The device signed it with the key that its name is made of, so it speaks of that device's logs alone.
    """
    said = Deactivation.open(envelope)
    row = {"origin": said.origin, "license_id": said.license_id, "device_id": said.device_id,
           "epoch": said.epoch, "size": said.size, "root": said.root, "closed_at": said.closed_at,
           "envelope": envelope.to_bytes()}  # fmt: skip
    connection.execute(tables.put(connection, tables.deactivations).values(row).on_conflict_do_nothing())
    return said


def load_deactivation(connection: sa.Connection, origin: str) -> Deactivation | None:
    """The proof that a log ended, or None."""
    data = connection.execute(
        sa.select(tables.deactivations.c.envelope).where(tables.deactivations.c.origin == origin)
    ).scalar()
    return None if data is None else Deactivation.open(Envelope.from_bytes(data, "deactivation"))


def load_activation(connection: sa.Connection, license_id: str, device: str) -> Envelope | None:
    """The newest activation of a device under a license."""
    data = connection.execute(
        sa.select(tables.activations.c.envelope).where(
            tables.activations.c.license_id == license_id, tables.activations.c.device_id == device
        )
    ).scalar()
    return None if data is None else Envelope.from_bytes(data, "activation")


def load_license(connection: sa.Connection, license_id: str) -> License | None:
    """The newest license of that id; of a sub-license what it and its parent allow."""
    below = sublicenses.load(connection, license_id)
    if below is not None:
        return below.license
    data = connection.execute(
        sa.select(tables.licenses.c.envelope).where(tables.licenses.c.license_id == license_id)
    ).scalar()
    return None if data is None else stored_license(data)


def load_license_version(connection: sa.Connection, *, digest: str) -> License | None:
    """The license document of that digest; a sub-license's as it was written."""
    return next(iter(load_license_forms(connection, digest=digest)), None)


def load_license_forms(
    connection: sa.Connection, *, digest: str | None = None, license_id: str | None = None, seq: int = 0
) -> list[License]:
    """Everything that one very document was: a sub-license changes with its parent, oldest form first."""
    versions = tables.license_versions.c
    which = (
        [versions.digest == digest] if digest else [versions.license_id == license_id, versions.seq == seq]
    )
    data = connection.execute(sa.select(versions.envelope).where(*which)).scalar()
    return [] if data is None else _forms(connection, data)


def load_license_versions(connection: sa.Connection, license_id: str) -> list[License]:
    """Every document of a license that is known, the newest first; of a sub-license as it was written."""
    versions = tables.license_versions.c
    query = (
        sa.select(versions.envelope).where(versions.license_id == license_id).order_by(versions.seq.desc())
    )
    return [_forms(connection, data)[0] for data in connection.execute(query).scalars().all()]


def test_numbers(connection: sa.Connection, license_id: str) -> set[int]:
    """Which documents of a license are test documents."""
    versions = load_license_versions(connection, license_id)
    return {version.seq for version in versions if version.environment == "test"}


def _forms(connection: sa.Connection, data: bytes) -> list[License]:
    envelope = sublicenses.read(data)
    if documents.kind_of(envelope) == "sublicense":
        return sublicenses.forms(connection, envelope)
    return [stored_license(data)]


@lru_cache(maxsize=4096)
def stored_license(data: bytes) -> License:
    """A license from our own table: it was verified when it came in."""
    envelope = sublicenses.read(data)
    return License.parse(documents.payload_fields(envelope, "license", "LIC_SCHEMA"), envelope.digest)
