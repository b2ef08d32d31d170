"""Chunk tables: the plain SHA-256 of every 1 MiB of a payload file, one after another.

Source: specs/chunks.md. `dd bs=1M count=1 skip=K | sha256sum` reproduces leaf K. The manifest signs
chunk size, count, file size and the SHA-256 of the table, so the leaves alone are complete integrity.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

CHUNK_SIZE = 1 << 20
LEAF_SIZE = 32
_PENDING = 8
_BATCH = 8  # leaves per task: hashing releases the GIL, small tasks would only cost switching


@dataclass(frozen=True, slots=True)
class Digests:
    """What one pass over a file's bytes gives."""

    size: int
    crc: int
    sha256: str
    table: bytes

    @property
    def count(self) -> int:
        """Number of leaves."""
        return len(self.table) // LEAF_SIZE


def chunk_count(size: int) -> int:
    """Leaves for a file of `size` bytes; an empty file has none."""
    return -(-size // CHUNK_SIZE)


def digest_blocks(blocks: Iterable[bytes], *, whole: bool = True, threads: int | None = None) -> Digests:
    """Whole-file SHA-256, CRC-32 and leaves in one pass over blocks of exactly CHUNK_SIZE bytes.

    The whole-file digest and the CRC are sequential; leaves are hashed beside them on other cores.
    With `whole=False` only the leaves are made (`sha256` is then empty and `crc` 0), on all cores. At most
    `_PENDING` batches are held in memory.
    """
    digest = hashlib.sha256()
    size = crc = 0
    table = bytearray()
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads or _workers(whole)) as pool:
        for batch in _batches(blocks):
            pending.append(pool.submit(_leaves, batch))
            size += sum(map(len, batch))
            for block in batch if whole else ():
                digest.update(block)
                crc = zlib.crc32(block, crc)
            while len(pending) > _PENDING:
                table += pending.popleft().result()
        for leaves in pending:
            table += leaves.result()
    return Digests(size, crc, digest.hexdigest() if whole else "", bytes(table))


def _workers(whole: bool) -> int:
    """Threads for leaves: all cores, less the one that makes the whole-file digest."""
    cores = os.cpu_count() or 2
    return max(1, cores - 1) if whole else cores


def _batches(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    source = iter(blocks)
    while batch := list(islice(source, _BATCH)):
        yield batch


def _leaves(batch: list[bytes]) -> bytes:
    return b"".join(hashlib.sha256(block).digest() for block in batch)
