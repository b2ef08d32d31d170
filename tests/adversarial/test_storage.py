"""The disk and the files of the state: full, read-only, taken away, replaced, or never files at all."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.acts import refused
from support.site import INPUT, Site, make_license

from adversarial.tools import child, dump, line, open_runtime, say, statuses
from sealpack.format.errors import SealpackError
from sealpack.format.license import Quota
from sealpack.runtime import home, state
from sealpack.runtime.home import open_home
from sealpack.runtime.state import State

CALLS = make_license(quota=(Quota("calls", "term", "device", 3, None, "deny"),))
# Without the right to mount, a limit on the size of files does what a full disk does, under its own code.
MAY_MOUNT = os.geteuid() == 0 and shutil.which("mount") is not None


# --- a full disk -------------------------------------------------------------------------------------


class SmallDisk:
    """A disk of 8 MiB for the state, which can be filled to the last byte and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = "STORE_FULL" if MAY_MOUNT else "STORE_IO"
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if MAY_MOUNT:
            command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)]
            subprocess.run(command, check=True)

    def fill(self) -> None:
        if not MAY_MOUNT:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.folder / "filler").unlink(missing_ok=True)

    def read_only(self, yes: bool) -> None:
        if MAY_MOUNT:
            options = f"remount,{'ro' if yes else 'rw'}"
            subprocess.run(["mount", "-o", options, str(self.folder)], check=True)
            return
        for path in self.folder.glob("state.db*"):
            path.chmod(0o400 if yes else 0o600)
        self.folder.chmod(0o500 if yes else 0o700)

    def close(self) -> None:
        self.free()
        if MAY_MOUNT:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(site: Site) -> Iterator[SmallDisk]:
    site.state_dir.mkdir(mode=0o700)
    made = SmallDisk(site.state_dir)
    yield made
    made.close()


def test_a_disk_that_is_full_when_a_call_is_reserved(site: Site, disk: SmallDisk) -> None:
    """Refused before anything is computed, costs nothing, and goes on when there is room."""
    site.ready()
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        disk.fill()
        answered = 1
        with pytest.raises(SealpackError) as caught:
            for _ in range(500):
                runtime.infer(INPUT)
                answered += 1
        assert caught.value.code == disk.code
        disk.free()
        runtime.infer(INPUT)
    found = statuses(site)
    assert found.count("ok") == answered + 1
    assert found.count("aborted") <= 1, "only a call whose receipt did not fit"


def test_a_disk_that_is_full_when_a_call_is_settled(site: Site, disk: SmallDisk) -> None:
    """No answer without its receipt; what was computed is billed as aborted, once there is room."""
    site.pin()
    site.install("talk")
    site.activate()
    with open_runtime(site, "talk") as runtime:
        runtime.generate("the", max_tokens=2)

        def fill(_: str) -> None:
            disk.fill()

        caught = []
        for _ in range(100):  # the first ones may fit into what was allocated already
            try:
                runtime.generate("the", max_tokens=2, on_text=fill)
            except SealpackError as error:
                caught.append(error.code)
                disk.free()
                break
            disk.free()
        assert caught == [disk.code]
        runtime.generate("the", max_tokens=2)
    found = statuses(site)
    assert found.count("aborted") == 1, "what was computed is not free"
    assert found[-1] == "ok"


def test_a_disk_that_is_full_when_documents_come(site: Site, disk: SmallDisk) -> None:
    site.pin()
    parcel = site.reply(site.request(), make_license())
    before = dump(site)
    disk.fill()
    with pytest.raises(SealpackError) as caught:
        site.take(parcel)
    assert caught.value.code == disk.code
    disk.free()
    assert dump(site) == before
    assert site.take(parcel).count == 3


def test_a_disk_that_became_read_only(site: Site, disk: SmallDisk) -> None:
    site.ready()
    disk.read_only(True)
    refused("STORE_READONLY", lambda: open_runtime(site))
    disk.read_only(False)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    assert statuses(site) == ["ok"]


