"""A zip writer that can lie: the canonical layout, with any field of any entry replaced."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sealpack.format.container import MIMETYPE

FULL32, FULL16 = 0xFFFFFFFF, 0xFFFF
DATE = 33


@dataclass
class Raw:
    """An entry. `local` and `central` replace header fields; `gap` stands before the local header."""

    name: str
    data: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)
    gap: bytes = b""
    listed: bool = True


def plain(*more: Raw) -> list[Raw]:
    """A small container without payload: mimetype, manifest.json, a.txt, and `more`."""
    return [Raw("mimetype", MIMETYPE), Raw("manifest.json", b"{}"), Raw("a.txt", b"text"), *more]


def pad(index: int = 0, data: bytes = bytes(64)) -> Raw:
    """An alignment pad."""
    return Raw(f"META/pad.{index}", data)


def payload(name: str, data: bytes, at: int, **more: Any) -> Raw:
    """A payload entry whose local header stands at `at`, aligned as the format says (no pad)."""
    gap = -(at + 50 + len(name)) % 65536
    align = struct.pack("<HH", 0xD935, gap - 4) + bytes(gap - 4) if gap else b""
    extra = struct.pack("<HHQQ", 1, 16, len(data), len(data)) + align
    return Raw(name, data, local={"extra": extra, **more})


def build(entries: Sequence[Raw], *, before_directory: bytes = b"", **tail: Any) -> bytes:
    """The file. `tail` replaces fields of the end records."""
    out, directory, count = b"", b"", 0
    for entry in entries:
        out += entry.gap
        at = len(out)
        out += _local(entry) + entry.data
        if entry.listed:
            directory += _central(entry, at)
            count += 1
    out += before_directory
    fields: dict[str, Any] = {
        "count": count, "count_here": count, "length": len(directory), "at": len(out),
        "locator_at": len(out) + len(directory),
    }  # fmt: skip
    return out + directory + end(**fields | tail)


def end(count: int = 0, length: int = 0, at: int = 0, **tail: Any) -> bytes:
    """EOCD64, locator and EOCD."""
    f = {
        "count": count, "count_here": count, "length": length, "at": at, "locator_at": at + length,
        "disks": 1, "disk": 0, "short_count": FULL16, "short_length": FULL32, "short_at": FULL32,
        "comment": b"", "record": 44, "made_by": 0x32D, "version": 45, "extra": b"",
    } | tail  # fmt: skip
    return b"".join((
        struct.pack(
            "<4sQ2H2I4Q", b"PK\6\6", f["record"], f["made_by"], f["version"], f["disk"], f["disk"],
            f["count_here"], f["count"], f["length"], f["at"],
        ),
        f["extra"],
        struct.pack("<4sIQI", b"PK\6\7", f["disk"], f["locator_at"], f["disks"]),
        struct.pack(
            "<4s4H2IH", b"PK\5\6", f["disk"], f["disk"], f["short_count"], f["short_count"],
            f["short_length"], f["short_at"], len(f["comment"]),
        ),
        f["comment"],
    ))  # fmt: skip


def _local(entry: Raw) -> bytes:
    size = len(entry.data)
    f = {
        "version": 45, "flags": 0, "method": 0, "time": 0, "date": DATE, "crc": zlib.crc32(entry.data),
        "csize": FULL32, "usize": FULL32, "name": entry.name,
        "extra": struct.pack("<HHQQ", 1, 16, size, size),
    } | entry.local  # fmt: skip
    name = f["name"].encode("utf-8")
    return (
        struct.pack(
            "<4s5H3I2H", b"PK\3\4", f["version"], f["flags"], f["method"], f["time"], f["date"], f["crc"],
            f["csize"], f["usize"], len(name), len(f["extra"]),
        ) + name + f["extra"]
    )  # fmt: skip


def _central(entry: Raw, at: int) -> bytes:
    f = {
        "made_by": 0x32D, "version": 45, "flags": 0, "method": 0, "time": 0, "date": DATE,
        "crc": zlib.crc32(entry.data), "csize": FULL32, "usize": FULL32, "name": entry.name,
        "size": len(entry.data), "at": at, "comment": b"", "disk": 0, "internal": 0,
        "external": 0o100644 << 16, "offset": FULL32,
    } | entry.central  # fmt: skip
    name = f["name"].encode("utf-8")
    extra = f.get("extra", struct.pack("<HHQQQ", 1, 24, f["size"], f["size"], f["at"]))
    return (
        struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", f["made_by"], f["version"], f["flags"], f["method"], f["time"],
            f["date"], f["crc"], f["csize"], f["usize"], len(name), len(extra), len(f["comment"]),
            f["disk"], f["internal"], f["external"], f["offset"],
        ) + name + extra + f["comment"]
    )  # fmt: skip
