"""`settle quote`: what would this usage cost under this plan, and why. No database.

Source: specs/rating.md section 12; the result fits specs/schemas/quote.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.settlement import money
from sealpack.settlement.periods import Period, local_day
from sealpack.settlement.plan import FIELDS, Plan
from sealpack.settlement.rating import Span, UsageKey, rate
from sealpack.settlement.results import Drawdown, PeriodResult, State
from sealpack.settlement.usage_table import Row


@dataclass(frozen=True, slots=True)
class Terms:
    """What the table does not say: activation and end (local days) and what was used up before.

    `commitment_used` (major units per committed spend) and `take_base` (major units accrued in the
    calendar year) describe the periods before the first one; both None: there were none.
    `commitment_carried` (major units per committed spend) rolled over from an earlier term.
    """

    activated: date | None = None
    ended: date | None = None
    commitment_used: Mapping[str, Fraction] | None = None
    take_base: Fraction | None = None
    commitment_carried: Mapping[str, Fraction] = field(default_factory=dict)


def quote(plan: Plan, rows: Iterable[Row], terms: Terms, *, what: str) -> list[PeriodResult]:
    """Rate a usage table from activation (else its first row) to the end (else its last row).

    Raises USAGE_TABLE_INVALID naming the row that lies outside activation and end, or if there is
    nothing to rate; `what` names the table in errors.
    """
    usage, days = _usage(rows, plan, terms, what)
    first = terms.activated or (days[0] if days else None)
    if first is None:
        raise SealpackError("USAGE_TABLE_INVALID", f"{what} has no rows, and no activation day is given")
    last = terms.ended or (days[1] if days else first)
    span = Span(first, last, _activation(plan, terms, first), terms.ended)
    return rate(plan, usage, span, state=_state(plan, terms, first))


def _usage(
    rows: Iterable[Row], plan: Plan, terms: Terms, what: str
) -> tuple[dict[UsageKey, int], tuple[date, date] | None]:
    """Sum rows per (quarter hour, status, field), and the first and last local day with a row."""
    usage: dict[UsageKey, int] = {}
    quarters: dict[int, date] = {}
    for row in rows:
        quarter = row.utc_ms - row.utc_ms % 900_000
        if quarter not in quarters:
            quarters[quarter] = local_day(row.utc_ms, plan.tz)
            _check_day(row, quarters[quarter], terms, what)
        for source, amount in zip(FIELDS, row.amounts, strict=True):
            if amount:
                key = (quarter, row.status, source)
                usage[key] = usage.get(key, 0) + amount
    days = quarters.values()
    return usage, (min(days), max(days)) if days else None


def _check_day(row: Row, day: date, terms: Terms, what: str) -> None:
    if terms.activated and day < terms.activated:
        problem = f"before the activation on {terms.activated}"
    elif terms.ended and day > terms.ended:
        problem = f"after the end on {terms.ended}"
    else:
        return
    raise SealpackError(
        "USAGE_TABLE_INVALID", f"{what} row {row.number} is on {day}, {problem}", row=row.number
    )


def _activation(plan: Plan, terms: Terms, first: date) -> date | None:
    """The activation day. Without one the license starts whole with the first quoted period,
    unless something was used up before: then it started earlier."""
    if terms.activated is not None:
        return terms.activated
    if terms.commitment_used is not None or terms.take_base is not None:
        return None
    return Period.containing(first, plan.tz).first


def _state(plan: Plan, terms: Terms, first: date) -> State:
    taken = {first.year: (terms.take_base or Fraction(0)) * 10**plan.exponent}
    return State(dict(terms.commitment_used or {}), dict(terms.commitment_carried), taken)


def to_dict(plan: Plan, results: Iterable[PeriodResult]) -> dict[str, Any]:
    """The JSON result, schema sealpack/quote/v1."""
    return {
        "schema": "sealpack/quote/v1",
        "plan": {"id": plan.id, "version": plan.version, "digest": plan.digest},
        "currency": plan.currency,
        "tz": plan.tz,
        "invoices": [period_dict(result) for result in results],
    }


def period_dict(result: PeriodResult) -> dict[str, Any]:
    """One period: local days (both included), UTC instants (half open), amounts as strings."""
    period = result.period
    return {
        "period_start": period.first.isoformat(),
        "period_end": period.last.isoformat(),
        "starts_at": instant(period.start_ms),
        "ends_at": instant(period.end_ms),
        "currency": result.plan.currency,
        "lines": [line.to_dict(result.plan.exponent) for line in result.lines],
        "net": result.text(result.net),
        "taxes": [tax.to_dict(result.plan.exponent) for tax in result.taxes],
        "tax": result.text(result.tax),
        "total": result.text(result.total),
        "shares": [share.to_dict(result.plan.exponent) for share in result.shares],
        "commitments": [drawdown_dict(result, item) for item in result.drawdowns],
    }


def instant(utc_ms: int) -> str:
    """A UTC instant as RFC 3339 text."""
    return datetime.fromtimestamp(utc_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def drawdown_dict(result: PeriodResult, item: Drawdown) -> dict[str, Any]:
    data: dict[str, Any] = dataclasses.asdict(item)
    for key in ("list_total", "before", "now"):
        data[key] = money.exact_text(data[key])
    for key in ("drawn", "overage", "remaining"):
        data[key] = result.text(data[key])
    return data


def to_text(plan: Plan, results: Iterable[PeriodResult]) -> str:
    """The same result for people: one block per period, the working under every line."""
    blocks = [f"plan {plan.id} version {plan.version}, {plan.currency}, {plan.tz}"]
    blocks += ["\n".join(_block(result)) for result in results]
    return "\n\n".join(blocks)


def _block(result: PeriodResult) -> list[str]:
    lines = [f"{result.period.first} to {result.period.last}"]
    for line in result.lines:
        lines.append(_column(result, line.description, line.amount))
        lines += [f"      {step.text}" for step in line.steps]
    lines.append(_column(result, "net", result.net))
    for tax in result.taxes:
        percent = money.exact_text(tax.rate * 100)
        lines.append(_column(result, f"tax {tax.category} {percent} %", tax.amount))
    lines.append(_column(result, "total", result.total))
    lines += [_column(result, f"  to {share.party}", share.amount) for share in result.shares]
    lines += [_column(result, f"  left of {item.id}", item.remaining) for item in result.drawdowns]
    return lines


def _column(result: PeriodResult, text: str, amount: int) -> str:
    return f"  {text:<58} {money.grouped(result.text(amount)):>16}"