# --- no directory, no file ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pipe", "file", "dangling link", "link to a folder"])
def test_a_state_that_is_no_directory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state"
    if what == "pipe":
        os.mkfifo(path, 0o700)
    elif what == "file":
        path.touch(0o700)
    else:
        path.symlink_to(tmp_path / "elsewhere")
        if what == "link to a folder":
            (tmp_path / "elsewhere").mkdir(0o700)
    refused("STATE_UNSAFE", lambda: open_home(path))


FILES = ("state.db", "state.db-wal", "state.db-shm", "device.key", "device.hpke", "secret")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["pipe", "link", "dangling link", "folder"])
def test_a_file_of_the_state_that_is_none(site: Site, name: str, what: str) -> None:
    """A pipe would be waited for without end, and a link may lead to a network share."""
    site.pin()
    site.request()
    path, elsewhere = site.home.path / name, site.folder / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    elif what == "link":
        elsewhere.touch()
    if what == "pipe":
        os.mkfifo(path, 0o600)
    elif what == "folder":
        path.mkdir()
    else:
        if what == "dangling link":
            elsewhere.unlink(missing_ok=True)
        path.symlink_to(elsewhere)
    caught: list[str] = []

    def attempt() -> None:
        try:
            open_runtime(site)
        except SealpackError as error:
            caught.append(error.code)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert caught == ["STATE_UNSAFE"]


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"])
def test_a_mount_of_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    table = tmp_path / "mountinfo"
    share = tmp_path / "my share"
    escaped = str(share).replace(" ", "\\040")
    local, remote = "27 1 254:0 / / rw - ext4 /dev/vda rw", f"40 27 0:50 / {escaped} rw - {kind} server:/x rw"
    table.write_text(f"{local}\n{remote}\n")
    monkeypatch.setattr(home, "_MOUNTS", table)
    assert kind in refused("STATE_UNSAFE", lambda: open_home(share / "state")).message
    open_home(tmp_path / "local")


# --- files taken away --------------------------------------------------------------------------------

SERVE = f"""
runtime = open('acme/tiny')
print('ready', flush=True)
for _ in sys.stdin:
    try:
        runtime.infer({INPUT!r})
        print('ok', flush=True)
    except SealpackError as error:
        print(error.code, flush=True)
"""


@pytest.mark.parametrize("gone", [("-wal",), ("-shm",), ("-wal", "-shm"), ("", "-wal", "-shm")], ids=str)
def test_files_deleted_under_a_running_process_end_its_calls(site: Site, gone: tuple[str, ...]) -> None:
    """It would go on in a log that nobody else sees, and sell the same units as its successor."""
    site.ready(CALLS)
    with child(site, SERVE) as process:
        assert line(process) == "ready"
        say(process, "call")
        assert line(process) == "ok"
        for end in gone:
            Path(f"{site.home.database}{end}").unlink()
        for _ in range(4):
            say(process, "call")
            assert line(process) == "STATE_TAMPERED"


@pytest.mark.parametrize("name", ["state.db", "state.db-wal"])
def test_a_file_replaced_under_a_running_process_ends_its_calls(site: Site, name: str) -> None:
    site.ready(CALLS)
    path = site.home.path / name
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        shutil.copy(path, site.folder / "copy")
        (site.folder / "copy").replace(path)
        refused("STATE_TAMPERED", lambda: runtime.infer(INPUT))


def test_a_state_moved_away_under_a_running_process_ends_its_calls(site: Site) -> None:
    site.ready(CALLS)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        site.state_dir.rename(site.folder / "moved")
        refused("STATE_TAMPERED", lambda: runtime.infer(INPUT))


