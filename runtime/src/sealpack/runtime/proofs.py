"""What the stored documents prove about the time.

Source: specs/runtime-state.md, "Clock". Only a license's own issuer, under a root that is believed, proves
anything; a document that no longer verifies proves nothing any more.
"""

from __future__ import annotations

import sqlite3

from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, Lease
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.license import open_license
from sealpack.format.repair import Repair
from sealpack.format.trust import Trust


def newest(db: sqlite3.Connection, trust: Trust, *, not_after: int | None = None) -> int:
    """The newest time (Unix seconds) that documents under `trust` prove; 0 without any.

    Later ones than `not_after` are left out: a new root ends what was dated ahead of it.
    """
    rows = db.execute("SELECT kind, license_id, envelope FROM documents ORDER BY license_id").fetchall()
    # A sub-license proves nothing by itself: what counts is its parent's issuer.
    licenses = {
        row[1]: Envelope.from_bytes(row[2], "license") for row in rows if row[0] in ("license", "parent")
    }
    found = [0]
    for kind, license_id, data in rows:
        if license_id in licenses:
            try:
                issuer = open_license(licenses[license_id], trust).issuer
            except SealpackError:
                continue  # another vendor's, or no longer believed
            found.append(issued_at(Envelope.from_bytes(data, kind), trust, issuer))
    return max(time for time in found if not_after is None or time <= not_after)


def issued_at(envelope: Envelope, trust: Trust, issuer: str) -> int:
    """When `issuer` signed a document, by its own word (Unix seconds); 0 when it is not theirs."""
    kind = documents.kind_of(envelope)
    try:
        if kind == "license":
            return open_license(envelope, trust).issued_at
        if kind == "activation":
            return Activation.open(envelope, trust, issuer).issued_at
        if kind == "lease":
            return Lease.open(envelope, trust, issuer).issued_at
        if kind == "repair":
            return Repair.open(envelope, trust, issuer).issued_at
        return Acknowledgement.open(envelope, trust, issuer).server_time
    except SealpackError:
        return 0
