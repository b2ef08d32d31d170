"""The bounded window: what lies beyond it is never read, and a failing disk is no verdict on the model."""

from __future__ import annotations

import errno
import io

import pytest

from sealpack.format.errors import SealpackError
from sealpack.format.window import ByteWindow

DATA = bytes(range(256)) * 1024  # 256 KiB


class Failing(io.BytesIO):
    """A file on a medium that gives up where told."""

    def __init__(self, *, seeks: bool) -> None:
        super().__init__(DATA)
        self.seeks = seeks

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if not self.seeks:
            raise OSError(errno.ESPIPE, "Illegal seek")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(("at", "count"), [(0, 1), (5, 100), (0, 1 << 16), (7, 100_000), (1000, 0)])
def test_a_window_is_numbered_from_its_start(at: int, count: int) -> None:
    window = ByteWindow(io.BytesIO(DATA), 13, 200_000)
    assert window.take(at, count) == DATA[13 + at : 13 + at + count]


@pytest.mark.parametrize(
    ("at", "count"), [(200, 1), (0, 201), (-1, 1), (0, 100_000), (150, 70_000), (-1, 70_000)]
)
def test_bytes_beyond_the_window_are_refused_though_the_file_has_them(at: int, count: int) -> None:
    window = ByteWindow(io.BytesIO(DATA), 13, 200, "m.gguf")
    with pytest.raises(SealpackError, match=rf"MODEL_TRUNCATED.*m\.gguf.*{count} bytes wanted at {at}.*200"):
        window.take(at, count)


@pytest.mark.parametrize(
    ("start", "length"), [(0, len(DATA) + 1), (13, len(DATA)), (len(DATA) + 1, None), (0, -1)]
)
def test_a_window_larger_than_its_file(start: int, length: int | None) -> None:
    with pytest.raises(SealpackError, match="MODEL_TRUNCATED"):
        ByteWindow(io.BytesIO(DATA), start, length)


@pytest.mark.parametrize("count", [10, 100_000])
def test_a_file_cut_after_it_was_measured(count: int) -> None:
    file = io.BytesIO(DATA)
    window = ByteWindow(file)
    file.truncate(1005)
    with pytest.raises(SealpackError, match=r"MODEL_TRUNCATED.*5 of"):
        window.take(1000, count)


def test_what_cannot_be_read_is_an_error_of_reading() -> None:
    with pytest.raises(SealpackError, match=r"IO_ERROR.*Illegal seek"):
        ByteWindow(Failing(seeks=False))
    with pytest.raises(SealpackError, match=r"IO_ERROR.*Input/output error"):
        ByteWindow(Failing(seeks=True)).take(0, 4)
