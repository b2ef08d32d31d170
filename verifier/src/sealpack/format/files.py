"""Reading with a bound and writing without leaving halves. Source: specs/errors.md."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sealpack.format.errors import SealpackError


def io_error(error: OSError, path: str | os.PathLike[str], doing: str) -> SealpackError:
    """Turn an OSError into the code that says what the user can do about it."""
    code = {
        errno.ENOENT: "FILE_MISSING",
        errno.ENOSPC: "STORE_FULL",
        errno.EDQUOT: "STORE_FULL",
        errno.EROFS: "STORE_READONLY",
        errno.EACCES: "STORE_READONLY" if doing == "write" else "IO_ERROR",
    }.get(error.errno or 0, "IO_ERROR")
    reason = error.strerror or type(error).__name__
    return SealpackError(code, f"cannot {doing} {os.fspath(path)}: {reason.lower()}")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading; FILE_MISSING, IO_ERROR.

    For names that a stick or a folder from elsewhere chose: a pipe would be waited for, a device has no end.
    """
    try:
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115 - handed on open; Path has no opener
    except OSError as error:
        raise io_error(error, path, "read") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SealpackError("IO_ERROR", f"{os.fspath(path)} is not a regular file")
    return file


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_bounded(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the whole file; FILE_MISSING, IO_ERROR, or JSON_LIMIT when it is over `limit` bytes."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise io_error(error, path, "read") from None
    if len(data) > limit:
        raise SealpackError("JSON_LIMIT", f"{os.fspath(path)} is larger than {limit} bytes")
    return data


@contextlib.contextmanager
def atomic_writer(
    path: str | os.PathLike[str], *, mode: int = 0o644, replace: bool = True
) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` only when the block ends without an error.

    The bytes go to a temporary name in the same folder, are synced, then renamed. With
    `replace=False` an existing `path` is OUTPUT_EXISTS, checked again at the rename.
    """
    target = Path(path)
    if not target.name:
        raise SealpackError("IO_ERROR", f"cannot write {os.fspath(path)!r}: it is a folder")
    if not replace and target.exists():
        raise SealpackError("OUTPUT_EXISTS", f"{target} already exists")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            if target.exists() and not (target.is_file() or target.is_dir()):
                raise SealpackError("IO_ERROR", f"{target} is a device or a pipe, and no file to be replaced")
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _publish(part, target, replace)
        except OSError as error:
            raise io_error(error, target, "write") from None
    finally:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            part.unlink()


def _publish(part: Path, target: Path, replace: bool) -> None:
    if replace:
        part.replace(target)
    else:
        _link(part, target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(part: Path, target: Path) -> None:
    """Give `part` the name `target` unless that is taken; memory sticks (FAT) have no hard links."""
    try:
        os.link(part, target)
    except OSError as error:
        if not isinstance(error, FileExistsError) and not target.exists():
            part.replace(target)
            return
        raise SealpackError("OUTPUT_EXISTS", f"{target} already exists") from None


def atomic_write(
    path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644, replace: bool = True
) -> None:
    """Write `data` to `path` whole or not at all."""
    with atomic_writer(path, mode=mode, replace=replace) as file:
        file.write(data)
