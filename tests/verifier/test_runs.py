"""Runs of plain usage records say what the records say, one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sealpack.format.errors import SealpackError
from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.records import METER_ORDER, Record, Registers, encode, make, parse_record
from sealpack.format.runs import QUARTER_MS, Run, parse_leaves, records_of
from sealpack.format.values import METERS, STATUSES

T0 = 1_790_000_000_000
DIGEST = "ab" * 32
ROUTES = {name: {"license_id": "L-1", "seq": 1, "bundle_digest": DIGEST, "model_digest": DIGEST}
          for name in ("r1", "r2")}  # fmt: skip


def usage(position: int, **changed: Any) -> Record:
    """A plain usage record, or nearly."""
    members = {"boot": 1, "time_ms": T0 + position * 1000, "skew_ms": 0, "uptime_ms": position * 1000,
               "route": "r1", "status": "ok", "meters": {"calls": 1, "ms": 7}, "wait_ms": 0}  # fmt: skip
    return make("u", position=position, **(members | changed))


def started(routes: dict[str, Any] = ROUTES) -> LogState:
    """A log after its first records."""
    return LogState(position=2, boot=1, uptime_ms=0, registers=Registers(), routes=routes)


calls = st.fixed_dictionaries(
    {
        "route": st.sampled_from(["r1", "r1", "r2", "r9"]),
        "status": st.sampled_from(STATUSES),
        "meters": st.dictionaries(st.sampled_from(METERS), st.integers(0, 10**6)),
        "time_ms": st.integers(T0, T0 + 3 * QUARTER_MS),
    },
    optional={
        "cost_centre": st.just("ward 3"),
        "boot": st.just(2),
        "uptime_ms": st.integers(0, 9000),
        "position": st.integers(2, 9),
    },
)


@st.composite
def logs(draw: st.DrawFn) -> list[bytes]:
    """The leaves of a log from its third record on, in good order or not."""
    written, registers = [], Registers()
    for position in range(2, 2 + draw(st.integers(1, 12))):
        kind = draw(st.integers(0, 9))
        if kind < 8:
            changed = draw(calls) if kind < 4 else {}
            record = usage(changed.pop("position", position), **changed)
            registers.add(record)
        else:
            head = {
                "position": position,
                "boot": 1,
                "time_ms": T0,
                "skew_ms": 0,
                "uptime_ms": position * 1000,
            }
            told = registers if kind == 8 else Registers({("r1", "ok", "ms"): 5})
            members = {"registers": told.to_tally()} if draw(st.booleans()) else {"reason": "end"}
            record = make("t" if "registers" in members else "x", **head, **members)
        written.append(encode(record))
    return written


@given(logs())
def test_a_run_holds_what_its_records_hold(leaves: list[bytes]) -> None:
    parts = parse_leaves(leaves, 2)
    assert records_of(parts) == tuple(map(parse_record, leaves))
    for part in parts:
        if isinstance(part, Run):
            records = part.records()
            sums: Counter[tuple[str, int, str, str]] = Counter()
            for record in records:
                quarter = record.time_ms // QUARTER_MS * QUARTER_MS
                for meter, amount in record.body["meters"].items():
                    sums[record.body["route"], quarter, record.body["status"], meter] += amount
            found = {
                (*cell, meter): amount
                for cell, amounts in part.amounts.items()
                for meter, amount in zip(METER_ORDER, amounts, strict=True)
                if amount
            }
            assert found == sums
            assert (part.position, part.boot) == (records[0].position, records[0].boot)
            assert (part.uptime_ms, part.end_uptime_ms) == (records[0].uptime_ms, records[-1].uptime_ms)
            assert part.last_ms == max(record.time_ms for record in records)


@given(logs(), st.sampled_from([started(), started({}), LogState(2), LogState.fresh()]))
def test_a_log_is_judged_the_same_by_runs_and_by_records(leaves: list[bytes], state: LogState) -> None:
    by_runs, by_records = LogChecker(state.copy()), LogChecker(state.copy())
    for part in parse_leaves(leaves, 2):
        by_runs.follow_part(part)
    for leaf in leaves:
        by_records.follow(parse_record(leaf))
    assert by_runs.findings == by_records.findings
    assert by_runs.end() == by_records.end()
    assert by_runs.growth == by_records.growth


def test_lines_that_go_on_are_one_run() -> None:
    leaves = [encode(usage(n, meters={"calls": 1, "ms": 10**14}, time_ms=T0)) for n in range(2, 258)]
    (run,) = parse_leaves(leaves, 2)
    assert isinstance(run, Run)
    assert run.amounts == {("r1", T0 // QUARTER_MS * QUARTER_MS, "ok"): [256, 0, 256 * 10**14, 0, 0]}


@pytest.mark.parametrize("changed", [{"boot": 2}, {"uptime_ms": 1}, {"position": 9}])
def test_lines_that_do_not_are_records(changed: dict[str, Any]) -> None:
    leaves = [encode(usage(2)), encode(usage(3)), encode(usage(changed.pop("position", 4), **changed))]
    assert parse_leaves(leaves, 2) == tuple(map(parse_record, leaves))


def test_a_line_that_is_no_record_is_named() -> None:
    leaves = [encode(usage(2)), encode(usage(3)), b'{"v":1}', b"{}"]
    with pytest.raises(SealpackError) as caught:
        parse_leaves(leaves, 2)
    assert caught.value.code == "RECEIPT_INVALID"
    assert caught.value.facts == {"position": 4}
