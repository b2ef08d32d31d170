"""What a case is about, in words for somebody who has never seen one.

Source: specs/console.md, "Cases". The codes are those of specs/settlement-ingest.md, "Outcomes".
"""

from __future__ import annotations

from dataclasses import dataclass

from sealpack.format.errors import SealpackError
from sealpack.format.note import Checkpoint


@dataclass(frozen=True, slots=True)
class Words:
    """A headline, what happened, what is held or stopped meanwhile, and what would end it."""

    headline: str
    happened: str
    meanwhile: str
    solved: str


_HELD = "The file is kept and not billed. What the machine sent before stays billed."
_FROZEN = (
    "The machine's log is frozen: nothing more of it is billed, and it gets no further lease, so it "
    "stops by itself when the one it has runs out. What was billed before stays billed."
)
_TOKEN = (
    "Find out with the site how it came about. Then give the machine leave to begin a new log (an "
    "epoch token: `sealpack license epoch-token`); this case stays as the record. A decision is not "
    "possible: both sides are signed."
)

WORDS = {
    "H201": Words(
        "An earlier file is missing",
        "This file goes on from usage that has not arrived. Usage files form a chain, so it waits "
        "for its turn.",
        _HELD,
        "Ask the site for the missing file; the reply names the range. When it comes, this case "
        "closes by itself. If it will never come, accept: what is missing is then billed as the "
        "difference of the machine's running totals, and its usage goes on behind the gap.",
    ),
    "H210": Words(
        "Two machines used the same identity",
        "There are two histories of usage signed with the key of one machine, and neither continues "
        "the other. An honest machine has one history only: it was copied, restored from an old "
        "image, or tampered with.",
        _FROZEN,
        _TOKEN,
    ),
    "H211": Words(
        "A machine went on after it had said that it ended",
        "The machine signed that its log was closed at a certain point. Later usage of the same "
        "log, or a copy of it, has turned up.",
        _FROZEN,
        _TOKEN,
    ),
    "H212": Words(
        "The receipts do not match what the machine signed",
        "The file's receipts and the signed summary (checkpoint) in it disagree: it was changed on "
        "the way, or damaged in a way that a broken disk does not explain.",
        _HELD,
        "Ask the site to send the file again. If the new one is whole, refuse this one.",
    ),
    "H213": Words(
        "The log contradicts itself",
        "Counters run backwards or do not add up, although every receipt is signed. The machine's "
        "software was changed, or has a fault.",
        _HELD,
        "Ask support to look at the machine. Refuse the file when it is clear that it cannot be billed.",
    ),
    "H214": Words(
        "The log does not fit what was licensed",
        "What the machine says about its license, model, price plan or number differs from the register.",
        _HELD,
        "See whether the register is right and up to date. Accept to bill it in spite of this, or refuse it.",
    ),
    "H215": Words(
        "The machine began a new log without leave",
        "A machine that lost its state may begin a new log only with a token, so that nobody resets "
        "a counter.",
        _HELD,
        "If it is honest, give it leave: `sealpack license epoch-token`. The file is then taken by itself.",
    ),
    "H220": Words(
        "The machine, its license or its activation was revoked",
        "The file was made by a machine whose right to run was withdrawn.",
        _HELD,
        "Nothing has to be done. Refuse it to close the case; what was used is then not billed.",
    ),
    "H221": Words(
        "Usage from the future",
        "The machine's clock was more than a day ahead when it wrote these receipts.",
        _HELD,
        "It is taken by itself when that time has come. Tell the site to set the clock.",
    ),
    "H230": Words(
        "Used after the license had ended",
        "The receipts are dated after the end of the license and its days of grace.",
        _HELD,
        "Accept to bill it in its own month, for instance when a renewal was agreed late, or refuse it.",
    ),
    "H231": Words(
        "Too old to be billed without your word",
        "The usage is older than the plan's window for late usage.",
        _HELD,
        "Accept to bill it now as a correction of its own month, or refuse it.",
    ),
    "H240": Words(
        "Somebody sent in another customer's file",
        "The file was uploaded by somebody for whom its license is not. Whose usage it is the "
        "signature in it says, so nobody else is ever billed for it.",
        "The file is kept and not billed. Its sender was told no more than this code.",
        "Find out how they came by it. Accept to bill it to the customer that its content names, or "
        "refuse it; when it arrives from that customer, this case closes by itself.",
    ),
    "H250": Words(
        "Something is not known here yet",
        "The file names a license, model or price plan that has not been imported.",
        _HELD,
        "Drop the registry (registry.jsonl), the license or the plan on this console; the file is "
        "then taken by itself.",
    ),
}


@dataclass(frozen=True, slots=True)
class Side:
    """One of two signed checkpoints that contradict each other."""

    label: str
    origin: str
    size: int | None
    root: str
    text: str


def sides(ours: bytes | None, theirs: bytes | None) -> list[Side]:
    """The proof of a fork, for people: how many receipts each side signed, and their common digest."""
    labels = ("What we have billed", "What came in now")
    return [_side(label, note) for label, note in zip(labels, (ours, theirs), strict=True) if note]


def _side(label: str, note: bytes) -> Side:
    text = note.decode("utf-8", "replace")
    try:
        found = Checkpoint.from_text(text.partition("\n\n")[0] + "\n")  # what is signed was looked at before
    except SealpackError:
        return Side(label, "", None, "", text)
    return Side(label, found.origin, found.size, found.root.hex(), text)
