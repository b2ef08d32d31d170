"""Reading the meters: what was used, signed, for a site that lets nothing out but what stands on a screen.

Source: specs/reading.md. The log itself says that it was read, and shows the same registers in a tally.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from sealpack.format import documents, records
from sealpack.format.documents import Parcel
from sealpack.format.keys import PrivateKey
from sealpack.format.note import open_checkpoint
from sealpack.format.reading import Reading
from sealpack.format.records import Registers, parse_record
from sealpack.runtime import device, epochs, holds, log, receipts, timekeeper
from sealpack.runtime.log import Log
from sealpack.runtime.state import State

REASON = "reading"


@dataclass(frozen=True, slots=True)
class Taken:
    """A reading of one log and its document."""

    license_id: str
    origin: str
    size: int
    registers: Registers
    document: bytes


def take(state: State, license_id: str | None = None) -> list[Taken]:
    """Read the newest log of every license, or of one; LIC_MISSING, and as for an export."""
    entries = receipts.pending(state, license_id)
    signer = device.key(state.home)
    with state.write() as db:
        moment = timekeeper.observe(db)
        stopped = epochs.catch_up_all(db, signer, moment)
        holds.sweep(db, state.home, signer, moment)
    told = [error for name, error in stopped.items() if license_id in (None, name)]
    if told:
        raise told[0]
    newest = {entry.license.license_id: entry for entry in receipts.pending(state, license_id)}
    assert newest or not entries, "logs are never removed"
    return [_read(state, entry.log.log, signer) for entry in newest.values()]


def _read(state: State, number: int, signer: PrivateKey) -> Taken:
    found = receipts.mark(state, number, signer, REASON)
    with state.read() as db:
        registers = log.registers(db, number)
        made = Reading(
            signer.public, open_checkpoint(found.checkpoint, signer.public), found.checkpoint, registers,
            _routes(db, found, registers), _used_at(db, found), found.ack_seq,
        )  # fmt: skip
    document = Parcel((documents.seal("reading", made.to_dict(), signer),)).to_bytes()
    return Taken(found.license_id, found.origin, found.size, registers, document)


def _routes(db: sqlite3.Connection, found: Log, registers: Registers) -> dict[str, tuple[int, str]]:
    """Number of the license document and build of every route that counted something."""
    used = {route for route, _, _ in registers.totals}
    entries: dict[str, Any] = log.routes(db, found.log)
    return {route: (entries[route]["seq"], entries[route]["bundle_digest"]) for route in sorted(used)}


def _used_at(db: sqlite3.Connection, found: Log) -> int:
    """When the newest call ended, UTC ms; 0 before the first."""
    row = db.execute(
        "SELECT record FROM leaves WHERE log=? AND kind IN (?,?) ORDER BY n DESC LIMIT 1",
        (found.log, records.USAGE, records.LOST),
    ).fetchone()
    return 0 if row is None else parse_record(row[0]).time_ms
