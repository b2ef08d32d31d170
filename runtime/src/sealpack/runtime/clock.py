"""The clock model: what time it is, on a machine whose clock its owner may set.

Source: specs/runtime-state.md, "Clock". Pure: one function takes the remembered state and one reading
and gives the new state, the times to judge by, and events for the log. All times are UTC milliseconds.

`hard` is a proven lower bound (newest issuer document, plus elapsed run time); `soft` is the time we
accept. Expiry uses the latest plausible time, max(wall, soft); allowances and not-before use soft. So a
clock that is held back still ages by run time, and one set ahead ends a license early, not its quota.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

DAY_MS = 86_400_000
TOLERANCE_MS = DAY_MS  # a wall clock this far behind soft is an event
BUDGET_MS = 7 * DAY_MS  # how far the wall may run ahead of run time without confirmation
CONFIRM_MS = DAY_MS  # run time after which a larger jump is believed

# Events, as clock records name them.
UNREADABLE = "unreadable"
WENT_BACK = "back"
RECOVERED = "recovered"
JUMP_PENDING = "jump-pending"
JUMP_CONFIRMED = "jump-confirmed"
JUMP_UNDONE = "jump-undone"
BOOT_TIME_BACK = "boot-time-back"


@dataclass(frozen=True, slots=True)
class ClockState:
    """What is remembered between readings. `boot_id` is "" before the first reading.

    `budget` is what is left of :data:`BUDGET_MS`; `pending_wall` is where a jump under observation
    should stand now, `pending_run` how long it has been watched; `behind` says the wall is known to
    be behind.
    """

    hard: int
    soft: int
    budget: int = BUDGET_MS
    boot_id: str = ""
    monotonic: int = 0
    pending_wall: int | None = None
    pending_run: int = 0
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the machine: wall clock (None if unreadable), time since boot, which boot."""

    wall: int | None
    monotonic: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person may want to see in the log; `delta` is wall minus soft in ms."""

    name: str
    delta: int


@dataclass(frozen=True, slots=True)
class Times:
    """What to judge by. `expiry` is None when the clock cannot be read: then nothing may start."""

    soft: int
    expiry: int | None
    skew: int


def start(issued_at: int) -> ClockState:
    """The state of a new install or root version: all that is known is a verified document's time (ms)."""
    return ClockState(issued_at, issued_at)


def anchor(state: ClockState, issued_at: int) -> ClockState:
    """Take an issuer's verified time (ms) as proof; it also confirms a pending jump up to there."""
    return replace(state, hard=max(state.hard, issued_at), soft=max(state.soft, issued_at))


def observe(state: ClockState, reading: Reading) -> tuple[ClockState, Times, tuple[Event, ...]]:
    """Take one reading. The new state is to be stored whether or not the caller goes on."""
    first = state.boot_id == ""
    aged, events = _age(state, reading)
    wall = reading.wall
    if wall is None or wall < 0:
        return aged, Times(aged.soft, None, 0), (*events, Event(UNREADABLE, 0))
    if first and wall > aged.soft:
        # Nothing was accepted before, so there is nothing a later wall could jump away from.
        aged = replace(aged, soft=wall)
    after, more = _judge(aged, wall)
    times = Times(after.soft, max(wall, after.soft), wall - after.soft)
    return after, times, events + more


def _age(state: ClockState, reading: Reading) -> tuple[ClockState, tuple[Event, ...]]:
    """Run time always counts, whatever the wall says; within another boot it is not known."""
    same = reading.boot_id == state.boot_id
    elapsed = reading.monotonic - state.monotonic if same else 0
    events = (Event(BOOT_TIME_BACK, elapsed),) if elapsed < 0 else ()
    elapsed = max(0, elapsed)
    pending = state.pending_wall
    hard = state.hard + elapsed
    aged = replace(
        state,
        hard=hard,
        soft=max(hard, state.soft + elapsed),
        budget=min(BUDGET_MS, state.budget + elapsed),
        boot_id=reading.boot_id,
        monotonic=reading.monotonic,
        pending_wall=None if pending is None else pending + elapsed,
        pending_run=0 if pending is None else state.pending_run + elapsed,
    )
    return aged, events


def _judge(state: ClockState, wall: int) -> tuple[ClockState, tuple[Event, ...]]:
    ahead = wall - state.soft
    if ahead > state.budget:
        return _watch_jump(state, wall, ahead)
    events: tuple[Event, ...] = ()
    if state.pending_wall is not None:
        state = replace(state, pending_wall=None, pending_run=0)
        events = (Event(JUMP_UNDONE, ahead),)
    if ahead < -TOLERANCE_MS:
        if not state.behind:
            events += (Event(WENT_BACK, ahead),)
        return replace(state, behind=True), events
    if state.behind:
        events += (Event(RECOVERED, ahead),)
        state = replace(state, behind=False)
    if ahead > 0:
        state = replace(state, soft=wall, budget=state.budget - ahead)
    return state, events


def _watch_jump(state: ClockState, wall: int, ahead: int) -> tuple[ClockState, tuple[Event, ...]]:
    """Believe a jump beyond the budget once it has stood still for a day of run time."""
    expected = state.pending_wall
    if expected is None or abs(wall - expected) > TOLERANCE_MS:
        watched = replace(state, pending_wall=wall, pending_run=0, behind=False)
        return watched, (Event(JUMP_PENDING, ahead),)
    if state.pending_run < CONFIRM_MS:
        return state, ()
    accepted = replace(state, soft=wall, pending_wall=None, pending_run=0)
    return accepted, (Event(JUMP_CONFIRMED, ahead),)
