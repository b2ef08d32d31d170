"""How much the service takes from one caller, and how fast. Source: specs/service.md, "Limits"."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one service; bytes, seconds, counts."""

    file_bytes: int = LIMITS.usage_file_bytes
    zip_bytes: int = 256 << 20
    zip_entries: int = 1000
    zip_unpacked_bytes: int = 1 << 30
    uploads: int = 4  # at the same time
    readers: int = 8  # at the same time
    calls_per_s: float = 10.0  # of one token
    burst: int = 100
    idle_s: float = 30.0  # between two pieces of an upload, and for the head of a request
    head_start_s: float = 60.0  # after that an upload must have this speed:
    bytes_per_s: int = 4096


@dataclass(slots=True)
class Meter:
    """A token bucket per caller: `burst` calls at once, then `calls_per_s`."""

    limits: Limits
    clock: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def count(self, caller: str) -> None:
        """One call of a caller; RATE_LIMITED says when the next one may come."""
        now, limits = self.clock(), self.limits
        left, at = self._left.pop(caller, (float(limits.burst), now))
        left = min(float(limits.burst), left + (now - at) * limits.calls_per_s)
        self._left[caller] = (max(0.0, left - 1), now) if left >= 1 else (left, now)
        if len(self._left) > 10_000:
            self._left.popitem(last=False)
        if left < 1:
            wait = max(1, round((1 - left) / limits.calls_per_s))
            raise SealpackError(
                "RATE_LIMITED", f"more than {limits.calls_per_s:g} calls per second", retry_after_s=wait
            )
