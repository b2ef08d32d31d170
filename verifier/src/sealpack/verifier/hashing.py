"""Is every file of a bundle the one that was signed? All that takes time in a verification.

Source: specs/verification.md, "content"; specs/chunks.md. Three modes: `full` (leaves, whole-file digest and
CRC of payload), `leaves` (complete integrity too, on all cores) and `sample` (some leaves chosen at random:
finds damage that is not rare, proves nothing about the rest). Files outside `payload/` are always hashed.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sealpack.format import chunks
from sealpack.format.chunks import LEAF_SIZE
from sealpack.format.container import BundleReader
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import ChunkRef, FileEntry

FULL, LEAVES, SAMPLE = "full", "leaves", "sample"
Progress = Callable[[int], None]
_LARGE = 64 << 20  # bytes from which hashing files beside each other is worth a thread


@dataclass(frozen=True, slots=True)
class Mode:
    """How payload is hashed; `per_file` is the number of leaves of a sample, else 0."""

    name: str
    per_file: int = 0

    @classmethod
    def of(cls, leaves_only: bool = False, sample: int | None = None) -> Mode:
        """The mode asked for; USAGE when it is two, or a sample of nothing."""
        if sample is None:
            return cls(LEAVES if leaves_only else FULL)
        if leaves_only:
            raise SealpackError("USAGE", "leaves and sample exclude each other: give one")
        if sample < 1:
            raise SealpackError("USAGE", "a sample has at least 1 leaf per file")
        return cls(SAMPLE, sample)

    def over(self, tables: Sequence[ChunkRef]) -> Mode:
        """The same, but `leaves` when the sample takes every leaf of every payload file."""
        every = self.name == SAMPLE and all(table.count <= self.per_file for table in tables)
        return Mode(LEAVES) if every else self


@dataclass(frozen=True, slots=True)
class Content:
    """What hashing found: `complete` is false after a sample, whose intact leaves say nothing of others."""

    failures: tuple[SealpackError, ...]
    detail: str
    complete: bool
    facts: dict[str, Any]


def check_content(
    bundle: BundleReader, files: Sequence[FileEntry], mode: Mode, progress: Progress = lambda _: None
) -> Content:
    """Hash every file of the manifest; failures stand in the manifest's order.

    `progress(n)` is called with payload bytes hashed, by one thread at a time. Raises OSError when the
    disk fails, which is no verdict.
    """
    tables = [entry.chunks for entry in files if entry.chunks is not None]
    mode = mode.over(tables)
    check = _Check(bundle, mode, progress, _side_by_side(files, mode))
    failures = tuple(check.failures(files))
    total = sum(entry.size for entry in files)
    facts: dict[str, Any] = {"content_mode": mode.name}
    what = {FULL: "whole-file digests and chunk leaves match", LEAVES: "chunk leaves match"}.get(mode.name)
    if what is None:
        taken = sum(min(table.count, mode.per_file) for table in tables)
        leaves = sum(table.count for table in tables)
        facts["content_sample"] = {"leaves": taken, "of": leaves}
        what = f"{taken} of {leaves} chunk leaves match; sampled: not complete integrity"
    return Content(failures, f"{len(files)} files, {total} bytes, {what}", mode.name != SAMPLE, facts)


def _side_by_side(files: Sequence[FileEntry], mode: Mode) -> int:
    """Files hashed at a time. A whole-file digest keeps one core busy and its leaves another one."""
    large = sum(entry.size >= _LARGE for entry in files if entry.chunks is not None)
    return max(1, min(large, chunks.cores() // 2)) if mode.name == FULL else 1


class _Stopped(Exception):
    """Ends the hashing of other files when one could not be read or the user interrupts."""


@dataclass(slots=True)
class _Check:
    """The check of single files, shared by threads when there are many cores."""

    bundle: BundleReader
    mode: Mode
    progress: Progress
    side_by_side: int
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def failures(self, files: Sequence[FileEntry]) -> Iterator[SealpackError]:
        """The failures in the order of `files`."""
        if self.side_by_side == 1:
            yield from filter(None, map(self.failure, files))
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self.side_by_side) as pool:
            try:
                yield from filter(None, pool.map(self.failure, files))
            finally:
                self._stopped = True

    def failure(self, entry: FileEntry) -> SealpackError | None:
        """What is wrong with one file."""
        try:
            if entry.chunks is None:
                self._metadata(entry)
            else:
                self._payload(entry, entry.chunks)
        except SealpackError as error:
            return error
        return None

    def _metadata(self, entry: FileEntry) -> None:
        limit = LIMITS.chunk_table_bytes if entry.role == "chunk-table" else None
        _same(entry.name, entry.sha256, hashlib.sha256(self.bundle.read(entry.name, limit)).hexdigest())

    def _payload(self, entry: FileEntry, chunked: ChunkRef) -> None:
        table = self.bundle.read(chunked.table, LIMITS.chunk_table_bytes)
        if hashlib.sha256(table).hexdigest() != chunked.sha256:
            raise SealpackError("CHUNK_MISMATCH", f"{chunked.table} is not what was signed")
        if len(table) != chunked.count * LEAF_SIZE:
            raise SealpackError("CHUNK_MISMATCH", f"{chunked.table} has not {chunked.count} leaves")
        if self.mode.name == FULL:
            self._whole(entry, table)
        else:
            self._leaves(entry, table, self._chosen(chunked.count))

    def _chosen(self, count: int) -> Sequence[int]:
        if self.mode.name == LEAVES or count <= self.mode.per_file:
            return range(count)
        return sorted(secrets.SystemRandom().sample(range(count), self.mode.per_file))

    def _whole(self, entry: FileEntry, table: bytes) -> None:
        threads = max(2, chunks.cores() // self.side_by_side)
        read_into = partial(self.bundle.read_into, entry.name)
        found = chunks.digest_file(read_into, entry.size, threads=threads, progress=self._tell)
        _compare(entry, range(chunks.chunk_count(entry.size)), found.table, table)
        _same(entry.name, entry.sha256, found.sha256)
        if found.crc != self.bundle.entries[entry.name].item.crc:
            raise SealpackError("CONTAINER_CRC", f"{entry.name} does not have its stated checksum")

    def _leaves(self, entry: FileEntry, table: bytes, indices: Sequence[int]) -> None:
        read_into = partial(self.bundle.read_into, entry.name)
        found = chunks.leaves_at(read_into, entry.size, indices, progress=self._tell)
        _compare(entry, indices, found, b"".join(_leaf(table, i) for i in indices))

    def _tell(self, count: int) -> None:
        with self._telling:
            if self._stopped:
                raise _Stopped
            self.progress(count)


def _same(name: str, signed: str, found: str) -> None:
    """DIGEST_MISMATCH unless the digest of a file is the signed one."""
    if found != signed:
        raise SealpackError("DIGEST_MISMATCH", f"{name} is not what was signed", expected=signed, found=found)


def _compare(entry: FileEntry, indices: Sequence[int], found: bytes, signed: bytes) -> None:
    """CHUNK_MISMATCH with the number of the first chunk whose leaf is not the signed one."""
    if found != signed:
        at = next(i for place, i in enumerate(indices) if _leaf(found, place) != _leaf(signed, place))
        raise SealpackError("CHUNK_MISMATCH", f"{entry.name}: chunk {at} was changed")


def _leaf(table: bytes, index: int) -> bytes:
    return table[index * LEAF_SIZE : (index + 1) * LEAF_SIZE]
