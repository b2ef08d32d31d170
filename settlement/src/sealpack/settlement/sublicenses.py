"""Sub-licenses in settlement: under which version of its parent one stands, and what is billed together.

Source: specs/sublicense.md and specs/settlement-ingest.md, "Sub-licenses". They are kept among the licenses,
with what both allow worked out when it is asked for: a parent may be renewed, or withdraw the delegation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.limits import LIMITS
from sealpack.format.sublicense import Chain, Sublicense, open_sublicense, read_below
from sealpack.format.trust import Trust
from sealpack.settlement import tables


@dataclass(frozen=True, slots=True)
class Below:
    """A sub-license under a version of its parent. `license` is what both allow.

    `ended_at` is when a later version of the parent took the delegation back, Unix seconds.
    """

    license: License
    parent: License
    ended_at: int | None = None


def of_parent(connection: sa.Connection, parent_id: str) -> list[str]:
    """The ids of all sub-licenses below a license."""
    found = tables.sublicenses.c
    query = sa.select(found.license_id).where(found.parent_id == parent_id).order_by(found.license_id)
    return list(connection.execute(query).scalars())


def billed_with(connection: sa.Connection, license_id: str) -> list[str]:
    """The ids of a license and of all below it: one invoice."""
    return [license_id, *of_parent(connection, license_id)]


def load(connection: sa.Connection, license_id: str) -> Below | None:
    """The newest sub-license of that id under the newest version of its parent that allows it; None when
    that is no sub-license. STORE_CORRUPT."""
    envelope = _stored(connection, license_id)
    if envelope is None:
        return None
    later: License | None = None
    for parent in _parents(connection, Sublicense.read(envelope)):
        try:
            license = read_below(envelope, parent)
        except SealpackError:  # it does not name the delegate any more, or leaves nothing
            later = parent
            continue
        return Below(license, parent, None if later is None else later.issued_at)
    raise SealpackError("STORE_CORRUPT", f"no license that allows sub-license {envelope.digest[:16]} is here")


def forms(connection: sa.Connection, envelope: Envelope) -> list[License]:
    """What a sub-license was from the parent's version it was written under up to the newest, oldest first.

    A device has the version that reached it. The first one says whether it was written as a test license.
    """
    found = []
    for parent in reversed(_parents(connection, Sublicense.read(envelope))):
        try:
            found.append(read_below(envelope, parent))
        except SealpackError:
            continue
    return found


def put(connection: sa.Connection, envelope: Envelope, trust: Trust) -> License:
    """Store a sub-license whose parent is known; the newest one of an id counts.

    SUBLICENSE_INVALID, KEY_REVOKED, LIC_MISSING without its parent, LIC_CONFLICT for another document of
    the same number or a license of the same id.
    """
    chain = _open(connection, envelope, trust)
    license, parent_id = chain.license, chain.parent.license_id
    licenses = tables.licenses.c
    known = connection.execute(
        sa.select(licenses.seq).where(licenses.license_id == license.license_id)
    ).scalar()
    if known is not None and license.license_id not in of_parent(connection, parent_id):
        raise SealpackError("LIC_CONFLICT", f"{license.license_id} is known here as a license")
    if not put_version(connection, license, envelope):
        return license
    if known is None or license.seq > known:
        put_newest(connection, license, envelope, chain.parent.customer.id)
    link = {"license_id": license.license_id, "parent_id": parent_id}
    connection.execute(tables.put(connection, tables.sublicenses).values(link).on_conflict_do_nothing())
    return license


def put_version(connection: sa.Connection, license: License, envelope: Envelope) -> bool:
    """Store this document of a license or sub-license; False when it is known.

    LIC_CONFLICT for another of the same number.
    """
    versions = tables.license_versions.c
    same = connection.execute(
        sa.select(versions.digest).where(
            versions.license_id == license.license_id, versions.seq == license.seq
        )
    ).scalar()
    if same is not None and same != envelope.digest:
        raise SealpackError("LIC_CONFLICT", f"{license.license_id} number {license.seq} is known otherwise")
    if same is None:
        connection.execute(sa.insert(tables.license_versions).values(_version(license, envelope)))
    return same is None


def put_newest(connection: sa.Connection, license: License, envelope: Envelope, customer_id: str) -> None:
    """Make this the document that counts of its id, billed to that customer."""
    row = _version(license, envelope) | {"customer_id": customer_id}
    statement = tables.put(connection, tables.licenses).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["license_id"], set_=row))


def _version(license: License, envelope: Envelope) -> dict[str, object]:
    return {"digest": envelope.digest, "license_id": license.license_id, "seq": license.seq,
            "envelope": envelope.to_bytes()}  # fmt: skip


def open_chain(connection: sa.Connection, license_id: str, trust: Trust) -> Chain | None:
    """The newest sub-license of that id, verified anew; None when that is none. KEY_REVOKED."""
    envelope = _stored(connection, license_id)
    return None if envelope is None else _open(connection, envelope, trust)


def _stored(connection: sa.Connection, license_id: str) -> Envelope | None:
    data = connection.execute(
        sa.select(tables.licenses.c.envelope)
        .join(tables.sublicenses, tables.sublicenses.c.license_id == tables.licenses.c.license_id)
        .where(tables.licenses.c.license_id == license_id)
    ).scalar()
    return None if data is None else read(data)


def read(data: bytes) -> Envelope:
    """A document of our own tables."""
    return Envelope.from_bytes(data, "license", max_bytes=2 * LIMITS.document_bytes)


def _open(connection: sa.Connection, envelope: Envelope, trust: Trust) -> Chain:
    """Verify one under the newest version of its parent that allows it."""
    said = Sublicense.read(envelope)
    refused = SealpackError(
        "LIC_MISSING",
        f"sub-license {said.license_id} came without license {said.parent.license_id}",
        remedy="import the licensor's registry or the delegate's, which hold both",
    )
    for parent in _parents(connection, said):
        try:
            return open_sublicense(envelope, trust, parent)
        except SealpackError as error:
            if error.code != "SUBLICENSE_INVALID":
                raise
            refused = error
    raise refused


def _parents(connection: sa.Connection, said: Sublicense) -> Sequence[License]:
    """The parent as it is known from the version it was written under on, the newest first."""
    versions = tables.license_versions.c
    query = (
        sa.select(versions.envelope)
        .where(versions.license_id == said.parent.license_id, versions.seq >= said.parent.seq)
        .order_by(versions.seq.desc())
    )
    return _licenses(connection.execute(query).scalars())


def _licenses(stored: Iterable[bytes]) -> list[License]:
    envelopes = [read(data) for data in stored]
    return [License.parse(documents.payload_fields(e, "license", "LIC_SCHEMA"), e.digest) for e in envelopes]
