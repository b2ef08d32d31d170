"""Changing trust: a key added or replaced, a new root, something withdrawn.

Source: specs/trust.md. Each function takes the trust as it stands and the root keys, writes the next
version of the documents concerned, and returns what every reader would make of them: the new documents
go through the same update rule as on a device, so nothing leaves here that a device would refuse.

Members of the old documents that this version does not know are carried over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sealpack.builder.trust_author import PURPOSES, root_document
from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.trust import ROOT_ROLES, KeyEntry, Keyring, Revocations, Root, Trust

# Which scheme a key of each role has; specs/keys.md.
SCHEME_OF = {role: scheme for scheme, roles in PURPOSES.values() for role in roles}


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What a new revocation list adds. `keys`: keyid -> payload digests that stay good."""

    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    bundles: frozenset[str] = frozenset()
    licenses: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    floors: Mapping[str, int] = field(default_factory=dict)


def find_key(trust: Trust, name: str) -> KeyEntry:
    """The keyring entry whose keyid is, or alone begins with, `name`; USAGE otherwise."""
    found = [entry for keyid, entry in trust.keyring.entries.items() if name and keyid.startswith(name)]
    if len(found) != 1:
        count = "no key" if not found else f"{len(found)} keys"
        raise SealpackError(
            "USAGE",
            f"{count} of the keyring begin with {name[:64]!r}",
            remedy="`sealpack trust show` lists the key ids",
        )
    return found[0]


