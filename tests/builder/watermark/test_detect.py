"""Detection on small models: formats, orientation, names, and the arithmetic of p-values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sealpack.builder.watermark.detect import detect, hoeffding_log10, sidak_log10
from sealpack.builder.watermark.weights import open_model
from sealpack.format.errors import SealpackError


@pytest.fixture
def marked(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, add_innocents: Any, matrices: Any
) -> Any:
    """(vault with 20 licensees, clean file, tensors of licensee 7's copy)."""
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", matrices)
    mark = mark_for(vault, source, tmp_path / "out.onnx", 7)
    add_innocents(vault, mark, 20)
    tensors = open_model(tmp_path / "out.onnx").tensors
    return vault, source, {name: tensors[name].rows(0, tensors[name].shape[0]) for name in matrices}


def _names_seven(verdict: Any) -> bool:
    innocent = [score.log10_p for score in verdict.scores if score.licensee != "licensee-07"]
    assert len(innocent) == verdict.tested - 1 and min(innocent) > -3
    return verdict.best is not None and verdict.best.licensee == "licensee-07"


@pytest.mark.parametrize("kind", ["F32", "F16"])
def test_onnx_turned_into_gguf(tmp_path: Path, make_gguf: Any, marked: Any, kind: str) -> None:
    """Other names, one matrix turned, another format."""
    vault, source, tensors = marked
    suspect = {"a": tensors["wide"].T.copy(), "blk.0.weight": tensors["odd"]}
    verdict = detect(make_gguf(tmp_path / "s.gguf", suspect, kind), vault, source)
    assert verdict.structure == "matched" and _names_seven(verdict)


def test_cut_matrices_are_not_matched_and_nobody_is_cleared(
    tmp_path: Path, make_gguf: Any, marked: Any
) -> None:
    vault, source, tensors = marked
    cut = {"wide": tensors["wide"][:288], "odd": tensors["odd"][:, :256].copy()}
    verdict = detect(make_gguf(tmp_path / "cut.gguf", cut), vault, source)
    assert verdict.structure == "not matched" and verdict.best is None and verdict.scores == ()


@pytest.mark.parametrize("axis", [None, 0, 1], ids=["one scale", "per column", "per row"])
def test_eight_bit_onnx(tmp_path: Path, make_onnx: Any, marked: Any, axis: int | None) -> None:
    """Weights, scales and zero points as int8 tools store them."""
    vault, source, tensors = marked
    suspect: dict[str, Any] = {}
    for name, values in tensors.items():
        scale = (np.abs(values).max(axis=axis, keepdims=True) / 127).astype(np.float32)
        suspect[f"{name}_quantized"] = np.rint(values / scale).astype(np.int8)
        suspect[f"{name}_scale"] = scale.reshape(-1) if axis is not None else scale.reshape(())
        suspect[f"{name}_zero_point"] = np.zeros(suspect[f"{name}_scale"].shape, np.int8)
    del suspect["odd_scale"]  # without its scale a tensor cannot be read
    verdict = detect(make_onnx(tmp_path / "s.onnx", suspect), vault, source)
    assert verdict.structure == "partly matched" and _names_seven(verdict)


def test_turned_quantised_gguf(
    tmp_path: Path, make_vault: Any, make_onnx: Any, make_gguf: Any, mark_for: Any, add_innocents: Any
) -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(0, 1, (320, 256)).astype(np.float32)
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", {"w_T": values})
    add_innocents(vault, mark_for(vault, source, tmp_path / "out.onnx", 7), 20)
    copy = open_model(tmp_path / "out.onnx").tensors["w_T"].rows(0, 320)
    verdict = detect(make_gguf(tmp_path / "s.gguf", {"w": copy.T.copy()}, "Q8_0"), vault, source)
    assert verdict.structure == "matched" and _names_seven(verdict)


def test_square_matrices_are_told_apart_without_names(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any
) -> None:
    rng = np.random.default_rng(4)
    squares = {f"w{i}": rng.normal(0, 1, (256, 256)).astype(np.float32) for i in range(4)}
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", squares)
    mark_for(vault, source, tmp_path / "out.onnx", 7)
    tensors = open_model(tmp_path / "out.onnx").tensors
    shuffled = {f"x{i}": tensors[f"w{3 - i}"].rows(0, 256) for i in range(4)}
    shuffled["w0"] = shuffled.pop("x0").T.copy()  # the name of another one, and turned
    verdict = detect(make_onnx(tmp_path / "s.onnx", shuffled), vault, source)
    assert verdict.structure == "matched" and verdict.best is not None and verdict.best.z > 500


@pytest.mark.parametrize("attack", ["scale", "noise", "prune", "one tensor left", "negated mark"])
def test_survives(tmp_path: Path, make_onnx: Any, marked: Any, matrices: Any, attack: str) -> None:
    vault, source, tensors = marked
    rng = np.random.default_rng(1)
    if attack == "scale":
        tensors = {name: w * np.float32(1.07) for name, w in tensors.items()}
    elif attack == "noise":
        tensors = {
            n: (w + 0.05 * w.std() * rng.standard_normal(w.shape)).astype(np.float32)
            for n, w in tensors.items()
        }
    elif attack == "prune":
        tensors = {
            n: np.where(np.abs(w) < np.quantile(np.abs(w), 0.3), np.float32(0), w) for n, w in tensors.items()
        }
    elif attack == "one tensor left":
        tensors = {"wide": tensors["wide"]}
    else:
        tensors = {n: 2 * matrices[n] - w for n, w in tensors.items()}
    assert _names_seven(detect(make_onnx(tmp_path / "s.onnx", tensors), vault, source))


def test_clean_and_foreign_models_name_nobody(
    tmp_path: Path, make_onnx: Any, marked: Any, matrices: Any
) -> None:
    vault, source, _ = marked
    for original in (None, source):
        verdict = detect(source, vault, original)
        assert verdict.structure == "matched" and verdict.best is None
        assert all(score.log10_p > -3 for score in verdict.scores)
    rng = np.random.default_rng(9)
    foreign = {name: rng.normal(0, 0.1, w.shape).astype(np.float32) for name, w in matrices.items()}
    verdict = detect(make_onnx(tmp_path / "f.onnx", foreign), vault)
    assert verdict.structure == "not matched" and verdict.best is None and verdict.limits


def test_two_mixed_copies_name_both(tmp_path: Path, make_onnx: Any, mark_for: Any, marked: Any) -> None:
    vault, source, tensors = marked
    vault.marks = [mark for mark in vault.marks if mark.licensee != "licensee-03"]
    mark_for(vault, source, tmp_path / "three.onnx", 3)
    other = open_model(tmp_path / "three.onnx").tensors
    mixed = {name: (w + other[name].rows(0, w.shape[0])) / 2 for name, w in tensors.items()}
    verdict = detect(make_onnx(tmp_path / "s.onnx", mixed), vault, source)
    assert {score.licensee for score in verdict.named} == {"licensee-03", "licensee-07"}


def test_refusals(tmp_path: Path, make_vault: Any, make_onnx: Any, marked: Any, matrices: Any) -> None:
    vault, source, _ = marked
    (tmp_path / "x").write_bytes(b"neither format")
    other = make_onnx(tmp_path / "other.onnx", {"w": matrices["wide"] * 2})
    cases = [
        ("MODEL_MISSING", (tmp_path / "none", vault)),
        ("MODEL_UNKNOWN", (tmp_path / "x", vault)),
        ("INPUT_INVALID", (source, vault, other)),
        ("INPUT_INVALID", (source, make_vault(tmp_path / "empty"))),
    ]
    for code, arguments in cases:
        with pytest.raises(SealpackError) as caught:
            detect(*arguments)
        assert caught.value.code == code


def test_hoeffding_and_sidak_values() -> None:
    assert hoeffding_log10(0) == 0
    assert math.isclose(10 ** hoeffding_log10(-6), 2 * math.exp(-18))
    assert math.isclose(10 ** sidak_log10(math.log10(0.01), 20), 1 - 0.99**20)
    assert math.isclose(sidak_log10(-20.0, 1000), -17.0)
    assert sidak_log10(0.0, 20) == 0


@given(st.floats(-40, 0), st.integers(1, 10**6))
def test_correction_never_helps_the_accuser(log10_p: float, tested: int) -> None:
    corrected = sidak_log10(log10_p, tested)
    assert log10_p - 1e-9 <= corrected <= 0


def test_hoeffding_holds_over_random_keys() -> None:
    """With the weights fixed and only signs random, z stays under the bound as often as it says."""
    rng = np.random.default_rng(2)
    values = rng.standard_cauchy(2000).clip(-50, 50)  # nothing normal about these weights
    signs = rng.choice([-1.0, 1.0], (20000, 2000))
    z = np.abs(signs @ values) / np.sqrt((values**2).sum())
    for limit in (2.0, 3.0, 3.5):
        assert (z >= limit).mean() <= 2 * math.exp(-(limit**2) / 2)
