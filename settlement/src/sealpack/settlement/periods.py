"""Billing periods: calendar months in the plan's zone, as UTC instants and local days.

Source: specs/rating.md section 3. A period runs from the first instant of a local day to the first
instant of the next period's. Zones come from the pinned `tzdata` package, never from the machine,
so two machines draw the same boundaries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)
FIRST_YEAR, LAST_YEAR = 1970, 9990


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every zone the pinned database knows."""
    text = resources.files("tzdata").joinpath("zones").read_text(encoding="ascii")
    return frozenset(text.split())


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """The zone `name` from the pinned database; KeyError if there is none."""
    if name not in zone_names():
        raise KeyError(name)
    path = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with path.open("rb") as stream:
        return ZoneInfo.from_file(stream, key=name)


@lru_cache(maxsize=1 << 16)  # asked for the same quarters of an hour again and again
def local_day(utc_ms: int, tz: str) -> date:
    """The local calendar day on which an instant falls: a day never begins twice, so what a clock
    repeats after its first midnight belongs to the new day."""
    moment = datetime.fromtimestamp(utc_ms // 1000, UTC)
    day = moment.astimezone(zone(tz)).date()
    if day.year > LAST_YEAR:  # a license's last day may be the calendar's last, which has no tomorrow
        return day
    return day + _DAY if utc_ms >= day_start(day + _DAY, tz) else day


@lru_cache(maxsize=4096)
def day_start(day: date, tz: str) -> int:
    """UTC ms of the first instant of a local day (fold 0; a skipped midnight: the jump itself)."""
    midnight = datetime.combine(day, time(), tzinfo=zone(tz)).replace(fold=0)
    return int(midnight.timestamp()) * 1000


def count_days(first: date, last: date, tz: str) -> int:
    """Local days from `first` to `last`, both included, without days the zone skipped."""
    days = (first + _DAY * n for n in range((last - first).days + 1))
    return sum(day_start(day, tz) < day_start(day + _DAY, tz) for day in days)


@dataclass(frozen=True, slots=True)
class Period:
    """One calendar month of a zone: `first`..`last` local days, [start_ms, end_ms) in UTC."""

    first: date
    last: date
    start_ms: int
    end_ms: int
    tz: str

    @classmethod
    def containing(cls, day: date, tz: str) -> Period:
        """The period that holds the local `day`."""
        first = day.replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
        return cls(first, following - _DAY, day_start(first, tz), day_start(following, tz), tz)

    @property
    def days(self) -> int:
        return count_days(self.first, self.last, self.tz)

    def next(self) -> Period:
        return Period.containing(self.last + _DAY, self.tz)


@dataclass(frozen=True, slots=True)
class Term:
    """A stretch of local days, both included, for which a license runs; `last` None: no end is set."""

    first: date
    last: date | None = None


@dataclass(frozen=True, slots=True)
class Active:
    """The part of a period in which the license was active; `first` > `last` when it was not."""

    first: date
    last: date
    days: int
    of: int

    @property
    def share(self) -> Fraction:
        """Active local days / local days of the period."""
        return Fraction(self.days, self.of)


def active_part(period: Period, terms: Sequence[Term]) -> Active:
    """The days of a period that lie in one of the terms, which do not overlap."""
    clipped = [(max(period.first, t.first), min(period.last, t.last or period.last)) for t in terms]
    inside = [(first, last) for first, last in clipped if first <= last]
    if not inside:
        return Active(period.last, period.first, 0, period.days)
    days = sum(count_days(first, last, period.tz) for first, last in inside)
    return Active(inside[0][0], inside[-1][1], days, period.days)


def periods_between(first: date, last: date, tz: str) -> list[Period]:
    """Every period from the one that holds `first` to the one that holds `last`."""
    result = [Period.containing(first, tz)]
    while result[-1].last < last:
        result.append(result[-1].next())
    return result


def find_period(periods: Sequence[Period], utc_ms: int) -> int | None:
    """Index of the period that holds an instant, or None; `periods` are consecutive."""
    index = bisect_right([period.start_ms for period in periods], utc_ms) - 1
    if index < 0 or utc_ms >= periods[index].end_ms:
        return None
    return index
