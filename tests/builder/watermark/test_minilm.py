"""The mark on real weights: MiniLM, 22.5 M marked, licensee 7 of 20, after what people do to a model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from sealpack.builder.demo import minilm
from sealpack.builder.watermark.detect import Verdict, detect
from sealpack.builder.watermark.vault import Vault
from sealpack.format.errors import SealpackError

SENTENCES = (
    "The mark must not change what the model says.",
    "A bundle holds the model, its license and its evidence.",
    "Rain is expected in the north on Tuesday.",
    "How do I renew a license on a machine that is never online?",
    "The quick brown fox jumps over the lazy dog.",
    "Interest rates were left unchanged for the third time this year.",
    "She played the second movement slower than anyone before her.",
    "Cells divide, and with each division a few letters of the code change.",
)


@dataclass(frozen=True, slots=True)
class Copies:
    folder: Path
    vault: Vault
    clean: Path
    marked: Path


@pytest.fixture(scope="session")
def copies(tmp_path_factory: Any, make_vault: Any, mark_for: Any, add_innocents: Any) -> Copies:
    try:
        minilm.find_minilm()
    except SealpackError as error:
        pytest.skip(error.message)
    folder = tmp_path_factory.mktemp("minilm")
    clean, marked = folder / "clean.onnx", folder / "marked.onnx"
    minilm.make_onnx(clean)
    vault = make_vault(folder / "vault")
    add_innocents(vault, mark_for(vault, clean, marked, 7), 20)
    return Copies(folder, vault, clean, marked)


def _rewrite(source: Path, out: Path, change: Callable[[Any], Any]) -> Path:
    """A copy of an ONNX file with every matrix of weights passed through `change`."""
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
            values = change(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    out.write_bytes(model.SerializeToString())
    return out


def _int8_per_row(values: Any) -> Any:
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    return (np.rint(values / scale) * scale).astype(np.float32)


def _dynamic_int8(source: Path, out: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(str(source), str(out), weight_type=QuantType.QInt8)
    return out


def _gguf(source: Path, out: Path, make_gguf: Any, kind: str) -> Path:
    """As a converter writes it: linear layers turned, other names."""
    tensors = {}
    for number, tensor in enumerate(onnx.load(str(source)).graph.initializer):
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            turned = values.T if tensor.name.endswith("_T") else values
            tensors[f"blk.{number}.weight"] = np.ascontiguousarray(turned)
    written: Path = make_gguf(out, tensors, kind)
    return written


def _names_seven(verdict: Verdict) -> bool:
    innocent = [score.log10_p for score in verdict.scores if score.licensee != "licensee-07"]
    assert len(innocent) == 19 and min(innocent) > -3
    assert verdict.best is not None and verdict.best.log10_p < -6
    return verdict.structure == "matched" and verdict.best.licensee == "licensee-07"


def test_untouched_copy(copies: Copies) -> None:
    assert copies.marked.stat().st_size == copies.clean.stat().st_size
    blind, against = detect(copies.marked, copies.vault), detect(copies.marked, copies.vault, copies.clean)
    assert _names_seven(blind) and _names_seven(against)
    assert blind.scores[0].z > 20 and against.scores[0].z > 4000


def test_half_precision(copies: Copies) -> None:
    suspect = _rewrite(copies.marked, copies.folder / "f16.onnx", lambda values: values.astype(np.float16))
    assert _names_seven(detect(suspect, copies.vault))


def test_int8_per_row(copies: Copies) -> None:
    suspect = _rewrite(copies.marked, copies.folder / "row.onnx", _int8_per_row)
    assert _names_seven(detect(suspect, copies.vault))


def test_onnxruntime_dynamic_int8(copies: Copies) -> None:
    suspect = _dynamic_int8(copies.marked, copies.folder / "int8.onnx")
    assert suspect.stat().st_size < copies.marked.stat().st_size / 3
    assert _names_seven(detect(suspect, copies.vault))


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_converted_to_gguf(copies: Copies, make_gguf: Any, kind: str) -> None:
    suspect = _gguf(copies.marked, copies.folder / f"{kind}.gguf", make_gguf, kind)
    assert _names_seven(detect(suspect, copies.vault))


def test_clean_model_names_nobody(copies: Copies) -> None:
    for original in (None, copies.clean):
        verdict = detect(copies.clean, copies.vault, original)
        assert verdict.structure == "matched" and verdict.best is None
        assert all(score.log10_p > -3 for score in verdict.scores)


def test_embeddings_hardly_move(copies: Copies) -> None:
    before, after = _embed(copies.clean), _embed(copies.marked)
    cosine = (before * after).sum(axis=1)
    assert 0.9995 < cosine.min() < 1


def _embed(path: Path) -> Any:
    """Sentence embeddings, one row each, of length one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm.find_minilm() / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(64)
    encoded = tokenizer.encode_batch(list(SENTENCES))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ids = np.array([line.ids for line in encoded])
    mask = np.array([line.attention_mask for line in encoded])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return session.run(["sentence_embedding"], feed)[0]
