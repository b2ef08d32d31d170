"""Found by reviewing the enforcement as an attacker, and as an honest site that is out of luck."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support import world
from support.acts import backup, call, refused, restore
from support.site import INPUT, T0, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, License, Quota, Rate
from sealpack.format.repair import Repair
from sealpack.runtime import (
    closing,
    device,
    lapses,
    ledger,
    log,
    machine,
    marks,
    owners,
    receipts,
    rights,
    timekeeper,
)
from sealpack.runtime.admission import Build, Facts
from sealpack.runtime.api import Runtime
from sealpack.runtime.clock import Reading, Times
from sealpack.runtime.engines.base import Usage
from sealpack.runtime.ledger import Ledger, Ticket
from sealpack.runtime.owners import Owner
from sealpack.runtime.state import Connection, State, afterwards
from sealpack.runtime.timekeeper import Moment

pytest.importorskip("onnxruntime")

TERM = (Quota("calls", "term", "device", 10, None, "deny"),)


def open_runtime(site: Site, **options: Any) -> Runtime:
    return sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1, **options)


def call_of(site: Site, license_id: str) -> None:
    with open_runtime(site, license=license_id) as runtime:
        runtime.infer(INPUT)


def logs(site: Site) -> list[log.Log]:
    with site.state() as state, state.read() as db:
        return log.every(db)


def counted(site: Site, meter: str = "calls") -> int:
    """What the term's counter says is used."""
    with site.state() as state, state.read() as db:
        row = db.execute("SELECT used FROM counters WHERE period='term' AND meter=?", (meter,)).fetchone()
    return 0 if row is None else int(row[0])


def billed(site: Site) -> list[tuple[str, int]]:
    """(status, calls) of every usage and lost record of the newest log, whose books must fit."""
    with site.state() as state:
        (newest,) = [one for one in logs(site)][-1:]
        assert receipts.verify_log(state, newest.log) == []
        with state.read() as db:
            found = [r for r in receipts.recent(db, newest.log, 100_000) if r.kind in "ul"]
    return [(r.body.get("status", "lost"), r.body["meters"]["calls"]) for r in found]


def holds(site: Site) -> int:
    with site.state() as state, state.read() as db:
        (count,) = db.execute("SELECT count(*) FROM reservations").fetchone()
    return int(count)


def repair_for(request: ActivationRequest, **members: Any) -> Envelope:
    values: dict[str, Any] = {
        "license_id": "L-1",
        "device_id": request.device_id,
        "request_digest": request.digest,
        "nonce": request.nonce,
        "issued_at": T0,
    }
    return documents.seal("repair", Repair(**(values | members)).to_dict(), world.LICENSER)


def token(site: Site, epoch: int) -> Envelope:
    made = EpochToken("L-1", device.name(device.key(site.home)), epoch, T0)
    return documents.seal("epoch-token", made.to_dict(), world.LICENSER)


# --- backups ------------------------------------------------------------------------------------------


def test_a_closed_device_is_not_opened_again_by_a_backup(site: Site) -> None:
    """The mark knows that the log was closed: a proof was given, the seat may be another's."""
    site.ready()
    call(site)
    before = backup(site)
    with site.state() as state:
        closing.close(state, "L-1")
    restore(site, before)
    refused("DEVICE_CLOSED", lambda: call(site))


def test_the_proof_counts_what_a_restored_backup_carried(site: Site) -> None:
    """Else a quota's part is handed on that was used: restore, then close."""
    site.ready(make_license(quota=TERM))
    call(site)
    before = backup(site)
    call(site, 4)
    restore(site, before)
    call(site)
    assert counted(site) == 6
    with site.state() as state:
        assert closing.close(state, "L-1").said.used["calls"] == 6


def rolled_back_for_good(site: Site) -> Path:
    """Restored twice under one lease."""
    site.ready(make_license(quota=TERM))
    call(site)
    before = backup(site)
    call(site, 4)
    restore(site, before)
    call(site)
    restore(site, before)
    refused("STATE_ROLLED_BACK", lambda: call(site))
    return before


