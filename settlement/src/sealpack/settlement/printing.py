"""From rated periods to printed invoices: advance lines and corrections.

Source: specs/rating.md sections 9 and 10. Rating (and `quote`) counts a line in the period it
serves. An invoice prints a `when: advance` line one period early, and a correction prints the
difference between what was issued and what the same period rates to now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sealpack.settlement.plan import Tax
from sealpack.settlement.results import Line, PeriodResult, State, Taxed, TaxLine, close
from sealpack.settlement.shares import Share


def as_printed(
    results: Sequence[PeriodResult],
    *,
    tax: Tax | None = None,
    state: State | None = None,
    opening: bool = True,
) -> list[PeriodResult]:
    """Move every advance line to the invoice before, and tax and split what is printed then.

    `results` are consecutive periods of one license; rate one period past the last one you print
    and drop the last of what this returns, unless the license has ended. `opening`: the first
    result is the license's first invoice, which prints its own advance lines too. `state` is what
    earlier printed invoices took; `tax` as in `rate`.
    """
    printed: list[PeriodResult] = []
    current = state or State()
    for index, result in enumerate(results):
        own = [line for line in result.lines if not line.advance or (opening and not index)]
        following = results[index + 1].lines if index + 1 < len(results) else ()
        lines = own + [line for line in following if line.advance]
        before = replace(result.state, taken=current.taken)
        treatment = tax or result.plan.tax
        printed.append(close(result.plan, result.period, lines, treatment, result.drawdowns, before))
        current = printed[-1].state
    return printed


@dataclass(frozen=True, slots=True)
class Correction(Taxed):
    """What a re-rated period changes: every amount is new - old, in minor units."""

    result: PeriodResult  # the period as it rates now
    lines: tuple[Line, ...]
    net: int
    taxes: tuple[TaxLine, ...]
    shares: tuple[Share, ...]

    @property
    def is_credit(self) -> bool:
        """True: a credit note; False: lines on the next invoice with their service period."""
        return self.total < 0


def correction(old: PeriodResult, new: PeriodResult) -> Correction | None:
    """The difference between an issued period and its re-rating with the same plan, or None.

    ValueError if the two are not the same period of the same plan.
    """
    if (old.period, old.plan.digest) != (new.period, new.plan.digest):
        raise ValueError("a correction compares one period under one plan")
    lines = _line_differences(old.lines, new.lines)
    taxes = _tax_differences(old.taxes, new.taxes)
    shares = _share_differences(old.shares, new.shares)
    if not lines and not any(tax.amount for tax in taxes) and not any(s.amount for s in shares):
        return None
    return Correction(new, lines, new.net - old.net, taxes, shares)


def _line_differences(old: Sequence[Line], new: Sequence[Line]) -> tuple[Line, ...]:
    before = {(line.charge, line.kind): line for line in old}
    after = {(line.charge, line.kind): line for line in new}
    result = []
    for key in [*after, *(key for key in before if key not in after)]:
        line = _difference(before.get(key), after.get(key))
        if line.amount or any(amount for _, amount in line.accrues):
            result.append(line)
    return tuple(result)


def _difference(old: Line | None, new: Line | None) -> Line:
    line = new or old
    assert line is not None  # the key came from one of the two
    earned = {charge: amount for charge, amount in new.accrues} if new else {}
    for charge, amount in old.accrues if old else ():
        earned[charge] = earned.get(charge, 0) - amount
    return replace(
        line,
        description=f"{line.description} (corrected)",
        amount=(new.amount if new else 0) - (old.amount if old else 0),
        accrues=tuple(earned.items()),
    )


def _tax_differences(old: Sequence[TaxLine], new: Sequence[TaxLine]) -> tuple[TaxLine, ...]:
    before = {(tax.category, tax.rate): tax for tax in old}
    after = {(tax.category, tax.rate): tax for tax in new}
    result = []
    for key in dict.fromkeys([*after, *before]):
        a, b = after.get(key), before.get(key)
        either = a or b
        assert either is not None  # the key came from one of the two
        base = (a.base if a else 0) - (b.base if b else 0)
        amount = (a.amount if a else 0) - (b.amount if b else 0)
        result.append(replace(either, base=base, amount=amount))
    return tuple(result)


def _share_differences(old: Sequence[Share], new: Sequence[Share]) -> tuple[Share, ...]:
    totals = {share.party: share.amount for share in new}
    for share in old:
        totals[share.party] = totals.get(share.party, 0) - share.amount
    return tuple(Share(party, amount) for party, amount in totals.items())
