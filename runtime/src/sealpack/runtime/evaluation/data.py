"""Labelled data: JSON lines, CSV or NPZ, read with bounds; a bad row is named by its line.

Source: specs/evidence.md, "Data files". A row is one example without a batch dimension.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error

MAX_BYTES = 1 << 30  # of the file, and of an NPZ unpacked
MAX_ROWS = 5_000_000
MAX_FIELDS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One example; `place` says where it stands in the file."""

    place: str
    values: dict[str, Any]

    def fail(self, problem: str) -> NoReturn:
        """Refuse this row: INPUT_INVALID."""
        raise bad(self.place, problem)

    def text(self, name: str) -> str:
        """A member that must be a non-empty text."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{name} is not a text")
        return value


@dataclass(frozen=True, slots=True)
class Data:
    """A whole file: `digest` is its SHA-256, `fields` the members of its rows."""

    path: Path
    format: str
    digest: str
    fields: tuple[str, ...]
    rows: tuple[Row, ...]

    def sample(self, limit: int | None, seed: int) -> tuple[Row, ...]:
        """At most `limit` rows in file order, drawn without replacement by `seed`; all without a limit."""
        if limit is None or limit >= len(self.rows):
            return self.rows
        chosen = random.Random(seed).sample(range(len(self.rows)), limit)
        return tuple(self.rows[index] for index in sorted(chosen))


def bad(place: str, problem: str) -> SealpackError:
    """The one error about data: it names file and line."""
    return SealpackError("INPUT_INVALID", f"{place}: {problem}", remedy="correct the row named")


def read(path: Path) -> Data:
    """Read a data file by its ending; INPUT_INVALID names the line, FILE_MISSING, IO_ERROR."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _READERS:
        raise SealpackError(
            "INPUT_INVALID", f"{path} is not .jsonl, .csv or .npz", remedy="give a data file of these kinds"
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SealpackError("REQUEST_TOO_LARGE", f"{path} is larger than {MAX_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise io_error(error, path, "read") from None
    rows: list[Row] = []
    for row in _READERS[kind](content, path):
        if len(rows) == MAX_ROWS:
            raise SealpackError("REQUEST_TOO_LARGE", f"{path} has more than {MAX_ROWS:,} rows")
        rows.append(row)
    if not rows:
        raise bad(str(path), "there is no row")
    fields = tuple(rows[0].values)
    if len(fields) > MAX_FIELDS:  # columns of numbers: name the file's shape, not each of them
        fields = fields[:MAX_FIELDS]
    return Data(path, kind, hashlib.sha256(content).hexdigest(), fields, tuple(rows))


def _jsonl(content: bytes, path: Path) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise bad(place, f"is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise bad(place, "is not a JSON object")
        yield Row(place, value)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _csv(content: bytes, path: Path) -> Iterator[Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise bad(f"{path} line {line}", "is not UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header) or not all(header):
            raise bad(f"{path} line 1", "the header names a column twice, or leaves a name out")
        for cells in reader:
            place = f"{path} line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise bad(place, f"has {len(cells)} cells, the header has {len(header)}")
            yield Row(place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise bad(f"{path} line {reader.line_num}", f"is not CSV: {error}") from None


def _npz(content: bytes, path: Path) -> Iterator[Row]:
    import numpy as np

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_BYTES:
            raise SealpackError("REQUEST_TOO_LARGE", f"{path} unpacks to more than {MAX_BYTES:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise bad(str(path), f"is not an NPZ file of plain arrays: {error}") from None
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(lengths) > 1:
        raise bad(str(path), "the arrays have different first dimensions")
    for index in range(lengths.pop() if lengths else 0):
        yield Row(f"{path} row {index}", {name: array[index].tolist() for name, array in arrays.items()})


_READERS: dict[str, Callable[[bytes, Path], Iterator[Row]]] = {"jsonl": _jsonl, "csv": _csv, "npz": _npz}
