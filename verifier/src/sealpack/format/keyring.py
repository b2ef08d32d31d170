"""The keyring (who may sign what) and the revocations (what is no longer good).

Source: specs/trust.md. Both are signed by keys of the root, which is needed to read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.keys import ECDSA, ED25519, ML_DSA, PublicKey
from sealpack.format.root import CRIT, Root, mldsa_beside, require_crit

ROLES = ("bundle", "license", "evidence", "settlement", "ack", "witness")
NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of the keyring: what it may sign, for whom, and for which names.

    `mldsa` is the ML-DSA key that signs beside it, `schemes` what must be there on everything it signs.
    """

    key: PublicKey
    issuer: str
    roles: frozenset[str]
    namespaces: tuple[str, ...]
    status: str  # active | retired
    revoked_from: int | None
    mldsa: PublicKey | None = None
    schemes: frozenset[str] = frozenset()
    since: int | None = None  # issued_at of the first keyring that listed the key, Unix seconds

    @classmethod
    def parse(cls, f: Fields) -> KeyEntry:
        """Read an entry; the stated keyid and scheme must be the key's own."""
        key = PublicKey.from_pem(f.text("pem"))
        if f.digest("keyid") != key.keyid or f.choice("scheme", (ECDSA, ED25519)) != key.scheme:
            raise SealpackError("TRUST_INVALID", f"{f.what} states another keyid or scheme than its key")
        roles = frozenset(f.texts("roles", max_items=len(ROLES)))
        if not roles <= set(ROLES):
            raise SealpackError("TRUST_INVALID", f"{f.what}.roles has an unknown role")
        entry = cls(
            key,
            f.text("issuer", max_len=200),
            roles,
            f.texts("namespaces", pattern=NAMESPACE, max_items=256),
            f.choice("status", ("active", "retired")),
            f.integer("revoked_from", default=None),
            mldsa_beside(f, key),
            frozenset(f.texts("schemes", default=(key.scheme,), max_items=8)),
            f.integer("since", default=None),
        )
        if key.scheme not in entry.schemes or not entry.schemes <= {k.scheme for k in entry.keys}:
            raise SealpackError(
                "TRUST_INVALID", f"{f.what}.schemes are not {key.scheme} and what it has keys for"
            )
        return entry

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The key, and the ML-DSA key beside it if there is one."""
        return (self.key,) if self.mldsa is None else (self.key, self.mldsa)

    def summary(self) -> dict[str, Any]:
        """Whose key it is, for reports; `since` where the keyring says since when it is listed."""
        members = {"issuer": self.issuer, "keyid": self.key.keyid, "scheme": self.key.scheme}
        second = {} if self.mldsa is None else {"mldsa_keyid": self.mldsa.keyid}
        return members | second | ({} if self.since is None else {"since": self.since})

    def verify_mldsa(self, signature: bytes | None, message: bytes, also: Iterable[str] = ()) -> None:
        """Check the ML-DSA signature beside the key's own, or that none is needed.

        `also` are schemes that are required besides the entry's. SIG_SCHEME when a required one is not
        there, and when one is there that no key of this entry can check; SIG_MALFORMED, SIG_INVALID.
        """
        if signature is None:
            if ML_DSA in {*self.schemes, *also}:
                raise SealpackError("SIG_SCHEME", f"the ML-DSA-65 signature of {self.issuer} is missing")
        elif self.mldsa is None:
            raise SealpackError(
                "SIG_SCHEME",
                f"there is an ML-DSA-65 signature, and {self.issuer} has no key to check it with",
            )
        else:
            self.mldsa.verify(signature, message)

    def covers(self, name: str) -> bool:
        """Whether a namespace of this key is `name` or a leading path of whole segments of it."""
        return any(name == space or name.startswith(space + "/") for space in self.namespaces)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys the root currently vouches for."""

    version: int
    issued_at: int
    entries: dict[str, KeyEntry]
    envelope: Envelope = field(repr=False)

    @classmethod
    def parse(cls, envelope: Envelope, root: Root) -> Keyring:
        """Verify against `root`, then read."""
        root.require("keyring", envelope)
        f = documents.payload_fields(envelope, "keyring", "TRUST_INVALID")
        f.crit(CRIT)
        entries = f.objects("keys", KeyEntry.parse, max_items=1024)
        require_crit(f, any(e.mldsa is not None for e in entries))
        ders = [key.der for e in entries for key in e.keys]
        if len(set(ders)) != len(ders):
            raise SealpackError("TRUST_INVALID", "keyring lists one key twice")
        return cls(
            f.integer("version", lo=1), f.integer("issued_at"), {e.key.keyid: e for e in entries}, envelope
        )


@dataclass(frozen=True, slots=True)
class Revocations:
    """What is withdrawn: keys (with payload digests that stay good), bundles, licenses, devices."""

    version: int
    issued_at: int
    keys: dict[str, frozenset[str]]  # keyid -> digests that stay good
    bundles: frozenset[str]
    licenses: frozenset[str]
    devices: frozenset[str]
    floors: dict[str, int]  # bundle_id -> lowest release_index allowed
    envelope: Envelope = field(repr=False)

    @classmethod
    def parse(cls, envelope: Envelope, root: Root) -> Revocations:
        """Verify against `root`, then read."""
        root.require("revocations", envelope)
        f = documents.payload_fields(envelope, "revocations", "TRUST_INVALID")
        f.crit(())
        keys = f.objects("keys", lambda k: (k.digest("keyid"), frozenset(k.texts("good", pattern=DIGEST))))
        floors = f.objects("floors", lambda k: (k.text("bundle_id", pattern=NAMESPACE), k.integer("floor")))
        if len(dict(keys)) != len(keys) or len(dict(floors)) != len(floors):
            raise SealpackError("TRUST_INVALID", "revocations name a key or a bundle twice")
        return cls(
            f.integer("version", lo=1),
            f.integer("issued_at"),
            dict(keys),
            frozenset(f.texts("bundles", pattern=DIGEST)),
            frozenset(f.texts("licenses")),
            frozenset(f.texts("devices")),
            dict(floors),
            envelope,
        )
