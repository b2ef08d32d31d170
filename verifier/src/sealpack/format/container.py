"""The bundle file: a ZIP64 with exactly one valid byte layout.

Source: specs/container.md. Any zip tool can open a bundle; ours never trusts zip's redundancies: the
reader takes names, sizes and CRCs from the central directory, lays the whole file out again from
those, and compares every structural byte. What :func:`lay_out` says is the format.
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.format.limits import LIMITS, Limits
from sealpack.format.parts import open_whole

MIMETYPE = b"application/vnd.sealpack.bundle+zip"
ALIGNMENT = 65536
PAD_SIZE = 64
PAD_CRC = zlib.crc32(bytes(PAD_SIZE))
TAIL_SIZE = 98
COPY_SIZE = 1 << 20

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")
_VERSION = 45
_MADE_BY = 3 << 8 | _VERSION  # Unix
_DATE = 1 << 5 | 1  # 1980-01-01
_MODE = 0o100644 << 16
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF
_ALIGN_TAG = 0xD935

_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_TRUST_META = re.compile(r"META/trust/(root\.[1-9][0-9]{0,8}|keyring|revocations)\.json")
_LICENSE_META = re.compile(r"META/license/[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.json")
_PAD_META = re.compile(r"META/pad\.(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Item:
    """An entry before it has a place: what the central directory says of it."""

    name: str
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class Placed:
    """An entry with its place: local header bytes at `header_at`, data at `data_at`."""

    item: Item
    header_at: int
    header: bytes

    @property
    def data_at(self) -> int:
        """Offset of the first data byte."""
        return self.header_at + len(self.header)


@dataclass(frozen=True, slots=True)
class Member:
    """An entry to be written: `open()` yields its bytes, whose size and CRC are already known."""

    name: str
    size: int
    crc: int
    open: Callable[[], BinaryIO]

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> Member:
        """A member from memory."""
        return cls(name, len(data), zlib.crc32(data), lambda: io.BytesIO(data))


def check_name(name: str) -> None:
    """CONTAINER_NAME unless `name` is safe on every file system and spelled one way."""
    parts = name.split("/")
    bad = (
        len(name) > LIMITS.entry_name_bytes
        or not _NAME.fullmatch(name)
        or any(p in (".", "..") or p.endswith(".") or _DEVICES.fullmatch(p.lower()) for p in parts)
    )
    if bad:
        raise SealpackError("CONTAINER_NAME", f"entry name {name[:80]!r} is not allowed")


def is_pad(name: str) -> bool:
    """Whether an entry is an alignment pad."""
    return _PAD_META.fullmatch(name) is not None


def order_key(name: str) -> tuple[int, int, bytes]:
    """Where an entry stands: the canonical order; CONTAINER_META for a stray META name."""
    raw = name.encode("utf-8", "surrogateescape")  # not ASCII: check_name refuses it afterwards
    if name == "mimetype":
        return 0, 0, b""
    if name == "META/model.sig":
        return 1, 0, b""
    if name == "META/model.mldsa65.sig":
        return 2, 0, b""
    if _TRUST_META.fullmatch(name):
        number = name.removeprefix("META/trust/root.").removesuffix(".json")
        kind = 0 if number.isdigit() else 1
        return 3, kind, number.zfill(9).encode() if kind == 0 else raw
    if _LICENSE_META.fullmatch(name):
        return 4, 0, raw
    if name.lower().startswith("meta/") or name.lower() == "meta":
        raise SealpackError("CONTAINER_META", f"{name} may not stand in META")
    if name == "manifest.json":
        return 5, 0, b""
    return (7 if name.startswith("payload/") else 6), 0, raw


def lay_out(items: Sequence[Item], end: int | None = None) -> tuple[list[Placed], bytes]:
    """The one layout of `items` (without pads): placed entries with pads, and the closing bytes.

    Names are checked, unique ignoring case, and in canonical order. A reader gives the file's size as
    `end`: stated sizes that lead past it are CONTAINER_DIRECTORY before memory is spent on them.
    """
    _check_items(items)
    placed: list[Placed] = []
    at = pads = 0
    for item in items:
        header = _local_header(item, at)
        if header is None:
            pad = Item(f"META/pad.{pads}", PAD_SIZE, PAD_CRC)
            pads += 1
            placed.append(Placed(pad, at, _plain_header(pad)))
            at = placed[-1].data_at + PAD_SIZE
            header = _local_header(item, at)
            assert header is not None  # a pad is longer than the run of gaps that cannot be reached
        placed.append(Placed(item, at, header))
        at = placed[-1].data_at + item.size
        if end is not None and at > end:
            raise SealpackError("CONTAINER_DIRECTORY", f"{item.name} would end past the file's end")
    if len(placed) > LIMITS.entries:
        raise SealpackError("CONTAINER_LIMIT", f"more than {LIMITS.entries} entries")
    return placed, _closing(placed, at)


def _check_items(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        check_name(item.name)
        folded = item.name.lower()
        if folded in seen:
            raise SealpackError("CONTAINER_DUPLICATE", f"{item.name} stands twice")
        seen.add(folded)
    keys = [order_key(item.name) for item in items]
    if keys != sorted(keys):
        wrong = next(i.name for i, a, b in zip(items[1:], keys, keys[1:], strict=False) if b < a)
        raise SealpackError("CONTAINER_ORDER", f"{wrong} stands too late")
    for folded in seen:
        parent = folded
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in seen:
                raise SealpackError("CONTAINER_DUPLICATE", f"{parent} is both a file and a folder")


def _plain_header(item: Item, align: bytes = b"") -> bytes:
    name = item.name.encode("ascii")
    extra = struct.pack("<HHQQ", 1, 16, item.size, item.size) + align
    return (
        _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, item.crc, _FULL32, _FULL32, len(name), len(extra))
        + name
        + extra
    )


def _local_header(item: Item, at: int) -> bytes | None:
    """The local header at offset `at`; None when alignment cannot be reached from there."""
    header = _plain_header(item)
    if not item.name.startswith("payload/"):
        return header
    gap = -(at + len(header)) % ALIGNMENT
    if gap == 0:
        return header
    if gap < 4 or 20 + gap > _FULL16:
        return None
    return _plain_header(item, struct.pack("<HH", _ALIGN_TAG, gap - 4) + bytes(gap - 4))


def _closing(placed: Sequence[Placed], at: int) -> bytes:
    directory = b"".join(_central_header(p) for p in placed)
    if len(directory) > LIMITS.central_directory_bytes:
        raise SealpackError("CONTAINER_LIMIT", "central directory is too large")
    count = len(placed)
    return b"".join(
        (
            directory,
            _END64.pack(b"PK\6\6", 44, _MADE_BY, _VERSION, 0, 0, count, count, len(directory), at),
            _LOCATOR.pack(b"PK\6\7", 0, at + len(directory), 1),
            _END.pack(b"PK\5\6", 0, 0, _FULL16, _FULL16, _FULL32, _FULL32, 0),
        )
    )


def _central_header(p: Placed) -> bytes:
    name = p.item.name.encode("ascii")
    extra = struct.pack("<HHQQQ", 1, 24, p.item.size, p.item.size, p.header_at)
    head = _CENTRAL.pack(
        b"PK\1\2",
        _MADE_BY,
        _VERSION,
        0,
        0,
        0,
        _DATE,
        p.item.crc,
        _FULL32,
        _FULL32,
        len(name),
        len(extra),
        0,
        0,
        0,
        _MODE,
        _FULL32,
    )
    return head + name + extra


def data_offsets(members: Iterable[Member]) -> dict[str, int]:
    """Where :func:`write_bundle` will put each member's data: only names and sizes matter."""
    placed, _ = lay_out([Item(m.name, m.size, m.crc) for m in _ordered(members)])
    return {place.item.name: place.data_at for place in placed}


