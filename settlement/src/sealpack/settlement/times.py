"""When usage counts: a device's word, kept between the times that settlement itself gave.

Source: specs/settlement-ingest.md, "Times". All of it follows from the log alone, so neither the order in
which its files arrive nor where they were cut can move usage from one month to another.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sealpack.format import records
from sealpack.format.records import Record

Bound = tuple[int, int]  # (position, UTC ms): receipts before the position were used by then


@dataclass(slots=True)
class Times:
    """Follows a log: what its records say of the receipts after them (`floor_ms`) and before them (`bounds`).

    `last_ms` is the latest time so far that nothing has lowered.
    """

    floor_ms: int = 0
    last_ms: int = 0
    bounds: list[Bound] = field(default_factory=list)

    def follow(self, record: Record) -> int | None:
        """Move past a record. A time is returned when all receipts before it were used by then."""
        lowered = None
        if record.kind == records.ACKNOWLEDGED:
            self.floor_ms = max(self.floor_ms, record.body["server_time"] * 1000)
            self.bounds.append((record.body["size"], self.floor_ms))
        elif record.kind == records.CLOCK and record.time_ms < self.last_ms:
            lowered = max(record.time_ms, self.floor_ms)
            self.bounds.append((record.position, lowered))
            self.last_ms = min(lowered, self.last_ms)
        self.last_ms = max(self.last_ms, record.time_ms)
        return lowered


def latest(bounds: Iterable[Bound]) -> Callable[[int], int | None]:
    """For a position the time by which it was used, as far as any bound says."""
    ends: list[int] = []
    times: list[int] = []
    for end, ms in sorted(bounds, reverse=True):  # from the last position on: the least so far
        ends.append(-end)
        times.append(min(ms, times[-1]) if times else ms)

    def at(position: int) -> int | None:
        count = bisect_right(ends, -position - 1)
        return times[count - 1] if count else None

    return at
