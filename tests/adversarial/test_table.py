"""The table names tests that exist, have cases, and speak of the codes they are to show."""

from __future__ import annotations

import pytest

from adversarial import rows
from adversarial.rows import Row
from sealpack.format.errors import CODES

TABLE = rows.read()
SHOWN = [row for row in TABLE if row.tests]


def test_no_attack_stands_twice() -> None:
    names = [row.attack for row in TABLE]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.attack)
def test_a_row_has_tests_or_somebody_who_owes_them(row: Row) -> None:
    assert bool(row.tests) != bool(row.owner)
    assert row.expected
    assert set(row.codes) <= CODES.keys()
    assert len(set(row.tests)) == len(row.tests)


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: row.attack)
def test_its_tests_exist_and_have_cases(row: Row) -> None:
    assert all(rows.cases(test) >= 1 for test in row.tests)
    assert not all(rows.is_slow(test) for test in row.tests), "something of every row runs each time"


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: row.attack)
def test_its_codes_stand_in_its_tests(row: Row) -> None:
    paths = {test.partition("::")[0] for test in row.tests}
    text = "".join((rows.ROOT / path).read_text() for path in paths)
    assert [code for code in row.codes if f'"{code}"' not in text] == []
