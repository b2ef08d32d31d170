"""Files: reading with a bound, writing whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealpack.format import files
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, atomic_writer, io_error, read_bounded


def code_of(call: object, *arguments: object, **more: object) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments, **more)  # type: ignore[operator]
    return caught.value.code


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_read_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    assert code_of(read_bounded, tmp_path / "a", 4) == "JSON_LIMIT"
    assert code_of(read_bounded, tmp_path / "b", 4) == "FILE_MISSING"
    assert code_of(read_bounded, tmp_path, 4) == "IO_ERROR"


def test_write_leaves_one_file_with_its_mode(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    atomic_write(tmp_path / "a", b"new", mode=0o600)
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fault", [RuntimeError("x"), KeyboardInterrupt(), SealpackError("USAGE", "x")])
def test_a_failure_in_between_leaves_nothing(tmp_path: Path, fault: BaseException) -> None:
    atomic_write(tmp_path / "a", b"old")

    def write() -> None:
        with atomic_writer(tmp_path / "a") as file:
            file.write(b"half")
            raise fault

    with pytest.raises(type(fault)):
        write()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_nothing_is_replaced_unless_told(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old", replace=False)
    assert code_of(atomic_write, tmp_path / "a", b"new", replace=False) == "OUTPUT_EXISTS"

    def race() -> None:
        with atomic_writer(tmp_path / "b", replace=False) as file:
            file.write(b"mine")
            (tmp_path / "b").write_bytes(b"theirs")

    assert code_of(race) == "OUTPUT_EXISTS"
    assert (tmp_path / "b").read_bytes() == b"theirs"
    assert names(tmp_path) == ["a", "b"]


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """Somebody who wants no output says `--out /dev/null --force`, and may be root."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SealpackError, match=r"IO_ERROR.*pipe is a device or a pipe"):
        atomic_write(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_of_many_writers_exactly_one_wins(tmp_path: Path) -> None:
    results: list[str] = []

    def write(text: str) -> None:
        try:
            atomic_write(tmp_path / "a", text.encode(), replace=False)
            results.append(text)
        except SealpackError as error:
            results.append(error.code)

    threads = [threading.Thread(target=write, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("OUTPUT_EXISTS") == 7
    assert (tmp_path / "a").read_text() in results
    assert names(tmp_path) == ["a"]


def test_a_stick_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    atomic_write(tmp_path / "a", b"1", replace=False)
    assert (tmp_path / "a").read_bytes() == b"1"
    assert code_of(atomic_write, tmp_path / "a", b"2", replace=False) == "OUTPUT_EXISTS"

    def race() -> None:
        with atomic_writer(tmp_path / "b", replace=False) as file:
            file.write(b"mine")
            (tmp_path / "b").write_bytes(b"theirs")

    assert code_of(race) == "OUTPUT_EXISTS"
    assert (tmp_path / "b").read_bytes() == b"theirs"
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing/a", "FILE_MISSING"),
        ("file/a", "IO_ERROR"),
        ("folder", "IO_ERROR"),
        ("n" * 255, "IO_ERROR"),
    ],
)
def test_places_nobody_can_write_to(tmp_path: Path, path: str, code: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    assert code_of(atomic_write, tmp_path / path, b"x") == code
    assert names(tmp_path) == ["file", "folder"]
    assert names(tmp_path / "folder") == []


def test_a_folder_is_no_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (".", "/", ""):
        assert code_of(atomic_write, path, b"x") == "IO_ERROR"
    assert names(tmp_path) == []


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so as root the refusal is the system call's."""
    folder = tmp_path / "ro"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:

        def refuse(*_: object) -> int:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(files.os, "open", refuse)
    assert code_of(atomic_write, folder / "a", b"x") == "STORE_READONLY"
    monkeypatch.undo()
    assert names(folder) == []


@pytest.mark.parametrize(
    ("number", "doing", "code"),
    [
        (errno.ENOSPC, "write", "STORE_FULL"),
        (errno.EDQUOT, "write", "STORE_FULL"),
        (errno.EROFS, "write", "STORE_READONLY"),
        (errno.EACCES, "read", "IO_ERROR"),
        (errno.EIO, "read", "IO_ERROR"),
    ],
)
def test_what_the_system_says_becomes_a_code(number: int, doing: str, code: str) -> None:
    error = io_error(OSError(number, os.strerror(number)), "/x", doing)
    assert error.code == code
    assert error.message == f"cannot {doing} /x: {os.strerror(number).lower()}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where mounting one is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here (package mount, as root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file_and_no_half_one(small_disk: Path) -> None:
    atomic_write(small_disk / "a", b"old")
    assert code_of(atomic_write, small_disk / "a", bytes(200_000)) == "STORE_FULL"
    assert names(small_disk) == ["a"]
    assert (small_disk / "a").read_bytes() == b"old"
    atomic_write(small_disk / "b", bytes(1000))
    assert names(small_disk) == ["a", "b"]


def test_a_disk_mounted_read_only(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert code_of(atomic_write, small_disk / "a", b"x") == "STORE_READONLY"
    assert names(small_disk) == []
