"""The creator's commands, as a creator types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack

from sealpack.builder.watermark.vault import Vault
from sealpack.format import documents
from sealpack.format.activation import ActivationRequest
from sealpack.format.documents import Parcel
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def at_home(tmp_path: Path, gguf_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Path:
    """In a project made by `sealpack init`, with a model beside it."""
    assert sealpack("init", tmp_path / "p", "--publisher", "acme", "--name", "Acme") == 0
    assert "recovery-sheet.html" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


def as_json(capsys: Capture) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    return out


def make_request(home: Path, number: int) -> Path:
    key = PrivateKey.from_seed(bytes([number]) * 32)
    root = Trust.load((home / "trust/trust.json").read_bytes()).root_digest
    made = ActivationRequest(key.public, "ab" * 16, 1_790_000_000, root, "test")
    path = home / f"{number}.request"
    path.write_bytes(documents.seal("activation-request", made.to_dict(), key).to_bytes())
    return path


def test_build_verify_and_rebuild(at_home: Path, gguf_model: Path, capsys: Capture) -> None:
    assert sealpack("build", gguf_model, "--signed-at", "1790000000", "--format", "json") == 0
    first = as_json(capsys)
    assert first["schema"] == "sealpack/build-result/v1"
    assert first["path"] == f"{at_home}/bundles/my-model-1.0.0.sealpack"
    assert sealpack("verify", first["path"], "--trust", "trust/trust.json") == 0
    assert sealpack("build", gguf_model, "--signed-at", "1790000000") == 2  # it is there already
    before = Path(first["path"]).read_bytes()
    assert sealpack("build", gguf_model, "--signed-at", "1790000000", "--force") == 0
    assert Path(first["path"]).read_bytes() == before


def test_source_date_epoch_is_the_signing_time(
    at_home: Path, gguf_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    assert sealpack("build", gguf_model, "--out", "a.sealpack") == 0
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert sealpack("build", gguf_model, "--out", "b.sealpack", "--signed-at", "1790000000") == 0
    assert Path("a.sealpack").read_bytes() == Path("b.sealpack").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    assert sealpack("build", gguf_model, "--out", "c.sealpack") == 2
    assert not Path("c.sealpack").exists()


def test_flags_alone_are_enough(
    home: Path, gguf_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        gguf_model,
        "--id",
        "acme/small",
        "--bundle-version",
        "2.1",
        "--key",
        home / "keys/bundle.pem",
    ]
    assert sealpack("build", *arguments) == 2
    assert "license.text" in capsys.readouterr().err
    assert sealpack("build", *arguments, "--license-text", home / "licenses/LICENSE.txt") == 0
    assert sealpack("inspect", "small-2.1.sealpack", "--format", "json") == 0
    key = home / "keys/bundle.pub.pem"
    assert sealpack("verify", "small-2.1.sealpack", "--key", key) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["none.gguf"], 2, "MODEL_MISSING"),
        (["sealpack.toml"], 2, "MODEL_UNKNOWN"),
        ([], 2, "USAGE"),
        (["MODEL", "--key", "none.pem"], 2, "KEY_UNREADABLE"),
        (["MODEL", "--key", "keys/bundle.pub.pem"], 2, "KEY_UNREADABLE"),
        (["MODEL", "--key", "keys/license.pem"], 3, "SIG_KEY_ROLE"),
        (["MODEL", "--trust", "none.json"], 1, "FILE_MISSING"),
        (["MODEL", "--config", "none.toml"], 1, "FILE_MISSING"),
        (["MODEL", "--bundle-version", "v1"], 2, "CONFIG_INVALID"),
        (["MODEL", "--licensee", "Ward"], 2, "USAGE"),
        (["MODEL", "--embed-license", "trust/trust.json"], 3, "DOC_SCHEMA"),
        (["MODEL", "--signed-at", "-1"], 2, "USAGE"),
    ],
)
def test_refused_builds(
    at_home: Path, gguf_model: Path, capsys: Capture, arguments: list[str], status: int, code: str
) -> None:
    given = [str(gguf_model) if a == "MODEL" else a for a in arguments]
    assert sealpack("build", *given, "--format", "json") == status
    captured = capsys.readouterr()
    assert json.loads(captured.out)["code"] == code
    assert captured.err.startswith(f"sealpack: error[{code}]: ")
    assert list(Path("bundles").iterdir()) == []


def test_license_for_a_device_then_for_another(at_home: Path, gguf_model: Path, capsys: Capture) -> None:
    assert sealpack("build", gguf_model) == 0
    new = ["license", "issue", "--preset", "pro", "--bundle", "bundles/my-model-1.0.0.sealpack"]
    new += ["--customer", "Hospital Nord", "--customer-id", "nord", "--license-id", "L-1", "--binding", "key"]
    new += ["--quota", "calls=10/term,deny,license", "--plan", "edge-pro/1"]
    assert sealpack(*new, "--request", make_request(at_home, 1)) == 0
    capsys.readouterr()
    parcel = Parcel.from_bytes(Path("licenses/L-1.license").read_bytes())
    assert [documents.kind_of(e) for e in parcel.documents][3:] == ["license", "activation", "lease"]
    assert sealpack(*new) == 4  # the id is taken
    again = ["license", "issue", "--existing", "licenses/L-1.license", "--request"]
    assert sealpack(*again, make_request(at_home, 2)) == 0
    assert sealpack(*again, make_request(at_home, 3)) == 4
    assert len(list(Path("licenses").glob("*.license"))) == 2
    capsys.readouterr()
    assert sealpack("license", "list", "--format", "json") == 0
    (row,) = as_json(capsys)["licenses"]
    assert (row["license_id"], len(row["active_devices"])) == ("L-1", 2)
    assert sealpack("license", "show", "licenses/L-1.license") == 0
    assert "Hospital Nord (nord)" in capsys.readouterr().out


def test_a_license_rides_in_the_bundle(at_home: Path, gguf_model: Path, capsys: Capture) -> None:
    new = ["license", "issue", "--preset", "open_source", "--customer", "Anyone", "--customer-id", "any"]
    assert sealpack(*new, "--bundle-id", "acme/my-model", "--license-id", "free") == 0
    build = ["build", gguf_model, "--embed-license", "licenses/free.license"]
    assert sealpack(*build) == 0
    capsys.readouterr()
    assert sealpack("verify", "bundles/my-model-1.0.0.sealpack", "--trust", "trust/trust.json") == 0
    assert "free" in capsys.readouterr().out
    assert sealpack(*build, "--id", "acme/other", "--out", "x.sealpack") == 4
    assert not Path("x.sealpack").exists()


def test_a_marked_bundle_is_licensed_alone(at_home: Path, onnx_model: Path, capsys: Capture) -> None:
    Vault.create(at_home / "marks.vault", "correct horse", scrypt_n=1 << 14)
    Path("vault.pass").write_text("correct horse\n")
    mark = ["--licensee", "Hospital Nord", "--license-id", "L-7", "--vault", "marks.vault"]
    mark += ["--vault-passphrase-file", "vault.pass", "--signed-at", "1790000000"]
    assert sealpack("build", onnx_model, *mark, "--out", "m.sealpack") == 0
    assert sealpack("build", onnx_model, *mark, "--out", "n.sealpack") == 0
    assert Path("m.sealpack").read_bytes() == Path("n.sealpack").read_bytes()
    new = ["license", "issue", "--preset", "academic", "--bundle", "m.sealpack"]
    new += ["--customer", "Hospital Nord", "--customer-id", "nord"]
    assert sealpack(*new, "--license-id", "L-8") == 4
    capsys.readouterr()
    assert sealpack(*new, "--format", "json") == 0
    issued = as_json(capsys)
    assert issued["license_id"] == "L-7"
    assert len(issued["bundles"][0]["bundle_digest"]) == 64


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--preset", "pro"], "USAGE"),
        (["--preset", "gold", "--customer", "A", "--customer-id", "a"], "USAGE"),
        (["--preset", "pro", "--customer", "A", "--customer-id", "a"], "USAGE"),
        (
            ["--preset", "pro", "--customer", "A", "--customer-id", "a b", "--bundle-id", "acme/x"],
            "USAGE",
        ),
        (
            ["--preset", "pro", "--customer", "A", "--customer-id", "a", "--bundle-id", "other/x"],
            "LIC_KEY_UNTRUSTED",
        ),
        (
            ["--preset", "pro", "--customer", "A", "--customer-id", "a", "--bundle", "card.md"],
            "CONTAINER_TAIL",
        ),
        (["--existing", "card.md", "--request", "card.md"], "JSON_INVALID"),
    ],
)
def test_refused_licenses_leave_no_trace(
    at_home: Path, capsys: Capture, arguments: list[str], code: str
) -> None:
    assert sealpack("license", "issue", *arguments, "--format", "json") != 0
    assert as_json(capsys)["code"] == code
    assert [p.name for p in Path("licenses").iterdir()] == ["LICENSE.txt"]


def test_outside_a_project_the_message_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sealpack("license", "list") == 2
    assert "--trust" in capsys.readouterr().err


def test_a_device_that_told_no_hardware_is_named(at_home: Path, gguf_model: Path, capsys: Capture) -> None:
    assert sealpack("build", gguf_model) == 0
    new = ["license", "issue", "--preset", "pro", "--bundle", "bundles/my-model-1.0.0.sealpack"]
    new += ["--customer", "Hospital Nord", "--license-id", "L-1", "--request", make_request(at_home, 1)]
    assert sealpack(*new) == 0
    assert "the request told too little hardware" in capsys.readouterr().out
