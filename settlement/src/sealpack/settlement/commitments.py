"""Committed spend, minimum true-ups and credits: what stands between the lines and the tax.

Source: specs/rating.md sections 5 to 7. A committed spend draws by money: L is the discounted list
total of the term, C the amount (with what was rolled over), O(L) = factor * max(0, L - C). Each
period bills rounded(now) - rounded(before), so a term's parts add up to the term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction

from sealpack.settlement import money
from sealpack.settlement.periods import Active, Period
from sealpack.settlement.plan import PLATFORM, CommittedSpend, Minimum, Plan
from sealpack.settlement.pricing import Priced, Step, prorate, show
from sealpack.settlement.results import Drawdown, Line, State, accrued_by_charge

ZERO = Fraction(0)
Parts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One period's drawdown: how it changes the charges' lines, and the commitment's own lines."""

    plan: Plan
    item: CommittedSpend
    parts: Parts  # drawn minor units per charge
    listed: dict[str, Fraction]  # exact list money of the period per charge
    lines: list[Line]
    drawdown: Drawdown

    def apply(self, line: Line) -> Line:
        """The charge's line under the commitment: prepaid prints 0, postpaid what it drew."""
        part = self.parts.get(line.charge, 0)
        name = self.item.name or self.item.id
        exponent = self.plan.exponent
        prepaid = self.item.billing == "prepaid"
        text = f"{_show(self.plan, part)} of {show(self.listed[line.charge])} drawn from {name}"
        step = Step("drawn", text + prepaid * ", paid ahead", amount=money.to_major(part, exponent))
        steps = tuple(step for step in line.steps if step.step != "round")
        return replace(
            line,
            amount=0 if prepaid else part,
            steps=(*steps, step),
            accrues=((line.charge, part),),
        )


def draw(
    plan: Plan,
    item: CommittedSpend,
    scoped: Sequence[Priced],
    state: State,
    period: Period,
    *,
    starts: bool,
    ended: date | None,
) -> Drawn:
    """Draw one period's list total from a commitment.

    `starts`: the license begins in this period and its prepayment is due. `ended` is the last day of
    the term: a postpaid shortfall is due in its period, and what is used later lowers it.
    """
    committed = _committed(plan, item, state)
    listed = sum((entry.amount for entry in scoped), ZERO)
    before = state.used.get(item.id, ZERO)
    now = before + listed
    drawn = _minor(plan, min(now, committed)) - _minor(plan, min(before, committed))
    overage = _minor(plan, _over(item, now, committed)) - _minor(plan, _over(item, before, committed))
    remaining = _minor(plan, committed) - _minor(plan, min(now, committed))
    result = Drawdown(item.id, listed, before, now, drawn, overage, remaining)
    lines = []
    if item.billing == "prepaid":
        lines += _prepayment(plan, item, state, period, starts)
    if overage:
        lines.append(_overage(plan, item, scoped, result, committed, period))
    if item.billing == "postpaid" and ended is not None and ended <= period.last:
        short = remaining if ended >= period.first else -drawn
        lines += [_shortfall(plan, item, scoped, short, period)] if short else []
    exact = {entry.charge.id: entry.amount for entry in scoped}
    return Drawn(plan, item, _parts(drawn, scoped), exact, lines, result)


def paid_ahead(plan: Plan, item: CommittedSpend, state: State, *, starts: bool) -> int | None:
    """What has been billed ahead of the running term after this period; None where that is not followed."""
    known = state.paid.get(item.id)
    if item.billing != "prepaid" or (known is None and not starts):
        return None
    return max(known or 0, _minor(plan, item.amount))


def left_of(plan: Plan, item: CommittedSpend, state: State) -> int:
    """What is left to draw of a commitment, in minor units."""
    committed = _committed(plan, item, state)
    return _minor(plan, committed) - _minor(plan, min(state.used.get(item.id, ZERO), committed))


