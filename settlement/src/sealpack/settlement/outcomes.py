"""What can become of an uploaded file, in a clerk's words.

Source: specs/settlement-ingest.md, "Outcomes". W is accepted with a flag, H is held (kept, unbilled, a case
for a person or for a file still to come), R is refused (the raw bytes are kept all the same).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OUTCOMES: dict[str, str] = {
    "OK": "accepted",
    "W101": "this very file was accepted before",
    "W102": "part of it was known already; the rest was accepted",
    "W103": "an older copy of usage that is known already",
    "W104": "the file is damaged or ends early; every whole block was accepted",
    "W110": "more was used than the newest lease allows",
    "W120": "the machine's clock is ahead of ours by less than a day",
    "W121": "the machine's clock was set or jumped; its receipts say so",
    "W130": "late: its month was invoiced already, a correction is due",
    "W140": "the machine stopped uncleanly; what it had reserved is billed as lost",
    "W150": "test license: stored, never billed",
    "W151": "the machine lost its state and began a further log; what is missing of the old one is billed as "
    "the difference of its registers",
    "W152": "single calls stay at the site; what it used is billed by its running totals",
    "W153": "a meter reading; what it shows is billed until the usage itself arrives",
    "W154": "usage before this file is known by the running totals alone; the rest was accepted",
    "H201": "usage before this file has not arrived yet",
    "H210": "two machines wrote different usage under one identity; the log is frozen",
    "H211": "a log went on after the machine had said that it ended; both logs are frozen",
    "H212": "the receipts do not fit their signed checkpoint",
    "H213": "the log contradicts itself",
    "H214": "the log contradicts the registry",
    "H215": "a further log of this device, without leave to start one",
    "H220": "the device, its license or the key that activated it was revoked",
    "H221": "usage from the future",
    "H230": "used after the license had ended",
    "H231": "too late to be billed without a person's word",
    "H240": "another customer's file; whose it is its content decides, whoever sent it is never billed",
    "H250": "the license, bundle or plan is not known here yet",
    "R301": "no usage in this file can be read",
    "R302": "the device is not known under this license",
    "R303": "signed with another device's key",
    "R304": "the signature is wrong",
    "R305": "the file is too large",
}
FLAGS = (  # the gravest first
    "W104",
    "W150",
    "W103",
    "W102",
    "W130",
    "W151",
    "W140",
    "W110",
    "W154",
    "W153",
    "W152",
    "W121",
    "W120",
)
# Signed by the device itself and impossible on an honest one: no further lease while such a case is open.
TAMPER = ("H210", "H211", "H213", "H214")
# Waiting changes nothing about these; every other held file is looked at again when something arrives.
REPLAY = "H240"
FINAL = ("H210", "H211", "H212", "H213", REPLAY)


class Stopped(Exception):
    """A file cannot be accepted, for the reason `code`; `ours` and `theirs` are notes that prove a fork.

    `also` are origins of the device's other logs that the fork concerns.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        ours: bytes | None = None,
        theirs: bytes | None = None,
        also: tuple[str, ...] = (),
    ):
        super().__init__(detail)
        self.code, self.detail, self.ours, self.theirs, self.also = code, detail, ours, theirs, also


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of one file: `code`, all `flags`, receipts newly accepted, and where it belongs.

    `first` and `last` are the log positions its header names, a hint.
    """

    sha256: str
    name: str
    code: str
    detail: str
    accepted: int = 0
    origin: str | None = None
    license_id: str | None = None
    first: int | None = None
    last: int | None = None
    flags: tuple[str, ...] = ()

    @property
    def is_accepted(self) -> bool:
        """Whether the file needs nobody's attention."""
        return is_accepted(self.code)

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


def final(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The last word on each file: what was held is left out when it was accepted later on."""
    told = list(outcomes)
    accepted = {o.sha256: index for index, o in enumerate(told) if o.is_accepted}
    return [o for index, o in enumerate(told) if index >= accepted.get(o.sha256, 0) or o.is_accepted]


def is_accepted(code: str) -> bool:
    """Whether a file with this outcome was taken."""
    return code[0] in "OW"
