"""The demo does the main job, and what it leaves is what it says."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from e2e.conftest import Demo, Run


def test_it_leaves_exactly_what_is_promised(demo: Demo) -> None:
    names = {str(p.relative_to(demo.folder)) for p in demo.folder.rglob("*") if p.is_file()}
    plain = {n for n in names if not n.startswith("state/")}
    usage = {n for n in plain if n.startswith("usage/") and n.endswith(".usage.gz")}
    acks = {n for n in plain if n.startswith("acks/")}
    assert len(usage) == len(acks) == 1
    assert plain - usage - acks == {
        "keys/creator.pub.pem",
        "trust/trust.json",
        "bundles/minilm-1.0.0.sealpack",
        "bundles/tinylm-1.0.0.sealpack",
        "licenses/hospital-north.license",
        "licenses/registry.jsonl",
        "invoices/INV-000001.json",
        "invoices/INV-000001.csv",
        "invoices/INV-000001.html",
        "settlement.db",
    }


def test_no_private_key_of_the_vendor_is_kept(demo: Demo) -> None:
    for path in demo.folder.rglob("*"):
        if path.is_file() and path.parent.name != "state" and path.stat().st_size < 1 << 20:
            assert b"PRIVATE KEY" not in path.read_bytes(), path


def test_it_shows_answers_a_refusal_and_the_bill(demo: Demo) -> None:
    assert '"AS IS" WITHOUT WARRANTY OF ANY KIND' in demo.said
    assert "error[UNSETTLED_LIMIT]: 6 of 6 calls are used until usage is settled" in demo.said
    assert re.search(r"1 logs, \d+ receipts: all agree", demo.said)
    assert "payout to creator:sealpack-demo" in demo.said


def test_the_invoice_adds_up(demo: Demo) -> None:
    invoice = json.loads((demo.folder / "invoices" / "INV-000001.json").read_bytes())
    net, tax, total = (Decimal(invoice[name]) for name in ("net", "tax", "total"))
    assert sum(Decimal(line["amount"]) for line in invoice["lines"]) == net
    assert sum(Decimal(share["amount"]) for share in invoice["shares"]) == net
    assert tax == (net * 20 / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert net + tax == total


def test_the_bundles_verify(demo: Demo, sealpack: Run) -> None:
    for name in ("minilm", "tinylm"):
        done = sealpack("verify", demo.bundle(name), "--trust", demo.trust, "--format", "json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["verdict"] == "pass" and report["tier"]["proven"] == "Verified"
        assert report["evidence"][0]["method"]["evaluated"] >= 100


@pytest.fixture(scope="module")
def unpacked(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("unzip") is None:
        pytest.skip("needs the Debian package unzip")
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["unzip", "-q", str(demo.bundle("tinylm")), "-d", str(folder)], check=True)
    return folder


def test_model_signing_accepts_it(demo: Demo, unpacked: Path) -> None:
    tool = str(Path(sys.executable).with_name("model_signing"))
    command = [tool, "verify", "key", str(unpacked), "--signature", str(unpacked / "META" / "model.sig")]
    command += ["--public_key", str(demo.public_key), "--no-ignore-git-paths"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout + done.stderr


def test_openssl_and_sha256sum_accept_it(demo: Demo, unpacked: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the Debian package openssl")
    script = f"""
        set -eu
        python=$1; d=$2; key=$3; cd {tmp_path}
        "$python" -c 'import json,sys,base64
e = json.load(open(sys.argv[1]))["dsseEnvelope"]
open("payload", "wb").write(base64.b64decode(e["payload"]))
open("sig", "wb").write(base64.b64decode(e["signatures"][0]["sig"]))
for r in json.load(open("payload"))["predicate"]["resources"]:
    print(r["digest"] + "  " + r["name"])' "$d/META/model.sig" > SHA256SUMS
        {{ printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(wc -c < payload)"; cat payload; }} > pae
        openssl dgst -sha256 -verify "$key" -signature sig pae
        cd "$d" && sha256sum --strict --quiet -c {tmp_path}/SHA256SUMS
    """
    command = ["sh", "-c", script, "sh", sys.executable, str(unpacked), str(demo.public_key)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Verified OK" in done.stdout


def test_one_flipped_byte_anywhere_is_refused_with_a_code(demo: Demo, tmp_path: Path) -> None:
    from sealpack.format.errors import CODES
    from sealpack.format.trust import Trust
    from sealpack.verifier import verify_bundle

    trust = Trust.load(demo.trust.read_bytes())
    data = bytearray(demo.bundle("tinylm").read_bytes())
    chance = random.Random(20261121)
    places = [0, 30, len(data) - 1, len(data) - 98, len(data) - 300]
    places += chance.sample(range(60_000), 40) + chance.sample(range(len(data)), 40)
    broken = tmp_path / "broken.sealpack"
    digest = hashlib.sha256(data).hexdigest()
    for place in places:
        data[place] ^= 1 << chance.randrange(8)
        broken.write_bytes(data)
        report = verify_bundle(broken, trust)
        assert not report.ok, f"byte {place}"
        assert report.exit_status == 3, f"byte {place}: {report.failures}"
        assert report.failures[0].code in CODES
        data[:] = demo.bundle("tinylm").read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest


def test_a_second_run_into_the_same_folder_is_refused(demo: Demo, sealpack: Run) -> None:
    done = sealpack("demo", "--keep", demo.folder)
    assert done.returncode == 2
    assert "error[OUTPUT_EXISTS]" in done.stderr
