"""The builder agrees with specs/vectors/watermark, which another implementation wrote."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from sealpack.builder.watermark import embed, keys, params, stream
from sealpack.builder.watermark.records import MarkedTensor
from sealpack.builder.watermark.vault import Vault
from sealpack.builder.watermark.weights import STORED
from sealpack.format.errors import SealpackError

SPECS = Path(__file__).parents[3] / "specs"
VECTORS = SPECS / "vectors" / "watermark"
CASES = sorted(path.parent for path in VECTORS.glob("*/case.json"))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_vector(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    run = {
        "keys": _keys,
        "stream": _stream,
        "commitment": _commitment,
        "params": _params,
        "model-digest": _model_digest,
        "mark": _mark,
        "vault": _vault,
    }[case["operation"]]
    if case["expect"] == "ok":
        run(case, folder)
        return
    with pytest.raises(SealpackError) as caught:
        run(case, folder)
    assert caught.value.code == case["expect"]


def _keys(case: Any, folder: Path) -> None:
    model = keys.model_key(bytes.fromhex(case["root"]), case["clean_digest"])
    licensee = keys.licensee_key(model, case["licensee"], case["bundle_id"])
    assert model.hex() == case["k_model"]
    assert licensee.hex() == case["k_lic"]
    assert keys.tensor_key(licensee, "signs", case["tensor"]).hex() == case["k_signs"]
    assert keys.tensor_key(licensee, "dither", case["tensor"]).hex() == case["k_dither"]


def _stream(case: Any, folder: Path) -> None:
    key = bytes.fromhex(case["key"])
    for segment in (0, 1):
        assert stream.segment_bytes(key, segment, 32).tobytes().hex() == case[f"segment_{segment}"]
    bits = stream.sign_bits(key, case["start"], case["stop"])
    assert "".join(str(bit) for bit in bits) == case["signs"]


def _commitment(case: Any, folder: Path) -> None:
    made = keys.commitment(
        licensee_key=bytes.fromhex(case["k_lic"]),
        license_id=case["license_id"],
        bundle_id=case["bundle_id"],
        clean_digest=case["clean_digest"],
        marked_digest=case["marked_digest"],
        params_digest=case["params_sha256"],
        randomness=bytes.fromhex(case["r"]),
    )
    assert made == case["commitment"]


def _params(case: Any, folder: Path) -> None:
    read = params.Params.from_dict(case["params"])
    assert read.to_dict() == case["params"]
    assert read.digest == case["params_sha256"]
    for weights, alpha in case["alpha_ppb"].items():
        assert params.choose_alpha(int(weights)) == alpha


def _model_digest(case: Any, folder: Path) -> None:
    for name in ("one", "two"):
        assert keys.model_digest(case[name]) == case[f"{name}_digest"]


def _mark(case: Any, folder: Path) -> None:
    dtype = case["dtype"]
    raw = np.frombuffer((folder / "clean.bin").read_bytes(), STORED[dtype])
    raw = raw.reshape(case["rows"], case["columns"])
    tensor = MarkedTensor(case["tensor"], *raw.shape, dtype, b"")
    strength = params.Params(case["alpha_ppb"], 1, "0" * 32, case["share_b_ppm"]).strength_b
    marked = embed.mark_rows(raw, tensor, bytes.fromhex(case["k_lic"]), (0, raw.size), strength)
    assert marked.astype(STORED[dtype]).tobytes() == (folder / "marked.bin").read_bytes()


def _vault(case: Any, folder: Path) -> None:
    vault = Vault.open(folder / "vault", case["passphrase"])
    assert vault.root.hex() == case["root"]
    assert vault.marks[0].member == case["member"]
    mark = vault.marks[0]
    made = keys.commitment(
        licensee_key=vault.licensee_key(mark.model, mark.licensee, mark.bundle_id),
        license_id=mark.license_id,
        bundle_id=mark.bundle_id,
        clean_digest=mark.model,
        marked_digest=mark.marked,
        params_digest=mark.params.digest,
        randomness=mark.randomness,
    )
    assert made == mark.commitment


def test_generator_reproduces_every_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["generate.py", str(tmp_path)])
    runpy.run_path(str(VECTORS / "generate.py"), run_name="__main__")
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {path.relative_to(VECTORS) for folder in CASES for path in folder.iterdir()}
    for path in written:
        assert (tmp_path / path).read_bytes() == (VECTORS / path).read_bytes(), path


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vault", "vault"), ("vault-content", "content.json"), ("watermark", "member.json")],
)
def test_schema_accepts_the_vector_and_refuses_it_maimed(schema: str, file: str) -> None:
    rules = json.loads((SPECS / "schemas" / f"{schema}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(rules)
    value = json.loads((VECTORS / "vault" / file).read_text())
    jsonschema.validate(value, rules)
    for name in value:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: member for key, member in value.items() if key != name}, rules)
