"""Chunk tables: plain SHA-256 of every MiB, the same whatever the threads do."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format import chunks
from sealpack.format.chunks import (
    CHUNK_SIZE,
    LEAF_SIZE,
    chunk_count,
    digest_blocks,
    digest_file,
    leaves_at,
)


def blocks(data: bytes, size: int = CHUNK_SIZE) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE])
def test_leaves_are_plain_sha256_of_each_mebibyte(size: int) -> None:
    data = bytes(i * 7 & 0xFF for i in range(256)) * (size // 256 + 1)
    data = data[:size]
    found = digest_blocks(blocks(data))
    leaves = [found.table[i : i + LEAF_SIZE] for i in range(0, len(found.table), LEAF_SIZE)]
    assert leaves == [hashlib.sha256(block).digest() for block in blocks(data)]
    assert (found.size, found.crc, found.sha256) == (size, zlib.crc32(data), hashlib.sha256(data).hexdigest())
    assert found.count == chunk_count(size) == len(leaves)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_table_keeps_its_order(threads: int) -> None:
    """More blocks than are held at a time, small ones, so that workers overtake each other."""
    source = [b"%d" % n for n in range(200)]
    expected = b"".join(hashlib.sha256(block).digest() for block in source)
    assert digest_blocks(source, threads=threads).table == expected


def test_few_blocks_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While hashing stands still no more is read: a file of any size needs bounded memory."""
    go, taken = threading.Event(), 0
    bound = (chunks._PENDING + 2) * chunks._BATCH

    def slowly(batch: Sequence[bytes]) -> bytes:
        assert go.wait(20)
        return b"".join(hashlib.sha256(block).digest() for block in batch)

    def source() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(10 * bound):
            taken += 1
            yield b"x"

    monkeypatch.setattr(chunks, "_leaves", slowly)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(digest_blocks, source(), threads=1)
        with pytest.raises(TimeoutError):
            running.result(0.3)
        held = taken
        go.set()
        assert running.result(20).count == 10 * bound
    assert 0 < held <= bound
    assert bound * CHUNK_SIZE <= 32 << 20


# --- files ----------------------------------------------------------------------------------------------


class Source:
    """A file in memory, read as `read_into`; counts reads and can fail at one of them."""

    def __init__(self, data: bytes, fails_at: int | None = None) -> None:
        self.data, self.fails_at, self.reads = data, fails_at, 0

    def __call__(self, offset: int, view: memoryview) -> None:
        self.reads += 1
        if self.fails_at is not None and offset >= self.fails_at:
            raise OSError("disk")
        assert 0 < len(view) <= len(self.data) - offset
        view[:] = self.data[offset : offset + len(view)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of 64 bytes, so that a short file goes round the ring of buffers many times."""
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 64)
    return 64


def pattern(size: int) -> bytes:
    return hashlib.shake_128(b"pattern").digest(size)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("size", [0, 1, 64, 65, 128, 129, 1024, 1025, 64 * 200 + 7])
def test_a_file_has_the_digests_of_its_blocks(small_chunks: int, size: int, threads: int) -> None:
    data, told = pattern(size), []
    found = digest_file(Source(data), size, threads=threads, progress=told.append)
    assert (found.size, found.crc, found.sha256) == (size, zlib.crc32(data), hashlib.sha256(data).hexdigest())
    expected = b"".join(hashlib.sha256(block).digest() for block in blocks(data, small_chunks))
    assert found.table == expected
    assert leaves_at(Source(data), size, range(chunk_count(size)), threads=threads) == expected
    assert sum(told) == size


def test_a_buffer_is_not_overwritten_while_a_task_reads_it(
    small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of task in turn is the slow one; the digests are those of the bytes all the same."""
    data = pattern(64 * 2 * chunks._PENDING * 3)
    expected = digest_blocks(list(blocks(data, small_chunks)))
    for task in ("_leaves", "_extended", "_checksum"):
        real = getattr(chunks, task)

        def slow(batch: Sequence[bytes], *before: Any, real: Any = real) -> Any:
            time.sleep(0.004)
            return real(batch, *before)

        with monkeypatch.context() as patch:
            patch.setattr(chunks, task, slow)
            assert digest_file(Source(data), len(data), threads=3) == expected


def test_some_leaves_only(small_chunks: int) -> None:
    data = pattern(64 * 50 + 3)
    source = Source(data)
    found = leaves_at(source, len(data), [0, 7, 31, 50], threads=2)
    assert found == b"".join(hashlib.sha256(data[i * 64 : i * 64 + 64]).digest() for i in (0, 7, 31, 50))
    assert source.reads == 4
    assert leaves_at(source, len(data), []) == b""


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failing_disk_ends_the_work_soon(small_chunks: int, threads: int) -> None:
    size = 64 * 4000
    with pytest.raises(OSError, match="disk"):
        digest_file(Source(pattern(size), 64 * 100), size, threads=threads)
    source = Source(pattern(size), 64 * 100)
    with pytest.raises(OSError, match="disk"):
        leaves_at(source, size, range(4000), threads=threads)
    assert source.reads < 400


def test_interrupted_leaf_workers_stop(small_chunks: int) -> None:
    """What a worker raises (an interrupt comes the same way) ends the others before the file does."""
    size, seen = 64 * 40_000, []

    def progress(count: int) -> None:
        seen.append(count)
        if len(seen) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leaves_at(Source(pattern(size)), size, range(40_000), threads=4, progress=progress)
    assert len(seen) < 20_000


def test_a_fault_of_the_source_is_passed_on() -> None:
    def source() -> Iterator[bytes]:
        yield b"x"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        digest_blocks(source())


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of many where affinity is known; elsewhere all, and one when nothing is known."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5}, raising=False)
    assert chunks.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert chunks.cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert chunks.cores() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 60))
def test_the_count_covers_the_size(size: int) -> None:
    count = chunk_count(size)
    assert count * CHUNK_SIZE >= size > (count - 1) * CHUNK_SIZE or (size == count == 0)
