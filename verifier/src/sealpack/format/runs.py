"""Runs of usage records: the same receipts as :mod:`sealpack.format.records` reads, many at a time.

Source: specs/receipts.md, "Records". Nearly every line of a log is a usage record after another one. Where
such lines go on as a log does, they are taken as columns and summed up at once, an order of magnitude faster
than a record for each. Nothing is let pass that way: a line that is not exactly of the plain form, or that
does not go on from the one before, is read as a single record, by the long way if need be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from re import Match

from sealpack.format.errors import SealpackError
from sealpack.format.records import Record, match_usage, parse_record

QUARTER_MS = 15 * 60 * 1000  # what usage is summed up by

Cell = tuple[str, int, str]  # route, quarter of an hour (UTC ms it begins at), status


@dataclass(frozen=True, slots=True)
class Run:
    """Usage records of one boot: numbered from `position` on without a gap, and no uptime below the last.

    `amounts` are their meters, in the order of `records.METER_ORDER`, per cell of their end times;
    `uptime_ms` and `end_uptime_ms` the first uptime and the last, `last_ms` the latest end time.
    """

    leaves: Sequence[bytes]
    position: int
    boot: int
    uptime_ms: int
    end_uptime_ms: int
    last_ms: int
    routes: frozenset[str]
    amounts: dict[Cell, list[int]]

    def records(self) -> list[Record]:
        """The records one by one."""
        return [parse_record(leaf) for leaf in self.leaves]


Part = Record | Run


def parse_leaves(leaves: Sequence[bytes], position: int) -> tuple[Part, ...]:
    """Read the leaves of a log from `position` on, in their order.

    Raises RECEIPT_INVALID for the first that is no canonical record, with its position.
    """
    parts: list[Part] = []
    at = 0
    for is_plain, group in groupby(map(match_usage, leaves), bool):
        matches = list(group)
        lines = leaves[at : at + len(matches)]
        run = _run(lines, [match for match in matches if match]) if is_plain else None
        parts += [run] if run else _records(lines, position + at)
        at += len(matches)
    return tuple(parts)


def records_of(parts: Iterable[Part]) -> tuple[Record, ...]:
    """Every record of what :func:`parse_leaves` gave."""
    return tuple(r for part in parts for r in (part.records() if isinstance(part, Run) else (part,)))


def _records(leaves: Iterable[bytes], position: int) -> list[Record]:
    records = []
    for offset, leaf in enumerate(leaves):
        try:
            records.append(parse_record(leaf))
        except SealpackError as error:
            raise SealpackError(error.code, error.message, position=position + offset) from None
    return records


def _run(leaves: Sequence[bytes], matches: Iterable[Match[bytes]]) -> Run | None:
    """Plain usage records as a run; None when they do not go on from each other."""
    columns = zip(*(match.groups(b"0") for match in matches), strict=True)
    boots, *meters, numbers, routes, statuses, ended, up, _, _ = columns
    positions, times, uptimes = _integers(numbers), _integers(ended), _integers(up)
    first = positions[0]
    if (
        len(set(boots)) > 1
        or positions != list(range(first, first + len(positions)))
        or uptimes != sorted(uptimes)
    ):
        return None
    sums: dict[tuple[bytes, int, bytes], list[int]] = {}
    cells = zip(routes, (ms // QUARTER_MS for ms in times), statuses, strict=True)
    for cell, *row in zip(cells, *map(_integers, meters), strict=True):
        known = sums.get(cell)
        sums[cell] = row if known is None else [a + b for a, b in zip(known, row, strict=True)]
    amounts = {
        (route.decode(), quarter * QUARTER_MS, status.decode()): counts
        for (route, quarter, status), counts in sums.items()
        if any(counts)
    }
    return Run(
        leaves, first, int(boots[0]), uptimes[0], uptimes[-1], max(times),
        frozenset(route.decode() for route in set(routes)), amounts,
    )  # fmt: skip


def _integers(column: Iterable[bytes]) -> list[int]:
    return list(map(int, column))
