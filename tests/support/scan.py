"""Looks for plaintext wherever it could be read: files below folders, and what processes have open."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_GET_SEALS = 1034  # F_GET_SEALS
_SEALED = 0x0002 | 0x0004 | 0x0008  # no shrinking, growing, writing


def places(folders: list[Path], pids: list[int]) -> Iterator[str]:
    """Every regular file below the folders, and every open descriptor's file that is no sealed memfd."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path)
    for pid in pids:
        with contextlib.suppress(OSError):
            yield from map(str, Path(f"/proc/{pid}/fd").iterdir())


def found(
    markers: list[bytes], folders: list[Path], pids: list[int], *, memory_files: bool = True
) -> set[str]:
    """The places where one of the markers stands; without `memory_files`, memfds do not count at all."""
    seen = set()
    for place in places(folders, pids):
        if not memory_files and _is_memory(place):
            continue
        content = _content(place)
        if any(marker in content for marker in markers):
            seen.add(place)
    return seen


def _is_memory(place: str) -> bool:
    with contextlib.suppress(OSError):
        return place.startswith("/proc/") and str(Path(place).readlink()).startswith("/memfd:")
    return False


def _content(place: str) -> bytes:
    """What can be read there; nothing when it is gone by now, no file, or a sealed memfd."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        with contextlib.suppress(OSError):
            if fcntl.fcntl(descriptor, _GET_SEALS) & _SEALED == _SEALED:
                return b""
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(0)
            return file.read()
    except OSError:
        return b""
    finally:
        os.close(descriptor)
