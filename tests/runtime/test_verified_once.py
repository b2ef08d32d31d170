"""Starting reads no payload again: an installed bundle was hashed when it was copied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.site import INPUT, T0, Site

import sealpack.runtime
from sealpack.format import chunks
from sealpack.format.container import BundleReader
from sealpack.format.errors import SealpackError
from sealpack.runtime import store

ASSET = "payload/table.bin"
SIZE = 24 << 20


def bytes_read() -> int:
    """What this process has read through system calls, from files of any kind."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar:")))


def test_a_start_hashes_and_reads_no_payload(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = site._tiny()["extra"] | {ASSET: ("asset", "application/octet-stream", bytes(SIZE))}
    site.pin()
    before = bytes_read()
    site.install(extra=extra)
    assert bytes_read() - before > 2 * SIZE  # copied, and the copy hashed
    site.activate()

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("payload is hashed at a start")

    names: list[str] = []
    real = BundleReader.read_into

    def read_into(self: BundleReader, name: str, offset: int, view: memoryview) -> None:
        names.append(name)
        real(self, name, offset, view)

    monkeypatch.setattr(chunks, "leaves_at", refused)
    monkeypatch.setattr(chunks, "digest_file", refused)
    monkeypatch.setattr(BundleReader, "read_into", read_into)
    sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1).close()  # libraries are loaded now
    before = bytes_read()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        assert bytes_read() - before < SIZE // 8
        assert runtime.infer(INPUT).receipt.meters["calls"] == 1
    assert "manifest.json" in names and not [n for n in names if n.startswith("payload/")]


@pytest.mark.parametrize("more", [b"", b"\0"], ids=["shorter", "longer"])
def test_a_source_that_changes_its_size_while_it_is_copied(
    site: Site, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    """No more is copied than the file held when it was opened: one that grows would fill the disk."""
    path = site.pin().bundle()
    data = path.read_bytes()
    read: list[int] = []

    def blocks(_: Path) -> Iterator[bytes]:
        yield data[:-1]
        for number in range(3 * len(more)):
            read.append(number)
            yield b"xx"

    monkeypatch.setattr(store, "whole_blocks", blocks)
    with site.state() as state:
        with pytest.raises(SealpackError, match=r"IO_ERROR.*changed while it was copied"):
            store.install(state, path, T0)
        assert list(state.home.store.iterdir()) == [] and read == [0] * len(more)
