"""What rating returns: one result per period, made of lines that are rounded once.

Source: specs/rating.md section 1. Amounts are whole minor units of the plan's currency. A line's
`accrues` says which charges its money was earned by: minimums, credits and shares read that, so
money drawn from a prepayment counts although its line prints 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from sealpack.settlement import money
from sealpack.settlement.periods import Period
from sealpack.settlement.plan import Plan, Tax
from sealpack.settlement.pricing import Step
from sealpack.settlement.shares import Share, split

BREAKAGE = "breakage"  # prints 0: what was paid ahead and never drawn becomes the platform's


@dataclass(frozen=True, slots=True)
class State:
    """What earlier periods of the license used up; the default is a license's first period.

    `used`: list money drawn per commitment (major units); a commitment that is named here has had
    its prepayment billed. `carried`: rolled over from an earlier term, per commitment (major
    units). `taken`: minor units accrued in the share scope per calendar year of service. `paid`:
    minor units billed ahead in this term, per prepaid commitment; what the plan asks for beyond
    that is billed. One that is not named here is billed with the activation, or was before.
    """

    used: Mapping[str, Fraction] = field(default_factory=dict)
    carried: Mapping[str, Fraction] = field(default_factory=dict)
    taken: Mapping[int, Fraction] = field(default_factory=dict)
    paid: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimated:
    """What is estimated of a silent device in one period (section 11).

    `amounts`: base units per meter of the plan, none of them 0. `months` are the first days of the periods
    whose mean it is, `known_ms` is up to when the device is known, UTC ms.
    """

    license_id: str
    device_id: str
    known_ms: int
    months: tuple[date, ...]
    amounts: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        known = datetime.fromtimestamp(self.known_ms // 1000, UTC)
        return {
            "license": self.license_id,
            "device": self.device_id,
            "known_to": f"{known:%Y-%m-%dT%H:%M:%SZ}",
            "months": [f"{month:%Y-%m}" for month in self.months],
            "amounts": {meter: str(amount) for meter, amount in self.amounts.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One printed line. `kind`: charge prepayment overage shortfall true_up breakage credit."""

    charge: str  # id of the charge, commitment or credit
    kind: str
    description: str
    amount: int
    first: date  # service, local days, both included
    last: date
    advance: bool = False  # printed one invoice before the period it serves
    quantity: Fraction | None = None  # priced units
    raw: int | None = None  # base units
    estimated: int = 0  # of these, without evidence
    steps: tuple[Step, ...] = ()
    accrues: tuple[tuple[str, int], ...] = ()

    @property
    def earned(self) -> int:
        """What accrues by it to anybody."""
        return sum(amount for _, amount in self.accrues)

    def to_dict(self, places: int) -> dict[str, Any]:
        """JSON form: decimal strings, or "n/d" for an exact number whose decimal does not end."""
        measured: dict[str, str] = {}
        if self.quantity is not None:
            measured["quantity"] = money.exact_text(self.quantity)
        if self.raw is not None:
            measured["raw"] = str(self.raw)
        if self.estimated:
            measured["estimated"] = str(self.estimated)
        return {
            "charge": self.charge,
            "kind": self.kind,
            "description": self.description,
            "service_start": self.first.isoformat(),
            "service_end": self.last.isoformat(),
            **measured,
            "amount": money.amount_text(self.amount, places),
            **({BREAKAGE: money.amount_text(self.earned, places)} if self.kind == BREAKAGE else {}),
            "working": [step.to_dict() for step in self.steps],
        }


@dataclass(frozen=True, slots=True)
class TaxLine:
    """Tax of one category on the printed lines after credits."""

    category: str
    rate: Fraction
    base: int
    amount: int
    reason: str = ""

    def to_dict(self, places: int) -> dict[str, str]:
        """JSON form: percent exact, base and amount as decimal strings."""
        return {
            "category": self.category,
            "percent": money.exact_text(self.rate * 100),
            "base": money.amount_text(self.base, places),
            "amount": money.amount_text(self.amount, places),
            **({"reason": self.reason} if self.reason else {}),
        }


@dataclass(frozen=True, slots=True)
class Drawdown:
    """What one period did to a committed spend. `list_total`, `before`, `now`: exact major units;
    `drawn`, `overage`, `remaining`: minor units."""

    id: str
    list_total: Fraction
    before: Fraction
    now: Fraction
    drawn: int
    overage: int
    remaining: int


class Taxed:
    """Tax and total of everything that has a net and tax lines; minor units."""

    __slots__ = ()
    net: int
    taxes: tuple[TaxLine, ...]

    @property
    def tax(self) -> int:
        return sum(tax.amount for tax in self.taxes)

    @property
    def total(self) -> int:
        return self.net + self.tax


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodResult(Taxed):
    """One rated period of one license; `state` is what the next period starts from."""

    plan: Plan = field(repr=False)
    period: Period
    lines: tuple[Line, ...]
    net: int
    taxes: tuple[TaxLine, ...]
    shares: tuple[Share, ...]
    drawdowns: tuple[Drawdown, ...]
    state: State
    estimates: tuple[Estimated, ...] = ()

    @property
    def accrued(self) -> int:
        """What the shares sum to: the net, less prepayments, plus what was drawn from them."""
        return sum(share.amount for share in self.shares)

    def text(self, amount: int) -> str:
        """Minor units as a decimal string of the plan's currency."""
        return money.amount_text(amount, self.plan.exponent)


def taxed(plan: Plan, net: int, treatment: Tax | None) -> tuple[TaxLine, ...]:
    """Tax on the sum of the printed lines, rounded once; nothing without a treatment."""
    if treatment is None:
        return ()
    exact = money.to_major(net, plan.exponent) * treatment.rate
    amount = money.to_minor(exact, plan.exponent, plan.rounding)
    return (TaxLine(treatment.category, treatment.rate, net, amount, treatment.reason),)


def accrued_by_charge(lines: Sequence[Line]) -> dict[str, int]:
    """Minor units each charge earned over the lines."""
    totals: dict[str, int] = {}
    for line in lines:
        for charge, amount in line.accrues:
            totals[charge] = totals.get(charge, 0) + amount
    return totals


def close(
    plan: Plan,
    period: Period,
    lines: list[Line],
    treatment: Tax | None,
    drawdowns: tuple[Drawdown, ...],
    state: State,
) -> PeriodResult:
    """Add the lines up, tax the sum, split what accrued, and move the yearly share base on."""
    scope = plan.shares.scope if plan.shares else ()
    by_year = {period.first.year: 0}
    outside = 0
    for line in lines:
        for charge, amount in line.accrues:
            if charge in scope:
                year = line.first.year
                by_year[year] = by_year.get(year, 0) + amount
            else:
                outside += amount
    shares, taken = split(plan, by_year, outside, state.taken)
    net = sum(line.amount for line in lines)
    return PeriodResult(
        plan=plan,
        period=period,
        lines=tuple(lines),
        net=net,
        taxes=taxed(plan, net, treatment),
        shares=shares,
        drawdowns=drawdowns,
        state=replace(state, taken=taken),
    )
