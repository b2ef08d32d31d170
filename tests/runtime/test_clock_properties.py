"""The clock model over random histories, against a machine that knows what time it really is.

Each property is one promise of specs/runtime-state.md, "Clock": to the vendor (nobody gets more time than
run time, the budget and its refill give) and to the site (an honest machine is never stopped or charged in
a wrong window).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.runtime import clock
from sealpack.runtime.clock import (
    BUDGET_MS,
    CONFIRM_MS,
    DAY_MS,
    TOLERANCE_MS,
    ClockState,
    Reading,
    Stage,
    Times,
)

T = 1_790_000_000_000
SECOND_MS, HOUR_MS = 1_000, 3_600_000
YEAR_MS = 365 * DAY_MS


@dataclass
class Machine:
    """A machine in the world: `real` is the true time, the wall is whatever its owner sets."""

    state: ClockState = field(default_factory=lambda: clock.start(T))
    real: int = T
    wall: int | None = T
    up: int = 0
    boot: int = 0
    run: int = 0  # run time since the first reading
    events: list[str] = field(default_factory=list)
    confirmed: int = 0  # how far jumps that were confirmed have moved soft
    proven: int = 0  # how far documents have

    def pass_time(self, ms: int) -> None:
        """Run, or sleep suspended: boot time counts both."""
        self.real += ms
        self.up += ms
        self.run += ms
        if self.wall is not None:
            self.wall += ms

    def reboot(self, off: int) -> None:
        """Power off for `off` ms; the battery keeps the wall clock going."""
        self.real += off
        self.boot += 1
        self.up = 0
        if self.wall is not None:
            self.wall += off

    def look(self) -> Times:
        before = self.state
        self.state, times, events = clock.observe(before, Reading(self.wall, self.up, f"boot-{self.boot}"))
        names = [event.name for event in events]
        self.events += names
        # What the budget has covered in the end counts as budget.
        if clock.JUMP_CONFIRMED in names and self.state.budget >= before.budget:
            self.confirmed += self.state.soft - before.soft
        return times

    def document(self, issued_at: int) -> None:
        """An issuer's document is imported."""
        before = self.state.soft
        self.state = clock.anchor(self.state, issued_at)
        self.proven += self.state.soft - before


# --- what an owner may do ----------------------------------------------------------------------------

runs = st.tuples(st.just("run"), st.integers(0, 40 * HOUR_MS))
reboots = st.tuples(st.just("reboot"), st.integers(0, 60 * DAY_MS))
shifts = st.tuples(
    st.just("shift"),
    st.integers(-YEAR_MS, YEAR_MS) | st.integers(-8 * DAY_MS, 8 * DAY_MS) | st.integers(-999, 999),
)
sets = st.tuples(
    st.just("set"),
    st.sampled_from([0, 1, T, 2_147_483_648_000, 4_294_967_296_000, 253_402_300_800_000])
    | st.integers(T - YEAR_MS, T + YEAR_MS),
)
creeps = st.tuples(st.just("creep"), st.integers(1, 7 * DAY_MS))
breaks = st.tuples(st.just("break"), st.just(0))
documents = st.tuples(st.just("document"), st.integers(0, 30 * DAY_MS))
# What only an owner who fakes the kernel's clock gets: boot time that goes back and forth.
rewinds = st.tuples(st.just("rewind"), st.integers(0, 40 * HOUR_MS))
manipulations = st.lists(runs | reboots | shifts | sets | creeps | breaks | rewinds, max_size=40)
histories = st.lists(runs | reboots | shifts | sets | creeps | breaks | rewinds | documents, max_size=40)

Step = tuple[str, int]


