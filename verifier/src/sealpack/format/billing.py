"""What settlement signs for people outside: invoices, credit notes, payout and customer statements.

Source: specs/invoice.md section 7. The payload is the document's JSON as it was issued, byte for byte; a key
of role `settlement` signs it. They travel by themselves, never in a parcel, and no device reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealpack.format import canonical, dsse
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keyring import KeyEntry
from sealpack.format.keys import Signer
from sealpack.format.limits import LIMITS
from sealpack.format.trust import Trust

KINDS = ("invoice", "payout-statement", "customer-statement")
ROLE = "settlement"
TYPES = {f"application/vnd.sealpack.{kind}+json": kind for kind in KINDS}
_SCHEMAS = {f"sealpack/{kind}/v1": name for name, kind in TYPES.items()}
_BEGIN = b'{"payload":"'


@dataclass(frozen=True, slots=True)
class Signed:
    """A document whose signature holds: what it is, what it says, and whose key signed it."""

    kind: str
    fields: Fields
    entry: KeyEntry
    digest: str  # hex SHA-256 of the document's JSON


def is_signed(data: bytes) -> bool:
    """Whether a file claims to be one of these; nothing is verified."""
    return data.startswith(_BEGIN) and any(name.encode() in data[-16384:] for name in TYPES)


def sign(document: bytes, key: Signer) -> Envelope:
    """Sign a document's JSON; DOC_TYPE when it is none of these, JSON_LIMIT when it is too large."""
    value = canonical.loads(document, max_bytes=LIMITS.billing_bytes, what="document")
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema not in _SCHEMAS:
        raise SealpackError("DOC_TYPE", "this is no invoice and no statement")
    return dsse.sign(_SCHEMAS[schema], document, key)


def open_signed(data: bytes, trust: Trust) -> Signed:
    """Verify, then read. DSSE_INVALID, DOC_TYPE, SIG_*, KEY_REVOKED, JSON_*, DOC_SCHEMA."""
    envelope = Envelope.from_bytes(data, "signed document", max_bytes=2 * LIMITS.billing_bytes)
    kind = TYPES.get(envelope.payload_type)
    if kind is None:
        raise SealpackError("DOC_TYPE", f"{envelope.payload_type[:80]!r} is no invoice and no statement")
    entry = trust.verify(envelope, ROLE)
    value = canonical.loads(envelope.payload, max_bytes=LIMITS.billing_bytes, what=kind)
    fields = Fields(value, kind)
    fields.schema(f"sealpack/{kind}/v1")
    return Signed(kind, fields, entry, envelope.digest)
