"""The clock against the histories in specs/vectors/clock, which a second implementation wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealpack.runtime import clock
from sealpack.runtime.clock import ClockState, Event, Reading

VECTORS = Path(__file__).parents[2] / "specs" / "vectors" / "clock"
CASES = sorted(path.parent for path in VECTORS.glob("*/case.json"))


def step(state: ClockState, do: dict[str, Any]) -> tuple[ClockState, int | None, tuple[Event, ...]]:
    if "document" in do:
        return clock.anchor(state, do["document"]), None, ()
    if "root" in do:
        return clock.restart(state, do["root"]), None, ()
    if "repair" in do:
        return clock.repair(state, do["repair"]), None, ()
    after, times, events = clock.observe(state, Reading(do["wall"], do["uptime"], do["boot"]))
    assert times.soft == after.soft
    assert times.skew == (0 if times.expiry is None else do["wall"] - after.soft)
    return after, times.expiry, events


def plain(state: ClockState) -> dict[str, Any]:
    return {
        "hard": state.hard,
        "soft": state.soft,
        "own": state.own,
        "budget": state.budget,
        "boot": state.boot_id,
        "uptime": state.monotonic,
        "pending": state.pending_wall,
        "watched": state.pending_run,
        "behind": state.behind,
        "stage": state.stage.name.lower(),
    }


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_a_history_leads_where_the_specification_says(folder: Path) -> None:
    state = clock.start(json.loads((folder / "case.json").read_text())["begin"])
    for number, text in enumerate((folder / "history.jsonl").read_text().splitlines(), start=1):
        line = json.loads(text)
        state, expiry, events = step(state, line["do"])
        told = (expiry, [event.name for event in events], plain(state))
        assert told == (line["expiry"], line["events"], line["state"]), f"step {number}"


def test_the_generator_writes_exactly_these_cases(tmp_path: Path) -> None:
    subprocess.run([sys.executable, VECTORS / "generate.py", tmp_path], check=True)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.glob("*/*")}
    kept = {p.relative_to(VECTORS): p.read_bytes() for folder in CASES for p in folder.iterdir()}
    assert made == kept
    assert len(CASES) > 20
