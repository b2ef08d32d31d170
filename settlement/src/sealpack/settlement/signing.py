"""Signing documents that leave the house: the stored JSON, byte for byte, in an envelope.

Source: specs/invoice.md section 7.
"""

from __future__ import annotations

import sqlalchemy as sa

from sealpack.format import billing
from sealpack.format.keys import PrivateKey
from sealpack.settlement import registry


def check(connection: sa.Connection, key: PrivateKey) -> None:
    """SIG_KEY_UNKNOWN, SIG_KEY_ROLE or KEY_REVOKED when nobody would believe the key; TRUST_UNPINNED."""
    registry.load_trust(connection).entry(key.keyid, billing.ROLE, "")


def sign(document: bytes, key: PrivateKey) -> bytes:
    """The envelope around a document's JSON, as a file; drafts are refused (EXPORT_REFUSED)."""
    return billing.sign(document, key).to_bytes()
