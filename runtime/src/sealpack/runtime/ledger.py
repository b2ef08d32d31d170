"""Hold before use, receipt after: the accounting of every call.

Source: specs/runtime-state.md, "Calls". A call's use is held on every counter, durably, before anything is
computed; what was really used replaces the hold together with receipt, registers and signed checkpoint, in
one transaction. Between the two a kill costs that one call, billed as aborted: at its hold, or for a
stream at the progress that was made durable plus one step.

While calls follow each other closely, the transaction that settles one also holds the next: a call then
costs one durable commit. What has begun of a hold made ahead is told by the owner's file, so that a kill
while nothing ran costs nothing. With `block` more than one call is held at once and receipts are written
together: an answer may then precede its receipt, and what is lost with them is billed as lost.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Rate
from sealpack.runtime import admission, holds, log, timekeeper
from sealpack.runtime.admission import Facts, Load, Verdict
from sealpack.runtime.clock import Times
from sealpack.runtime.engines.base import Usage
from sealpack.runtime.holds import Meters, Receipt
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.owners import HELD, Owner
from sealpack.runtime.rates import Gate
from sealpack.runtime.state import State, afterwards
from sealpack.runtime.timekeeper import Moment

MAX_BLOCK = 1000  # calls held at once, at most
RISK_PERCENT = 1  # of what is left may be held at once
BUSY_SECONDS = 1.0  # calls closer than this follow each other: the next is held ahead
FLUSH_SECONDS = 0.1  # how long a receipt may wait for others
RETRY_SECONDS = 5.0  # after which it is tried again to write what could not be written
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """A hold: the call may run, after waiting `verdict.delay_ms`."""

    id: int
    verdict: Verdict
    want: Meters
    place: int | None = None  # among the calls that run at once
    ahead: bool = False  # begun out of what was held ahead


# Gives the facts of a call inside the transaction; used, load and times are filled in by the ledger.
FactsIn = Callable[[sqlite3.Connection, Log, Moment], Facts]


@dataclass(slots=True)
class _Ahead:
    """What is held for calls that have not begun, and what has begun of it since the last commit."""

    id: int
    generation: int
    origin: str
    periods: tuple[str, ...]
    until: int  # accepted time at which the day ends that it counts in, ms
    held: dict[str, int]
    begun: dict[str, int]
    facts: Facts
    quota: Verdict
    version: int  # of the database when the facts were read
    rated: bool  # calls are limited per second, at once or to some processes
    verdict: Verdict | None = None  # of the newest moment


@dataclass(frozen=True, slots=True)
class _Kind:
    """What calls that may share a hold have in common."""

    route: Mapping[str, object]
    facts_in: FactsIn
    streaming: bool

    def same(self, other: _Kind | None) -> bool:
        return other is not None and self.route is other.route and self.streaming == other.streaming


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """A call that ended and whose receipt waits for others."""

    status: str
    meters: Meters
    wait_ms: int
    cost_centre: str | None
    times: Times


@dataclass(slots=True)
class _Running:
    """Calls begun out of the hold and not ended: their sum, to be moved on when the hold is renewed."""

    calls: int = 0
    want: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HELD, 0))

    def add(self, want: Meters, sign: int = 1) -> None:
        self.calls += sign
        self.want = {meter: self.want[meter] + sign * want[meter] for meter in HELD}


class Ledger:
    """The accounts of one license on this device, shared with every other process through the database.

    `block` is how many calls may be held, and answered, before their receipts are durable.
    """

    def __init__(self, state: State, key: PrivateKey, owner: Owner, *, block: int = 1) -> None:
        self._state = state
        self._key = key
        self._owner = owner
        self._block = block
        self._pid = os.getpid()
        self._lock = threading.RLock()
        try:
            self._gate = Gate(state.home, owner)
        except BaseException:
            owner.release()
            raise
        self._open: set[int] = set()  # holds of calls that run right now
        self._unused: set[int] = set()  # holds that an interrupt kept from their calls
        self._ahead: _Ahead | None = None
        self._kind: _Kind | None = None  # of the call before
        self._want: Meters = {}
        self._running = _Running()
        self._generation = 0
        self._unwritten: list[_Unwritten] = []
        self._facts: tuple[int, Facts] | None = None  # as last read, at that version of the database
        self._last: Moment | None = None  # when the database last saw the clock
        self._ended = 0.0  # when the call before ended, on the monotonic clock
        self._busy = False
        self._flusher: _Flusher | None = None

    # --- before a call --------------------------------------------------------------------------------

    def reserve(
        self,
        route: Mapping[str, object],
        bound: Usage,
        facts_in: FactsIn,
        *,
        streaming: bool,
    ) -> Ticket:
        """Hold the most a call can use; raises admission's refusal, which is noted in the log."""
        want = {"calls": 1, "tok_in": bound.tok_in, "tok_out": bound.tok_out, "items": bound.items}
        kind = _Kind(route, facts_in, streaming)
        with self._lock:
            self._busy = time.monotonic() - self._ended < BUSY_SECONDS
            ticket = self._claim(kind, want) or self._reserve(kind, want)
            self._kind, self._want = kind, want
        return ticket

    def _claim(self, kind: _Kind, want: Meters) -> Ticket | None:
        """Begin a call out of what was held ahead, without a commit; None when that is not possible.

        Nothing is refused here: what does not pass is looked at again by :meth:`_reserve`, which notes it.
        """
        ahead = self._ahead
        if ahead is None or self._last is None or not kind.same(self._kind) or os.getpid() != self._pid:
            return None
        begun, held = ahead.begun, ahead.held
        for meter in HELD:
            if begun[meter] + want[meter] > held[meter]:
                return None
        moment = timekeeper.glance(self._last)
        if moment is None or moment.times.soft >= ahead.until or not self._is_current(ahead, kind, moment):
            return None
        try:
            if ahead.verdict is None or moment is not self._last:
                facts = replace(ahead.facts, times=moment.times)
                ahead.verdict = admission.check_standing(facts) + ahead.quota
            if ahead.verdict.delay_ms:
                return None
            place = self._pass(ahead.facts, moment, admission.check_rate)[1] if ahead.rated else None
        except SealpackError:
            return None
        self._last = moment
        self._begin(ahead, want)
        return Ticket(ahead.id, ahead.verdict, want, place, ahead=True)

    def _is_current(self, ahead: _Ahead, kind: _Kind, moment: Moment) -> bool:
        """Whether license and lease are still the ones under which was held; other facts are read again."""
        version = self._state.version()
        if version == ahead.version:
            return True
        try:
            with self._state.read() as db:
                facts = kind.facts_in(db, _require_log(db, self._owner.license_id), moment)
        except SealpackError:
            return False
        held = ahead.facts
        if (facts.license, facts.lease, facts.epoch) != (held.license, held.lease, held.epoch):
            return False
        self._facts = version, facts
        ahead.facts, ahead.version, ahead.verdict = facts, version, None
        return True

    def _begin(self, ahead: _Ahead, want: Meters, sign: int = 1) -> None:
        self._running.add(want, sign)
        ahead.begun = {meter: ahead.begun[meter] + sign * want[meter] for meter in HELD}
        self._owner.begin(ahead.generation, ahead.begun)

    def _pass(
        self, facts: Facts, moment: Moment, check: Callable[[Facts], Verdict]
    ) -> tuple[Verdict, int | None]:
        """Check with the load of this very moment; a call that passes holds its place among the running."""
        limits = facts.license.limits
        place = None if limits.inflight is None else self._gate.enter(limits.inflight)
        try:
            full = limits.inflight if place is None else None
            running = 1 if limits.processes is None else self._gate.processes(limits.processes)
            load = Load(full or 0, running)
            if limits.qps is None:
                return check(replace(facts, load=load)), place
            with self._gate.bucket(limits, moment) as bucket:
                verdict = check(replace(facts, load=replace(load, bucket=bucket.level)))
                bucket.take()
            return verdict, place
        except BaseException:
            self._gate.leave(place)
            raise

    def _reserve(self, kind: _Kind, want: Meters) -> Ticket:
        """Hold one call in a transaction of its own, and give back what was held ahead."""
        refusal: SealpackError | None = None
        place = number = None
        keep = self._running.calls > 0
        try:
            with self._state.write() as db:
                moment = timekeeper.observe(db)
                holds.sweep(db, self._state.home, self._key, moment, self._owner.name)
                self._sweep_own(db, moment)
                if not keep:
                    self._write(db, moment, None)
                    afterwards(db, "books", partial(self._written, None))
                found = _require_log(db, self._owner.license_id)
                # A refusal is kept, not raised: what was swept and observed must be committed all the same.
                try:
                    self._facts = self._state.version(), kind.facts_in(db, found, moment)
                    facts = self._complete(db, self._facts[1], found, moment)
                    verdict, place = self._pass(facts, moment, lambda f: admission.admit(f, want))
                    name = log.route_for(db, found, kind.route)
                except SealpackError as error:
                    refusal = error
                    self._deny(db, found, moment, error)
                else:
                    periods = admission.periods(moment.times.soft, facts.build.bundle_digest)
                    number = holds.make(
                        db, found, self._owner.name, periods, moment, want, name, streaming=kind.streaming
                    )
        except BaseException:
            self._gate.leave(place)
            if number is not None:
                self._unused.add(number)
            raise
        self._last = moment
        if refusal is not None:
            self._gate.leave(place)
            raise refusal
        assert number is not None, "what was not refused is held"
        self._unused.discard(number)
        self._open.add(number)
        return Ticket(number, verdict, want, place)

    def _sweep_own(self, db: sqlite3.Connection, moment: Moment) -> None:
        """Settle calls of this very runtime that ended without a receipt, as after a full disk."""
        query = "SELECT id FROM reservations WHERE owner=? AND ahead=0"
        for (number,) in db.execute(query, (self._owner.name,)).fetchall():
            if number in self._open:
                continue
            row = holds.read(db, number)
            if number in self._unused:
                holds.give_back(db, row)
            else:
                holds.abort(db, row, self._key, moment)

    def _complete(self, db: sqlite3.Connection, facts: Facts, found: Log, moment: Moment) -> Facts:
        """Add the time and the counters of this very moment."""
        used: dict[tuple[str, str], int] = {}
        for period in admission.periods(moment.times.soft, facts.build.bundle_digest):
            rows = db.execute(
                "SELECT meter, used + reserved FROM counters WHERE license_id=? AND period=?",
                (found.license_id, period),
            )
            used |= {(period, meter): total for meter, total in rows}
        return replace(facts, times=moment.times, used=used)

    def _deny(self, db: sqlite3.Connection, found: Log, moment: Moment, error: SealpackError) -> None:
        """Note a refusal, once per code and minute."""
        if log.is_closed(db, found):
            return
        minute = moment.times.soft // 60_000
        if log.is_first(db, found, error.code, minute):
            writer = Writer(db, found, self._key, moment)
            writer.add(records.DENIED, code=error.code, minute=minute)
            writer.finish()

    def deny(self, error: SealpackError) -> None:
        """Note a refusal that came before anything was reserved; without a log there is nothing to note."""
        with self._state.write() as db:
            found = log.find(db, self._owner.license_id)
            if found is not None:
                self._deny(db, found, timekeeper.observe(db), error)

    # --- while it runs and after ----------------------------------------------------------------------

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
        meters = {
            "calls": 1,
            "tok_in": used.tok_in,
            "tok_out": used.tok_out,
            "ms": ms,
            "items": used.items,
        }
        with self._lock:
            self._gate.leave(ticket.place)
            self._open.discard(ticket.id)
            self._ended = time.monotonic()
            if not ticket.ahead:
                return self._settle(ticket, status, meters, wait_ms, cost_centre)
            return self._settle_ahead(ticket, _Unwritten(status, meters, wait_ms, cost_centre, self._now()))

    def _now(self) -> Times:
        """The time of a call that ended, for a receipt that is written later."""
        assert self._last is not None
        return (timekeeper.glance(self._last) or self._last).times

    def _settle(
        self, ticket: Ticket, status: str, meters: Meters, wait_ms: int, cost_centre: str | None
    ) -> Receipt:
        with self._state.write() as db:
            moment = timekeeper.observe(db)
            row = holds.read(db, ticket.id)
            receipt = holds.close(db, row, self._key, moment, status, meters, wait_ms, cost_centre)
            renewed = (
                self._renew(db, log.by_id(db, row.log), moment, row.route) if self._ahead is None else None
            )
            if renewed is not None:
                afterwards(db, "books", partial(self._written, renewed))
        self._last = moment
        return receipt

    def _settle_ahead(self, ticket: Ticket, ended: _Unwritten) -> Receipt:
        ahead = self._ahead
        assert ahead is not None, "a call begun out of a hold moves on with it"
        self._running.add(ticket.want, -1)
        # What really was used takes the place of the most it could have used.
        ahead.begun = {m: ahead.begun[m] - ticket.want[m] + ended.meters[m] for m in HELD}
        self._unwritten.append(ended)
        if self._block > 1:
            self._owner.begin(ahead.generation, ahead.begun)
            if ahead.begun["calls"] < ahead.held["calls"]:
                self._wake()
                return Receipt(ahead.origin, None, ended.status, ended.meters)
        try:
            position = self.flush()
        except BaseException:
            if self._block == 1 and self._unwritten:  # it is not durable, and no answer is given
                self._unwritten[-1] = replace(ended, status="aborted")
            raise
        return Receipt(ahead.origin, position, ended.status, ended.meters)

    def flush(self) -> int | None:
        """Write every receipt that waits, and hold the next calls; returns the newest one's index."""
        with self._lock:
            if not self._unwritten:
                return None
            with self._state.write() as db:
                moment = timekeeper.observe(db)
                position, renewed = self._write(db, moment, self._renew)
                afterwards(db, "books", partial(self._written, renewed))
            self._last = moment
        return position

    def _write(
        self, db: sqlite3.Connection, moment: Moment, renew: Callable[..., _Ahead | None] | None
    ) -> tuple[int | None, _Ahead | None]:
        """Put receipts in the place of what was held ahead; `renew` holds the next calls."""
        ahead = self._ahead
        if ahead is None:
            return None, None
        row = holds.read(db, ahead.id)
        found = log.by_id(db, row.log)
        position = None
        used: dict[str, int] = {}
        if self._unwritten:
            writer = Writer(db, found, self._key, moment)
            for one in self._unwritten:
                position = writer.usage(
                    row.route, one.status, one.meters, one.wait_ms, one.cost_centre, one.times
                )
                for meter, count in one.meters.items():
                    used[meter] = used.get(meter, 0) + count
            writer.finish()
        let_go = {meter: -held for meter, held in row.held.items()}
        holds.add(db, row.license_id, row.periods, reserved=let_go, used=used)
        db.execute("DELETE FROM reservations WHERE id=?", (row.id,))
        return position, renew(db, found, moment, row.route) if renew else None

    def _written(self, renewed: _Ahead | None) -> None:
        """The transaction is durable: go on with what it holds."""
        self._unwritten = []
        self._ahead = renewed
        if renewed is not None:
            self._generation = renewed.generation

    def _renew(self, db: sqlite3.Connection, found: Log, moment: Moment, route: str) -> _Ahead | None:
        """Hold calls like the last one ahead, while calls follow each other and nothing speaks against it."""
        kind, running = self._kind, self._running
        if kind is None or not (self._busy or running.calls):
            return None
        version, quota, calls = self._state.version(), Verdict(), 0
        if self._facts is None or self._facts[0] != version:  # somebody else wrote since they were read
            try:
                self._facts = version, kind.facts_in(db, found, moment)
            except SealpackError:  # the next call is told why; this one's receipt is written all the same
                self._busy = False
        if self._facts is None or not (self._busy or running.calls):
            return None
        facts = self._complete(db, self._facts[1], found, moment)
        # What is provisional is counted call by call.
        if self._busy and facts.provisional is None and log.find_number(db, found.license_id) == found.log:
            quota, calls = self._affordable(facts)
        if not calls and not running.calls:
            return None
        held = {meter: running.want[meter] + calls * self._want[meter] for meter in HELD}
        periods = admission.periods(moment.times.soft, facts.build.bundle_digest)
        generation = self._generation + 1
        number = holds.make(
            db,
            found,
            self._owner.name,
            periods,
            moment,
            held,
            route,
            streaming=kind.streaming,
            generation=generation,
        )
        # Announced before it is committed, in the other slot: whichever is durable finds its own.
        self._owner.begin(generation, running.want)
        until = (moment.times.soft // _DAY_MS + 1) * _DAY_MS
        facts = replace(facts, used={}, started=found.started)
        return _Ahead(
            number,
            generation,
            found.origin,
            periods,
            until,
            held,
            dict(running.want),
            facts,
            quota,
            version,
            facts.license.limits != Rate(),
        )

    def _affordable(self, facts: Facts) -> tuple[Verdict, int]:
        """How many calls like the last one may be held now, and what the quota says of them.

        None near a limit: what one process holds, and may never use, another cannot have.
        """
        calls = min(self._block, MAX_BLOCK)
        bounds = admission.limits_of(facts.license, facts.lease, facts.times.soft, facts.build.bundle_digest)
        for bound in bounds:
            cap, want = admission.stops_at(bound), self._want.get(bound.meter, 1)
            if cap is not None and want:
                left = max(0, cap - facts.used.get((bound.period, bound.meter), 0))
                calls = min(calls, left * RISK_PERCENT // 100 // want)
        if not calls:
            return Verdict(), 0
        try:
            quota = admission.check_quota(facts, {meter: calls * n for meter, n in self._want.items()})
        except SealpackError:
            return Verdict(), 0  # the next call is told why
        return (quota, calls) if not quota.delay_ms else (Verdict(), 0)

    def _wake(self) -> None:
        """See to it that receipts do not wait for long when no further call comes."""
        if self._flusher is None:
            self._flusher = _Flusher(self)
        if not self._flusher.due.is_set():
            self._flusher.due.set()

    def release(self, ticket: Ticket) -> None:
        """Undo a hold for which nothing was computed."""
        with self._lock:
            self._gate.leave(ticket.place)
            self._open.discard(ticket.id)
            if ticket.ahead:
                assert self._ahead is not None
                self._begin(self._ahead, ticket.want, -1)
                return
            with self._state.write() as db:
                holds.give_back(db, holds.read(db, ticket.id))

    def close(self) -> None:
        """Write what waits and give back what is held. The owner's file stays where that fails."""
        if self._flusher is not None:
            self._flusher.stop()
        settled = False
        try:
            with self._lock:
                if (self._ahead is not None or self._unused) and os.getpid() == self._pid:
                    with self._state.write() as db:
                        moment = timekeeper.observe(db)
                        self._sweep_own(db, moment)
                        self._write(db, moment, None)
                        afterwards(db, "books", partial(self._written, None))
            settled = True
        finally:
            self._gate.close()
            self._owner.release(settled=settled)


class _Flusher(threading.Thread):
    """Writes receipts that have waited for others long enough."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(name="sealpack-receipts", daemon=True)
        self._ledger = ledger
        self._over = threading.Event()
        self.due = threading.Event()
        self.start()

    def run(self) -> None:
        while True:
            self.due.wait()
            self.due.clear()
            if self._over.wait(FLUSH_SECONDS):
                return
            try:
                self._ledger.flush()
            except SealpackError:  # kept; the next call that must write tells why, or closing does
                self.due.set()
                if self._over.wait(RETRY_SECONDS):
                    return

    def stop(self) -> None:
        """End the thread; what waits is left to whoever closes."""
        self._over.set()
        self.due.set()
        self.join()


def _require_log(db: sqlite3.Connection, license_id: str) -> Log:
    found = log.find(db, license_id)
    if found is None:
        raise SealpackError("NOT_ACTIVATED", f"license {license_id} has no usage log on this machine")
    return found
