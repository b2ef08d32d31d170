"""Who is alive, and what they have begun: one locked file per running runtime.

Source: specs/runtime-state.md, "Calls". The kernel drops the lock when the process ends, however it ends, so
a reservation whose owner's file can be locked by someone else belongs to nobody and is settled. A file is
named `<process>.<random>.<license id>.lock`, so that the processes of one license can be counted.

The file also says what has begun of the calls that were held ahead. It is mapped, not written: that costs
nothing, and what a killed process stored there the kernel still has. A power cut may lose it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sealpack.runtime.home import Home
from sealpack.runtime.state import storage_errors

HELD = ("calls", "tok_in", "tok_out", "items")  # the meters a reservation holds
_SUFFIX = ".lock"
_SLOT = struct.Struct("<4Q")  # one count per meter
_GENERATION = struct.Struct("<Q")
_SLOT_SIZE = _GENERATION.size + _SLOT.size
_SIZE = 2 * _SLOT_SIZE


class Owner:
    """This runtime's lock file, held from creation to :meth:`release`."""

    def __init__(self, home: Home, license_id: str) -> None:
        self.license_id = license_id
        self._pid = os.getpid()
        self._path, self._descriptor = _create(home, f"{_process(self._pid)}.{{}}.{license_id}{_SUFFIX}")
        self._page = mmap.mmap(self._descriptor, _SIZE)
        _open.add(self)

    @property
    def name(self) -> str:
        """The name reservations carry."""
        return self._path.name

    def begin(self, generation: int, meters: Mapping[str, int]) -> None:
        """Say what has begun of the calls held ahead under `generation`.

        Two slots take turns, so that the next generation can be announced before it is committed.
        """
        if self._descriptor < 0:
            return
        place = generation % 2 * _SLOT_SIZE
        _SLOT.pack_into(self._page, place + _GENERATION.size, *(meters.get(meter, 0) for meter in HELD))
        _GENERATION.pack_into(self._page, place, generation)

    def release(self, *, settled: bool = True) -> None:
        """Drop the lock, and remove the file unless this owner still owes something."""
        if self._descriptor < 0:
            return
        if settled and os.getpid() == self._pid:  # a fork shares the lock, and the file is its parent's
            self._path.unlink(missing_ok=True)
        self._drop()

    def _drop(self) -> None:
        self._page.close()
        os.close(self._descriptor)
        self._descriptor = -1
        _open.discard(self)


_open: weakref.WeakSet[Owner] = weakref.WeakSet()


def _in_child() -> None:
    """A child would keep the lock of its parent after that is dead."""
    for owner in list(_open):
        owner._drop()


os.register_at_fork(after_in_child=_in_child)


@cache
def _process(pid: int) -> str:
    """A name for this process: its number alone repeats, in time and between containers."""
    return f"{pid}-{secrets.token_hex(4)}"


def _create(home: Home, pattern: str) -> tuple[Path, int]:
    with storage_errors(home.path):
        while True:
            path = home.owners / pattern.format(secrets.token_hex(4))
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Real blocks, not a hole: a full disk must be told here, not by a signal when it is stored.
                os.posix_fallocate(descriptor, 0, _SIZE)
                # Waits for a sweeper that looks at the file just now, and may have taken it for a dead one's.
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if path.exists():
                    return path, descriptor
            except BaseException:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                raise
            os.close(descriptor)


def alive(home: Home, name: str) -> bool:
    """Whether the owner of that name still runs."""
    with _unless_alive(home, name) as dead:
        return not dead


@contextmanager
def _unless_alive(home: Home, name: str) -> Iterator[bool]:
    """True, with its lock held for the block, when the owner of that name is gone."""
    try:
        descriptor = os.open(home.owners / name, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def begun(home: Home, name: str, generation: int) -> dict[str, int] | None:
    """What a dead owner had begun under `generation`; None when its file does not say."""
    try:
        page = (home.owners / name).read_bytes()
    except OSError:
        return None
    place = generation % 2 * _SLOT_SIZE
    if len(page) < _SIZE or _GENERATION.unpack_from(page, place)[0] != generation:
        return None
    return dict(zip(HELD, _SLOT.unpack_from(page, place + _GENERATION.size), strict=True))


def bury(home: Home, name: str) -> None:
    """Remove the file of an owner that is gone and owes nothing any more; of a living one it is left."""
    with _unless_alive(home, name) as dead:
        if dead:
            (home.owners / name).unlink(missing_ok=True)


def names(home: Home) -> list[str]:
    """Every owner that has a file, also those that are gone."""
    with storage_errors(home.path):
        return [path.name for path in home.owners.glob(f"*{_SUFFIX}")]


def process_of(name: str) -> str:
    """The process that an owner belongs to."""
    return name.partition(".")[0]


def processes(home: Home, license_id: str) -> set[str]:
    """The processes that run models under a license."""
    found = set()
    for name in names(home):
        process, _, rest = name.removesuffix(_SUFFIX).partition(".")
        if rest.partition(".")[2] == license_id and alive(home, name):
            found.add(process)
    return found
