"""Where raw uploads lie by digest, outside the database: a directory, or S3-compatible object storage.

Source: specs/settlement-ingest.md, "Evidence". A store keeps bytes under the SHA-256 of what they are, never
changes and never removes them. What `put` took is durable when it returns; what `get` gives was compared with
its digest.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, io_error
from sealpack.settlement.evidence_bytes import checked, gone

DATABASE = "database"  # the place of what lies in the database itself
_MARK = "sealpack-evidence"  # in the folder, so that one that is not mounted is not taken for an empty one
_READ_ONLY = 0o444


class Store(Protocol):
    """A place outside the database."""

    def prepare(self) -> None:
        """Make the place usable, or say why it is not; STORE_*, EXTRA_MISSING."""

    def put(self, digest: str, data: bytes) -> None:
        """Keep bytes under the hex SHA-256 of them; STORE_FULL, STORE_READONLY, STORE_IO."""

    def get(self, digest: str) -> bytes:
        """The bytes of a digest; STORE_CORRUPT when they are gone or others, STORE_IO."""


def open_store(location: str) -> Store | None:
    """The store at a location as `stores` records it; None for the database itself. EXTRA_MISSING, USAGE."""
    return None if location == DATABASE else _opened(location, os.getpid())


@lru_cache(maxsize=8)
def _opened(location: str, _process: int) -> Store:  # clients of S3 are not shared with a forked process
    if location.startswith("s3://"):
        from sealpack.settlement.evidence_s3 import S3

        return S3.at(location)
    return Directory(Path(location))


class Directory:
    """Files `ab/cdef...` in a folder: written under another name, synced, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder and its mark."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _store_error(io_error(error, self.root, "write")) from None
        _write(self.root / _MARK, b"1\n", mode=0o644)

    def put(self, digest: str, data: bytes) -> None:
        """As of :class:`Store`; bytes that are there are compared, and damaged ones replaced."""
        self._require_mark()
        path = self.path(digest)
        try:
            if path.read_bytes() == data:
                return
        except OSError:
            pass  # not there, or unreadable: written anew
        try:
            path.parent.mkdir()
            _sync(self.root)
        except FileExistsError:
            pass
        except OSError as error:
            raise _store_error(io_error(error, path.parent, "write")) from None
        _write(path, data, mode=_READ_ONLY)

    def get(self, digest: str) -> bytes:
        """As of :class:`Store`."""
        try:
            return checked(digest, self.path(digest).read_bytes())
        except FileNotFoundError:
            self._require_mark()
            raise gone(digest, str(self.root)) from None
        except OSError as error:
            raise _store_error(io_error(error, self.path(digest), "read")) from None

    def path(self, digest: str) -> Path:
        """Where a digest's bytes lie."""
        return self.root / digest[:2] / digest[2:]

    def _require_mark(self) -> None:
        if not (self.root / _MARK).is_file():
            raise _store_io(f"{self.root} is no folder of evidence: it has no file {_MARK}")


def _write(path: Path, data: bytes, *, mode: int) -> None:
    try:
        atomic_write(path, data, mode=mode)
    except SealpackError as error:
        raise _store_error(error) from None


def _store_error(error: SealpackError) -> SealpackError:
    """What a folder said, as a STORE_*."""
    return error if error.code in ("STORE_FULL", "STORE_READONLY") else _store_io(error.message)


def _store_io(message: str) -> SealpackError:
    return SealpackError(
        "STORE_IO", message, remedy="see that the folder is mounted and can be written, then try again"
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