def write_bundle(out: BinaryIO, members: Iterable[Member], there: Mapping[str, int] | None = None) -> None:
    """Write the members to `out`, a seekable file, in canonical order.

    Each must have the size and CRC it states. `there` names members whose data `out` already holds, and at
    which offset: where that turns out to be their place, they are not written again.
    """
    ordered = _ordered(members)
    placed, closing = lay_out([Item(m.name, m.size, m.crc) for m in ordered])
    sources = {m.name: m for m in ordered}
    for place in placed:
        out.seek(place.header_at)
        out.write(place.header)
        member = sources.get(place.item.name)
        if member is None:
            out.write(bytes(PAD_SIZE))
        elif (there or {}).get(member.name) != place.data_at:
            _copy(member, out)
    out.seek(placed_end(placed))
    out.write(closing)
    out.truncate()


def _ordered(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda m: order_key(m.name))


def _copy(member: Member, out: BinaryIO) -> None:
    left, crc = member.size, 0
    with member.open() as source:
        while block := source.read(COPY_SIZE):
            left -= len(block)
            crc = zlib.crc32(block, crc)
            out.write(block)
    if left or crc != member.crc:
        raise SealpackError("IO_ERROR", f"{member.name} changed while the bundle was written")


class BundleReader:
    """A bundle whose container is canonical. Opening checks structure only, never content.

    `entries` maps names to placed entries in file order, pads included. Use as a context manager.
    """

    def __init__(self, file: BinaryIO, limits: Limits = LIMITS) -> None:
        """Check the whole structure of `file`; CONTAINER_* says what is wrong."""
        self._file = file
        self._reading = threading.Lock()
        self._limits = limits
        placed, self.size = _read_structure(file, limits)
        self.entries = {p.item.name: p for p in placed}
        self._check_meta()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> BundleReader:
        """Open a bundle file, or the parts that a NAME.parts.sha256 lists."""
        file = open_whole(Path(path))
        try:
            return cls(file)
        except OSError as error:
            file.close()
            raise io_error(error, path, "read") from None
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> BundleReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def file(self) -> BinaryIO:
        """The bundle file, for readers of entries that seek (model headers) or map payload in place."""
        return self._file

    @property
    def names(self) -> list[str]:
        """Entry names in file order, pads left out."""
        return [name for name in self.entries if not is_pad(name)]

    @property
    def signed_names(self) -> list[str]:
        """Names the signature must cover: everything outside META."""
        return [name for name in self.entries if not name.startswith("META/")]

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The whole content of a metadata entry, its CRC checked; CONTAINER_LIMIT over `limit`."""
        place = self.entries[name]
        bound = self._limits.metadata_entry_bytes if limit is None else limit
        if place.item.size > bound:
            raise SealpackError("CONTAINER_LIMIT", f"{name} is {place.item.size} bytes, limit {bound}")
        data = b"".join(self.blocks(name))
        if zlib.crc32(data) != place.item.crc:
            raise SealpackError("CONTAINER_CRC", f"{name} does not have its stated checksum")
        return data

    def blocks(self, name: str, block_size: int = COPY_SIZE) -> Iterator[bytes]:
        """The content of an entry in blocks; every block but the last has `block_size` bytes."""
        size = self.entries[name].item.size
        for at in range(0, size, block_size):
            block = bytearray(min(block_size, size - at))
            self.read_into(name, at, memoryview(block))
            yield bytes(block)

    def read_into(self, name: str, offset: int, view: memoryview) -> None:
        """Fill `view` with content of an entry from `offset` (which must lie in it); for many threads.

        CONTAINER_TRUNCATED when the file was cut short since it was opened; OSError from a failing disk.
        """
        at, filled = self.entries[name].data_at + offset, 0
        file = cast(io.BufferedIOBase, self._file)
        with self._reading:  # copying from the page cache is quick: one at a time costs nothing
            file.seek(at)
            while filled < len(view):
                count = file.readinto(view[filled:])
                if not count:
                    raise SealpackError("CONTAINER_TRUNCATED", f"{name} ends early")
                filled += count

    def _check_meta(self) -> None:
        first = self.entries.get("mimetype")
        if first is None or first.item.size != len(MIMETYPE) or self.read("mimetype") != MIMETYPE:
            raise SealpackError("CONTAINER_TAIL", "not a sealpack bundle (mimetype)")
        for name in self.entries:
            if is_pad(name) and any(self.read(name, PAD_SIZE)):
                raise SealpackError("CONTAINER_META", f"{name} is not all zero")


def _read_structure(file: BinaryIO, limits: Limits) -> tuple[list[Placed], int]:
    size = file.seek(0, os.SEEK_END)
    if size < TAIL_SIZE:
        raise SealpackError("CONTAINER_TRUNCATED", f"{size} bytes is too short for a bundle")
    directory, tail = _read_tail(file, size, limits)
    named = _parse_directory(directory)
    placed, closing = lay_out([item for item in named if not is_pad(item.name)], size)
    if [p.item for p in placed] != named:
        raise SealpackError("CONTAINER_DIRECTORY", "alignment pads are not where they belong")
    if closing != directory + tail or placed_end(placed) + len(closing) != size:
        raise SealpackError("CONTAINER_DIRECTORY", "central directory is not canonical")
    for place in placed:
        file.seek(place.header_at)
        if file.read(len(place.header)) != place.header:
            raise SealpackError("CONTAINER_HEADER", f"local header of {place.item.name} is not canonical")
    return placed, size


def placed_end(placed: Sequence[Placed]) -> int:
    """Offset just past the last entry's data."""
    return placed[-1].data_at + placed[-1].item.size if placed else 0


