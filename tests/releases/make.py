"""Make the samples of a release: one small bundle, license, usage file and acknowledgement, kept for good.

usage: python tests/releases/make.py VERSION     (run once per release, from the tree of that release)

Everything goes through the verbs, with keys made for the occasion and thrown away. Later versions must keep
accepting what lies here; nothing in a released folder is ever made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIG = """
[bundle]
id = "sealpack-test/digits"
version = "1.0.0"
release_index = 1
intended_use = "Reading single digits in the tests of later versions"

[license]
spdx = "Apache-2.0"
text = "licenses/LICENSE.txt"

[license.terms]
title = "Release sample"
plan = {id = "edge-pro", version = 1}

[io]
task = "classification"
pre = {kind = "tensor"}
post = {kind = "labels", output = "probabilities", labels = ["0","1","2","3","4","5","6","7","8","9"]}

[[io.samples]]
input = {inputs = {pixels = [%(pixels)s]}}
expect = {label = "%(label)s"}

[card]
file = "card.md"

[evidence]
files = ["evidence/digits.json"]
thresholds = [{metric = "accuracy", min = "0.9"}]

[keys]
bundle = "keys/hybrid.pem"
license = "keys/license.pem"

[trust]
file = "trust/trust.json"
"""


def main() -> None:
    target = HERE / sys.argv[1]
    if target.exists():
        sys.exit(f"{target} exists: a release's samples are never made again")
    with tempfile.TemporaryDirectory() as work:
        make(Path(work), target)


def make(work: Path, target: Path) -> None:
    from sealpack.builder.demo import models

    places = {"SEALPACK_STATE": str(work / "state"), "SEALPACK_MARKS": str(work / "marks")}

    def run(*arguments: object) -> None:
        command = [sys.executable, "-m", "sealpack.verifier", *map(str, arguments)]
        subprocess.run(command, check=True, env=os.environ | places)

    project, stick = work / "p", work / "stick"
    stick.mkdir()
    run("init", project, "--publisher", "sealpack-test")
    models.make_digits_onnx(work / "digits.onnx")
    models.write_digits_samples(work / "samples.jsonl")
    samples = [json.loads(line) for line in (work / "samples.jsonl").read_text().splitlines()]
    first = {"pixels": samples[0]["input"]["pixels"], "label": samples[0]["label"]}
    (project / "sealpack.toml").write_text(CONFIG % first)
    advance_trust(run, project)
    run("evaluate", work / "digits.onnx", "--config", project / "sealpack.toml",
        "--data", work / "samples.jsonl",
        "--key", project / "keys" / "evidence.pem", "--valid-days", "3650",
        "--out", project / "evidence" / "digits.json")  # fmt: skip
    bundle = stick / "digits.sealpack"
    run("build", work / "digits.onnx", "--config", project / "sealpack.toml", "--out", bundle)
    run("trust", "pin", project / "trust" / "trust.json", "--yes")
    run("install", bundle)
    run("activate", "request", "--out", stick / "device.request", "--label", "sample")
    run("license", "issue", "--project", project, "--preset", "commercial", "--customer", "Sample Customer",
        "--customer-id", "sample", "--license-id", "sample-1", "--until", "2199-12-31", "--binding", "key",
        "--devices", "1", "--bundle", bundle, "--allowance", "calls=100", "--plan", "edge-pro/1",
        "--request", stick / "device.request", "--out", stick / "sample.license")  # fmt: skip
    run("activate", "install", stick / "sample.license")
    for sample in samples[:3]:
        pixels = {"pixels": [sample["input"]["pixels"]]}
        (work / "input.json").write_text(json.dumps(pixels))
        run("run", "sealpack-test/digits", "--input", work / "input.json")
    run("receipts", "export", "--out", stick)
    database = work / "settlement.db"
    registry = project / "licenses" / "registry.jsonl"
    books = (project / "trust" / "trust.json", project / "plans" / "plan.yaml", registry)
    run("settle", "--db", database, "import", *books)
    run("settle", "--db", database, "sync", stick, "--key", project / "keys" / "settlement.pem",
        "--witness", project / "keys" / "witness.pem")  # fmt: skip
    target.mkdir()
    shutil.copyfile(project / "trust" / "trust.json", target / "trust.json")
    shutil.copyfile(registry, target / "registry.jsonl")
    shutil.copyfile(project / "plans" / "plan.yaml", target / "plan.yaml")
    shutil.copyfile(project / "keys" / "hybrid.pub.pem", target / "creator.pub.pem")
    shutil.copyfile(project / "keys" / "hybrid.mldsa.pub.pem", target / "creator.mldsa.pub.pem")
    for source, name in (
        (bundle, "bundle.sealpack"),
        (stick / "sample.license", "sample.license"),
        (stick / "device.request", "device.request"),
        (next(stick.glob("*.usage.gz")), "sample.usage.gz"),
        (next(stick.glob("*.ack")), "sample.ack"),
    ):
        shutil.copyfile(source, target / name)
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in sorted(target.iterdir())]
    (target / "SHA256SUMS").write_text("".join(f"{line}\n" for line in sums))


def advance_trust(run: Callable[..., None], project: Path) -> None:
    """A second root, a bundle key with an ML-DSA key beside it, a key for evidence: what trust may hold."""
    keys, trust = project / "keys", ("--trust", project / "trust" / "trust.json")
    run("key", "new", keys / "root2.pem")
    run("trust", "rotate", "--new-root", keys / "root2.pem", "--root-key", keys / "root.pem", *trust)
    again = ("--root-key", keys / "root2.pem", *trust)
    run("key", "new", keys / "hybrid.pem", "--with-mldsa")
    run("trust", "add", "--key", keys / "hybrid.pub.pem", "--role", "bundle", "--mldsa", *again)
    run("key", "new", keys / "evidence.pem")
    run("trust", "add", "--key", keys / "evidence.pub.pem", "--role", "evidence", *again)


if __name__ == "__main__":
    main()
