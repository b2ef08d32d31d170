"""`sealpack license epoch-token`: leave for one device, that its runtime and settlement both believe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import world
from support.device import Device

from sealpack.format.documents import Parcel
from sealpack.format.epoch_token import EpochToken
from sealpack.verifier.cli.main import make_cli, run

DEVICE = Device()


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """What says where keys, trust and registry are."""
    files = {
        "license.pem": world.LICENSER.to_pem(),
        "trust.json": DEVICE.trust.to_bytes(),
        "registry.jsonl": DEVICE.line(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "license.pem").chmod(0o600)
    named = {
        "key": "license.pem",
        "trust": "trust.json",
        "registry": "registry.jsonl",
        "out": "leave.license",
    }
    return [word for name, file in named.items() for word in (f"--{name}", str(tmp_path / file))]


def token(*arguments: str) -> int:
    return run(make_cli(), ["license", "epoch-token", *arguments])


def test_a_token_for_a_device(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--license-id", "L-1", "--device", DEVICE.id, "--epoch", "2", "--reason", "disk replaced"]
    assert token(*asked, *options, "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["device_id"], said["epoch"]) == (DEVICE.id, 2)
    parcel = Parcel.from_bytes((tmp_path / "leave.license").read_bytes())
    (envelope,) = parcel.of_kind("epoch-token")
    found = EpochToken.open(envelope, DEVICE.trust, world.ISSUER)
    assert (found.license_id, found.device_id, found.epoch) == ("L-1", DEVICE.id, 2)
    assert found.reason == "disk replaced" and found.issued_at > world.T0 - 10**9
    assert len(parcel.documents) == 1 + len(DEVICE.trust.chain)
    assert token(*asked, *options) == 2  # the file is there
    assert token(*asked, *options, "--force") == 0


@pytest.mark.parametrize(("license_id", "device"), [("L-2", DEVICE.id), ("L-1", "dev-" + "0" * 32)])
def test_a_device_nobody_activated(
    options: list[str], license_id: str, device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert token("--license-id", license_id, "--device", device, "--epoch", "1", *options) == 2
    assert "knows no device" in capsys.readouterr().err
    assert not (tmp_path / "leave.license").exists()
