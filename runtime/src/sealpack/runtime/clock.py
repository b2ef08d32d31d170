"""The clock model: what time it is, on a machine whose clock its owner may set.

Source: specs/runtime-state.md, "Clock". Pure: one function takes the remembered state and one reading
and gives the new state, the times to judge by, and events for the log. All times are UTC milliseconds.

`hard` is a proven lower bound (newest issuer document, plus elapsed run time); `soft` is the time we
accept. Expiry uses the latest plausible time, max(wall, soft); allowances and not-before use soft. So a
clock that is held back still ages by run time, and one set ahead ends a license early, not its quota.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

DAY_MS = 86_400_000
TOLERANCE_MS = DAY_MS  # a wall clock this far behind soft is an event
BUDGET_MS = 7 * DAY_MS  # how far the wall may run ahead of run time without confirmation
CONFIRM_MS = DAY_MS  # run time after which a larger jump is believed
TRIAL_MS = 366 * DAY_MS  # a first wall further ahead of every document is believed on trial

# Events, as clock records name them.
UNREADABLE = "unreadable"
WENT_BACK = "back"
RECOVERED = "recovered"
JUMP_PENDING = "jump-pending"
JUMP_CONFIRMED = "jump-confirmed"
JUMP_UNDONE = "jump-undone"
BOOT_TIME_BACK = "boot-time-back"


class Stage(IntEnum):
    """Whether a wall clock was ever believed."""

    NEW = 0  # none yet
    TRIAL = 1  # the first, far ahead of every document, and only for now
    SETTLED = 2


@dataclass(frozen=True, slots=True)
class ClockState:
    """What is remembered between readings. `boot_id` is "" before the first reading.

    `budget` is what is left of :data:`BUDGET_MS`; `pending_wall` is where a jump under observation
    should stand now, `pending_run` how long it (or a first wall on trial) has been watched; `behind`
    says the wall is known to be behind. `own` is what soft would be if wall and run time alone had moved
    it: where a new root version falls back to.
    """

    hard: int
    soft: int
    budget: int = BUDGET_MS
    boot_id: str = ""
    monotonic: int = 0
    pending_wall: int | None = None
    pending_run: int = 0
    behind: bool = False
    own: int = 0
    stage: Stage = Stage.NEW


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
    """The state of a new install: all that is known is a verified document's time (ms)."""
    return ClockState(issued_at, issued_at)


def anchor(state: ClockState, issued_at: int) -> ClockState:
    """Take an issuer's verified time (ms) as proof; it also confirms a jump up to there.

    Order-free: the newest of several documents decides, whichever comes first.
    """
    proven = replace(state, hard=max(state.hard, issued_at), soft=max(state.soft, issued_at))
    if state.stage is Stage.TRIAL and issued_at >= state.soft - TRIAL_MS:
        return _settled(proven)
    return proven


def restart(state: ClockState, issued_at: int) -> ClockState:
    """A new root version: `hard` starts again at the newest document (ms) that still counts.

    What documents alone had added to soft goes; what wall and run time had shown stays, so that nobody
    gets time back by setting the clock back before a new root arrives.
    """
    return replace(state, hard=issued_at, soft=max(issued_at, state.own))


def repair(state: ClockState, now: int) -> ClockState:
    """Lower soft to an issuer's word for what time it is (ms), never below hard; raises nothing."""
    soft = max(state.hard, min(state.soft, now))
    return replace(_settled(state), soft=soft, own=min(state.own, soft), behind=False)


def observe(state: ClockState, reading: Reading) -> tuple[ClockState, Times, tuple[Event, ...]]:
    """Take one reading. The new state is to be stored whether or not the caller goes on."""
    aged, events = _age(state, reading)
    wall = reading.wall
    if wall is None or wall < 0:
        return aged, Times(aged.soft, None, 0), (*events, Event(UNREADABLE, 0))
    # Only while it was off, or on a wrong time, may an honest clock have moved on without run time.
    was_away = reading.boot_id != state.boot_id or state.behind
    after, more = _judge(aged, wall, was_away)
    after = replace(after, own=max(after.own, min(wall, after.soft)))
    times = Times(after.soft, max(wall, after.soft), wall - after.soft)
    return after, times, events + more


