"""Targets: the container over any bytes, and the look into the SBOM."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any, cast

from support import world

from fuzz.target import VECTORS, Target, mutate_json
from sealpack.format.container import MIMETYPE, BundleReader, Item, check_name, is_pad, lay_out
from sealpack.format.errors import SealpackError
from sealpack.format.manifest import Manifest
from sealpack.verifier import content

MAX_CONTAINER = 1 << 18
MEMBERS = world.BundleSpec().members()
MANIFEST = Manifest.from_bytes(MEMBERS["manifest.json"])


def run_container(data: bytes) -> None:
    """A container that is accepted is, byte for byte, the one its own entries are laid out to."""
    with BundleReader(io.BytesIO(data)) as bundle:
        placed, closing = lay_out([bundle.entries[name].item for name in bundle.names])
        rebuilt = b"".join(p.header + b"".join(bundle.blocks(p.item.name)) for p in placed) + closing
        assert rebuilt == data
        for name in bundle.names:
            check_name(name)
        whole = {name: _read(bundle, name) for name in bundle.entries}
        if None not in whole.values():
            named = {n: d for n, d in whole.items() if d is not None and not is_pad(n)}
            assert world.pack(named) == data


def _read(bundle: BundleReader, name: str) -> bytes | None:
    try:
        return bundle.read(name)
    except SealpackError as error:
        assert error.code == "CONTAINER_CRC"
        return None


def mutate_container(data: bytes, chance: random.Random) -> bytes | None:
    """Entries changed and laid out anew, a byte changed, or a broken file with its checksums made right."""
    try:
        with BundleReader(io.BytesIO(data)) as bundle:
            entries = {name: b"".join(bundle.blocks(name)) for name in bundle.names}
    except SealpackError:
        return _right_checksums(data)
    if chance.random() < 0.5:
        at = chance.randrange(len(data))
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    names = list(entries)
    name = chance.choice(names)
    match chance.randrange(4):
        case 0:
            entries.pop(name)
        case 1:
            entries[name] = entries[name][: chance.randint(0, 40)] + chance.randbytes(chance.randint(0, 40))
        case 2:
            at = chance.randint(0, len(name))
            new = name[:at] + chance.choice(("a", "/", ".", "A", "payload/", "META/")) + name[at:]
            entries[new] = entries.pop(name)
        case _:
            entries[f"META/license/{chance.randrange(9)}.json"] = b"{}"
    try:
        return world.pack(entries)
    except SealpackError:
        return None


def _right_checksums(data: bytes) -> bytes | None:
    """A file whose end records are whole, with every listed entry's CRC corrected in both headers."""
    if len(data) < 98 or data[-98:-94] != b"PK\6\6":
        return None
    fixed = bytearray(data)
    length, at = struct.unpack("<QQ", data[-58:-42])
    end = min(at + length, len(data) - 98)
    while 0 <= at <= end - 46 and data[at : at + 4] == b"PK\1\2":
        name_len, extra_len, comment_len = struct.unpack_from("<3H", data, at + 28)
        extra = data[at + 46 + name_len : at + 46 + name_len + 28]
        if len(extra) < 28:
            return bytes(fixed)
        size, _, local = struct.unpack_from("<3Q", extra, 4)
        if local + 30 > len(data) or size > len(data):
            return bytes(fixed)
        start = local + 30 + sum(struct.unpack_from("<2H", data, local + 26))
        crc = struct.pack("<I", zlib.crc32(data[start : start + size]))
        fixed[at + 16 : at + 20] = crc
        fixed[local + 14 : local + 18] = crc
        at += 46 + name_len + extra_len + comment_len
    return bytes(fixed)


def seeds_container() -> Iterator[bytes]:
    """Small containers without payload, and every container vector of moderate size."""
    plain = {"mimetype": MIMETYPE, "manifest.json": b"{}", "card.md": b"# x\n"}
    yield world.pack(plain)
    yield world.pack(plain | {"META/model.sig": b"{}", "META/license/L-1.json": b"{}"})
    yield world.pack(plain | {f"META/trust/root.{n}.json": b"{}" for n in (1, 2, 10)})
    for path in sorted(VECTORS.glob("container/*/bundle.sealpack.gz")):
        data = gzip.decompress(path.read_bytes())
        if len(data) <= MAX_CONTAINER:
            yield data


class OneFile:
    """As much of a bundle as the SBOM's reader asks for."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, name: str) -> bytes:
        """The SBOM, whatever the name."""
        return self.data


def run_sbom(data: bytes) -> None:
    """The line and the facts that go into reports can be printed and written as UTF-8."""
    facts: dict[str, Any] = {}
    line = content.sbom(cast(BundleReader, OneFile(data)), MANIFEST, facts)
    assert "components" in line
    json.dumps(facts, ensure_ascii=False).encode()


def seeds_sbom() -> Iterator[bytes]:
    """The least SBOM, and one with what others write."""
    yield MEMBERS["sbom.cdx.json"]
    value = json.loads(MEMBERS["sbom.cdx.json"])
    value |= {"metadata": {"timestamp": "2026-01-01T00:00:00Z"}, "dependencies": [{"ref": "model"}]}
    value["components"] += [{"type": "library", "name": "l", "version": "1.0", "hashes": []}]
    yield json.dumps(value).encode()
    yield json.dumps(value | {"specVersion": "\ud800"}).encode()
    yield json.dumps(value | {"specVersion": 1e400}).encode()


def empty_items(count: int) -> list[Item]:
    """Names in order without content: for the bounds tests."""
    return [Item(f"f{number:05}", 0, 0) for number in range(count)]


TARGETS = (
    Target("container", run_container, seeds_container, mutate_container, max_len=MAX_CONTAINER),
    Target("sbom", run_sbom, seeds_sbom, mutate_json),
)
