"""How many calls begin and run right now under a license, shared by every process on the device.

Source: specs/runtime-state.md, "Admission". Nothing here need survive a reboot, so nothing is synced. The
bucket is two integers in a small file under a lock. A running call holds one byte of another file locked:
the kernel lets go of it when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from sealpack.format.license import Rate
from sealpack.runtime import owners
from sealpack.runtime.home import Home
from sealpack.runtime.state import storage_errors
from sealpack.runtime.timekeeper import Moment

_BUCKET = struct.Struct("<qq36s")  # thousandths of a call, monotonic ms, boot id
# struct flock on Linux with 64-bit offsets: type, whence, start, length, pid (0 for locks of a descriptor)
_FLOCK = struct.Struct("hhqqi4x")


class Gate:
    """One runtime's door to what all calls under a license share."""

    def __init__(self, home: Home, license_id: str) -> None:
        self._home = home
        self._license_id = license_id
        with storage_errors(home.path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._bucket = os.open(home.rates / f"{license_id}.bucket", flags, 0o600)
            self._slots = os.open(home.rates / f"{license_id}.slots", flags, 0o600)
        self._held: set[int] = set()
        self._seen: tuple[int, int] | None = None  # owners' folder as last looked at, and its processes

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._bucket)
        os.close(self._slots)

    def processes(self, limit: int) -> int:
        """How many processes run under the license: counted when one came or went, or there are too many."""
        changed = self._home.owners.stat().st_mtime_ns
        if self._seen is None or self._seen[0] != changed or self._seen[1] > limit:
            self._seen = changed, owners.processes(self._home, self._license_id)
        return self._seen[1]

    def enter(self, limit: int) -> int | None:
        """Hold one of `limit` places for a call; None when all are taken."""
        for place in range(limit):
            if place not in self._held and self._lock(place, fcntl.F_WRLCK):
                self._held.add(place)
                return place
        return None

    def leave(self, place: int | None) -> None:
        """Give a place back."""
        if place is not None:
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
        fcntl.flock(self._bucket, fcntl.LOCK_EX)
        try:
            yield Bucket(self._bucket, rate, moment)
        finally:
            fcntl.flock(self._bucket, fcntl.LOCK_UN)


class Bucket:
    """A token bucket on the time since boot; full after a reboot. `level` is thousandths of a call."""

    def __init__(self, descriptor: int, rate: Rate, moment: Moment) -> None:
        self._descriptor, self._moment = descriptor, moment
        qps = rate.qps or 0
        full = 1000 * (qps if rate.burst is None else rate.burst)
        stored = os.pread(descriptor, _BUCKET.size, 0)
        self.level = full if qps else 0
        if qps and len(stored) == _BUCKET.size:
            level, at, boot_id = _BUCKET.unpack(stored)
            if boot_id.rstrip(b"\0") == _name(moment):
                self.level = min(full, level + qps * max(0, moment.uptime_ms - at))

    def take(self) -> None:
        """Take one call out."""
        state = _BUCKET.pack(self.level - 1000, self._moment.uptime_ms, _name(self._moment))
        os.pwrite(self._descriptor, state, 0)


def _name(moment: Moment) -> bytes:
    return moment.boot_id.encode()[:36]
