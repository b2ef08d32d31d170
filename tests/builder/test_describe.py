"""What is read from a model file, and which files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealpack.builder.describe import io_member, read_model
from sealpack.builder.model import BaseRef, Port
from sealpack.builder.sections import IoSection
from sealpack.format.errors import SealpackError


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
    with pytest.raises(SealpackError, match="one of 3 parts") as caught:
        read_model(tmp_path / "a-00001-of-00003.gguf")
    assert caught.value.code == "MODEL_UNKNOWN"
