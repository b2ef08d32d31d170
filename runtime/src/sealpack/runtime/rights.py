"""The license documents on this device, verified again each time they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sealpack.format import documents
from sealpack.format.activation import Activation, Lease
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.license import License, open_license
from sealpack.format.sublicense import Chain, open_sublicense
from sealpack.format.trust import Trust
from sealpack.runtime import anchors
from sealpack.runtime.admission import Build, environment_mismatch
from sealpack.runtime.store import Installed

# Why a document that was good when it was stored may not be any more: its key was revoked or is gone.
_NO_LONGER = frozenset(
    {"KEY_REVOKED", "LIC_KEY_UNTRUSTED", "SIG_KEY_UNKNOWN", "SIG_KEY_ROLE", "SIG_NAMESPACE"}
) | {"SUBLICENSE_INVALID"}  # the parent was superseded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rights:
    """A license with what belongs to it on this device, and the root that vouches for it."""

    license: License
    trust: Trust
    activation: Activation | None
    lease: Lease | None


def stored(db: sqlite3.Connection, kind: str, license_id: str) -> Envelope | None:
    """The stored document of a kind for a license, not verified."""
    row = db.execute(
        "SELECT envelope FROM documents WHERE kind=? AND license_id=?", (kind, license_id)
    ).fetchone()
    return None if row is None else Envelope.from_bytes(row[0], kind)


def keep(db: sqlite3.Connection, kind: str, license_id: str, envelope: Envelope) -> None:
    """Store a verified document in place of the older one."""
    db.execute(
        "INSERT INTO documents VALUES(?,?,?,?) ON CONFLICT(kind, license_id)"
        " DO UPDATE SET digest=excluded.digest, envelope=excluded.envelope",
        (kind, license_id, envelope.digest, envelope.to_bytes()),
    )


def forget(db: sqlite3.Connection, kind: str, license_id: str) -> None:
    """Drop a stored document that turned out not to count."""
    db.execute("DELETE FROM documents WHERE kind=? AND license_id=?", (kind, license_id))


def fingerprint(db: sqlite3.Connection, license_id: str) -> tuple[object, ...]:
    """Changes whenever a document that bears on this license does."""
    documents = db.execute(
        "SELECT kind, digest FROM documents WHERE license_id=? ORDER BY kind", (license_id,)
    ).fetchall()
    chains = db.execute("SELECT anchor, length(newer), newer FROM trust ORDER BY anchor").fetchall()
    return (*documents, *chains)


def license_ids(db: sqlite3.Connection) -> list[str]:
    """Every license and sub-license installed here."""
    rows = db.execute(
        "SELECT license_id FROM documents WHERE kind IN ('license', 'sublicense') ORDER BY license_id"
    )
    return [row[0] for row in rows]


def read(db: sqlite3.Connection, license_id: str, trusts: Sequence[Trust]) -> Rights:
    """Verify and read everything about a license; LIC_MISSING, LIC_SIG_INVALID, LIC_KEY_UNTRUSTED."""
    envelope = stored(db, "license", license_id) or stored(db, "sublicense", license_id)
    if envelope is None:
        raise SealpackError("LIC_MISSING", f"license {license_id} is not installed here")
    beside = stored(db, "activation", license_id), stored(db, "lease", license_id)
    return verified(envelope, trusts, *beside, parent=stored(db, "parent", license_id))


def still(read: Callable[[], T]) -> T | None:
    """What `read` makes of a stored document; None when its signer is no longer believed."""
    try:
        return read()
    except SealpackError as error:
        if error.code not in _NO_LONGER:
            raise
        return None


def name_of(db: sqlite3.Connection, license_id: str, trusts: Sequence[Trust]) -> License:
    """The license, for who only tells of it: one that is no longer believed, as it stands there.

    A sub-license then goes by its parent's names. What was used under either is billed all the same.
    """
    found = still(lambda: read(db, license_id, trusts))
    if found is not None:
        return found.license
    envelope = stored(db, "license", license_id) or stored(db, "parent", license_id)
    assert envelope is not None, "it was read a moment ago"
    license = License.parse(documents.payload_fields(envelope, "license", "LIC_SCHEMA"), envelope.digest)
    return replace(license, license_id=license_id)


def standing(db: sqlite3.Connection, names: Sequence[str], trusts: Sequence[Trust]) -> list[Rights]:
    """:func:`read` for each; a sub-license whose parent gave it up stands in no other license's way."""
    found: list[Rights] = []
    ended: SealpackError | None = None
    for name in names:
        try:
            found.append(read(db, name, trusts))
        except SealpackError as error:
            if error.code != "SUBLICENSE_INVALID":
                raise
            ended = error
    if ended is not None and not found:
        raise ended
    return found