def act(machine: Machine, step: Step) -> None:
    """One step of a history, without looking at the clock at its end."""
    what, much = step
    if what == "run":
        machine.pass_time(much)
    elif what == "reboot":
        machine.reboot(much)
    elif what == "shift":
        machine.wall = max(0, (machine.wall or 0) + much)
    elif what == "set":
        machine.wall = much
    elif what == "break":
        machine.wall = None
    elif what == "document":
        machine.document(machine.real - much)
    elif what == "rewind":
        back = min(much, machine.up)
        machine.up -= back
        machine.look()
        machine.up += back
        machine.look()
    else:  # a little more every second, for a while
        for _ in range(20):
            machine.pass_time(SECOND_MS)
            machine.wall = (machine.wall or 0) + much
            machine.look()


def play(machine: Machine, history: list[Step]) -> list[tuple[ClockState, Times]]:
    """Look after every step, and say what was seen."""
    seen = []
    for step in history:
        act(machine, step)
        times = machine.look()
        seen.append((machine.state, times))
    return seen


# --- (a) to (d): promises to the vendor --------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(histories)
def test_accepted_time_gains_at_most_run_time_the_budget_and_its_refill(history: list[Step]) -> None:
    machine = Machine()
    machine.look()
    begin = machine.state.soft
    for step in history:
        act(machine, step)
        machine.look()
        given_by_others = machine.confirmed + machine.proven
        gained = machine.state.soft - begin - given_by_others
        assert gained <= machine.run + BUDGET_MS + machine.run, "run time, budget, refill"
        assert 0 <= machine.state.budget <= BUDGET_MS
    # A jump beyond the budget takes a day of run time, each.
    watched = machine.events.count(clock.JUMP_PENDING)
    assert machine.events.count(clock.JUMP_CONFIRMED) <= watched


@settings(max_examples=300, deadline=None)
@given(st.lists(runs | reboots | shifts | sets, max_size=40))
def test_a_jump_of_more_than_the_budget_takes_a_day_of_run_time_each(history: list[Step]) -> None:
    machine = Machine()
    machine.look()
    spent = 0
    for step in history:
        act(machine, step)
        before = machine.state
        machine.look()
        if machine.state.soft - before.soft > BUDGET_MS + 40 * HOUR_MS:
            spent += CONFIRM_MS
            assert spent <= machine.run


@settings(max_examples=400, deadline=None)
@given(histories)
def test_hard_and_soft_never_fall_and_soft_is_at_least_hard(history: list[Step]) -> None:
    machine = Machine()
    machine.look()
    seen = play(machine, history)
    for (before, _), (after, _) in pairwise(seen):
        assert after.hard >= before.hard
        assert after.soft >= before.soft
    for state, times in seen:
        assert state.soft >= max(state.hard, state.own)
        assert times.soft == state.soft
        assert times.expiry is None or times.expiry >= state.soft


@settings(max_examples=400, deadline=None)
@given(manipulations)
def test_hard_is_documents_and_run_time_and_nothing_a_wall_says(history: list[Step]) -> None:
    machine = Machine()
    machine.look()
    play(machine, history)
    assert T <= machine.state.hard <= T + machine.run


@settings(max_examples=400, deadline=None)
@given(histories, st.integers(0, 60 * DAY_MS))
def test_what_has_ended_stays_ended_but_for_a_jump_that_was_undone(history: list[Step], term: int) -> None:
    """An end that accepted time has passed is final; one that only the wall passed was a pending jump."""
    machine = Machine()
    machine.look()
    end = T + term
    final = False
    for step in history:
        act(machine, step)
        times = machine.look()
        if final:
            assert times.expiry is None or times.expiry >= end
        if times.expiry is not None and times.expiry >= end > machine.state.soft:
            assert machine.state.pending_wall is not None
        final = final or machine.state.soft >= end


@settings(max_examples=300, deadline=None)
@given(st.lists(runs | reboots, max_size=40), st.sampled_from([0, T - YEAR_MS, T]))
def test_a_wall_held_back_or_frozen_ages_by_run_time(history: list[Step], wall: int) -> None:
    machine = Machine(wall=wall)
    machine.look()
    for step in history:
        act(machine, step)
        machine.wall = wall
        times = machine.look()
        assert times.expiry == T + machine.run


