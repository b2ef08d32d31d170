"""The root: who may change the keyring and the revocations, with thresholds, and the next root.

Source: specs/trust.md. A root key is one ECDSA or Ed25519 key, or an ECDSA key with its ML-DSA key; a pair
counts towards a threshold only when both signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.keys import ECDSA, ML_DSA, PublicKey

CRIT = (ML_DSA,)  # what a root or a keyring may name there
ROOT_ROLES = ("root", "keyring", "revocations")


@dataclass(frozen=True, slots=True)
class Root:
    """Who may sign the next root, the keyring and the revocations: keys and a threshold per role."""

    version: int
    keys: tuple[PublicKey, ...]
    mldsa: dict[str, PublicKey]  # keyid of a key -> the ML-DSA key that signs beside it
    roles: dict[str, tuple[int, frozenset[str]]]  # role -> (threshold, keyids)
    envelope: Envelope = field(repr=False)
    issued_at: int = 0  # Unix seconds; 0 where it is not stated

    @classmethod
    def parse(cls, envelope: Envelope) -> Root:
        """Read a root and check that its own keys sign it; TRUST_INVALID, TRUST_THRESHOLD."""
        f = documents.payload_fields(envelope, "root", "TRUST_INVALID")
        f.crit(CRIT)
        pairs = f.array("keys", _read_key, max_items=64)
        keys = tuple(key for key, _ in pairs)
        mldsa = {key.keyid: second for key, second in pairs if second is not None}
        require_crit(f, bool(mldsa))
        by_id = {key.keyid: key for key in keys}
        if len({key.der for key in (*keys, *mldsa.values())}) != len(keys) + len(mldsa):
            raise SealpackError("TRUST_INVALID", "root lists one key twice")
        given = f.sub("roles")
        roles = {name: _read_role(given.sub(name), by_id) for name in ROOT_ROLES}
        root = cls(
            f.integer("version", lo=1), keys, mldsa, roles, envelope, f.integer("issued_at", default=0)
        )
        root.require("root", envelope)
        return root

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the root payload: the fingerprint people compare."""
        return self.envelope.digest

    def require(self, role: str, envelope: Envelope) -> None:
        """Check that `role`'s threshold of distinct keys signed `envelope`.

        Keys are counted by their DER form, so a second spelling of one key does not count twice. A key
        that has an ML-DSA key beside it counts only when that one signed too.
        """
        threshold, allowed = self.roles[role]
        good = {
            key.der
            for key in self.keys
            if key.keyid in allowed
            and _signed(envelope, key)
            and (key.keyid not in self.mldsa or _signed(envelope, self.mldsa[key.keyid]))
        }
        if len(good) < threshold:
            raise SealpackError(
                "TRUST_THRESHOLD",
                f"{documents.kind_of(envelope)} has {len(good)} valid root signatures, {threshold} needed",
            )

    def post_quantum(self, role: str) -> bool:
        """Whether no threshold of `role` can be met without an ML-DSA signature."""
        threshold, allowed = self.roles[role]
        return len(allowed - set(self.mldsa)) < threshold

    def accepts_next(self, envelope: Envelope) -> Root:
        """The root in `envelope` if it is exactly version + 1 and signed by this and by its own keys."""
        self.require("root", envelope)
        following = Root.parse(envelope)
        if following.version != self.version + 1:
            raise SealpackError(
                "TRUST_ROLLBACK", f"root version {following.version} does not follow {self.version}"
            )
        return following


# Remembered, since a parcel may hold many roots and many documents, and each is held against each.
@lru_cache(maxsize=128)
def _signed(envelope: Envelope, key: PublicKey) -> bool:
    """Whether one of the signatures is a valid one by `key`; others under its keyid do no harm."""
    for signature in envelope.signatures:
        if signature.keyid != key.keyid:
            continue
        try:
            key.verify(signature.sig, envelope.signed_bytes)
        except SealpackError:
            continue
        return True
    return False


def _read_key(item: Any, path: str) -> tuple[PublicKey, PublicKey | None]:
    """A PEM text, or an object of an ECDSA key and its ML-DSA key."""
    if isinstance(item, str):
        key, second = PublicKey.from_pem(item), None
    else:
        f = Fields(item, path, "TRUST_INVALID")
        key = PublicKey.from_pem(f.text("pem"))
        second = mldsa_beside(f, key)
        if second is None:
            raise SealpackError("TRUST_INVALID", f"{path} has no mldsa_pem; a single key is a PEM text")
    if key.scheme == ML_DSA:
        raise SealpackError("TRUST_INVALID", f"{path}: an ML-DSA key stands beside an ECDSA key, never alone")
    return key, second


def mldsa_beside(f: Fields, key: PublicKey) -> PublicKey | None:
    """The member `mldsa_pem` of a key's object, None without one; TRUST_INVALID unless `key` is ECDSA."""
    pem = f.text("mldsa_pem", default=None)
    if pem is None:
        return None
    made = PublicKey.from_pem(pem)
    if made.scheme != ML_DSA or key.scheme != ECDSA:
        raise SealpackError("TRUST_INVALID", f"{f.what}.mldsa_pem is not an ML-DSA key beside an ECDSA key")
    return made


def require_crit(f: Fields, has_mldsa: bool) -> None:
    """A document with ML-DSA keys names the scheme in `crit`; TRUST_INVALID.

    Readers that would pass over the keys, and accept what lacks the second signature, refuse it then.
    """
    if has_mldsa and ML_DSA not in f.texts("crit", default=()):
        raise SealpackError("TRUST_INVALID", f"{f.what} has ML-DSA keys and does not name {ML_DSA} in crit")


def _read_role(f: Fields, by_id: dict[str, PublicKey]) -> tuple[int, frozenset[str]]:
    keyids = f.texts("keyids", pattern=DIGEST, max_items=64)
    if len(set(keyids)) != len(keyids) or not set(keyids) <= set(by_id):
        raise SealpackError("TRUST_INVALID", f"{f.what}.keyids names an unknown key or one twice")
    if not keyids:
        raise f.fail("keyids", "names no key")
    return f.integer("threshold", lo=1, hi=len(keyids)), frozenset(keyids)