def next_term(plan: Plan, state: State) -> State:
    """What the next term starts from, given the state at the end of one.

    What is left of a prepaid committed spend rolls over where the plan says so and is forfeited
    otherwise; it is money that was printed, so it is carried in whole minor units. The new term's own
    prepayments are due.
    """
    rolls = [item for item in plan.committed if item.unused == "rollover"]
    left = {item.id: left_of(plan, item, state) for item in rolls}
    carried = {name: money.to_major(amount, plan.exponent) for name, amount in left.items() if amount}
    due = {item.id: 0 for item in plan.committed if item.billing == "prepaid"}
    return State(carried=carried, taken=state.taken, paid=due)


def next_plan(old: Plan, new: Plan, state: State, *, renewed: bool) -> State:
    """What the first period under another plan starts from; `renewed`: a term begins with it, too.

    A commitment goes on under the same id and way of billing. What was paid ahead for it counts; a new
    one is due. Nothing is carried into another currency.
    """
    if old.currency != new.currency:
        old, state = new, State()
    elif renewed:
        state = next_term(old, state)
    before = {(item.id, item.billing) for item in old.committed}
    kept = {item.id for item in new.committed if (item.id, item.billing) in before}
    due = [item.id for item in new.committed if item.billing == "prepaid"]
    return State(
        used={name: used for name, used in state.used.items() if name in kept},
        carried={name: amount for name, amount in state.carried.items() if name in kept},
        taken=state.taken,
        paid={name: state.paid.get(name, 0) if name in kept else 0 for name in due},
    )


def _committed(plan: Plan, item: CommittedSpend, state: State) -> Fraction:
    """What can be drawn in the term: never less than was paid for."""
    paid = money.to_major(state.paid.get(item.id, 0), plan.exponent)
    return max(item.amount, paid) + state.carried.get(item.id, ZERO)


def _minor(plan: Plan, amount: Fraction) -> int:
    return money.to_minor(amount, plan.exponent, plan.rounding)


def _show(plan: Plan, amount: int) -> str:
    return money.grouped(money.amount_text(amount, plan.exponent))


def _over(item: CommittedSpend, used: Fraction, committed: Fraction) -> Fraction:
    return item.overage_factor * max(ZERO, used - committed)


def _parts(amount: int, scoped: Sequence[Priced]) -> Parts:
    """Spread over the scoped charges in proportion to their list money of the period."""
    if not scoped:
        return {}
    parts = money.allocate(amount, [entry.amount for entry in scoped])
    return {entry.charge.id: part for entry, part in zip(scoped, parts, strict=True)}


def _line(plan: Plan, item: CommittedSpend, kind: str, amount: int, text: str, period: Period) -> Line:
    return Line(
        charge=item.id,
        kind=kind,
        description=f"{item.name or item.id}: {kind}",
        amount=amount,
        first=period.first,
        last=period.last,
        steps=(Step(kind, text, amount=money.to_major(amount, plan.exponent)),),
    )


def _prepayment(plan: Plan, item: CommittedSpend, state: State, period: Period, starts: bool) -> list[Line]:
    """Billed at term start, or where a new version of the plan asks for more; accrues as it is drawn."""
    total, before = paid_ahead(plan, item, state, starts=starts), state.paid.get(item.id, 0)
    if total is None or (total <= before and not starts):
        return []
    amount = total - before
    text = f"committed spend {_show(plan, total)}"
    text += f", of which {_show(plan, before)} was billed before = {_show(plan, amount)}" if before else ""
    return [_line(plan, item, "prepayment", amount, text + ", paid ahead", period)]


