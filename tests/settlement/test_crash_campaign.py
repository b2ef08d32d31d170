"""Kill -9 of workers, of the PostgreSQL server, and of every verb that writes much, again and again.

Whatever dies whenever: every receipt of a fleet is settled once, as the oracle says. The short form of each
campaign runs always; `pytest -m slow tests/settlement/test_crash_campaign.py` runs the whole of it.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from load import fleet, oracle
from support import postgres as servers
from support.books import Books

from sealpack.format.errors import SealpackError
from sealpack.settlement import (
    audit,
    backup,
    billing,
    db,
    evidence,
    evidence_move,
    ingest,
    restore,
    work_queue,
)
from sealpack.settlement.audit import Actor
from sealpack.settlement.reconcile import reconcile

CLERK = Actor("clerk", fleet.NOW)
SHORT, WHOLE = 4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(5400)])

# A worker whose clock stands where the fleet's does, with a short memory for claims.
WORK = """
import sys, time
from sealpack.settlement.db import Database
from sealpack.settlement.queue_worker import Worker, until_told
def away(error_or_outcome): pass
with until_told() as stopped:
    while not stopped():
        try:
            with Database.open(sys.argv[1]) as database:
                Worker(database, away, lambda: int(sys.argv[2]), stopped, lambda s: time.sleep(0.05), 2).run()
        except Exception as error:
            print(error, file=sys.stderr)
            time.sleep(0.1)
"""


@dataclass
class Crew:
    """Worker processes at one database."""

    address: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def hire(self) -> None:
        """One more."""
        command = [sys.executable, "-c", WORK, self.address, str(fleet.NOW)]
        self.processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    def kill(self, rng: random.Random) -> None:
        """Kill -9 one of them, and hire another."""
        victim = self.processes.pop(rng.randrange(len(self.processes)))
        assert victim.poll() is None
        victim.kill()
        victim.wait()
        self.hire()

    def dismiss(self) -> None:
        """Tell all to stop."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            assert process.wait(120) in (0, -signal.SIGTERM)  # the latter: it had hardly begun


def undecided(address: str) -> int:
    with db.Database.open(address) as database, database.read() as connection:
        return work_queue.pending(connection)


@pytest.fixture(scope="module")
def own() -> Iterator[servers.Server]:
    """A server that may be killed."""
    programs = servers.binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    made = servers.Server.make(programs)
    yield made
    made.remove()


def queued(address: str, folder: Path, kills: int) -> fleet.Truth:
    """A fleet's files in the queue of a new database."""
    shape = fleet.Shape(customers=2, devices=2 * kills + 4, receipts=120 * kills, seed=kills)
    truth = fleet.make(shape, folder)
    with db.Database.open(address) as database:
        oracle.learn(database, (folder / "registry.jsonl").read_bytes())
        for path in sorted((folder / "usage").iterdir()):
            data = path.read_bytes()

            def queue(connection: sa.Connection, digest: str, data: bytes = data) -> None:
                work_queue.add(connection, digest, data, fleet.NOW)

            evidence.keep(database, data, path.name, fleet.NOW, also=queue)
    return truth


def wait_until(address: str, left: int) -> None:
    """Until no more than so many files wait."""
    deadline = time.monotonic() + 300
    while undecided(address) > left:
        assert time.monotonic() < deadline, f"{undecided(address)} files still wait"
        time.sleep(0.01)


def nothing_lost_nothing_twice(address: str, truth: fleet.Truth) -> None:
    with db.Database.open(address) as database:
        assert oracle.wrong(database, truth) == []
        assert reconcile(database, fleet.NOW).problems == ()
        assert oracle.wrong_invoices(database, truth) == []
        with database.read() as connection:
            assert work_queue.jobs(connection) == []


