"""docs/enforcement.md speaks of every attack of the table once, and names a test that shows it."""

from __future__ import annotations

import re

from adversarial import rows

PAGE = (rows.ROOT / "docs" / "enforcement.md").read_text()
TABLE = {row.attack: row for row in rows.read()}
LINES = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
TESTED = [(attack, shown.strip("`")) for attack, _, shown in LINES if "::" in shown]


def test_every_attack_stands_there_once() -> None:
    assert sorted(attack for attack, _ in TESTED) == sorted(TABLE)


def test_what_is_named_shows_it() -> None:
    for attack, shown in TESTED:
        tests = TABLE[attack].tests
        assert [test for test in tests if test.endswith(f"/{shown}")], (attack, shown)
        assert rows.cases(next(test for test in tests if test.endswith(f"/{shown}"))) >= 1


def test_what_has_no_test_is_called_not_prevented() -> None:
    rest = PAGE.partition("## Not prevented")[2].partition("\n## ")[0]
    for attack, _, shown in LINES:
        if "::" not in shown and set(attack) != {"-"} and attack != "attack":
            assert f"| {attack} |" in rest, attack
