"""Starting reads no payload again: an installed bundle was hashed when it was copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.site import INPUT, Site

import sealpack.runtime
from sealpack.format import chunks
from sealpack.format.container import BundleReader

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
