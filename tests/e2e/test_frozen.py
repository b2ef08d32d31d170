"""The frozen executables as a customer has them: no Python on PATH, no network, nothing of this tree."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conftest import Demo, Run

# A network namespace of its own, where the kernel permits one; otherwise the test still runs, online.
_PROBE = subprocess.run(["unshare", "-n", "true"], capture_output=True) if shutil.which("unshare") else None
OFFLINE = ["unshare", "-n"] if _PROBE is not None and _PROBE.returncode == 0 else []


class Customer:
    """A customer's machine: the frozen folder with its roots file, a home, a state directory, a stick."""

    def __init__(self, frozen: Path, demo: Demo, folder: Path) -> None:
        self.program = folder / "sealpack-runtime"
        shutil.copytree(frozen / "sealpack-runtime", self.program, symlinks=True)
        shutil.copyfile(demo.trust, self.program / "roots.json")
        self.home, self.stick = folder / "home", folder / "stick"
        self.home.mkdir()
        self.stick.mkdir()
        self.environment = {"HOME": str(self.home), "PATH": "/nonexistent"}

    def run(self, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
        command = [*map(_absolute, OFFLINE), str(self.program / "sealpack-runtime"), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, cwd=self.stick, timeout=120
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}"
        return done

    def says_no(self, *arguments: object) -> bool:
        """Whether the command is refused with exit status 4; any other failure is a failure."""
        command = [str(self.program / "sealpack-runtime"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=120)
        assert done.returncode in (0, 4), done.stderr
        return done.returncode == 4


def _absolute(word: str) -> str:
    return shutil.which(word) or word


@pytest.fixture(scope="module")
def vendor(demo: Demo, sealpack: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vendor's project of this test's own, so that it can answer requests."""
    folder = tmp_path_factory.mktemp("vendor") / "project"
    assert sealpack("init", folder, "--publisher", "acme").returncode == 0
    return folder


@pytest.fixture(scope="module")
def customer(
    frozen: Path, demo: Demo, vendor: Path, sealpack: Run, tmp_path_factory: pytest.TempPathFactory
) -> Customer:
    """A customer of that vendor, activated for one GGUF and one ONNX bundle."""
    own = Demo(vendor, "")
    machine = Customer(frozen, own, tmp_path_factory.mktemp("customer"))
    _build(vendor, sealpack)
    for name in ("words", "digits"):
        machine.run("install", vendor / f"{name}.sealpack")
    machine.run("activate", "request", "--out", "device.request", "--label", "cart-3")
    issue = ["license", "issue", "--project", vendor, "--preset", "commercial", "--customer", "Clinic"]
    issue += ["--customer-id", "clinic", "--license-id", "clinic-1", "--until", "2099-12-31"]
    issue += ["--bundle", vendor / "words.sealpack", "--bundle", vendor / "digits.sealpack"]
    issue += ["--binding", "key", "--devices", "1", "--plan", "edge-pro/1", "--allowance", "calls=4"]
    issue += ["--request", machine.stick / "device.request", "--out", machine.stick / "clinic.license"]
    done = sealpack(*issue)
    assert done.returncode == 0, done.stderr
    machine.run("activate", "install", "clinic.license")
    return machine


def _build(vendor: Path, sealpack: Run) -> None:
    from sealpack.builder.demo import models

    models.make_digits_onnx(vendor / "digits.onnx")
    common = (vendor / "sealpack.toml").read_text()
    labels = json.dumps([str(n) for n in range(10)])
    digits = 'task = "classification"\npre = {kind = "tensor"}\npost = {kind = "labels", output = '
    digits += f'"probabilities", labels = {labels}}}\n'
    for name, model, io in (
        ("words", models.tinylm_path(), 'task = "text-generation"\n'),
        ("digits", vendor / "digits.onnx", digits),
    ):
        config = common.replace("[io] ", "[io]\n" + io + "#").replace("acme/my-model", f"acme/{name}")
        (vendor / f"{name}.toml").write_text(config)
        done = sealpack(
            "build", model, "--config", vendor / f"{name}.toml", "--out", vendor / f"{name}.sealpack"
        )
        assert done.returncode == 0, done.stderr


def test_both_engines_answer_offline(customer: Customer) -> None:
    words = customer.run("run", "acme/words", "--prompt", "THE SOFTWARE IS PROVIDED", "--max-tokens", "12")
    assert '"AS IS" WITHOUT WARRANTY OF ANY KIND' in words.stdout
    sample = json.loads(_sample_line())
    (customer.stick / "digit.json").write_text(json.dumps({"pixels": [sample["input"]["pixels"]]}))
    digit = customer.run("run", "acme/digits", "--input", "digit.json", "--format", "json")
    assert sample["label"] in digit.stdout


def _sample_line() -> str:
    import tempfile

    from sealpack.builder.demo import models

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.jsonl"
        models.write_digits_samples(path, 1)
        return path.read_text().splitlines()[0]


def test_receipts_leave_and_are_settled_outside(customer: Customer, vendor: Path, sealpack: Run) -> None:
    for _ in range(5):
        if customer.says_no("run", "acme/words", "--prompt", "A", "--max-tokens", "1"):
            break
    else:
        pytest.fail("the allowance of 4 calls was never used up")
    customer.run("receipts", "export", "--out", customer.stick)
    usage = sorted(customer.stick.glob("*.usage.gz"))
    assert len(usage) == 1
    customer.run("receipts", "verify", usage[0])
    database = vendor / "settlement.db"
    imported = [vendor / "trust" / "trust.json", vendor / "plans" / "plan.yaml"]
    imported += [vendor / "licenses" / "registry.jsonl"]
    assert sealpack("settle", "--db", database, "import", *imported).returncode == 0
    keys = vendor / "keys"
    done = sealpack("settle", "--db", database, "sync", customer.stick, "--key", keys / "settlement.pem",
                    "--witness", keys / "witness.pem")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    customer.run("sync", customer.stick)
    again = customer.run("run", "acme/words", "--prompt", "THE SOFTWARE", "--max-tokens", "4")
    assert again.stdout.strip()


def test_it_believes_only_its_own_roots(customer: Customer, demo: Demo) -> None:
    done = customer.run("trust", "pin", demo.trust, "--yes", expect=3)
    assert "error[TRUST_CONFLICT]" in done.stderr
    done = customer.run("install", demo.bundle("tinylm"), expect=3)
    assert "error[" in done.stderr


def test_it_shows_customers_verbs_only(customer: Customer) -> None:
    said = customer.run("--help").stdout
    assert "activate" in said and "verify" in said
    for verb in ("build", "settle", "license", "vault", "demo"):
        assert f"\n  {verb} " not in said
    customer.run("build", expect=2)


def test_nothing_is_written_outside_the_state_directory(customer: Customer) -> None:
    found = {str(p.relative_to(customer.home)).split("/sealpack")[0] for p in customer.home.rglob("*")}
    ours = {".local/share", ".local/state"}  # the state, and its high-water marks away from it
    assert {p for p in found if not any(own.startswith(p) for own in ours)} <= ours, found


def test_the_network_really_is_gone() -> None:
    if not OFFLINE:
        pytest.skip("needs permission for unshare -n (Debian package util-linux)")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        done = subprocess.run([*OFFLINE, sys.executable, "-c", code], capture_output=True)
    assert done.returncode != 0


def test_sealpack_verify_is_one_file(frozen: Path, demo: Demo) -> None:
    tool = frozen / "sealpack-verify"
    command = [str(tool), "verify", str(demo.bundle("minilm")), "--trust", str(demo.trust)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS")
    assert os.access(tool, os.X_OK)
