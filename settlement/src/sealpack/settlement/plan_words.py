"""A price plan in plain words, for those who sell by it and those who are billed by it.

Source: specs/plan.md, "In words". Made from the plan alone, so the same plan always gives the same page;
every number of the plan stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from sealpack.settlement import money
from sealpack.settlement.money import Rounding
from sealpack.settlement.plan import (
    PLATFORM,
    Charge,
    CommittedSpend,
    Member,
    Minimum,
    Plan,
    TakeTier,
    Tier,
)

_STATUS_WORDS = {"ok": "went well", "err": "failed", "cancel": "were cancelled", "aborted": "were cut off"}
_UNUSED = {
    "forfeit": "What is not used by the end of the term is lost.",
    "rollover": "What is not used by the end of the term goes on into the next one.",
    "true_up": "What is missing at the end of the term is billed then.",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its sentences."""

    title: str
    lines: tuple[str, ...]


def sections(plan: Plan) -> tuple[Section, ...]:
    """The page; what has nothing to say is left out."""
    parts = (
        ("The plan", _head(plan)),
        ("What is counted", _meters(plan)),
        ("What it costs", (line for charge in plan.charges for line in _charge(plan, charge))),
        ("What is agreed", _commitments(plan)),
        ("Discounts", _discounts(plan)),
        ("Tax", _tax(plan)),
        ("Who earns it", _shares(plan)),
    )
    told = (Section(title, tuple(lines)) for title, lines in parts)
    return tuple(section for section in told if section.lines)


def _money(plan: Plan, value: Fraction) -> str:
    """An amount or price with at least the places of the currency, all of them that are not 0."""
    text = money.exact_text(value)
    whole, _, places = text.partition(".")
    point = "." if places or plan.exponent else ""
    return f"{money.grouped(whole)}{point}{places.ljust(plan.exponent, '0')} {plan.currency}"


def _number(value: Fraction | int) -> str:
    return money.grouped(money.exact_text(Fraction(value)))


def _percent(bps: int | Fraction) -> str:
    return f"{money.exact_text(Fraction(bps) / 100)} %"


