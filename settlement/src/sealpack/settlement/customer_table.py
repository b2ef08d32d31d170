"""Customers as a table: the CSV that a bookkeeper's program writes, read as a customers file.

Source: specs/settlement-ingest.md, "Customers". One row per customer, columns in any order and separated by
commas, semicolons or tabs. A column that is not known is refused: a misspelt one is somebody's money.
"""

from __future__ import annotations

import csv
import io
from typing import Any, NoReturn

from sealpack.format.errors import SealpackError

_ADDRESS = tuple(f"address_{n}" for n in range(1, 9))
_TEXTS = ("id", "legal_name", "tax_id", "email", "purchase_order", "country", "currency")
_TAX = ("category", "percent", "reason")
COLUMNS = (*_TEXTS, "payment_days", "address", *_ADDRESS, *(f"tax_{name}" for name in _TAX))
_NEEDED = {"id", "legal_name"}
_MARKS = ",;\t"


def is_table(data: bytes) -> bool:
    """Whether a file begins like a table of customers."""
    head = data[:4096].split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    return any({cell.strip(' "\r') for cell in head.split(mark)} >= _NEEDED for mark in _MARKS)


def read(data: bytes, what: str) -> list[tuple[str, dict[str, Any]]]:
    """Where each customer stands, and the record as a customers file has it; REGISTRY_INVALID."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse(what, "is not UTF-8 text: save it as CSV in UTF-8")
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=max(_MARKS, key=first.count))
    try:
        columns = _columns(next(reader, []), what)
        return [
            (where := f"{what} row {reader.line_num}", _record(cells, columns, where))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        _refuse(f"{what} row {reader.line_num}", f"is not CSV: {error}")


def _refuse(where: str, problem: str) -> NoReturn:
    raise SealpackError("REGISTRY_INVALID", f"{where} {problem}")


def _columns(header: list[str], what: str) -> list[str]:
    names = [name.strip() for name in header]
    for name in names:
        if name not in COLUMNS:
            _refuse(f"{what} row 1", f"has a column {name[:40]!r}; known are {', '.join(COLUMNS)}")
        if names.count(name) > 1:
            _refuse(f"{what} row 1", f"has the column {name!r} twice")
    return names


def _record(cells: list[str], columns: list[str], where: str) -> dict[str, Any]:
    """Empty cells are members that are not there."""
    if len(cells) != len(columns):
        _refuse(where, f"has {len(cells)} cell{'s' * (len(cells) != 1)}, the header has {len(columns)}")
    given = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}
    record: dict[str, Any] = {name: given[name] for name in _TEXTS if name in given}
    if "payment_days" in given:
        if not given["payment_days"].isascii() or not given["payment_days"].isdigit():
            _refuse(f"{where}.payment_days", "is not a whole number")
        if len(given["payment_days"]) > 9:
            _refuse(f"{where}.payment_days", "is more than anybody waits")
        record["payment_days"] = int(given["payment_days"])
    lines = [line.strip() for line in given.get("address", "").splitlines()]
    lines += [given[name] for name in _ADDRESS if name in given]
    if lines := [line for line in lines if line]:
        record["address"] = lines
    if tax := {name: given[f"tax_{name}"] for name in _TAX if f"tax_{name}" in given}:
        record["tax"] = tax
    return record
