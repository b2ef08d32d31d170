"""Writing trust documents: the first root, keyring and revocations of a creator, and any later root.

Source: specs/trust.md. Reading and judging them is the format's business; what is written here is
read back through it before anybody gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ED25519, ML_DSA, PublicKey, Signer
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
    """A key to be listed in the keyring, with the purpose that decides its roles.

    With `mldsa` both keys have to sign.
    """

    key: PublicKey
    purpose: str
    mldsa: PublicKey | None = None


@dataclass(frozen=True, slots=True)
class RootSigners:
    """The root's keys that are at hand; `mldsa` are those beside them, by the keyid of the first."""

    keys: Sequence[Signer]
    mldsa: Mapping[str, Signer] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Signer, ...]:
        """Every key that signs."""
        return (*self.keys, *self.mldsa.values())


def first_trust(
    root_keys: Sequence[Signer] | RootSigners,
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
    held = root_keys if isinstance(root_keys, RootSigners) else RootSigners(root_keys)
    if not 1 <= threshold <= len(held.keys):
        raise SealpackError("USAGE", f"a threshold of {threshold} needs that many root keys")
    mldsa = {keyid: key.public for keyid, key in held.mldsa.items()}
    root = root_document([key.public for key in held.keys], held.all, 1, threshold, now, mldsa)
    keyring = _keyring(held.all, list(grants), issuer, list(namespaces), now)
    return Trust.from_envelopes(root, keyring, _revocations(held.all, now))


def root_document(
    keys: Iterable[PublicKey],
    signers: Sequence[Signer],
    version: int,
    threshold: int,
    now: int,
    mldsa: Mapping[str, PublicKey],
) -> Envelope:
    """A root of `keys`: `threshold` of them for every role.

    `mldsa`: keyid of a key -> the ML-DSA key that signs beside it.
    """
    ordered = sorted(keys, key=lambda key: key.keyid)
    role = {"threshold": threshold, "keyids": [key.keyid for key in ordered]}
    payload = {
        "version": version,
        "issued_at": now,
        "keys": [_root_key(key, mldsa.get(key.keyid)) for key in ordered],
        "roles": dict.fromkeys(ROOT_ROLES, role),
        **({"crit": [ML_DSA]} if mldsa else {}),
    }
    return documents.seal("root", payload, *signers)


def _keyring(
    keys: Sequence[Signer],
    grants: list[KeyGrant],
    issuer: str,
    namespaces: list[str],
    now: int,
) -> Envelope:
    rows = [
        {
            **names(grant.key, grant.mldsa),
            "issuer": issuer,
            "roles": list(PURPOSES[grant.purpose][1]),
            "namespaces": namespaces,
            "status": "active",
            "since": now,
        }
        for grant in grants
    ]
    payload = {"version": 1, "issued_at": now, "keys": rows} | crit(rows)
    return documents.seal("keyring", payload, *keys)


def _root_key(key: PublicKey, mldsa: PublicKey | None) -> str | dict[str, str]:
    return key.pem if mldsa is None else {"pem": key.pem, "mldsa_pem": mldsa.pem}


def names(key: PublicKey, mldsa: PublicKey | None) -> dict[str, Any]:
    """The members of a keyring entry that say which key it is, and what it has to sign with."""
    own = {"keyid": key.keyid, "pem": key.pem, "scheme": key.scheme}
    return own if mldsa is None else own | {"mldsa_pem": mldsa.pem, "schemes": [key.scheme, ML_DSA]}


def crit(rows: Iterable[Mapping[str, Any]], known: Iterable[str] = ()) -> dict[str, list[str]]:
    """The member `crit` of a keyring with these entries: older readers must not pass over ML-DSA keys."""
    needed = {ML_DSA} if any("mldsa_pem" in row for row in rows) else set()
    found = sorted({*known, *needed})
    return {"crit": found} if found else {}


def _revocations(keys: Sequence[Signer], now: int) -> Envelope:
    empty: dict[str, list[str]] = {name: [] for name in ("keys", "bundles", "licenses", "devices", "floors")}
    return documents.seal("revocations", {"version": 1, "issued_at": now, **empty}, *keys)