def test_a_repair_of_clock_and_log_frees_a_device_that_was_set_back_twice(site: Site) -> None:
    rolled_back_for_good(site)
    request = site.request()
    site.take(Parcel((repair_for(request, epoch=2, now=T0),)))
    call(site)
    assert [one.epoch for one in logs(site)] == [0, 2]
    assert counted(site) == 7


def test_leave_after_a_fork_does_not_forget_what_the_mark_knows(site: Site) -> None:
    rolled_back_for_good(site)
    name = device.name(device.key(site.home))
    frozen = Acknowledgement(
        f"sealpack/usage/L-1/{name}/0", "L-1", name, 0, 99, "ab" * 32, 1, T0, frozen=True
    )
    site.take(Parcel((documents.seal("acknowledgement", frozen.to_dict(), world.SETTLEMENT),)))
    site.take(Parcel((token(site, 3),)))
    call(site)
    assert counted(site) == 7, "six before the second restore and this one"


def test_one_license_that_was_set_back_does_not_keep_anothers_usage_at_home(site: Site) -> None:
    rolled_back_for_good(site)
    site.activate(make_license(license_id="L-2"))
    with open_runtime(site, license="L-2") as runtime:
        runtime.infer(INPUT)
    with site.state() as state:
        done = receipts.export(state, site.folder, license_id="L-2")
        assert [one.license_id for one in done] == ["L-2"]
        (site.folder / "all").mkdir()
        refused("STATE_ROLLED_BACK", lambda: receipts.export(state, site.folder / "all"))
    assert len(list((site.folder / "all").glob("*.usage.gz"))) == 1, "written before the other one is told"


def test_a_license_that_is_no_longer_believed_keeps_no_usage_at_home(site: Site) -> None:
    """Neither its own nor another's: what was used before its key was revoked is billed all the same."""
    site.ready()
    site.activate(make_license(license_id="L-2"))
    for name in ("L-1", "L-2"):
        with open_runtime(site, license=name) as runtime:
            runtime.infer(INPUT)
    site.take(Parcel((world.make_revocations(2, keys=[{"keyid": world.LICENSER.keyid, "good": []}]),)))
    with pytest.raises(SealpackError) as caught, open_runtime(site, license="L-1") as runtime:
        runtime.infer(INPUT)
    assert caught.value.code == "KEY_REVOKED"
    with site.state() as state:
        done = receipts.export(state, site.folder)
    assert [one.license_id for one in done] == ["L-1", "L-2"]


def test_what_a_backup_held_stands_in_no_other_licenses_way(site: Site) -> None:
    """A server that ran when the backup was made held the next call ahead."""
    site.ready()
    site.activate(make_license(license_id="L-2"))
    with open_runtime(site, license="L-1") as runtime:
        for _ in range(3):
            runtime.infer(INPUT)
        assert holds(site) == 1
        before = backup(site)
    call_of(site, "L-1")
    restore(site, before)
    call_of(site, "L-2")
    with site.state() as state:
        closing.close(state, "L-2")
    call_of(site, "L-1")
    assert holds(site) == 0


def test_break_glass_does_not_come_again_with_a_backup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "reading", lambda: Reading((T0 + 10) * 1000, 5000, "boot"))
    site.ready(make_license(exp=T0 + 86_400))
    call(site)
    before = backup(site)
    with site.state() as state:
        lapses.break_glass(state, "night shift")
    days = [8 * 86_400]
    monkeypatch.setattr(machine, "reading", lambda: Reading((T0 + days[0]) * 1000, days[0] * 1000, "boot"))
    with site.state() as state:
        refused("LEASE_STALE", lambda: lapses.break_glass(state, "again"))
    restore(site, before)
    refused("LIC_EXPIRED", lambda: call(site))
    with site.state() as state:
        refused("LEASE_STALE", lambda: lapses.break_glass(state, "again"))


