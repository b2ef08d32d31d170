"""Split media: a bundle as numbered parts, for sticks whose file system stops at 4 GiB.

Source: specs/parts.md. The parts are the bundle's bytes in order, so `cat` or `copy /b` joins them; the
list beside them is what `sha256sum -c` reads. Neither is signed: the joined file is verified like any
other bundle, and the list only tells which part a bad stick spoiled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, atomic_writer, io_error, open_regular, read_bounded

LIST_SUFFIX = ".parts.sha256"
FAT32_PART = (4 << 30) - (1 << 20)  # bytes: whole MiB below the 4 GiB that FAT32 cannot store
MIN_PART = 1 << 20  # bytes
MAX_PARTS = 999
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_NAME.pattern})\.([0-9]{{3}})")
_BLOCK = 1 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class PartList:
    """The parts of one file, in order: (path, hex SHA-256)."""

    name: str  # of the whole file
    parts: tuple[tuple[Path, str], ...]

    @classmethod
    def load(cls, path: Path) -> PartList:
        """Read NAME.parts.sha256; PARTS_INVALID unless it lists NAME.001, NAME.002, … and nothing else."""
        text = read_bounded(path, 512 * MAX_PARTS).decode("ascii", "replace")
        lines = text.removesuffix("\n").split("\n")
        name = path.name.removesuffix(LIST_SUFFIX)
        found = [_LINE.fullmatch(line) for line in lines]
        expected = [(name, f"{number:03}") for number in range(1, len(lines) + 1)]
        if len(lines) > MAX_PARTS or [m and m.group(2, 3) for m in found] != expected:
            raise SealpackError("PARTS_INVALID", f"{path.name} is not the list of the parts of {name}")
        return cls(name, tuple((path.with_name(line[66:]), line[:64]) for line in lines))

    def open(self) -> BinaryIO:
        """The whole file as one seekable stream, nothing checked; FILE_MISSING names a missing part."""
        return io.BufferedReader(_Joined([path for path, _ in self.parts]), _BLOCK)

    def blocks(self) -> Iterator[bytes]:
        """The joined file's bytes; FILE_MISSING, or DIGEST_MISMATCH naming the part to copy again."""
        for path, digest in self.parts:
            found = hashlib.sha256()
            with open_regular(path) as part:
                for block in _blocks(part, path):
                    found.update(block)
                    yield block
            if found.hexdigest() != digest:
                raise SealpackError("DIGEST_MISMATCH", f"{path.name} is not the part that was written")


def open_whole(path: Path) -> BinaryIO:
    """The file at `path` or, where that is a list of parts, all parts as one stream; FILE_MISSING."""
    return PartList.load(path).open() if is_list(path) else open_regular(path)


def whole_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of the file at `path`, joined and checked where that is a list of parts."""
    if is_list(path):
        yield from PartList.load(path).blocks()
        return
    with open_regular(path) as file:
        yield from _blocks(file, path)


def is_list(path: str | os.PathLike[str]) -> bool:
    """Whether a file name is that of a list of parts."""
    return os.fspath(path).endswith(LIST_SUFFIX)


def split(
    source: Path, folder: Path, part_size: int = FAT32_PART, progress: Progress = lambda _: None
) -> Path:
    """Write `source` as parts of at most `part_size` bytes into `folder` and return the list's path.

    OUTPUT_EXISTS, USAGE (too many or too small parts, a name no list holds), IO errors; after a failure no
    part stays. The list is written last: a folder without it is not a finished copy.
    """
    size = source.stat().st_size
    if not _NAME.fullmatch(source.name):
        raise SealpackError("USAGE", f"{source.name} has characters that no list of parts holds: rename it")
    if part_size < MIN_PART:
        raise SealpackError("USAGE", f"the smallest part has {MIN_PART} bytes, not {part_size}")
    count = -(-size // part_size)
    if not 1 <= count <= MAX_PARTS:
        raise SealpackError("USAGE", f"{size} bytes make {count} parts, not 1 to {MAX_PARTS}")
    target = folder / f"{source.name}{LIST_SUFFIX}"
    if target.exists():
        raise SealpackError("OUTPUT_EXISTS", f"{target} already exists", remedy="choose another folder")
    with contextlib.ExitStack() as undo:
        lines = []
        with open_regular(source) as file:
            for number in range(1, count + 1):
                path = folder / f"{source.name}.{number:03}"
                digest = _write_part(_blocks(file, source, part_size), path, progress)
                undo.callback(path.unlink, missing_ok=True)
                lines.append(f"{digest}  {path.name}\n")
        atomic_write(target, "".join(lines).encode("ascii"), replace=False)
        undo.pop_all()
    return target


def _write_part(blocks: Iterator[bytes], path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    with atomic_writer(path, replace=False) as out:
        for block in blocks:
            digest.update(block)
            out.write(block)
            progress(len(block))
    return digest.hexdigest()


def _blocks(file: BinaryIO, path: Path, left: int = sys.maxsize) -> Iterator[bytes]:
    """The next `left` bytes of `file`; an error of reading is told as one, whoever is writing meanwhile."""
    try:
        while left and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block
    except OSError as error:
        raise io_error(error, path, "read") from None


class _Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: list[Path]) -> None:
        self._at = 0
        self._files: list[tuple[int, BinaryIO]] = []  # where each begins
        self._size = 0
        with contextlib.ExitStack() as stack:
            for path in paths:
                file = stack.enter_context(open_regular(path))
                self._files.append((self._size, file))
                self._size += os.fstat(file.fileno()).st_size
            self._close_all = stack.pop_all().close

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        begins, file = next(
            ((at, file) for at, file in reversed(self._files) if at <= self._at), self._files[0]
        )
        file.seek(self._at - begins)
        block = file.read(len(buffer))
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def close(self) -> None:
        if not self.closed:
            self._close_all()
        super().close()
