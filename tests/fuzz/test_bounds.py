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
    """What steps cannot see (copying, searching, sorting in C) shows here: a square would not end in time."""
    command = [sys.executable, str(Path(bounds.__file__)), reader, str(bounds.limit_of(f"{reader}/"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(bounds.READERS[reader][2])
