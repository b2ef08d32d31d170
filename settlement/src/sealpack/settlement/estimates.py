"""What devices that run and sent nothing have used, estimated from the months that are known of them.

Source: specs/rating.md section 11. Nothing is stored: an estimate follows from the logs as they are, the
period and the day of the document, so it changes with every file that comes and is gone when a device is
known to the period's end. Corrections then true up what was invoiced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa

from sealpack.format.records import METER_ORDER
from sealpack.settlement import db, epochs, registry, rollups, sublicenses
from sealpack.settlement.contract import Contract
from sealpack.settlement.epochs import Member
from sealpack.settlement.periods import Period, active_part
from sealpack.settlement.plan import LOST, Plan
from sealpack.settlement.rating import Sums, metered
from sealpack.settlement.results import Estimated

Key = tuple[str, str]  # license id, device id


@dataclass(frozen=True, slots=True)
class _Silent:
    """A device that runs and is known up to `known_ms` only. `since_ms`: its activation; both UTC ms."""

    license_id: str
    device_id: str
    since_ms: int
    known_ms: int
    logs: tuple[Member, ...]

    @property
    def key(self) -> Key:
        return self.license_id, self.device_id


def over(plan: Plan, period: Period, day: date) -> bool:
    """Whether a document of that day may have estimates for a period: its days of grace are over."""
    return plan.estimate is not None and day > period.last + timedelta(days=plan.grace_days)


@dataclass(frozen=True, slots=True)
class _Month:
    """A period and the plan it rates under; `may`: whether it may have estimates."""

    plan: Plan
    period: Period
    may: bool

    @classmethod
    def of(cls, sold: Contract, month: date, day: date) -> _Month:
        plan, period = sold.plan_for(month), sold.period(month)
        return cls(plan, period, over(plan, period, day))


def of_license(
    connection: sa.Connection, sold: Contract, last: date, day: date | None,
    only: Collection[Key] | None = None,
) -> dict[date, tuple[Estimated, ...]]:  # fmt: skip
    """What is estimated in a document of that day, per period up to the month `last`, by their first days.

    Nothing without a day. `only`: of these devices alone, whether they are known to run or not. A device of
    which anything was estimated before stands in later periods too, if need be without amounts.
    """
    if day is None:
        return {}
    months = [_Month.of(sold, month, day) for month in sold.months(last) if month <= last]
    ends = [month.period.end_ms for month in months if month.may]
    if not ends:
        return {}
    found: dict[date, list[Estimated]] = {}
    for device in _silent(connection, sold, max(ends), only):
        for first, one in _of_device(connection, sold, months, device):
            found.setdefault(first, []).append(one)
    return {first: tuple(each) for first, each in found.items()}


# --- who is silent ------------------------------------------------------------------------------------


def _silent(
    connection: sa.Connection, sold: Contract, end_ms: int, only: Collection[Key] | None
) -> Iterator[_Silent]:
    """The devices of which nothing is known up to an instant, by license and id."""
    ids = sublicenses.billed_with(connection, sold.license.license_id)
    known = _known(connection, ids)
    proofs = _proofs(connection, ids)
    columns = db.activations.c
    rows = connection.execute(
        sa.select(columns.license_id, columns.device_id, columns.first_at)
        .where(columns.license_id.in_(ids), columns.first_at * 1000 < end_ms)
        .order_by(columns.license_id, columns.device_id)
    )
    for row in rows.all():
        key = row.license_id, row.device_id
        if key not in known or known[key] >= end_ms or (only is not None and key not in only):
            continue
        members = epochs.family(connection, *key)
        newest = members[-1]
        if only is None and (newest.state.closed or proofs.get(key, -1) >= newest.epoch):
            continue
        yield _Silent(*key, row.first_at * 1000, known[key], tuple(members))


def _known(connection: sa.Connection, ids: Sequence[str]) -> dict[Key, int]:
    """Up to when devices are known by any of their logs, UTC ms."""
    columns = db.logs.c
    rows = connection.execute(
        sa.select(columns.license_id, columns.device_id, sa.func.max(columns.last_ms).label("known_ms"))
        .where(columns.license_id.in_(ids))
        .group_by(columns.license_id, columns.device_id)
    )
    return {(row.license_id, row.device_id): row.known_ms for row in rows}


def _proofs(connection: sa.Connection, ids: Sequence[str]) -> dict[Key, int]:
    """The newest log that each device proved to have ended."""
    columns = db.deactivations.c
    rows = connection.execute(
        sa.select(columns.license_id, columns.device_id, sa.func.max(columns.epoch).label("epoch"))
        .where(columns.license_id.in_(ids))
        .group_by(columns.license_id, columns.device_id)
    )
    return {(row.license_id, row.device_id): row.epoch for row in rows}


# --- how much -----------------------------------------------------------------------------------------


def _of_device(
    connection: sa.Connection, sold: Contract, months: Sequence[_Month], device: _Silent
) -> Iterator[tuple[date, Estimated]]:
    """(first day of the period, estimate), the oldest period first."""
    known = [one.period for one in months if device.since_ms < one.period.end_ms <= device.known_ms]
    silent = [one for one in months if one.period.end_ms > device.known_ms]
    if not known or not any(one.may for one in silent):
        return
    known = known[-max(one.plan.estimate or 0 for one in silent) :]
    used = _used(connection, device, [*known, *(one.period for one in silent)])
    told = False
    for one in silent:
        amounts, base = {}, known[-(one.plan.estimate or 0) :]
        active = active_part(one.period, sold.terms)
        for meter, seen in metered(one.plan, used[one.period.first]).items() if one.may else ():
            total = sum(metered(one.plan, used[month.first])[meter] for month in base)
            mean = total * active.days // (len(base) * active.of)
            if mean > seen and any(charge.meter == meter for charge in one.plan.charges):
                amounts[meter] = mean - seen
        told = told or bool(amounts)
        if told:
            first_days = tuple(month.first for month in base)
            yield one.period.first, Estimated(*device.key, device.known_ms, first_days, amounts)


def _used(connection: sa.Connection, device: _Silent, periods: Sequence[Period]) -> dict[date, Sums]:
    """Base units per (status, field) that are known of a device in each of these periods, tests left out."""
    tests = registry.test_numbers(connection, device.license_id)
    found: dict[date, Counter[tuple[str, str]]] = {period.first: Counter() for period in periods}

    def count(quarter_ms: int, status: str, field: str, amount: int) -> None:
        for period in periods:
            if period.start_ms <= quarter_ms < period.end_ms:
                found[period.first][status, field] += amount

    start, end = min(one.start_ms for one in periods), max(one.end_ms for one in periods)
    for log in device.logs:
        routes = rollups.routes(connection, log.origin, log.state.routes or {})
        for (quarter, seq, status), amounts in rollups.by_number(
            rollups.stored(connection, log.origin, start, end), routes
        ).items():
            if seq not in tests:
                for field, amount in zip(METER_ORDER, amounts, strict=True):
                    count(quarter, status, field, amount)
    for difference in epochs.billed(connection, device.license_id, device.logs):
        count(difference.quarter_ms, LOST, difference.meter, difference.amount)
    return {first: dict(sums) for first, sums in found.items()}
