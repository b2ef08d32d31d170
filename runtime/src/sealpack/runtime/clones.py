"""Two machines with one identity: what settlement says of it, until somebody decides.

Source: specs/acknowledgement.md, "Algorithm". Only settlement can see that two histories were signed by one
device; its acknowledgement says so, and from then on no call runs here.
"""

from __future__ import annotations

import sqlite3

from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.dsse import Envelope
from sealpack.runtime import rights
from sealpack.runtime.log import Before, Log

KIND = "frozen"  # of the stored acknowledgement that says so
_LEAVE = ("activation", "epoch-token", "repair")  # what names a log that may begin


def is_suspect(db: sqlite3.Connection, license_id: str) -> bool:
    """Whether settlement said that a second machine uses this device's identity under the license."""
    return rights.stored(db, KIND, license_id) is not None


def is_decided(db: sqlite3.Connection, ack: Acknowledgement, found: Log | None) -> bool:
    """Whether a verified statement of a fork is older than what is known here of it.

    `found` is the license's newest log. The issuer's leave for a later log, or a later acknowledgement,
    decides.
    """
    if found is not None and found.origin == ack.origin and ack.ack_seq <= found.ack_seq:
        return True
    newest = rights.stored(db, "acknowledgement", ack.license_id)
    if newest is not None and _integer(newest, "server_time") > ack.server_time:
        return True
    leave = [rights.stored(db, kind, ack.license_id) for kind in _LEAVE]
    return any(said is not None and _integer(said, "epoch") > ack.epoch for said in leave)


def decide(db: sqlite3.Connection, license_id: str, epoch: int) -> bool:
    """The issuer lets this device begin log `epoch`: forks of the logs before it are decided.

    Returns whether there was one.
    """
    said = rights.stored(db, KIND, license_id)
    if said is None or _integer(said, "epoch") >= epoch:
        return False
    rights.forget(db, KIND, license_id)
    return True


def end_of(db: sqlite3.Connection, history: Log) -> Before:
    """Where a log ends that settlement takes no more of, with all that was used under the license."""
    registers: dict[str, dict[str, int]] = {}
    rows = db.execute(
        "SELECT period, meter, used FROM counters"
        " WHERE license_id=? AND used>0 AND period>='bundle:' AND period<'bundle;'",
        (history.license_id,),
    )
    for period, meter, used in rows:
        registers.setdefault(period.removeprefix("bundle:"), {})[meter] = used
    return Before(history.origin, history.size, history.frontier.root.hex(), registers)


def _integer(stored: Envelope, name: str) -> int:
    """A member of a document that was verified before it was stored; 0 where it is left out."""
    value: int = documents.payload_fields(stored, documents.kind_of(stored)).integer(name, default=0)
    return value
