"""Run every row of the table and print it as Markdown; exit status 1 when a row does not hold.

usage: python tests/adversarial [--slow] [WORDS ...]

WORDS choose the rows whose name has one of them; --slow runs whole campaigns too. An open row, whose tests
are still owed, is shown and does not fail.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adversarial import rows
from adversarial.rows import Row


@dataclass
class Outcome:
    """Of one test with all its cases."""

    cases: int = 0
    passed: int = 0
    seconds: float = 0.0


class Recorder:
    """A pytest plugin: what became of each test, without its parameters."""

    def __init__(self) -> None:
        self.tests: defaultdict[str, Outcome] = defaultdict(Outcome)
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case when its call was judged, or when it was skipped or broken before; add its time."""
        found = self.tests[report.nodeid.partition("[")[0]]
        found.seconds += report.duration
        if report.when == "call" or (report.when == "setup" and not report.passed):
            found.cases += 1
            found.passed += report.passed
        elif report.when == "teardown" and report.failed:
            found.passed -= 1


def line(row: Row, tests: dict[str, Outcome]) -> tuple[str, bool]:
    """The row in Markdown, and whether it holds."""
    mine = [tests.get(test, Outcome()) for test in row.tests]
    ran = [outcome for test, outcome in zip(row.tests, mine, strict=True) if outcome.cases]
    missing = [
        t for t, outcome in zip(row.tests, mine, strict=True) if not outcome.cases and not rows.is_slow(t)
    ]
    cases, passed = sum(o.cases for o in ran), sum(o.passed for o in ran)
    holds = bool(cases) and passed == cases and not missing
    state = f"open ({row.owner})" if row.owner else "holds" if holds else "FAILS"
    seconds = sum(o.seconds for o in ran)
    codes = " ".join(row.codes) or "–"
    cells = (row.attack, row.expected, codes, str(cases), str(passed), f"{seconds:.1f}", state)
    return "| " + " | ".join(cells) + " |", holds or bool(row.owner)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    table = [row for row in rows.read() if not args.words or any(w in row.attack for w in args.words)]
    wanted = list(dict.fromkeys(test for row in table for test in row.tests))
    recorder = Recorder()
    if wanted:
        options = ["-q", "--no-header", "--rootdir", str(rows.ROOT), "-p", "no:cacheprovider"]
        options += ["-m", "slow or not slow"] if args.slow else []
        pytest.main([*options, *(f"{rows.ROOT}/{test}" for test in wanted)], plugins=[recorder])
    lines = [line(row, recorder.tests) for row in table]
    print("\n| attack | expected | codes | cases | passed | seconds | |\n|---|---|---|--:|--:|--:|---|")
    print("\n".join(text for text, _ in lines))
    return 0 if table and all(holds for _, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