def _age(state: ClockState, reading: Reading) -> tuple[ClockState, tuple[Event, ...]]:
    """Run time always counts, whatever the wall says; within another boot it is not known."""
    same = reading.boot_id == state.boot_id
    elapsed = reading.monotonic - state.monotonic if same else 0
    events = (Event(BOOT_TIME_BACK, elapsed),) if elapsed < 0 else ()
    # A boot clock that goes back and forth must not count the same stretch again.
    monotonic = max(state.monotonic, reading.monotonic) if same else reading.monotonic
    elapsed = max(0, elapsed)
    hard = state.hard + elapsed
    pending, watched = state.pending_wall, state.pending_run
    if (pending is not None or state.stage is Stage.TRIAL) and not state.behind:
        watched += elapsed
    aged = replace(
        state,
        hard=hard,
        soft=max(hard, state.soft + elapsed),
        own=state.own + elapsed,
        budget=min(BUDGET_MS, state.budget + elapsed),
        boot_id=reading.boot_id,
        monotonic=monotonic,
        pending_wall=None if pending is None else pending + elapsed,
        pending_run=watched,
    )
    return aged, events


def _judge(state: ClockState, wall: int, was_away: bool) -> tuple[ClockState, tuple[Event, ...]]:
    ahead = wall - state.soft
    if state.stage is Stage.TRIAL and state.pending_run >= CONFIRM_MS:
        state = _settled(state)
    if ahead < -TOLERANCE_MS:
        return _fall_back(state, wall, ahead)
    events: tuple[Event, ...] = ()
    if state.behind:
        events = (Event(RECOVERED, ahead),)
        state = replace(state, behind=False)
    if state.stage is Stage.NEW:
        # Nothing was believed before, so there is nothing this wall could have jumped away from.
        stage = Stage.TRIAL if ahead > TRIAL_MS else Stage.SETTLED
        return replace(state, soft=max(state.soft, wall), stage=stage), events
    if ahead > state.budget:
        state, more = _watch_jump(state, wall, ahead, was_away)
        return state, events + more
    if state.pending_wall is not None:
        # Either the wall came back, or budget or a document now reach to where it stands.
        stayed = wall >= state.pending_wall - TOLERANCE_MS
        events += (Event(JUMP_CONFIRMED if stayed else JUMP_UNDONE, ahead),)
        state = _settled(state)
    if ahead > 0:
        state = replace(state, soft=wall, budget=state.budget - ahead)
    return state, events


def _fall_back(state: ClockState, wall: int, ahead: int) -> tuple[ClockState, tuple[Event, ...]]:
    """The wall is more than a day behind: a first wall on trial is undone, anything else is noted.

    A jump under observation waits: a boot at 1970 does not say that the jump was wrong.
    """
    if state.stage is Stage.TRIAL and wall >= state.hard - TOLERANCE_MS:
        soft = max(state.hard, wall)
        undone = replace(_settled(state), soft=soft, own=min(state.own, soft), behind=False)
        return undone, (Event(JUMP_UNDONE, ahead),)
    events = () if state.behind else (Event(WENT_BACK, ahead),)
    return replace(state, behind=True), events


def _watch_jump(
    state: ClockState, wall: int, ahead: int, was_away: bool
) -> tuple[ClockState, tuple[Event, ...]]:
    """Believe a jump beyond the budget once it has stood still for a day of run time.

    A machine that was off in between comes back later than its run time says, up to the budget.
    """
    expected = state.pending_wall
    slack = BUDGET_MS if was_away else TOLERANCE_MS
    if expected is None or not -TOLERANCE_MS <= wall - expected <= slack:
        watched = replace(state, pending_wall=wall, pending_run=0)
        return watched, (Event(JUMP_PENDING, ahead),)
    if state.pending_run >= CONFIRM_MS:
        return replace(_settled(state), soft=wall), (Event(JUMP_CONFIRMED, ahead),)
    return replace(state, pending_wall=max(wall, expected) if was_away else expected), ()


def _settled(state: ClockState) -> ClockState:
    """Nothing is under observation, and the first wall has been judged."""
    return replace(state, pending_wall=None, pending_run=0, stage=Stage.SETTLED)
