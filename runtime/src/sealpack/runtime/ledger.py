"""Reserve before use, receipt after: the accounting of every call.

Source: specs/runtime-state.md, "Calls". A call is two transactions. `reserve` observes the clock,
settles what dead processes left, asks admission, and holds the most the call can use on every counter;
it commits before anything is computed. `settle` replaces the hold by what was really used and writes
receipt, registers and signed checkpoint together. Between the two a kill costs that one call, billed as
aborted: at its reservation, or for a stream at the progress that was made durable plus one step.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.values import METERS
from sealpack.runtime import admission, log, owners, timekeeper
from sealpack.runtime.admission import Facts, Load, Verdict
from sealpack.runtime.engines.base import Usage
from sealpack.runtime.home import Home
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.owners import Owner
from sealpack.runtime.state import State
from sealpack.runtime.timekeeper import Moment

PROGRESS_TOKENS = 64  # a stream makes its progress durable this often
_HELD = ("calls", "tok_in", "tok_out", "items")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A reservation: the call may run, after waiting `verdict.delay_ms`."""

    id: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was written for a call: its index in the log, status and meters."""

    origin: str
    position: int
    status: str
    meters: Mapping[str, int]


# Gives the facts of a call inside the transaction; used, load and times are filled in by the ledger.
FactsIn = Callable[[sqlite3.Connection, Log, Moment], Facts]


class Ledger:
    """The accounts of one license on this device, shared with every other process through the database."""

    def __init__(self, state: State, key: PrivateKey, owner: Owner) -> None:
        self._state = state
        self._key = key
        self._owner = owner
        self._open: set[int] = set()  # reservations of calls that run right now

    def reserve(
        self,
        license_id: str,
        route: Mapping[str, object],
        bound: Usage,
        facts_in: FactsIn,
        *,
        streaming: bool,
    ) -> Ticket:
        """Hold the most a call can use; raises admission's refusal, which is noted in the log."""
        want = {"calls": 1, "tok_in": bound.tok_in, "tok_out": bound.tok_out, "items": bound.items}
        refusal: SealpackError | None = None
        with self._state.write() as db:
            moment = timekeeper.observe(db)
            sweep(db, self._state.home, self._key, moment, self._owner.name)
            self._sweep_own(db, moment)
            found = _require_log(db, license_id)
            # A refusal is kept, not raised: what was swept and observed must be committed all the same.
            try:
                facts = self._complete(db, facts_in(db, found, moment), found, moment)
                verdict = admission.admit(facts, want)
                name = log.route_for(db, found, route)
            except SealpackError as error:
                refusal = error
                self._deny(db, found, moment, error)
            else:
                ticket = self._hold(db, found, facts, moment, verdict, want, name, streaming)
        if refusal is not None:
            raise refusal
        self._open.add(ticket.id)
        return ticket

    def _sweep_own(self, db: sqlite3.Connection, moment: Moment) -> None:
        """Settle calls of this very runtime that ended without a receipt, as after a full disk."""
        own = db.execute("SELECT id FROM reservations WHERE owner=?", (self._owner.name,)).fetchall()
        for (number,) in own:
            if number not in self._open:
                _abort(db, _reservation(db, number), self._key, moment)

    def _complete(self, db: sqlite3.Connection, facts: Facts, found: Log, moment: Moment) -> Facts:
        """Add the counters and the load of this very moment."""
        used: dict[tuple[str, str], int] = {}
        for period in admission.periods(moment.times.soft, facts.build.bundle_digest):
            rows = db.execute(
                "SELECT meter, used + reserved FROM counters WHERE license_id=? AND period=?",
                (found.license_id, period),
            )
            used |= {(period, meter): total for meter, total in rows}
        return replace(facts, times=moment.times, load=self._load(db, facts, moment), used=used)

    def _load(self, db: sqlite3.Connection, facts: Facts, moment: Moment) -> Load:
        limits, license_id = facts.license.limits, facts.license.license_id
        row = db.execute("SELECT count(*) FROM reservations WHERE license_id=?", (license_id,)).fetchone()
        processes = owners.processes(self._state.home, license_id) if limits.processes is not None else 1
        bucket = None
        if limits.qps is not None:
            bucket = _bucket(db, license_id, limits.qps, limits.burst, moment)
        return Load(int(row[0]), processes, bucket)

    def _hold(
        self,
        db: sqlite3.Connection,
        found: Log,
        facts: Facts,
        moment: Moment,
        verdict: Verdict,
        want: Mapping[str, int],
        route: str,
        streaming: bool,
    ) -> Ticket:
        license_id = found.license_id
        periods = admission.periods(moment.times.soft, facts.build.bundle_digest)
        _add(db, license_id, periods, reserved=want)
        if facts.load.bucket is not None:
            _take(db, license_id, facts.load.bucket, moment)
        # A first wall far ahead may be undone, and must not leave a term that begins in the far future.
        if found.started is None or moment.times.soft < found.started:
            db.execute("UPDATE logs SET started=? WHERE log=?", (moment.times.soft, found.log))
        cursor = db.execute(
            "INSERT INTO reservations(log, license_id, owner, route, periods, calls, tok_in, tok_out, items,"
            " progress, progress_ms, streaming) VALUES(?,?,?,?,?,?,?,?,?,0,0,?)",
            (
                found.log,
                license_id,
                self._owner.name,
                route,
                json.dumps(periods),
                *(want[meter] for meter in _HELD),
                int(streaming),
            ),
        )
        return Ticket(int(cursor.lastrowid or 0), verdict)

    def _deny(self, db: sqlite3.Connection, found: Log, moment: Moment, error: SealpackError) -> None:
        """Note a refusal, once per code and minute, so that a retrying client does not fill the log."""
        minute = moment.times.soft // 60_000
        cursor = db.execute(
            "INSERT INTO denials VALUES(?,?,?) ON CONFLICT(log, code) DO UPDATE SET minute=excluded.minute"
            " WHERE minute<>excluded.minute",
            (found.log, error.code, minute),
        )
        if cursor.rowcount:
            writer = Writer(db, found, self._key, moment)
            writer.add(records.DENIED, code=error.code, minute=minute)
            writer.finish()

    def deny(self, license_id: str, error: SealpackError) -> None:
        """Note a refusal that came before anything was reserved; without a log there is nothing to note."""
        with self._state.write() as db:
            found = log.find(db, license_id)
            if found is not None:
                self._deny(db, found, timekeeper.observe(db), error)

    def progress(self, ticket: Ticket, tok_out: int, ms: int) -> None:
        """Make a stream's progress durable: tokens produced so far, and in how many ms."""
        with self._state.write() as db:
            db.execute(
                "UPDATE reservations SET progress=?, progress_ms=? WHERE id=?", (tok_out, ms, ticket.id)
            )

    def settle(
        self, ticket: Ticket, status: str, used: Usage, ms: int, wait_ms: int, cost_centre: str | None = None
    ) -> Receipt:
        """Write the receipt of a call that ended, and let go of what it did not use.

        If the receipt cannot be stored, the call is settled as aborted before the next one begins.
        """
        self._open.discard(ticket.id)
        meters = {
            "calls": 1,
            "tok_in": used.tok_in,
            "tok_out": used.tok_out,
            "ms": ms,
            "items": used.items,
        }
        with self._state.write() as db:
            moment = timekeeper.observe(db)
            row = _reservation(db, ticket.id)
            return _close(db, row, self._key, moment, status, meters, wait_ms, cost_centre)

    def release(self, ticket: Ticket) -> None:
        """Undo a reservation for which nothing was computed."""
        self._open.discard(ticket.id)
        with self._state.write() as db:
            row = _reservation(db, ticket.id)
            _add(db, row.license_id, row.periods, reserved={m: -n for m, n in row.held.items()})
            db.execute("DELETE FROM reservations WHERE id=?", (ticket.id,))


