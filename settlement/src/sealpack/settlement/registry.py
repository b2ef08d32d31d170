"""What settlement knows: trust, customers, plans, licenses, activations, bundles.

Source: specs/settlement-ingest.md, "Registry". Signed documents are opened under the pinned trust before
they are stored; nothing a usage log says of itself comes in here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert

from sealpack.format import documents
from sealpack.format import registry as registry_format
from sealpack.format.activation import Activation
from sealpack.format.documents import PARCEL_SCHEMA, Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.files import read_bounded
from sealpack.format.license import License, open_license
from sealpack.format.limits import LIMITS
from sealpack.format.registry import BundleFact
from sealpack.format.trust import ROOT_ROLES, TRUST_SCHEMA, Trust
from sealpack.format.values import IDENTIFIER
from sealpack.settlement import db
from sealpack.settlement.plan import Plan, load_plan

CUSTOMERS_SCHEMA = "sealpack/customers/v1"
MAX_IMPORT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is billed: as printed on an invoice."""

    id: str
    legal_name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""
    purchase_order: str = ""

    @classmethod
    def parse(cls, f: Fields) -> Customer:
        """Read one record of a customers file; REGISTRY_INVALID names the field."""
        return cls(
            f.text("id", pattern=IDENTIFIER),
            f.text("legal_name", max_len=300),
            f.texts("address", max_items=8, default=()),
            f.text("tax_id", max_len=64, default=""),
            f.text("email", max_len=200, default=""),
            f.text("purchase_order", max_len=100, default=""),
        )


def import_file(database: db.Database, path: Path) -> str:
    """Take in one file of any kind and say what it brought; all of it or nothing.

    Trust files, `*.license` parcels, registry lines, plans (YAML) and customers (JSON) are told apart by
    what they hold. REGISTRY_INVALID, PLAN_INVALID, TRUST_UNPINNED and every error of a signed document.
    """
    data = read_bounded(path, MAX_IMPORT_BYTES)
    if path.suffix in (".yaml", ".yml"):
        plan = load_plan(data, what=path.name)
        with database.write() as connection:
            return _put_plan(connection, plan)
    schema = _schema_of(data, path)
    with database.write() as connection:
        if schema == TRUST_SCHEMA:
            return _put_trust(connection, Trust.load(data))
        if schema == CUSTOMERS_SCHEMA:
            return _put_customers(connection, data, path.name)
        if schema == PARCEL_SCHEMA:
            return put_documents(connection, Parcel.from_bytes(data, path.name).documents)
        if schema == registry_format.SCHEMA:
            return _put_lines(connection, data, path.name)
    raise SealpackError(
        "REGISTRY_INVALID", f"{path.name}: nothing settlement takes ({schema or 'no schema'})"
    )


def _schema_of(data: bytes, path: Path) -> str:
    """The `schema` member of the first JSON value; a bare envelope counts as a parcel."""
    try:
        value, _ = json.JSONDecoder().raw_decode(data.decode("utf-8").lstrip())
    except (ValueError, RecursionError):
        raise SealpackError("REGISTRY_INVALID", f"{path.name} is not JSON or YAML settlement knows") from None
    if not isinstance(value, dict):
        return ""
    return PARCEL_SCHEMA if "payloadType" in value else str(value.get("schema", ""))


def _put_trust(connection: sa.Connection, found: Trust) -> str:
    rows = connection.execute(sa.select(db.trust.c.anchor, db.trust.c.data)).all()
    if not rows:
        connection.execute(sa.insert(db.trust).values(anchor=found.root_digest, data=found.to_bytes()))
        return f"pinned root {found.root_digest[:16]}"
    newer = Trust.load(rows[0].data).update(found.envelopes)
    connection.execute(sa.update(db.trust).values(data=newer.to_bytes()))
    return f"trust: keyring v{newer.keyring.version}, revocations v{newer.revocations.version}"


def load_trust(connection: sa.Connection) -> Trust:
    """The pinned trust; TRUST_UNPINNED."""
    data = connection.execute(sa.select(db.trust.c.data)).scalar()
    if data is None:
        raise SealpackError(
            "TRUST_UNPINNED", "settlement has no trust yet", remedy="run `sealpack settle import trust.json`"
        )
    return Trust.load(data)


def _put_plan(connection: sa.Connection, plan: Plan) -> str:
    row = connection.execute(
        sa.select(db.plans.c.digest).where(db.plans.c.id == plan.id, db.plans.c.version == plan.version)
    ).first()
    if row is not None and row.digest != plan.digest:
        raise SealpackError(
            "PLAN_INVALID",
            f"plan {plan.id} version {plan.version} is known with other content",
            remedy="give the changed plan a new version",
        )
    if row is None:
        values = {"id": plan.id, "version": plan.version, "digest": plan.digest, "document": plan.document}
        connection.execute(sa.insert(db.plans).values(values))
    return f"plan {plan.id} version {plan.version}"


def _put_customers(connection: sa.Connection, data: bytes, name: str) -> str:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SealpackError("REGISTRY_INVALID", f"{name}: {error}") from None
    f = Fields(value, name, "REGISTRY_INVALID")
    found = f.objects("customers", Customer.parse, max_items=100_000)
    for customer in found:
        document = json.dumps(customer_dict(customer)).encode()
        row = {"id": customer.id, "document": document}
        connection.execute(upsert(db.customers).values(row).on_conflict_do_update(["id"], set_=row))
    return f"{len(found)} customer{'s' * (len(found) != 1)}"