def test_a_database_that_was_deleted_is_not_begun_again_under_its_old_logs_name(site: Site) -> None:
    """Corrupted, deleted, asked for again: the key is the same, so a second log 0 would be a fork."""

    def begin_again() -> None:
        for path in site.state_dir.glob("state.db*"):
            path.unlink()
        site.pin()
        site.install()
        site.activate(make_license(quota=TERM))

    site.ready(make_license(quota=TERM))
    call(site, 4)
    begin_again()
    call(site)
    assert ([one.epoch for one in logs(site)], counted(site)) == ([1], 5)
    begin_again()
    refused("STATE_ROLLED_BACK", lambda: call(site))
    site.take(Parcel((token(site, 2),)))
    call(site)
    assert ([one.epoch for one in logs(site)], counted(site)) == ([2], 6)
    with site.state() as state:
        assert receipts.verify_log(state, 1) == []


# --- the books of a call --------------------------------------------------------------------------------

BUILD = Build("acme/tiny", "1.0.0", "ab" * 32, 1, world.CREATOR.keyid, "cd" * 32, T0)
ROUTE = {"license_id": "FREE", "seq": 1, "bundle_digest": "ab" * 32, "model_digest": "ef" * 32}
LISTS = world.make_trust().revocations
ONE = Usage(tok_in=3, items=1)


def free(**members: Any) -> License:
    return make_license(license_id="FREE", devices=Devices("none"), **members)


