"""Runs of usage records: the same receipts as :mod:`sealpack.format.records` reads, many at a time.

Source: specs/receipts.md, "Records". Nearly every line of a log is a usage record after another one. Where
such lines go on as a log does, they are taken as columns and summed up at once, an order of magnitude faster
than a record for each. Nothing is let pass that way: a line that is not exactly of the plain form, or that
does not go on from the one before, is read as a single record, by the long way if need be.
"""

from __future__ import annotations

from collections import defaultdict
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
    amounts: dict[Cell, list[int]]

    def records(self) -> list[Record]:
        """The records one by one."""
        return [parse_record(leaf) for leaf in self.leaves]


Part = Record | Run


def parse_leaves(leaves: Sequence[bytes], position: int) -> tuple[Part, ...]:
    """Read the leaves of a log from `position` on, in their order.

    Raises RECEIPT_INVALID for the first that is no canonical record, with its position.
    """
    found = list(map(match_usage, leaves))
    plain = _Columns.of([match for match in found if match])
    parts: list[Part] = []
    at = taken = 0
    for is_plain, group in groupby(found, bool):
        count = len(list(group))
        lines = leaves[at : at + count]
        run = None
        if is_plain:
            run = plain.run(taken, lines)
            taken += count
        parts += [run] if run else _records(lines, position + at)
        at += count
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


@dataclass(frozen=True, slots=True)
class _Columns:
    """What many plain usage records hold, a list for each member; `meters` has a row for each record."""

    boots: Sequence[bytes] = ()
    positions: Sequence[int] = ()
    times: Sequence[int] = ()
    uptimes: Sequence[int] = ()
    cells: Sequence[tuple[bytes, int, bytes]] = ()  # route, quarter of an hour, status
    meters: Sequence[tuple[int, ...]] = ()

    @classmethod
    def of(cls, matches: Sequence[Match[bytes]]) -> _Columns:
        """The columns of what :func:`match_usage` found."""
        if not matches:
            return cls()
        columns = zip(*(match.groups(b"0") for match in matches), strict=True)
        boots, *meters, positions, routes, statuses, ended, up, _, _ = columns
        times = _integers(ended)
        quarters = [ms // QUARTER_MS for ms in times]
        return cls(
            boots, _integers(positions), times, _integers(up),
            list(zip(routes, quarters, statuses, strict=True)),
            list(zip(*map(_integers, meters), strict=True)),
        )  # fmt: skip

    def run(self, start: int, leaves: Sequence[bytes]) -> Run | None:
        """The records from `start` on, of these leaves; None when they do not go on from each other."""
        part = slice(start, start + len(leaves))
        positions, uptimes = self.positions[part], self.uptimes[part]
        first = positions[0]
        if (
            len(set(self.boots[part])) > 1
            or positions != list(range(first, first + len(leaves)))
            or uptimes != sorted(uptimes)
        ):
            return None
        by_cell: defaultdict[tuple[bytes, int, bytes], list[tuple[int, ...]]] = defaultdict(list)
        for cell, row in zip(self.cells[part], self.meters[part], strict=True):
            by_cell[cell].append(row)
        amounts = {
            (route.decode(), quarter * QUARTER_MS, status.decode()): list(map(sum, zip(*rows, strict=True)))
            for (route, quarter, status), rows in by_cell.items()
        }
        return Run(
            leaves, first, int(self.boots[start]), uptimes[0], uptimes[-1], max(self.times[part]), amounts
        )


def _integers(column: Iterable[bytes]) -> list[int]:
    return list(map(int, column))
