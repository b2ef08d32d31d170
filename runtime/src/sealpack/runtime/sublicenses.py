"""Sub-licenses on a device: which parent stands above which, and what a delegate may not do.

Source: specs/sublicense.md, "On a device". A sub-license is kept with its parent's envelope under its own
id (kinds `sublicense` and `parent`); the parent is not installed as a license by that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sealpack.format import documents
from sealpack.format.activation import Lease
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.sublicense import Sublicense
from sealpack.runtime import timekeeper
from sealpack.runtime.clock import TOLERANCE_MS
from sealpack.runtime.words import day


@dataclass(frozen=True, slots=True)
class Pair:
    """A sub-license and the newest parent at hand; neither is verified here."""

    sublicense: Envelope
    parent_id: str
    parent: Envelope | None


def gather(db: sqlite3.Connection, envelopes: Iterable[Envelope]) -> dict[str, Pair]:
    """The sub-licenses that are here, and those that come in, by id: newest first."""
    came: dict[str, list[Envelope]] = {"license": [], "sublicense": []}
    for envelope in envelopes:
        came.get(documents.kind_of(envelope), []).append(envelope)
    stored = _stored(db, "sublicense")
    parents = [*came["license"], *_stored(db, "parent").values(), *_stored(db, "license").values()]
    found: dict[str, Pair] = {}
    for envelope in sorted((*stored.values(), *came["sublicense"]), key=_seq):
        said = Sublicense.read(envelope)
        above = [p for p in parents if license_id(p) == said.parent.license_id]
        found[said.license_id] = Pair(envelope, said.parent.license_id, max(above, key=_seq, default=None))
    return found


def below(db: sqlite3.Connection, license: License) -> Iterator[str]:
    """The installed sub-licenses for which this verified license is a newer parent; LIC_CONFLICT."""
    for name, parent in _stored(db, "parent").items():
        if license_id(parent) != license.license_id:
            continue
        seq = _seq(parent)
        if seq == license.seq and parent.digest != license.digest:
            raise SealpackError(
                "LIC_CONFLICT", f"two different licenses {license.license_id} carry the number {seq}"
            )
        if seq < license.seq:
            yield name


def require_past(db: sqlite3.Connection, lease: Lease) -> None:
    """A delegate's lease is not dated ahead of this device's clocks, or it would last longer; else
    SUBLICENSE_INVALID."""
    times = timekeeper.observe(db).times
    latest = max(times.soft, times.expiry or 0) + TOLERANCE_MS
    if lease.issued_at * 1000 > latest:
        raise SealpackError(
            "SUBLICENSE_INVALID",
            f"the delegate's lease is dated {day(lease.issued_at)}, it is {day(latest // 1000)} here",
            remedy="set the clock of this machine right, and install the file again",
        )


def license_id(envelope: Envelope) -> str:
    """The license a document says it is about; it is not verified."""
    return documents.payload_fields(envelope, documents.kind_of(envelope)).text("license_id", default="")


def _seq(envelope: Envelope) -> int:
    return documents.payload_fields(envelope, documents.kind_of(envelope)).integer("seq", lo=1)


def _stored(db: sqlite3.Connection, kind: str) -> dict[str, Envelope]:
    rows = db.execute("SELECT license_id, envelope FROM documents WHERE kind=?", (kind,))
    return {row[0]: Envelope.from_bytes(row[1], kind) for row in rows}
