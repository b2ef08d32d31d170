"""The clock model: scenarios a site meets, and the bounds that no sequence of readings can break."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.runtime import clock
from sealpack.runtime.clock import BUDGET_MS, DAY_MS, ClockState, Reading, Times

T = 1_790_000_000_000
HOUR_MS = 3_600_000


@dataclass
class Device:
    """A machine whose wall clock and uptime the test sets."""

    state: ClockState = field(default_factory=lambda: clock.start(T))
    events: list[str] = field(default_factory=list)

    def at(self, wall: int | None, monotonic: int, boot: str = "a") -> Times:
        self.state, times, events = clock.observe(self.state, Reading(wall, monotonic, boot))
        self.events += [event.name for event in events]
        return times


def test_an_ordinary_clock_is_followed() -> None:
    device = Device()
    device.at(T + 10, 0)
    times = device.at(T + 10 + 2 * DAY_MS, 2 * DAY_MS)
    assert times == Times(T + 10 + 2 * DAY_MS, T + 10 + 2 * DAY_MS, 0)
    assert device.events == []


def test_the_first_reading_is_accepted_as_it_is() -> None:
    device = Device()
    assert device.at(T + 90 * DAY_MS, 0).soft == T + 90 * DAY_MS


def test_a_year_back_keeps_the_accepted_time_and_is_noted_once() -> None:
    device = Device()
    device.at(T + 5 * DAY_MS, 0)
    device.at(T - 360 * DAY_MS, 60_000)
    times = device.at(T - 357 * DAY_MS, 3 * DAY_MS + 60_000)
    assert times.expiry == T + 8 * DAY_MS + 60_000
    assert device.events == [clock.WENT_BACK]


def test_a_1970_boot_runs_on_the_accepted_time() -> None:
    device = Device()
    device.at(T + 5 * DAY_MS, 0)
    device.at(0, 5_000, "b")
    assert device.at(600_000, 605_000, "b").soft == T + 5 * DAY_MS + 600_000


def test_2038_by_mistake_heals_when_the_clock_is_put_right() -> None:
    device = Device()
    device.at(T + 5 * DAY_MS, 0)
    far = 2_147_483_700_000
    assert device.at(far, 60_000).expiry == far
    times = device.at(T + 5 * DAY_MS + 120_000, 120_000)
    assert times.expiry == T + 5 * DAY_MS + 120_000
    assert device.events == [clock.JUMP_PENDING, clock.JUMP_UNDONE]


def test_a_long_pause_is_believed_after_a_day_of_run_time() -> None:
    device = Device()
    device.at(T + 5 * DAY_MS, 0)
    assert device.at(T + 65 * DAY_MS, 5_000, "b").soft == T + 5 * DAY_MS
    times = device.at(T + 66 * DAY_MS, DAY_MS + 5_000, "b")
    assert times.soft == T + 66 * DAY_MS
    assert device.events == [clock.JUMP_PENDING, clock.JUMP_CONFIRMED]


def test_a_jump_that_moves_on_is_watched_anew() -> None:
    device = Device()
    device.at(T, 0)
    device.at(T + 30 * DAY_MS, 1_000)
    times = device.at(T + 365 * DAY_MS, DAY_MS + 2_000)
    assert times.soft == T + DAY_MS + 2_000
    assert device.events == [clock.JUMP_PENDING, clock.JUMP_PENDING]


def test_an_issuer_document_confirms_a_jump_at_once() -> None:
    device = Device()
    device.at(T, 0)
    device.at(T + 60 * DAY_MS, 1_000)
    device.state = clock.anchor(device.state, T + 59 * DAY_MS)
    assert device.at(T + 60 * DAY_MS, 2_000).soft == T + 60 * DAY_MS


def test_a_clock_frozen_at_the_same_hour_every_boot_still_ages_by_run_time() -> None:
    device = Device()
    device.at(T, 0)
    for boot in range(10):
        device.at(T, 5_000, f"b{boot}")
        times = device.at(T, 5_000 + 8 * HOUR_MS, f"b{boot}")
    assert times.soft == T + 80 * HOUR_MS


@pytest.mark.parametrize("wall", [None, -5])
def test_an_unreadable_clock_gives_no_time_to_judge_by(wall: int | None) -> None:
    device = Device()
    device.at(T, 0)
    assert device.at(wall, 60_000).expiry is None
    assert device.events == [clock.UNREADABLE]
    assert device.state.soft == T + 60_000


def test_boot_time_running_backwards_is_noted() -> None:
    device = Device()
    device.at(T, 60_000)
    device.at(T, 1_000)
    assert device.events == [clock.BOOT_TIME_BACK]


steps = st.lists(
    st.tuples(
        st.integers(T - 400 * DAY_MS, T + 400 * DAY_MS),  # wall
        st.integers(0, 12 * HOUR_MS),  # run time since the last reading
        st.booleans(),  # reboot before it
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_bounds_hold_whatever_the_clock_is_set_to(walls: list[tuple[int, int, bool]]) -> None:
    device = Device()
    first = device.at(T, 0)
    uptime = boot = known = 0
    for wall, run, rebooted in walls:
        before = device.state
        boot, uptime = (boot + 1, run) if rebooted else (boot, uptime + run)
        known += 0 if rebooted else run
        times = device.at(wall, uptime, f"{boot}" if boot else "a")
        state = device.state
        assert state.soft >= before.soft, "accepted time never falls"
        assert state.hard == T + known, "the proven bound grows by observed run time, and only so"
        assert state.soft >= state.hard
        assert 0 <= state.budget <= BUDGET_MS
        assert times.expiry == max(wall, times.soft)
        assert times.skew == wall - times.soft
    if clock.JUMP_CONFIRMED not in device.events:
        assert device.state.soft - first.soft <= known + BUDGET_MS + known, "budget plus its refill"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 600_000), min_size=1, max_size=60))
def test_stepping_ahead_a_little_every_second_gains_only_the_budget(jumps: list[int]) -> None:
    """Each second of run time the clock is put ahead further; soft gains at most the budget."""
    device = Device()
    wall = T
    device.at(wall, 0)
    for second, jump in enumerate(jumps, start=1):
        wall += 1_000 + jump * 100
        device.at(wall, second * 1_000)
    run = len(jumps) * 1_000
    assert device.state.soft - T <= run + BUDGET_MS + run
