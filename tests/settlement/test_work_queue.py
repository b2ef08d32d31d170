"""Files that wait for a worker: shared by any number of these, given back by the dead, never lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy as sa
from load import fleet, oracle
from starlette.testclient import TestClient
from support.books import NOW, SIGNERS, Books
from support.device import Device
from support.service import make_token

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, evidence, ingest, work_queue
from sealpack.settlement.outcomes import Outcome
from sealpack.settlement.queue_worker import Worker
from sealpack.settlement.reconcile import reconcile
from sealpack.settlement.service import openapi
from sealpack.settlement.service.app import Service, make_app
from sealpack.verifier.cli.main import make_cli, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], bytes, fleet.Truth]:
    folder = tmp_path_factory.mktemp("fleet")
    truth = fleet.make(fleet.Shape(customers=2, devices=12, receipts=1_200, seed=5), folder)
    return sorted((folder / "usage").iterdir()), (folder / "registry.jsonl").read_bytes(), truth


def enqueue(books: Books, data: bytes, name: str = "a.usage.gz", now: int = NOW) -> str:
    return evidence.keep(
        books.database, data, name, now, also=lambda c, digest: work_queue.add(c, digest, data, now)
    )


def states(books: Books) -> list[tuple[str, int]]:
    with books.database.read() as connection:
        return [(job.state, job.tries) for job in work_queue.jobs(connection)]


def expire(books: Books) -> None:
    """Let the time of every claim be over."""
    with books.database.write() as connection:
        connection.execute(sa.update(db.queue).where(db.queue.c.until.is_not(None)).values(until=1))


def worker(books: Books, told: list[Any] | None = None, now: int = NOW, **more: Any) -> Worker:
    heard = [] if told is None else told
    return Worker(books.database, heard.append, lambda: now, sleep=lambda _s: None, **more)


# --- claims -----------------------------------------------------------------------------------------


def test_a_claim_takes_the_files_of_one_device_in_log_order(books: Books) -> None:
    one, two = Device(number=1).work(30), Device(number=2).work(30)
    late = enqueue(books, one.export(20), now=NOW)
    other = enqueue(books, two.export(), now=NOW + 1)
    early = enqueue(books, one.export(0, 20), now=NOW + 2)
    assert work_queue.claim(books.database, "a") == [early, late]
    assert work_queue.claim(books.database, "b") == [other]
    assert not work_queue.claim(books.database, "c")
    more = enqueue(books, one.export(0, 10), now=NOW + 3)
    assert not work_queue.claim(books.database, "c")  # somebody has that device
    work_queue.done(books.database, early), work_queue.done(books.database, late)
    assert work_queue.claim(books.database, "c") == [more]


def test_files_that_name_nobody_are_taken_alone(books: Books) -> None:
    digests = {enqueue(books, data, now=NOW) for data in (b"a", b"b")}
    first, second = work_queue.claim(books.database, "a"), work_queue.claim(books.database, "b")
    assert len(first) == len(second) == 1 and {*first, *second} == digests


def test_claims_at_the_same_time_share_the_devices(books: Books) -> None:
    devices = [Device(number=number).work(4) for number in range(8)]
    for device in devices:
        enqueue(books, device.export(0, 2)), enqueue(books, device.export(2))
    found: list[Any] = []
    ready = threading.Barrier(4)

    def take(name: str) -> None:
        ready.wait()
        while digests := work_queue.claim(books.database, name):
            found.append(digests)

    threads = [threading.Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, found)) == [2] * 8
    assert len({digest for digests in found for digest in digests}) == 16


def test_a_claim_that_ran_out_is_given_to_another(books: Books) -> None:
    digest = enqueue(books, b"a")
    assert work_queue.claim(books.database, "a") == [digest]
    assert work_queue.begin(books.database, "a", digest)
    assert states(books) == [("working", 1)]
    expire(books)
    assert states(books) == [("waiting", 1)]
    assert work_queue.claim(books.database, "b") == [digest]
    assert not work_queue.begin(books.database, "a", digest)  # it is not a's any more
    assert work_queue.begin(books.database, "b", digest)


def test_a_file_that_kills_its_workers_is_given_up_and_seen(books: Books) -> None:
    digest = enqueue(books, b"a")
    for number in range(work_queue.TRIES):
        assert work_queue.claim(books.database, str(number)) == [digest]
        assert work_queue.begin(books.database, str(number), digest)
        expire(books)
    assert not work_queue.claim(books.database, "next")
    with books.database.read() as connection:
        (job,) = work_queue.jobs(connection)
        assert (job.state, job.detail) == ("failed", "its worker died, 5 times")
        assert work_queue.pending(connection) == 0
    assert work_queue.retry(books.database) == 1
    assert work_queue.claim(books.database, "next") == [digest]


# --- workers ----------------------------------------------------------------------------------------


def test_workers_share_a_fleet(books: Books, made: tuple[list[Path], bytes, fleet.Truth]) -> None:
    paths, registry, truth = made
    oracle.learn(books.database, registry)
    for path in paths:
        enqueue(books, path.read_bytes(), path.name)
    told: list[Any] = []
    threads = [
        threading.Thread(target=worker(books, told, fleet.NOW).run, args=(), kwargs={"once": True})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(one, Outcome) for one in told)
    assert oracle.wrong(books.database, truth) == [] and states(books) == []
    assert reconcile(books.database, fleet.NOW).ok


def test_a_file_that_cannot_be_decided_stops_no_other(
    books: Books, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device().work(20)
    books.learn(device)
    bad, good = enqueue(books, b"bad", "bad"), enqueue(books, device.export(), "good")
    resume = ingest.resume

    def fail(database: db.Database, digest: str, now: int) -> list[Outcome]:
        if digest == bad:
            raise ZeroDivisionError("as told")
        return resume(database, digest, now)

    monkeypatch.setattr(ingest, "resume", fail)
    told: list[Any] = []
    runs = worker(books, told)
    monkeypatch.setattr(runs, "sleep", lambda _s: expire(books))
    runs.run(once=True)
    errors = [one.message for one in told if isinstance(one, SealpackError)]
    assert len(errors) == work_queue.TRIES
    assert errors[0] == f"file {bad[:16]}: ZeroDivisionError: as told; it is tried again"
    assert errors[-1].endswith("it is not tried again")
    assert [(o.name, o.code) for o in told if isinstance(o, Outcome)] == [("good", "OK")]
    assert states(books) == [("failed", 5)] and good != bad
    assert run(make_cli(), ["settle", "--db", books.address, "queue"]) == 5
    assert capsys.readouterr().out == "failed   bad: INTERNAL: ZeroDivisionError: as told\n"
    assert any("waits for nobody" in line for line in reconcile(books.database, NOW).waiting)
    monkeypatch.undo()
    assert run(make_cli(), ["settle", "--db", books.address, "queue", "--retry", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["retried"] == 1
    worker(books).run(once=True)
    assert states(books) == [] and books.codes() == ["OK", "R301"]


def test_trouble_on_this_side_is_no_files_fault(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device().work(20)
    enqueue(books, device.export())
    with pytest.raises(SealpackError, match="TRUST_UNPINNED"):
        worker(books).run(once=True)
    assert states(books) == [("waiting", 0)]
    told: list[Any] = []
    stopped: list[bool] = []
    waits = iter([lambda: books.learn(device), lambda: stopped.append(True)])
    patient = worker(books, told, stop=lambda: bool(stopped))
    monkeypatch.setattr(patient, "sleep", lambda _s: next(waits)())
    patient.run()
    assert [getattr(one, "code", None) for one in told] == ["TRUST_UNPINNED", "OK"]
    assert states(books) == []


def test_a_worker_that_is_told_to_stop_gives_back_what_it_has(books: Books) -> None:
    device = Device().work(20)
    books.learn(device)
    for start in range(0, 20, 5):
        enqueue(books, device.export(start, start + 5))
    told: list[Any] = []
    worker(books, told, stop=lambda: len(told) > 0).run()
    assert len(told) == 1
    assert states(books) == [("waiting", 0)] * 3


# --- processes --------------------------------------------------------------------------------------


def settle(books: Books, *arguments: str) -> subprocess.Popen[str]:
    main = "import sys; from sealpack.verifier.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "settle", "--db", books.address, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_verb_works_the_queue_off(books: Books) -> None:
    books.learn()
    names = {f"{number}.usage.gz" for number in range(20)}
    for name in names:
        enqueue(books, name.encode(), name)
    process = settle(books, "work", "--workers", "2", "--once", "--format", "json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and not err
    told = [json.loads(line) for line in out.splitlines()]
    assert {(one["file"], one["code"]) for one in told} == {(name, "R301") for name in names}
    assert len(told) == 20 and states(books) == []


def test_the_verb_tells_what_is_wrong_here(books: Books) -> None:
    enqueue(books, Device().use().export())
    process = settle(books, "work", "--workers", "2", "--once")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 4 and "error[TRUST_UNPINNED]" in err
    assert states(books) == [("waiting", 0)]


# Workers whose clock stands where the fleet's does.
WORK = """
import sys
from sealpack.settlement.db import Database
from sealpack.settlement.queue_worker import Worker, run_processes, until_told

