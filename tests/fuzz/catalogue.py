"""All targets by name, and the corpus kept for each."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

from fuzz import containers, documents, logs, models
from fuzz.target import Target

CORPUS = Path(__file__).parent / "corpus"
_PACK_ABOVE = 2048  # larger inputs are kept gzipped: containers are mostly zeros

TARGETS: dict[str, Target] = {
    target.name: target
    for group in (documents.TARGETS, containers.TARGETS, logs.TARGETS, models.TARGETS)
    for target in group
}


def kept(target: Target, corpus: Path = CORPUS) -> Iterator[tuple[str, bytes]]:
    """(file name, input) of what past runs found worth keeping."""
    for path in sorted((corpus / target.name).glob("*")):
        data = path.read_bytes()
        yield path.name, gzip.decompress(data) if path.suffix == ".gz" else data


def keep(target: Target, inputs: Iterator[bytes], corpus: Path = CORPUS) -> int:
    """Replace the kept corpus of a target; file names are the inputs' digests."""
    folder = corpus / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*"):
        path.unlink()
    count = 0
    for data in inputs:
        name = hashlib.sha256(data).hexdigest()[:16]
        packed = len(data) > _PACK_ABOVE and not data.startswith(b"\x1f\x8b")
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
        count += 1
    return count