def _overage(
    plan: Plan,
    item: CommittedSpend,
    scoped: Sequence[Priced],
    drawn: Drawdown,
    committed: Fraction,
    period: Period,
) -> Line:
    beyond = drawn.now - committed
    due = _over(item, drawn.now, committed)
    billed = _minor(plan, _over(item, drawn.before, committed))
    total = (
        f"list money {show(drawn.before)} + {show(drawn.list_total)} = {show(drawn.now)} of "
        f"{show(committed)} committed, {show(beyond)} beyond it"
    )
    text = f"{show(beyond)} × {show(item.overage_factor)} = {show(due)}"
    if billed:
        text += f", of which {_show(plan, billed)} was billed before = {_show(plan, drawn.overage)}"
    elif money.to_major(drawn.overage, plan.exponent) != due:
        text += f", rounded once = {_show(plan, drawn.overage)}"
    line = _line(plan, item, "overage", drawn.overage, text, period)
    steps = (Step("list", total, amount=drawn.now), *line.steps)
    return replace(line, steps=steps, accrues=tuple(_parts(drawn.overage, scoped).items()))


def _shortfall(
    plan: Plan, item: CommittedSpend, scoped: Sequence[Priced], amount: int, period: Period
) -> Line:
    committed = _minor(plan, item.amount)
    if amount > 0:
        text = (
            f"committed {_show(plan, committed)} less {_show(plan, committed - amount)} drawn "
            f"= {_show(plan, amount)}"
        )
    else:
        text = f"drawn after the end, billed with the shortfall before: {_show(plan, amount)}"
    line = _line(plan, item, "shortfall", amount, text, period)
    parts = _parts(amount, scoped) or {item.scope[0]: amount}
    return replace(line, accrues=tuple(parts.items()))


def minimum_true_up(
    plan: Plan, item: Minimum, printed: Sequence[Line], period: Period, active: Active
) -> Line | None:
    """The line that lifts the scope to its (prorated) minimum, or None if it is reached."""
    if not active.days:
        return None
    counted = accrued_by_charge(printed)
    scope = [(charge, counted.get(charge, 0)) for charge in item.scope]
    reached = sum(amount for _, amount in scope)
    required, steps = item.amount, []
    if item.prorate and active.days != active.of:
        required, step = prorate(item.amount, active)
        steps.append(step)
    amount = money.shortfall(required, reached, plan.exponent, plan.rounding)
    if not amount:
        return None
    need = _show(plan, _minor(plan, required))
    text = f"minimum {need} less {_show(plan, reached)} = {_show(plan, amount)}"
    steps.append(Step("true_up", text, amount=money.to_major(amount, plan.exponent)))
    parts = money.allocate(amount, [max(0, weight) for _, weight in scope])
    return Line(
        charge=item.id,
        kind="true_up",
        description=f"{item.name or item.id}: true-up to the minimum {need}",
        amount=amount,
        first=active.first if item.prorate else period.first,
        last=active.last if item.prorate else period.last,
        steps=tuple(steps),
        accrues=tuple((charge, part) for (charge, _), part in zip(scope, parts, strict=True)),
    )


def spread_credit(
    wanted: int, scope: tuple[str, ...], printed: Sequence[Line]
) -> tuple[int, tuple[tuple[str, int], ...]]:
    """How much of a credit fits (the net never goes below zero), and whom it takes it from.

    It is spread in proportion to the money printed for each charge; money that is printed but
    accrued by no charge (a prepayment) bears its part as the platform's.
    """
    net = sum(line.amount for line in printed)
    by_charge = {
        charge: max(0, amount)
        for charge, amount in _printed_by_charge(printed).items()
        if not scope or charge in scope
    }
    within = sum(by_charge.values())
    amount = min(wanted, net, within) if scope else min(wanted, net)
    if amount <= 0:
        return 0, ()
    weights = dict(by_charge)
    if not scope:
        weights[PLATFORM] = weights.get(PLATFORM, 0) + max(0, net - within)
    parts = money.allocate(amount, list(weights.values()))
    return amount, tuple((charge, -part) for charge, part in zip(weights, parts, strict=True))


def _printed_by_charge(printed: Sequence[Line]) -> dict[str, int]:
    """Printed minor units per charge; a line that prints 0 (drawn from a prepayment) has none."""
    return accrued_by_charge([line for line in printed if line.amount])
