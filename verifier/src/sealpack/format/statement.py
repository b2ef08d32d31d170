"""The bundle signature: an OpenSSF Model Signing v1.0 statement in a Sigstore bundle.

Source: specs/signature.md. `resources` lists every entry outside META with its SHA-256, so that
model_signing, or openssl and sha256sum, reach the same verdict on signature and digests as we do. Our
own members sit in one extra predicate member, `x-sealpack`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sealpack.format import canonical, dsse
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.keys import ECDSA, ML_DSA, Signer
from sealpack.format.limits import LIMITS
from sealpack.format.trust import NAMESPACE

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
SIGSTORE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SCHEMA = "sealpack/signature/v1"
SIG_NAME = "META/model.sig"
MLDSA_NAME = "META/model.mldsa65.sig"
LAST_SECOND = 253_402_300_799  # 9999-12-31, the last day that has a calendar date
ENTRY_NAME = re.compile(r"(?!(.*/)?\.{1,2}(/|$))[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_SERIALIZATION: dict[str, Any] = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": ["META"],
}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a bundle signature says."""

    resources: dict[str, str]  # entry name -> hex SHA-256
    bundle_id: str
    release_index: int
    manifest_sha256: str
    signed_at: int
    required_schemes: tuple[str, ...] = (ECDSA,)
    min_keyring: int = 1
    min_revocations: int = 1

    def to_bytes(self) -> bytes:
        """The in-toto statement, canonical."""
        resources = [
            {"name": name, "algorithm": "sha256", "digest": self.resources[name]}
            for name in _ordered(self.resources)
        ]
        return canonical.dumps(
            {
                "_type": STATEMENT_TYPE,
                "subject": [{"name": self.bundle_id, "digest": {"sha256": subject_digest(self.resources)}}],
                "predicateType": PREDICATE_TYPE,
                "predicate": {
                    "serialization": _SERIALIZATION,
                    "resources": resources,
                    "x-sealpack": {
                        "schema": SCHEMA,
                        "bundle_id": self.bundle_id,
                        "release_index": self.release_index,
                        "manifest_sha256": self.manifest_sha256,
                        "required_schemes": list(self.required_schemes),
                        "min_keyring": self.min_keyring,
                        "min_revocations": self.min_revocations,
                        "signed_at": self.signed_at,
                    },
                },
            }
        )

    @classmethod
    def from_bytes(cls, payload: bytes) -> Statement:
        """Read a *verified* statement; SIG_STATEMENT, SIG_SUBJECT or SIG_RESOURCES."""
        value = canonical.loads(payload, max_bytes=LIMITS.signature_bytes, what="signed statement")
        f = Fields(value, "statement", "SIG_STATEMENT")
        f.choice("_type", (STATEMENT_TYPE,))
        f.choice("predicateType", (PREDICATE_TYPE,))
        predicate = f.sub("predicate")
        if predicate.raw("serialization", default=None) != _SERIALIZATION:
            raise SealpackError("SIG_STATEMENT", "serialization is not files/sha256 without META")
        resources = _read_resources(predicate)
        own = predicate.sub("x-sealpack")
        own.schema(SCHEMA)
        statement = cls(
            resources,
            own.text("bundle_id", pattern=NAMESPACE, max_len=200),
            own.integer("release_index", lo=1),
            own.digest("manifest_sha256"),
            own.integer("signed_at", hi=LAST_SECOND),
            own.texts("required_schemes", max_items=8),
            own.integer("min_keyring"),
            own.integer("min_revocations"),
        )
        expected = [{"name": statement.bundle_id, "digest": {"sha256": subject_digest(resources)}}]
        if f.raw("subject", default=None) != expected:
            raise SealpackError("SIG_SUBJECT", "subject is not the digest of the resources")
        return statement


def _ordered(names: Mapping[str, str]) -> list[str]:
    """Path order by segments, the order model_signing hashes in."""
    return sorted(names, key=PurePosixPath)


def _read_resources(predicate: Fields) -> dict[str, str]:
    def read(f: Fields) -> tuple[str, str]:
        f.choice("algorithm", ("sha256",))
        name = f.text("name", max_len=LIMITS.entry_name_bytes, pattern=ENTRY_NAME)
        return name, f.text("digest", pattern=DIGEST)

    pairs = predicate.objects("resources", read, max_items=LIMITS.entries)
    resources = dict(pairs)
    if [name for name, _ in pairs] != _ordered(resources):
        raise SealpackError("SIG_RESOURCES", "resources are unsorted or name a file twice")
    return resources


def subject_digest(resources: Mapping[str, str]) -> str:
    """SHA-256 over the raw resource digests, one after another in path order."""
    joined = b"".join(bytes.fromhex(resources[name]) for name in _ordered(resources))
    return hashlib.sha256(joined).hexdigest()


def sign_mldsa(signature: bytes, key: Signer) -> bytes:
    """`META/model.mldsa65.sig`: the raw ML-DSA-65 signature over what `META/model.sig` signed."""
    if key.scheme != ML_DSA:
        raise SealpackError("USAGE", f"{MLDSA_NAME} is signed with an ML-DSA-65 key")
    return key.sign(read_signature(signature).signed_bytes)


def sign(statement: Statement, key: Signer) -> bytes:
    """`META/model.sig`: the Sigstore bundle, signed with an ECDSA P-256 key."""
    if key.scheme != ECDSA:
        raise SealpackError("USAGE", "bundles are signed with an ECDSA P-256 key")
    envelope = dsse.sign(PAYLOAD_TYPE, statement.to_bytes(), key)
    return canonical.dumps(
        {
            "mediaType": SIGSTORE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.keyid}, "tlogEntries": []},
            "dsseEnvelope": envelope.to_dict(),
        }
    )


def read_signature(data: bytes) -> Envelope:
    """The DSSE envelope of `META/model.sig`, its form checked, its signature not yet.

    Exactly one signature; the hint must be its keyid. SIG_MALFORMED or SIG_STATEMENT.
    """
    value = canonical.loads(data, max_bytes=LIMITS.signature_bytes, what="META/model.sig")
    f = Fields(value, "META/model.sig", "SIG_MALFORMED")
    f.choice("mediaType", (SIGSTORE_TYPE,))
    try:
        envelope = Envelope.from_dict(f.raw("dsseEnvelope", default=None), "META/model.sig")
    except SealpackError as error:  # DSSE_INVALID
        raise SealpackError("SIG_MALFORMED", error.message) from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise SealpackError("SIG_STATEMENT", f"payload type is {envelope.payload_type[:60]!r}")
    if len(envelope.signatures) != 1:
        raise SealpackError("SIG_MALFORMED", f"{len(envelope.signatures)} signatures, exactly 1 is allowed")
    material = {"publicKey": {"hint": envelope.signatures[0].keyid}, "tlogEntries": []}
    if set(f.keys()) != {"mediaType", "verificationMaterial", "dsseEnvelope"} or (
        f.raw("verificationMaterial") != material
    ):
        raise SealpackError("SIG_MALFORMED", "META/model.sig has missing, extra or other members")
    return envelope