@settings(max_examples=200, deadline=None)
@given(histories, st.integers(T - YEAR_MS, T + YEAR_MS))
def test_a_repair_lowers_soft_never_below_hard_and_raises_nothing(history: list[Step], now: int) -> None:
    machine = Machine()
    machine.look()
    play(machine, history)
    before = machine.state
    after = clock.repair(before, now)
    assert after.hard == before.hard
    assert after.soft == max(before.hard, min(before.soft, now))
    assert after.own <= after.soft
    assert after.pending_wall is None
    assert clock.repair(after, now) == after


@settings(max_examples=200, deadline=None)
@given(manipulations, st.integers(T, T + YEAR_MS))
def test_a_new_root_takes_back_what_documents_added_and_nothing_else(history: list[Step], wrong: int) -> None:
    """Whoever sets the wall back before a new root arrives gains nothing by it."""
    machine, other = Machine(), Machine()
    machine.look(), other.look()
    play(machine, history)
    play(other, history)
    assert machine.state == other.state
    restarted = clock.restart(clock.anchor(machine.state, wrong), T)
    assert restarted.hard == T
    assert restarted.soft == machine.state.own >= T
    if clock.JUMP_UNDONE not in machine.events:
        assert restarted.soft == machine.state.soft


# --- (e), (f): order and form ------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(histories, st.lists(st.integers(T - YEAR_MS, T + YEAR_MS), min_size=1, max_size=4))
def test_the_order_of_documents_makes_no_difference(history: list[Step], times: list[int]) -> None:
    machine = Machine()
    machine.look()
    play(machine, history)
    ends = set()
    for order in permutations(times):
        state = machine.state
        for issued_at in (*order, *order):
            state = clock.anchor(state, issued_at)
        ends.add(state)
    assert len(ends) == 1


@settings(max_examples=200, deadline=None)
@given(histories)
def test_the_same_history_gives_the_same_state_through_any_store(history: list[Step]) -> None:
    """Nothing hides outside the remembered integers."""
    straight, stored = Machine(), Machine()
    for machine in (straight, stored):
        machine.look()
    for step in history:
        act(straight, step)
        act(stored, step)
        members = asdict(stored.state)
        stored.state = ClockState(**{**members, "stage": Stage(int(members["stage"]))})
        assert straight.look() == stored.look()
        assert straight.state == stored.state


# --- (c): promises to an honest site -----------------------------------------------------------------

NTP_MS = 500
honest_steps = st.lists(
    st.tuples(
        st.sampled_from(["run", "suspend", "reboot", "dead battery", "far future"]),
        st.integers(1, 36 * HOUR_MS),
        st.integers(-NTP_MS, NTP_MS),  # how wrong the wall is when it is right
        st.sampled_from([2_147_483_700_000, T + 3 * YEAR_MS, 4_294_967_296_000]),
    ),
    max_size=40,
)


def right(machine: Machine, error: int) -> Times:
    machine.wall = machine.real + error
    return machine.look()


@settings(max_examples=400, deadline=None)
@given(honest_steps, st.integers(0, 3 * DAY_MS))
def test_an_honest_machine_is_never_locked_out_nor_charged_in_a_wrong_window(
    steps: list[tuple[str, int, int, int]], courier: int
) -> None:
    """Right within NTP's error: accepted time is the true time within that, whatever happened before.

    Reboots take up to an hour here. A battery that is dead gives 1970 until the network is there.
    """
    machine = Machine()
    machine.real += courier
    right(machine, 0)
    for what, ms, error, far in steps:
        if what in ("run", "suspend"):
            machine.pass_time(ms)
        else:
            machine.pass_time(ms)
            machine.reboot(ms % HOUR_MS)
            if what == "dead battery":
                for _ in range(3):
                    machine.wall = machine.up
                    times = machine.look()
                    assert times.expiry == times.soft <= machine.real + NTP_MS, "1970 runs on soft"
                    machine.pass_time(ms % (20 * 60_000))
            elif what == "far future":
                machine.wall = far
                assert machine.look().soft <= machine.real + NTP_MS
                machine.pass_time(ms % (20 * HOUR_MS))
                machine.wall = far + ms % (20 * HOUR_MS)
                assert machine.look().soft <= machine.real + NTP_MS
        times = right(machine, error)
        assert times.expiry is not None
        assert abs(times.expiry - machine.real) <= 2 * NTP_MS
        assert abs(times.soft - machine.real) <= 2 * NTP_MS
        assert machine.state.stage is Stage.SETTLED


