"""`license issue` by codes: requests as scans and pictures, the reply as pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from builder.conftest import sealpack
from builder.test_cli import Capture, as_json, at_home, make_request

from sealpack.format import qr
from sealpack.format.documents import Parcel
from sealpack.verifier.cli import codes

__all__ = ["at_home"]
OFFER = ("--preset", "pro", "--binding", "key", "--customer", "Hospital Nord", "--bundle-id", "acme/my-model")


def issue(*more: object) -> int:
    return sealpack("license", "issue", *OFFER, "--format", "json", *more)


def test_a_request_is_taken_from_codes_and_answered_in_codes(at_home: Path, capsys: Capture) -> None:
    request = make_request(at_home, 1).read_bytes()
    for number, version in ((1, 34), (3, 6)):
        capsys.readouterr()
        pictures = codes.save(at_home / f"ask{number}.png", qr.frames(request, version), force=False)
        given = [pictures[0]] if number == 1 else pictures[1:]
        options = [word for path in given for word in ("--request", path)]
        assert issue("--license-id", f"L-{number}", *options, "--qr", "codes") == 0
        told = as_json(capsys)
        assert told["device_id"] is not None
        document, _ = codes.read_document(told["pictures"])
        assert document == Path(told["path"]).read_bytes()
        assert len(Parcel.from_bytes(document).of_kind("activation")) == 1
    text = at_home / "scans.txt"
    text.write_text("\n".join(reversed(qr.frames(request, 6))))
    assert issue("--license-id", "L-4", "--request", text) == 0


def test_nothing_is_issued_when_codes_are_missing_or_cannot_be_written(
    at_home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(at_home, 1)
    (at_home / "scans.txt").write_text(qr.frames(request.read_bytes(), 6)[1])
    assert issue("--request", at_home / "scans.txt") == 3
    assert "error[QR_MISSING]: code" in capsys.readouterr().err
    (at_home / "codes").mkdir()
    (at_home / "codes/L-1.png").write_text("mine")
    assert issue("--license-id", "L-1", "--request", request, "--qr", "codes") == 2
    assert "error[OUTPUT_EXISTS]" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert issue("--license-id", "L-1", "--request", request, "--qr", "other") == 2
    assert "pip install 'sealpack[builder]'" in capsys.readouterr().err
    left = [p.name for p in (at_home / "licenses").iterdir() if p.suffix in (".license", ".jsonl")]
    assert left == [] and (at_home / "codes/L-1.png").read_text() == "mine"
    assert not (at_home / "other").exists()
