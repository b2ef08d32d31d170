"""Leave to begin a further log: what an issuer or settlement answers to a device that lost its state again.

Source: specs/activation.md, "epoch-token". One log may be begun without asking for each lease; the next one
needs this document, so that an honest restore works at once and a habit shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.activation import DEVICE_ID, verify_any
from sealpack.format.dsse import Envelope
from sealpack.format.trust import Trust
from sealpack.format.values import IDENTIFIER, plain


@dataclass(frozen=True, slots=True)
class EpochToken:
    """This device may begin log `epoch` of this license."""

    license_id: str
    device_id: str
    epoch: int
    issued_at: int
    reason: str | None = None
    digest: str = field(default="", compare=False)

    @classmethod
    def open(cls, envelope: Envelope, trust: Trust, issuer: str | None = None) -> EpochToken:
        """Verify (role `ack` or `license`) and read.

        With `issuer`, the license's, only that issuer's keys count (SIG_KEY_ROLE).
        """
        verify_any(trust, envelope, ("ack", "license"), issuer)
        f = documents.payload_fields(envelope, "epoch-token")
        f.crit(())
        return cls(
            f.text("license_id", pattern=IDENTIFIER),
            f.text("device_id", pattern=DEVICE_ID),
            f.integer("epoch", lo=1),
            f.integer("issued_at"),
            f.text("reason", max_len=500, default=None),
            envelope.digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest",))
        return members
