"""`settle sync`: take everything on a stick, leave every reply on it.

Source: specs/settlement-ingest.md, "Sticks". Which files concern settlement is told by what they hold, never
by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sealpack.format import registry as registry_format
from sealpack.format import usage
from sealpack.format.documents import PARCEL_SCHEMA
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, read_bounded
from sealpack.format.limits import LIMITS
from sealpack.settlement import ack, db, ingest, registry
from sealpack.settlement.ack import Reply, Signers
from sealpack.settlement.outcomes import Outcome

_GZIP = b"\x1f\x8b"
_USAGE = f'"schema":"{usage.SCHEMA}"'.encode()
_REGISTRY = (f'"schema":"{registry_format.SCHEMA}"'.encode(), f'"schema":"{PARCEL_SCHEMA}"'.encode())


@dataclass(frozen=True, slots=True)
class Visit:
    """What a stick brought and what was left on it."""

    outcomes: tuple[Outcome, ...]
    imported: tuple[str, ...]
    replies: tuple[Reply, ...]


def looks_like_usage(data: bytes) -> bool:
    """Whether bytes are a usage file, packed or already unpacked."""
    return data.startswith(_GZIP) or _USAGE in data[:65536]


def sync(database: db.Database, folder: Path, signers: Signers, now: int) -> Visit:
    """Import registry lines and licenses, ingest usage files, write acknowledgements into `folder`."""
    outcomes: list[Outcome] = []
    imported: list[str] = []
    found: list[tuple[Path, bytes]] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        data = read_bounded(path, LIMITS.usage_file_bytes)
        if looks_like_usage(data):
            found.append((path, data))
        elif any(mark in data[: 1 << 20] for mark in _REGISTRY):
            _import(database, path, imported)
    for path, data in found:
        outcomes += ingest.ingest(database, data, path.name, now)
    outcomes += ingest.release(database, now)
    origins = [o.origin for o in outcomes if o.origin]
    replies = ack.replies(database, signers, origins, now)
    for reply in replies:
        atomic_write(folder / reply.name, reply.data)
    return Visit(tuple(outcomes), tuple(imported), tuple(replies))


def _import(database: db.Database, path: Path, imported: list[str]) -> None:
    """Import a file that is ours; one from elsewhere (another vendor's license) is passed over."""
    try:
        imported.append(registry.import_file(database, path))
    except SealpackError as error:
        if error.spec.exit == 1:
            raise