def test_a_first_boot_in_2038_heals_when_the_clock_is_put_right() -> None:
    machine = Machine(real=T + 3 * DAY_MS)
    machine.wall = 2_147_483_700_000
    machine.look()
    machine.document(T + 2 * DAY_MS)
    machine.pass_time(HOUR_MS)
    times = right(machine, 0)
    assert times == Times(machine.real, machine.real, 0)
    assert machine.events == [clock.JUMP_UNDONE]


def test_a_first_wall_heals_only_once_and_only_within_a_day_of_run_time() -> None:
    far = T + 3 * YEAR_MS
    late = Machine(wall=far)
    late.look()
    late.pass_time(CONFIRM_MS)
    late.look()
    assert right(late, 0).soft == far + CONFIRM_MS
    again = Machine(wall=far)
    again.look()
    right(again, 0)
    again.wall = far
    assert again.look().soft == again.real, "the second time it is an ordinary jump"


def test_a_document_of_that_time_ends_the_trial_of_a_first_wall() -> None:
    machine = Machine(state=clock.start(0))
    machine.look()
    assert machine.state.stage is Stage.TRIAL
    machine.document(T - 3 * DAY_MS)
    assert machine.state.stage is Stage.SETTLED
    machine.wall = T - 30 * DAY_MS
    assert machine.look().soft == T


def test_a_dead_battery_at_the_first_boot_does_not_use_up_the_first_wall() -> None:
    machine = Machine(real=T + 90 * DAY_MS, wall=0)
    assert machine.look().soft == T
    machine.pass_time(HOUR_MS)
    assert right(machine, 0).soft == machine.real