def test_the_index_of_the_log_deleted_while_stopped_is_made_again(site: Site) -> None:
    """-shm holds nothing that counts: after a kill it is made from -wal, and every receipt is there."""
    site.ready(CALLS)
    with child(site, SERVE) as process:
        assert line(process) == "ready"
        for _ in range(2):
            say(process, "call")
            assert line(process) == "ok"
        process.kill()
        process.wait()
        assert Path(f"{site.home.database}-wal").stat().st_size > 0
        Path(f"{site.home.database}-shm").unlink()
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
    assert statuses(site) == ["ok"] * 3


def killed_without_its_log(site: Site) -> None:
    """One call is answered, then the process is killed and -wal, which alone holds that call, deleted."""
    with child(site, SERVE) as process:
        assert line(process) == "ready"
        say(process, "call")
        assert line(process) == "ok"
        process.kill()
        process.wait()
        Path(f"{site.home.database}-wal").unlink()


def test_the_log_deleted_after_a_kill_is_a_restored_database(site: Site) -> None:
    """The call is gone from the database, but not from the mark: no unit is sold a second time."""
    site.ready(CALLS)
    killed_without_its_log(site)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))


def test_the_log_deleted_after_a_second_kill_is_a_stop(site: Site) -> None:
    site.ready(CALLS)
    for _ in range(2):
        killed_without_its_log(site)
    refused("STATE_ROLLED_BACK", lambda: open_runtime(site))


def test_after_a_clean_stop_there_is_no_log_to_delete(site: Site) -> None:
    site.ready(CALLS)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    assert not Path(f"{site.home.database}-wal").exists()
    assert statuses(site) == ["ok"]


@pytest.mark.parametrize("damage", ["junk", "zeros in the middle", "cut in half", "empty page one"])
def test_a_damaged_database_is_refused_not_repaired(site: Site, damage: str) -> None:
    site.ready(CALLS)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    path = site.home.database
    data = bytearray(path.read_bytes())
    if damage == "junk":
        data[:] = b"junk" * (len(data) // 4)
    elif damage == "zeros in the middle":
        data[4096 : len(data) // 2] = bytes(len(data) // 2 - 4096)
    elif damage == "cut in half":
        del data[len(data) // 2 :]
    else:
        data[100:4096] = bytes(3996)
    path.write_bytes(data)
    with pytest.raises(SealpackError) as caught:
        open_runtime(site)
    assert caught.value.code in ("STORE_CORRUPT", "STATE_TAMPERED")


# --- other versions ----------------------------------------------------------------------------------


def test_an_older_runtime_leaves_a_newer_state_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 0.3.0 knew schema 2 and this rule: what it does not know it does not touch."""
    site.ready(CALLS)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    before = site.home.database.read_bytes()
    for known in (1, 2):
        monkeypatch.setattr(state, "VERSION", known)
        error = refused("STATE_NEWER", lambda: open_runtime(site))
        assert error.remedy == "update sealpack"
    monkeypatch.undo()
    assert site.home.database.read_bytes() == before
    assert statuses(site) == ["ok"]


def test_a_version_number_set_back_by_hand_gives_no_second_quota(site: Site) -> None:
    """Who wants an older schema's rules must say so in the file: what was used stays used all the same."""
    site.ready(CALLS)
    with open_runtime(site) as runtime:
        for _ in range(3):
            runtime.infer(INPUT)
    for version in (0, 1, 2):
        db = sqlite3.connect(site.home.database)
        db.execute(f"PRAGMA user_version={version}")
        db.close()
        with pytest.raises(SealpackError), open_runtime(site) as runtime:
            runtime.infer(INPUT)
    db = sqlite3.connect(site.home.database)
    db.execute(f"PRAGMA user_version={state.VERSION}")
    db.close()
    with open_runtime(site) as runtime:
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
    assert statuses(site) == ["ok"] * 3


def test_a_state_of_nobody_is_one_that_can_be_used(tmp_path: Path) -> None:
    """The control: none of the refusals above is one of an ordinary new directory."""
    with State(open_home(tmp_path / "state")) as opened, opened.write() as db:
        assert db.execute("SELECT count(*) FROM documents").fetchone() == (0,)
