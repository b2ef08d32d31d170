"""A device that finds its own log rolled back begins the next one, and takes its registers along.

Source: specs/runtime-state.md, "High-water mark". The old tree is never appended to again: two histories
signed under one identity are a fork. A device may do so once for each lease, so that an honest restore from
a backup works at once; a second time needs word from the vendor, so that a habit shows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from sealpack.format import records
from sealpack.format.activation import log_origin
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.repair import Repair
from sealpack.runtime import anchors, device, log, marks, rights, timekeeper
from sealpack.runtime.log import Before, Log, Writer
from sealpack.runtime.marks import Mark
from sealpack.runtime.rights import Rights
from sealpack.runtime.state import Connection, State, storage_errors
from sealpack.runtime.timekeeper import Moment

AGAIN_MS = 365 * 86_400_000  # after which one more is allowed without a new lease
MARK_MISSING = "mark-missing"
STOPPED = ("STATE_ROLLED_BACK", "DEVICE_CLOSED")  # a log that its mark lets nobody go on with
# What the mark does not say of the days and months in between counts in these.
_BEFORE = {"day": "day:0", "month": "month:0"}


def catch_up(db: Connection, signer: PrivateKey, found: Rights, moment: Moment) -> Log | None:
    """The license's log to go on with: a new one when the mark is ahead of the database.

    None without log and mark. STATE_ROLLED_BACK when that happened before and nobody allowed it again.
    """
    license_id = found.license.license_id
    history = log.find(db, license_id)
    if history is None:
        return _after_loss(db, signer, found, moment)
    mark = marks.read(db.home, history.origin, signer.public)
    if mark is None:
        if history.marked and marks.kept() and log.is_signed(history, signer.public):
            _note_missing(db, history, signer, moment)
        return history
    if not marks.is_ahead(mark, history):
        return history
    return succeed(db, signer, found, mark, _next_epoch(db, signer, found, history, mark, moment))


def _after_loss(db: Connection, signer: PrivateKey, found: Rights, moment: Moment) -> Log | None:
    """The log to begin where the database is gone and its mark is not; None without a mark.

    The device kept its key: under the old log's name another history would begin. STATE_ROLLED_BACK.
    """
    license = found.license
    if license.devices.binding != "none" and found.activation is None and license.provisional is None:
        return None  # nothing may run
    mark = marks.read(db.home, log_origin(license.license_id, device.name(signer), 0), signer.public)
    if mark is None:
        return None
    return succeed(db, signer, found, mark, _next_epoch(db, signer, found, None, mark, moment))


def catch_up_all(db: Connection, signer: PrivateKey, moment: Moment) -> dict[str, SealpackError]:
    """:func:`catch_up` for every license that is here and believed; why others cannot go on, by id."""
    trusts = anchors.current(db)
    stopped: dict[str, SealpackError] = {}
    for license_id in rights.license_ids(db):
        found = rights.still(lambda name=license_id: rights.read(db, name, trusts))  # type: ignore[misc]
        if found is None:
            continue
        try:
            catch_up(db, signer, found, moment)
        except SealpackError as error:
            if error.code not in STOPPED:
                raise
            stopped[license_id] = error
    return stopped


def begin_named(db: Connection, signer: PrivateKey, found: Rights, history: Log, epoch: int) -> bool:
    """Begin the log that the issuer names with what the mark says; whether that is ahead of the database."""
    mark = marks.read(db.home, history.origin, signer.public)
    if mark is None or not marks.is_ahead(mark, history):
        return False
    if not mark.closed and epoch > mark.epoch:
        succeed(db, signer, found, mark, epoch)
    return True


def is_due(state: State, signer: PrivateKey, license_id: str) -> bool:
    """Whether :func:`catch_up` would change anything."""
    # The mark first: it is written after the commit it speaks of, so a later look at the database has that.
    origin = log_origin(license_id, device.name(signer), 0)
    with storage_errors(state.home.path):
        mark = marks.read(state.home, origin, signer.public)
    with state.read() as db:
        history = log.find(db, license_id)
    if history is None:
        return mark is not None
    return bool(history.marked and marks.kept()) if mark is None else marks.is_ahead(mark, history)


def require_allowed(db: sqlite3.Connection, found: Rights, moment: Moment) -> None:
    """STATE_ROLLED_BACK when :func:`catch_up` would tell it; changes nothing."""
    assert isinstance(db, Connection)
    history = log.find(db, found.license.license_id)
    if history is not None:
        signer = device.key(db.home)
        mark = marks.read(db.home, history.origin, signer.public)
        if mark is not None and marks.is_ahead(mark, history):
            _next_epoch(db, signer, found, history, mark, moment)


def _next_epoch(
    db: sqlite3.Connection, signer: PrivateKey, found: Rights, history: Log | None, mark: Mark, moment: Moment
) -> int:
    """The epoch to begin; STATE_ROLLED_BACK when it is not allowed."""
    number = mark.epoch + 1
    given = found.activation.epoch if found.activation else 0
    if mark.closed and given <= mark.epoch:
        license_id = found.license.license_id
        raise SealpackError(
            "DEVICE_CLOSED",
            f"this state is a backup: log {mark.epoch} of license {license_id} was closed on this device",
            remedy=f"to use it here again, run `sealpack activate request --license {license_id} --out FILE`",
        )
    long_ago = mark.restarted is not None and moment.times.soft - mark.restarted >= AGAIN_MS
    if number > allowed(db, found) and not long_ago:
        ends = f"ends at receipt {history.size} of log {history.epoch}" if history else "has no receipts"
        raise SealpackError(
            "STATE_ROLLED_BACK",
            f"this state is a backup: it {ends}, and this"
            f" device had written {mark.checkpoint.size} of log {mark.epoch}; one backup per lease is gone on"
            " with unasked, and that one was used",
            remedy=f"restore the newest state, or ask the vendor for an epoch token for log {number} of"
            f" {device.name(signer)} and run `sealpack activate install FILE` with it",
        )
    return max(number, given)


def allowed(db: sqlite3.Connection, found: Rights) -> int:
    """The highest epoch this device may begin: one after its lease's, or what the issuer said since."""
    license = found.license
    given = found.activation.epoch if found.activation else 0
    highest = max(given, 1 + (found.lease.epoch if found.lease else given))
    for kind in ("epoch-token", "repair"):
        envelope = rights.stored(db, kind, license.license_id)
        if envelope is None:
            continue
        opened = (EpochToken if kind == "epoch-token" else Repair).open(envelope, found.trust, license.issuer)
        highest = max(highest, opened.epoch or 0)
    return highest