@pytest.mark.parametrize(("hours_on", "hours_off"), [(8, 16), (2, 46), (1, 160)])
def test_a_machine_that_is_mostly_off_has_its_time_confirmed(hours_on: int, hours_off: int) -> None:
    """Half a year in a cupboard, then a few hours now and then: a day of run time is enough."""
    machine = Machine()
    machine.look()
    machine.reboot(180 * DAY_MS)
    for _ in range(-(-24 // hours_on) + 1):
        assert machine.look().expiry == machine.real
        machine.pass_time(hours_on * HOUR_MS)
        machine.look()
        machine.reboot(hours_off * HOUR_MS)
    assert clock.JUMP_CONFIRMED in machine.events
    assert machine.events.count(clock.JUMP_PENDING) == 1


def test_boots_at_1970_do_not_start_the_watch_again() -> None:
    machine = Machine()
    machine.look()
    machine.reboot(90 * DAY_MS)
    for _ in range(5):
        right(machine, 0)
        machine.pass_time(8 * HOUR_MS)
        machine.look()
        machine.reboot(16 * HOUR_MS)
        machine.wall = 0
        machine.look()
        machine.pass_time(60_000)
    assert clock.JUMP_CONFIRMED in machine.events
    assert clock.JUMP_UNDONE not in machine.events


def test_time_at_1970_does_not_count_towards_a_jump() -> None:
    machine = Machine()
    machine.look()
    machine.wall = T + 60 * DAY_MS
    machine.look()
    machine.wall = 0
    machine.look()
    machine.pass_time(30 * HOUR_MS)
    machine.wall = machine.real + 60 * DAY_MS
    machine.look()
    assert machine.state.pending_run == 0
    assert machine.state.soft == machine.real


def test_an_accident_during_an_honest_watch_is_not_believed_with_it() -> None:
    machine = Machine()
    machine.look()
    machine.reboot(90 * DAY_MS)
    machine.look()
    machine.pass_time(23 * HOUR_MS)
    machine.look()
    machine.reboot(60_000)
    machine.wall = 2_147_483_700_000
    machine.look()
    machine.pass_time(2 * HOUR_MS)
    assert machine.look().soft < machine.real
    assert clock.JUMP_CONFIRMED not in machine.events


# --- attempts ----------------------------------------------------------------------------------------

ATTEMPTS = {
    "an hour back": (T - HOUR_MS, []),
    "a day back": (T - TOLERANCE_MS, []),
    "a day and a bit back": (T - TOLERANCE_MS - 1, [clock.WENT_BACK]),
    "a year back": (T - YEAR_MS, [clock.WENT_BACK]),
    "1970": (0, [clock.WENT_BACK]),
    "one month on, for the next quota": (T + 29 * DAY_MS, [clock.JUMP_PENDING]),
    "2038": (2_147_483_648_000, [clock.JUMP_PENDING]),
    "2106": (4_294_967_296_000, [clock.JUMP_PENDING]),
    "year 10000": (253_402_300_800_000, [clock.JUMP_PENDING]),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_wall_that_was_moved_gains_nothing_and_heals(name: str) -> None:
    wall, events = ATTEMPTS[name]
    machine = Machine()
    machine.look()
    machine.wall = wall
    times = machine.look()
    assert times == Times(T, max(wall, T), wall - T)
    assert machine.events == events
    machine.pass_time(HOUR_MS)
    assert right(machine, 0) == Times(machine.real, machine.real, 0)


def test_just_under_the_budget_every_second_for_a_minute_gains_one_budget() -> None:
    machine = Machine()
    machine.look()
    step = BUDGET_MS * 69 // 70
    for _ in range(60):
        machine.pass_time(SECOND_MS)
        machine.wall = machine.state.soft + step
        machine.look()
    assert machine.state.soft - machine.real <= BUDGET_MS + 60 * SECOND_MS


def test_a_leap_second_and_a_zone_change_are_no_events() -> None:
    """UTC repeats or smears a second; zones and daylight saving never reach a UTC clock."""
    machine = Machine()
    machine.look()
    machine.pass_time(SECOND_MS)
    right(machine, -SECOND_MS)
    machine.pass_time(SECOND_MS)
    right(machine, -SECOND_MS)
    machine.pass_time(DAY_MS)
    assert right(machine, 0).soft == machine.real
    right(machine, -14 * HOUR_MS)  # somebody set local time as UTC
    assert right(machine, 0).skew == 0
    assert machine.events == []


def test_suspend_counts_and_nothing_is_drawn() -> None:
    machine = Machine()
    machine.look()
    machine.pass_time(60 * DAY_MS)
    assert machine.look().soft == machine.real
    assert machine.state.budget == BUDGET_MS
    assert machine.events == []


def test_boot_time_back_and_forth_counts_each_stretch_once() -> None:
    machine = Machine(wall=0, up=10 * HOUR_MS)
    machine.look()
    for _ in range(5):
        machine.up = 0
        machine.look()
        machine.up = 10 * HOUR_MS
        machine.look()
    assert machine.state.soft == T
    assert machine.events.count(clock.BOOT_TIME_BACK) == 5


@pytest.mark.parametrize("wall", [None, -1])
def test_an_unreadable_clock_denies_and_recovers(wall: int | None) -> None:
    machine = Machine()
    machine.look()
    machine.wall = wall
    assert machine.look().expiry is None
    machine.pass_time(SECOND_MS)
    assert right(machine, 0).expiry == machine.real
