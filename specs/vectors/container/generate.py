"""Write the container vectors: `python specs/vectors/container/generate.py [FOLDER]`.

Each case is `case.json` and `bundle.sealpack.gz`, gzip of the file to be opened: structure alone is checked,
not content or signatures.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import struct
import zlib
from typing import Any

from support.rawzip import Raw, build, end, pad, payload, plain
from support.vectors import Cases

from sealpack.format.container import MIMETYPE

NAMES = {
    "name-absolute": "/etc/passwd", "name-dot-dot": "a/../b", "name-dot": "./a", "name-empty-segment": "a//b",
    "name-backslash": "a\\b", "name-colon": "c:a", "name-space": "a b", "name-not-ascii-range": "a~b",
    "name-control": "a\x01b", "name-newline": "a\n", "name-folder": "folder/", "name-device": "com1",
    "name-device-extension": "aux.txt", "name-device-inside": "x/NUL/y", "name-trailing-dot": "a.",
    "name-empty": "", "name-long": "n" * 201,
}  # fmt: skip


def main(folder: Path) -> None:
    """Write one folder per case."""
    cases = Cases()

    def add(name: str, description: str, expect: str, data: bytes) -> None:
        cases.add(name, description, expect, {"bundle.sealpack.gz": data})

    good = build(plain())
    _good(add, good)
    _outside(add, good)
    _tail(add)
    _fields(add)
    for name, entry in NAMES.items():
        add(name, f"The entry name {entry[:20]!r}.", "CONTAINER_NAME", build(plain(Raw(entry, b"x"))))
    _directory(add)
    _meta(add)
    cases.write(folder)


def _good(add: Any, good: bytes) -> None:
    add("good", "Three small entries.", "ok", good)
    at = len(good) - 98 - sum(46 + 28 + len(n) for n in ("mimetype", "manifest.json", "a.txt"))
    add("good-payload", "One aligned payload entry.", "ok", build(plain(payload("payload/m", b"data", at))))
    head = Raw("z.txt", bytes(65536 - 2 - 59 - at - 55))  # what is left is a gap of 2 bytes
    padded = at + 55 + len(head.data) + 60 + 64
    add(
        "good-pad",
        "A gap of 2 bytes cannot be an extra field: a pad stands before.",
        "ok",
        build(plain(head, pad(), payload("payload/m", b"data", padded))),
    )
    add(
        "pad-missing",
        "The same without its pad: not aligned.",
        "CONTAINER_DIRECTORY",
        build(plain(head, Raw("payload/m", b"data"))),
    )
    add(
        "pad-not-zero",
        "A byte of the pad is set.",
        "CONTAINER_CRC",
        build(plain(head, _silent(pad(0, b"\1" + bytes(63))), payload("payload/m", b"data", padded))),
    )
    same_crc = (0xEDB88320 << 1 | 1).to_bytes(64, "little")  # the CRC's own polynomial changes no CRC
    add(
        "pad-not-zero-same-crc",
        "Bits of the pad are set, with the CRC of a good pad.",
        "CONTAINER_META",
        build(plain(head, pad(0, same_crc), payload("payload/m", b"data", padded))),
    )
    add(
        "pad-not-needed",
        "A pad where the gap can be reached without one.",
        "CONTAINER_DIRECTORY",
        build(plain(pad(), payload("payload/m", b"data", at + 60 + 64))),
    )
    add(
        "pad-number",
        "Pads count from 0.",
        "CONTAINER_DIRECTORY",
        build(plain(head, pad(1), payload("payload/m", b"data", padded))),
    )
    add(
        "payload-not-aligned",
        "Payload data at any offset.",
        "CONTAINER_DIRECTORY",
        build(plain(Raw("payload/m", b"data"))),
    )
    odd = payload("payload/m", b"data", at)
    odd.local["extra"] = odd.local["extra"][:-1] + b"\1"
    add("alignment-not-zero", "A byte hides in the alignment padding.", "CONTAINER_HEADER", build(plain(odd)))


def _silent(entry: Raw) -> Raw:
    """With the CRC of a good pad in both headers, so that only the content is wrong."""
    crc = zlib.crc32(bytes(64))
    entry.local["crc"] = entry.central["crc"] = crc
    return entry


def _outside(add: Any, good: bytes) -> None:
    add("prefix", "Bytes before the first header.", "CONTAINER_TAIL", b"#!/bin/sh\n" + good)
    add("suffix", "A byte after the end.", "CONTAINER_TAIL", good + b"\n")
    add("concatenated", "Two bundles, one after the other.", "CONTAINER_TAIL", good + good)
    add("empty-file", "No bytes.", "CONTAINER_TRUNCATED", b"")
    add("cut-to-97", "97 bytes.", "CONTAINER_TRUNCATED", good[:97])
    add("cut-last-byte", "The last byte is missing.", "CONTAINER_TAIL", good[:-1])
    add("cut-in-half", "The second half is missing.", "CONTAINER_TAIL", good[: len(good) // 2 + 60])
    add("not-a-zip", "Text.", "CONTAINER_TAIL", b"hello " * 100)
    add("tail-only", "End records of an empty archive.", "CONTAINER_TAIL", build([]))
    fake = Raw("a.txt", end(0, 0, 0))
    add("eocd-in-content", "End records inside an entry are only content.", "ok", build([*plain()[:2], fake]))
    add("two-ends", "A second set of end records behind the first.", "CONTAINER_TAIL", good + end(0, 0, 0))
    add(
        "prefix-adjusted",
        "A prefix, all offsets moved with it.",
        "CONTAINER_DIRECTORY",
        build([Raw("mimetype", MIMETYPE, gap=b"MZ"), *plain()[1:]]),
    )


def _tail(add: Any) -> None:
    for name, description, code, fields in (
        ("tail-count", "The entry count is one too many.", "CONTAINER_DIRECTORY", {"count": 4}),
        ("tail-count-here", "Entries on this disk differ.", "CONTAINER_DIRECTORY", {"count_here": 2}),
        ("tail-size", "The directory's size is one too large.", "CONTAINER_TAIL", {"length": 300}),
        ("tail-offset", "The directory's offset is one too small.", "CONTAINER_TAIL", {"at": 1}),
        ("tail-locator", "The locator points elsewhere.", "CONTAINER_DIRECTORY", {"locator_at": 0}),
        ("tail-disks", "Two disks.", "CONTAINER_DIRECTORY", {"disks": 2}),
        ("tail-disk-number", "Disk 1.", "CONTAINER_DIRECTORY", {"disk": 1}),
        (
            "tail-short-count",
            "The short count holds the true number.",
            "CONTAINER_DIRECTORY",
            {"short_count": 3},
        ),
        ("tail-short-offset", "The short offset is another one.", "CONTAINER_DIRECTORY", {"short_at": 0}),
        ("tail-comment", "An archive comment.", "CONTAINER_TAIL", {"comment": b"hi"}),
        ("tail-record", "The ZIP64 record states another length.", "CONTAINER_DIRECTORY", {"record": 45}),
        ("tail-extra", "Extensible data in the ZIP64 record.", "CONTAINER_TAIL", {"extra": b"data"}),
        ("tail-version", "Made by another version.", "CONTAINER_DIRECTORY", {"made_by": 45}),
        ("tail-huge", "A directory of 2 MiB.", "CONTAINER_LIMIT", {"length": 2 << 20}),
        ("tail-offset-overflow", "An offset of 2^64 - 1.", "CONTAINER_TAIL", {"at": 2**64 - 1}),
    ):
        add(name, description, code, build(plain(), **fields))


def _fields(add: Any) -> None:
    """One field of one header differs; central ones are seen in the directory, local ones in the header."""
    for key, value in (
        ("version", 20), ("flags", 1), ("flags", 8), ("flags", 0x800), ("method", 8), ("method", 14),
        ("time", 1), ("date", 34), ("crc", 7), ("csize", 4), ("usize", 4), ("name", "b.txt"),
        ("extra", struct.pack("<HHQQ", 9, 16, 4, 4)),
    ):  # fmt: skip
        stem = f"{key}-{value}" if key in ("flags", "method") else key
        add(
            f"local-{stem}",
            f"The local header has another {key}.",
            "CONTAINER_HEADER",
            build(plain(Raw("c.txt", b"text", local={key: value}))),
        )
    for key, value in (
        ("made_by", 45), ("version", 20), ("flags", 1), ("method", 8), ("time", 1), ("date", 34),
        ("csize", 4), ("usize", 4), ("offset", 0), ("at", 0), ("comment", b"hi"), ("disk", 1),
        ("internal", 1),
        ("external", 0o120777 << 16), ("external", 0o040755 << 16 | 16),
    ):  # fmt: skip
        stem = {0o120777 << 16: "link", 0o040755 << 16 | 16: "folder"}.get(value, key)
        add(
            f"central-{stem}",
            f"The central record has another {key}.",
            "CONTAINER_DIRECTORY",
            build(plain(Raw("c.txt", b"text", central={key: value}))),
        )
    for key, value, code in (
        ("crc", 7, "CONTAINER_HEADER"),
        ("name", "d.txt", "CONTAINER_HEADER"),
        ("size", 3, "CONTAINER_DIRECTORY"),
    ):
        add(
            f"central-{key}",
            f"Central and local {key} differ.",
            code,
            build(plain(Raw("c.txt", b"text", central={key: value}))),
        )


def _directory(add: Any) -> None:
    two = Raw("b.txt", b"1")
    add("duplicate", "A name stands twice.", "CONTAINER_DUPLICATE", build(plain(two, Raw("b.txt", b"2"))))
    add(
        "duplicate-case",
        "Two names differ in case only.",
        "CONTAINER_DUPLICATE",
        build([*plain()[:2], Raw("A.txt", b"1"), Raw("a.txt", b"2")]),
    )
    add(
        "file-and-folder",
        "A file has the name of a folder.",
        "CONTAINER_DUPLICATE",
        build(plain(Raw("b", b"1"), Raw("b/c", b"2"))),
    )
    add(
        "unsorted", "Entries in another order.", "CONTAINER_ORDER", build(plain(Raw("c", b""), Raw("b", b"")))
    )
    add(
        "manifest-late",
        "manifest.json behind other metadata.",
        "CONTAINER_ORDER",
        build([plain()[0], plain()[2], plain()[1]]),
    )
    add(
        "hidden-entry",
        "An entry that the directory does not list.",
        "CONTAINER_DIRECTORY",
        build([*plain()[:2], Raw("h.txt", b"hidden", listed=False), plain()[2]]),
    )
    add(
        "gap",
        "Bytes between two entries.",
        "CONTAINER_DIRECTORY",
        build(plain(Raw("b.txt", b"text", gap=b"gap"))),
    )
    add(
        "gap-before-directory",
        "Bytes before the directory.",
        "CONTAINER_DIRECTORY",
        build(plain(), before_directory=b"gap"),
    )
    add(
        "overlap",
        "Two entries share one place.",
        "CONTAINER_DIRECTORY",
        build(plain(Raw("b.txt", b"text", central={"at": 0}))),
    )
    add(
        "size-huge",
        "An entry of 2^64 - 1 bytes.",
        "CONTAINER_DIRECTORY",
        build(plain(Raw("b.txt", b"", central={"size": 2**64 - 1}), Raw("c.txt"))),
    )
    add(
        "payload-bomb",
        "1200 empty payload entries in the directory alone: 64 KiB of padding each.",
        "CONTAINER_DIRECTORY",
        _listed_only([f"payload/{n:04}" for n in range(1200)]),
    )
    add(
        "entries-4097",
        "More entries than allowed.",
        "CONTAINER_LIMIT",
        _listed_only([f"{n:04}" for n in range(4097)]),
    )
    add(
        "directory-cut",
        "The directory ends inside a record.",
        "CONTAINER_DIRECTORY",
        b"PK\1\2" + bytes(20) + end(1, 24, 0),
    )
    add("name-utf-8", "A name that is not ASCII.", "CONTAINER_DIRECTORY", build(plain(Raw("größe", b"x"))))
    add(
        "central-extra",
        "Another extra field in the directory.",
        "CONTAINER_DIRECTORY",
        build(plain(Raw("c.txt", b"text", central={"extra": struct.pack("<HHQQQHH", 1, 24, 4, 4, 0, 9, 0)}))),
    )
    add("mimetype-missing", "No mimetype.", "CONTAINER_TAIL", build(plain()[1:]))
    add(
        "mimetype-other",
        "Another mimetype.",
        "CONTAINER_TAIL",
        build([Raw("mimetype", b"application/zip"), *plain()[1:]]),
    )
    add(
        "mimetype-crc",
        "mimetype has another CRC in both headers.",
        "CONTAINER_CRC",
        build([Raw("mimetype", MIMETYPE, local={"crc": 1}, central={"crc": 1}), *plain()[1:]]),
    )


def _listed_only(names: list[str]) -> bytes:
    whole = build([Raw(name) for name in names])
    return whole[whole.index(b"PK\1\2") : -98] + end(len(names), sum(74 + len(n) for n in names), 0)


def _meta(add: Any) -> None:
    first, rest = plain()[0], plain()[1:]
    for name, entry in (
        ("meta-stray", "META/note.txt"), ("meta-case", "meta/model.sig"), ("meta-name", "Meta"),
        ("meta-trust-name", "META/trust/other.json"), ("meta-root-zero", "META/trust/root.0.json"),
        ("meta-license-name", "META/license/a/b.json"), ("meta-pad-name", "META/pad.01"),
        ("meta-rsa", "META/model.rsa.sig"),
    ):  # fmt: skip
        add(
            name,
            f"{entry} is none of the names META may hold.",
            "CONTAINER_META",
            build([first, Raw(entry, b"x"), *rest]),
        )
    metas = [
        "META/model.sig",
        "META/model.mldsa65.sig",
        "META/trust/root.2.json",
        "META/trust/root.10.json",
        "META/trust/keyring.json",
        "META/trust/revocations.json",
        "META/license/a.json",
    ]
    add(
        "meta-all",
        "Every name META may hold, in order.",
        "ok",
        build([first, *(Raw(m, b"x") for m in metas), *rest]),
    )
    add(
        "meta-roots-as-text",
        "Roots are ordered by number, not as text.",
        "CONTAINER_ORDER",
        build([first, Raw(metas[3], b"x"), Raw(metas[2], b"x"), *rest]),
    )
    add(
        "meta-late", "META behind the manifest.", "CONTAINER_ORDER", build(plain(Raw("META/model.sig", b"x")))
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
