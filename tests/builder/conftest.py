"""A creator's project and small models, made in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealpack.builder import assemble, config, project
from sealpack.builder.assemble import BuildOrder, Built
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust
from sealpack.verifier.cli.main import make_cli, run

T0 = 1_790_000_000  # 2026-09-21


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh project folder of the publisher `acme`."""
    return project.create(tmp_path / "home", publisher="acme", name="Acme", now=T0).folder


@pytest.fixture
def trust(home: Path) -> Trust:
    """The project's trust."""
    return Trust.load((home / "trust/trust.json").read_bytes())


@pytest.fixture
def onnx_model(tmp_path: Path) -> Path:
    """One MatMul with a 256 x 256 float matrix (large enough for a mark) and a few facts."""
    return save_onnx(tmp_path / "onnx")


@pytest.fixture
def external_model(tmp_path: Path) -> Path:
    """The same, with its weights in weights/net.bin."""
    return save_onnx(tmp_path / "external", location="weights/net.bin")


def save_onnx(folder: Path, location: str | None = None) -> Path:
    """Write net.onnx, with external data when `location` names its file."""
    np, onnx = pytest.importorskip("numpy"), pytest.importorskip("onnx")
    h, T = onnx.helper, onnx.TensorProto
    folder.mkdir()
    values = np.random.default_rng(7).standard_normal((256, 256), np.float32)
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [h.make_tensor_value_info("x", T.FLOAT, ["batch", 256])],
        [h.make_tensor_value_info("y", T.FLOAT, ["batch", 256])],
        [onnx.numpy_helper.from_array(values, "w")],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], producer_name="tests")
    model.ir_version = 9
    h.set_model_props(model, {"license": "apache-2.0", "model_type": "bert", "author": "Ann"})
    path = folder / "net.onnx"
    if location is None:
        onnx.save(model, path)
    else:
        (folder / location).parent.mkdir(parents=True)
        onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


@pytest.fixture
def gguf_model(tmp_path: Path) -> Path:
    """A GGUF file with general.* facts and one Q8_0 and one F32 tensor; no engine would run it."""
    np, gguf = pytest.importorskip("numpy"), pytest.importorskip("gguf")
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Small")
    writer.add_license("mit")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "Base")
    writer.add_base_model_version(0, "2")
    writer.add_base_model_repo_url(0, "https://example.com/base")
    writer.add_dataset_count(1)
    writer.add_dataset_name(0, "Letters")
    values = np.random.default_rng(7).standard_normal((64, 64)).astype(np.float32)
    q8 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("token_embd.weight", gguf.quants.quantize(values, q8), raw_dtype=q8)
    writer.add_tensor("output_norm.weight", values[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


Builder = Callable[..., Built]


@pytest.fixture
def build(home: Path, trust: Trust) -> Builder:
    """`build(model, out, **overrides)` with the project's configuration, key and trust."""

    def run_build(model: Path, out: Path, **members: Any) -> Built:
        order: dict[str, Any] = {
            "config": config.load(home / "sealpack.toml"),
            "model": model,
            "key": PrivateKey.load(home / "keys/bundle.pem"),
            "signed_at": T0,
            "trust": trust,
        }
        return assemble.build(BuildOrder(**(order | members)), out)

    return run_build


def sealpack(*arguments: str | Path) -> int:
    """Run the command line in this process; the exit status."""
    return run(make_cli(), [str(argument) for argument in arguments])
