"""Faults of the container: what a courier without any key can do to the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from support import world
from support.rawzip import Raw, build, end
from support.world import CREATOR

from corpus.base import MEMBERS, SIG, Add, packed
from sealpack.format.container import ALIGNMENT, MIMETYPE, order_key

GOOD = packed()
DIRECTORY = GOOD.index(b"PK\1\2")
MODEL = "payload/model.gguf"


def entries() -> list[Raw]:
    """The good bundle, entry by entry in its order."""
    members = {"mimetype": MIMETYPE, "META/model.sig": SIG, **MEMBERS}
    return [Raw(name, members[name]) for name in sorted(members, key=order_key)]


def laid(raws: list[Raw], **tail: Any) -> bytes:
    """The file, payload aligned as it must be; `tail` replaces fields of the end records."""
    at = 0
    for raw in raws:
        at += len(raw.gap)
        size = len(raw.data)
        extra = struct.pack("<HHQQ", 1, 16, size, size)
        if raw.name.startswith("payload/"):
            gap = -(at + 50 + len(raw.name)) % ALIGNMENT
            extra += struct.pack("<HH", 0xD935, gap - 4) + bytes(gap - 4)
        extra = raw.local.setdefault("extra", extra)
        at += 30 + len(raw.local.get("name", raw.name)) + len(extra) + size
    return build(raws, **tail)


def edited(name: str, change: Callable[[Raw], Any], **tail: Any) -> bytes:
    """The good bundle with one entry changed."""
    raws = entries()
    change(next(raw for raw in raws if raw.name == name))
    return laid(raws, **tail)


def extended(*more: Raw, last: bool = True) -> bytes:
    """The good bundle with more entries at the end, or in front of the others."""
    return laid([*entries(), *more] if last else [*more, *entries()])


def cases(add: Add) -> None:
    """The whole group."""
    assert laid(entries()) == GOOD
    _around(add)
    _ends(add)
    _fields(add)
    _entries(add)
    _names(add)
    _meta(add)


def _around(add: Add) -> None:
    for name, description, code, data in (
        ("zip-prefix", "A script before the first header.", "CONTAINER_TAIL", b"#!/bin/sh\n" + GOOD),
        ("zip-prefix-adjusted", "A prefix, all offsets moved with it.", "CONTAINER_DIRECTORY",
         edited("mimetype", lambda r: setattr(r, "gap", b"MZ"))),
        ("zip-suffix", "A byte after the end.", "CONTAINER_TAIL", GOOD + b"\0"),
        ("zip-suffix-64k", "64 KiB of zeros after the end.", "CONTAINER_TAIL", GOOD + bytes(65536)),
        ("zip-concatenated", "The bundle twice.", "CONTAINER_TAIL", GOOD + GOOD),
        ("zip-concatenated-other", "An evil archive before the good one.", "CONTAINER_TAIL",
         build([Raw("mimetype", MIMETYPE), Raw("manifest.json", b"{}")]) + GOOD),
        ("zip-two-ends", "A second set of end records, of an empty archive.", "CONTAINER_TAIL",
         GOOD + end(0, 0, 0)),
        ("zip-end-doubled", "The end records twice.", "CONTAINER_TAIL", GOOD + GOOD[-98:]),
        ("zip-end-before", "Other end records before the good ones.", "CONTAINER_DIRECTORY",
         GOOD[:-98] + end(0, 0, 0) + end(7, len(GOOD) - DIRECTORY, DIRECTORY)),
        ("zip-cut-directory", "The end is there, the directory is not.", "CONTAINER_TAIL",
         GOOD[:DIRECTORY] + GOOD[-98:]),
        ("zip-cut-payload", "The file ends inside the model.", "CONTAINER_TAIL", GOOD[: DIRECTORY - 7]),
        ("zip-cut-tail", "The last byte is missing.", "CONTAINER_TAIL", GOOD[:-1]),
        ("zip-cut-first", "The first byte is missing.", "CONTAINER_TAIL", GOOD[1:]),
        ("zip-cut-tiny", "97 bytes.", "CONTAINER_TRUNCATED", GOOD[:97]),
        ("zip-empty", "No bytes.", "CONTAINER_TRUNCATED", b""),
        ("zip-hole", "4 KiB in the padding are left out.", "CONTAINER_TAIL", GOOD[:20000] + GOOD[24096:]),
        ("zip-zeros", "Only zeros, as long as the bundle.", "CONTAINER_TAIL", bytes(len(GOOD))),
        ("zip-text-mode", "Line ends changed on the way.", "CONTAINER_TAIL", GOOD.replace(b"\n", b"\r\n")),
        ("zip-compressed", "The bundle inside another archive.", "CONTAINER_TAIL",
         build([Raw("tiny.sealpack", GOOD)])),
    ):  # fmt: skip
        add(name, description, code, data)


def _ends(add: Add) -> None:
    for name, description, code, fields in (
        ("end-count-more", "One more entry than there is.", "CONTAINER_DIRECTORY", {"count": 8}),
        ("end-count-fewer", "One entry fewer.", "CONTAINER_DIRECTORY", {"count": 6, "count_here": 6}),
        ("end-count-huge", "2^64 - 1 entries.", "CONTAINER_DIRECTORY", {"count": 2**64 - 1}),
        ("end-count-zero", "No entries.", "CONTAINER_DIRECTORY", {"count": 0, "count_here": 0}),
        ("end-short-count", "The short count is the true one.", "CONTAINER_DIRECTORY", {"short_count": 7}),
        ("end-short-size", "The short size is another one.", "CONTAINER_DIRECTORY", {"short_length": 1}),
        ("end-short-offset", "The short offset is another one.", "CONTAINER_DIRECTORY", {"short_at": 0}),
        ("end-size", "A directory one byte shorter.", "CONTAINER_TAIL", {"length": 1}),
        ("end-size-huge", "A directory of 2^63 bytes.", "CONTAINER_LIMIT", {"length": 1 << 63}),
        ("end-offset-huge", "A directory at 2^64 - 1.", "CONTAINER_TAIL", {"at": 2**64 - 1}),
        ("end-locator", "The locator points to another end.", "CONTAINER_DIRECTORY", {"locator_at": 0}),
        ("end-disks", "Two disks.", "CONTAINER_DIRECTORY", {"disks": 2}),
        ("end-disk", "The directory is on disk 1.", "CONTAINER_DIRECTORY", {"disk": 1}),
        ("end-comment", "An archive comment.", "CONTAINER_TAIL", {"comment": b"safe to run"}),
        ("end-comment-bundle", "The comment is a bundle of its own.", "CONTAINER_TAIL",
         {"comment": build([Raw("mimetype", MIMETYPE)])}),
        ("end-record-long", "The ZIP64 record says it is longer.", "CONTAINER_DIRECTORY", {"record": 100}),
        ("end-extensible", "Extensible data in the ZIP64 record.", "CONTAINER_TAIL", {"extra": b"hidden"}),
        ("end-version", "Made by another system.", "CONTAINER_DIRECTORY", {"made_by": 45}),
    ):  # fmt: skip
        add(name, description, code, laid(entries(), **fields))


def _fields(add: Add) -> None:
    for key, value in (
        ("version", 20), ("method", 8), ("method", 93), ("method", 99), ("flags", 1), ("flags", 8),
        ("flags", 0x800), ("flags", 0x2000), ("time", 1), ("date", 34), ("csize", 4), ("usize", 1 << 30),
        ("crc", 7), ("name", "cart.md"),
    ):  # fmt: skip
        stem = f"{key}-{value}" if key in ("method", "flags") else key
        data = edited("card.md", lambda r, k=key, v=value: r.local.update({k: v}))  # type: ignore[misc]
        add(f"local-header-{stem}", f"Only the local header has this {key}.", "CONTAINER_HEADER", data)
    for key, value, code in (
        ("method", 8, "CONTAINER_DIRECTORY"), ("flags", 1, "CONTAINER_DIRECTORY"),
        ("usize", 4, "CONTAINER_DIRECTORY"), ("size", 3, "CONTAINER_DIRECTORY"),
        ("crc", 7, "CONTAINER_HEADER"), ("name", "care.md", "CONTAINER_HEADER"),
        ("at", 0, "CONTAINER_DIRECTORY"), ("offset", 0, "CONTAINER_DIRECTORY"),
        ("comment", b"note", "CONTAINER_DIRECTORY"), ("disk", 1, "CONTAINER_DIRECTORY"),
        ("internal", 1, "CONTAINER_DIRECTORY"), ("made_by", 45, "CONTAINER_DIRECTORY"),
    ):  # fmt: skip
        data = edited("card.md", lambda r, k=key, v=value: r.central.update({k: v}))  # type: ignore[misc]
        add(f"central-record-{key}", f"Only the directory has this {key}.", code, data)
    for name, mode in (
        ("link", 0o120777), ("directory", 0o040755), ("device", 0o020666), ("setuid", 0o104755),
        ("executable", 0o100755),
    ):  # fmt: skip
        data = edited("card.md", lambda r, m=mode: r.central.update(external=m << 16))  # type: ignore[misc]
        add(f"mode-{name}", f"An entry says it is of mode {mode:o}.", "CONTAINER_DIRECTORY", data)
    both = {"method": 8}
    packed_card = zlib.compress(MEMBERS["card.md"])[2:-4]
    add(
        "deflated",
        "An entry is rightly compressed.",
        "CONTAINER_DIRECTORY",
        laid([Raw(r.name, packed_card, dict(both), dict(both)) if r.name == "card.md" else r
              for r in entries()]),
    )  # fmt: skip
    add(
        "crc-both",
        "Both headers state another checksum, the signed bytes are there.",
        "CONTAINER_CRC",
        edited("card.md", lambda r: (r.local.update(crc=7), r.central.update(crc=7))),
    )
    add(
        "crc-payload",
        "Both headers of the model state another checksum.",
        "CONTAINER_CRC",
        edited(MODEL, lambda r: (r.local.update(crc=7), r.central.update(crc=7))),
    )
    for name, extra in (
        ("unix-owner", struct.pack("<HHBBIBI", 0x7875, 11, 1, 4, 0, 4, 0)),
        ("unicode-path", struct.pack("<HHBI", 0x7075, 10, 1, 0) + b"../x"),
        ("aes", struct.pack("<HHHHBH", 0x9901, 7, 2, 0x4541, 3, 0)),
    ):
        own = struct.pack("<HHQQ", 1, 16, 7, 7) + extra
        data = edited("card.md", lambda r, e=own: r.local.update(extra=e))  # type: ignore[misc]
        add(f"extra-{name}", f"An extra field of kind {name}.", "CONTAINER_DIRECTORY", data)


def _entries(add: Add) -> None:
    card = Raw("card.md", b"# Evil\n")
    add("entry-twice", "A second card, other content.", "CONTAINER_DUPLICATE", extended(card))
    add(
        "entry-twice-first", "The other card stands first.", "CONTAINER_DUPLICATE", extended(card, last=False)
    )
    add(
        "entry-twice-case",
        "CARD.MD beside card.md: one file on Windows.",
        "CONTAINER_DUPLICATE",
        laid(sorted([*entries(), Raw("CARD.MD", b"# Evil\n")], key=lambda r: order_key(r.name))),
    )
    add(
        "entry-file-and-folder",
        "A file below card.md.",
        "CONTAINER_DUPLICATE",
        laid(sorted([*entries(), Raw("card.md/x", b"")], key=lambda r: order_key(r.name))),
    )
    hidden = entries()
    hidden.insert(3, Raw("evil.txt", b"hidden", listed=False))
    add("entry-hidden", "An entry the directory does not list.", "CONTAINER_DIRECTORY", laid(hidden))
    gap = edited("card.md", lambda r: setattr(r, "gap", b"\0" * 16))
    add("entry-gap", "Zeros between two entries.", "CONTAINER_DIRECTORY", gap)
    before = build(_aligned(), before_directory=b"PK\3\4")
    add("entry-gap-directory", "Bytes before the directory.", "CONTAINER_DIRECTORY", before)
    overlap = edited("sbom.cdx.json", lambda r: r.central.update(at=0))
    add("entry-overlap", "An entry lies over another.", "CONTAINER_DIRECTORY", overlap)
    huge = edited("card.md", lambda r: r.central.update(size=2**64 - 1))
    add("entry-size-huge", "A card of 2^64 - 1 bytes.", "CONTAINER_DIRECTORY", huge)
    bomb = edited("card.md", lambda r: r.central.update(size=1 << 40))
    add("entry-size-bomb", "A card of 1 TiB in a file of 70 KB.", "CONTAINER_DIRECTORY", bomb)
    wrong = edited(MODEL, lambda r: r.local.update(extra=_padding() + b""))
    add("padding-not-zero", "A byte hides in the alignment of the model.", "CONTAINER_HEADER", wrong)
    raws = entries()
    raws[-1].local["extra"] = struct.pack("<HHQQ", 1, 16, len(raws[-1].data), len(raws[-1].data))
    add("payload-anywhere", "The model is not aligned.", "CONTAINER_DIRECTORY", laid(raws))
    swapped = entries()
    swapped[3], swapped[4] = swapped[4], swapped[3]
    add("entry-order", "Two entries change places.", "CONTAINER_ORDER", laid(swapped))
    last = entries()
    last.append(last.pop(0))
    add("mimetype-last", "mimetype stands last.", "CONTAINER_ORDER", laid(last))
    add("mimetype-gone", "There is no mimetype.", "CONTAINER_TAIL", laid(entries()[1:]))
    other = edited("mimetype", lambda r: setattr(r, "data", b"application/vnd.sealpack.bundle2"))
    add("mimetype-changed", "Another mimetype.", "CONTAINER_TAIL", other)
    many = [Raw(f"z{n:04}") for n in range(4090)]
    add("entries-too-many", "4,097 entries.", "CONTAINER_LIMIT", laid(sorted(
        [*entries(), *many], key=lambda r: order_key(r.name))))  # fmt: skip
    ends = laid(sorted([*entries(), Raw("note.bin", end(0, 0, 0))], key=lambda r: order_key(r.name)))
    add(
        "end-in-entry", "End records inside an entry are content, which nobody signed.", "SIG_RESOURCES", ends
    )
    model = world.tiny_gguf(8) + GOOD[-98:] + GOOD[-98:]
    spec = world.BundleSpec(model=model, key=CREATOR)
    add("end-in-payload", "End records inside the signed model are content.", "ok", spec.build())


def _aligned() -> list[Raw]:
    raws = entries()
    laid(raws)
    return raws


def _padding() -> bytes:
    extra: bytes = _aligned()[-1].local["extra"]
    return extra[:-1] + b"\1"


def _names(add: Add) -> None:
    for name, entry in {
        "traversal": "../../etc/cron.d/x", "traversal-inside": "payload/../../x", "absolute": "/etc/passwd",
        "drive": "C:/x", "backslash": "payload\\..\\x", "stream": "card.md:evil", "device": "payload/CON",
        "device-extension": "nul.txt", "trailing-dot": "card.md.", "trailing-space": "card.md ",
        "folder": "payload/", "empty": "", "empty-segment": "payload//x", "dot-segment": "payload/./x",
        "nul": "card.md\0.exe", "newline": "x\ny", "escape": "\x1b[2Jx", "tilde": "~/x", "long": "n" * 201,
        "git": ".", "percent": "%2e%2e/x",
    }.items():  # fmt: skip
        stray = Raw(entry, b"evil")
        code = "CONTAINER_NAME"
        add(f"path-{name}", f"An entry named {entry[:24]!r}.", code, extended(stray))
    for name, entry in (
        ("rtl", "x\u202egpj.exe"),
        ("full-width", "\uff0e\uff0e/x"),
        ("umlaut", "k\u00f6.txt"),
    ):
        add(f"path-{name}", "A name that is not ASCII.", "CONTAINER_DIRECTORY", extended(Raw(entry, b"")))


def _meta(add: Add) -> None:
    for name, entry in {
        "stray": "META/note.txt", "case": "meta/model.sig", "signature-2": "META/model.sig.2",
        "folder": "META/x/model.sig", "pad-01": "META/pad.01", "trust-other": "META/trust/policy.json",
        "license-folder": "META/license/a/b.json", "root-zero": "META/trust/root.0.json",
        "root-signed": "META/trust/root.-1.json",
    }.items():  # fmt: skip
        raws = entries()
        raws.insert(2, Raw(entry, b"x"))
        code = "CONTAINER_DUPLICATE" if name == "case" else "CONTAINER_META"
        add(f"stray-{name}", f"{entry} may not stand in META.", code, laid(raws))
    late = [*entries(), Raw("META/trust/keyring.json", b"{}")]
    add("meta-at-end", "META behind the payload.", "CONTAINER_ORDER", laid(late))
    raws = entries()
    raws.insert(len(raws) - 1, Raw("META/pad.0", bytes(64)))
    add("pad-needless", "A pad where none is needed.", "CONTAINER_DIRECTORY", laid(raws))
    raws = entries()
    raws.insert(2, Raw("META/pad.0", b"evil" + bytes(60)))
    add("pad-elsewhere", "A pad that holds bytes, before the manifest.", "CONTAINER_DIRECTORY", laid(raws))
