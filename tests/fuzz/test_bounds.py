"""No input makes a reader spend more than specs/limits.md, "Cost", says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import bounds

PAGE = Path(__file__).parents[2] / "specs/limits.md"
SMALL, LARGE = 64, 16  # parts of the largest size at which costs are compared
MARGIN = 5.5  # four times the bytes: 4 is linear, 16 a square


def documented() -> dict[str, tuple[int, int]]:
    """reader -> (bytes of memory per byte of input, bytes besides)."""
    rows = re.findall(r"^\| (`[^|]*`) \| (\d+) \| (\d+) MiB \|", PAGE.read_text(), re.MULTILINE)
    return {
        name: (int(factor), int(mib) << 20)
        for names, factor, mib in rows
        for name in re.findall(r"`([a-z]+)`", names)
    }


def test_the_page_speaks_of_every_reader() -> None:
    assert set(documented()) == set(bounds.READERS)


@pytest.mark.parametrize("case", bounds.CASES)
def test_memory_stays_within_the_documented_bound(case: str) -> None:
    factor, constant = documented()[case.partition("/")[0]]
    read, data = bounds.attempt(case, bounds.limit_of(case) // LARGE)
    assert bounds.memory(read, data) <= factor * len(data) + constant


@pytest.mark.parametrize("case", bounds.CASES)
def test_steps_grow_no_faster_than_the_input(case: str) -> None:
    read, small = bounds.attempt(case, bounds.limit_of(case) // SMALL)
    _, large = bounds.attempt(case, bounds.limit_of(case) // LARGE)
    bounds.outcome(read, small)  # what is made once, imports and patterns, is not counted
    assert bounds.steps(read, large) <= MARGIN * max(bounds.steps(read, small), 100)


@pytest.mark.skipif(sys.platform == "win32", reason="hard limits are POSIX's")
@pytest.mark.parametrize("reader", bounds.READERS)
def test_the_largest_inputs_are_read_within_hard_limits(reader: str) -> None:
    """What steps cannot see, copying and searching in C, shows in CPU time: a square costs sixteenfold.

    The allowance is far from both: ten times and a fifth of a second, of CPU time, of one process.
    """
    largest = bounds.limit_of(f"{reader}/") * 63 // 64  # shapes are a few bytes larger than asked
    command = [sys.executable, str(Path(bounds.__file__)), reader, str(largest)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == len(bounds.READERS[reader][2])
    dear = [row for row in rows if float(row[2]) > 10 * float(row[1]) + 0.2]
    assert dear == []
