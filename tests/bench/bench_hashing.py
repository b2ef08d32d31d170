"""Verification in one process against what the processor can hash at all.

The limit is measured beside it: as many threads as cores, each hashing its share of the same payload, 1 MiB
at a time, from memory, with hashlib and nothing else: no reading, no comparing, no start-up. With both
digests the payload is hashed twice, one time in one sequence, so the limit is the longer of one core hashing
it once and all cores hashing it twice; the CRC and reading come on top of that.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sealpack.format.chunks import CHUNK_SIZE, cores
from sealpack.format.container import BundleReader
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle

Row = tuple[str, list[float], list[float]]


def measure(bundle: Path, trust_file: Path, rounds: int) -> list[Row]:
    """Seconds of alternating runs: verification in this process, and the limit."""
    trust = Trust.load(trust_file.read_bytes())
    payload = _payload(bundle)
    found: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(rounds + 1):
        once = _seconds(lambda: _all_cores(payload))
        sequence = _seconds(lambda: hashlib.sha256(payload).digest())
        for name, leaves_only, limit in (
            ("verify_bundle, leaves, vs hashlib on all cores", True, once),
            ("verify_bundle, both digests, vs hashlib", False, max(sequence, 2 * once)),
        ):
            ours, limits = found.setdefault(name, ([], []))
            ours.append(_seconds(lambda leaves=leaves_only: _verify(bundle, trust, leaves)))
            limits.append(limit)
    return [(name, ours[1:], limits[1:]) for name, (ours, limits) in found.items()]  # first: warming up


def _payload(bundle: Path) -> memoryview:
    with BundleReader.open(bundle) as reader:
        name = max(reader.names, key=lambda n: reader.entries[n].item.size)
        place = reader.entries[name]
        reader.file.seek(place.data_at)
        return memoryview(reader.file.read(place.item.size))


def _all_cores(payload: memoryview) -> None:
    share = -(-len(payload) // CHUNK_SIZE // cores()) * CHUNK_SIZE
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(_hash, [payload[at : at + share] for at in range(0, len(payload), share)]))


def _hash(part: memoryview) -> list[bytes]:
    return [hashlib.sha256(part[i : i + CHUNK_SIZE]).digest() for i in range(0, len(part), CHUNK_SIZE)]


def _verify(bundle: Path, trust: Trust, leaves_only: bool) -> None:
    verify_bundle(bundle, trust, leaves_only=leaves_only).raise_first()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
