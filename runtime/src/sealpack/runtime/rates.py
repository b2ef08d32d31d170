"""How many calls begin and run right now under a license, shared by every process on the device.

Source: specs/runtime-state.md, "Admission". Nothing here need survive a reboot, so nothing is synced. The
bucket is two integers in a small file under a lock. A running call holds one byte of another file locked:
the kernel lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.format.license import Rate
from sealpack.runtime import owners
from sealpack.runtime.home import Home
from sealpack.runtime.owners import Owner
from sealpack.runtime.state import storage_errors
from sealpack.runtime.timekeeper import Moment

_BUCKET = struct.Struct("<qq36s")  # thousandths of a call, monotonic ms, boot id
# struct flock on Linux with 64-bit offsets: type, whence, start, length, pid (0 for locks of a descriptor)
_FLOCK = struct.Struct("hhqqi4x")

Left = tuple[int, int, str]  # thousandths of a call, monotonic ms, boot id


class Gate:
    """One runtime's door to what all calls under a license share."""

    def __init__(self, home: Home, owner: Owner) -> None:
        self._home = home
        self._owner = owner
        self._slots = self._bucket = -1
        try:
            self._slots = self._file("slots")
            self._bucket = self._file("bucket")
        except BaseException:
            self.close()
            raise
        self._held: set[int] = set()
        self._seen: tuple[int, int] | None = None  # owners' folder as last looked at, and its processes
        self._left: Left | None = None  # in the bucket, as this runtime last knew it
        _open.add(self)

    def _path(self, kind: str) -> Path:
        return self._home.rates / f"{self._owner.license_id}.{kind}"

    def _file(self, kind: str) -> int:
        with storage_errors(self._home.path):
            return os.open(self._path(kind), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Let go of everything."""
        for descriptor in (self._slots, self._bucket):
            if descriptor >= 0:
                os.close(descriptor)
        self._slots = self._bucket = -1

    def _require_same(self, descriptor: int, kind: str) -> None:
        """STATE_TAMPERED when the file that others look at is another one by now."""
        path = self._path(kind)
        try:
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return
        except FileNotFoundError:
            pass
        raise _replaced(path)

    def processes(self, limit: int) -> int:
        """How many processes run under the license: counted when one came or went, or there are too many."""
        changed = self._home.owners.stat().st_mtime_ns
        if self._seen is None or self._seen[0] != changed or self._seen[1] > limit:
            found = owners.processes(self._home, self._owner.license_id)
            if owners.process_of(self._owner.name) not in found:
                raise _replaced(self._home.owners / self._owner.name)
            self._seen = changed, len(found)
        return self._seen[1]

    def enter(self, limit: int) -> int | None:
        """Hold one of `limit` places for a call; None when all are taken."""
        self._require_same(self._slots, "slots")
        for place in range(limit):
            if place not in self._held and self._lock(place, fcntl.F_WRLCK):
                self._held.add(place)
                return place
        return None

    def leave(self, place: int | None) -> None:
        """Give a place back."""
        if place is not None and self._slots >= 0:
            self._held.discard(place)
            self._lock(place, fcntl.F_UNLCK)

    def _lock(self, place: int, kind: int) -> bool:
        try:
            fcntl.fcntl(self._slots, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))
        except (BlockingIOError, PermissionError):
            return False
        return True

    @contextmanager
    def bucket(self, rate: Rate, moment: Moment) -> Iterator[Bucket]:
        """The token bucket, nobody else's while the block runs."""
        self._require_same(self._bucket, "bucket")
        fcntl.flock(self._bucket, fcntl.LOCK_EX)
        try:
            bucket = Bucket(self._bucket, rate, moment, self._left)
            yield bucket
            self._left = bucket.left
        finally:
            fcntl.flock(self._bucket, fcntl.LOCK_UN)


_open: weakref.WeakSet[Gate] = weakref.WeakSet()


def _in_child() -> None:
    """A child would keep the places of its parent's calls after that is dead."""
    for gate in list(_open):
        gate.close()


os.register_at_fork(after_in_child=_in_child)


def _replaced(path: Path) -> SealpackError:
    return SealpackError(
        "STATE_TAMPERED",
        f"{path} was removed or replaced while it was in use",
        remedy="stop every process that uses this state and start again; else ask support",
    )


class Bucket:
    """A token bucket on the time since boot; full after a reboot. `level` is thousandths of a call.

    `known` is what this runtime left in it: a file that was emptied or put back gives no more than that.
    """

    def __init__(self, descriptor: int, rate: Rate, moment: Moment, known: Left | None = None) -> None:
        self._descriptor, self._moment = descriptor, moment
        qps = rate.qps or 0
        full = 1000 * (qps if rate.burst is None else rate.burst)
        stored = os.pread(descriptor, _BUCKET.size, 0)
        self.level = full if qps else 0
        if qps and len(stored) == _BUCKET.size:
            level, at, boot_id = _BUCKET.unpack(stored)
            if boot_id.rstrip(b"\0") == _name(moment):
                self.level = min(full, level + qps * max(0, moment.uptime_ms - at))
        if known is not None and known[2] == moment.boot_id:
            self.level = min(self.level, known[0] + qps * max(0, moment.uptime_ms - known[1]))

    @property
    def left(self) -> Left:
        """What is in it now."""
        return self.level, self._moment.uptime_ms, self._moment.boot_id

    def take(self) -> None:
        """Take one call out."""
        self.level -= 1000
        state = _BUCKET.pack(self.level, self._moment.uptime_ms, _name(self._moment))
        os.pwrite(self._descriptor, state, 0)


def _name(moment: Moment) -> bytes:
    return moment.boot_id.encode()[:36]
