"""Tiny real models, made in milliseconds: two ONNX graphs and two GGUF files with random weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.clocks import Clocks
from support.site import Site

from sealpack.format.fields import Fields
from sealpack.format.io import ModelIo
from sealpack.runtime import machine
from sealpack.runtime.engines.base import Span, VerifiedModel

ROLES = {"onnx": "model", "gguf": "model", "data": "model-data", "txt": "vocabulary"}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "good", "##bye", "!"]


def make_classifier(folder: Path) -> Path:
    """Three inputs to two classes: class b exactly when the first number is the larger one.

    Weights stand in an external data file.
    """
    np, onnx = pytest.importorskip("numpy"), pytest.importorskip("onnx")
    h = onnx.helper
    weight = onnx.numpy_helper.from_array(np.array([[-4, 4], [4, -4], [0, 0]], np.float32), "w")
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["scores"])],
        "tiny",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])],
        [h.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 2])],
        [weight],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 9
    path = folder / "tiny.onnx"
    onnx.save(model, path, save_as_external_data=True, location="tiny.onnx.data", size_threshold=0)
    return path


def make_embedder(folder: Path) -> Path:
    """Sentence embedding = the mean of the token rows of a fixed table, padding masked."""
    np, onnx = pytest.importorskip("numpy"), pytest.importorskip("onnx")
    h, T = onnx.helper, onnx.TensorProto
    table = np.arange(len(VOCABULARY) * 4, dtype=np.float32).reshape(-1, 4)
    nodes = [
        h.make_node("Gather", ["table", "input_ids"], ["rows"]),
        h.make_node("Cast", ["attention_mask"], ["mask"], to=T.FLOAT),
        h.make_node("Unsqueeze", ["mask", "two"], ["mask3"]),
        h.make_node("Mul", ["rows", "mask3"], ["kept"]),
        h.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0),
        h.make_node("ReduceSum", ["mask3", "one"], ["count"], keepdims=0),
        h.make_node("Div", ["sum", "count"], ["sentence_embedding"]),
    ]
    ids = [h.make_tensor_value_info(n, T.INT64, ["batch", "seq"]) for n in ("input_ids", "attention_mask")]
    out = [h.make_tensor_value_info("sentence_embedding", T.FLOAT, ["batch", 4])]
    constants = [
        onnx.numpy_helper.from_array(table, "table"),
        onnx.numpy_helper.from_array(np.array([1]), "one"),
        onnx.numpy_helper.from_array(np.array([2]), "two"),
    ]
    model = h.make_model(
        h.make_graph(nodes, "embedder", ids, out, constants), opset_imports=[h.make_opsetid("", 17)]
    )
    model.ir_version = 9
    path = folder / "embedder.onnx"
    onnx.save(model, path)
    return path


def make_llama(folder: Path) -> Path:
    """A one-layer language model with random weights, context 64: nonsense, but deterministic."""
    np, gguf = pytest.importorskip("numpy"), pytest.importorskip("gguf")
    rng = np.random.default_rng(7)
    alphabet = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "th", "<end>"]
    width, hidden, path = 32, 64, folder / "tiny.gguf"
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("tiny")
    w.add_context_length(64)
    w.add_embedding_length(width)
    w.add_block_count(1)
    w.add_feed_forward_length(hidden)
    w.add_head_count(2)
    w.add_head_count_kv(2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(16)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(alphabet)
    w.add_token_types([1] * (len(alphabet) - 1) + [3])
    w.add_token_merges(["t h"])
    w.add_eos_token_id(len(alphabet) - 1)
    w.add_bos_token_id(len(alphabet) - 1)
    w.add_add_bos_token(False)

    def tensor(name: str, *shape: int) -> None:
        w.add_tensor(name, rng.normal(0, 0.3, shape).astype(np.float32))

    table = rng.normal(0, 0.3, (len(alphabet), width)).astype(np.float32)
    table[-1] = 0  # a zero row is never the best: greedy answers run to their limit
    w.add_tensor("token_embd.weight", table)
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    w.add_tensor("blk.0.attn_norm.weight", np.ones(width, np.float32))
    w.add_tensor("blk.0.ffn_norm.weight", np.ones(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensor(f"blk.0.{name}.weight", width, width)
    tensor("blk.0.ffn_gate.weight", hidden, width)
    tensor("blk.0.ffn_up.weight", hidden, width)
    tensor("blk.0.ffn_down.weight", width, hidden)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of the tiny models and of the embedder's vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return {
        "classifier": make_classifier(folder),
        "embedder": make_embedder(folder),
        "llama": make_llama(folder),
        "vocab": vocabulary,
    }


OpenModel = Callable[..., VerifiedModel]


@pytest.fixture
def open_model(tmp_path: Path) -> Iterator[OpenModel]:
    """Pack files one after the other at 64 KiB offsets into one file, as a bundle does, and open it."""
    descriptors: list[int] = []

    def pack(kind: str, model: str, files: dict[str, bytes], io: dict[str, Any]) -> VerifiedModel:
        path, spans, offset = tmp_path / "packed", {}, 65536
        with path.open("wb") as file:
            for name, data in files.items():
                file.seek(offset)
                file.write(data)
                spans[name] = Span(offset, len(data), ROLES.get(name.rpartition(".")[2], ""))
                offset += -(-max(len(data), 1) // 65536) * 65536
        descriptors.append(os.open(path, os.O_RDONLY))
        return VerifiedModel(descriptors[-1], kind, model, spans, ModelIo.parse(Fields(io, "io")))

    yield pack
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def site(tmp_path: Path, tiny_models: dict[str, Path]) -> Site:
    """A device that has nothing yet."""
    return Site(tmp_path, tiny_models, world.make_trust())


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """The machine's clocks, in the test's hands."""
    made = Clocks()
    monkeypatch.setattr(machine, "reading", made.read)
    return made
