"""`settle sync`: take everything on a stick, leave every reply on it.

Source: specs/settlement-ingest.md, "Sticks". Which files concern settlement is told by what they hold; a
name that ends in `.usage.gz` counts too, so that a file damaged at its start is still told of.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sealpack.format import registry as registry_format, usage
from sealpack.format.documents import PARCEL_SCHEMA
from sealpack.format.errors import SealpackError, printable
from sealpack.format.files import atomic_write, io_error
from sealpack.format.limits import LIMITS
from sealpack.settlement import ack, db, importing, ingest, meter_readings
from sealpack.settlement.ack import Reply, Signers
from sealpack.settlement.outcomes import Outcome, final

_HEAD_BYTES = LIMITS.usage_line_bytes
_SUFFIX = ".usage.gz"
_USAGE = tuple(f'"schema":"{name}"'.encode() for name in (usage.SCHEMA, usage.TALLIES_SCHEMA))
_REGISTRY = tuple(f'"schema":"{name}"'.encode() for name in (registry_format.SCHEMA, PARCEL_SCHEMA))


@dataclass(frozen=True, slots=True)
class Visit:
    """What a stick brought and what was left on it. `passed_over` are documents for someone else."""

    outcomes: tuple[Outcome, ...]
    imported: tuple[str, ...]
    passed_over: tuple[str, ...]
    replies: tuple[Reply, ...]


def sync(database: db.Database, folder: Path, signers: Signers, now: int) -> Visit:
    """Import registry lines and licenses, ingest usage files, write acknowledgements into `folder`."""
    found = list(_files(folder))
    imported, passed_over = _import(database, [path for path, kind in found if kind == "documents"])
    outcomes = ingest.release(database, now)
    for path, kind in found:
        if kind == "usage":
            outcomes += ingest.ingest_file(database, path, now)
    outcomes = final(outcomes)
    replies = ack.replies(database, signers, [o.origin for o in outcomes if o.origin], now)
    for reply in replies:
        atomic_write(folder / reply.name, reply.data)
    return Visit(tuple(outcomes), tuple(imported), tuple(passed_over), tuple(replies))


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file that concerns settlement, in path order, as `usage` or `documents`; no links."""
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink() and path.is_file() and (kind := kind_of(path)):
            yield path, kind


def kind_of(path: Path) -> str:
    """`usage`, `documents`, or empty for a file that does not concern settlement; reads its beginning."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise io_error(error, path, "read") from None
    if is_usage(head, path.name):
        return "usage"
    return "documents" if any(mark in head for mark in _REGISTRY) else ""


def is_usage(data: bytes, name: str) -> bool:
    """Whether a file with this beginning, or this name, is taken for usage."""
    head = _unpacked(data[:_HEAD_BYTES])
    return name.endswith(_SUFFIX) or any(mark in head for mark in _USAGE) or meter_readings.is_reading(data)


def _unpacked(head: bytes) -> bytes:
    """The first bytes of a file, unpacked when they are packed."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
    except zlib.error:
        return b""


def _import(database: db.Database, paths: list[Path]) -> tuple[list[str], list[str]]:
    """Import what is ours; a document of another vendor, or damaged, is passed over and named."""
    imported, passed_over = [], []
    for path in paths:
        try:
            imported.append(f"{printable(path.name)}: {importing.import_file(database, path)}")
        except SealpackError as error:
            if error.spec.exit == 1 or error.code == "TRUST_UNPINNED":
                raise
            passed_over.append(f"{printable(path.name)}: {error.message}")
    return imported, passed_over
