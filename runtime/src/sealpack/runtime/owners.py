"""Who is alive: one locked file per running runtime.

The kernel drops the lock when the process ends, however it ends, so a reservation whose owner's file
can be locked by someone else belongs to nobody and is settled as aborted. A file is named
`<process>.<random>.<license id>.lock`, so that the processes of one license can be counted.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from functools import cache
from pathlib import Path

from sealpack.runtime.home import Home
from sealpack.runtime.state import storage_errors

_SUFFIX = ".lock"


class Owner:
    """This runtime's lock file, held from creation to :meth:`release`."""

    def __init__(self, home: Home, license_id: str) -> None:
        self._pid = os.getpid()
        self._path, self._descriptor = _create(home, f"{_process(self._pid)}.{{}}.{license_id}{_SUFFIX}")

    @property
    def name(self) -> str:
        """The name reservations carry."""
        return self._path.name

    def release(self) -> None:
        """Remove the file and drop the lock; nothing of this owner may be open any more."""
        if self._descriptor < 0:
            return
        if os.getpid() == self._pid:  # a fork shares the lock, and the file is its parent's
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1


@cache
def _process(pid: int) -> str:
    """A name for this process: its number alone repeats, in time and between containers."""
    return f"{pid}-{secrets.token_hex(4)}"


def _create(home: Home, pattern: str) -> tuple[Path, int]:
    with storage_errors(home.path):
        while True:
            path = home.owners / pattern.format(secrets.token_hex(4))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Waits for a sweeper that looks at the file just now, and may have taken it for a dead one's.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)


def alive(home: Home, name: str) -> bool:
    """Whether the owner of that name still runs; a dead one's file is removed."""
    path = home.owners / name
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)


def processes(home: Home, license_id: str) -> int:
    """How many processes run models under a license; the files of owners that are gone are removed."""
    found = set()
    with storage_errors(home.path):
        for path in home.owners.glob(f"*{_SUFFIX}"):
            process, _, rest = path.name.removesuffix(_SUFFIX).partition(".")
            if alive(home, path.name) and rest.partition(".")[2] == license_id:
                found.add(process)
    return len(found)
