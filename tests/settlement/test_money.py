"""Exact money: rounding, splitting, text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from sealpack.settlement import money
from sealpack.settlement.currencies import EXPONENTS
from sealpack.settlement.money import Rounding

AMOUNTS = st.integers(-(10**15), 10**15)
EXACT = st.fractions(max_denominator=10**6)


@pytest.mark.parametrize(
    ("value", "up", "even"),
    [("0.5", 1, 0), ("1.5", 2, 2), ("2.5", 3, 2), ("-0.5", -1, 0), ("-2.5", -3, -2), ("0.4999", 0, 0)],
)
def test_ties_go_away_from_zero_or_to_even(value: str, up: int, even: int) -> None:
    assert money.round_half(Fraction(value), Rounding.HALF_UP) == up
    assert money.round_half(Fraction(value), Rounding.HALF_EVEN) == even


@given(EXACT, st.sampled_from(list(Rounding)))
def test_rounding_is_never_further_than_half(value: Fraction, rounding: Rounding) -> None:
    assert abs(money.round_half(value, rounding) - value) <= Fraction(1, 2)


@given(EXACT)
def test_half_up_is_symmetric(value: Fraction) -> None:
    up = Rounding.HALF_UP
    assert money.round_half(-value, up) == -money.round_half(value, up)


@given(AMOUNTS, st.lists(st.fractions(0, 1000), min_size=1, max_size=8))
def test_parts_sum_to_the_whole_and_stay_within_one_unit(total: int, weights: list[Fraction]) -> None:
    parts = money.allocate(total, weights)
    assert sum(parts) == total
    if sum(weights):
        exact = [total * weight / sum(weights) for weight in weights]
        assert all(abs(part - share) < 1 for part, share in zip(parts, exact, strict=True))


def test_ties_go_to_the_earlier_member() -> None:
    assert money.allocate(1, [1, 1]) == [1, 0]
    assert money.allocate(-1, [1, 1]) == [-1, 0]
    assert money.allocate(5, [1, 1, 1]) == [2, 2, 1]


def test_without_any_weight_the_first_takes_all() -> None:
    assert money.allocate(7, [0, 0]) == [7, 0]


@pytest.mark.parametrize("weights", [[], [-1, 2]])
def test_nothing_to_split_over_is_a_fault(weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"weights|split"):
        money.allocate(1, weights)


@pytest.mark.parametrize(
    ("amount", "places", "text"),
    [
        (175185, 2, "1751.85"),
        (-18000, 2, "-180.00"),
        (5, 3, "0.005"),
        (-5, 2, "-0.05"),
        (12, 0, "12"),
        (0, 2, "0.00"),
    ],
)
def test_amounts_as_text(amount: int, places: int, text: str) -> None:
    assert money.amount_text(amount, places) == text


@given(AMOUNTS, st.integers(0, 4))
def test_text_is_the_amount(amount: int, places: int) -> None:
    assert Fraction(money.amount_text(amount, places)) == money.to_major(amount, places)


@given(EXACT)
def test_exact_text_loses_nothing(value: Fraction) -> None:
    assert Fraction(money.exact_text(value)) == value


@pytest.mark.parametrize(
    "text", ["", "1.", ".5", "01", "-1", "+1", "1e3", "1.0000000000001", "1,5", " 1", "NaN", "1\n", "١"]
)
def test_what_is_not_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a decimal"):
        money.parse_decimal(text)


def test_twelve_places_are_exact() -> None:
    assert money.parse_decimal("0.000000000001") == Fraction(1, 10**12)


@pytest.mark.parametrize(
    ("required", "printed", "due"),
    [("500", 35085, 14915), ("500", 50000, 0), ("500", 60000, 0), ("0.005", 0, 1)],
)
def test_shortfall(required: str, printed: int, due: int) -> None:
    assert money.shortfall(Fraction(required), printed, 2, Rounding.HALF_UP) == due


def test_currencies() -> None:
    assert len(EXPONENTS) == 165
    assert [EXPONENTS[code] for code in ("JPY", "USD", "KWD", "UYW")] == [0, 2, 3, 4]
    assert not {"XAU", "XXX", "XTS"} & set(EXPONENTS)


def test_grouping() -> None:
    assert money.grouped("1751.85") == "1,751.85"
    assert money.grouped("-1234567") == "-1,234,567"
    assert money.grouped("-0.05") == "-0.05"
