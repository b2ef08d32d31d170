"""The acknowledgement settlement sends back for a device log.

Source: specs/acknowledgement.md. It says up to which size and root the log is settled, what became of
each file, carries the newest trust documents and the next lease, and the device's checkpoint cosigned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.activation import DEVICE_ID, ORIGIN
from sealpack.format.dsse import Envelope
from sealpack.format.fields import Fields
from sealpack.format.trust import Trust
from sealpack.format.values import IDENTIFIER, plain

MAX_TRUST = 16  # trust documents it carries
OUTCOME_CODE = r"(OK|[WHR][0-9]{3})"


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one uploaded file."""

    sha256: str
    code: str
    accepted: int  # leaves newly accepted from it
    detail: str = ""

    @classmethod
    def parse(cls, f: Fields) -> FileOutcome:
        """Read one."""
        return cls(
            f.digest("sha256"),
            f.text("code", pattern=OUTCOME_CODE),
            f.integer("accepted"),
            f.text("detail", max_len=1000, default=""),
        )


@dataclass(frozen=True, slots=True)
class HeldRange:
    """Leaves [start, end) settlement has or misses and cannot settle yet, and why."""

    start: int
    end: int
    code: str
    detail: str = ""

    @classmethod
    def parse(cls, f: Fields) -> HeldRange:
        """Read one."""
        return cls(
            f.integer("start"),
            f.integer("end"),
            f.text("code", pattern=OUTCOME_CODE),
            f.text("detail", max_len=1000, default=""),
        )


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A verified acknowledgement."""

    origin: str
    license_id: str
    device_id: str
    epoch: int
    size: int
    root: str
    ack_seq: int
    server_time: int
    outcomes: tuple[FileOutcome, ...] = ()
    held: tuple[HeldRange, ...] = ()
    previous: str | None = None
    prune_below: int = 0
    statement: str = ""
    checkpoint: str | None = None  # the device's checkpoint note with settlement's cosignature
    trust: tuple[Envelope, ...] = ()
    lease: Envelope | None = None
    frozen: bool | None = None  # two histories were signed under this log's name
    digest: str = field(default="", compare=False)

    @classmethod
    def open(cls, envelope: Envelope, trust: Trust, issuer: str | None = None) -> Acknowledgement:
        """Verify (role `ack`) and read. The lease inside is verified by whoever uses it.

        With `issuer`, the license's, only that issuer's keys count (SIG_KEY_ROLE).
        """
        trust.verify(envelope, "ack", issuer=issuer)
        f = documents.payload_fields(envelope, "acknowledgement")
        f.crit(())
        lease = f.raw("lease", default=None)
        return cls(
            f.text("origin", pattern=ORIGIN),
            f.text("license_id", pattern=IDENTIFIER),
            f.text("device_id", pattern=DEVICE_ID),
            f.integer("epoch"),
            f.integer("size"),
            f.digest("root"),
            f.integer("ack_seq", lo=1),
            f.integer("server_time"),
            f.objects("outcomes", FileOutcome.parse, default=()),
            f.objects("held", HeldRange.parse, default=()),
            f.digest("previous", default=None),
            f.integer("prune_below", default=0),
            f.text("statement", max_len=8000, default=""),
            f.text("checkpoint", max_len=8000, default=None),
            f.array("trust", Envelope.from_dict, max_items=MAX_TRUST, default=()),
            None if lease is None else Envelope.from_dict(lease, "acknowledgement.lease"),
            f.boolean("frozen", default=None),
            envelope.digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest", "trust", "lease"))
        members["trust"] = [e.to_dict() for e in self.trust]
        if self.lease is not None:
            members["lease"] = self.lease.to_dict()
        return members
