"""What keeps an honest site going when a document is missing or late: provisional use, break-glass.

Source: specs/runtime-state.md, "Lapses". Both are used up by accepted time. What is spent is added up
from look to look, so that a clock that is set back, repaired or undone never gives any of it back.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.runtime import anchors, closing, device, log, rights, timekeeper
from sealpack.runtime.admission import GLASS_MS, Spent, Verdict
from sealpack.runtime.log import PROVISIONAL, Writer
from sealpack.runtime.rights import Rights
from sealpack.runtime.state import State
from sealpack.runtime.words import day

BREAK_GLASS = "break-glass"
MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Glass:
    """A broken glass: why, when (accepted ms), and how much of its time is spent."""

    reason: str
    began: int
    spent: Spent

    def left(self, soft: int) -> int:
        """How long it still carries the site at accepted time `soft`, ms."""
        return max(0, GLASS_MS - self.spent.at(soft))


def provisional(db: sqlite3.Connection, license_id: str) -> Spent | None:
    """How long provisional use has lasted; None before the first call, with which it begins."""
    row = db.execute(
        "SELECT spent, seen FROM lapses WHERE license_id=? AND kind=?", (license_id, PROVISIONAL)
    ).fetchone()
    return None if row is None else Spent(*row)


def calls(db: sqlite3.Connection, license_id: str) -> int:
    """Calls under a license that ran, and that run now."""
    row = db.execute(
        "SELECT used + reserved FROM counters WHERE license_id=? AND period='term' AND meter='calls'",
        (license_id,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def glass(db: sqlite3.Connection, found: Rights) -> Glass | None:
    """The glass that was broken for the present lease, or None."""
    row = db.execute(
        "SELECT reason, began, spent, seen FROM lapses WHERE license_id=? AND kind=? AND per=?",
        (found.license.license_id, BREAK_GLASS, _per(found)),
    ).fetchone()
    if row is None:
        return None
    reason, began, spent, seen = row
    return Glass(reason, began, Spent(spent, seen))


def _per(found: Rights) -> str:
    """What a glass is broken for: once per lease, without one once per number of the license."""
    if found.lease is None:
        return f"license {found.license.seq}"
    return f"lease {found.lease.epoch}.{found.lease.lease_seq}"


def break_glass(state: State, reason: str, license_id: str | None = None) -> tuple[str, int]:
    """Let a license go on for 7 days although its end, its lease or a lease's ceiling has passed.

    Recorded in the log; the reason stays on this machine. Done again while it lasts, it changes nothing.
    Returns the license id and the ms that are left. LEASE_STALE or LIC_EXPIRED when it was used up before,
    NOT_ACTIVATED without a log, DEVICE_CLOSED, USAGE for a reason nobody could read or when several licenses
    are here and none is named.
    """
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise SealpackError("USAGE", f"the reason is not one line of 1 to {MAX_REASON} characters")
    signer = device.key(state.home)
    with state.write() as db:
        found = rights.read(db, only_license(db, license_id), anchors.current(db))
        license_id = found.license.license_id
        closed = closing.refusal(db, license_id)
        if closed is not None:
            raise closed
        if log.find(db, license_id) is None:
            raise SealpackError("NOT_ACTIVATED", f"license {license_id} has no usage log on this machine")
        soft = timekeeper.observe(db).times.soft
        known = glass(db, found)
        if known is not None and known.left(soft):
            return license_id, known.left(soft)
        if known is not None:
            raise _used_up(found, known)
        row = (license_id, BREAK_GLASS, _per(found), soft, soft, reason)
        db.execute("INSERT INTO lapses VALUES(?,?,?,?,0,?,?)", row)
        _note(db, signer, license_id, BREAK_GLASS, GLASS_MS)
        return license_id, GLASS_MS


def only_license(db: sqlite3.Connection, wanted: str | None) -> str:
    """The license that is named, else the only one here; USAGE, LIC_MISSING."""
    names = rights.license_ids(db) if wanted is None else [wanted]
    if len(names) > 1:
        raise SealpackError("USAGE", f"say for which license: --license {' or '.join(names)}")
    if not names:
        raise SealpackError("LIC_MISSING", "there is no license on this machine")
    return names[0]


def _used_up(found: Rights, known: Glass) -> SealpackError:
    began = f"break-glass was used for {_per(found)} on {day(known.began // 1000)}, and its 7 days are over"
    if found.lease is None:
        return SealpackError("LIC_EXPIRED", began)
    return SealpackError("LEASE_STALE", began)


def note_waived(state: State, key: PrivateKey, license_id: str, verdict: Verdict) -> None:
    """Write down what an advisory license let pass, once per code and minute."""
    events = [f"advisory-{code.lower().replace('_', '-')}" for code in verdict.waived]
    if not events:
        return
    with state.read() as db:
        if _noted(db, license_id, events):
            return
    with state.write() as db:
        minute = timekeeper.observe(db).times.soft // 60_000
        found = log.find(db, license_id)
        assert found is not None  # a call was admitted
        for event in events:
            if log.is_first(db, found, event, minute):
                _note(db, key, license_id, event, 0)


def _noted(db: sqlite3.Connection, license_id: str, events: list[str]) -> bool:
    """Whether all of them stand in the log for this minute already: nothing needs to be written then."""
    found, clock = log.find(db, license_id), timekeeper.load(db)
    if found is None or clock is None:
        return False
    rows = db.execute("SELECT code FROM denials WHERE log=? AND minute=?", (found.log, clock.soft // 60_000))
    return {code for (code,) in rows} >= set(events)


def note_repaired(db: sqlite3.Connection, key: PrivateKey, license_id: str, delta_ms: int) -> None:
    """Write down that an issuer's repair was taken, and how far it moved the accepted time."""
    _note(db, key, license_id, "repaired", delta_ms)


def _note(db: sqlite3.Connection, key: PrivateKey, license_id: str, event: str, delta_ms: int) -> None:
    found = log.find(db, license_id)
    if found is not None and not log.is_closed(db, found):
        writer = Writer(db, found, key, timekeeper.observe(db))
        writer.add(records.CLOCK, event=event, delta_ms=delta_ms)
        writer.finish()
