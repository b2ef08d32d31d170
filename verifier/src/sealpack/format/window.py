"""Bounded reading of an untrusted file at any position, without ever holding much of it."""

from __future__ import annotations

import os
from typing import BinaryIO

from sealpack.format.errors import SealpackError

_BUFFER = 1 << 16  # bytes read at a time


class ByteWindow:
    """The bytes [start, start + length) of a seekable binary file, numbered from 0.

    A model may be a file of its own or lie inside a bundle; its reader sees the same numbers.
    Without `length` the window ends where the file ends. Raises MODEL_TRUNCATED when the file is
    shorter than the window, and whenever bytes beyond the window are asked for.
    """

    def __init__(
        self, file: BinaryIO, start: int = 0, length: int | None = None, what: str = "model"
    ) -> None:
        self._file = file
        self._start = start
        self.what = what
        self._buffer = b""
        self._base = 0
        have = self._file_size() - start
        self.size = have if length is None else length
        if not 0 <= self.size <= have:
            raise self.cut(f"{max(have, 0)} bytes of {self.size}")

    def near(self, at: int, count: int) -> tuple[bytes, int]:
        """A buffer and the index in it where `count` (<= 64 KiB) bytes from `at` begin."""
        index = at - self._base
        if not 0 <= index <= len(self._buffer) - count:
            if not 0 <= at <= self.size - count:
                raise self.cut(f"{count} bytes wanted at {at}, it ends at {self.size}")
            self._buffer = self._read(at, min(_BUFFER, self.size - at))
            self._base, index = at, 0
        return self._buffer, index

    def take(self, at: int, count: int) -> bytes:
        """Exactly `count` bytes from `at`; the caller has bounded `count`."""
        if count > _BUFFER:
            if not 0 <= at <= self.size - count:
                raise self.cut(f"{count} bytes wanted at {at}, it ends at {self.size}")
            return self._read(at, count)
        buffer, index = self.near(at, count)
        return buffer[index : index + count]

    def cut(self, detail: str) -> SealpackError:
        return SealpackError("MODEL_TRUNCATED", f"{self.what} is cut short: {detail}")

    def unsafe(self, detail: str) -> SealpackError:
        return SealpackError("MODEL_UNSAFE", f"{self.what}: {detail}")

    def unknown(self, detail: str) -> SealpackError:
        return SealpackError("MODEL_UNKNOWN", f"{self.what}: {detail}")

    def _file_size(self) -> int:
        try:
            return self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise SealpackError("IO_ERROR", f"{self.what} cannot be read: {error}") from error

    def _read(self, at: int, count: int) -> bytes:
        try:
            self._file.seek(self._start + at)
            data = self._file.read(count)
        except OSError as error:
            raise SealpackError("IO_ERROR", f"{self.what} cannot be read: {error}") from error
        if len(data) != count:
            raise self.cut(f"{len(data)} of {count} bytes at {at}")
        return data
