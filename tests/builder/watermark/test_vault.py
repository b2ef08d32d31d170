"""The vault file: opens with its passphrase alone, keeps what it was given, loses nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from sealpack.builder.watermark.vault import Vault
from sealpack.format import canonical
from sealpack.format.errors import SealpackError

PASSPHRASE = "correct horse battery"


def _code(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*args, **options)
    return caught.value.code


def test_keeps_marks_through_a_file(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    vault = make_vault(tmp_path / "v")
    mark = mark_for(vault, make_onnx(tmp_path / "m.onnx", matrices), tmp_path / "out.onnx")

    again = Vault.open(tmp_path / "v", PASSPHRASE)

    assert again.marks == [mark]
    assert again.models == vault.models
    assert again.root == vault.root
    assert stat.S_IMODE((tmp_path / "v").stat().st_mode) == 0o600


def test_file_shows_nothing_of_its_content(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    vault = make_vault(tmp_path / "v")
    mark_for(vault, make_onnx(tmp_path / "m.onnx", matrices), tmp_path / "out.onnx")
    data = (tmp_path / "v").read_bytes()
    assert b"licensee" not in data and vault.root.hex().encode() not in data
    assert vault.root.hex() not in repr(vault) and str(vault.root) not in repr(vault)


def test_wrong_passphrase_and_missing_file(tmp_path: Path, make_vault: Any) -> None:
    make_vault(tmp_path / "v")
    assert _code(Vault.open, tmp_path / "v", "another passphrase") == "VAULT_INVALID"
    assert _code(Vault.open, tmp_path / "none", PASSPHRASE) == "FILE_MISSING"


def test_create_refuses_short_passphrase_and_existing_file(tmp_path: Path, make_vault: Any) -> None:
    assert _code(Vault.create, tmp_path / "short", "short") == "KEY_UNREADABLE"
    make_vault(tmp_path / "v")
    assert _code(Vault.create, tmp_path / "v", PASSPHRASE, scrypt_n=1 << 14) == "OUTPUT_EXISTS"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


@pytest.mark.parametrize(
    "change",
    [
        {"cipher": "none"},
        {"extra": "member"},
        {"nonce": "00" * 12},
        {"ciphertext": "AAAA"},
        {"kdf": {"name": "scrypt", "n": 1 << 30, "r": 8, "p": 1, "salt": "00" * 16}},
        {"kdf": {"name": "scrypt", "n": (1 << 14) + 1, "r": 8, "p": 1, "salt": "00" * 16}},
    ],
    ids=["cipher", "unknown-member", "nonce", "ciphertext", "costly-kdf", "odd-kdf"],
)
def test_changed_envelope_is_refused(tmp_path: Path, make_vault: Any, change: dict[str, Any]) -> None:
    make_vault(tmp_path / "v")
    value = json.loads((tmp_path / "v").read_bytes()) | change
    (tmp_path / "v").write_bytes(canonical.dumps(value))
    assert _code(Vault.open, tmp_path / "v", PASSPHRASE) == "VAULT_INVALID"


def test_not_a_vault(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"PK\x03\x04 something else")
    assert _code(Vault.open, tmp_path / "v", PASSPHRASE) == "VAULT_INVALID"


def test_save_refuses_to_drop_another_builds_marks(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    first = make_vault(tmp_path / "v")
    second = Vault.open(tmp_path / "v", PASSPHRASE)
    source = make_onnx(tmp_path / "m.onnx", matrices)
    mark_for(first, source, tmp_path / "a.onnx", 1)

    assert _code(mark_for, second, source, tmp_path / "b.onnx", 2) == "STATE_LOCKED"

    assert len(Vault.open(tmp_path / "v", PASSPHRASE).marks) == 1
    assert not (tmp_path / "b.onnx").exists()
    assert not list(tmp_path.glob(".*.part"))
