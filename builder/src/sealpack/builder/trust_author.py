"""Writing trust documents: the first root, keyring and revocations of a creator, and any later root.

Source: specs/trust.md. Reading and judging them is the format's business; what is written here is
read back through it before anybody gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ED25519, PrivateKey, PublicKey
from sealpack.format.trust import ROOT_ROLES, Trust

# Which roles a key of each purpose gets. Device, acknowledgement and witness keys are never one key.
PURPOSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bundle": (ECDSA, ("bundle", "evidence")),
    "license": (ECDSA, ("license",)),
    "settlement": (ED25519, ("settlement", "ack")),
    "witness": (ED25519, ("witness",)),
}


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """A key to be listed in the keyring, with the purpose that decides its roles."""

    key: PublicKey
    purpose: str


def first_trust(
    root_keys: Sequence[PrivateKey],
    grants: Iterable[KeyGrant],
    *,
    issuer: str,
    namespaces: Sequence[str],
    now: int,
    threshold: int = 1,
) -> Trust:
    """Root, keyring and revocations, all version 1, signed by every root key.

    `threshold` root signatures will be needed for each later change. `now` is Unix seconds.
    """
    if not 1 <= threshold <= len(root_keys):
        raise SealpackError("USAGE", f"a threshold of {threshold} needs that many root keys")
    root = root_document([key.public for key in root_keys], root_keys, 1, threshold, now)
    keyring = _keyring(root_keys, list(grants), issuer, list(namespaces), now)
    return Trust.from_envelopes(root, keyring, _revocations(root_keys, now))


def root_document(
    keys: Iterable[PublicKey], signers: Sequence[PrivateKey], version: int, threshold: int, now: int
) -> Envelope:
    """A root of `keys`: `threshold` of them for every role."""
    ordered = sorted(keys, key=lambda key: key.keyid)
    role = {"threshold": threshold, "keyids": [key.keyid for key in ordered]}
    payload = {
        "version": version,
        "issued_at": now,
        "keys": [key.pem for key in ordered],
        "roles": dict.fromkeys(ROOT_ROLES, role),
    }
    return documents.seal("root", payload, *signers)


def _keyring(
    keys: Sequence[PrivateKey],
    grants: list[KeyGrant],
    issuer: str,
    namespaces: list[str],
    now: int,
) -> Envelope:
    rows = [
        {
            "keyid": grant.key.keyid,
            "pem": grant.key.pem,
            "scheme": grant.key.scheme,
            "issuer": issuer,
            "roles": list(PURPOSES[grant.purpose][1]),
            "namespaces": namespaces,
            "status": "active",
        }
        for grant in grants
    ]
    return documents.seal("keyring", {"version": 1, "issued_at": now, "keys": rows}, *keys)


def _revocations(keys: Sequence[PrivateKey], now: int) -> Envelope:
    empty: dict[str, list[str]] = {name: [] for name in ("keys", "bundles", "licenses", "devices", "floors")}
    return documents.seal("revocations", {"version": 1, "issued_at": now, **empty}, *keys)
