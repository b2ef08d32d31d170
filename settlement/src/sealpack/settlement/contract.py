"""What a license was sold for: its terms, the plan of each month, and all of it rated one after the other.

Source: specs/rating.md section 9, "Renewals and new plans". A license's months are rated in order, each under
its own plan, so that what was paid ahead, drawn and taken in one counts in the next. What a term leaves of
money paid ahead goes on to the next term, or becomes the platform's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby, pairwise

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License, PlanRef
from sealpack.settlement import db, issuing, money, registry, sublicenses
from sealpack.settlement.commitments import next_plan
from sealpack.settlement.periods import Period, Term, active_part, local_day
from sealpack.settlement.plan import CommittedSpend, Plan, Tax
from sealpack.settlement.pricing import Step
from sealpack.settlement.printing import as_printed
from sealpack.settlement.rating import Estimates, Span, Usage, rate
from sealpack.settlement.results import BREAKAGE, Line, PeriodResult, State

_DAY = timedelta(days=1)


def terms_of(documents: Sequence[License], begins: date, tz: str) -> tuple[Term, ...]:
    """The terms that a license's documents make, the oldest first; `begins` is its first day.

    A document that ends later than the one before renews: its term begins the day after, or with its `nbf`.
    One that ends earlier cuts the running term short.
    """
    found: list[Term] = []
    for document in documents:
        last = None if document.exp is None else local_day(document.exp * 1000 - 1, tz)
        before = found[-1].last if found else None
        if not found:
            found = [Term(begins, last)]
        elif before is not None and (last is None or last > before):
            found.append(Term(max(before + _DAY, local_day(document.nbf * 1000, tz)), last))
        else:
            while len(found) > 1 and last is not None and found[-1].first > last:
                found.pop()
            found[-1] = Term(found[-1].first, last)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Consecutive months under one plan in one term, rated."""

    plan: Plan
    term: int
    results: list[PeriodResult]

    def has_also(self, other: _Stretch, item: CommittedSpend) -> bool:
        """Whether another stretch has the same commitment, in the same money."""
        same = {(known.id, known.billing) for known in other.plan.committed}
        return self.plan.currency == other.plan.currency and (item.id, item.billing) in same

    def continues_in(self, other: _Stretch, item: CommittedSpend) -> bool:
        """Whether the other one draws on from what this one left, in the same term."""
        return self.term == other.term and self.has_also(other, item)


