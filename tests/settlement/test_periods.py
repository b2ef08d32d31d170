"""Period boundaries: zones, skipped midnights, skipped days, proration."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest

from sealpack.settlement.periods import (
    Period,
    Term,
    active_part,
    count_days,
    day_start,
    find_period,
    local_day,
    periods_between,
    zone,
    zone_names,
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


def test_a_month_starts_at_local_midnight() -> None:
    april = Period.containing(date(2026, 4, 15), "Europe/Berlin")
    assert (april.start_ms, april.end_ms) == (ms("2026-03-31T22:00Z"), ms("2026-04-30T22:00Z"))
    assert (april.first, april.last, april.days) == (date(2026, 4, 1), date(2026, 4, 30), 30)


@pytest.mark.parametrize(
    ("instant", "day"),
    [("2026-03-31T21:59:59Z", date(2026, 3, 31)), ("2026-03-31T22:00:00Z", date(2026, 4, 1))],
)
def test_local_day(instant: str, day: date) -> None:
    assert local_day(ms(instant), "Europe/Berlin") == day


def test_an_hour_repeated_across_midnight_belongs_to_the_new_day() -> None:
    # St. John's went from 00:01 on 1 November 2009 back to 23:01 on 31 October.
    assert day_start(date(2009, 11, 1), "America/St_Johns") == ms("2009-11-01T02:30Z")
    assert local_day(ms("2009-11-01T02:29Z"), "America/St_Johns") == date(2009, 10, 31)
    assert local_day(ms("2009-11-01T03:00Z"), "America/St_Johns") == date(2009, 11, 1)


def test_the_calendars_last_instant_has_a_day() -> None:
    assert local_day(253402300799999, "UTC") == date(9999, 12, 31)


def test_a_skipped_midnight_starts_the_day_at_the_jump() -> None:
    # Beirut goes from 24:00 on 28 March 2026 straight to 01:00.
    assert day_start(date(2026, 3, 29), "Asia/Beirut") == ms("2026-03-28T22:00Z")


def test_a_repeated_midnight_starts_the_day_at_its_first_occurrence() -> None:
    # Havana repeats the hour from 00:00 on 1 November 2026; the first one is at UTC-4.
    assert day_start(date(2026, 11, 1), "America/Havana") == ms("2026-11-01T04:00Z")


def test_a_skipped_day_is_no_day() -> None:
    # Samoa had no 30 December 2011.
    assert count_days(date(2011, 12, 1), date(2011, 12, 31), "Pacific/Apia") == 30


def test_every_zone_starts_every_month_of_a_year_on_a_utc_quarter_hour() -> None:
    for name in zone_names():
        year = periods_between(date(2026, 1, 1), date(2026, 12, 31), name)
        assert len(year) == 12
        assert all(period.start_ms % 900_000 == 0 for period in year), name
        assert all(a.end_ms == b.start_ms for a, b in pairwise(year)), name


def test_some_zones_do_not_start_a_month_on_a_utc_hour() -> None:
    year = periods_between(date(2026, 1, 1), date(2026, 12, 31), "Asia/Kathmandu")
    assert all(period.start_ms % 3_600_000 == 900_000 for period in year)


def test_find_period_is_half_open() -> None:
    periods = periods_between(date(2026, 4, 1), date(2026, 5, 31), "UTC")
    first, second = periods
    assert find_period(periods, first.start_ms - 1) is None
    assert find_period(periods, first.start_ms) == 0
    assert find_period(periods, second.start_ms - 1) == 0
    assert find_period(periods, second.start_ms) == 1
    assert find_period(periods, second.end_ms) is None


@pytest.mark.parametrize(
    ("activated", "ended", "days"),
    [
        (None, None, 30),
        (date(2026, 4, 16), None, 15),
        (None, date(2026, 4, 15), 15),
        (date(2026, 4, 16), date(2026, 4, 16), 1),
        (date(2026, 5, 1), None, 0),
        (None, date(2026, 3, 31), 0),
        (date(2026, 4, 30), None, 1),
    ],
)
def test_both_the_first_and_the_last_day_count(activated: date | None, ended: date | None, days: int) -> None:
    april = Period.containing(date(2026, 4, 1), "Europe/Berlin")
    terms = [Term(activated or date.min, ended)]
    assert active_part(april, terms).share == Fraction(days, 30)


def test_a_month_with_a_clock_change_still_counts_days_not_hours() -> None:
    march = Period.containing(date(2026, 3, 1), "Europe/Berlin")
    assert march.end_ms - march.start_ms == (31 * 24 - 1) * 3_600_000
    assert march.days == 31


def test_an_unknown_zone_is_a_key_error_even_if_it_is_a_path() -> None:
    for name in ("Mars/Base", "../../etc/passwd", ""):
        with pytest.raises(KeyError):
            zone(name)


def test_zones_agree_with_plain_arithmetic_where_there_is_no_clock_change() -> None:
    day = date(2026, 1, 1)
    for _ in range(40):
        expected = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000
        assert day_start(day, "UTC") == expected
        day += timedelta(days=31)
