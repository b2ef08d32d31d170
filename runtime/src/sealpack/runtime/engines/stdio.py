"""A C stream (`FILE *`) whose bytes are decrypted as they are read: for libraries that take no memory.

glibc's `fopencookie` calls back for every block; large reads go straight into the reader's memory. Where the
C library has none, the plain bytes stand in a sealed memory file meanwhile. Neither has a name on any disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.runtime import secret_memory
from sealpack.runtime.decrypt import DecryptedFile

_BUFFER = 1 << 20  # bytes; the default of 8 KiB would call back a hundred times as often
_FULLY_BUFFERED = 0

_libc = ctypes.CDLL(None, use_errno=True)
_Read = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Seek = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int)


class _Functions(ctypes.Structure):
    """cookie_io_functions_t."""

    _fields_ = (
        ("read", _Read),
        ("write", ctypes.c_void_p),
        ("seek", _Seek),
        ("close", ctypes.c_void_p),
    )


_fopencookie: Callable[..., Any] | None = getattr(_libc, "fopencookie", None)
if _fopencookie is not None:
    _fopencookie.restype = ctypes.c_void_p  # type: ignore[attr-defined]
    _fopencookie.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _Functions]  # type: ignore[attr-defined]
_libc.fdopen.restype = ctypes.c_void_p
_libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
_libc.fclose.argtypes = [ctypes.c_void_p]
_libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


@contextlib.contextmanager
def reading(file: DecryptedFile) -> Iterator[int]:
    """A `FILE *` on the plain bytes, open inside the block.

    A chunk that does not open ends the stream; its error is raised when the block ends, whatever the reader
    made of that. ENGINE_FAILED where the system has no such streams.
    """
    with _by_callbacks(file) if _fopencookie is not None else _by_memory_file(file) as stream:
        yield stream


class _Cookie:
    """A stream's place, and the first error met; exceptions cannot pass through C."""

    def __init__(self, file: DecryptedFile) -> None:
        self._file, self._at = file, 0
        self.error: BaseException | None = None

    def read(self, _: object, buffer: int, count: int) -> int:
        try:
            view = memoryview((ctypes.c_char * count).from_address(buffer)).cast("B")
            got = self._file.read_some(self._at, view)
        except BaseException as error:
            self.error = self.error or error
            return -1
        self._at += got
        return got

    def seek(self, _: object, offset: Any, whence: int) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}.get(whence)
        if base is None or base + offset[0] < 0:
            return -1
        self._at = offset[0] = base + offset[0]
        return 0


@contextlib.contextmanager
def _by_callbacks(file: DecryptedFile) -> Iterator[int]:
    assert _fopencookie is not None
    cookie = _Cookie(file)
    functions = _Functions(_Read(cookie.read), None, _Seek(cookie.seek), None)
    stream = _fopencookie(None, b"rb", functions)
    if not stream:
        raise SealpackError("ENGINE_FAILED", "no stream could be opened in memory")
    memory = secret_memory.allocate(_BUFFER)
    try:
        place = ctypes.c_char.from_buffer(memory)
        _libc.setvbuf(stream, ctypes.addressof(place), _FULLY_BUFFERED, _BUFFER)
        del place
        yield stream
    finally:
        _libc.fclose(stream)
        secret_memory.wipe(memory)
        if cookie.error is not None:
            raise cookie.error


@contextlib.contextmanager
def _by_memory_file(file: DecryptedFile) -> Iterator[int]:
    try:
        descriptor = file.to_memory_file()
    except (AttributeError, OSError):
        raise SealpackError(
            "ENGINE_FAILED", "this system can load an encrypted GGUF model only by way of a disk: refused"
        ) from None
    stream = _libc.fdopen(descriptor, b"rb")
    if not stream:
        os.close(descriptor)
        raise SealpackError("ENGINE_FAILED", "no stream could be opened in memory")
    try:
        yield stream
    finally:
        _libc.fclose(stream)
