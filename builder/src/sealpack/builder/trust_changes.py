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

from sealpack.builder.trust_author import PURPOSES, crit, names, root_document
from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, PublicKey, Signer
from sealpack.format.trust import ROOT_ROLES, KeyEntry, Keyring, Revocations, Root, Trust

# Which scheme a key of each role has; specs/keys.md.
_OF_ONE_KEY = frozenset({"revoked_from", "mldsa_pem", "schemes"})
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
    """The keyring entry whose keyid is, or alone begins with, `name`; USAGE otherwise.

    A beginning has at least 8 digits: what is done to a key by mistake is not undone.
    """
    if len(name) < 8:
        raise SealpackError("USAGE", f"{name!r} is too short: give at least 8 digits of the key id")
    found = [entry for keyid, entry in trust.keyring.entries.items() if keyid.startswith(name)]
    if len(found) != 1:
        count = "no key of the keyring begins" if not found else f"{len(found)} keys of the keyring begin"
        raise SealpackError(
            "USAGE",
            f"{count} with {name[:64]!r}",
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
    if not used:
        raise SealpackError("USAGE", f"{chosen} has no key in the keyring yet: say what for with --namespace")
    if len(used) != 1:
        raise SealpackError("USAGE", f"the keys of {chosen} do not share one namespace: give --namespace")
    return chosen, next(iter(used))


def add_key(
    trust: Trust,
    root_keys: Sequence[Signer],
    key: PublicKey,
    *,
    mldsa: PublicKey | None = None,
    roles: Iterable[str],
    issuer: str,
    namespaces: Sequence[str],
    now: int,
) -> Trust:
    """The next keyring, with `key` in it; TRUST_THRESHOLD, USAGE. `now` is Unix seconds.

    With `mldsa` both keys have to sign.
    """
    wanted = sorted(set(roles))
    _check_new(trust, key, mldsa, wanted)
    row = {
        **names(key, mldsa),
        "issuer": issuer,
        "roles": wanted,
        "namespaces": list(dict.fromkeys(namespaces)),
        "status": "active",
        "since": _issued_at(trust.keyring, now),
    }
    rows = [*_payload(trust.keyring)["keys"], row]
    return trust.update([_next(trust.root, trust.keyring, root_keys, now, {"keys": rows})])


def replace_key(
    trust: Trust,
    root_keys: Sequence[Signer],
    old: KeyEntry,
    key: PublicKey,
    *,
    mldsa: PublicKey | None = None,
    now: int,
) -> Trust:
    """The next keyring: `key` may sign what `old` may, and `old` is retired; TRUST_THRESHOLD, USAGE.

    What the old key signed stays good. A stolen key has to be revoked as well. A key with an ML-DSA key
    beside it is not replaced by one without.
    """
    if old.status == "retired":
        raise SealpackError("USAGE", f"key {old.key.keyid[:16]} is retired already")
    if old.mldsa is not None and mldsa is None:
        raise SealpackError(
            "USAGE",
            f"key {old.key.keyid[:16]} signs with an ML-DSA key",
            remedy="give the new one with --mldsa",
        )
    _check_new(trust, key, mldsa, old.roles)
    rows = []
    for row in _payload(trust.keyring)["keys"]:
        if row["keyid"] != old.key.keyid:
            rows.append(row)
            continue
        rows.append({**row, "status": "retired"})
        kept = {k: v for k, v in row.items() if k not in _OF_ONE_KEY}
        rows.append(kept | names(key, mldsa) | {"since": _issued_at(trust.keyring, now)})
    return trust.update([_next(trust.root, trust.keyring, root_keys, now, {"keys": rows})])


def replace_root(
    trust: Trust,
    root_keys: Sequence[Signer],
    keys: Sequence[PublicKey],
    new_keys: Sequence[Signer],
    *,
    mldsa: Mapping[str, PublicKey] | None = None,
    threshold: int,
    now: int,
) -> Trust:
    """The next root, made of `keys`, with keyring and revocations signed anew; TRUST_THRESHOLD, USAGE.

    `root_keys` sign as the old root asks; with `new_keys` they make up `threshold` of `keys`. `mldsa`:
    keyid -> the ML-DSA key that has to sign beside it; a root that has some keeps having them.
    """
    beside = mldsa or {}
    if trust.root.mldsa and len(beside) < len(keys):
        raise SealpackError(
            "USAGE", "the root signs with ML-DSA keys", remedy="give the new ones with --mldsa"
        )
    _check_root_keys(trust, [*keys, *beside.values()], threshold, len(keys))
    signers = {k.keyid: k for k in (*_signers(trust.root, "root", root_keys), *new_keys)}
    root = root_document(keys, list(signers.values()), trust.root.version + 1, threshold, now, beside)
    following, all_keys = _parsed(root), list(signers.values())
    rest = [_next(following, part, all_keys, now, {}) for part in (trust.keyring, trust.revocations)]
    return trust.update([root, *rest])


def _check_root_keys(trust: Trust, keys: Sequence[PublicKey], threshold: int, count: int) -> None:
    if len({key.der for key in keys}) != len(keys):
        raise SealpackError("USAGE", "the new root names one key twice")
    if not 1 <= threshold <= count:
        raise SealpackError("USAGE", f"a threshold of {threshold} needs that many root keys")
    listed = {key.der for entry in trust.keyring.entries.values() for key in entry.keys}
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


def revoke(trust: Trust, root_keys: Sequence[Signer], what: Withdrawal, *, now: int) -> Trust:
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


def _check_new(trust: Trust, key: PublicKey, mldsa: PublicKey | None, given: Iterable[str]) -> None:
    """Whether `key`, and `mldsa` beside it, may enter the keyring with these roles; USAGE."""
    roles = set(given)
    _check_unused(trust, key)
    if mldsa is not None:
        _check_unused(trust, mldsa)
        if key.scheme != ECDSA:
            raise SealpackError("USAGE", f"an ML-DSA key stands beside an {ECDSA} key, this is {key.scheme}")
    for role in sorted(roles):
        if SCHEME_OF[role] != key.scheme:
            raise SealpackError("USAGE", f"role {role} needs an {SCHEME_OF[role]} key, this is {key.scheme}")
    if {"ack", "witness"} <= roles:
        raise SealpackError("USAGE", "one key cannot acknowledge logs and witness them")


def _check_unused(trust: Trust, key: PublicKey) -> None:
    short = key.keyid[:16]
    if any(key.der == other.der for entry in trust.keyring.entries.values() for other in entry.keys):
        raise SealpackError("USAGE", f"key {short} is in the keyring already", remedy="make a new key")
    if key.keyid in trust.revocations.keys:
        raise SealpackError("USAGE", f"key {short} was revoked", remedy="make a new key")
    if any(other.der == key.der for other in (*trust.root.keys, *trust.root.mldsa.values())):
        raise SealpackError("USAGE", f"key {short} is a root key, which signs nothing else")


def _issued_at(part: Keyring | Revocations, now: int) -> int:
    """When the version after `part` is issued: never before it."""
    return max(now, part.issued_at)


def _payload(part: Keyring | Revocations) -> dict[str, Any]:
    payload: dict[str, Any] = canonical.loads(part.envelope.payload, what="trust document")
    return payload


def _next(
    root: Root, part: Keyring | Revocations, keys: Sequence[Signer], now: int, members: dict[str, Any]
) -> Envelope:
    """The version after `part`, with `members` changed, signed as `root` asks."""
    kind = documents.kind_of(part.envelope)
    payload = _payload(part) | {"version": part.version + 1, "issued_at": _issued_at(part, now)} | members
    if kind == "keyring":
        payload |= crit(payload["keys"], payload.get("crit", ()))
    return documents.seal(kind, payload, *_signers(root, kind, keys))


def _signers(root: Root, role: str, keys: Sequence[Signer]) -> list[Signer]:
    """Those of `keys` that the root gives `role`, each once; TRUST_THRESHOLD when they are too few.

    A root key that has an ML-DSA key beside it counts only together with that one.
    """
    assert role in ROOT_ROLES
    threshold, allowed = root.roles[role]
    given = {key.keyid: key for key in keys}
    pairs = [(keyid, *([root.mldsa[keyid].keyid] if keyid in root.mldsa else [])) for keyid in allowed]
    good = [pair for pair in pairs if set(pair) <= set(given)]
    if len(good) < threshold:
        beside = " (each with its ML-DSA key)" if root.mldsa else ""
        raise SealpackError(
            "TRUST_THRESHOLD",
            f"{role}: root v{root.version} asks for {threshold} of its keys{beside}, {len(good)} given",
            remedy="give more of the root's keys",
        )
    return [given[keyid] for pair in good for keyid in pair]
