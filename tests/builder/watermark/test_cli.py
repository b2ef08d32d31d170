"""`sealpack vault` and `sealpack watermark` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sealpack.builder.watermark.vault import Vault
from sealpack.verifier.cli.main import main

PASSPHRASE = "correct horse battery"


@pytest.fixture
def run(capsys: Any, monkeypatch: Any) -> Any:
    """Run the command line; returns (exit status, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sealpack", *map(str, arguments)])
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return int(status or 0), captured.out, captured.err

    return call


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


@pytest.fixture
def leaked(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, add_innocents: Any, matrices: Any
) -> Path:
    """A folder with v (vault of 20), clean.onnx, and leaked.onnx, licensee 7's copy."""
    vault = make_vault(tmp_path / "v")
    mark = mark_for(vault, make_onnx(tmp_path / "clean.onnx", matrices), tmp_path / "leaked.onnx", 7)
    add_innocents(vault, mark, 20)
    vault.save()
    return tmp_path


def test_vault_new_and_show(tmp_path: Path, run: Any, secret: Path, monkeypatch: Any) -> None:
    status, out, _ = run("vault", "new", tmp_path / "v", "--passphrase-file", secret)
    assert status == 0 and "back it up" in out
    assert len(Vault.open(tmp_path / "v", PASSPHRASE).root) == 32

    monkeypatch.setenv("SEALPACK_VAULT_PASSPHRASE_FILE", str(secret))
    status, out, _ = run("vault", "show", tmp_path / "v", "--format", "json")
    assert status == 0 and json.loads(out)["marks"] == []

    status, _, err = run("vault", "new", tmp_path / "v")
    assert status == 2 and "OUTPUT_EXISTS" in err


def test_show_prints_no_secret(run: Any, secret: Path, leaked: Path) -> None:
    vault = Vault.open(leaked / "v", PASSPHRASE)
    for form in ("text", "json"):
        status, out, _ = run("vault", "show", leaked / "v", "--passphrase-file", secret, "--format", form)
        assert status == 0 and "licensee-07" in out
        assert vault.root.hex() not in out and vault.marks[0].randomness.hex() not in out


def test_detect_names_the_licensee_and_its_limits(run: Any, secret: Path, leaked: Path) -> None:
    status, out, _ = run(
        "watermark", "detect", leaked / "leaked.onnx",
        "--vault", leaked / "v", "--original", leaked / "clean.onnx", "--passphrase-file", secret,
    )  # fmt: skip
    assert status == 0
    assert "verdict    carries the mark of licensee-07 (license lic-07), p < 1e-30" in out
    assert "corrected for 20 licensees" in out and "does not say who passed the file on" in out


def test_detect_as_json(run: Any, secret: Path, leaked: Path) -> None:
    status, out, _ = run(
        "watermark", "detect", leaked / "clean.onnx",
        "--vault", leaked / "v", "--passphrase-file", secret, "--format", "json",
    )  # fmt: skip
    verdict = json.loads(out)
    assert status == 0 and verdict["schema"] == "sealpack/watermark-verdict/v1"
    assert verdict["named"] == [] and len(verdict["scores"]) == 20 and verdict["limits"]


def test_detect_in_a_foreign_file_does_not_clear_anyone(
    tmp_path: Path, run: Any, secret: Path, leaked: Path, make_onnx: Any, matrices: Any
) -> None:
    foreign = make_onnx(tmp_path / "f.onnx", {"w": matrices["wide"][::-1].copy()})
    status, out, _ = run("watermark", "detect", foreign, "--vault", leaked / "v", "--passphrase-file", secret)
    assert status == 0 and "structure not matched" in out and "limits" in out


def test_bad_input_is_one_sentence(run: Any, secret: Path, leaked: Path) -> None:
    (leaked / "text").write_text("no model")
    wrong = leaked / "wrong"
    wrong.write_text("not the passphrase\n")
    cases = [
        (2, "MODEL_MISSING", leaked / "none", leaked / "v", secret),
        (2, "MODEL_UNKNOWN", leaked / "text", leaked / "v", secret),
        (1, "FILE_MISSING", leaked / "leaked.onnx", leaked / "none", secret),
        (3, "VAULT_INVALID", leaked / "leaked.onnx", leaked / "v", wrong),
        (3, "VAULT_INVALID", leaked / "leaked.onnx", leaked / "clean.onnx", secret),
    ]
    for expected, code, suspect, vault, passphrase in cases:
        status, out, err = run(
            "watermark", "detect", suspect, "--vault", vault, "--passphrase-file", passphrase
        )
        assert (status, out) == (expected, "") and f"error[{code}]" in err and "Traceback" not in err
