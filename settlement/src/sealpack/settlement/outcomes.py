"""What can become of an uploaded file, in a clerk's words.

Source: specs/settlement-ingest.md, "Outcomes". W is accepted with a flag, H is held (kept, unbilled, a case
for a person or for a file still to come), R is refused (the raw bytes are kept all the same).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OUTCOMES: dict[str, str] = {
    "OK": "accepted",
    "W101": "this very file was accepted before",
    "W102": "part of it was known already; the rest was accepted",
    "W103": "an older copy of usage that is known already",
    "W104": "the file is damaged or ends early; every whole block was accepted",
    "W150": "test license: stored, never billed",
    "H201": "usage before this file has not arrived yet",
    "H210": "two machines wrote different usage under one identity; the log is frozen",
    "H212": "the receipts do not fit their signed checkpoint",
    "H213": "the running totals in the file contradict its own receipts",
    "H214": "the log contradicts the registry",
    "H215": "a further log of this device, without leave to start one",
    "H250": "the license, bundle or plan is not known here yet",
    "R301": "no usage in this file can be read",
    "R302": "the device is not known under this license",
    "R303": "signed with another device's key",
    "R304": "the signature is wrong",
    "R305": "the file is too large",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of one file: `code`, all `flags`, receipts newly accepted, and where it belongs."""

    sha256: str
    name: str
    code: str
    detail: str
    accepted: int = 0
    origin: str | None = None
    license_id: str | None = None
    start: int | None = None
    flags: tuple[str, ...] = field(default=())

    @property
    def is_accepted(self) -> bool:
        """Whether the file needs nobody's attention."""
        return self.code[0] in "OW"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "file": self.name,
            "sha256": self.sha256,
            "code": self.code,
            "flags": list(self.flags),
            "meaning": OUTCOMES[self.code],
            "detail": self.detail,
            "accepted": self.accepted,
            **({"origin": self.origin} if self.origin else {}),
        }

    def to_text(self) -> str:
        """One line."""
        return f"{self.code:<4}  {self.name}: {OUTCOMES[self.code]}" + (
            f" ({self.detail})" if self.detail else ""
        )