@dataclass(frozen=True, slots=True)
class _Held:
    id: int
    log: int
    license_id: str
    route: str
    periods: tuple[str, ...]
    held: Mapping[str, int]
    progress: int
    progress_ms: int
    streaming: bool


def _reservation(db: sqlite3.Connection, number: int) -> _Held:
    row = db.execute(
        "SELECT id, log, license_id, route, periods, progress, progress_ms, streaming,"
        " calls, tok_in, tok_out, items"
        " FROM reservations WHERE id=?",
        (number,),
    ).fetchone()
    if row is None:
        raise SealpackError("STATE_TAMPERED", f"reservation {number} is gone")
    number, log_number, license_id, route, periods, progress, progress_ms, streaming, *held = row
    return _Held(
        number,
        log_number,
        license_id,
        route,
        tuple(json.loads(periods)),
        dict(zip(_HELD, held, strict=True)),
        progress,
        progress_ms,
        bool(streaming),
    )


def sweep(db: sqlite3.Connection, home: Home, key: PrivateKey, moment: Moment, own: str = "") -> None:
    """Settle what processes that are gone left open; `own` is the caller's owner name."""
    rows = db.execute("SELECT DISTINCT owner FROM reservations WHERE owner<>?", (own,)).fetchall()
    for (owner,) in rows:
        if owners.alive(home, owner):
            continue
        for (number,) in db.execute("SELECT id FROM reservations WHERE owner=?", (owner,)).fetchall():
            _abort(db, _reservation(db, number), key, moment)


