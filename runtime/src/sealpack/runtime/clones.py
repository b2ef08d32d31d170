"""Two machines with one identity: what settlement says of it, until somebody decides.

Source: specs/acknowledgement.md, "Algorithm". Only settlement can see that two histories were signed by one
device; its acknowledgement says so, and from then on no call runs here.
"""

from __future__ import annotations

import sqlite3

from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation
from sealpack.format.dsse import Envelope
from sealpack.runtime import rights
from sealpack.runtime.log import Log

KIND = "frozen"  # of the stored acknowledgement that says so


def is_suspect(db: sqlite3.Connection, license_id: str) -> bool:
    """Whether settlement said that a second machine uses this device's identity under the license."""
    return rights.stored(db, KIND, license_id) is not None


def is_decided(db: sqlite3.Connection, ack: Acknowledgement, found: Log | None) -> bool:
    """Whether a verified statement of a fork is older than what is known here of it.

    `found` is the license's newest log. An activation for a later log, or a later acknowledgement, decides.
    """
    if found is not None and found.origin == ack.origin and ack.ack_seq <= found.ack_seq:
        return True
    newest = rights.stored(db, "acknowledgement", ack.license_id)
    if newest is not None and _integer(newest, "server_time") > ack.server_time:
        return True
    activation = rights.stored(db, "activation", ack.license_id)
    return activation is not None and Activation.read(activation).epoch > ack.epoch


def decide(db: sqlite3.Connection, license_id: str, epoch: int) -> None:
    """The issuer lets this device begin log `epoch`: forks of the logs before it are decided."""
    said = rights.stored(db, KIND, license_id)
    if said is not None and _integer(said, "epoch") < epoch:
        rights.forget(db, KIND, license_id)


def _integer(stored: Envelope, name: str) -> int:
    """A member of an acknowledgement that was verified before it was stored."""
    value: int = documents.payload_fields(stored, "acknowledgement").integer(name)
    return value
