"""Signed documents of every kind, and the parcel that carries several in one file.

Source: specs/documents.md. A document is a DSSE envelope whose payload type names its kind and whose
payload is canonical JSON with a `schema` member. A parcel (`*.license`, reply files) is canonical
JSON holding envelopes in any order; importing it is atomic and order-free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical, dsse
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import ED25519, PublicKey, Signer
from sealpack.format.limits import LIMITS

KINDS = (
    "root",
    "keyring",
    "revocations",
    "license",
    "activation-request",
    "activation",
    "lease",
    "acknowledgement",
    "evidence",
    "epoch-token",
    "sublicense",
    "repair",
    "deactivation",
    "reading",
)
PARCEL_SCHEMA = "sealpack/parcel/v1"
_PREFIX, _SUFFIX = "application/vnd.sealpack.", "+json"


def payload_type(kind: str) -> str:
    """The DSSE payload type of a document kind."""
    if kind not in KINDS:
        raise ValueError(f"unknown document kind {kind!r}")
    return f"{_PREFIX}{kind}{_SUFFIX}"


def kind_of(envelope: Envelope) -> str:
    """The kind an envelope claims; DOC_TYPE when it is none of ours."""
    name = envelope.payload_type
    kind = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    if kind not in KINDS or name != f"{_PREFIX}{kind}{_SUFFIX}":
        raise SealpackError("DOC_TYPE", f"payload type {name[:80]!r} is not a sealpack document")
    return kind


def schema_id(kind: str) -> str:
    """The `schema` member of a document kind."""
    return f"sealpack/{kind}/v1"


def seal(kind: str, payload: dict[str, Any], *keys: Signer) -> Envelope:
    """Encode `payload` canonically under its schema and sign it with every key."""
    body = canonical.dumps({"schema": schema_id(kind), **payload})
    if len(body) > LIMITS.document_bytes:
        raise SealpackError("JSON_LIMIT", f"{kind} is {len(body)} bytes, too large")
    return dsse.sign(payload_type(kind), body, *keys)


def payload_fields(envelope: Envelope, kind: str, code: str = "DOC_SCHEMA") -> Fields:
    """The payload of a *verified* envelope as typed fields; callers verify first.

    Raises DOC_TYPE when the envelope is of another kind.
    """
    found = kind_of(envelope)
    if found != kind:
        raise SealpackError("DOC_TYPE", f"this is a {found} document, expected {kind}")
    fields = Fields(canonical.loads(envelope.payload, what=kind), kind, code)
    fields.schema(schema_id(kind))
    return fields


def self_signed(envelope: Envelope, kind: str) -> tuple[Fields, PublicKey]:
    """Verify what a device signed against the key inside it: the payload and that key.

    DOC_*, SIG_*. Whose device that is, an activation says.
    """
    f = payload_fields(envelope, kind)
    f.crit(())
    key = PublicKey.from_pem(f.text("device_key"))
    if key.scheme != ED25519 or len(envelope.signatures) != 1:
        raise SealpackError("DOC_SCHEMA", f"{kind} is not signed by one Ed25519 device key")
    key.verify(envelope.signatures[0].sig, envelope.signed_bytes)
    if envelope.signatures[0].keyid != key.keyid:
        raise SealpackError("SIG_KEY_UNKNOWN", f"{kind} names another key than the one inside it")
    return f, key


@dataclass(frozen=True, slots=True)
class Parcel:
    """Several envelopes in one file."""

    documents: tuple[Envelope, ...]

    def of_kind(self, kind: str) -> tuple[Envelope, ...]:
        """The envelopes that claim `kind`, in file order."""
        return tuple(e for e in self.documents if kind_of(e) == kind)

    def to_bytes(self) -> bytes:
        """Canonical JSON of the parcel."""
        return canonical.dumps({"schema": PARCEL_SCHEMA, "documents": [e.to_dict() for e in self.documents]})

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "file") -> Parcel:
        """Read a parcel, or a single envelope as a parcel of one."""
        value = canonical.loads(data, max_bytes=LIMITS.parcel_bytes, what=what)
        if isinstance(value, dict) and "payloadType" in value:
            parcel = cls((Envelope.from_dict(value, what),))
        else:
            f = Fields(value, what)
            f.schema(PARCEL_SCHEMA)
            parcel = cls(f.array("documents", Envelope.from_dict, max_items=1024))
        for envelope in parcel.documents:
            kind_of(envelope)
        return parcel
