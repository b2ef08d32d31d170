"""Models past 4 GiB: every offset is 64-bit, and memory stays where it is (issue of its own: `-m slow`)."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.memory import peak_of
from support.world import CREATOR, make_trust

GIB = 1 << 30
SIZE = 5 * GIB
RSS_LIMIT = 256 << 20  # bytes
SEALPACK = str(Path(sys.executable).with_name("sealpack"))


def large_gguf(path: Path) -> None:
    """One 5 GiB tensor, sparse on disk; a mark past 4 GiB shows that offsets are not cut to 32 bits."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<I", 8)
    head += struct.pack("<Q", 5) + b"llama" + struct.pack("<Q", 1) + b"w"
    head += struct.pack("<IQIQ", 1, SIZE // 4, 0, 0)
    head += bytes(-len(head) % 32)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + SIZE)
        file.seek(len(head) + SIZE - 4)
        file.write(b"MARK")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_five_gib_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    large_gguf(Path("m.gguf"))
    Path("k.pem").write_bytes(CREATOR.to_pem())
    Path("creator.pub.pem").write_text(CREATOR.public.pem)
    Path("trust.json").write_bytes(make_trust().to_bytes())
    Path("LICENSE.txt").write_text("Do as you please.\n")
    build = ["build", "m.gguf", "--id", "acme/large", "--bundle-version", "1.0.0", "--key", "k.pem"]
    build += ["--spdx", "MIT", "--license-text", "LICENSE.txt", "--out", "b.sealpack"]
    peaks = {"build": peak_of(*build)}
    Path("m.gguf").unlink()
    trust = ["--trust", "trust.json"]
    peaks["verify"] = peak_of("verify", "b.sealpack", *trust)
    peaks["leaves"] = peak_of("verify", "b.sealpack", "--leaves", *trust)
    peaks["export"] = peak_of("export", "b.sealpack", "--parts", ".")
    parts = sorted(tmp_path.glob("b.sealpack.0*"))
    assert [p.stat().st_size < 1 << 32 for p in parts] == [True, True]
    listed = "b.sealpack.parts.sha256"
    peaks["verify parts"] = peak_of("verify", listed, "--leaves", *trust)
    peaks["install parts"] = peak_of("install", listed, *trust, "--state", str(tmp_path / "state"))
    print({name: f"{peak >> 20} MiB" for name, peak in peaks.items()})
    assert max(peaks.values()) < RSS_LIMIT, peaks
    for part in parts:
        part.unlink()
    with Path("b.sealpack").open("r+b") as file:  # one bit, past 4 GiB
        at = 4 * GIB + 12345
        file.seek(at)
        file.write(b"\x01")
    wrong = subprocess.run(
        [SEALPACK, "verify", "b.sealpack", "--leaves", *trust], capture_output=True, text=True
    )
    assert wrong.returncode == 3 and "CHUNK_MISMATCH" in wrong.stderr, wrong.stderr
    with Path("b.sealpack").open("r+b") as file:
        file.seek(at)
        file.write(b"\0")
    subprocess.run(["unzip", "-tq", "b.sealpack"], check=True, capture_output=True)
