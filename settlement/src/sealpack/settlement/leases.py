"""The leases that settlement gave, as its own acknowledgements hold them.

Source: specs/settlement-ingest.md, "Replies" and "Epochs".
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from sealpack.format import documents, leasing
from sealpack.format.activation import Ceiling
from sealpack.format.dsse import Envelope
from sealpack.format.fields import Fields
from sealpack.format.license import License
from sealpack.settlement import db

MAX_ENVELOPE = 1 << 20


def first_given(connection: sa.Connection, origin: str) -> int | None:
    """When the first lease for a log was given, Unix seconds; None before that."""
    for fields in _said(connection, origin, newest_first=False):
        if "lease" in fields:
            given: int = fields.integer("server_time")
            return given
    return None


def server_time(connection: sa.Connection, origin: str, ack_seq: int) -> int | None:
    """When an acknowledgement of a log was made, Unix seconds; None for one that was never made here."""
    query = sa.select(db.acks.c.envelope).where(db.acks.c.origin == origin, db.acks.c.ack_seq == ack_seq)
    data = connection.execute(query).scalar()
    if data is None:
        return None
    envelope = Envelope.from_bytes(data, "acknowledgement", max_bytes=MAX_ENVELOPE)
    made: int = documents.payload_fields(envelope, "acknowledgement").integer("server_time")
    return made


def ceilings(connection: sa.Connection, license: License, origins: list[str]) -> dict[str, int]:
    """The most of each meter that any lease of these logs allowed, the issuer's first one included."""
    found = list(leasing.ceilings(license, {}))
    for origin in origins:
        newest = next((f for f in _said(connection, origin, newest_first=True) if "lease" in f), None)
        if newest is not None:
            lease = Envelope.from_dict(newest.raw("lease"), "lease")
            found += documents.payload_fields(lease, "lease").objects("ceilings", Ceiling.parse)
    limits: dict[str, int] = {}
    for ceiling in found:
        limits[ceiling.meter] = max(ceiling.limit, limits.get(ceiling.meter, 0))
    return limits


def _said(connection: sa.Connection, origin: str, *, newest_first: bool) -> Iterator[Fields]:
    """What the acknowledgements of a log say; they are our own."""
    order = db.acks.c.ack_seq.desc() if newest_first else db.acks.c.ack_seq
    rows = connection.execute(sa.select(db.acks.c.envelope).where(db.acks.c.origin == origin).order_by(order))
    for data in rows.scalars().all():
        envelope = Envelope.from_bytes(data, "acknowledgement", max_bytes=MAX_ENVELOPE)
        yield documents.payload_fields(envelope, "acknowledgement")
