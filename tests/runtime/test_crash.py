"""Kills, full disks, read-only disks, and processes that race: no receipt is lost, no unit sold twice."""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.site import INPUT, Site, make_license

import sealpack.runtime
from sealpack.format.errors import SealpackError
from sealpack.format.license import Quota
from sealpack.runtime import api, holds, receipts
from sealpack.runtime.home import Home, file_system, open_home
from sealpack.runtime.state import State

NOBODY = 65534


Start = Callable[[Site, str], subprocess.Popen[str]]


@pytest.fixture
def child() -> Iterator[Start]:
    """Run Python code beside us, with `open(name)` for the site's bundles; gone when the test is."""
    started: list[subprocess.Popen[str]] = []

    def start(site: Site, code: str) -> subprocess.Popen[str]:
        prelude = (
            "import sys, sealpack.runtime as s\n"
            "from sealpack.format.errors import SealpackError\n"
            f"def open(name): return s.open(name, state={str(site.state_dir)!r}, threads=1)\n"
        )
        command = [sys.executable, "-c", prelude + code]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> str:
    """SIGKILL, and what it had printed."""
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    return out


def statuses(site: Site) -> list[str]:
    """The statuses of all usage records, in order."""
    with site.state() as state, state.read() as db:
        found = [r for r in receipts.recent(db, 1, 10_000) if r.kind == "u"]
    return [record.body["status"] for record in found]


def check(site: Site) -> None:
    """The log is signed, complete and consistent, and nothing is reserved any more."""
    with site.state() as state:
        assert receipts.verify_log(state, 1) == []
        with state.read() as db:
            assert db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
            assert db.execute("SELECT sum(reserved) FROM counters").fetchone() == (0,)


