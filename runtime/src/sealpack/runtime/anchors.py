"""The trust roots this runtime believes, and what is newer under them.

Source: specs/trust.md, "Roots on a device". An installed runtime pins a root once (`sealpack trust
pin`). A frozen runtime reads only `roots.json` in its own folder: no path, variable, argument or
setting adds one. Newer trust documents that arrive in bundles, licenses and acknowledgements are kept
beside the root they belong to and only ever move forward.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from sealpack.format import canonical, documents
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.files import read_bounded
from sealpack.format.limits import LIMITS
from sealpack.format.trust import Trust
from sealpack.runtime import machine, proofs, timekeeper
from sealpack.runtime.state import State

ROOTS_SCHEMA = "sealpack/roots/v1"
ROOTS_FILE = "roots.json"
_TRUST_KINDS = ("root", "keyring", "revocations")
# Failures that mean "not this vendor", so that another root may still vouch for the document.
_UNKNOWN = frozenset({"SIG_KEY_UNKNOWN", "LIC_KEY_UNTRUSTED"})
_OTHER_CHAIN = frozenset({"TRUST_CONFLICT", "TRUST_THRESHOLD", "TRUST_ROLLBACK"})  # of what rides along

T = TypeVar("T")


def read_roots(data: bytes) -> list[Trust]:
    """The trust files in a roots file (`{"schema", "roots": [trust file...]}`), or one trust file."""
    value = canonical.loads(data, max_bytes=LIMITS.parcel_bytes, what=ROOTS_FILE)
    f = Fields(value, ROOTS_FILE, "TRUST_INVALID")
    if f.text("schema", max_len=100) != ROOTS_SCHEMA:
        return [Trust.load(data)]
    return list(f.array("roots", lambda item, _: Trust.load(canonical.dumps(item)), max_items=64))


def pin(state: State, trust: Trust) -> None:
    """Believe this root from now on.

    The first pin decides; TRUST_CONFLICT for a root that is not a successor it vouches for. A frozen
    runtime refuses: its roots come with it.
    """
    if machine.frozen():
        raise SealpackError(
            "TRUST_CONFLICT",
            "this runtime carries its own roots and takes no others",
            remedy="use the runtime that came with your bundles",
        )
    with state.write() as db:
        row = db.execute("SELECT anchor FROM trust").fetchone()
        if row is None:
            empty = Parcel(()).to_bytes()
            db.execute("INSERT INTO trust VALUES(?,?,?)", (trust.root_digest, trust.to_bytes(), empty))
            return
        try:
            _ratchet(db, list(trust.envelopes))
        except SealpackError:
            if trust.root_digest == row[0]:
                raise  # else it is a stranger's, told below
        if trust.root_digest not in (row[0], *(known.root_digest for known in believed(db))):
            raise SealpackError(
                "TRUST_CONFLICT",
                f"root {row[0][:16]} is pinned already, and does not vouch for {trust.root_digest[:16]}",
                remedy="compare both fingerprints with the vendor; another root needs another state",
            )


def load(state: State) -> list[Trust]:
    """Every believed root with the newest documents under it; TRUST_UNPINNED when there is none."""
    with state.read() as db:
        return current(db)


def current(db: sqlite3.Connection) -> list[Trust]:
    """:func:`load` inside a transaction."""
    found = believed(db)
    if not found:
        raise SealpackError("TRUST_UNPINNED", "no trust root is pinned in this state directory")
    return found


def believed(db: sqlite3.Connection) -> list[Trust]:
    """:func:`current`, or nothing when nothing is pinned."""
    return [newest for _, newest in _anchors(db)]


def ratchet(db: sqlite3.Connection, envelopes: Iterable[Envelope]) -> list[Envelope]:
    """Take over every newer trust document that a known root vouches for; others are left alone.

    Returns what was taken over.
    """
    return _ratchet(db, [e for e in envelopes if documents.kind_of(e) in _TRUST_KINDS])


def _ratchet(db: sqlite3.Connection, envelopes: list[Envelope]) -> list[Envelope]:
    taken: list[Envelope] = []
    conflict: SealpackError | None = None
    fits = not envelopes
    for anchor, known in _anchors(db) if envelopes else ():
        try:
            newer = known.update(envelopes)
        except SealpackError as error:
            if error.code == "TRUST_CONFLICT":
                conflict = error
            elif error.code not in ("TRUST_THRESHOLD", "TRUST_INVALID", "TRUST_ROLLBACK"):
                raise
            continue  # another vendor's chain: nothing this root says anything about
        fits = True
        if newer != known:
            accepted = _accepted(known, newer, envelopes)
            _remember(db, anchor, known, accepted)
            taken += accepted
        if newer.root.version != known.root.version:
            others = (trust for name, trust in _anchors(db) if name != anchor)
            kept = [proofs.newest(db, newer, not_after=newer.root.issued_at)]
            timekeeper.restart(db, max(kept + [proofs.newest(db, trust) for trust in others]))
    if conflict is not None and not fits:  # with several vendors, each one's chain conflicts with the others'
        raise conflict
    return taken


def _accepted(known: Trust, newer: Trust, envelopes: list[Envelope]) -> list[Envelope]:
    """What was taken over, in the order in which it can be taken over again one by one."""
    steps = {_root_version(e): e for e in envelopes if documents.kind_of(e) == "root"}
    roots = [steps[v] for v in range(known.root.version + 1, newer.root.version + 1)]
    pairs = ((known.keyring, newer.keyring), (known.revocations, newer.revocations))
    return roots + [new.envelope for old, new in pairs if new.envelope.digest != old.envelope.digest]


def _root_version(envelope: Envelope) -> int:
    return documents.payload_fields(envelope, "root", "TRUST_INVALID").integer("version", lo=1)


def _remember(db: sqlite3.Connection, anchor: str, known: Trust, accepted: list[Envelope]) -> None:
    """Keep every root, and of the other kinds the newest: older ones lead nowhere any more."""
    row = db.execute("SELECT newer FROM trust WHERE anchor=?", (anchor,)).fetchone()
    kept = Parcel.from_bytes(row[0]).documents if row else ()
    replaced = {documents.kind_of(e) for e in accepted} - {"root"}
    chain = [e for e in kept if documents.kind_of(e) not in replaced] + accepted
    db.execute(
        "INSERT INTO trust VALUES(?,?,?) ON CONFLICT(anchor) DO UPDATE SET newer=excluded.newer",
        (anchor, known.to_bytes(), Parcel(tuple(chain)).to_bytes()),
    )


def _anchors(db: sqlite3.Connection) -> list[tuple[str, Trust]]:
    newer = {row[0]: row[1:] for row in db.execute("SELECT anchor, pinned, newer FROM trust")}
    if machine.frozen():
        pinned = read_roots(read_bounded(Path(sys.executable).parent / ROOTS_FILE, LIMITS.parcel_bytes))
    else:
        pinned = [Trust.load(row[0]) for row in newer.values()]
    found = []
    for trust in pinned:
        row = newer.get(trust.root_digest)
        newest = trust
        for envelope in Parcel.from_bytes(row[1]).documents if row else ():
            newest = newest.update([envelope])  # one by one: each was good when it was the newest
        found.append((trust.root_digest, newest))
    return found


def under_any(trusts: Iterable[Trust], use: Callable[[Trust], T]) -> T:
    """The result of `use` under the first root that knows the signer, and the trust that rides along.

    Else the first failure that says more than that nobody knows the signer.
    """
    failure: SealpackError | None = None
    for trust in trusts:
        try:
            return use(trust)
        except SealpackError as error:
            if error.code not in _UNKNOWN | _OTHER_CHAIN:
                raise
            if failure is None or failure.code in _UNKNOWN:
                failure = error
    raise failure or SealpackError("TRUST_UNPINNED", "no trust root is pinned in this state directory")


def root_of(trusts: Iterable[Trust], use: Callable[[Trust], Any]) -> Trust:
    """The root under which `use` succeeds."""

    def check(trust: Trust) -> Trust:
        use(trust)
        return trust

    return under_any(trusts, check)
