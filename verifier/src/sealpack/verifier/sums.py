"""Do the amounts that a document prints add up? Nothing is rated again: that needs the receipts.

Source: specs/invoice.md section 7 and specs/statements.md. Amounts are decimal strings with one number of
places throughout; they are compared as whole minor units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from sealpack.format.billing import Signed
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields

_AMOUNT = r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,4})?"
_EXACT = r"-?[0-9]{1,40}((\.[0-9]{1,40})|(/[1-9][0-9]{0,40}))?"
_MANY = 100_000


def check(document: Signed) -> str:
    """What adds up, in words; SUMS_WRONG names the first sum that does not, DOC_SCHEMA a member."""
    return _CHECKS[document.kind](_Amounts(document.fields))


@dataclass(slots=True)
class _Amounts:
    """Reads amounts of one document, all with the same number of places."""

    fields: Fields
    places: int | None = None

    def of(self, f: Fields, key: str) -> int:
        """Minor units of a member."""
        text = f.text(key, pattern=_AMOUNT, max_len=30)
        places = len(text.partition(".")[2])
        if self.places not in (None, places):
            raise f.fail(key, "has another number of places than the amounts before it")
        self.places = places
        return int(text.replace(".", ""))

    def all(self, f: Fields, *keys: str) -> tuple[int, ...]:
        """Minor units of several members."""
        return tuple(self.of(f, key) for key in keys)

    def column(self, items: Iterable[Fields], key: str) -> int:
        """The sum of a member over objects."""
        return sum(self.of(item, key) for item in items)

    def agree(self, what: str, given: int, found: int) -> None:
        """SUMS_WRONG unless an amount is what it should be."""
        if given != found:
            raise _wrong(f"{what}: {self._text(given)} is stated, {self._text(found)} is right")

    def _text(self, amount: int) -> str:
        unit = 10 ** (self.places or 0)
        rest = f".{abs(amount) % unit:0{self.places}}" if self.places else ""
        return f"{'-' if amount < 0 else ''}{abs(amount) // unit}{rest}"


def _wrong(problem: str) -> SealpackError:
    return SealpackError("SUMS_WRONG", problem)


def _list(f: Fields, key: str) -> tuple[Fields, ...]:
    return f.objects(key, lambda item: item, max_items=_MANY)


def _exact(f: Fields, key: str) -> Fraction:
    return Fraction(f.text(key, pattern=_EXACT, max_len=90))


# --- invoices and credit notes ------------------------------------------------------------------------


def _invoice(read: _Amounts) -> str:
    f = read.fields
    net, tax, total = read.all(f, "net", "tax", "total")
    lines, taxes = _list(f, "lines"), _list(f, "taxes")
    read.agree("net, the sum of the lines", net, read.column(lines, "amount"))
    if taxes:
        read.agree("net, the sum of what is taxed", net, read.column(taxes, "base"))
    read.agree("tax, the sum of the taxes", tax, read.column(taxes, "amount"))
    read.agree("total, net and tax", total, net + tax)
    credit = f.choice("kind", ("invoice", "credit_note")) == "credit_note"
    if (credit and total > 0) or (not credit and total < 0):
        raise _wrong("an invoice is not below zero, a credit note not above it")
    if "corrects" not in f:  # what corrects another document is a difference of two rounded amounts
        for one in taxes:
            _rate(read, one)
    products = sum(_product(step) for line in lines for step in _list(line, "working"))
    count = f"lines: {len(lines)}, tax lines: {len(taxes)}, products in the working: {products}"
    return f"they add up to {f.text('total')} ({count})"


def _rate(read: _Amounts, tax: Fields) -> None:
    """The tax is its rate of the base, rounded to the nearest minor unit."""
    base, amount = read.all(tax, "base", "amount")
    exact = base * _exact(tax, "percent") / 100
    if abs(amount - exact) > Fraction(1, 2):
        read.agree("tax, its rate of the base", amount, round(exact))


def _product(step: Fields) -> int:
    """1 when a step of the working is a quantity at a price, after checking it."""
    if not all(key in step for key in ("quantity", "unit", "amount")):
        return 0
    quantity, unit, amount = (_exact(step, key) for key in ("quantity", "unit", "amount"))
    if quantity * unit != amount:
        raise _wrong(f"the amount of the step {step.text('text')[:80]!r} is not quantity times unit")
    return 1


# --- statements ---------------------------------------------------------------------------------------


def _payout(read: _Amounts) -> str:
    f = read.fields
    items, payouts = _list(f, "items"), _list(f, "payouts")
    waiting, available = f.sub("waiting"), f.sub("available")
    names = ("opening", "earned", "written_off", "released", "closing")
    opening, earned, lost, released, left = read.all(waiting, *names)
    read.agree("what waits at the end", left, opening + earned - lost - released)
    before, freed, paid, forward = read.all(available, "opening", "released", "paid", "closing")
    read.agree("what is carried forward", forward, before + freed - paid)
    read.agree("what was released", freed, released)
    read.agree("what was paid out", paid, read.column(payouts, "amount"))
    for name, whole in (("earned", earned), ("written_off", lost), ("released", released), ("waiting", left)):
        read.agree(f"the sum of {name}", whole, read.column(items, name))
    read.agree("what is payable", read.of(f, "payable"), left + forward)
    counts = f"items: {len(items)}, payouts: {len(payouts)}"
    return f"they add up, {available.text('closing')} is carried forward ({counts})"


def _customer(read: _Amounts) -> str:
    f = read.fields
    balance, closing, held = read.all(f, "opening", "closing", "on_account")
    items, owed, aging = _list(f, "items"), _list(f, "open"), f.sub("aging")
    for item in items:
        balance += read.of(item, "amount")
        read.agree("a balance", read.of(item, "balance"), balance)
    read.agree("the closing balance", closing, balance)
    by_age = sum(read.of(aging, key) for key in sorted(aging.keys()))
    read.agree("what is open, by document and by age", read.column(owed, "open"), by_age)
    read.agree("the closing balance, of what is open and on account", closing, by_age - held)
    return f"they add up to {f.text('closing')} (entries: {len(items)}, open documents: {len(owed)})"


_CHECKS: dict[str, Callable[[_Amounts], str]] = {
    "invoice": _invoice,
    "payout-statement": _payout,
    "customer-statement": _customer,
}