def succeed(
    db: sqlite3.Connection,
    signer: PrivateKey,
    found: Rights,
    mark: Mark,
    epoch: int,
) -> Log:
    """Begin log `epoch` with what the mark says of the lost one."""
    license_id = found.license.license_id
    _drop_holds(db, license_id)
    _raise_lapses(db, license_id, mark)
    _raise_clock(db, mark)
    _raise_counters(db, license_id, epoch, mark)
    moment = timekeeper.observe(db)
    at = mark.checkpoint
    before = Before(at.origin, at.size, at.root.hex(), mark.registers)
    root, name = found.trust.root_digest, device.name(signer)
    made = log.create(
        db, signer, found.license, found.activation, root, name, moment, epoch=epoch, after=before
    )
    starts = [start for start in (made.started, mark.started) if start is not None]
    if starts:
        log.note_start(db, made, min(starts))
    return made


def _drop_holds(db: sqlite3.Connection, license_id: str) -> None:
    """What was held when the backup was made was settled in the receipts that are lost."""
    db.execute("DELETE FROM reservations WHERE license_id=?", (license_id,))
    db.execute("UPDATE counters SET reserved=0 WHERE license_id=?", (license_id,))


def _raise_lapses(db: sqlite3.Connection, license_id: str, mark: Mark) -> None:
    """What was spent stays spent; time since then is added with the clock. Why stays with the lost state."""
    for lapse in mark.lapses:
        db.execute(
            "INSERT INTO lapses VALUES(?,?,?,?,?,?,'') ON CONFLICT(license_id, kind, per)"
            " DO UPDATE SET spent=excluded.spent, seen=excluded.seen",
            (license_id, lapse.kind, lapse.per, lapse.began, lapse.spent, lapse.seen),
        )


def _raise_clock(db: sqlite3.Connection, mark: Mark) -> None:
    state = timekeeper.load(db)
    if state is not None:
        hard = max(state.hard, mark.hard)
        timekeeper.store(
            db,
            replace(state, hard=hard, soft=max(state.soft, mark.soft, hard), own=max(state.own, mark.soft)),
        )


def _raise_counters(db: sqlite3.Connection, license_id: str, epoch: int, mark: Mark) -> None:
    """Bring every counter up to the mark, so that each kind of period still has the same sums."""
    missing: dict[str, int] = {}
    for bundle_digest, totals in mark.registers.items():
        for meter, total in totals.items():
            short = _raise(db, license_id, f"bundle:{bundle_digest}", meter, total)
            if short:
                db.execute(
                    "INSERT INTO carried VALUES(?,?,?,?,?)", (license_id, epoch, bundle_digest, meter, short)
                )
                missing[meter] = missing.get(meter, 0) + short
    for meter, short in missing.items():
        _add(db, license_id, "term", meter, short)
        for kind, before in _BEFORE.items():
            left = short
            for period, totals in mark.counters.items():
                if period.startswith(f"{kind}:") and period != before:
                    left -= _raise(db, license_id, period, meter, totals.get(meter, 0), at_most=left)
            _add(db, license_id, before, meter, left)


def _raise(
    db: sqlite3.Connection, license_id: str, period: str, meter: str, total: int, at_most: int | None = None
) -> int:
    """Raise one counter to `total`; returns by how much."""
    row = db.execute(
        "SELECT used FROM counters WHERE license_id=? AND period=? AND meter=?", (license_id, period, meter)
    ).fetchone()
    short = max(0, total - (row[0] if row else 0))
    short = short if at_most is None else min(short, at_most)
    _add(db, license_id, period, meter, short)
    return short


def _add(db: sqlite3.Connection, license_id: str, period: str, meter: str, count: int) -> None:
    if count:
        db.execute(
            "INSERT INTO counters VALUES(?,?,?,?,0)"
            " ON CONFLICT(license_id, period, meter) DO UPDATE SET used=used+excluded.used",
            (license_id, period, meter, count),
        )


def _note_missing(db: sqlite3.Connection, history: Log, signer: PrivateKey, moment: Moment) -> None:
    """Say in the log that somebody took the mark away, once until something else is written."""
    newest = list(log.leaves(db, history.log, history.size - 1, history.size))
    body: Mapping[str, object] = records.parse_record(newest[0]).body if newest else {}
    if body.get("event") != MARK_MISSING:
        writer = Writer(db, history, signer, moment)
        writer.add(records.CLOCK, event=MARK_MISSING, delta_ms=0)
        writer.finish()
