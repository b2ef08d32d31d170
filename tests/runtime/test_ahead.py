"""Calls held ahead: one durable commit a call, blocks of calls in high-rate mode, and what an end without
goodbye costs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import world
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, License, Quota, Rate
from sealpack.runtime import device, ledger, log, machine, owners, receipts
from sealpack.runtime.admission import Build, Facts
from sealpack.runtime.api import Runtime
from sealpack.runtime.clock import Reading, Times
from sealpack.runtime.engines.base import Usage
from sealpack.runtime.ledger import Ledger, Ticket
from sealpack.runtime.owners import Owner
from sealpack.runtime.state import State

BUILD = Build("acme/tiny", "1.0.0", "ab" * 32, 1, world.CREATOR.keyid, "cd" * 32, world.T0)
ROUTE = {"license_id": "FREE", "seq": 1, "bundle_digest": "ab" * 32, "model_digest": "ef" * 32}
LISTS = world.make_trust().revocations
ONE = Usage(tok_in=3, items=1)


def free(**changes: object) -> License:
    return make_license(license_id="FREE", devices=Devices("none"), **changes)


class Books:
    """The books of one process on a device that holds a free license."""

    def __init__(self, state: State, license: License, block: int = 1) -> None:
        self.state, self.license = state, license
        self.owner = Owner(state.home, "FREE")
        self.ledger = Ledger(state, device.key(state.home), self.owner, block=block)

    def reserve(self, bound: Usage = ONE, streaming: bool = False) -> Ticket:
        return self.ledger.reserve(ROUTE, bound, self._facts, streaming=streaming)

    def _facts(self, *_: object) -> Facts:
        return Facts(self.license, None, None, LISTS, "dev-x", BUILD, Times(0, 0, 0))

    def call(self, used: Usage = ONE) -> bool:
        """One whole call; whether it began out of what was held ahead."""
        ticket = self.reserve(used)
        self.ledger.settle(ticket, "ok", used, ms=1, wait_ms=0)
        return ticket.ahead

    def die(self) -> None:
        """What a kill does: the kernel drops the lock, the file stays."""
        self.owner.release(settled=False)


@pytest.fixture
def device_of(tmp_path: Path) -> Iterator[Callable[[License], State]]:
    """Open the state of a new device that holds a license."""
    opened: list[State] = []

    def make(license: License) -> State:
        site = Site(tmp_path, {}, world.make_trust()).pin()
        site.take(Parcel((seal_license(license),)))
        opened.append(State(site.home))
        return opened[-1]

    yield make
    for state in opened:
        state.close()


def records(state: State) -> list[tuple[str, str, int, int]]:
    """(kind, status, calls, tok_in) of usage and lost records."""
    with state.read() as db:
        found = [r for r in receipts.recent(db, 1, 100_000) if r.kind in "ul"]
    return [
        (r.kind, r.body.get("status", "lost"), r.body["meters"]["calls"], r.body["meters"].get("tok_in", 0))
        for r in found
    ]


def open_holds(state: State) -> list[tuple[int, int]]:
    """(calls, generation) of every hold."""
    with state.read() as db:
        return db.execute("SELECT calls, ahead FROM reservations").fetchall()


def settled(state: State) -> None:
    """Everything is accounted for, and fits."""
    assert receipts.verify_log(state, 1) == []
    assert open_holds(state) == []


def sweep(state: State, license: License) -> None:
    """Another process comes, makes one call and goes."""
    other = Books(state, license)
    other.call()
    other.ledger.close()


def test_calls_that_follow_each_other_begin_without_a_commit(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    license = free(quota=(Quota("calls", "term", "device", 100_000, None, "deny"),))
    state = device_of(license)
    books = Books(state, license)
    assert [books.call() for _ in range(6)] == [False, False, True, True, True, True]
    monkeypatch.setattr(ledger, "BUSY_SECONDS", 0)  # a pause
    assert [books.call() for _ in range(3)] == [True, False, False]
    books.ledger.close()
    assert records(state) == [("u", "ok", 1, 3)] * 9
    settled(state)


def test_a_larger_or_other_call_is_held_anew(device_of: Callable[[License], State]) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(3):
        books.call()
    assert books.call(Usage(tok_in=2, items=1)), "a smaller one fits into the hold"
    assert not books.call(Usage(tok_in=50, items=1))
    assert books.call(Usage(tok_in=50, items=1))
    books.ledger.close()
    settled(state)


def test_nothing_is_held_ahead_near_a_limit(device_of: Callable[[License], State]) -> None:
    """What an idle process holds, another cannot have: at most a hundredth of what is left."""
    license = free(quota=(Quota("calls", "term", "device", 105, None, "deny"),))
    state = device_of(license)
    books = Books(state, license)
    begun = [books.call() for _ in range(10)]
    assert begun[2:] == [True] * 4 + [False] * 4
    assert open_holds(state) == []
    other = Books(state, license)
    for _ in range(95):
        other.call()
    with pytest.raises(SealpackError, match="105 of 105 calls"):
        other.call()
    books.ledger.close()
    other.ledger.close()
    settled(state)


def test_killed_while_nothing_ran_costs_nothing(device_of: Callable[[License], State]) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(4):
        books.call()
    assert open_holds(state) == [(1, 3)]
    books.die()
    sweep(state, license)
    assert records(state) == [("u", "ok", 1, 3)] * 5
    settled(state)


def test_killed_in_a_call_that_was_held_ahead_costs_that_call(device_of: Callable[[License], State]) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(4):
        books.call()
    assert books.reserve(Usage(tok_in=2, items=1)).ahead
    books.die()
    sweep(state, license)
    assert records(state) == [("u", "ok", 1, 3)] * 4 + [("u", "aborted", 1, 2), ("u", "ok", 1, 3)]
    settled(state)


def test_after_a_power_cut_what_was_held_is_lost_and_billed(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may be older than what it should tell: nobody can say that nothing ran."""
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(4):
        books.call()
    books.die()
    wall = int(time.time() * 1000)
    monkeypatch.setattr(machine, "reading", lambda: Reading(wall, 10, "another boot"))
    sweep(state, license)
    assert records(state) == [("u", "ok", 1, 3)] * 4 + [("l", "lost", 1, 3), ("u", "ok", 1, 3)]
    settled(state)


