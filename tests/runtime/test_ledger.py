"""The ledger under any order of reserving, settling, giving back and dying: the sums always fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings, strategies as st
from support import world
from support.site import Site, make_license, seal_license

from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, License, Quota
from sealpack.format.records import Record
from sealpack.format.trust import Revocations
from sealpack.runtime import device, holds, ledger, log, machine, receipts, timekeeper
from sealpack.runtime.admission import Build, Facts
from sealpack.runtime.clock import Reading, Times
from sealpack.runtime.engines.base import Usage
from sealpack.runtime.holds import PROGRESS_TOKENS
from sealpack.runtime.ledger import Ledger, Ticket
from sealpack.runtime.owners import Owner
from sealpack.runtime.state import State

CAP = 400  # output tokens in all
BUILD = Build("acme/tiny", "1.0.0", "ab" * 32, 1, world.CREATOR.keyid, "cd" * 32, world.T0)
ROUTE = {"license_id": "FREE", "seq": 1, "bundle_digest": "ab" * 32, "model_digest": "ef" * 32}
LISTS: Revocations = world.make_trust().revocations
FREE: License = make_license(
    license_id="FREE",
    devices=Devices("none"),
    quota=(Quota("tok_out", "term", "device", CAP, None, "deny"),),
)


@dataclass
class Call:
    """A reservation that is open, and what was made durable of it."""

    books: Ledger
    ticket: Ticket
    bound: Usage
    streaming: bool
    progress: int = 0


@dataclass
class Process:
    """One runtime on the device; `die` is what a kill does: the kernel drops its lock."""

    state: State
    calls: list[Call] = field(default_factory=list)

    block: int = 1

    def __post_init__(self) -> None:
        self.owner = Owner(self.state.home, "FREE")
        key = device.key(self.state.home)
        self.books = Ledger(self.state, key, self.owner, block=self.block)

    def reserve(self, tok_out: int, streaming: bool) -> bool:
        """Hold a call; False when the quota says no."""
        bound = Usage(tok_in=1, tok_out=tok_out, items=1)
        try:
            ticket = self.books.reserve(ROUTE, bound, _facts, streaming=streaming)
        except SealpackError as error:
            assert error.code == "QUOTA_EXCEEDED"
            return False
        self.calls.append(Call(self.books, ticket, bound, streaming))
        return True

    def sweep(self) -> None:
        """Settle what dead processes left."""
        key = device.key(self.state.home)
        with self.state.write() as db:
            holds.sweep(db, self.state.home, key, timekeeper.observe(db), self.owner.name)

    def die(self) -> list[Call]:
        """What stays open behind it."""
        self.owner.release(settled=False)
        left, self.calls = self.calls, []
        return left

    def close(self) -> None:
        """End in good order."""
        self.books.close()


def _facts(*_: Any) -> Facts:
    return Facts(FREE, None, None, LISTS, "dev-x", BUILD, Times(0, 0, 0))


@contextmanager
def book() -> Iterator[State]:
    """A new device that holds the free license."""
    with tempfile.TemporaryDirectory() as name:
        site = Site(Path(name), {}, world.make_trust()).pin()
        site.take(Parcel((seal_license(FREE),)))
        with site.state() as state:
            yield state


def usage_records(state: State) -> list[Record]:
    with state.read() as db:
        return [r for r in receipts.recent(db, 1, 10_000) if r.kind == "u"]


actions = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "stream", "progress", "settle", "release", "die"]),
        st.integers(1, 200),
        st.integers(0, 1),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(actions)
def test_sums_fit_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    expected: list[tuple[str, int]] = []  # status and output tokens that must be billed, in any order
    with mock.patch.object(ledger, "BUSY_SECONDS", 0), book() as state:  # nothing is held ahead
        processes = [Process(state), Process(state)]
        for action, amount, which in steps:
            process = processes[which]
            held = sum(c.bound.tok_out for p in processes for c in p.calls)
            if action in ("reserve", "stream"):
                fits = sum(t for _, t in expected) + held + amount <= CAP
                assert process.reserve(amount, action == "stream") == fits
            elif action == "die":
                expected += [("aborted", _aborted(call)) for call in process.die()]
                processes[which] = Process(state)
                processes[which].sweep()
            elif process.calls:
                call = process.calls[-1]
                produced = min(amount, call.bound.tok_out)
                if action == "progress":
                    call.progress = produced
                    call.books.progress(call.ticket, produced, produced)
                    continue
                process.calls.pop()
                if action == "release":
                    call.books.release(call.ticket)
                else:
                    call.books.settle(call.ticket, "ok", Usage(1, produced, 1), ms=1, wait_ms=0)
                    expected.append(("ok", produced))
        for process in processes:
            expected += [("aborted", _aborted(call)) for call in process.die()]
        last = Process(state)
        last.sweep()
        found = [(r.body["status"], r.body["meters"].get("tok_out", 0)) for r in usage_records(state)]
        assert sorted(found) == sorted(expected)
        assert sum(tokens for _, tokens in found) <= CAP
        _check_books(state)
        last.die()


def _aborted(call: Call) -> int:
    """A stream bills its durable progress and one step more, anything else its reservation."""
    if call.streaming:
        return min(call.bound.tok_out, call.progress + PROGRESS_TOKENS)
    return call.bound.tok_out


def _check_books(state: State) -> None:
    assert receipts.verify_log(state, 1) == []
    with state.read() as db:
        assert db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
        assert db.execute("SELECT coalesce(sum(reserved), 0) FROM counters").fetchone() == (0,)
        totals = log.registers(db, 1)
        rows = db.execute("SELECT meter, used FROM counters WHERE period='term'").fetchall()
    assert {m: n for m, n in rows if n} == {
        m: totals.total(m) for m in ("calls", "tok_in", "tok_out", "ms", "items") if totals.total(m)
    }


def settle(process: Process, times: int) -> None:
    for _ in range(times):
        assert process.reserve(1, False)
        call = process.calls.pop()
        call.books.settle(call.ticket, "ok", Usage(1, 0, 1), ms=1, wait_ms=0)


def test_a_tally_stands_at_least_every_256_leaves() -> None:
    with book() as state:
        process = Process(state)
        settle(process, 600)
        with state.read() as db:
            kinds = [r.kind for r in receipts.recent(db, 1, 10_000)]
        places = [n for n, kind in enumerate(kinds) if kind == "t"]
        gaps = [b - a for a, b in zip([0, *places], places, strict=False)]
        assert places
        assert max(gaps) <= 256
        process.close()
        _check_books(state)


def test_a_new_quarter_hour_with_usage_begins_with_a_tally(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": (world.T0 + 10) * 1000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    with book() as state:
        process = Process(state)
        settle(process, 2)
        now["wall"] += 900_000
        now["up"] += 900_000
        settle(process, 1)
        with state.read() as db:
            kinds = "".join(r.kind for r in receipts.recent(db, 1, 100))
        assert kinds == "gbtuutu"
        process.die()


def test_a_reboot_begins_with_a_boot_record_and_the_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": (world.T0 + 10) * 1000, "up": 5_000, "boot": "first"}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], now["boot"]))  # type: ignore[arg-type]
    with book() as state:
        process = Process(state)
        settle(process, 1)
        now |= {"up": 100, "boot": "second"}
        settle(process, 1)
        with state.read() as db:
            found = list(receipts.recent(db, 1, 100))
        assert "".join(r.kind for r in found) == "gbtubtu"
        assert [r.boot for r in found] == [1, 2, 2, 2, 3, 3, 3]
        process.close()
        _check_books(state)


def test_the_clock_set_back_stands_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": (world.T0 + 10) * 1000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    with book() as state:
        process = Process(state)
        settle(process, 1)
        now |= {"wall": now["wall"] - 3 * 86_400_000, "up": 6_000}
        settle(process, 1)
        with state.read() as db:
            found = list(receipts.recent(db, 1, 100))
        (event,) = [r for r in found if r.kind == "c"]
        assert event.body["event"] == "back"
        times = [r.time_ms for r in found]
        assert times == sorted(times), "accepted time never runs backwards"
        assert found[-1].skew_ms < -2 * 86_400_000
        process.die()
