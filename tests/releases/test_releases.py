"""What an earlier version made is accepted by this one: bundle, license, usage file, acknowledgement."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, Lease
from sealpack.format.documents import Parcel
from sealpack.format.keys import PublicKey
from sealpack.format.license import open_license
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import verify_usage
from sealpack.verifier.checks import inspect_bundle

HERE = Path(__file__).resolve().parent
RELEASES = sorted(p for p in HERE.iterdir() if (p / "trust.json").exists())


@pytest.fixture(params=RELEASES, ids=lambda p: p.name)
def release(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


@pytest.fixture
def trust(release: Path) -> Trust:
    return Trust.load((release / "trust.json").read_bytes())


def test_there_is_a_sample_of_every_release_in_the_changelog() -> None:
    changelog = (HERE.parents[1] / "CHANGELOG.md").read_text()
    versions = {line.split()[1] for line in changelog.splitlines() if line.startswith("## ")}
    versions.discard("Unreleased")
    assert versions == {p.name for p in RELEASES}


def test_samples_never_change(release: Path) -> None:
    listed = (release / "SHA256SUMS").read_text().splitlines()
    made = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in sorted(release.iterdir())
            if p.name != "SHA256SUMS"]  # fmt: skip
    assert listed == made


def test_the_bundle_verifies(release: Path, trust: Trust) -> None:
    report, verified = inspect_bundle(release / "bundle.sealpack", trust)
    assert report.ok, report.failures
    assert verified is not None and verified.manifest.model_io.task == "classification"
    assert report.facts["tier"]["proven"] == ("Experimental" if release.name == "0.2.0" else "Verified")
    key = PublicKey.from_pem((release / "creator.pub.pem").read_text())
    beside = release / "creator.mldsa.pub.pem"
    mldsa = PublicKey.from_pem(beside.read_text()) if beside.exists() else None
    assert inspect_bundle(release / "bundle.sealpack", key=key, mldsa_key=mldsa)[0].ok


def test_the_license_opens(release: Path, trust: Trust) -> None:
    parcel = Parcel.from_bytes((release / "sample.license").read_bytes())
    license = open_license(parcel.of_kind("license")[0], trust)
    request = ActivationRequest.open(
        Parcel.from_bytes((release / "device.request").read_bytes()).documents[0]
    )
    activation = Activation.open(parcel.of_kind("activation")[0], trust)
    lease = Lease.open(parcel.of_kind("lease")[0], trust)
    assert activation.request_digest == request.digest
    assert {license.license_id, activation.license_id, lease.license_id} == {"sample-1"}
    assert lease.device_id == activation.device_id == request.device_id


def test_the_usage_file_is_whole(release: Path, trust: Trust) -> None:
    report = verify_usage((release / "sample.usage.gz").read_bytes())
    assert report.ok, report.findings
    assert report.growth.total("calls") == 3


def test_the_acknowledgement_fits_the_usage(release: Path, trust: Trust) -> None:
    ack = Acknowledgement.open(Parcel.from_bytes((release / "sample.ack").read_bytes()).documents[0], trust)
    report = verify_usage((release / "sample.usage.gz").read_bytes())
    assert (ack.size, ack.root) == (report.size, report.root)
    assert ack.lease is not None
    assert Lease.open(ack.lease, trust).ceilings[0].limit == 103


def test_settlement_takes_it(release: Path, tmp_path: Path) -> None:
    def settle(*arguments: object) -> str:
        command = [sys.executable, "-m", "sealpack.verifier", "settle", "--db", tmp_path / "s.db", *arguments]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    settle("import", *(release / name for name in ("trust.json", "plan.yaml", "registry.jsonl")))
    assert settle("ingest", release / "sample.usage.gz").startswith("OK")
    assert "all agree" in settle("reconcile")
