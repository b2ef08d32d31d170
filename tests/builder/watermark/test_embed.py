"""What marking changes in a file, and what it must leave alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sealpack.builder.describe import read_model
from sealpack.builder.watermark.detect import detect
from sealpack.builder.watermark.vault import Vault
from sealpack.builder.watermark.weights import open_model
from sealpack.format.errors import SealpackError

PASSPHRASE = "correct horse battery"
ALPHA = 0.005


def _dense(path: Path) -> dict[str, Any]:
    return {name: weights.rows(0, weights.shape[0]) for name, weights in open_model(path).tensors.items()}


def _bf16(name: str, values: Any) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.BFLOAT16, dims=values.shape)
    tensor.raw_data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return tensor


def _rms(values: Any) -> Any:
    return np.sqrt(np.square(values, dtype=np.float64).mean(axis=1, keepdims=True))


@pytest.mark.parametrize("external", [False, True])
def test_onnx_moves_every_weight_by_alpha_and_nothing_else(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any, external: bool
) -> None:
    vault = make_vault(tmp_path / "v")
    matrices["small"] = np.ones((100, 100), np.float32)
    source = make_onnx(tmp_path / "m.onnx", matrices, external=external)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "m.onnx"

    mark = mark_for(vault, source, out)

    assert mark.params.weights == 300 * 512 + 257 * 257
    assert mark.params.alpha_ppb == 5_000_000
    clean, marked = _dense(source), _dense(out)
    for name in ("wide", "odd"):
        change = (marked[name] - clean[name]) / _rms(clean[name])
        assert np.abs(np.abs(change) - ALPHA).max() < 1e-5
        assert abs((change > 0).mean() - 0.5) < 0.01
    assert np.array_equal(clean["small"], marked["small"])
    _only_weights_differ(source, out)


def _only_weights_differ(source: Path, out: Path) -> None:
    """Outside the marked tensors' ranges the files are equal, and so are their sizes."""
    model = read_model(source)
    for path in (source, *model.external):
        before = np.frombuffer(path.read_bytes(), np.uint8)
        after = np.frombuffer((out.parent / path.name).read_bytes(), np.uint8)
        assert before.shape == after.shape
        allowed = np.zeros(before.shape, bool)
        for ref in model.tensors:
            if (ref.file or source.name) == path.name and ref.count >= 65536:
                allowed[ref.offset : ref.offset + ref.nbytes] = True
        assert np.array_equal(before[~allowed], after[~allowed])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_gguf_keeps_size_and_carries_the_mark(
    tmp_path: Path, make_vault: Any, make_gguf: Any, mark_for: Any, matrices: Any, kind: str
) -> None:
    vault = make_vault(tmp_path / "v")
    source = make_gguf(tmp_path / "m.gguf", matrices, kind)
    mark_for(vault, source, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").stat().st_size == source.stat().st_size
    verdict = detect(tmp_path / "out.gguf", vault, source)
    assert verdict.best is not None and verdict.best.z > 100


def test_short_types_keep_the_marks_mean_where_rounding_would_erase_it(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any
) -> None:
    """A bfloat16 weight above the rms has steps of 0.0078 rms and more: rounding to nearest would undo
    most changes of 0.005."""
    rng = np.random.default_rng(3)
    values = (rng.normal(0, 1, (512, 512)).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", {"w": _bf16("w", values)})
    mark_for(vault, source, tmp_path / "out.onnx")
    large = np.abs(values) > 1
    change = (_dense(tmp_path / "out.onnx")["w"] - values)[large]
    assert 0.02 < (change != 0).mean() < 0.9
    assert np.isclose(np.abs(change).mean(), ALPHA, rtol=0.1)


def test_zeros_nan_and_infinity_stay_as_they_are(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    wide = matrices["wide"]
    wide[3] = 0
    wide[5, 7], wide[6, 8], wide[9, 10] = np.nan, np.inf, -np.inf
    wide[20:30, ::2] = 0
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", matrices)
    mark_for(vault, source, tmp_path / "out.onnx")
    marked = _dense(tmp_path / "out.onnx")["wide"]
    same = ~np.isfinite(wide) | (wide == 0)
    assert np.array_equal(wide[same].view(np.uint32), marked[same].view(np.uint32))
    assert np.isfinite(marked[np.isfinite(wide)]).all()
    assert (marked[5, 8:] != wide[5, 8:]).all()  # a row with one NaN is marked beside it
    verdict = detect(tmp_path / "out.onnx", vault, source)
    assert verdict.best is not None


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_huge_weights_do_not_overflow(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, kind: Any
) -> None:
    rng = np.random.default_rng(5)
    values = (rng.uniform(0.5, 1, (256, 256)) * np.finfo(kind).max).astype(kind)
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", {"w": values})
    mark_for(vault, source, tmp_path / "out.onnx")
    assert np.isfinite(_dense(tmp_path / "out.onnx")["w"]).all()


def test_tied_copies_carry_one_mark(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    tied = {**matrices, "head": matrices["wide"].T.copy(), "again": matrices["wide"].copy()}
    vault = make_vault(tmp_path / "v")
    mark = mark_for(vault, make_onnx(tmp_path / "m.onnx", tied), tmp_path / "out.onnx")
    marked = _dense(tmp_path / "out.onnx")
    assert np.array_equal(marked["head"], marked["wide"].T)
    assert np.array_equal(marked["again"], marked["wide"])
    assert mark.params.weights == 300 * 512 + 257 * 257
    left = make_onnx(tmp_path / "left.onnx", {"head": marked["head"], "odd": marked["odd"]})
    verdict = detect(left, vault, tmp_path / "m.onnx")
    assert verdict.matched_tensors == 2 and verdict.best is not None


def test_same_inputs_give_the_same_bytes_and_record(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    source = make_onnx(tmp_path / "m.onnx", matrices)
    first = mark_for(make_vault(tmp_path / "v"), source, tmp_path / "a.onnx")
    again = mark_for(Vault.open(tmp_path / "v", PASSPHRASE), source, tmp_path / "b.onnx")
    assert again == first
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert hashlib.sha256((tmp_path / "a.onnx").read_bytes()).hexdigest() == first.marked
    assert len(Vault.open(tmp_path / "v", PASSPHRASE).marks) == 1


def test_a_record_that_leads_elsewhere_is_reported(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", matrices)
    mark_for(vault, source, tmp_path / "a.onnx")
    vault.root = bytes(32)
    with pytest.raises(SealpackError, match="the vault records") as caught:
        mark_for(vault, source, tmp_path / "b.onnx")
    assert caught.value.code == "DIGEST_MISMATCH"
    assert not (tmp_path / "b.onnx").exists()


def test_licensees_get_different_copies_and_keys(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", matrices)
    one = mark_for(vault, source, tmp_path / "a.onnx", 1)
    two = mark_for(vault, source, tmp_path / "b.onnx", 2)
    assert one.marked != two.marked and one.commitment != two.commitment
    assert one.params.digest != two.params.digest
    assert sorted(one.member) == ["commitment", "license_id", "params_sha256", "scheme"]


def test_unsuitable_models_say_why(
    tmp_path: Path, make_vault: Any, make_onnx: Any, make_gguf: Any, mark_for: Any, matrices: Any
) -> None:
    vault = make_vault(tmp_path / "v")
    mask = np.triu(np.full((300, 300), -np.inf, np.float32), 1)
    cases = {
        "no matrix": make_onnx(tmp_path / "tiny.onnx", {"w": np.ones((8, 8), np.float32)}),
        "constant tables": make_onnx(tmp_path / "mask.onnx", {"mask": mask}),
        "Q8_0": make_gguf(tmp_path / "q8.gguf", {"w": matrices["wide"]}, "Q8_0"),
    }
    for reason, source in cases.items():
        with pytest.raises(SealpackError, match=reason) as caught:
            mark_for(vault, source, tmp_path / "out")
        assert caught.value.code == "WATERMARK_UNSUITABLE"
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any, monkeypatch: Any
) -> None:
    vault = make_vault(tmp_path / "v")
    source = make_onnx(tmp_path / "m.onnx", matrices)
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(Vault, "save", lambda self: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(SealpackError) as caught:
        mark_for(vault, source, tmp_path / "out.onnx")
    assert caught.value.code == "STORE_FULL"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_existing_output_is_kept(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    source = make_onnx(tmp_path / "m.onnx", matrices)
    (tmp_path / "out.onnx").write_bytes(b"mine")
    with pytest.raises(SealpackError) as caught:
        mark_for(make_vault(tmp_path / "v"), source, tmp_path / "out.onnx")
    assert caught.value.code == "OUTPUT_EXISTS"
    assert (tmp_path / "out.onnx").read_bytes() == b"mine"


def test_marked_file_still_loads_as_onnx(
    tmp_path: Path, make_vault: Any, make_onnx: Any, mark_for: Any, matrices: Any
) -> None:
    source = make_onnx(tmp_path / "m.onnx", matrices)
    mark_for(make_vault(tmp_path / "v"), source, tmp_path / "out.onnx")
    model = onnx.load(str(tmp_path / "out.onnx"))
    onnx.checker.check_model(model)
    clean = onnx.load(str(source))
    assert [t.name for t in model.graph.initializer] == [t.name for t in clean.graph.initializer]
    odd = numpy_helper.to_array(model.graph.initializer[1])
    assert np.allclose(odd, matrices["odd"], atol=0.01) and not np.array_equal(odd, matrices["odd"])
