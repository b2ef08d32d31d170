"""DSSE envelopes: a payload, its type, and signatures over exactly those bytes.

Source: specs/dsse.md. The JSON form is canonical; base64 is the standard alphabet with padding and
must be the one spelling of its bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.keys import Signer
from sealpack.format.limits import LIMITS


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: what is signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def b64encode(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def b64decode(text: str, what: str, code: str = "DSSE_INVALID") -> bytes:
    """Decode standard base64; refuse any spelling but the one :func:`b64encode` writes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SealpackError(code, f"{what} is not base64") from None
    if b64encode(data) != text:
        raise SealpackError(code, f"{what} is not canonical base64")
    return data


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature; `keyid` is a hint for choosing the key, never a proof."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """Payload bytes with their signatures."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the payload: how other documents name this one."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def signed_bytes(self) -> bytes:
        """The bytes every signature covers."""
        return pae(self.payload_type, self.payload)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the envelope."""
        return {
            "payload": b64encode(self.payload),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in self.signatures],
        }

    def to_bytes(self) -> bytes:
        """The canonical JSON of the envelope."""
        return canonical.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, value: Any, what: str = "envelope") -> Envelope:
        """Read the JSON object strictly; DSSE_INVALID when anything is off or extra."""
        f = Fields(value, what, "DSSE_INVALID")
        if set(f.keys()) != {"payload", "payloadType", "signatures"}:
            raise SealpackError("DSSE_INVALID", f"{what} has missing or extra members")
        payload = b64decode(f.text("payload", max_len=1 << 26), f"{what}.payload")
        signatures = f.objects("signatures", _read_signature, max_items=64)
        if not signatures:
            raise SealpackError("DSSE_INVALID", f"{what} has no signature")
        return cls(f.text("payloadType", max_len=200), payload, signatures)

    @classmethod
    def from_bytes(
        cls, data: bytes, what: str = "envelope", *, max_bytes: int = 2 * LIMITS.document_bytes
    ) -> Envelope:
        """Read canonical JSON bytes strictly."""
        return cls.from_dict(canonical.loads(data, max_bytes=max_bytes, what=what), what)


def _read_signature(f: Fields) -> Signature:
    if set(f.keys()) != {"keyid", "sig"}:
        raise SealpackError("DSSE_INVALID", f"{f.what} has missing or extra members")
    sig = b64decode(f.text("sig", max_len=8192), f"{f.what}.sig")
    return Signature(f.text("keyid", pattern=DIGEST, max_len=64), sig)


def sign(payload_type: str, payload: bytes, *keys: Signer) -> Envelope:
    """Sign `payload` with every key, in keyid order so that the bytes do not depend on call order."""
    message = pae(payload_type, payload)
    ordered = sorted(keys, key=lambda key: key.keyid)
    return Envelope(payload_type, payload, tuple(Signature(k.keyid, k.sign(message)) for k in ordered))
