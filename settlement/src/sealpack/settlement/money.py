"""Exact money: fractions in, whole minor units out, rounded in one place.

Source: specs/rating.md section 2. Prices and quantities are `Fraction`; printed amounts are `int`
minor units (cents, yen, fils). No binary float is ever made here, and reading text refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction

from sealpack.settlement.currencies import EXPONENTS

PLACES = 12
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,14})(\.[0-9]{1,12})?")


class Rounding(StrEnum):
    """How a tie between two minor units is settled; a plan names one for the whole contract."""

    HALF_UP = "half_up"  # away from zero
    HALF_EVEN = "half_even"


def exponent(currency: str) -> int:
    """Decimal places of `currency`; KeyError for a code that is not in the pinned table."""
    return EXPONENTS[currency]


def parse_decimal(text: str) -> Fraction:
    """Read a non-negative decimal string with at most 12 places; ValueError otherwise.

    Refuses signs, exponents, spaces, leading zeros and bare points, so one value has few spellings.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a decimal from 0 with at most 15 digits and {PLACES} places")
    return Fraction(text)


def round_half(value: Fraction, rounding: Rounding) -> int:
    """Nearest integer; ties go away from zero (half_up) or to the even neighbour (half_even)."""
    if rounding is Rounding.HALF_EVEN:
        return round(value)
    whole = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return whole if value >= 0 else -whole


def to_minor(value: Fraction, places: int, rounding: Rounding) -> int:
    """Round an exact amount in major units to whole minor units of 10**-places."""
    return round_half(value * 10**places, rounding)


def to_major(amount: int, places: int) -> Fraction:
    """The exact major-unit value of `amount` minor units."""
    return Fraction(amount, 10**places)


def amount_text(amount: int, places: int) -> str:
    """Minor units as a decimal string with exactly `places` places: 175185 -> "1751.85"."""
    digits = str(abs(amount)).rjust(places + 1, "0")
    sign = "-" if amount < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def grouped(text: str) -> str:
    """A decimal string with thousands separators, for people: "1751.85" -> "1,751.85"."""
    whole, point, rest = text.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole != "-0" else text


def exact_text(value: Fraction) -> str:
    """An exact value as text: a decimal where it ends, else "numerator/denominator"."""
    twos, rest = _strip(value.denominator, 2)
    fives, rest = _strip(rest, 5)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    return amount_text(int(value * 10**places), places)


def _strip(number: int, prime: int) -> tuple[int, int]:
    count = 0
    while number % prime == 0:
        number //= prime
        count += 1
    return count, number


def allocate(total: int, weights: Sequence[Fraction | int]) -> list[int]:
    """Split `total` minor units in proportion to `weights` by largest remainder.

    The parts are whole and sum to `total`; ties go to the earlier member; if every weight is zero
    the first member takes all. A negative total is split like its absolute value. Weights are >= 0.
    """
    if not weights:
        raise ValueError("nothing to split over")
    if min(weights) < 0:
        raise ValueError("weights are not negative")
    whole = sum((Fraction(weight) for weight in weights), Fraction(0))
    if whole == 0:
        return [total] + [0] * (len(weights) - 1)
    exact = [abs(total) * Fraction(weight) / whole for weight in weights]
    parts = [share.numerator // share.denominator for share in exact]
    order = sorted(range(len(exact)), key=lambda i: (parts[i] - exact[i], i))
    for index in order[: abs(total) - sum(parts)]:
        parts[index] += 1
    return parts if total >= 0 else [-part for part in parts]


def shortfall(minimum: Fraction, printed: int, places: int, rounding: Rounding) -> int:
    """True-up to a minimum: the rounded minimum less what is printed, never below zero."""
    return max(0, to_minor(minimum, places, rounding) - printed)
