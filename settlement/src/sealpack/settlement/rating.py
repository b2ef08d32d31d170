"""Rate a license's usage: a pure function from (plan, usage, span, state) to period results.

Source: specs/rating.md. The order within a period is: included, price, discount, charge min/max,
commitment and overage, minimum true-up, credits, tax, split. Nothing here reads a clock, a file or
a database, and no result depends on the order in which usage is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from sealpack.settlement import money
from sealpack.settlement.commitments import Drawn, draw, minimum_true_up, paid_ahead, spread_credit
from sealpack.settlement.periods import (
    Active,
    Period,
    Term,
    active_part,
    find_period,
    periods_between,
)
from sealpack.settlement.plan import FIELDS, LOST, STATUSES, Plan, Tax
from sealpack.settlement.pricing import Priced, Step, discounted, price_fixed, price_usage, show
from sealpack.settlement.results import Estimated, Line, PeriodResult, State, close

UsageKey = tuple[int, str, str]
Usage = Mapping[UsageKey, int]
Estimates = Mapping[date, Sequence[Estimated]]  # by the first day of the period
Sums = dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Span:
    """What to rate: every period from the one holding `first` to the one holding `last`.

    All are local days of the plan's zone. `activated` and `ended` (both count) prorate and place
    one-time charges, prepayments and the shortfall; None: before the span, or not ended yet. Of a
    license that was renewed, `ended` is the last day of the term that is rated, and `terms` are all
    of them: these prorate then.
    """

    first: date
    last: date
    activated: date | None = None
    ended: date | None = None
    terms: tuple[Term, ...] = ()

    @property
    def active(self) -> tuple[Term, ...]:
        """When the license runs."""
        return self.terms or (Term(self.activated or date.min, self.ended),)


@dataclass(frozen=True, slots=True)
class Credit:
    """A goodwill amount before tax (minor units, > 0) for the period that holds `day`.

    `scope` names charges; empty means the whole invoice. Never takes a net below zero.
    """

    id: str
    amount: int
    day: date
    description: str = ""
    scope: tuple[str, ...] = ()


def rate(
    plan: Plan,
    usage: Usage,
    span: Span,
    *,
    state: State | None = None,
    tax: Tax | None = None,
    credits: Sequence[Credit] = (),
    estimates: Estimates | None = None,
) -> list[PeriodResult]:
    """Rate every period of `span`, empty ones too.

    `usage` maps (utc_ms, status, field) to whole base units; utc_ms is the end time of the usage or
    the start of the UTC quarter hour that holds it (period boundaries always are quarter hours).
    Usage outside the span's periods belongs to other spans and is not looked at. `state` is the
    `state` of the result before (a plan change rates its span from there), `tax` the customer's own
    treatment instead of the plan's default; `estimates` count beside the usage. ValueError for an
    unknown status, field or a negative quantity: those are faults of the caller, not of a customer's
    file.
    """
    periods = periods_between(span.first, span.last, plan.tz)
    sums = _sums(usage, periods)
    treatment = tax or plan.tax
    results: list[PeriodResult] = []
    current = state or State()
    for period, quantities in zip(periods, sums, strict=True):
        due = [credit for credit in credits if period.first <= credit.day <= period.last]
        guessed = tuple((estimates or {}).get(period.first, ()))
        result = _rate_period(plan, period, quantities, span, current, treatment, due, guessed)
        results.append(result)
        current = result.state
    return results


def _sums(usage: Usage, periods: Sequence[Period]) -> list[Sums]:
    """Base units per (status, field) for every period."""
    sums: list[Sums] = [{} for _ in periods]
    known = (*STATUSES, LOST)
    cache: dict[int, int | None] = {}
    for (utc_ms, status, source), amount in usage.items():
        if status not in known or source not in FIELDS or amount < 0:
            raise ValueError(f"usage {(utc_ms, status, source)!r}: {amount!r} cannot be rated")
        if utc_ms not in cache:
            cache[utc_ms] = find_period(periods, utc_ms)
        index = cache[utc_ms]
        if index is not None:
            key = (status, source)
            sums[index][key] = sums[index].get(key, 0) + amount
    return sums


def metered(plan: Plan, sums: Sums) -> dict[str, int]:
    """Base units of every meter of the plan; lost records count whatever the meter's `where`."""
    return {
        meter.id: sum(
            amount
            for (status, source), amount in sums.items()
            if source == meter.field and meter.counts(status)
        )
        for meter in plan.meters.values()
    }


def _rate_period(
    plan: Plan,
    period: Period,
    sums: Sums,
    span: Span,
    state: State,
    treatment: Tax | None,
    credits: Sequence[Credit],
    estimates: tuple[Estimated, ...],
) -> PeriodResult:
    active = active_part(period, span.active)
    starts = [item.id for item in plan.committed if item.id not in state.used]
    starts = starts if _within(span.activated, period) else []
    priced = _price(plan, period, active, metered(plan, sums), span, estimates)
    drawn = [
        draw(
            plan,
            item,
            [entry for entry in priced if entry.charge.id in item.scope],
            state,
            period,
            starts=item.id in starts,
            ended=span.ended,
        )
        for item in plan.committed
    ]
    printed = _charge_lines(plan, priced, drawn, period, active)
    for item in plan.minimums:  # in the plan's order: each counts what those before it lifted
        true_up = minimum_true_up(plan, item, printed, period, active)
        printed += [true_up] if true_up else []
    for credit in credits:
        printed += _credit_line(plan, credit, printed, period)
    drawdowns = tuple(item.drawdown for item in drawn)
    used = {**state.used, **{item.id: item.now for item in drawdowns}}
    paid = {item.id: paid_ahead(plan, item, state, starts=item.id in starts) for item in plan.committed}
    billed = {name: amount for name, amount in paid.items() if amount is not None}
    after = replace(state, used=used, paid={**state.paid, **billed})
    return replace(close(plan, period, printed, treatment, drawdowns, after), estimates=estimates)


