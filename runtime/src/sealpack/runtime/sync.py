"""One stick visit: take everything in a folder that is for this device, leave everything pending.

Source: specs/usage-export.md, "Sync". Files are recognised by what they are, not by their names; what is
not addressed to this device is left alone, and a file that is broken does not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error, read_bounded
from sealpack.format.limits import LIMITS
from sealpack.runtime import imports, receipts
from sealpack.runtime.imports import Taken
from sealpack.runtime.receipts import Exported
from sealpack.runtime.state import State

_MARK = b'{"'  # every parcel and envelope is canonical JSON
_OURS = (".license", ".ack", ".parcel")  # a file so named that is none is told, not passed over


@dataclass(slots=True)
class Visit:
    """What a sync did. `refused` maps file names to why they were not taken."""

    taken: Taken = field(default_factory=Taken)
    exported: list[Exported] = field(default_factory=list)
    refused: dict[str, SealpackError] = field(default_factory=dict)


def visit(state: State, folder: Path, *, private: bool = False) -> Visit:
    """Import and export; import first, so that nothing is carried that was acknowledged meanwhile.

    `private`: running totals instead of receipts, as :func:`receipts.export` writes them.
    """
    found = Visit()
    for path in _candidates(folder):
        try:
            merge(found.taken, imports.take(state, [_parcel(path)]))
        except SealpackError as error:
            if error.code in ("LIC_SUPERSEDED", "DEVICE_CLOSED"):  # last visit's file, still on the stick
                found.taken.known += 1
                continue
            if error.spec.exit == 1:  # our own state or disk: going on would only hide it
                raise
            found.refused[path.name] = error
    found.exported = receipts.export(state, folder, reason="sync", all_logs=False, private=private)
    return found


def _candidates(folder: Path) -> Iterator[Path]:
    """Files that may be parcels, those with licenses before those that refer to them."""
    try:
        files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
        small = [p for p in files if p.stat().st_size <= LIMITS.parcel_bytes]
    except OSError as error:
        raise io_error(error, folder, "read") from None
    documents = [p for p in small if p.suffix in _OURS or _is_parcel(p)]
    yield from sorted(documents, key=lambda p: (p.suffix != ".license", p.name))


def _is_parcel(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            if file.read(2) != _MARK:
                return False
        parcel = _parcel(path)
    except (OSError, SealpackError):
        return False
    return any(parcel.of_kind(kind) for kind in imports.KINDS)


def _parcel(path: Path) -> Parcel:
    return Parcel.from_bytes(read_bounded(path, LIMITS.parcel_bytes), path.name)


def merge(total: Taken, more: Taken) -> None:
    """Add what was taken over to what was before."""
    total.licenses += more.licenses
    total.activations += more.activations
    total.leases += more.leases
    total.acknowledgements += more.acknowledgements
    total.statements += more.statements
    total.tokens += more.tokens
    total.repairs += more.repairs
    total.trust += more.trust
    total.known += more.known
    total.others += more.others