def test_without_the_owners_file_what_was_held_is_lost_and_billed(
    device_of: Callable[[License], State],
) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(3):
        books.call()
    books.die()
    owners.bury(state.home, books.owner.name)
    sweep(state, license)
    assert ("l", "lost", 1, 3) in records(state)
    settled(state)


def test_a_call_given_up_before_it_ran_goes_back_into_the_hold(device_of: Callable[[License], State]) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(3):
        books.call()
    ticket = books.reserve()
    assert ticket.ahead
    books.ledger.release(ticket)
    assert books.call(), "the hold is whole again"
    books.die()
    sweep(state, license)
    assert {status for _, status, _, _ in records(state)} == {"ok"}
    settled(state)


def test_the_day_that_a_hold_counts_in_ends(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    midnight = (world.T0 // 86_400 + 1) * 86_400_000
    now = {"wall": midnight - 2000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    license = free(quota=(Quota("calls", "day", "device", 1000, None, "deny"),))
    state = device_of(license)
    books = Books(state, license)
    for _ in range(3):
        books.call()
    now |= {"wall": now["wall"] + 1999, "up": now["up"] + 1999}
    assert books.call()
    now |= {"wall": now["wall"] + 1, "up": now["up"] + 1}
    assert not books.call()
    books.ledger.close()
    with state.read() as db:
        days = db.execute("SELECT used FROM counters WHERE meter='calls' AND period LIKE 'day:%'").fetchall()
    assert days == [(4,), (1,)]
    settled(state)


def test_a_clock_that_jumps_is_looked_at_in_a_transaction(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a wall that is ahead only while it is glanced at would cost no budget."""
    now = {"wall": world.T0 * 1000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(3):
        books.call()
    now |= {"wall": now["wall"] + 5000, "up": now["up"] + 1}
    assert not books.call()
    books.ledger.close()


def test_documents_of_another_process_end_what_was_held(site: Site) -> None:
    site.ready()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        for _ in range(4):
            runtime.infer(INPUT)
        name = device.name(device.key(site.home))
        site.take(Parcel((site.lease(name, "L-1", 2, {"calls": 4}),)))
        with pytest.raises(SealpackError) as caught:
            runtime.infer(INPUT)
    assert caught.value.code == "UNSETTLED_LIMIT"


# --- rate, at once ----------------------------------------------------------------------------------------


def test_the_bucket_is_shared_and_counts_calls_held_ahead(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"wall": world.T0 * 1000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    license = free(limits=Rate(qps=2, burst=5))
    state = device_of(license)
    books, other = Books(state, license), Books(state, license)
    assert [books.call() for _ in range(4)] == [False, False, True, True]
    other.call()
    for one in (books, other):
        with pytest.raises(SealpackError, match="try again in 500 ms"):
            one.call()
    now |= {"wall": now["wall"] + 500, "up": now["up"] + 500}
    other.call()
    with pytest.raises(SealpackError) as caught:
        books.call()
    assert caught.value.code == "RATE_LIMITED"
    for one in (books, other):
        one.ledger.close()
    settled(state)


def test_one_call_more_than_may_run_at_once(device_of: Callable[[License], State]) -> None:
    license = free(limits=Rate(inflight=2))
    state = device_of(license)
    books, other = Books(state, license), Books(state, license)
    first, second = books.reserve(), other.reserve()
    for one in (books, other):
        with pytest.raises(SealpackError, match="2 calls running already, 2 allowed"):
            one.reserve()
    books.ledger.settle(first, "ok", ONE, ms=1, wait_ms=0)
    other.ledger.settle(other.reserve(), "ok", ONE, ms=1, wait_ms=0)
    other.ledger.settle(second, "ok", ONE, ms=1, wait_ms=0)
    for one in (books, other):
        one.ledger.close()
    settled(state)


HOLD = """
import sys, time
sys.path[:0] = {paths!r}
from test_ahead import *
from sealpack.runtime.home import open_home
with State(open_home({state!r})) as state:
    books = Books(state, free(limits=Rate(inflight=1)))
    books.reserve()
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_gives_its_place_back(device_of: Callable[[License], State]) -> None:
    license = free(limits=Rate(inflight=1))
    state = device_of(license)
    here = Path(__file__).parent
    program = HOLD.format(paths=[str(here.parent), str(here)], state=str(state.home.path))
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    books = Books(state, license)
    with pytest.raises(SealpackError) as caught:
        books.call()
    assert caught.value.code == "CONCURRENCY_LIMIT"
    holder.kill()
    holder.communicate()
    books.call()
    books.ledger.close()
    settled(state)


# --- blocks -----------------------------------------------------------------------------------------------


def test_a_block_is_a_hundredth_of_what_is_left_at_most(device_of: Callable[[License], State]) -> None:
    license = free(quota=(Quota("calls", "term", "device", 5_000, None, "deny"),))
    state = device_of(license)
    books = Books(state, license, block=1000)
    books.call()
    books.call()
    assert open_holds(state) == [(49, 1)]
    for _ in range(49):
        assert books.call()
    assert open_holds(state) == [(49, 2)], "written together when the block was full"
    assert len(records(state)) == 51
    books.ledger.close()
    settled(state)


def test_a_block_of_a_thousand_without_a_limit(device_of: Callable[[License], State]) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license, block=5000)
    books.call()
    books.call()
    assert open_holds(state) == [(1000, 1)]
    books.ledger.close()
    settled(state)


def test_receipts_do_not_wait_for_long_when_no_call_comes(device_of: Callable[[License], State]) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license, block=1000)
    for _ in range(10):
        books.call()
    deadline = time.monotonic() + 30
    while len(records(state)) < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(records(state)) == 10
    books.ledger.close()
    settled(state)


def test_every_receipt_of_a_block_has_its_own_time(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"wall": world.T0 * 1000, "up": 5_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 60)
    license = free()
    state = device_of(license)
    books = Books(state, license, block=1000)
    for _ in range(6):
        books.call()
        now |= {"wall": now["wall"] + 7, "up": now["up"] + 7}
    books.ledger.close()
    with state.read() as db:
        times = [r.time_ms - world.T0 * 1000 for r in receipts.recent(db, 1, 100) if r.kind == "u"]
    assert times == [0, 7, 14, 21, 28, 35]
    settled(state)


def test_killed_in_a_block_what_had_begun_is_billed_as_lost(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 60)
    license = free()
    state = device_of(license)
    books = Books(state, license, block=1000)
    for _ in range(2 + 17):
        books.call(Usage(tok_in=2, items=1))
    books.reserve()  # one more runs
    books.die()
    sweep(state, license)
    assert records(state)[2] == ("l", "lost", 18, 17 * 2 + 3)
    settled(state)


def test_a_block_that_cannot_be_written_is_kept_and_written_later(
    device_of: Callable[[License], State], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 60)
    license = free(quota=(Quota("calls", "term", "device", 1_000, None, "deny"),))
    state = device_of(license)
    books = Books(state, license, block=1000)
    for _ in range(2 + 8):
        books.call()
    pages = state._db.execute("PRAGMA page_count").fetchone()[0]
    state._db.execute(f"PRAGMA max_page_count={pages}")
    full = 0
    for _ in range(3):
        with pytest.raises(SealpackError) as caught:
            for _ in range(200):
                books.call()
        assert caught.value.code == "STORE_FULL"
        full += 1
    state._db.execute("PRAGMA max_page_count=1000000")
    books.call()
    books.ledger.close()
    assert full == 3
    settled(state)


# --- the whole runtime, killed ----------------------------------------------------------------------------

LOAD = f"""
import os, sys
import sealpack.runtime as s
out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
with s.open("acme/tiny", state=sys.argv[1], threads=1, high_rate=True) as runtime:
    while True:
        runtime.infer({INPUT!r})
        os.write(out, b"x")
"""


def high_rate_kills(site: Site, kills: int, seed: int) -> None:
    """A process in high-rate mode is killed at random moments: every answer is billed, and hardly more."""
    chance = random.Random(seed)
    site.ready(make_license(quota=(Quota("calls", "term", "device", 10**7, None, "deny"),)))
    told = site.folder / "answers"
    told.touch()
    for _ in range(kills):
        before = told.stat().st_size
        process = subprocess.Popen([sys.executable, "-c", LOAD, str(site.state_dir), str(told)])
        while told.stat().st_size == before:
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(chance.random() ** 2 * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
    answers = told.stat().st_size
    with site.state() as state:
        settled(state)
        with state.read() as db:
            billed = log.registers(db, 1).total("calls") - 1
    # Of each killed process one call may have begun, or ended and not been told yet.
    assert answers <= billed <= answers + kills


def test_kills_in_high_rate_mode_lose_no_answer(site: Site) -> None:
    high_rate_kills(site, 6, seed=11)


@pytest.mark.slow
def test_many_kills_in_high_rate_mode(site: Site) -> None:
    high_rate_kills(site, 300, seed=12)


def test_high_rate_answers_before_its_receipt_and_says_so(site: Site) -> None:
    site.ready()
    runtime: Runtime
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, high_rate=True) as runtime:
        positions = [runtime.infer(INPUT).receipt.position for _ in range(5)]
    assert all(position is not None for position in positions[:2])
    assert positions[2:] == [None] * 3
    with site.state() as state:
        assert len(records(state)) == 5
        settled(state)


def test_an_emptied_owners_file_says_nothing_and_all_is_billed(
    device_of: Callable[[License], State],
) -> None:
    license = free()
    state = device_of(license)
    books = Books(state, license)
    for _ in range(3):
        books.call()
    books.reserve()
    books.die()
    path = state.home.owners / books.owner.name
    path.write_bytes(bytes(path.stat().st_size))
    sweep(state, license)
    assert ("l", "lost", 1, 3) in records(state)
    settled(state)
