"""What `license issue` does so that a site can begin today, and `license repair`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import T0, sealpack

from sealpack.builder.build_record import BuildRecord, record_path
from sealpack.format import documents
from sealpack.format.activation import ActivationRequest
from sealpack.format.documents import Parcel
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.format.license import ClockRules, License, Provisional, open_license
from sealpack.format.repair import Repair
from sealpack.format.trust import Trust
from sealpack.verifier.cli import support

PASSPHRASE = "correct horse battery"
COMMERCIAL = ("--preset", "commercial", "--until", "2090-01-01", "--license-id", "L-1")
HELP = ("--provisional-hours", "48", "--provisional-calls", "100")


def issue(home: Path, *more: str | Path) -> int:
    return sealpack("license", "issue", "--project", home, "--customer", "Nord", *more)


def issued(path: Path, trust: Trust) -> License:
    (envelope,) = Parcel.from_bytes(path.read_bytes(), "l").of_kind("license")
    return open_license(envelope, trust)


def refused(capsys: pytest.CaptureFixture[str], code: str, said: str, status: int) -> None:
    err = capsys.readouterr().err
    assert status != 0 and f"error[{code}]" in err and said in err, err


def test_provisional_use_and_the_clock_rule(home: Path, trust: Trust, tmp_path: Path) -> None:
    out = tmp_path / "kit.license"
    options = ("--bundle-id", "acme/m", "--on-back", "deny", "--out", out)
    assert issue(home, *COMMERCIAL, *HELP, *options) == 0
    license = issued(out, trust)
    assert license.provisional == Provisional(48 * 3600, 100)
    assert license.clock == ClockRules("deny")


def test_both_ends_and_a_binding(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = issue(home, *COMMERCIAL, "--bundle-id", "acme/m", *HELP[:2])
    refused(capsys, "USAGE", "--provisional-calls", status)
    status = issue(home, "--preset", "free_dev", "--bundle-id", "acme/m", *HELP)
    refused(capsys, "USAGE", "binds no device", status)


@pytest.fixture
def sealed(home: Path, gguf_model: Path, tmp_path: Path) -> tuple[Path, tuple[str | Path, ...]]:
    """An encrypted bundle, and the options that open its record."""
    words, out = tmp_path / "words", tmp_path / "e.sealpack"
    words.write_text(PASSPHRASE + "\n", encoding="utf-8")
    options = ("--config", home / "sealpack.toml", "--seal-passphrase-file", words, "--out", out)
    assert sealpack("build", gguf_model, "--encrypt", *options) == 0
    return out, ("--seal", record_path(out), "--seal-passphrase-file", words)


def test_a_site_code_opens_the_build_under_this_license(
    home: Path,
    trust: Trust,
    tmp_path: Path,
    sealed: tuple[Path, tuple[str | Path, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, seal = sealed
    out = tmp_path / "kit.license"
    options = ("--bundle", bundle, *seal, "--site-code", "--out", out, "--format", "json")
    capsys.readouterr()
    assert issue(home, *COMMERCIAL, *HELP, *options) == 0
    said = json.loads(capsys.readouterr().out)
    record = BuildRecord.open(record_path(bundle), PASSPHRASE)
    (key,) = issued(out, trust).site_keys or ()
    assert key.bundle_digest == record.bundle_digest
    assert key.open(said["site_code"], "L-1") == record.key.input_key
    registry = (home / "licenses/registry.jsonl").read_text(encoding="utf-8")
    assert said["site_code"] not in out.read_text(encoding="utf-8") + registry


def test_the_code_is_shown_to_people(
    home: Path,
    tmp_path: Path,
    sealed: tuple[Path, tuple[str | Path, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, seal = sealed
    assert issue(home, *COMMERCIAL, "--bundle", bundle, *seal, "--site-code") == 0
    assert "site code " in capsys.readouterr().out


def test_a_code_needs_an_encrypted_build(
    home: Path, sealed: tuple[Path, tuple[str | Path, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, _ = sealed
    status = issue(home, *COMMERCIAL, "--bundle-id", "acme/m", "--site-code")
    refused(capsys, "USAGE", "see --seal", status)
    status = issue(home, *COMMERCIAL, "--bundle", bundle, "--site-code")
    refused(capsys, "USAGE", "record of its build", status)


# --- repair -------------------------------------------------------------------------------------------


def request_of(trust: Trust, path: Path, **members: Any) -> ActivationRequest:
    key = PrivateKey.generate(ED25519)
    made = ActivationRequest(key.public, "ab" * 16, T0, trust.root_digest, "test", **members)
    envelope = documents.seal("activation-request", made.to_dict(), key)
    path.write_bytes(Parcel((envelope,)).to_bytes())
    return ActivationRequest.open(envelope)


def repair(home: Path, request: Path, *more: str | Path) -> int:
    return sealpack("license", "repair", "--project", home, "--request", request, *more)


def test_a_repair_answers_the_request(
    home: Path, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "now", lambda: T0 + 99)
    asking, out = tmp_path / "ask", tmp_path / "help.parcel"
    request = request_of(trust, asking, license_id="L-1", fingerprint="0a1b2c3d")
    assert issue(home, *COMMERCIAL, "--bundle-id", "acme/m") == 0
    assert repair(home, asking, "--now", "--epoch", "2", "--fingerprint", "--out", out) == 0
    (envelope,) = Parcel.from_bytes(out.read_bytes(), "r").of_kind("repair")
    made = Repair.open(envelope, trust)
    assert (made.license_id, made.device_id, made.nonce) == ("L-1", request.device_id, request.nonce)
    assert made.request_digest == request.digest
    assert (made.issued_at, made.now, made.epoch, made.fingerprint) == (T0 + 99, T0 + 99, 2, "0a1b2c3d")


def test_the_license_is_the_one_that_activated_the_device(home: Path, trust: Trust, tmp_path: Path) -> None:
    asking, out = tmp_path / "ask", tmp_path / "help.parcel"
    request_of(trust, asking)
    assert issue(home, *COMMERCIAL, "--bundle-id", "acme/m", "--request", asking) == 0
    assert repair(home, asking, "--epoch", "1", "--out", out) == 0
    (envelope,) = Parcel.from_bytes(out.read_bytes(), "r").of_kind("repair")
    assert (Repair.open(envelope, trust).license_id, Repair.open(envelope, trust).now) == ("L-1", None)


def test_repairs_that_are_not_made(
    home: Path, trust: Trust, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking, out = tmp_path / "ask", tmp_path / "help.parcel"
    request_of(trust, asking, license_id="L-1")
    refused(capsys, "USAGE", "0 licenses", repair(home, asking, "--now", "--out", out))
    assert issue(home, *COMMERCIAL, "--bundle-id", "acme/m") == 0
    refused(capsys, "USAGE", "a repair of what?", repair(home, asking, "--out", out))
    refused(capsys, "USAGE", "tells no hardware", repair(home, asking, "--fingerprint", "--out", out))
    status = repair(home, asking, "--now", "--license-id", "L-9", "--out", out)
    refused(capsys, "USAGE", "0 licenses", status)
    assert not out.exists()
    out.write_text("kept", encoding="utf-8")
    refused(capsys, "OUTPUT_EXISTS", "help.parcel", repair(home, asking, "--now", "--out", out))
    assert repair(home, asking, "--now", "--out", out, "--force") == 0