def test_kill_during_a_stream_bills_what_was_made_durable(
    site: Site, child: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ready()
    site.install("talk")
    code = (
        "import time, sealpack.runtime.api as api\n"
        "api.PROGRESS_TOKENS = 4\n"
        "def slow(piece):\n"
        "    print('token', flush=True); time.sleep(0.01 if seen.append(1) or len(seen) < 10 else 60)\n"
        "seen = []\n"
        "open('acme/talk').generate('the', max_tokens=40, on_text=slow)\n"
    )
    process = child(site, code)
    assert [line(process) for _ in range(10)] == ["token"] * 10
    kill(process)
    monkeypatch.setattr(holds, "PROGRESS_TOKENS", 4)
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
    assert statuses(site) == ["aborted", "ok"]
    with site.state() as state, state.read() as db:
        record = next(r for r in receipts.recent(db, 1, 100) if r.kind == "u")
    meters = dict(record.body["meters"])
    assert meters.pop("ms") >= 70, "the eighth token was made durable after seven pauses of 10 ms"
    assert meters == {"calls": 1, "tok_in": 2, "tok_out": 12, "items": 1}
    check(site)


def test_kill_at_any_moment_loses_no_answered_call(site: Site, child: Start) -> None:
    """Each round a process answers calls until it is killed; every answer it gave has its receipt."""
    site.ready()
    answered = rounds = 0
    for delay in (0.0, 0.013, 0.037, 0.1):
        process = child(
            site,
            "runtime = open('acme/tiny')\n"
            "while True:\n"
            f"    runtime.infer({INPUT!r}); print('x', flush=True)\n",
        )
        assert line(process) == "x"
        time.sleep(delay)
        answered += 1 + kill(process).count("x")
        rounds += 1
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
    found = statuses(site)
    assert answered <= found.count("ok") - 1 <= answered + rounds, "an answer without receipt, or unexplained"
    assert found.count("aborted") <= rounds
    check(site)


LOAD = f"""
import os, random, signal, threading
import sealpack.runtime.engines.onnx, sealpack.runtime.engines.llama
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
def work(tiny, talk, chance):
    while True:
        if chance.random() < 0.5:
            meters = tiny.infer({INPUT!r}).meters
        else:
            meters = talk.generate('the', max_tokens=chance.randint(1, 40)).meters
        os.write(out, f"{{meters['calls']}} {{meters['tok_out']}}\\n".encode())
for seed in sys.stdin:  # imported once, forked for every process that is to be killed
    pid = os.fork()
    if pid == 0:
        runtimes = open('acme/tiny'), open('acme/talk')
        for n in range(2):
            chance = random.Random(f"{{seed}} {{n}}")
            threading.Thread(target=work, args=(*runtimes, chance), daemon=True).start()
        threading.Event().wait()
    print(pid, flush=True)
"""


def random_kills(site: Site, child: Start, kills: int, seed: int) -> None:
    """Processes under load, killed at random moments; then every answer must have its receipt.

    Two processes of two threads each run side by side, and whichever is killed is started again.
    """
    chance = random.Random(seed)
    site.ready(make_license(quota=(Quota("calls", "term", "device", 10**6, None, "deny"),)))
    site.install("talk")
    told = site.folder / "answers"
    told.touch()
    nursery = child(site, LOAD.replace("sys.argv[1]", repr(str(told))))

    def start(number: int) -> int:
        assert nursery.stdin is not None
        nursery.stdin.write(f"{number}\n")
        nursery.stdin.flush()
        return int(line(nursery))

    running = [start(-1), start(-2)]
    for number in range(kills):
        if number % 2:  # every other kill comes while calls are answered, however slow the machine is
            _wait_to_grow(told)
        time.sleep(chance.random() ** 2 * 0.15)
        os.kill(running.pop(0), signal.SIGKILL)
        running.append(start(number))
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    nursery.communicate()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
    check(site)
    _compare(site, told, kills + 2)


def _wait_to_grow(file: Path) -> None:
    size, deadline = file.stat().st_size, time.monotonic() + 60
    while file.stat().st_size == size:
        assert time.monotonic() < deadline, "no call is answered any more"
        time.sleep(0.002)


def _compare(site: Site, told: Path, deaths: int) -> None:
    """The answers that were told against the receipts."""
    rows = [text.split() for text in told.read_text().splitlines()]
    answers = collections.Counter((int(calls), int(tokens)) for calls, tokens in rows)
    with site.state() as state, state.read() as db:
        found = [r.body for r in receipts.recent(db, 1, 1_000_000) if r.kind == "u"]
    billed = collections.Counter(
        (body["meters"]["calls"], body["meters"].get("tok_out", 0))
        for body in found
        if body["status"] == "ok"
    )
    assert answers.total() >= deaths // 2 - 1
    assert not answers - billed, "an answer without its receipt"
    # In each of the two threads of a killed process one call may run, or be stored and not yet told.
    aborted = len(found) - billed.total()
    assert {body["status"] for body in found} == {"ok", "aborted"}
    assert 0 < aborted <= 2 * deaths
    assert billed.total() - answers.total() <= 2 * deaths - aborted + 1


def test_random_kills_under_load(site: Site, child: Start) -> None:
    random_kills(site, child, 58, seed=6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1000, 2000, 3000, 4000])
def test_many_random_kills_under_load(site: Site, child: Start, seed: int) -> None:
    random_kills(site, child, 1000, seed)


def test_two_processes_racing_for_the_last_units_get_exactly_what_is_left(site: Site, child: Start) -> None:
    site.ready(make_license(quota=(Quota("calls", "term", "device", 9, None, "deny"),)))
    code = (
        "runtime = open('acme/tiny'); print('ready', flush=True); sys.stdin.readline()\n"
        "got = 0\n"
        "for _ in range(9):\n"
        "    try:\n"
        f"        runtime.infer({INPUT!r}); got += 1\n"
        "    except SealpackError as error:\n"
        "        assert error.code == 'QUOTA_EXCEEDED', error\n"
        "print(got)\n"
    )
    both = [child(site, code) for _ in range(2)]
    assert [line(process) for process in both] == ["ready", "ready"]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    got = [int(process.communicate()[0]) for process in both]
    assert sum(got) == 9
    assert statuses(site) == ["ok"] * 9
    check(site)


def test_a_living_process_keeps_its_reservation(site: Site) -> None:
    site.ready()
    site.install("talk")
    with sealpack.runtime.open("acme/talk", state=site.state_dir) as talking:

        def other_call(_: str) -> bool:
            with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
                runtime.infer(INPUT)
            return False

        talking.generate("the", on_text=other_call)
    assert statuses(site) == ["ok", "cancel"]
    check(site)


