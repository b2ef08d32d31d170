"""Who gets what part of an invoice: the pool of a plan's `shares`.

Source: specs/rating.md section 8. Amounts are whole minor units. The parts always sum to the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from sealpack.settlement.money import Rounding, allocate, amount_text, round_half
from sealpack.settlement.plan import PLATFORM, Member, Plan, TakeTier


@dataclass(frozen=True, slots=True)
class Share:
    """One party's part, in minor units."""

    party: str
    amount: int

    def to_dict(self, places: int) -> dict[str, str]:
        """JSON form with a decimal string of `places` places."""
        return {"party": self.party, "amount": amount_text(self.amount, places)}


def split(
    plan: Plan, by_year: Mapping[int, int], outside: int, taken: Mapping[int, Fraction]
) -> tuple[tuple[Share, ...], dict[int, Fraction]]:
    """Split what accrued in the share scope over the pool.

    `by_year` maps a calendar year of service to the accrued minor units in scope, `outside` is what
    accrued outside any share scope (the platform's), `taken` maps a year to the minor units that
    earlier invoices of the license already accrued in it. Returns the shares in pool order, the
    platform last when it is not in the pool, and `taken` moved on.
    """
    moved = dict(taken)
    totals: dict[str, int] = {}
    for year, base in sorted(by_year.items()):
        before = moved.get(year, Fraction(0))
        moved[year] = before + base
        if plan.shares is None:
            outside += base
            continue
        parts = split_pool(plan.shares.pool, base, before, plan)
        for member, part in zip(plan.shares.pool, parts, strict=True):
            totals[member.party] = totals.get(member.party, 0) + part
    if outside or not totals:
        totals[PLATFORM] = totals.get(PLATFORM, 0) + outside
    return tuple(Share(party, amount) for party, amount in totals.items()), moved


def split_pool(pool: tuple[Member, ...], base: int, before: Fraction, plan: Plan) -> list[int]:
    """Parts of `base` in pool order: takes first, largest remainder over what they leave."""
    if base < 0:
        return [-part for part in split_pool(pool, -base, before + base, plan)]
    exact_takes = [_take_between(member.take, before, base, plan.exponent) for member in pool]
    takes = [_rounded_take(member.take, before, base, plan) if member.take else 0 for member in pool]
    weights = [Fraction((m.bps or 0) * base, 10_000) for m in pool]
    spoken_for = sum(weights, Fraction(0)) + sum(exact_takes, Fraction(0))
    weights = [
        max(Fraction(0), base - spoken_for) if member.rest else weight
        for member, weight in zip(pool, weights, strict=True)
    ]
    open_to = [index for index, member in enumerate(pool) if not member.take]
    left = allocate(base - sum(takes), [weights[index] for index in open_to])
    parts = list(takes)
    for index, part in zip(open_to, left, strict=True):
        parts[index] = part
    return parts


def take_total(tiers: tuple[TakeTier, ...], amount: Fraction, places: int) -> Fraction:
    """T(amount): what graduated take tiers give of `amount`, both in minor units; T(0) = 0."""
    total, lo = Fraction(0), Fraction(0)
    for tier in tiers:
        up_to = None if tier.up_to is None else tier.up_to * 10**places
        top = amount if up_to is None else min(amount, up_to)
        total += max(Fraction(0), top - lo) * tier.bps / 10_000
        lo = lo if up_to is None else up_to
    return total


def _take_between(tiers: tuple[TakeTier, ...], before: Fraction, base: int, places: int) -> Fraction:
    return take_total(tiers, before + base, places) - take_total(tiers, before, places)


def _rounded_take(tiers: tuple[TakeTier, ...], before: Fraction, base: int, plan: Plan) -> int:
    """rounded(T(Y + b)) - rounded(T(Y)): the parts of a year telescope to the year's own take."""

    def rounded(amount: Fraction) -> int:
        rule: Rounding = plan.rounding
        return round_half(take_total(tiers, amount, plan.exponent), rule)

    return rounded(before + base) - rounded(before)
