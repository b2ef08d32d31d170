"""The C stream that decrypts: read, sought and failed as a C library does it."""

from __future__ import annotations

import ctypes
import os
import random

import pytest
from runtime.test_decrypt import MIB, opened, sealed, table_of

from sealpack.format.errors import SealpackError
from sealpack.runtime import secret_memory
from sealpack.runtime.engines import stdio

libc = ctypes.CDLL(None)
libc.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
libc.fread.restype = ctypes.c_size_t
libc.fseeko.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
libc.ftello.argtypes = [ctypes.c_void_p]
libc.ftello.restype = ctypes.c_int64
SIZE = 3 * MIB + 777


@pytest.fixture(params=["callbacks", "memory file"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to make a stream."""
    if request.param == "memory file":
        monkeypatch.setattr(stdio, "_fopencookie", None)
    elif stdio._fopencookie is None:
        pytest.skip("this C library has no fopencookie")
    return str(request.param)


def fread(stream: int, count: int) -> bytes:
    buffer = ctypes.create_string_buffer(count)
    got = libc.fread(buffer, 1, count, stream)
    return buffer.raw[:got]


@pytest.mark.usefixtures("way")
def test_reading_and_seeking() -> None:
    plain, stored, cipher = sealed(SIZE)
    file, chance = opened(stored, SIZE, cipher), random.Random(1)
    with stdio.reading(file) as stream:
        libc.fseeko(stream, 0, os.SEEK_END)
        assert libc.ftello(stream) == SIZE
        libc.fseeko(stream, 0, os.SEEK_SET)
        assert fread(stream, SIZE + 10) == plain
        for _ in range(40):
            at, count = chance.randrange(SIZE), chance.choice((1, 5000, MIB, 2 * MIB + 3))
            libc.fseeko(stream, at, os.SEEK_SET)
            assert fread(stream, count) == plain[at : at + count]
        assert libc.fseeko(stream, -1, os.SEEK_SET) != 0
    file.close()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("at", [70, MIB + 5, 3 * MIB])
def test_a_chunk_that_fails_ends_the_stream_and_is_told_after_it(at: int) -> None:
    plain, stored, cipher = sealed(SIZE)
    changed = bytearray(stored)
    changed[at] ^= 1
    file = opened(bytes(changed), SIZE, cipher, table_of(stored))
    got = b""
    with pytest.raises(SealpackError) as caught, stdio.reading(file) as stream:
        got = fread(stream, SIZE)
    assert caught.value.code == "CHUNK_MISMATCH"
    assert plain.startswith(got) and len(got) < SIZE
    file.close()


def test_a_buffer_is_wiped_when_the_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = secret_memory.wipe

    def wipe(memory: object) -> None:
        seen.append(bytes(memory))  # type: ignore[call-overload]
        real(memory)  # type: ignore[arg-type]

    plain, stored, cipher = sealed(SIZE)
    file = opened(stored, SIZE, cipher)
    monkeypatch.setattr(stdio.secret_memory, "wipe", wipe)
    with stdio.reading(file) as stream:
        fread(stream, 100)
    assert len(seen) == 1 and plain[:50] in seen[0]  # it did hold plain bytes
    file.close()
    assert file._plain.closed