class Books:
    """The books of one runtime on a device that holds a free license."""

    def __init__(self, state: State, license: License, block: int = 1) -> None:
        self.state, self.license = state, license
        self.owner = Owner(state.home, "FREE")
        self.ledger = Ledger(state, device.key(state.home), self.owner, block=block)

    def reserve(self, bound: Usage = ONE) -> Ticket:
        return self.ledger.reserve(ROUTE, bound, self._facts, streaming=False)

    def _facts(self, *_: object) -> Facts:
        return Facts(self.license, None, None, LISTS, "dev-x", BUILD, Times(0, 0, 0))

    def call(self) -> bool:
        """One whole call; whether it began out of what was held ahead."""
        ticket = self.reserve()
        self.ledger.settle(ticket, "ok", ONE, ms=1, wait_ms=0)
        return ticket.ahead

    def die(self) -> None:
        """What a kill does: the kernel drops the lock, the file stays."""
        self.owner.release(settled=False)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Of a device that holds the license FREE."""
    site = Site(tmp_path, {}, world.make_trust()).pin()
    site.take(Parcel((seal_license(free()),)))
    with State(site.home) as opened:
        yield opened


def written(state: State) -> list[tuple[str, int]]:
    """(status, calls) of every receipt; the books must fit and nothing be open."""
    assert receipts.verify_log(state, 1) == []
    with state.read() as db:
        found = [r for r in receipts.recent(db, 1, 100_000) if r.kind in "ul"]
        assert db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
    return [(r.body.get("status", "lost"), r.body["meters"]["calls"]) for r in found]


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_full_disk_and_then_a_kill_cost_what_had_begun_not_the_whole_block(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 60)
    books = Books(state, free(), block=1000)
    for _ in range(2 + 8):
        books.call()
    store = log.Writer.finish
    monkeypatch.setattr(log.Writer, "finish", _then_full(store))
    for _ in range(2):
        refused("STORE_FULL", books.ledger.flush)
    monkeypatch.undo()
    books.die()
    other = Books(state, free())
    other.call()
    other.ledger.close()
    assert written(state) == [("ok", 1)] * 2 + [("lost", 8)] + [("ok", 1)]


def _then_full(store: Callable[[log.Writer], log.Log]) -> Callable[[log.Writer], log.Log]:
    """Store the records, and find no room for what comes after."""

    def finish(writer: log.Writer) -> log.Log:
        store(writer)
        _full()

    return finish


def _full() -> NoReturn:
    raise OSError(errno.ENOSPC, "no space left on device")


def test_an_interrupt_right_after_a_commit_leaves_books_that_go_on(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receipt is durable, the process lives on: a signal handler raised while the mark was written."""
    books = Books(state, free())
    for _ in range(3):
        books.call()
    for _ in range(2):
        ticket = books.reserve()
        write = marks._write
        monkeypatch.setattr(marks, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            books.ledger.settle(ticket, "ok", ONE, ms=1, wait_ms=0)
        monkeypatch.setattr(marks, "_write", write)
        books.call()
    books.ledger.close()
    assert written(state) == [("ok", 1)] * 7


@pytest.mark.parametrize("then", ["call", "close"])
def test_a_call_that_an_interrupt_kept_from_beginning_costs_nothing(
    state: State, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """It was held, durably, when the signal handler raised: nobody ever got the ticket."""
    books = Books(state, free())
    observe = timekeeper.observe

    def interrupt(db: Connection) -> Moment:
        afterwards(db, "signal", _interrupted)
        return observe(db)

    monkeypatch.setattr(timekeeper, "observe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        books.reserve()
    monkeypatch.undo()
    if then == "call":
        books.call()
    books.ledger.close()
    assert written(state) == [("ok", 1)] * (then == "call")


def _interrupted() -> None:
    raise KeyboardInterrupt


def test_what_comes_after_the_commit_takes_no_answer_back(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more files can be opened, or the mark's counters not be read: the receipt is durable."""
    books = Books(state, free())
    for error in (OSError(errno.EMFILE, "too many open files"), sqlite3.OperationalError("disk I/O error")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(marks, "_body", fail)
        for _ in range(3):
            books.call()
        monkeypatch.undo()
    books.ledger.close()
    assert written(state) == [("ok", 1)] * 6


def test_two_threads_on_a_full_disk_lose_no_receipt(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books(state, free())
    for _ in range(3):
        books.call()
    one = books.reserve()
    assert one.ahead
    store = log.Writer.finish
    monkeypatch.setattr(log.Writer, "finish", _then_full(store))
    books.ledger._running.add(one.want)  # as of a second call that runs beside it out of one hold
    books.ledger._ahead.begun = {m: 2 * n for m, n in books.ledger._ahead.begun.items()}  # type: ignore[union-attr]
    for _ in range(2):
        with pytest.raises(SealpackError):
            books.ledger.settle(one, "ok", ONE, ms=1, wait_ms=0)
    monkeypatch.undo()
    books.call()
    books.ledger.close()
    assert written(state) == [("ok", 1)] * 3 + [("aborted", 1)] * 2 + [("ok", 1)]


def test_a_full_disk_leaves_no_open_files_behind(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: _full())
    before = descriptors()
    for _ in range(3):
        refused("STORE_FULL", lambda: Owner(state.home, "FREE"))
    assert descriptors() == before
    assert owners.names(state.home) == []


def test_without_room_for_the_rates_the_owner_goes_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ready()
    shutil.rmtree(site.home.rates)
    before = descriptors()
    site.home.rates.rmdir()
    (site.state_dir / "rates").write_text("")
    for _ in range(3):
        with pytest.raises(SealpackError):
            open_runtime(site)
    assert descriptors() == before
    assert owners.names(site.home) == []


# --- forks, strangers, swapped files ----------------------------------------------------------------------

FORK = """
import os, sys, time
import sealpack.runtime as s
runtime = s.open("acme/talk", state=sys.argv[1], threads=1)
if os.fork() == 0:
    time.sleep(30)
    os._exit(0)

def stop(piece):
    os.write(1, b"x")
    os.kill(os.getpid(), 9)

runtime.generate("the", max_tokens=5, on_text=stop)
"""


def test_a_child_does_not_keep_its_dead_parents_call_open(site: Site) -> None:
    """Else a kill is free for as long as the child sleeps, and an honest site waits for a dead call."""
    site.pin()
    site.install("talk")
    site.activate(make_license(limits=Rate(inflight=1)))
    process = subprocess.Popen([sys.executable, "-c", FORK, str(site.state_dir)], stdout=subprocess.DEVNULL)
    assert process.wait(30) == -9
    assert holds(site) == 1
    with sealpack.runtime.open("acme/talk", state=site.state_dir, threads=1) as runtime:
        runtime.generate("the", max_tokens=1)
    assert billed(site) == [("aborted", 1), ("ok", 1)]


def test_who_locks_a_dead_owners_file_keeps_its_call_open_until_the_next_boot_at_most(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books(state, free())
    books.reserve()
    path = state.home.owners / books.owner.name
    books.die()
    stranger = os.open(path, os.O_RDWR)
    fcntl.flock(stranger, fcntl.LOCK_EX)
    now = machine.reading()
    monkeypatch.setattr(machine, "reading", lambda: replace(now, monotonic=1000, boot_id="next"))
    other = Books(state, free())
    other.call()
    other.ledger.close()
    os.close(stranger)
    assert written(state) == [("aborted", 1), ("ok", 1)]


def test_emptying_the_bucket_file_gives_a_running_process_no_more_calls(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = machine.reading()
    monkeypatch.setattr(machine, "reading", lambda: now)
    books = Books(state, free(limits=Rate(qps=2)))
    for damage in (b"", b"\xff" * 7, None):
        if damage is None:
            (state.home.rates / "FREE.bucket").unlink()
        else:
            (state.home.rates / "FREE.bucket").write_bytes(damage)
        with pytest.raises(SealpackError) as caught:
            for _ in range(4):
                books.call()
        assert caught.value.code in ("RATE_LIMITED", "STATE_TAMPERED")
    books.ledger.close()
    assert written(state) == [("ok", 1)] * 2


def test_places_in_a_file_that_was_swapped_do_not_count(state: State) -> None:
    license = free(limits=Rate(inflight=1))
    one = Books(state, license)
    ticket = one.reserve()
    (state.home.rates / "FREE.slots").unlink()
    two = Books(state, license)
    running = two.reserve()  # nobody can tell: it opened the new file
    two.ledger.settle(running, "ok", ONE, ms=1, wait_ms=0)
    one.ledger.settle(ticket, "ok", ONE, ms=1, wait_ms=0)
    refused("STATE_TAMPERED", one.reserve)
    for books in (one, two):
        books.ledger.close()


def test_a_process_that_hides_its_owners_file_runs_nothing(state: State) -> None:
    license = free(limits=Rate(processes=1))
    books = Books(state, license)
    books.call()
    path = state.home.owners / books.owner.name
    path.rename(path.with_name("x" + path.name.replace("FREE", "OTHER")))
    refused("STATE_TAMPERED", books.reserve)


# --- documents out of order ----------------------------------------------------------------------------


def test_replies_in_the_wrong_order_leave_the_newest(site: Site) -> None:
    """The later reply may hold the key of a further build: the earlier one must not take it away again."""
    site.pin()
    site.install()
    license = make_license()
    first, second = (site.reply(site.request(), license) for _ in range(2))
    made = Activation.open(second.of_kind("activation")[0], site.trust)
    later = documents.seal("activation", replace(made, issued_at=T0 + 60).to_dict(), world.LICENSER)
    site.take(Parcel((seal_license(license), later)))
    taken = site.take(first)
    assert (taken.activations, taken.known) == ([], 2)
    with site.state() as state, state.read() as db:
        stored = rights.stored(db, "activation", "L-1")
    assert stored is not None
    assert stored.digest == later.digest


def test_a_place_for_marks_that_was_never_written_is_not_missed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that is read-only, or a container without one: no event says that somebody took a mark away."""
    monkeypatch.setenv("SEALPACK_MARKS", "/proc/sealpack-marks")
    site.ready()
    for _ in range(3):
        call(site)
    with site.state() as state, state.read() as db:
        assert [r for r in receipts.recent(db, 1, 1000) if r.kind == "c"] == []


def test_a_closed_device_that_was_set_back_goes_on_with_a_new_reply(site: Site) -> None:
    site.ready(make_license(quota=TERM))
    call(site, 2)
    before = backup(site)
    call(site, 3)
    with site.state() as state:
        end = closing.close(state, "L-1").said
    restore(site, before)
    refused("DEVICE_CLOSED", lambda: call(site))
    site.take(Parcel((world.make_revocations(2),)))  # news is taken all the same
    license = make_license(quota=TERM)
    reply = site.reply(site.request(), license)
    made = Activation.open(reply.of_kind("activation")[0], site.trust)
    again = replace(made, epoch=1, issued_at=T0 + 60)
    site.take(Parcel((seal_license(license), documents.seal("activation", again.to_dict(), world.LICENSER))))
    call(site)
    assert counted(site) == 6
    with site.state() as state, state.read() as db:
        genesis = next(r for r in receipts.recent(db, logs(site)[-1].log, 1000))
    assert genesis.body["previous"] == {"origin": end.origin, "size": end.size, "root": end.root}