def _listed(names: Iterator[str] | list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _named(plan: Plan, ids: tuple[str, ...]) -> str:
    """Charges by the names that invoices print."""
    known = {charge.id: charge.name or charge.id for charge in plan.charges}
    return _listed([known[id] for id in ids])


# --- the sections -----------------------------------------------------------------------------------


def _head(plan: Plan) -> Iterator[str]:
    yield f"Price plan {plan.id}, version {plan.version}, in {plan.currency}."
    yield f"An invoice is for a calendar month as it runs in {plan.tz}."
    yield (
        f"After the month's end {plan.grace_days} days are waited for usage that is still on its way; up to "
        f"{plan.late_window_months} months later it is billed by a correction, after that by a person's word."
    )
    if plan.estimate is not None:
        months = "month that is" if plan.estimate == 1 else f"{plan.estimate} months that are"
        yield (
            "A machine that runs and from which nothing came for a month is billed the mean of its last "
            f"{months} known; when its usage comes, the difference is billed or given back."
        )
    if plan.rounding is Rounding.HALF_EVEN:
        yield "Each line is rounded once; half a cent goes to the even neighbour."
    else:
        yield "Each line is rounded once; half a cent is rounded up."


def _meters(plan: Plan) -> Iterator[str]:
    for meter in plan.meters.values():
        said = f"{meter.id}: {meter.words}"
        if meter.per != 1:
            said += f", in units of {meter.per:,}"
        if meter.statuses is not None:
            said += f", of calls that {_listed([_STATUS_WORDS[status] for status in meter.statuses])}"
        yield f"{said}. What a machine lost in a crash counts too."


def _charge(plan: Plan, charge: Charge) -> Iterator[str]:
    name = charge.name or charge.id
    if charge.type == "one_time":
        yield f"{name}: {_money(plan, charge.amount)} once, when the first machine is activated."
    elif charge.type == "recurring":
        when = "in advance" if charge.when == "advance" else "when it is over"
        part = (
            "; a month in part costs the days it ran"
            if charge.prorate
            else "; a month in part costs all of it"
        )
        yield f"{name}: {_money(plan, charge.amount)} a month, billed {when}{part}."
    else:
        yield from _usage(plan, charge, name)
    bounds = [
        f"{word} {_money(plan, value)}"
        for word, value in (("at least", charge.min), ("at most", charge.max))
        if value is not None
    ]
    if bounds:
        yield f"{name} comes to {_listed(bounds)} a month."


def _usage(plan: Plan, charge: Charge, name: str) -> Iterator[str]:
    meter = plan.meters[charge.meter]
    unit = f"{meter.per:,} {meter.words}" if meter.per != 1 else meter.words.removesuffix("s")
    units = f"times {meter.per:,} {meter.words}" if meter.per != 1 else meter.words
    if charge.included:
        yield f"{name}: the first {_number(charge.included)} {units} of a month cost nothing."
    if charge.package is not None:
        pack = charge.package
        free = f" beyond the first {_number(pack.free)}" if pack.free else ""
        yield (
            f"{name}: {_money(plan, pack.price)} for every {_number(pack.size)} {units}{free}; one that was "
            "begun is paid in full."
        )
    elif charge.model == "per_unit":
        yield f"{name}: {_money(plan, charge.unit)} for each {unit}."
    else:
        whole = "all of the month's units cost what the last one does" if charge.model == "volume" else (
            "each step's units cost their own price"
        )  # fmt: skip
        yield f"{name}, by steps, for each {unit}: {whole}."
        for tier in charge.tiers:
            yield f"{name}, {_step(tier)}: {_money(plan, tier.unit)} each{_flat(plan, tier)}."


def _step(tier: Tier | TakeTier, lo: Fraction | None = None) -> str:
    start = tier.lo if isinstance(tier, Tier) else lo or Fraction(0)
    if tier.up_to is None:
        return f"above {_number(start)}" if start else "all of it"
    return f"above {_number(start)} up to {_number(tier.up_to)}" if start else f"up to {_number(tier.up_to)}"


def _flat(plan: Plan, tier: Tier) -> str:
    return f", and {_money(plan, tier.flat)} once when it is reached" if tier.flat else ""


def _commitments(plan: Plan) -> Iterator[str]:
    for item in plan.minimums:
        yield _minimum(plan, item)
    for spend in plan.committed:
        yield from _committed(plan, spend)


def _minimum(plan: Plan, item: Minimum) -> str:
    part = ", less in a month in part" if item.prorate else ""
    return (
        f"{item.name or item.id}: {_named(plan, item.scope)} come together to at least "
        f"{_money(plan, item.amount)} a month{part}."
    )


def _committed(plan: Plan, item: CommittedSpend) -> Iterator[str]:
    name = item.name or item.id
    paid = "billed at its start" if item.billing == "prepaid" else "billed as it is used"
    yield (
        f"{name}: {_money(plan, item.amount)} of {_named(plan, item.scope)} for the life of the license, "
        f"{paid}."
    )
    factor = (
        "at the prices above"
        if item.overage_factor == 1
        else f"at {_number(item.overage_factor)} times the prices above"
    )
    yield f"{name}: what goes beyond it is billed {factor}. {_UNUSED[item.unused]}"


def _discounts(plan: Plan) -> Iterator[str]:
    for item in plan.discounts:
        yield f"{item.name or item.id}: {_percent(item.bps)} off {_named(plan, item.scope)}."


def _tax(plan: Plan) -> Iterator[str]:
    if plan.tax is not None:
        reason = f" ({plan.tax.reason})" if plan.tax.reason else ""
        yield (
            f"Category {plan.tax.category}, {money.exact_text(plan.tax.rate * 100)} %{reason}, where the "
            "customer's record says nothing else."
        )


def _shares(plan: Plan) -> Iterator[str]:
    if plan.shares is None:
        return
    yield f"Of {_named(plan, plan.shares.scope)}, before tax:"
    for member in plan.shares.pool:
        yield from _member(plan, member)


def _member(plan: Plan, member: Member) -> Iterator[str]:
    who = "We" if member.party == PLATFORM else member.party
    keep = "keep" if who == "We" else "earns"
    if member.rest:
        yield f"{who} {keep} what is left."
    elif member.bps is not None:
        yield f"{who} {keep} {_percent(member.bps)}."
    else:
        lo = Fraction(0)
        steps = []
        for tier in member.take:
            steps.append(f"{_percent(tier.bps)} {_step(tier, lo)}")
            lo = tier.up_to or lo
        by = f"by what a license comes to in a calendar year ({plan.currency})"
        yield f"{who} {keep}, {by}: {'; '.join(steps)}."