def verified(
    license: Envelope,
    trusts: Sequence[Trust],
    activation: Envelope | None = None,
    lease: Envelope | None = None,
    *,
    parent: Envelope | None = None,
) -> Rights:
    """Open the documents of one license under the root that knows its signer; with `parent` a sub-license."""
    if parent is not None:
        return _below(license, parent, trusts, activation, lease)
    opened, trust = anchors.under_any(trusts, lambda trust: (open_license(license, trust), trust))
    return Rights(
        opened,
        trust,
        Activation.open(activation, trust, opened.issuer) if activation else None,
        Lease.open(lease, trust, opened.issuer) if lease else None,
    )


def chain(sublicense: Envelope, parent: Envelope, trusts: Sequence[Trust]) -> tuple[Chain, Trust]:
    """Open a sub-license under its parent, and that under the root that knows its signer."""
    return anchors.under_any(
        trusts, lambda trust: (open_sublicense(sublicense, trust, open_license(parent, trust)), trust)
    )


def _below(
    sublicense: Envelope,
    parent: Envelope,
    trusts: Sequence[Trust],
    activation: Envelope | None,
    lease: Envelope | None,
) -> Rights:
    """What beside a sub-license is not signed by its delegate is signed by the parent's issuer."""
    found, trust = chain(sublicense, parent, trusts)
    issuer = found.license.issuer
    activated = leased = None
    if activation is not None:
        own = found.signed(activation)
        activated = found.open_activation(activation) if own else Activation.open(activation, trust, issuer)
    if lease is not None:
        own = found.signed(lease)
        leased = found.open_lease(lease) if own else Lease.open(lease, trust, issuer)
    return Rights(found.license, trust, activated, leased)


def choose(
    candidates: Sequence[Rights], build: Build, wanted: str | None, environment: str | None = None
) -> Rights:
    """The license that applies to a build: the wanted one, else the only one that covers it.

    With `environment` only licenses of that kind are looked at; ENV_MISMATCH when just others fit.
    """
    if wanted is not None:
        for rights in candidates:
            if rights.license.license_id == wanted:
                return rights
        raise SealpackError("LIC_MISSING", f"license {wanted} is not installed here")
    fitting = [
        r
        for r in candidates
        if r.license.covers(build.bundle_id, build.version, build.bundle_digest)
        and build.license_id in (None, r.license.license_id, r.license.parent_id)
    ]
    others, fitting = fitting, [r for r in fitting if environment in (None, r.license.environment)]
    if others and not fitting:
        raise environment_mismatch(others[0].license, environment)
    if len(fitting) > 1:
        names = ", ".join(r.license.license_id for r in fitting)
        raise SealpackError("LIC_AMBIGUOUS", f"licenses {names} all cover {build.bundle_id}")
    if fitting:
        return fitting[0]
    if candidates:
        raise SealpackError(
            "BUNDLE_MISMATCH", f"no installed license covers {build.bundle_id} {build.version}"
        )
    raise SealpackError("LIC_MISSING", f"there is no license for {build.bundle_id} on this machine")


def build_of(found: Installed) -> Build:
    """What admission needs to know of an installed bundle."""
    return Build(
        found.bundle_id,
        found.version,
        found.bundle_digest,
        found.release_index,
        found.signer,
        found.signed_digest,
        found.signed_at,
        found.marked_for or None,
        tuple(found.needs.split()),
    )
