"""Verification in one process against what the processor can hash at all.

The limit is measured beside it: as many threads as cores, each hashing its share of the same payload, 1 MiB
at a time, with hashlib and nothing else: no comparing, no start-up. Twice: from memory, where no byte has to
be fetched from the file, and from the mapped file, which is what fetching costs without a copy. With both
digests the payload is hashed twice, one time in one sequence, so the limit is the longer of one core hashing
it once and all cores hashing it twice; the CRC and reading come on top of that.
"""

from __future__ import annotations

import hashlib
import mmap
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
    begin, end = _place(bundle)
    payload = memoryview(bundle.read_bytes())[begin:end]
    found: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(rounds + 1):
        once = _seconds(lambda: _all_cores(payload))
        sequence = _seconds(lambda: hashlib.sha256(payload).digest())
        mapped = _seconds(lambda: _mapped(bundle, begin, end))
        for name, leaves_only, limit in (
            ("verify_bundle, leaves, vs hashlib in memory", True, once),
            ("verify_bundle, leaves, vs hashlib, mapped file", True, mapped),
            ("verify_bundle, both digests, vs hashlib in memory", False, max(sequence, 2 * once)),
        ):
            ours, limits = found.setdefault(name, ([], []))
            ours.append(_seconds(lambda leaves=leaves_only: _verify(bundle, trust, leaves)))
            limits.append(limit)
    return [(name, ours[1:], limits[1:]) for name, (ours, limits) in found.items()]  # first: warming up


def _place(bundle: Path) -> tuple[int, int]:
    """Where the largest file begins and ends."""
    with BundleReader.open(bundle) as reader:
        place = max(reader.entries.values(), key=lambda placed: placed.item.size)
        return place.data_at, place.data_at + place.item.size


def _mapped(bundle: Path, begin: int, end: int) -> None:
    with (
        bundle.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        memoryview(whole) as view,
        view[begin:end] as payload,
    ):
        _all_cores(payload)


def _all_cores(payload: memoryview) -> None:
    share = -(-len(payload) // CHUNK_SIZE // cores()) * CHUNK_SIZE
    with ThreadPoolExecutor(cores()) as pool:
        for done in [pool.submit(_hash, payload, at, share) for at in range(0, len(payload), share)]:
            done.result()


def _hash(payload: memoryview, first: int, share: int) -> None:
    for at in range(first, min(first + share, len(payload)), CHUNK_SIZE):
        with payload[at : min(at + CHUNK_SIZE, first + share)] as chunk:
            hashlib.sha256(chunk).digest()


def _verify(bundle: Path, trust: Trust, leaves_only: bool) -> None:
    verify_bundle(bundle, trust, leaves_only=leaves_only).raise_first()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