def usual_names(trust: Trust, issuer: str | None, namespaces: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Issuer and namespaces of a further key: what is given, else what all the other keys have; USAGE."""
    entries = trust.keyring.entries.values()
    issuers = {entry.issuer for entry in entries}
    if issuer is None and len(issuers) != 1:
        raise SealpackError("USAGE", f"the keyring has {len(issuers)} issuers: say which with --issuer")
    chosen = issuer if issuer is not None else next(iter(issuers))
    if namespaces:
        return chosen, tuple(namespaces)
    used = {entry.namespaces for entry in entries if entry.issuer == chosen}
    if len(used) != 1:
        raise SealpackError("USAGE", f"the keys of {chosen} do not share one namespace: give --namespace")
    return chosen, next(iter(used))


def add_key(
    trust: Trust,
    root_keys: Sequence[PrivateKey],
    key: PublicKey,
    *,
    roles: Iterable[str],
    issuer: str,
    namespaces: Sequence[str],
    now: int,
) -> Trust:
    """The next keyring, with `key` in it; TRUST_THRESHOLD, USAGE. `now` is Unix seconds."""
    wanted = sorted(set(roles))
    _check_new(trust, key, wanted)
    row = {
        **_names(key),
        "issuer": issuer,
        "roles": wanted,
        "namespaces": list(dict.fromkeys(namespaces)),
        "status": "active",
    }
    rows = [*_payload(trust.keyring)["keys"], row]
    return trust.update([_next(trust.root, trust.keyring, root_keys, now, {"keys": rows})])


def replace_key(
    trust: Trust, root_keys: Sequence[PrivateKey], old: KeyEntry, key: PublicKey, *, now: int
) -> Trust:
    """The next keyring: `key` may sign what `old` may, and `old` is retired; TRUST_THRESHOLD, USAGE.

    What the old key signed stays good. A stolen key has to be revoked as well.
    """
    if old.status == "retired":
        raise SealpackError("USAGE", f"key {old.key.keyid[:16]} is retired already")
    _check_new(trust, key, old.roles)
    rows = []
    for row in _payload(trust.keyring)["keys"]:
        if row["keyid"] != old.key.keyid:
            rows.append(row)
            continue
        rows.append({**row, "status": "retired"})
        rows.append({k: v for k, v in row.items() if k != "revoked_from"} | _names(key))
    return trust.update([_next(trust.root, trust.keyring, root_keys, now, {"keys": rows})])


def replace_root(
    trust: Trust,
    root_keys: Sequence[PrivateKey],
    keys: Sequence[PublicKey],
    new_keys: Sequence[PrivateKey],
    *,
    threshold: int,
    now: int,
) -> Trust:
    """The next root, made of `keys`, with keyring and revocations signed anew; TRUST_THRESHOLD, USAGE.

    `root_keys` sign as the old root asks; with `new_keys` they make up `threshold` of `keys`.
    """
    _check_root_keys(trust, keys, threshold)
    signers = {k.keyid: k for k in (*_signers(trust.root, "root", root_keys), *new_keys)}
    root = root_document(keys, list(signers.values()), trust.root.version + 1, threshold, now)
    following, all_keys = _parsed(root), list(signers.values())
    rest = [_next(following, part, all_keys, now, {}) for part in (trust.keyring, trust.revocations)]
    return trust.update([root, *rest])


def _check_root_keys(trust: Trust, keys: Sequence[PublicKey], threshold: int) -> None:
    if len({key.der for key in keys}) != len(keys):
        raise SealpackError("USAGE", "the new root names one key twice")
    if not 1 <= threshold <= len(keys):
        raise SealpackError("USAGE", f"a threshold of {threshold} needs that many root keys")
    listed = {entry.key.der for entry in trust.keyring.entries.values()}
    for key in keys:
        if key.der in listed:
            raise SealpackError("USAGE", f"key {key.keyid[:16]} is in the keyring already")


def _parsed(root: Envelope) -> Root:
    """The new root; TRUST_THRESHOLD when its own keys do not sign it."""
    try:
        return Root.parse(root)
    except SealpackError as error:
        if error.code != "TRUST_THRESHOLD":
            raise
        raise SealpackError(
            error.code, error.message, remedy="give the private files of more new root keys"
        ) from None


def revoke(trust: Trust, root_keys: Sequence[PrivateKey], what: Withdrawal, *, now: int) -> Trust:
    """The next revocations: everything withdrawn before, and `what`; TRUST_THRESHOLD, USAGE.

    Floors only rise. Naming nothing that is new is USAGE: a version that says nothing helps nobody.
    """
    old = _payload(trust.revocations)
    lists: dict[str, Any] = {
        name: _union(name, old[name], getattr(what, name)) for name in ("bundles", "licenses", "devices")
    }
    good = {keyid: sorted(digests) for keyid, digests in what.keys.items()}
    lists["keys"] = _merged(old["keys"], "keyid", "good", good, _union)
    lists["floors"] = _merged(old["floors"], "bundle_id", "floor", what.floors, _raised)
    if all(lists[name] == old[name] for name in lists):
        raise SealpackError("USAGE", "everything named is in the revocations already")
    return trust.update([_next(trust.root, trust.revocations, root_keys, now, lists)])


def _merged(rows: list[Any], name: str, value: str, added: Mapping[str, Any], join: Any) -> list[Any]:
    """`rows` with the values of `added` joined in, new ones behind the old."""
    result = [
        {**row, value: join(row[name], row[value], added[row[name]])} if row[name] in added else row
        for row in rows
    ]
    known = {row[name] for row in rows}
    return result + [{name: k, value: v} for k, v in sorted(added.items()) if k not in known]


def _union(_name: str, old: list[str], new: Iterable[str]) -> list[str]:
    return old + sorted(set(new) - set(old))


def _raised(name: str, old: int, new: int) -> int:
    if new < old:
        raise SealpackError("USAGE", f"the floor of {name} is {old} and cannot go down to {new}")
    return new


def _check_new(trust: Trust, key: PublicKey, roles: Iterable[str]) -> None:
    """Whether `key` may enter the keyring with these roles; USAGE."""
    short, roles = key.keyid[:16], set(roles)
    if any(entry.key.der == key.der for entry in trust.keyring.entries.values()):
        raise SealpackError("USAGE", f"key {short} is in the keyring already", remedy="make a new key")
    if key.keyid in trust.revocations.keys:
        raise SealpackError("USAGE", f"key {short} was revoked", remedy="make a new key")
    if any(other.der == key.der for other in trust.root.keys):
        raise SealpackError("USAGE", f"key {short} is a root key, which signs nothing else")
    for role in sorted(roles):
        if SCHEME_OF[role] != key.scheme:
            raise SealpackError("USAGE", f"role {role} needs an {SCHEME_OF[role]} key, this is {key.scheme}")
    if {"ack", "witness"} <= roles:
        raise SealpackError("USAGE", "one key cannot acknowledge logs and witness them")


def _names(key: PublicKey) -> dict[str, str]:
    return {"keyid": key.keyid, "pem": key.pem, "scheme": key.scheme}


def _payload(part: Keyring | Revocations) -> dict[str, Any]:
    payload: dict[str, Any] = canonical.loads(part.envelope.payload, what="trust document")
    return payload


def _next(
    root: Root, part: Keyring | Revocations, keys: Sequence[PrivateKey], now: int, members: dict[str, Any]
) -> Envelope:
    """The version after `part`, with `members` changed, signed as `root` asks."""
    kind = documents.kind_of(part.envelope)
    stated = {"version": part.version + 1, "issued_at": max(now, part.issued_at)}
    return documents.seal(kind, _payload(part) | stated | members, *_signers(root, kind, keys))


def _signers(root: Root, role: str, keys: Sequence[PrivateKey]) -> list[PrivateKey]:
    """Those of `keys` that the root gives `role`, each once; TRUST_THRESHOLD when they are too few."""
    assert role in ROOT_ROLES
    threshold, allowed = root.roles[role]
    good = {key.keyid: key for key in keys if key.keyid in allowed}
    if len(good) < threshold:
        raise SealpackError(
            "TRUST_THRESHOLD",
            f"{role}: root version {root.version} asks for {threshold} of its keys, {len(good)} given",
            remedy="give more of the root's keys",
        )
    return list(good.values())
