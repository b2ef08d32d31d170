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
from sealpack.runtime import anchors, device, log, rights, timekeeper
from sealpack.runtime.admission import GLASS_MS, Verdict
from sealpack.runtime.log import Writer
from sealpack.runtime.rights import Rights
from sealpack.runtime.state import State
from sealpack.runtime.words import day

PROVISIONAL = "provisional"
BREAK_GLASS = "break-glass"
MAX_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Glass:
    """A broken glass: why and when (accepted ms), and how much of its time is spent (ms)."""

    reason: str
    began: int
    spent: int

    @property
    def left(self) -> int:
        """How long it still carries the site, ms."""
        return max(0, GLASS_MS - self.spent)


def tick(db: sqlite3.Connection, license_id: str, started: int | None, soft: int) -> None:
    """Add the accepted time since the last look to all that runs out under a license.

    `started` is the accepted time of the first admitted call (ms): there provisional use begins.
    """
    if started is not None:
        db.execute(
            "INSERT OR IGNORE INTO lapses VALUES(?,?,'',?,0,?,'')",
            (license_id, PROVISIONAL, started, started),
        )
    db.execute(
        "UPDATE lapses SET spent=spent + max(0, ?1 - seen), seen=?1 WHERE license_id=?2 AND seen<>?1",
        (soft, license_id),
    )


def provisional_spent(db: sqlite3.Connection, license_id: str, started: int | None, soft: int) -> int:
    """How long provisional use has lasted at accepted time `soft`, ms; 0 before the first call."""
    row = db.execute(
        "SELECT spent, seen FROM lapses WHERE license_id=? AND kind=?", (license_id, PROVISIONAL)
    ).fetchone()
    if row is None:
        return 0 if started is None else max(0, soft - started)
    return int(row[0]) + max(0, soft - int(row[1]))


def calls(db: sqlite3.Connection, license_id: str) -> int:
    """Calls under a license that ran, and that run now."""
    row = db.execute(
        "SELECT used + reserved FROM counters WHERE license_id=? AND period='term' AND meter='calls'",
        (license_id,),
    ).fetchone()
    return 0 if row is None else int(row[0])


def glass(db: sqlite3.Connection, found: Rights, soft: int) -> Glass | None:
    """The glass that was broken for the present lease, or None."""
    row = db.execute(
        "SELECT reason, began, spent, seen FROM lapses WHERE license_id=? AND kind=? AND per=?",
        (found.license.license_id, BREAK_GLASS, _per(found)),
    ).fetchone()
    if row is None:
        return None
    reason, began, spent, seen = row
    return Glass(reason, began, spent + max(0, soft - seen))


def _per(found: Rights) -> str:
    """What a glass is broken for: once per lease, without one once per number of the license."""
    if found.lease is None:
        return f"license {found.license.seq}"
    return f"lease {found.lease.epoch}.{found.lease.lease_seq}"


def break_glass(state: State, reason: str, license_id: str | None = None) -> tuple[str, Glass]:
    """Let a license go on for 7 days although its end, its lease or a lease's ceiling has passed.

    Recorded in the log; the reason stays on this machine. Done again while it lasts, it changes nothing.
    Returns the license id. LEASE_STALE or LIC_EXPIRED when it was used up before, NOT_ACTIVATED without a
    log, USAGE for a reason nobody could read or a license that is not said.
    """
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        raise SealpackError("USAGE", f"the reason is not one line of 1 to {MAX_REASON} characters")
    signer = device.key(state.home)
    with state.write() as db:
        found = rights.read(db, _only(db, license_id), anchors.current(db))
        license_id = found.license.license_id
        history = log.find(db, license_id)
        if history is None:
            raise SealpackError("NOT_ACTIVATED", f"license {license_id} has no usage log on this machine")
        moment = timekeeper.observe(db)
        soft = moment.times.soft
        tick(db, license_id, history.started, soft)
        known = glass(db, found, soft)
        if known is not None and known.left:
            return license_id, known
        if known is not None:
            raise _used_up(found, known)
        row = (license_id, BREAK_GLASS, _per(found), soft, soft, reason)
        db.execute("INSERT INTO lapses VALUES(?,?,?,?,0,?,?)", row)
        _note(db, signer, license_id, BREAK_GLASS, GLASS_MS)
        return license_id, Glass(reason, soft, 0)


def _only(db: sqlite3.Connection, wanted: str | None) -> str:
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
    if not verdict.waived:
        return
    with state.write() as db:
        found = log.find(db, license_id)
        if found is None:
            return
        minute = timekeeper.observe(db).times.soft // 60_000
        for code in verdict.waived:
            event = f"advisory-{code.lower().replace('_', '-')}"
            changed = db.execute(
                "INSERT INTO denials VALUES(?,?,?) ON CONFLICT(log, code) DO UPDATE"
                " SET minute=excluded.minute WHERE minute<>excluded.minute",
                (found.log, event, minute),
            )
            if changed.rowcount:
                _note(db, key, license_id, event, 0)


def note_repaired(db: sqlite3.Connection, key: PrivateKey, license_id: str, delta_ms: int) -> None:
    """Write down that an issuer's repair was taken, and how far it moved the accepted time."""
    _note(db, key, license_id, "repaired", delta_ms)


def _note(db: sqlite3.Connection, key: PrivateKey, license_id: str, event: str, delta_ms: int) -> None:
    found = log.find(db, license_id)
    if found is not None:
        writer = Writer(db, found, key, timekeeper.observe(db))
        writer.add(records.CLOCK, event=event, delta_ms=delta_ms)
        writer.finish()