def test_a_full_database_refuses_and_goes_on_when_there_is_room(site: Site) -> None:
    site.ready()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
        database = runtime._state._db
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count={pages + 1}")
        with pytest.raises(SealpackError) as caught:
            for _ in range(500):
                runtime.infer(INPUT)
        assert caught.value.code == "STORE_FULL"
        database.execute("PRAGMA max_page_count=1000000")
        runtime.infer(INPUT)
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
    assert statuses(site).count("aborted") <= 1
    check(site)


@pytest.fixture
def nobodys(tmp_path: Path) -> Iterator[Path]:
    """A folder that an unprivileged user can reach (pytest's own is private)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


READ_ONLY = """
import os, sys
from pathlib import Path
from sealpack.format.errors import SealpackError
from sealpack.runtime import anchors, home, state, timekeeper
if os.geteuid() == 0:  # root ignores permission bits
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with state.State(home.open_home(sys.argv[1])) as opened, opened.write() as db:
        timekeeper.observe(db)
except SealpackError as error:
    print(error.code)
"""


@pytest.mark.parametrize("files", ["only the folder", "folder and files"])
def test_a_read_only_state_directory_is_told(nobodys: Path, files: str) -> None:
    folder = nobodys / "state"
    with State(open_home(folder)):
        pass
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    if files == "folder and files":
        for path in folder.glob("state.db*"):
            path.chmod(0o400)
    folder.chmod(0o500)
    ran = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(folder)], capture_output=True, text=True, check=False
    )
    folder.chmod(0o700)
    assert (ran.stdout, ran.stderr) == ("STORE_READONLY\n", "")


def test_a_state_directory_of_somebody_else_is_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_home(tmp_path / "state")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert_unsafe(tmp_path / "state", "belongs to user")


def test_a_link_as_state_directory_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "real")
    assert_unsafe(tmp_path / "state", "is a link")


def test_a_state_directory_that_others_can_write_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    assert_unsafe(tmp_path / "state", "other users")


def test_a_network_file_system_is_unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealpack.runtime.home.file_system", lambda _: "nfs4")
    assert_unsafe(tmp_path / "state", "network file system (nfs4)")


def assert_unsafe(path: Path, said: str) -> None:
    with pytest.raises(SealpackError) as caught:
        open_home(path)
    assert caught.value.code == "STATE_UNSAFE"
    assert said in caught.value.message


def test_the_mount_table_is_read_like_the_kernel_writes_it() -> None:
    table = (
        "27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "40 27 0:50 / /mnt/my\\040share rw - cifs //server/share rw\n"
        "41 27 0:51 / /mnt rw shared:1 - nfs4 server:/x rw\n"
    )
    assert file_system(Path("/usr/x"), table) == "ext4"
    assert file_system(Path("/mnt/my share/state"), table) == "cifs"
    assert file_system(Path("/mnt/other"), table) == "nfs4"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: path.write_bytes(b"junk" * 2000), "STORE_CORRUPT"),
        (lambda path: _set_version(path, 99), "STATE_NEWER"),
    ],
)
def test_a_database_that_is_not_ours_is_told(tmp_path: Path, spoil: object, code: str) -> None:
    home = open_home(tmp_path / "state")
    State(home).close()
    spoil(home.database)  # type: ignore[operator]
    with pytest.raises(SealpackError) as caught:
        State(home)
    assert caught.value.code == code


def _set_version(path: Path, version: int) -> None:
    import sqlite3

    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={version}")
    db.close()


def test_a_database_held_by_another_is_locked(tmp_path: Path) -> None:
    home = open_home(tmp_path / "state")
    with (
        State(home) as first,
        State(home, busy_seconds=0.05) as second,
        first.write(),
        pytest.raises(SealpackError) as caught,
        second.write(),
    ):
        pass
    assert caught.value.code == "STATE_LOCKED"


def test_a_missing_state_is_told_not_made(tmp_path: Path) -> None:
    with pytest.raises(SealpackError) as caught:
        open_home(tmp_path / "state", create=False)
    assert caught.value.code == "STATE_MISSING"
    assert not (tmp_path / "state").exists()


def test_nobody_else_can_read_the_state(site: Site) -> None:
    site.ready()
    home: Home = site.home
    for path in (home.path, *home.path.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_lost_device_key_is_told(site: Site) -> None:
    site.ready()
    site.home.device_key.unlink()
    with pytest.raises(SealpackError) as caught:
        api.open("acme/tiny", state=site.state_dir)
    assert caught.value.code == "DEVICE_KEY_MISSING"