def customer_dict(customer: Customer) -> dict[str, Any]:
    """The stored form of a customer."""
    return {
        "id": customer.id, "legal_name": customer.legal_name, "address": list(customer.address),
        "tax_id": customer.tax_id, "email": customer.email, "purchase_order": customer.purchase_order,
    }  # fmt: skip


def load_customer(connection: sa.Connection, customer_id: str) -> Customer | None:
    """A customer's record, if one was imported."""
    row = connection.execute(
        sa.select(db.customers.c.document).where(db.customers.c.id == customer_id)
    ).first()
    return Customer.parse(Fields(json.loads(row.document), "customer", "REGISTRY_INVALID")) if row else None


def _put_lines(connection: sa.Connection, data: bytes, name: str) -> str:
    count = 0
    for line in registry_format.read_lines(data, name):
        put_documents(connection, [e for e in (line.license, line.activation) if e is not None])
        _put_bundles(connection, line.bundles)
        count += 1
    return f"{count} registry line{'s' * (count != 1)}"


def _put_bundles(connection: sa.Connection, facts: Iterable[BundleFact]) -> None:
    for fact in facts:
        row = {"digest": fact.bundle_digest, "bundle_id": fact.bundle_id, "version": fact.version,
               "name": fact.name}  # fmt: skip
        connection.execute(upsert(db.bundles).values(row).on_conflict_do_nothing())


def put_documents(connection: sa.Connection, envelopes: Iterable[Envelope]) -> str:
    """Take in trust documents, licenses and activations, in whatever order they come; others are left."""
    by_kind: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        by_kind.setdefault(documents.kind_of(envelope), []).append(envelope)
    trust = load_trust(connection).update(e for kind in ROOT_ROLES for e in by_kind.get(kind, ()))
    connection.execute(sa.update(db.trust).values(data=trust.to_bytes()))
    for envelope in by_kind.get("license", ()):
        put_license(connection, envelope, trust)
    for envelope in by_kind.get("activation", ()):
        put_activation(connection, envelope, trust)
    names = [
        f"{len(v)} {k}{'s' * (len(v) != 1)}" for k, v in by_kind.items() if k in ("license", "activation")
    ]
    return ", ".join(names) or "trust documents"


def put_license(connection: sa.Connection, envelope: Envelope, trust: Trust) -> License:
    """Store a license that the trust vouches for; LIC_CONFLICT for another of the same number."""
    license = open_license(envelope, trust)
    row = connection.execute(
        sa.select(db.licenses.c.seq, db.licenses.c.digest).where(
            db.licenses.c.license_id == license.license_id
        )
    ).first()
    if row is not None and row.seq == license.seq and row.digest != license.digest:
        raise SealpackError("LIC_CONFLICT", f"{license.license_id} number {license.seq} is known otherwise")
    values = {"license_id": license.license_id, "seq": license.seq, "digest": license.digest,
              "customer_id": license.customer.id, "envelope": envelope.to_bytes()}  # fmt: skip
    if row is None or license.seq > row.seq:
        connection.execute(
            upsert(db.licenses).values(values).on_conflict_do_update(["license_id"], set_=values)
        )
    version = {k: values[k] for k in ("digest", "license_id", "seq", "envelope")}
    connection.execute(upsert(db.license_versions).values(version).on_conflict_do_nothing())
    return license


def put_activation(connection: sa.Connection, envelope: Envelope, trust: Trust) -> Activation:
    """Store an activation that the trust vouches for; the newest one of a device counts."""
    activation = Activation.open(envelope, trust)
    key = (db.activations.c.license_id == activation.license_id,
           db.activations.c.device_id == activation.device_id)  # fmt: skip
    row = connection.execute(sa.select(db.activations.c.issued_at).where(*key)).first()
    if row is None or activation.issued_at >= row.issued_at:
        values = {
            "license_id": activation.license_id, "device_id": activation.device_id,
            "digest": activation.digest, "issued_at": activation.issued_at,
            "device_key": activation.device_key.pem, "device_label": activation.device_label or "",
            "envelope": envelope.to_bytes(),
        }  # fmt: skip
        statement = upsert(db.activations).values(values)
        connection.execute(statement.on_conflict_do_update(["license_id", "device_id"], set_=values))
    return activation


def load_license(connection: sa.Connection, license_id: str) -> License | None:
    """The newest license of that id."""
    row = connection.execute(
        sa.select(db.licenses.c.envelope).where(db.licenses.c.license_id == license_id)
    ).first()
    return stored_license(row.envelope) if row else None


def stored_license(data: bytes) -> License:
    """A license from our own table: it was verified when it came in."""
    envelope = Envelope.from_bytes(data, "license", max_bytes=2 * LIMITS.document_bytes)
    return License.parse(documents.payload_fields(envelope, "license", "LIC_SCHEMA"), envelope.digest)


def load_plan_of(connection: sa.Connection, license: License) -> Plan:
    """The plan a license names; PLAN_INVALID when it names none or an unknown one."""
    if license.plan is None:
        raise SealpackError("PLAN_INVALID", f"license {license.license_id} names no price plan")
    row = connection.execute(
        sa.select(db.plans.c.document).where(
            db.plans.c.id == license.plan.id, db.plans.c.version == license.plan.version
        )
    ).first()
    if row is None:
        raise SealpackError(
            "PLAN_INVALID",
            f"plan {license.plan.id} version {license.plan.version} is not known here",
            remedy="run `sealpack settle import PLAN.yaml`",
        )
    return Plan.from_json(row.document)
