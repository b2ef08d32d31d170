"""Chunk tables: plain SHA-256 of every MiB, the same whatever the threads do."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealpack.format import chunks
from sealpack.format.chunks import CHUNK_SIZE, LEAF_SIZE, chunk_count, digest_blocks


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
    only_leaves = digest_blocks(source, whole=False, threads=threads)
    assert only_leaves.table == expected
    assert (only_leaves.sha256, only_leaves.crc) == ("", 0)
    assert only_leaves.size == sum(map(len, source))


def test_few_blocks_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While hashing stands still no more is read: a file of any size needs bounded memory."""
    go, taken = threading.Event(), 0
    bound = (chunks._PENDING + 2) * chunks._BATCH

    def slowly(batch: list[bytes]) -> bytes:
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
    assert bound * CHUNK_SIZE <= 96 << 20


def test_a_fault_of_the_source_is_passed_on() -> None:
    def source() -> Iterator[bytes]:
        yield b"x"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        digest_blocks(source())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 60))
def test_the_count_covers_the_size(size: int) -> None:
    count = chunk_count(size)
    assert count * CHUNK_SIZE >= size > (count - 1) * CHUNK_SIZE or (size == count == 0)
