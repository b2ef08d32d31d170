"""Who is alive: one locked file per running runtime.

The kernel drops the lock when the process ends, however it ends, so a reservation whose owner's file
can be locked by someone else belongs to nobody and is settled as aborted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from sealpack.runtime.home import Home
from sealpack.runtime.state import storage_errors

_SUFFIX = ".lock"


class Owner:
    """This runtime's lock file, held from creation to :meth:`release`."""

    def __init__(self, home: Home) -> None:
        self._path, self._descriptor = _create(home)

    @property
    def name(self) -> str:
        """The name reservations carry."""
        return self._path.name

    def release(self) -> None:
        """Remove the file and drop the lock; nothing of this owner may be open any more."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def _create(home: Home) -> tuple[Path, int]:
    with storage_errors(home.path):
        while True:
            path = home.owners / f"{os.getpid()}-{secrets.token_hex(8)}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between creating and locking, a sweeper may have taken the file for a dead owner's.
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


def count(home: Home) -> int:
    """How many runtimes are alive on this state."""
    return sum(alive(home, path.name) for path in home.owners.glob(f"*{_SUFFIX}"))


def tidy(home: Home) -> None:
    """Remove the files of owners that are gone."""
    count(home)