def life(address, parent, once):
    with until_told(parent) as stopped, Database.open(address) as database:
        Worker(database, print, lambda: int(sys.argv[2]), stopped, lease_s=2).run(once=once)

if __name__ == "__main__":
    sys.exit(run_processes(life, sys.argv[1], int(sys.argv[3]), once=False))
"""


@contextmanager
def working(books: Books, count: int) -> Iterator[subprocess.Popen[str]]:
    """So many worker processes."""
    script = books.folder / "work.py"
    script.write_text(WORK)
    process = subprocess.Popen(
        [sys.executable, script, books.address, str(fleet.NOW), str(count)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def children(process: subprocess.Popen[str]) -> list[int]:
    command = ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(process.pid)]
    found = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split(None, 1) for line in found.stdout.splitlines()]
    return [int(pid) for pid, args in lines if "spawn_main" in args]


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_is_killed_is_started_anew_and_all_stop_when_told(
    books: Books, made: tuple[list[Path], bytes, fleet.Truth]
) -> None:
    paths, registry, truth = made
    oracle.learn(books.database, registry)
    with working(books, 2) as process:
        until(lambda: len(children(process)) == 2)
        (victim, _) = children(process)
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in (now := children(process)) and len(now) == 2)
        for path in paths:
            enqueue(books, path.read_bytes(), path.name)
        until(lambda: not states(books))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert oracle.wrong(books.database, truth) == []


def test_workers_do_not_outlive_the_process_that_started_them(books: Books) -> None:
    with working(books, 2) as process:
        until(lambda: len(children(process)) == 2)
        mine = children(process)
        process.kill()
        process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in mine))


# --- the service ------------------------------------------------------------------------------------


@pytest.fixture
def client(books: Books) -> Iterator[Callable[..., Any]]:
    """Calls a service that only keeps uploads, as a device."""
    service = Service(books.database, SIGNERS, clock=lambda: NOW, queue=True)
    http = TestClient(make_app(service), raise_server_exceptions=False)
    token = make_token(books.database, "device")

    def call(method: str, path: str, status: int, **more: Any) -> Any:
        answer = http.request(method, path, headers={"Authorization": f"Bearer {token}"}, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    yield call


def test_uploads_are_kept_and_decided_later(books: Books, client: Callable[..., Any]) -> None:
    device = Device().use(3)
    books.learn(device)
    data = device.export()
    digest = hashlib.sha256(data).hexdigest()
    first = client("POST", "/v1/files?name=a.usage.gz", 202, content=data)
    (told,) = first["files"]
    assert told == {
        "file": "a.usage.gz", "sha256": digest, "received_at": NOW, "state": "waiting",
        "origin": device.origin,
    }  # fmt: skip
    jsonschema.validate(told, openapi.SCHEMAS["File"])
    assert client("GET", f"/v1/files/{digest}", 200) == told
    assert client("POST", "/v1/files", 202, content=data) == first
    assert not books.rows(db.logs) and states(books) == [("waiting", 0)]
    worker(books).run(once=True)
    decided = client("GET", f"/v1/files/{digest}", 200)
    assert (decided["code"], "state" in decided) == ("OK", False)
    assert client("POST", "/v1/files", 200, content=data)["files"] == [decided]
    assert states(books) == []


def test_what_is_held_is_judged_again_when_it_comes_again(books: Books, client: Callable[..., Any]) -> None:
    device = Device().use(3)
    data = device.export()
    books.learn()
    client("POST", "/v1/files", 202, content=data)
    worker(books).run(once=True)
    assert books.codes() == ["H250"]
    books.learn(device)
    (told,) = client("POST", "/v1/files", 202, content=data)["files"]
    assert (told["code"], told["state"]) == ("H250", "waiting")
    worker(books).run(once=True)
    assert books.codes() == ["OK"]


def test_what_an_earlier_process_kept_is_queued_at_the_start(books: Books) -> None:
    device = Device().use(3)
    books.learn(device)
    evidence.keep(books.database, device.export(), "a", NOW)
    Service(books.database, queue=True, clock=lambda: NOW).finish()
    assert states(books) == [("waiting", 0)]
    worker(books).run(once=True)
    assert books.codes() == ["OK"]
