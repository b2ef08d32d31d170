"""What is read from a model file, and which files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builder.conftest import Builder

from sealpack.builder.describe import io_member, read_model
from sealpack.builder.model import BaseRef, Port
from sealpack.builder.sections import IoSection
from sealpack.format.container import BundleReader
from sealpack.format.errors import SealpackError
from sealpack.format.manifest import Manifest
from sealpack.format.trust import Trust
from sealpack.verifier.checks import inspect_bundle


def test_onnx_facts(onnx_model: Path) -> None:
    model = read_model(onnx_model)
    d = model.description
    assert (d.format, d.name, d.license, d.architecture, d.author) == (
        "onnx",
        "net",
        "apache-2.0",
        "bert",
        "Ann",
    )
    assert d.inputs == (Port("x", "F32", ("batch", 256)),)
    assert d.outputs == (Port("y", "F32", ("batch", 256)),)
    assert (d.opsets, d.ir_version, d.parameters, d.quantization) == ((("ai.onnx", 17),), 9, 65536, "F32")
    assert model.engine["name"] == "onnxruntime"
    assert model.external == ()


def test_onnx_external_data(external_model: Path) -> None:
    model = read_model(external_model)
    assert model.external == (external_model.parent / "weights/net.bin",)
    model.external[0].write_bytes(b"short")
    with pytest.raises(SealpackError) as caught:
        read_model(external_model)
    assert caught.value.code == "MODEL_TRUNCATED"
    model.external[0].unlink()
    with pytest.raises(SealpackError) as caught:
        read_model(external_model)
    assert (caught.value.code, "weights/net.bin" in caught.value.message) == ("MODEL_MISSING", True)


def test_gguf_facts(gguf_model: Path) -> None:
    model = read_model(gguf_model)
    d = model.description
    assert (d.name, d.license, d.architecture, d.context_length) == ("Small", "mit", "llama", 128)
    assert (d.quantization, d.parameters, d.embedding_length) == ("Q8_0", 64 * 64 + 64, 64)
    assert d.base_models == (BaseRef("Base", "2", None, "https://example.com/base"),)
    assert d.datasets == ("Letters",)
    assert model.engine["quantization"] == "Q8_0"


def test_io_is_completed_from_the_model(onnx_model: Path, gguf_model: Path) -> None:
    onnx = io_member(read_model(onnx_model).description, IoSection(), set())
    assert (onnx["task"], onnx["pre"], onnx["post"]) == (
        "tensor",
        {"kind": "tensor"},
        {"kind": "tensor", "output": "y"},
    )
    gguf = io_member(read_model(gguf_model).description, IoSection(), set())
    assert gguf == {"task": "text-generation", "inputs": [], "outputs": []}


@pytest.mark.parametrize(
    ("io", "says"),
    [
        (IoSection(task="poetry"), "io.task"),
        (IoSection(post={"kind": "tensor", "output": "z"}), "no output 'z', but y"),
        (IoSection(pre={"kind": "wordpiece", "vocab": "payload/vocab.txt"}), "not packed"),
        (IoSection(samples=({"input": {"text": "a"}, "expect": {}},)), "exactly one is needed"),
    ],
)
def test_io_that_cannot_work_is_refused(onnx_model: Path, io: IoSection, says: str) -> None:
    with pytest.raises(SealpackError, match=says) as caught:
        io_member(read_model(onnx_model).description, io, set())
    assert caught.value.code == "CONFIG_INVALID"


def test_one_part_of_a_split_gguf_is_not_a_model(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "a-00001-of-00003.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(SealpackError, match="one of 3 parts; missing: a-00002") as caught:
        read_model(tmp_path / "a-00001-of-00003.gguf")
    assert caught.value.code == "MODEL_MISSING"


def save_in_several_files(folder: Path) -> Path:
    """y = x @ a @ b + c, each weight in a file of its own, one of them in a folder."""
    np, onnx = pytest.importorskip("numpy"), pytest.importorskip("onnx")
    h, T = onnx.helper, onnx.TensorProto
    values = {"a": np.eye(4, dtype=np.float32) * 2, "b": np.eye(4, dtype=np.float32) * 3}
    values["c"] = np.arange(4, dtype=np.float32)
    weights = []
    for name, location in (("a", "one.bin"), ("b", "more/two.bin"), ("c", "three.bin")):
        tensor = onnx.numpy_helper.from_array(values[name], name)
        onnx.external_data_helper.set_external_data(tensor, location)
        weights.append(tensor)
    nodes = [("MatMul", ["x", "a"], ["p"]), ("MatMul", ["p", "b"], ["q"]), ("Add", ["q", "c"], ["y"])]
    graph = h.make_graph(
        [h.make_node(*node) for node in nodes],
        "net",
        [h.make_tensor_value_info("x", T.FLOAT, ["batch", 4])],
        [h.make_tensor_value_info("y", T.FLOAT, ["batch", 4])],
        weights,
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 9
    (folder / "more").mkdir(parents=True)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_external_data_in_several_files(build: Builder, trust: Trust, tmp_path: Path) -> None:
    """All are found, packed under their names, and used in place by the engine."""
    model = save_in_several_files(tmp_path / "several")
    names = [path.relative_to(model.parent).as_posix() for path in read_model(model).external]
    assert names == ["more/two.bin", "one.bin", "three.bin"]
    built = build(model, tmp_path / "b.sealpack")
    report, _ = inspect_bundle(built.path, trust)
    assert report.ok, report.failures
    packed = {e.name: e.role for e in built.manifest.files if e.name.startswith("payload/")}
    assert packed == {"payload/model.onnx": "model"} | {f"payload/{name}": "model-data" for name in names}
    assert answers(built.path, built.manifest) == [[0.0, 7.0, 2.0, 3.0]]
    (model.parent / "more/two.bin").unlink()
    with pytest.raises(SealpackError, match=r"weights in more/two\.bin, which is missing") as caught:
        build(model, tmp_path / "c.sealpack")
    assert caught.value.code == "MODEL_MISSING"


def answers(bundle: Path, manifest: Manifest) -> Any:
    """What the engine computes from x = [0, 1, 0, 0] with the model in place inside the bundle."""
    pytest.importorskip("onnxruntime")
    from sealpack.runtime.engines import choose
    from sealpack.runtime.engines.base import Infer, Options, Span, VerifiedModel

    with BundleReader.open(bundle) as opened:
        spans = {
            e.name: Span(opened.entries[e.name].data_at, e.size, e.role)
            for e in manifest.files
            if e.name.startswith("payload/")
        }
        main = manifest.model.name
        model = VerifiedModel(opened.file.fileno(), manifest.kind, main, spans, manifest.model_io, "net")
        session = choose.load(model, Options(threads=1))
        try:
            return session.prepare(Infer({"x": [[0.0, 1.0, 0.0, 0.0]]})).run(None).value["outputs"]["y"]
        finally:
            session.close()
