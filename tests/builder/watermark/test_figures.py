"""The figures of specs/watermark.md, measured.

pytest -m slow -s tests/builder/watermark/test_figures.py
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sealpack.builder.demo import minilm
from sealpack.builder.watermark.detect import detect

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(1)
MB = 1e6


def _bf16(w: Any) -> Any:
    bits = np.ascontiguousarray(w).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _int8(w: Any) -> Any:
    scale = np.abs(w).max(axis=1, keepdims=True) / 127
    return np.rint(w / scale) * scale


def _int4(w: Any) -> Any:
    blocks = w.reshape(-1, 32)
    scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True) / 7, 1e-12)
    return (np.rint(blocks / scale) * scale).reshape(w.shape)


ATTACKS = {
    "none": lambda w, c: w,
    "fp16": lambda w, c: w.astype(np.float16),
    "bf16": lambda w, c: _bf16(w),
    "int8 per row": lambda w, c: _int8(w),
    "4 bits per 32": lambda w, c: _int4(w),
    "noise 5 %": lambda w, c: w + 0.05 * w.std() * RNG.standard_normal(w.shape, dtype=np.float32),
    "prune 50 %": lambda w, c: np.where(np.abs(w) < np.quantile(np.abs(w), 0.5), 0, w),
    "scale 1.07": lambda w, c: w * np.float32(1.07),
    "merge 50 % clean": lambda w, c: (w + c) / 2,
    "merge 90 % clean": lambda w, c: 0.1 * w + 0.9 * c,
}


def _attack(marked: Path, clean: Path, out: Path, attack: Any) -> Path:
    model, original = onnx.load(str(marked)), onnx.load(str(clean))
    for tensor, other in zip(model.graph.initializer, original.graph.initializer, strict=True):
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
            values = attack(numpy_helper.to_array(tensor), numpy_helper.to_array(other))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    out.write_bytes(model.SerializeToString())
    return out


def test_figures(tmp_path: Path, make_vault: Any, mark_for: Any, add_innocents: Any) -> None:
    clean, marked = tmp_path / "clean.onnx", tmp_path / "marked.onnx"
    minilm.make_onnx(clean)
    vault = make_vault(tmp_path / "vault")
    start = time.perf_counter()
    mark = mark_for(vault, clean, marked, 7)
    seconds = time.perf_counter() - start
    size = clean.stat().st_size / MB
    print(f"\n{mark.params.weights} weights marked at {mark.params.alpha_ppb / 1e9}")
    print(f"embed {seconds:.2f} s, {size / seconds:.0f} MB/s with copy, sync and both digests")
    add_innocents(vault, mark, 20)
    print(
        f"{'attack':18}{'blind z':>9}{'log10 p':>9}{'orig. z':>9}{'log10 p':>9}"
        f"{'innocent |z|':>14}{'seconds':>9}"
    )
    for name, attack in ATTACKS.items():
        suspect = _attack(marked, clean, tmp_path / "s.onnx", attack)
        start = time.perf_counter()
        blind = detect(suspect, vault)
        seconds = time.perf_counter() - start
        against = detect(suspect, vault, clean)
        seven = [next(s for s in v.scores if s.licensee == "licensee-07") for v in (blind, against)]
        innocent = max(abs(s.z) for v in (blind, against) for s in v.scores if s.licensee != "licensee-07")
        row = "".join(f"{score.z:9.1f}{score.log10_p:9.1f}" for score in seven)
        print(f"{name:18}{row}{innocent:14.2f}{seconds:9.2f}")
        assert against.best is not None and against.best.licensee == "licensee-07"
        assert name == "merge 90 % clean" or blind.best is not None


@pytest.mark.parametrize("mebibytes", [512])
def test_speed_on_a_large_file(
    tmp_path: Path, make_vault: Any, mark_for: Any, make_gguf: Any, mebibytes: int
) -> None:
    """Warm page cache; memory stays bounded by blocks, not by the file."""
    rows = mebibytes << 20 >> 14
    tensors = {f"w{i}": RNG.standard_normal((rows // 4, 4096), dtype=np.float32) for i in range(4)}
    source = make_gguf(tmp_path / "big.gguf", tensors)
    del tensors
    vault = make_vault(tmp_path / "vault")
    size = source.stat().st_size / MB
    for name, call in (
        ("embed", lambda: mark_for(vault, source, tmp_path / "out.gguf")),
        ("detect blind, 1 licensee", lambda: detect(tmp_path / "out.gguf", vault)),
        ("detect with original", lambda: detect(tmp_path / "out.gguf", vault, source)),
    ):
        start = time.perf_counter()
        call()
        print(f"\n{name}: {size / (time.perf_counter() - start):.0f} MB/s", end="")
