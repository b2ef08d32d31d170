"""Usage as a table: the CSV that `settle quote` reads.

Source: specs/rating.md section 12. Columns `time` (RFC 3339 in UTC, required), `calls`, `tok_in`,
`tok_out`, `ms`, `items`, `status`, in any order; an absent column or blank cell is 0, or ok. Every
fault raises USAGE_TABLE_INVALID and names the row, counted in lines of the file from 1.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from sealpack.format.errors import SealpackError
from sealpack.settlement.periods import FIRST_YEAR, LAST_YEAR
from sealpack.settlement.plan import FIELDS, LOST, STATUSES

COLUMNS = ("time", *FIELDS, "status")
_NUMBER = re.compile(r"[0-9]{1,15}")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:[Zz]|[+-]00:00)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line number, end time in UTC ms, status, and base units per field."""

    number: int
    utc_ms: int
    status: str
    amounts: tuple[int, ...]  # in the order of FIELDS


def read_rows(stream: Iterable[str], *, what: str) -> Iterator[Row]:
    """Read rows one by one, never the whole file; open the stream with newline=""."""
    reader = csv.reader(stream, strict=True)
    try:
        header = next(reader, None)
        columns = _columns(header, what)
        for cells in reader:
            if cells:
                yield _row(reader.line_num, cells, columns, what)
    except UnicodeDecodeError:
        _refuse(what, "is not UTF-8 text")
    except csv.Error as error:
        _refuse(f"{what} row {reader.line_num}", f"is not CSV: {error}")


def _refuse(where: str, problem: str) -> NoReturn:
    raise SealpackError("USAGE_TABLE_INVALID", f"{where} {problem}")


def _columns(header: list[str] | None, what: str) -> dict[str, int]:
    names = [name.strip().removeprefix("\ufeff") for name in header or []]
    where = f"{what} row 1"
    for mark in (";", "\t"):
        if len(names) == 1 and mark in names[0]:
            _refuse(where, f"is separated by {mark!r}; columns go with commas")
    for name in names:
        if name not in COLUMNS:
            _refuse(where, f"has a column {name[:40]!r}; known are {', '.join(COLUMNS)}")
        if names.count(name) > 1:
            _refuse(where, f"has the column {name!r} twice")
    if "time" not in names:
        _refuse(where, "has no column 'time'")
    return {name: index for index, name in enumerate(names)}


def _row(number: int, cells: list[str], columns: dict[str, int], what: str) -> Row:
    where = f"{what} row {number}"
    if len(cells) != len(columns):
        _refuse(where, f"has {len(cells)} cell{'s' * (len(cells) != 1)}, the header has {len(columns)}")
    values = {name: cells[index].strip() for name, index in columns.items()}
    status = values.get("status", "") or "ok"
    if status not in (*STATUSES, LOST):
        _refuse(where, f"status {status[:40]!r} is not one of {', '.join(STATUSES)}")
    amounts = tuple(_number(where, name, values.get(name, "")) for name in FIELDS)
    return Row(number, _time(where, values["time"]), status, amounts)


def _number(where: str, name: str, text: str) -> int:
    if not text:
        return 0
    if not _NUMBER.fullmatch(text):
        _refuse(where, f"{name} {text[:40]!r} is not a whole number of at most 15 digits")
    return int(text)


def _time(where: str, text: str) -> int:
    match = _TIME.fullmatch(text)
    if not match:
        _refuse(where, f"time {text[:40]!r} is not RFC 3339 in UTC, as in 2026-03-31T22:30:00Z")
    *parts, second, fraction = match.groups()
    numbers = [int(part) for part in (*parts, second or "0")]
    try:
        moment = datetime(*numbers, tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError as error:
        _refuse(where, f"time {text[:40]!r}: {error}")
    if not FIRST_YEAR < moment.year < LAST_YEAR:
        _refuse(where, f"time {text[:40]!r} is outside the years that can be billed")
    return int(moment.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3])
