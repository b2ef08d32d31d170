"""The proof that a device closed its log under a license: what frees a seat.

Source: specs/activation.md, "deactivation". Signed by the device key that it carries. It says how long the
log was when it ended and what was used under the license by then, so that a copy of the device that goes on
afterwards, or anything else about its history, contradicts its own signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.activation import NONCE, ORIGIN, device_id, log_origin
from sealpack.format.dsse import Envelope
from sealpack.format.fields import Fields
from sealpack.format.keys import PublicKey
from sealpack.format.values import IDENTIFIER, METERS, plain


@dataclass(frozen=True, slots=True)
class Deactivation:
    """This device ended log `origin` at `size` records with that root, the last one saying so.

    `used` maps meters to everything used under the license on the device, in all its epochs; `closed_at`
    is Unix seconds by the device's accepted clock.
    """

    license_id: str
    device_key: PublicKey
    epoch: int
    origin: str
    size: int
    root: str
    activation: str  # digest of the newest activation the device had taken
    nonce: str  # of the request which that activation answered
    closed_at: int
    used: Mapping[str, int] = field(default_factory=dict)
    digest: str = field(default="", compare=False)

    @property
    def device_id(self) -> str:
        """The device's name, from its key."""
        return device_id(self.device_key)

    @classmethod
    def open(cls, envelope: Envelope) -> Deactivation:
        """Verify the proof against the key inside it, then read it; DOC_SCHEMA, SIG_*.

        Whose device that is, an activation says.
        """
        f, key = documents.self_signed(envelope, "deactivation")
        made = cls(
            f.text("license_id", pattern=IDENTIFIER),
            key,
            f.integer("epoch"),
            f.text("origin", pattern=ORIGIN),
            f.integer("size", lo=2),
            f.digest("root"),
            f.digest("activation"),
            f.text("nonce", pattern=NONCE),
            f.integer("closed_at"),
            _meters(f.sub("used")),
            envelope.digest,
        )
        if made.origin != log_origin(made.license_id, made.device_id, made.epoch):
            raise f.fail("origin", "is not this device's log")
        return made

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest", "device_key", "used"))
        return {**members, "device_key": self.device_key.pem, "used": dict(self.used)}


def _meters(f: Fields) -> dict[str, int]:
    """Amounts by meter, those above 0."""
    unknown = set(f.keys()) - set(METERS)
    if unknown:
        raise f.fail(min(unknown), "is no meter")
    return {meter: f.integer(meter, lo=1) for meter in METERS if meter in f}
