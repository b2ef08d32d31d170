"""Cases: held files that wait for a person, and what was decided about them.

Source: specs/settlement-ledger.md, "Cases". A decision is about one file and one code, needs a reason, and
stands in the audit trail. Most cases end by themselves when what they wait for arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db, ingest
from sealpack.settlement.audit import Actor
from sealpack.settlement.decisions import ACCEPT as ACCEPT, REFUSE as REFUSE
from sealpack.settlement.outcomes import OUTCOMES, Outcome

ACCEPTABLE = ("H201", "H214", "H230", "H231", "H240")  # a person's word is enough to take these
REFUSABLE = ("H212", "H213", "H214", "H220", "H230", "H231", "H240")
# What ends the others.
_NEXT = {
    "H201": "ask the site for the missing range: `settle sync` leaves an acknowledgement that names it; if "
    "it will never come, accept the case: what is missing is billed as the difference of the registers",
    "H210": "give the device an epoch token: `sealpack license epoch-token`",
    "H211": "give the device an epoch token: `sealpack license epoch-token`",
    "H215": "give the device an epoch token: `sealpack license epoch-token`",
    "H221": "wait until that time has come",
    "H250": "import what is not known yet: `sealpack settle import`",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One held file and why; `ours` and `theirs` are signed checkpoints that contradict each other."""

    number: int
    code: str
    file: str
    sha256: str
    origin: str
    detail: str
    opened_at: int
    closed_at: int | None
    verdict: str | None
    reason: str | None
    who: str | None
    decided_at: int | None
    ours: bytes | None
    theirs: bytes | None

    @property
    def state(self) -> str:
        """open | accepted | refused | settled, which is closed without a decision."""
        if self.verdict is not None:
            return {ACCEPT: "accepted", REFUSE: "refused"}[self.verdict]
        return "open" if self.closed_at is None else "settled"

    @property
    def can(self) -> list[str]:
        """What a person may decide about it now."""
        if self.verdict == ACCEPT or (self.closed_at is not None and self.verdict is None):
            return []
        accept = [ACCEPT] if self.code in ACCEPTABLE else []
        return accept + ([REFUSE] if self.code in REFUSABLE and self.verdict is None else [])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        said = {
            "verdict": self.verdict,
            "reason": self.reason,
            "who": self.who,
            "decided_at": self.decided_at,
        }
        notes = {
            name: note.decode("utf-8", "replace")
            for name, note in (("ours", self.ours), ("theirs", self.theirs))
            if note is not None
        }
        return {
            "number": self.number, "code": self.code, "state": self.state, "meaning": OUTCOMES[self.code],
            "detail": self.detail, "file": self.file, "sha256": self.sha256, "origin": self.origin,
            "opened_at": self.opened_at, "closed_at": self.closed_at, "can": self.can,
            **({"next": _NEXT[self.code]} if self.code in _NEXT and self.state == "open" else {}),
            **{key: value for key, value in said.items() if value is not None}, **notes,
        }  # fmt: skip


def cases(database: db.Database) -> list[Case]:
    """Every case by number; what has none yet gets the next ones, in the order in which they were opened."""
    with database.read() as connection:
        if (found := _load(connection)) is not None:
            return found
    with database.write() as connection:
        _number(connection)
        return _load(connection) or []


def _unnumbered() -> sa.Select[tuple[str, str]]:
    columns = db.cases.c
    mine = db.decisions.c
    known = sa.exists().where(mine.code == columns.code, mine.sha256 == columns.sha256)
    return (
        sa.select(columns.code, columns.sha256)
        .where(~known)
        .order_by(columns.opened_at, columns.code, columns.sha256)
    )


def _number(connection: sa.Connection) -> None:
    last = connection.execute(sa.select(sa.func.max(db.decisions.c.number))).scalar() or 0
    for number, case in enumerate(connection.execute(_unnumbered()).all(), last + 1):
        row = {"number": number, "code": case.code, "sha256": case.sha256}
        connection.execute(sa.insert(db.decisions).values(row))


def _load(connection: sa.Connection) -> list[Case] | None:
    """Every case; None when one has no number."""
    if connection.execute(_unnumbered().limit(1)).first() is not None:
        return None
    case, said = db.cases.c, db.decisions.c
    rows = connection.execute(
        sa.select(
            said.number, case.code, db.files.c.name.label("file"), case.sha256, case.origin, case.detail,
            case.opened_at, case.closed_at, said.verdict, said.reason, said.who, said.at.label("decided_at"),
            case.ours, case.theirs,
        )
        .join(db.decisions, (said.code == case.code) & (said.sha256 == case.sha256))
        .join(db.files, db.files.c.sha256 == case.sha256)
        .order_by(said.number)
    )  # fmt: skip
    return [Case(**row) for row in rows.mappings()]


def find(database: db.Database, number: int) -> Case:
    """A case by its number; CASE_INVALID."""
    for case in cases(database):
        if case.number == number:
            return case
    raise SealpackError("CASE_INVALID", f"there is no case {number}")


def decide(
    database: db.Database, number: int, verdict: str, reason: str, *, used_ms: int | None = None, actor: Actor
) -> tuple[Case, list[Outcome]]:
    """Decide a case, and look again at what waited for it.

    `used_ms` is when what a closed gap swallowed was used, UTC ms; by default when the first receipt after it
    was written. Returns the case as it is then, and the files that were accepted. CASE_INVALID when it is
    over, or not for a person to decide so; what was refused may be accepted later, never the other way round.
    """
    if not reason.strip():
        raise SealpackError("USAGE", "a decision needs a reason")
    case = find(database, number)
    if verdict not in case.can:
        why = f"is {case.state}" if case.state != "open" else f"cannot be decided with {verdict}"
        raise SealpackError("CASE_INVALID", f"case {number} ({case.code}) {why}", remedy=_NEXT.get(case.code))
    with database.write() as connection:
        said, row = db.decisions.c, db.cases.c
        still = (said.number == number, said.verdict.is_not_distinct_from(case.verdict))
        values = {"verdict": verdict, "reason": reason, "who": actor.who, "at": actor.at, "used_ms": used_ms}
        done = connection.execute(sa.update(db.decisions).where(*still).values(values))
        if done.rowcount != 1:
            raise SealpackError("CASE_INVALID", f"case {number} was decided meanwhile")
        closed = None if verdict == ACCEPT else actor.at
        this = (row.code == case.code, row.sha256 == case.sha256)
        connection.execute(sa.update(db.cases).where(*this).values(closed_at=closed))
        audit.note(
            connection, actor, verdict, case=number, code=case.code, file=case.sha256, origin=case.origin,
            reason=reason, **({} if used_ms is None else {"used_ms": used_ms}),
        )  # fmt: skip
    freed = ingest.release(database, actor.at, origin=case.origin) if verdict == ACCEPT else []
    return find(database, number), freed