def _within(day: date | None, period: Period) -> bool:
    return day is not None and period.first <= day <= period.last


def _price(
    plan: Plan, period: Period, active: Active, meters: Mapping[str, int], span: Span,
    estimates: Sequence[Estimated],
) -> list[Priced]:  # fmt: skip
    """The discounted and clamped exact amount of every charge that falls into the period."""
    result = []
    for charge in plan.charges:
        if charge.type == "usage":
            guessed = [one for one in estimates if charge.meter in one.amounts]
            raw = meters[charge.meter] + sum(one.amounts[charge.meter] for one in guessed)
            if not active.days and not raw:
                continue
            priced = _with_estimates(plan, price_usage(charge, plan.meters[charge.meter], raw), guessed)
        elif active.days if charge.type == "recurring" else _within(span.activated, period):
            priced = price_fixed(charge, active)
        else:
            continue
        result.append(discounted(priced, plan.discounts))
    return result


def _with_estimates(plan: Plan, priced: Priced, estimates: Sequence[Estimated]) -> Priced:
    """The working says after the quantity what of it is estimated."""
    meter = priced.charge.meter
    steps = [
        Step(
            "estimated",
            f"of which {one.amounts[meter]:,} {plan.meters[meter].words} estimated for device {one.device_id}"
            f" of {one.license_id}: the mean of {', '.join(f'{month:%B %Y}' for month in one.months)}",
        )
        for one in estimates
    ]
    if not steps:
        return priced
    total = sum(one.amounts[meter] for one in estimates)
    return replace(priced, steps=(priced.steps[0], *steps, *priced.steps[1:]), estimated=total)


def _charge_lines(
    plan: Plan, priced: list[Priced], drawn: Sequence[Drawn], period: Period, active: Active
) -> list[Line]:
    """The charges' lines in plan order, then those of the commitments they draw from."""
    lines = []
    for entry in priced:
        line = _charge_line(plan, entry, period, active)
        for commitment in drawn:
            if line.charge in commitment.item.scope:
                line = commitment.apply(line)
        lines.append(line)
    return lines + [line for commitment in drawn for line in commitment.lines]


def _charge_line(plan: Plan, priced: Priced, period: Period, active: Active) -> Line:
    """One charge, one line, rounded once."""
    charge = priced.charge
    amount = money.to_minor(priced.amount, plan.exponent, plan.rounding)
    steps = priced.steps
    if money.to_major(amount, plan.exponent) != priced.amount:
        rounded = money.to_major(amount, plan.exponent)
        text = f"{show(priced.amount)} rounded once = {_money(plan, amount)}"
        steps = (*steps, Step("round", text, amount=rounded))
    served = active if charge.prorate else None
    return Line(
        charge=charge.id,
        kind="charge",
        description=_describe(plan, priced, active),
        amount=amount,
        first=served.first if served else period.first,
        last=served.last if served else period.last,
        advance=charge.type == "recurring" and charge.when == "advance",
        quantity=priced.quantity,
        raw=priced.raw,
        estimated=priced.estimated,
        steps=steps,
        accrues=((charge.id, amount),),
    )


def _money(plan: Plan, amount: int) -> str:
    return money.grouped(money.amount_text(amount, plan.exponent))


def _describe(plan: Plan, priced: Priced, active: Active) -> str:
    charge = priced.charge
    name = charge.name or charge.id
    if charge.type == "usage":
        guessed = f", {priced.estimated:,} of them estimated" if priced.estimated else ""
        return f"{name}: {priced.raw or 0:,} {plan.meters[charge.meter].words}{guessed}"
    if charge.type == "one_time":
        return f"{name}: one-time, at activation"
    if charge.prorate and active.days != active.of:
        return f"{name}: recurring, {active.days} of {active.of} days"
    return f"{name}: recurring"


def _credit_line(plan: Plan, credit: Credit, printed: list[Line], period: Period) -> list[Line]:
    if credit.amount <= 0:
        raise ValueError(f"credit {credit.id!r} is not greater than 0")
    amount, accrues = spread_credit(credit.amount, credit.scope, printed)
    if not amount:
        return []
    text = f"credit {_money(plan, credit.amount)}, of which {_money(plan, amount)} fits this invoice"
    step = Step("credit", text, amount=-money.to_major(amount, plan.exponent))
    return [
        Line(
            charge=credit.id,
            kind="credit",
            description=credit.description or "credit",
            amount=-amount,
            first=period.first,
            last=period.last,
            steps=(step,),
            accrues=accrues,
        )
    ]
