"""Where a payload entry's bytes come from: a file, or a model that is merged from its parts while it is read.

Both have a size that is known before they are read, so that an entry's place is known before its digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from sealpack.format.chunks import CHUNK_SIZE
from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.format.gguf_split import PartDigest, SplitGguf, Told

Progress = Callable[[int], None]


class Content(Protocol):
    """A stream of known size."""

    @property
    def size(self) -> int:
        """In bytes; IO_ERROR, FILE_MISSING."""

    @property
    def parts(self) -> tuple[PartDigest, ...]:
        """The published files it is merged from; digests may be zeros until these were read."""

    def open(self, told: Told = ...) -> BinaryIO:
        """Its bytes; `told` is called with each of the published files once that was read."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file as it is; `parts` are the published files it was merged from before."""

    path: Path
    parts: tuple[PartDigest, ...] = ()

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise io_error(error, self.path, "read") from None

    def open(self, told: Told = lambda _: None) -> BinaryIO:
        for part in self.parts:
            told(part)
        return self.path.open("rb")

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class MergedContent:
    """The parts of a split GGUF model, as one."""

    path: Path  # of the first part
    split: SplitGguf

    @property
    def size(self) -> int:
        return self.split.size

    @property
    def parts(self) -> tuple[PartDigest, ...]:
        return self.split.unread

    def open(self, told: Told = lambda _: None) -> BinaryIO:
        return self.split.open(told)

    def __str__(self) -> str:
        return str(self.path)


def blocks(content: Content, size: int, progress: Progress, told: Told = lambda _: None) -> Iterator[bytes]:
    """All of it in blocks of CHUNK_SIZE bytes, the last one shorter; IO_ERROR unless it is `size` bytes."""
    left = size
    try:
        with content.open(told) as file:
            while block := file.read(CHUNK_SIZE):
                progress(len(block))
                left -= len(block)
                if left < 0:
                    break
                yield block
    except OSError as error:
        raise io_error(error, str(content), "read") from None
    if left:
        raise SealpackError("IO_ERROR", f"{content} changed while the bundle was written")