def _read_tail(file: BinaryIO, size: int, limits: Limits) -> tuple[bytes, bytes]:
    file.seek(size - TAIL_SIZE)
    tail = file.read(TAIL_SIZE)
    if tail[:4] != b"PK\6\6" or tail[56:60] != b"PK\6\7" or tail[76:80] != b"PK\5\6":
        raise SealpackError("CONTAINER_TAIL", "no canonical end records: cut short or not a bundle")
    length, at = _END64.unpack(tail[:56])[8:10]
    if length > limits.central_directory_bytes:
        raise SealpackError("CONTAINER_LIMIT", f"central directory of {length} bytes is too large")
    if at + length + TAIL_SIZE != size:
        raise SealpackError("CONTAINER_TAIL", "end records do not fit the file's size")
    file.seek(at)
    return file.read(length), tail


def _parse_directory(directory: bytes) -> list[Item]:
    """Names, sizes and CRCs; everything else is compared against the layout made from them."""
    items: list[Item] = []
    at = 0
    while at < len(directory):
        if len(items) >= LIMITS.entries:
            raise SealpackError("CONTAINER_LIMIT", f"more than {LIMITS.entries} entries")
        try:
            head = _CENTRAL.unpack_from(directory, at)
            name_len, extra_len = head[10], head[11]
            start = at + _CENTRAL.size
            name = directory[start : start + name_len].decode("ascii")
            _, _, size, _, _ = struct.unpack_from("<HHQQQ", directory, start + name_len)
        except (struct.error, UnicodeDecodeError):
            raise SealpackError("CONTAINER_DIRECTORY", "central directory is malformed") from None
        items.append(Item(name, size, head[7]))
        at = start + name_len + extra_len + head[12]
    return items