def _abort(db: sqlite3.Connection, row: _Held, key: PrivateKey, moment: Moment) -> None:
    held = dict(row.held)
    if row.streaming:
        held["tok_out"] = min(held["tok_out"], row.progress + PROGRESS_TOKENS)
        held["ms"] = row.progress_ms
    _close(db, row, key, moment, "aborted", held, 0, None)


def _close(
    db: sqlite3.Connection,
    row: _Held,
    key: PrivateKey,
    moment: Moment,
    status: str,
    meters: Mapping[str, int],
    wait_ms: int,
    cost_centre: str | None,
) -> Receipt:
    found = log.by_id(db, row.log)
    writer = Writer(db, found, key, moment)
    position = writer.usage(row.route, status, meters, wait_ms, cost_centre)
    let_go = {meter: -held for meter, held in row.held.items()}
    _add(db, row.license_id, row.periods, reserved=let_go, used=meters)
    db.execute("DELETE FROM reservations WHERE id=?", (row.id,))
    writer.finish()
    return Receipt(found.origin, position, status, meters)


def check(db: sqlite3.Connection, found: Log, key: PublicKey) -> None:
    """STATE_TAMPERED unless log, registers and counters agree with each other and with what was signed.

    Each kind of period (day, month, build, term) counts every call once, so all have the registers' sums.
    """
    log.check(db, found, key)
    totals = db.execute(
        "SELECT meter, sum(total), 0 FROM registers JOIN logs USING(log) WHERE license_id=? GROUP BY meter",
        (found.license_id,),
    )
    expected = {meter: [used, held] for meter, used, held in totals}
    for meter in _HELD:
        query = f"SELECT total({meter}) FROM reservations WHERE license_id=?"
        (held,) = db.execute(query, (found.license_id,)).fetchone()
        expected.setdefault(meter, [0, 0])[1] = int(held)
    counted = db.execute(
        "SELECT substr(period, 1, instr(period || ':', ':') - 1) AS kind, meter, sum(used), sum(reserved)"
        " FROM counters WHERE license_id=? GROUP BY kind, meter",
        (found.license_id,),
    )
    sums = {(kind, meter): [used, held] for kind, meter, used, held in counted if used or held}
    kinds = admission.PERIOD_KINDS
    if sums != {(k, meter): both for meter, both in expected.items() if any(both) for k in kinds}:
        raise SealpackError("STATE_TAMPERED", f"the counters of {found.license_id} differ from its receipts")


def _require_log(db: sqlite3.Connection, license_id: str) -> Log:
    found = log.find(db, license_id)
    if found is None:
        raise SealpackError("NOT_ACTIVATED", f"license {license_id} has no usage log on this machine")
    return found


def _add(
    db: sqlite3.Connection,
    license_id: str,
    periods: tuple[str, ...],
    *,
    reserved: Mapping[str, int],
    used: Mapping[str, int] | None = None,
) -> None:
    """Change the counters of every period; a CHECK stops what would fall below zero."""
    for meter in METERS:
        hold, use = reserved.get(meter, 0), (used or {}).get(meter, 0)
        if not hold and not use:
            continue
        for period in periods:
            changed = db.execute(
                "UPDATE counters SET used=used+?, reserved=reserved+?"
                " WHERE license_id=? AND period=? AND meter=?",
                (use, hold, license_id, period, meter),
            )
            if changed.rowcount == 0:
                row = (license_id, period, meter, use, hold)
                db.execute("INSERT INTO counters VALUES(?,?,?,?,?)", row)


def _bucket(db: sqlite3.Connection, license_id: str, qps: int, burst: int | None, moment: Moment) -> int:
    """The token bucket's level now, in thousandths of a call; full after a reboot."""
    if not qps:
        return 0
    full = (qps if burst is None else burst) * 1000
    row = db.execute("SELECT level, at, boot_id FROM buckets WHERE license_id=?", (license_id,)).fetchone()
    if row is None or row[2] != moment.boot_id:
        return full
    return min(full, int(row[0]) + qps * max(0, moment.uptime_ms - int(row[1])))


def _take(db: sqlite3.Connection, license_id: str, level: int, moment: Moment) -> None:
    db.execute(
        "INSERT INTO buckets VALUES(?,?,?,?) ON CONFLICT(license_id)"
        " DO UPDATE SET level=excluded.level, at=excluded.at, boot_id=excluded.boot_id",
        (license_id, level - 1000, moment.uptime_ms, moment.boot_id),
    )
