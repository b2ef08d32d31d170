"""A meter reading: the signed registers of a device log, small enough for one code that a camera reads.

Source: specs/reading.md. For sites that let nothing out but what stands on a screen. It says what was used up
to a signed checkpoint; the receipts in front of that stay where they are, and replace it when they come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.canonical import MAX_INT
from sealpack.format.dsse import Envelope
from sealpack.format.fields import Fields
from sealpack.format.keys import PublicKey
from sealpack.format.note import Checkpoint, open_checkpoint
from sealpack.format.records import LOST_STATUS, MAX_ROUTES, ROUTE, Registers
from sealpack.format.values import METERS, STATUSES

MAX_NOTE = 4096  # bytes of the checkpoint


@dataclass(frozen=True, slots=True)
class Reading:
    """What the device's meters show at `checkpoint`.

    `routes` maps each route to (number of the license document, bundle digest); `used_at` is when the newest
    call in it ended, UTC ms; `ack_seq` the newest acknowledgement that the device took, 0 before the first.
    """

    device_key: PublicKey
    checkpoint: Checkpoint
    note: bytes
    registers: Registers
    routes: Mapping[str, tuple[int, str]]
    used_at: int
    ack_seq: int = 0
    digest: str = field(default="", compare=False)

    @classmethod
    def open(cls, envelope: Envelope) -> Reading:
        """Verify the reading against the key inside it, then read it; DOC_*, SIG_*, CHECKPOINT_INVALID.

        Whose device that is, an activation says.
        """
        f, key = documents.self_signed(envelope, "reading")
        note = f.text("checkpoint", max_len=MAX_NOTE).encode()
        routes = {route: _route(f.sub("routes").sub(route)) for route in _names(f.sub("routes"))}
        registers = _registers(f.sub("registers"))
        if unknown := {route for route, _, _ in registers.totals} - routes.keys():
            raise f.fail("registers", f"has route {min(unknown)}, which `routes` does not name")
        return cls(
            key, open_checkpoint(note, key), note, registers, routes, f.integer("used_at"),
            f.integer("ack_seq", default=0), envelope.digest,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        routes = {
            route: {"seq": seq, "bundle_digest": digest} for route, (seq, digest) in self.routes.items()
        }
        return {
            "device_key": self.device_key.pem, "checkpoint": self.note.decode(),
            "registers": self.registers.to_tally(), "routes": routes, "used_at": self.used_at,
            **({"ack_seq": self.ack_seq} if self.ack_seq else {}),
        }  # fmt: skip


def _names(f: Fields) -> list[str]:
    """The routes an object names, in order; DOC_SCHEMA for too many and for a name that is none."""
    names = sorted(f.keys())
    for name in names:
        if len(names) > MAX_ROUTES or not re.fullmatch(ROUTE, name):
            raise f.fail(name, "is no route, or one too many")
    return names


def _route(f: Fields) -> tuple[int, str]:
    return f.integer("seq"), f.digest("bundle_digest")


def _registers(f: Fields) -> Registers:
    found = Registers()
    for route in _names(f):
        by_status = f.sub(route)
        if not by_status.keys():
            raise f.fail(route, "counts nothing")
        for status in sorted(by_status.keys()):
            if status not in (*STATUSES, LOST_STATUS):
                raise by_status.fail(status, "is no status")
            meters = by_status.sub(status)
            if unknown := set(meters.keys()) - set(METERS):
                raise meters.fail(min(unknown), "is no meter")
            counts = {m: meters.integer(m, lo=1, hi=MAX_INT) for m in METERS if m in meters}
            if not counts:
                raise by_status.fail(status, "counts nothing")
            found.charge(route, status, counts)
    return found
