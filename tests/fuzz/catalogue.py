"""All targets by name, and the corpus kept for each."""

from __future__ import annotations

import gzip
import hashlib
import random
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


def _mixed() -> Target:
    """All targets in one, for short runs: the first byte picks, the rest is for whom it picked."""
    targets = tuple(TARGETS.values())

    def pick(data: bytes) -> Target:
        return targets[data[0] % len(targets)]

    def run(data: bytes) -> str | None:
        return pick(data).run(data[1:]) if data else None

    def seeds() -> Iterator[bytes]:
        for index, target in enumerate(targets):
            yield from (bytes([index]) + data for _, data in kept(target))

    def mutate(data: bytes, chance: random.Random) -> bytes | None:
        change = pick(data).mutate
        made = change(data[1:], chance) if change is not None and len(data) > 1 else None
        return None if made is None else data[:1] + made

    return Target("mixed", run, seeds, mutate, max_len=1 << 16)


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


def named(name: str) -> Target:
    """A target, or `mixed` for all of them in one."""
    return _mixed() if name == "mixed" else TARGETS[name]