@pytest.mark.parametrize("kills", [SHORT, WHOLE])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_workers_die(tmp_path: Path, kind: str, kills: int, request: pytest.FixtureRequest) -> None:
    address = str(tmp_path / "settlement.db")
    if kind == "postgresql":
        address = request.getfixturevalue("own").fresh()
    truth = queued(address, tmp_path / "fleet", kills)
    crew, rng, total = Crew(address), random.Random(kills), undecided(address)
    for _ in range(2):
        crew.hire()
    for number in range(kills):
        wait_until(address, total - total * (number + 1) * 9 // (kills * 10))
        time.sleep(rng.random() * 0.05)
        crew.kill(rng)
    wait_until(address, 0)
    crew.dismiss()
    nothing_lost_nothing_twice(address, truth)


@pytest.mark.parametrize("kills", [SHORT, WHOLE])
def test_the_server_dies(own: servers.Server, tmp_path: Path, kills: int) -> None:
    """Workers stay, wait for the server, and go on."""
    address = own.fresh()
    truth = queued(address, tmp_path / "fleet", kills)
    crew, rng, total = Crew(address), random.Random(kills), undecided(address)
    for _ in range(2):
        crew.hire()
    for number in range(kills):
        wait_until(address, total - total * (number + 1) * 9 // (kills * 10))
        time.sleep(rng.random() * 0.05)
        own.kill()
        own.start()
    wait_until(address, 0)
    crew.dismiss()
    nothing_lost_nothing_twice(address, truth)


# --- verbs that write much --------------------------------------------------------------------------

# Forks a child per point that dies right before its n-th step: a statement, a commit, a sync, a renaming.
CRASHER = """
import json, os, signal, sys
import sqlalchemy as sa
from sealpack.settlement import backup, billing, evidence_move, restore
from sealpack.settlement.cli import backup as b, invoice, store
from sealpack.verifier.cli import support
from sealpack.verifier.cli.main import make_cli, run

now = int(sys.argv[1])
support.now = lambda: now
sent, last = 0, 0

def step(*_):
    global sent
    sent += 1
    if sent == last:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(call):
    def wrapped(*arguments, **more):
        step()
        return call(*arguments, **more)
    return wrapped

sa.event.listen(sa.engine.Engine, "before_cursor_execute", step)
sa.event.listen(sa.engine.Engine, "commit", step)
for name in ("fsync", "replace", "rename", "link"):
    setattr(os, name, counted(getattr(os, name)))
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
ended = []
for point, arguments in json.loads(sys.stdin.read()):
    child = os.fork()
    if not child:
        last = point
        os._exit(100 if run(make_cli(), arguments) == 0 else 1)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ended), file=sys.stderr)
"""
DONE = 100


def crash(todo: list[tuple[int, list[str]]]) -> list[int]:
    """How each call ended that was to die before its n-th step: -9, or DONE when it has not so many."""
    done = subprocess.run(
        [sys.executable, "-c", CRASHER, str(fleet.NOW)],
        input=json.dumps(todo),
        capture_output=True,
        text=True,
    )
    ended: list[int] = json.loads(done.stderr.splitlines()[-1])
    assert set(ended) <= {DONE, -signal.SIGKILL}, done.stderr
    return ended


def points(kills: int) -> list[int]:
    """Steps to die at: the first ones, then farther and farther apart in the short form."""
    return list(range(1, kills + 1)) if kills > SHORT else [1, 3, 6, 10, 16, 24, 35, 50, 70, 100]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with some of everything, to be copied."""
    folder = tmp_path_factory.mktemp("plain")
    truth = fleet.make(fleet.Shape(customers=12, devices=12, receipts=600, seed=9), folder)
    path = folder / "settlement.db"
    with db.Database.open(path) as database:
        oracle.learn(database, (folder / "registry.jsonl").read_bytes())
        for usage in sorted((folder / "usage").iterdir()):
            evidence.keep(database, usage.read_bytes(), usage.name, fleet.NOW)
        ingest.release(database, fleet.NOW)
        assert oracle.wrong(database, truth) == []
    return path


def copies(plain: Path, folder: Path, numbers: list[int]) -> dict[int, str]:
    for number in numbers:
        (folder / str(number)).mkdir()
        shutil.copy(plain, folder / str(number) / "a.db")
    return {number: str(folder / str(number) / "a.db") for number in numbers}


def rows(path: str | Path) -> dict[str, list[dict[str, object]]]:
    with db.Database.open(path) as database:
        books = Books(Path(path).parent, database)
        return {name: books.rows(table) for name, table in db.metadata.tables.items()}


@pytest.mark.parametrize("kills", [SHORT, WHOLE])
def test_a_backup_dies(plain: Path, tmp_path: Path, kills: int) -> None:
    numbers = points(kills)
    files = {number: tmp_path / f"{number}.backup" for number in numbers}
    ended = crash([(n, ["settle", "--db", str(plain), "backup", str(files[n])]) for n in numbers])
    assert ended.count(-signal.SIGKILL) >= 5
    with db.Database.open(plain) as database:
        backup.write(database, tmp_path / "whole", now=fleet.NOW)
    whole = (tmp_path / "whole").read_bytes()
    for number, how in zip(numbers, ended, strict=True):
        exists = files[number].exists()
        assert exists or how == -signal.SIGKILL
        assert not exists or files[number].read_bytes() == whole  # whole or not at all
    assert reconcile_is_ok(plain)


def reconcile_is_ok(path: str | Path) -> bool:
    with db.Database.open(path) as database:
        audit.verify(database)
        return reconcile(database, fleet.NOW).problems == ()


@pytest.mark.parametrize("kills", [SHORT, WHOLE])
def test_a_restoration_dies(plain: Path, tmp_path: Path, kills: int) -> None:
    with db.Database.open(plain) as database:
        backup.write(database, tmp_path / "whole", now=fleet.NOW)
    source, before = tmp_path / "whole", rows(plain)
    numbers = points(kills)
    targets = {number: str(tmp_path / f"{number}.db") for number in numbers}
    raw = ["--store", str(tmp_path / "raw")]
    ended = crash([(n, ["settle", "--db", targets[n], "restore", str(source), *raw]) for n in numbers])
    assert ended.count(-signal.SIGKILL) >= 5
    for target in targets.values():
        with db.Database.open(target) as database:
            try:
                restore.restore(database, source, actor=CLERK)
            except SealpackError as error:
                assert error.code == "OUTPUT_EXISTS"  # it had come to its end
        found = rows(target)
        changed = ("audit", "restores", "stores", "evidence", "files")
        assert {n: r for n, r in found.items() if n not in changed} == {
            n: r for n, r in before.items() if n not in changed
        }
        assert len(found["restores"]) == 1 and reconcile_is_ok(target)


@pytest.mark.parametrize("kills", [SHORT, WHOLE])
def test_a_move_of_raw_files_dies(plain: Path, tmp_path: Path, kills: int) -> None:
    numbers = points(kills)
    paths = copies(plain, tmp_path, numbers)
    place = {number: str(tmp_path / str(number) / "raw") for number in numbers}
    ended = crash([(n, ["settle", "--db", paths[n], "store", place[n]]) for n in numbers])
    assert ended.count(-signal.SIGKILL) >= 5
    for number in numbers:
        assert reconcile_is_ok(paths[number])
        with db.Database.open(paths[number]) as database:
            evidence_move.move(database, place[number], actor=CLERK)
            with database.read() as connection:
                (lying,) = evidence_move.lying(connection)
                assert (lying.location, lying.current) == (place[number], True)
        assert reconcile_is_ok(paths[number]) and not rows(paths[number])["evidence"]


@pytest.mark.parametrize("kills", [SHORT, WHOLE])
def test_issuing_dies(plain: Path, tmp_path: Path, kills: int) -> None:
    """Numbers without gaps, each license billed once, everything booked."""
    numbers = [n * 5 for n in points(kills)] if kills > SHORT else [n * 8 for n in points(kills)]
    paths = copies(plain, tmp_path, numbers)
    issue = ["invoice", "--period", "2026-10", "--date", "2026-11-03"]
    ended = crash(
        [(n, ["settle", "--db", paths[n], *issue, "--out", str(tmp_path / str(n))]) for n in numbers]
    )
    assert ended.count(-signal.SIGKILL) >= 5
    for path in paths.values():
        part = [row["number"] for row in rows(path)["invoices"]]
        assert sorted(part) == list(range(1, len(part) + 1))  # also before it is done again
        with db.Database.open(path) as database:
            billing.bill_all(database, date(2026, 10, 1), date(2026, 11, 3), actor=CLERK)
        found = rows(path)
        assert sorted(row["number"] for row in found["invoices"]) == list(range(1, 13))
        assert len({row["license_id"] for row in found["invoices"]}) == 12
        assert len(found["transactions"]) == 12 and reconcile_is_ok(path)
