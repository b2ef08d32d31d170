"""Memory for decrypted weights: of no file, and kept out of core dumps and swap where the system lets us.

Source: specs/encryption.md, "In memory". Best effort: root, and whoever may trace this process, reads it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import sys

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE = 4
_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0008  # no more seals, no shrinking, growing, writing
_ADD_SEALS = 1033  # F_ADD_SEALS, which fcntl has no name for everywhere


def allocate(size: int) -> mmap.mmap:
    """Anonymous private memory of at least one byte, not dumped, and locked if the limits allow it."""
    memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_DONTDUMP)
    if sys.platform == "linux":
        first = ctypes.c_char.from_buffer(memory)
        _libc.mlock(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(len(memory)))
    return memory


def wipe(memory: mmap.mmap) -> None:
    """Overwrite it and give it back; doing so twice is harmless."""
    if not memory.closed:
        memory[:] = bytes(len(memory))
        with contextlib.suppress(BufferError):  # a view is left somewhere: freed with that
            memory.close()


def protect_process() -> None:
    """No core dumps of this process from now on, and no other process of the same user may look into it."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def memory_file(name: str, size: int) -> int:
    """A descriptor of a file that is nowhere but in memory, `size` bytes long; OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    descriptor = os.memfd_create(name, flags)
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def seal(descriptor: int) -> None:
    """Nobody changes a memory file from now on; every writable map of it must be gone."""
    fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
