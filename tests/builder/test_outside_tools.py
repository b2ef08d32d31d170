"""Tools we did not write reach the same verdict: model_signing, and openssl with sha256sum."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from builder.conftest import Builder


@pytest.fixture
def unpacked(build: Builder, external_model: Path, tmp_path: Path) -> Path:
    """A built bundle, opened by an ordinary zip reader."""
    built = build(external_model, tmp_path / "x.sealpack")
    with zipfile.ZipFile(built.path) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "d")
    return tmp_path / "d"


def model_signing(folder: Path, key: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("model_signing")
    command = [tool, "verify", "key", folder, "--signature", folder / "META/model.sig"]
    command += ["--public_key", key, "--no-ignore-git-paths"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_model_signing_accepts_and_sees_every_change(unpacked: Path, home: Path) -> None:
    key = home / "keys/bundle.pub.pem"
    found = model_signing(unpacked, key)
    assert found.returncode == 0, found.stderr
    assert model_signing(unpacked, home / "keys/license.pub.pem").returncode != 0
    data = bytearray((unpacked / "payload/weights/net.bin").read_bytes())
    data[1000] ^= 1
    (unpacked / "payload/weights/net.bin").write_bytes(data)
    assert model_signing(unpacked, key).returncode != 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the package openssl")
def test_openssl_and_sha256sum_accept(unpacked: Path, home: Path, tmp_path: Path) -> None:
    envelope = json.loads((unpacked / "META/model.sig").read_bytes())["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    pae = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(payload), payload)
    (tmp_path / "pae").write_bytes(pae)
    verify = ["openssl", "dgst", "-sha256", "-verify", home / "keys/bundle.pub.pem"]
    verify += ["-signature", tmp_path / "sig", tmp_path / "pae"]
    subprocess.run(verify, check=True, capture_output=True)
    resources = json.loads(payload)["predicate"]["resources"]
    sums = "".join(f"{r['digest']}  {r['name']}\n" for r in resources)
    subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", "-"], input=sums.encode(), cwd=unpacked, check=True
    )
    listed = {r["name"] for r in resources}
    there = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    assert {name for name in there if not name.startswith("META/")} == listed


def test_a_leaf_is_what_dd_and_sha256sum_say(unpacked: Path) -> None:
    table = (unpacked / "chunks/0.sha256c").read_bytes()
    dd = subprocess.run(
        ["dd", f"if={unpacked / 'payload/model.onnx'}", "bs=1M", "count=1", "status=none"],
        check=True,
        capture_output=True,
    )
    said = subprocess.run(["sha256sum"], input=dd.stdout, check=True, capture_output=True)
    assert said.stdout.split()[0].decode() == table[:32].hex()
