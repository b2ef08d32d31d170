"""The unrounded price of one charge in one period, with every step that led to it.

Source: specs/rating.md section 4. Nothing is rounded here: tiers, discounts and clamps are working
inside the line, and the line is rounded once by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from sealpack.settlement.money import exact_text, grouped
from sealpack.settlement.periods import Active
from sealpack.settlement.plan import Charge, Discount, Meter, Package, Tier

ZERO = Fraction(0)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the working: what it is, in words and, where it has them, in exact numbers."""

    step: str  # usage included tier flat unit package amount prorate discount min max drawn ...
    text: str
    quantity: Fraction | None = None
    unit: Fraction | None = None
    amount: Fraction | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON form; exact decimal strings, or "n/d" where a decimal does not end."""
        numbers = (("quantity", self.quantity), ("unit", self.unit), ("amount", self.amount))
        exact = {key: exact_text(value) for key, value in numbers if value is not None}
        return {"step": self.step, "text": self.text, **exact}


@dataclass(frozen=True, slots=True)
class Priced:
    """A charge's exact amount for a period: `raw` base units, `quantity` priced units."""

    charge: Charge
    amount: Fraction
    steps: tuple[Step, ...]
    quantity: Fraction | None = None
    raw: int | None = None
    estimated: int = 0  # of `raw`


def show(value: Fraction) -> str:
    """An exact value for people: grouped, at least as given, fractions that do not end cut at 6."""
    text = exact_text(value)
    if "/" in text:
        digits = exact_text(Fraction(int(abs(value) * 10**6), 10**6))
        return ("-" if value < 0 else "") + grouped(digits) + "…"
    return grouped(text)


def price_usage(charge: Charge, meter: Meter, raw: int) -> Priced:
    """Price `raw` base units of a usage charge: included, then the model. No discount, no clamp."""
    units = Fraction(raw, meter.per)
    steps = [Step("usage", _usage_text(meter, raw, units), quantity=units)]
    rated = max(ZERO, units - charge.included)
    if charge.included:
        text = f"less {show(charge.included)} included leaves {show(rated)}"
        steps.append(Step("included", text, quantity=rated))
    steps += _model(charge, rated)
    parts = [step.amount for step in steps if step.amount is not None]
    amount = sum(parts, ZERO)
    if len(parts) > 1:
        text = f"{' + '.join(show(part) for part in parts)} = {show(amount)}"
        steps.append(Step("sum", text, amount=amount))
    return Priced(charge, amount, tuple(steps), units, raw)


def _usage_text(meter: Meter, raw: int, units: Fraction) -> str:
    if meter.per == 1:
        return f"{raw:,} {meter.words}"
    return f"{raw:,} {meter.words} / {meter.per:,} = {show(units)}"


def _model(charge: Charge, rated: Fraction) -> list[Step]:
    if charge.model == "per_unit":
        return [_times("unit", rated, charge.unit)]
    if charge.model == "graduated":
        return [step for tier in charge.tiers for step in _graduated(tier, rated)]
    if charge.model == "volume":
        return _volume(charge.tiers, rated)
    assert charge.package is not None  # the plan schema ties model and package together
    return _packages(charge.package, rated)


def _times(step: str, quantity: Fraction, unit: Fraction, label: str = "") -> Step:
    amount = quantity * unit
    text = f"{label}{show(quantity)} × {show(unit)} = {show(amount)}"
    return Step(step, text, quantity, unit, amount)


def _range(tier: Tier) -> str:
    if tier.up_to is None:
        return f"above {show(tier.lo)}" if tier.lo else "any quantity"
    return f"{show(tier.lo)} to {show(tier.up_to)}"


def _graduated(tier: Tier, rated: Fraction) -> list[Step]:
    """The part of `rated` that lies in (lo, up_to], and the flat fee if that part is not empty."""
    if rated <= tier.lo:
        return []
    top = rated if tier.up_to is None else min(rated, tier.up_to)
    return [_times("tier", top - tier.lo, tier.unit, f"{_range(tier)}: "), *_flat(tier)]


def _volume(tiers: tuple[Tier, ...], rated: Fraction) -> list[Step]:
    """All of `rated` at the price of the one tier whose (lo, up_to] holds the total."""
    for tier in tiers:
        if tier.lo < rated and (tier.up_to is None or rated <= tier.up_to):
            return [_times("tier", rated, tier.unit, f"{_range(tier)}: all "), *_flat(tier)]
    return []


def _flat(tier: Tier) -> list[Step]:
    if not tier.flat:
        return []
    return [Step("flat", f"{_range(tier)}: flat {show(tier.flat)}", amount=tier.flat)]


def _packages(package: Package, rated: Fraction) -> list[Step]:
    beyond = max(ZERO, rated - package.free)
    count = Fraction(-((-beyond) // package.size))
    steps = []
    if package.free:
        text = f"less {show(package.free)} free leaves {show(beyond)}"
        steps.append(Step("free", text, quantity=beyond))
    label = f"packages of {show(package.size)}, started ones count: "
    return [*steps, _times("package", count, package.price, label)]


def price_fixed(charge: Charge, active: Active) -> Priced:
    """Price a one-time or recurring charge; a prorated one by active local days of the period."""
    text = f"{charge.type.replace('_', '-')} {show(charge.amount)}"
    steps = [Step("amount", text, amount=charge.amount)]
    amount = charge.amount
    if charge.prorate and active.days != active.of:
        amount, step = prorate(amount, active)
        steps.append(step)
    return Priced(charge, amount, tuple(steps))


def prorate(amount: Fraction, active: Active) -> tuple[Fraction, Step]:
    """`amount` × active local days / local days of the period."""
    part = amount * active.share
    text = f"{show(amount)} × {active.days}/{active.of} days = {show(part)}"
    return part, Step("prorate", text, amount=part)


def discounted(priced: Priced, discounts: tuple[Discount, ...]) -> Priced:
    """Apply the charge's percentage discounts, then its own minimum and maximum."""
    charge, amount, steps = priced.charge, priced.amount, list(priced.steps)
    for discount in discounts:
        if charge.id in discount.scope:
            less = amount * (10_000 - discount.bps) / 10_000
            percent = show(Fraction(discount.bps, 100))
            text = f"{discount.name or discount.id}: {show(amount)} less {percent} % = {show(less)}"
            amount = less
            steps.append(Step("discount", text, amount=amount))
    if charge.min is not None and amount < charge.min:
        amount = charge.min
        steps.append(Step("min", f"raised to the minimum {show(amount)}", amount=amount))
    if charge.max is not None and amount > charge.max:
        amount = charge.max
        steps.append(Step("max", f"capped at the maximum {show(amount)}", amount=amount))
    return replace(priced, amount=amount, steps=tuple(steps))
