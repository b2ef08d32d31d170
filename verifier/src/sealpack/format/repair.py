"""Repair: an issuer's word that lets an honest device go on after an accident.

Source: specs/activation.md, "repair". Addressed to one device and one license, it answers a request of that
device, and like an activation it is the only answer to it: so it works once, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.activation import DEVICE_ID, FINGERPRINT, NONCE
from sealpack.format.dsse import Envelope
from sealpack.format.fields import Fields
from sealpack.format.trust import Trust
from sealpack.format.values import IDENTIFIER, plain


@dataclass(frozen=True, slots=True)
class Repair:
    """What an issuer allows a device: `now` is the true time (Unix seconds), `epoch` the log it may open."""

    license_id: str
    device_id: str
    request_digest: str
    nonce: str
    issued_at: int
    now: int | None = None
    epoch: int | None = None
    fingerprint: str | None = None  # the hardware to accept from now on, as the request told it
    digest: str = field(default="", compare=False)

    @property
    def says_something(self) -> bool:
        """Whether there is anything in it that repairs."""
        return (self.now, self.epoch, self.fingerprint) != (None, None, None)

    @classmethod
    def open(cls, envelope: Envelope, trust: Trust, issuer: str | None = None) -> Repair:
        """Verify (role `license`) and read; with `issuer` only that issuer's keys count (SIG_KEY_ROLE)."""
        trust.verify(envelope, "license", issuer=issuer)
        f = documents.payload_fields(envelope, "repair")
        f.crit(())
        made = cls.parse(f, envelope.digest)
        if not made.says_something:
            raise f.fail("now", "is missing, and so are epoch and fingerprint: it repairs nothing")
        return made

    @classmethod
    def parse(cls, f: Fields, digest: str = "") -> Repair:
        """Read the members."""
        return cls(
            f.text("license_id", pattern=IDENTIFIER),
            f.text("device_id", pattern=DEVICE_ID),
            f.digest("request_digest"),
            f.text("nonce", pattern=NONCE),
            f.integer("issued_at"),
            f.integer("now", default=None),
            f.integer("epoch", default=None),
            f.text("fingerprint", pattern=FINGERPRINT, default=None),
            digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest",))
        return members
