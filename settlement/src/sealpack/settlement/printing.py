"""From rated periods to printed invoices: advance lines and corrections.

Source: specs/rating.md sections 9 and 10. Rating (and `quote`) counts a line in the period it
serves. An invoice prints a `when: advance` line one period early, and a correction prints the
difference between what was issued and what the same period rates to now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol

from sealpack.settlement.plan import Tax
from sealpack.settlement.results import BREAKAGE, Line, PeriodResult, State, Taxed, TaxLine, close
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
        closed = close(result.plan, result.period, lines, treatment, result.drawdowns, before)
        printed.append(replace(closed, estimates=result.estimates))
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
        """True: a credit note; False: a further invoice for the same period."""
        return self.total < 0

    @property
    def is_nothing(self) -> bool:
        """True: no amount changes, and nobody earned more or less in all; parties may still have moved."""
        printed = [self.net, *(line.amount for line in self.lines), *(tax.amount for tax in self.taxes)]
        printed += [line.earned for line in self.lines if line.kind == BREAKAGE]
        return not any(printed) and not sum(share.amount for share in self.shares)


class Printed(Protocol):
    """What is compared: the sums of one printed period."""

    @property
    def lines(self) -> Sequence[Line]: ...
    @property
    def net(self) -> int: ...
    @property
    def taxes(self) -> Sequence[TaxLine]: ...
    @property
    def shares(self) -> Sequence[Share]: ...


def correction(old: PeriodResult, new: PeriodResult) -> Correction | None:
    """The difference between an issued period and its re-rating with the same plan, or None.

    ValueError if the two are not the same period of the same plan.
    """
    if (old.period, old.plan.digest) != (new.period, new.plan.digest):
        raise ValueError("a correction compares one period under one plan")
    change = difference(old, new)
    return None if change.is_nothing and not any(share.amount for share in change.shares) else change


def difference(old: Printed, new: PeriodResult) -> Correction:
    """What `new` adds to what was printed, line by line, for tax and for each party."""
    lines = _line_differences(old.lines, new.lines)
    taxes = _tax_differences(old.taxes, new.taxes)
    shares = _share_differences(old.shares, new.shares)
    return Correction(new, lines, new.net - old.net, taxes, shares)


def _line_differences(old: Sequence[Line], new: Sequence[Line]) -> tuple[Line, ...]:
    before, after = _by_service(old), _by_service(new)
    result = []
    for key in [*after, *(key for key in before if key not in after)]:
        line = _difference(before.get(key), after.get(key))
        if line.amount or any(amount for _, amount in line.accrues):
            result.append(line)
    return tuple(result)


def _by_service(lines: Sequence[Line]) -> dict[tuple[str, str, date], Line]:
    """Lines by charge, kind and first day: a first invoice prints an advance charge for two periods.

    Several of one key, as an invoice and what corrected it have, are one with the sum of their amounts.
    """
    found: dict[tuple[str, str, date], Line] = {}
    for line in lines:
        key = line.charge, line.kind, line.first
        known = found.get(key)
        if known:
            both = known.amount + line.amount, known.accrues + line.accrues
            line = replace(known, amount=both[0], accrues=both[1])
        found[key] = line
    return found


def _difference(old: Line | None, new: Line | None) -> Line:
    line = new or old
    assert line is not None  # the key came from one of the two
    earned: dict[str, int] = defaultdict(int)
    for sign, one in ((1, new), (-1, old)):
        for charge, amount in one.accrues if one else ():
            earned[charge] += sign * amount
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
