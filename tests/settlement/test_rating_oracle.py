"""Thousands of random plans and usages, rated twice: by the package and by tests/support/rating_oracle.py."""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings, strategies as st
from support import rating_oracle as oracle
from support.rating_dice import Dice, by_oracle, by_package, in_minor, rated

from sealpack.format.errors import SealpackError
from sealpack.settlement.plan import Plan
from sealpack.settlement.printing import as_printed
from sealpack.settlement.results import State

SCHEMAS = Path(__file__).parents[2] / "specs" / "schemas"


def compare(seed: int) -> Dice:
    dice = Dice(Random(seed))
    found = in_minor(dice, by_package(dice))
    assert found == by_oracle(dice), f"seed {seed}: {json.dumps(dice.plan)}\n{dice.table()}"
    assert all(amount >= 0 for invoice in found for _, _, amount in invoice["lines"])
    return dice


def test_a_big_seeded_run_agrees() -> None:
    for seed in range(2000):
        compare(seed)


@given(st.integers(10**6, 10**9))
@settings(max_examples=200, deadline=None)
def test_any_seed_agrees(seed: int) -> None:
    compare(seed)


@given(st.integers(0, 10**9))
@settings(max_examples=150, deadline=None)
def test_printing_ahead_moves_money_between_invoices_and_makes_none(seed: int) -> None:
    dice = Dice(Random(seed))
    results = rated(dice)
    base = (dice.take_base or Fraction(0)) * 10 ** oracle.DIGITS[dice.currency]
    printed = as_printed(results, state=State(taken={results[0].period.first.year: base}))
    assert sum(result.net for result in printed) == sum(result.net for result in results)
    assert sum(result.accrued for result in printed) == sum(result.accrued for result in results)
    assert printed[-1].state.taken == results[-1].state.taken
    for result in printed:
        assert result.net == sum(line.amount for line in result.lines)


ODD: tuple[Any, ...] = (
    0,
    -1,
    True,
    "",
    [],
    {},
    "1",
    "0.5",
    "1e3",
    "-1",
    "01",
    "1.",
    10**16,
    10001,
    None,
    1.5,
)


@given(st.integers(0, 10**9))
@settings(max_examples=200, deadline=None)
def test_the_reader_takes_nothing_that_the_schema_refuses(seed: int) -> None:
    """One random member of a good plan is left out or replaced by something odd."""
    rng = Random(seed)
    plan = Dice(rng).plan
    place: Any = plan
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], (dict, list)) or not place[key] or rng.randrange(4) == 0:
            break
        place = place[key]
    if rng.randrange(3):
        place[key] = rng.choice(ODD)
    else:
        del place[key]
    try:
        Plan.from_dict(plan)
    except SealpackError as error:
        assert (error.code, "path" in error.facts) == ("PLAN_INVALID", True)
    else:
        validator("plan").validate(plan)


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("seed", range(0, 3000, 60))
def test_what_is_drawn_fits_the_schemas(seed: int) -> None:
    dice = Dice(Random(seed))
    for name, data in (("plan", dice.plan), ("quote", by_package(dice))):
        validator(name).validate(data)