class Contract:
    """A license with everything that decides what its months cost, but for usage and tax.

    `plans` says under which plan a month is rated, instead of the documents and invoices that are known.
    REGISTRY_INVALID for a license that was never activated, PLAN_INVALID for an unknown plan.
    """

    def __init__(
        self, connection: sa.Connection, license: License, plans: Callable[[date], Plan] | None = None
    ) -> None:
        self._connection = connection
        self.license = license
        self._given = plans
        self._known: dict[PlanRef, Plan] = {}
        versions = registry.load_license_versions(connection, license.license_id)
        self._documents = [version for version in versions if version.environment == "live"] or [license]

    # --- terms ------------------------------------------------------------------------------------

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """When it runs, in days of the zone of its first plan."""
        begins = self._begins()
        tz = self.plan_for(local_day(begins * 1000, "UTC")).tz
        return terms_of(self._documents[::-1], local_day(begins * 1000, tz), tz)

    def _begins(self) -> int:
        """The first activation, but not before the earliest document allows it; Unix seconds."""
        ids = sublicenses.billed_with(self._connection, self.license.license_id)
        activations, usage = db.activations.c, db.license_usage.c
        query = sa.select(sa.func.min(activations.first_at)).where(activations.license_id.in_(ids))
        first = self._connection.execute(query).scalar()
        if first is None:
            raise SealpackError("REGISTRY_INVALID", f"license {self.license.license_id} was never activated")
        if self.license.provisional is not None:  # what ran before the activation is billed when it ran
            query = sa.select(sa.func.min(usage.quarter_ms)).where(usage.license_id.in_(ids))
            quarter = self._connection.execute(query).scalar()
            first = first if quarter is None else min(first, quarter // 1000)
        return max(int(first), min(document.nbf for document in self._documents))

    def check_runs(self, period: Period, used: Callable[[], bool]) -> None:
        """USAGE for a period before the first day, or without both a day of a term and usage."""
        name, first, last = self.license.license_id, self.terms[0].first, self.terms[-1].last
        if first > period.last:
            raise SealpackError("USAGE", f"license {name} starts on {first}, after that period")
        if active_part(period, self.terms).days or used():
            return
        if last is not None and last < period.first:
            raise SealpackError("USAGE", f"license {name} ended on {last}, before that period")
        raise SealpackError("USAGE", f"license {name} does not run in that period")

    # --- plans ------------------------------------------------------------------------------------

    def plan_for(self, month: date) -> Plan:
        """The plan that the month's invoice names, else the one in force when the month began.

        A renewal's plan counts from the first month that begins when it is issued and valid; months before
        the first document have that one's plan.
        """
        if self._given is not None:
            return self._given(month)
        named = self._invoiced.get(month.replace(day=1))
        return self._load(named) if named else self._in_force(month)

    def _in_force(self, month: date) -> Plan:
        plan = self._load(self.license.plan)
        for document in self._documents:
            if document.plan is not None:
                plan = self._load(document.plan)
                since = max(document.issued_at, document.nbf)
                if since * 1000 <= Period.containing(month, plan.tz).start_ms:
                    break
        return plan

    def _load(self, ref: PlanRef | None) -> Plan:
        if ref is None or ref not in self._known:
            plan = registry.load_plan_of(self._connection, replace(self.license, plan=ref))
            self._known[PlanRef(plan.id, plan.version)] = plan
            return plan
        return self._known[ref]

    @cached_property
    def _invoiced(self) -> Mapping[date, PlanRef]:
        """The plans of months that were invoiced, by their first day; looked up where there are several."""
        if len({document.plan for document in self._documents}) == 1:
            return {}
        columns = db.invoices.c
        mine = columns.license_id == self.license.license_id, columns.kind == "invoice"
        found = issuing.documents(self._connection, *mine)
        return {date.fromisoformat(one.period): PlanRef(*one.issued.plan[:2]) for one in found}

    def period(self, month: date) -> Period:
        """The billing period that holds the month's day."""
        return Period.containing(month, self.plan_for(month).tz)

    # --- money ------------------------------------------------------------------------------------

    def printed(
        self, usage: Usage, last: date, tax: Tax | None, estimates: Estimates | None = None
    ) -> list[PeriodResult]:
        """What every invoice up to the month `last` prints; `usage` is all of the license's."""
        rated = _with_breakage(self._rated(usage, last, tax, estimates), self.terms)
        printed: list[PeriodResult] = []
        for _, of_one_currency in groupby(rated, key=lambda result: result.plan.currency):
            printed += as_printed(list(of_one_currency), tax=tax)
        return [result for result in printed if result.period.first <= last]

    def _rated(
        self, usage: Usage, last: date, tax: Tax | None, estimates: Estimates | None
    ) -> list[_Stretch]:
        stretches: list[_Stretch] = []
        for (_, _, term), months in groupby(self.months(last), key=self._under):
            days = list(months)
            plan, state, mine = self.plan_for(days[0]), State(), usage
            if stretches:
                before = stretches[-1]
                state = next_plan(before.plan, plan, before.results[-1].state, renewed=term != before.term)
                mine = _from(usage, before, Period.containing(days[0], plan.tz))
            span = Span(days[0], days[-1], self.terms[0].first, self.terms[term].last, self.terms)
            results = rate(plan, mine, span, state=state, tax=tax, estimates=estimates)
            stretches.append(_Stretch(plan, term, results))
        return stretches

    def _under(self, month: date) -> tuple[str, int, int]:
        plan = self.plan_for(month)
        return plan.id, plan.version, _at(self.terms, month)

    def months(self, last: date) -> list[date]:
        """First days from the first month to the one after `last`, whose advance lines are on its invoice.

        Where a term is over by then, on to the first of the next one: what is left may go there.
        """
        end, now = _following(last), _at(self.terms, last)
        over = (ending := self.terms[now].last) is not None and ending < end
        if over and now + 1 < len(self.terms):
            end = max(end, _following(self.terms[now + 1].first))
        months = [self.terms[0].first.replace(day=1)]
        while months[-1] < end:
            months.append(_following(months[-1]))
        return months


def _following(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _at(terms: Sequence[Term], month: date) -> int:
    """Which term's commitments a month draws from: the newest that began by its first day."""
    return max([n for n, term in enumerate(terms) if term.first <= month.replace(day=1)], default=0)


def _from(usage: Usage, before: _Stretch, first: Period) -> Usage:
    """What is left for a plan of another zone: its months begin where the last one rated ended."""
    end = before.results[-1].period.end_ms
    if end == first.start_ms:
        return usage
    moved: dict[tuple[int, str, str], int] = defaultdict(int)
    for (quarter, status, field), amount in usage.items():
        if quarter >= end:
            moved[max(quarter, first.start_ms), status, field] += amount
    return moved


# --- what was paid ahead and never drawn --------------------------------------------------------------


def _with_breakage(stretches: Sequence[_Stretch], terms: Sequence[Term]) -> list[PeriodResult]:
    """The results in order, with a line where what is left of a prepayment is nobody's any more.

    That is in the period in which the term ends, and where a plan drops the commitment. What is drawn after
    the end is taken off again.
    """
    found: list[PeriodResult] = []
    broken: dict[str, int] = {}  # of the running term, per commitment
    for index, stretch in enumerate(stretches):
        items = [item for item in stretch.plan.committed if item.billing == "prepaid"]
        following = stretches[index + 1] if index + 1 < len(stretches) else None
        kept = {item.id for item in items if following and stretch.continues_in(following, item)}
        rolling = {item.id for item in items if _rolls(stretches[index:], item)}
        end = terms[stretch.term].last
        for result in stretch.results:
            closes = following is not None and result is stretch.results[-1]
            over = end is not None and end <= result.period.last
            lines = list(result.lines)
            for item in items:
                if item.id in rolling or not (over or (closes and item.id not in kept)):
                    continue
                left = next(drawn.remaining for drawn in result.drawdowns if drawn.id == item.id)
                lines += _breakage(stretch.plan, item, left, broken.get(item.id, 0), result.period)
                broken[item.id] = left
            found.append(replace(result, lines=tuple(lines)))
        broken = {name: amount for name, amount in broken.items() if name in kept}
    return found


def _rolls(stretches: Sequence[_Stretch], item: CommittedSpend) -> bool:
    """Whether what the first stretch's term leaves of a commitment goes to a next term."""
    for before, after in pairwise(stretches):
        known = next((known for known in before.plan.committed if known.id == item.id), item)
        if not before.has_also(after, item):
            return False
        if after.term != before.term:
            return known.unused == "rollover"
    return False


def _breakage(plan: Plan, item: CommittedSpend, left: int, before: int, period: Period) -> list[Line]:
    amount = left - before
    if not amount:
        return []
    shown, whole, past = (money.grouped(money.amount_text(n, plan.exponent)) for n in (amount, left, before))
    text = f"paid ahead and not drawn {whole}"
    text += f", of which {past} was forfeited before = {shown}" if before else ""
    return [
        Line(
            charge=item.id,
            kind=BREAKAGE,
            description=f"{item.name or item.id}: {shown} paid ahead was not used, forfeited",
            amount=0,
            first=period.first,
            last=period.last,
            steps=(Step(BREAKAGE, text, amount=money.to_major(amount, plan.exponent)),),
            accrues=((item.id, amount),),
        )
    ]
