"""Chunk tables: the plain SHA-256 of every 1 MiB of a payload file, one after another.

Source: specs/chunks.md. `dd bs=1M count=1 skip=K | sha256sum` reproduces leaf K. The manifest signs
chunk size, count, file size and the SHA-256 of the table, so the leaves alone are complete integrity.

Hashing is the whole cost of verifying, and it releases the GIL. Everything here therefore aims at one
thing: that no core waits while there is something to hash, in bounded memory. A file is read into reused
private buffers, never mapped: hashing a mapped file that somebody cuts short would end the process.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

CHUNK_SIZE = 1 << 20
LEAF_SIZE = 32
_BATCH = 2  # chunks per task when three digests are made; more would fall out of the processor's cache
_PENDING = 8  # batches held in memory

Buffer = bytes | memoryview
ReadInto = Callable[[int, memoryview], None]  # fills the whole view from that offset, or raises
Progress = Callable[[int], None]


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


def cores() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def digest_blocks(blocks: Iterable[bytes], *, threads: int | None = None) -> Digests:
    """Whole-file SHA-256, CRC-32 and leaves in one pass over blocks of exactly CHUNK_SIZE bytes.

    At most `_PENDING` batches are held in memory; faults of the source are passed on.
    """
    return _digests(_batches(blocks), threads or cores())


def digest_file(
    read_into: ReadInto, size: int, *, threads: int | None = None, progress: Progress = lambda _: None
) -> Digests:
    """:func:`digest_blocks` of a file of `size` bytes, read in order through `read_into`.

    `progress(n)` is called with bytes read, in the calling thread.
    """
    return _digests(_filled(read_into, size, progress), threads or cores())


def leaves_at(
    read_into: ReadInto,
    size: int,
    indices: Sequence[int],
    *,
    threads: int | None = None,
    progress: Progress = lambda _: None,
) -> bytes:
    """The leaves with these indices (ascending) of a file of `size` bytes, one after another.

    Each of the threads reads for itself: a chunk is hashed where it was just read, while it is in that
    core's cache. `read_into` and `progress` are therefore called from many threads.
    """
    work = _LeafWork(read_into, size, indices, progress)
    count = min(threads or cores(), len(indices))
    if count < 2:
        work.run()
    else:
        with _pool(count) as pool:
            try:
                for worker in [pool.submit(work.run) for _ in range(count)]:
                    worker.result()
            finally:
                work.stopped = True  # one failed or the user interrupts: do not hash on to the end
    return b"".join(work.leaves)


class _LeafWork:
    """Chunks to hash, claimed by workers one at a time."""

    def __init__(self, read_into: ReadInto, size: int, indices: Sequence[int], progress: Progress) -> None:
        self.read_into, self.size, self.indices, self.progress = read_into, size, indices, progress
        self.leaves = [b""] * len(indices)
        self.stopped = False
        self._claims = iter(range(len(indices)))

    def run(self) -> None:
        """Claim and hash until nothing is left; a failure ends the other workers too."""
        try:
            buffer = memoryview(bytearray(min(CHUNK_SIZE, self.size)))
            for place in self._claims:  # taking the next of a range is atomic
                if self.stopped:
                    return
                self._hash(place, buffer)
        except BaseException:
            self.stopped = True
            raise

    def _hash(self, place: int, buffer: memoryview) -> None:
        at = self.indices[place] * CHUNK_SIZE
        chunk = buffer[: min(CHUNK_SIZE, self.size - at)]
        self.read_into(at, chunk)
        self.leaves[place] = hashlib.sha256(chunk).digest()
        self.progress(len(chunk))


def _pool(threads: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # 6 ms that a small bundle need not spend

    return ThreadPoolExecutor(threads)


def _batches(blocks: Iterable[bytes]) -> Iterator[Sequence[Buffer]]:
    source = iter(blocks)
    while batch := list(itertools.islice(source, _BATCH)):
        yield batch


def _filled(read_into: ReadInto, size: int, progress: Progress) -> Iterator[Sequence[Buffer]]:
    """Batches in a ring of buffers: one is overwritten when `_PENDING` more are asked for."""
    whole = _BATCH * CHUNK_SIZE
    ring = [memoryview(bytearray(min(whole, size))) for _ in range(min(_PENDING, -(-size // whole)))]
    for number, at in enumerate(range(0, size, whole)):
        view = ring[number % _PENDING][: min(whole, size - at)]
        read_into(at, view)
        progress(len(view))
        yield [view[i : i + CHUNK_SIZE] for i in range(0, len(view), CHUNK_SIZE)]


def _digests(batches: Iterator[Sequence[Buffer]], threads: int) -> Digests:
    head = list(itertools.islice(batches, 2))
    if len(head) < 2:  # nothing to share out
        batch = head[0] if head else ()
        size = sum(map(len, batch))
        return Digests(size, _checksum(batch), _extended(batch).hexdigest(), _leaves(batch))
    with _pool(threads) as pool:
        return _shared_out(itertools.chain(head, batches), pool)


def _shared_out(batches: Iterable[Sequence[Buffer]], pool: ThreadPoolExecutor) -> Digests:
    """Three tasks per batch. The whole-file digest and the CRC go on where those of the batch before ended.

    The pool starts tasks in the order of submission, so a task waits only for one that is running, and a
    core that is ahead with the sequential digest takes leaves: two cores are busy to the end.
    """
    size, table = 0, bytearray()
    sha256: Future[hashlib._Hash] | None = None
    crc: Future[int] | None = None
    pending: deque[tuple[Future[bytes], Future[hashlib._Hash], Future[int]]] = deque()
    for batch in batches:
        size += sum(map(len, batch))
        sha256 = pool.submit(_extended, batch, sha256)
        leaves = pool.submit(_leaves, batch)
        crc = pool.submit(_checksum, batch, crc)
        pending.append((leaves, sha256, crc))
        if len(pending) == _PENDING:  # the next batch overwrites this one's buffer
            table += _finished(*pending.popleft())
    assert sha256 is not None and crc is not None
    for tasks in pending:
        table += _finished(*tasks)
    return Digests(size, crc.result(), sha256.result().hexdigest(), bytes(table))


def _finished(leaves: Future[bytes], sha256: Future[hashlib._Hash], crc: Future[int]) -> bytes:
    """The leaves of a batch that no task reads any more."""
    sha256.result()
    crc.result()
    return leaves.result()


def _extended(batch: Sequence[Buffer], before: Future[hashlib._Hash] | None = None) -> hashlib._Hash:
    digest = before.result() if before else hashlib.sha256()
    for block in batch:
        digest.update(block)
    return digest


def _checksum(batch: Sequence[Buffer], before: Future[int] | None = None) -> int:
    crc = before.result() if before else 0
    for block in batch:
        crc = zlib.crc32(block, crc)
    return crc


def _leaves(batch: Sequence[Buffer]) -> bytes:
    return b"".join(hashlib.sha256(block).digest() for block in batch)
