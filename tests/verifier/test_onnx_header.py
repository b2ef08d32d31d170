"""ONNX headers: real graphs, and bytes that no honest writer makes."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.protowire import block, number, varint

from sealpack.format import onnx_header, protobuf
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.format.model_header import read_model_header, sniff_model
from sealpack.format.onnx_header import OnnxHeader, ValueInfo, read_onnx_header
from sealpack.format.tensors import TensorRef


def pair(field: int, key: str, value: str) -> bytes:
    return block(field, block(1, key) + block(2, value))


def tensor(name: str = "w", dims: tuple[int, ...] = (2,), kind: int = 1, rest: bytes = b"") -> bytes:
    return b"".join(number(1, d) for d in dims) + number(2, kind) + block(8, name) + rest


RAW = block(9, struct.pack("<2f", 1.5, -2.5))
EXTERNAL = number(14, 1)


def external(location: str = "w.bin", length: str | None = "8", offset: str | None = "0") -> bytes:
    pairs = {"location": location, "offset": offset, "length": length}
    return EXTERNAL + b"".join(pair(13, k, v) for k, v in pairs.items() if v is not None)


def value_info(name: str, kind: int, dims: tuple[int | str, ...]) -> bytes:
    shape = b"".join(
        block(1, number(1, d) if isinstance(d, int) else block(2, d) if d else b"") for d in dims
    )
    return block(1, name) + block(2, block(1, number(1, kind) + block(2, shape)))


def node(op: str, domain: str = "", attribute: bytes = b"", name: str = "") -> bytes:
    body = block(1, "x") + block(2, "y") + block(4, op)
    body += block(3, name) if name else b""
    body += block(7, domain) if domain else b""
    return body + (block(5, attribute) if attribute else b"")


def graph(*initializers: bytes, nodes: tuple[bytes, ...] = (), rest: bytes = b"") -> bytes:
    body = b"".join(block(1, n) for n in nodes) + block(2, "g")
    body += b"".join(block(5, t) for t in initializers)
    body += block(11, value_info("x", 1, ("batch", 2, ""))) + block(12, value_info("y", 7, ()))
    return body + rest


OPSET = block(8, number(2, 20))


def model(*initializers: bytes, nodes: tuple[bytes, ...] = (), rest: bytes = b"") -> bytes:
    content = graph(*initializers, nodes=nodes)
    return number(1, 9) + block(2, "by hand") + block(7, content) + OPSET + rest


def read(data: bytes) -> OnnxHeader:
    return read_onnx_header(io.BytesIO(data))


# --- what honest files say --------------------------------------------------------------------


def test_everything_a_small_file_says() -> None:
    nodes = (node("Relu"), node("Relu"), node("Attention", "com.microsoft"), node("Fold", "acme"))
    props = pair(14, "License", "Apache-2.0") + pair(14, "name", "hand-made")
    header = read(
        model(tensor(rest=RAW), nodes=nodes, rest=props + block(8, block(1, "acme") + number(2, 1)))
    )
    assert (header.ir_version, header.producer_name, header.graph_name) == (9, "by hand", "g")
    assert header.opsets == {"ai.onnx": 20, "acme": 1}
    assert (header.name, header.license) == ("hand-made", "Apache-2.0")
    assert header.inputs == (ValueInfo("x", "tensor", "F32", ("batch", 2, "")),)
    assert header.outputs == (ValueInfo("y", "tensor", "I64", ()),)
    assert header.op_types == {"Relu": 2, "acme::Fold": 1, "com.microsoft::Attention": 1}
    assert header.node_count == 4
    assert header.domains == ("acme", "ai.onnx", "com.microsoft")
    assert header.custom_domains == ("acme",)
    assert (header.parameter_count, header.quantization) == (2, "F32")


def test_raw_values_lie_where_the_record_says() -> None:
    data = model(tensor(rest=RAW))
    (ref,) = read(data).tensors
    assert (ref.name, ref.shape, ref.dtype, ref.file) == ("w", (2,), "F32", "")
    assert struct.unpack("<2f", data[ref.offset : ref.offset + ref.nbytes]) == (1.5, -2.5)


def test_packed_floats_lie_in_one_run_too() -> None:
    data = model(tensor(rest=block(4, struct.pack("<2f", 3, 4))))
    (ref,) = read(data).tensors
    assert struct.unpack("<2f", data[ref.offset : ref.offset + 8]) == (3, 4)


def test_varints_strings_and_empty_tensors_have_no_place() -> None:
    integers = tensor("i", kind=7, rest=block(7, varint(-1) + varint(300)))
    strings = tensor("s", kind=8, rest=block(6, "a") + block(6, "b"))
    header = read(model(integers, strings, tensor("none", (0, 4))))
    assert (header.tensors, header.unplaced) == ((), ("i", "s", "none"))


def test_external_values_name_their_file() -> None:
    header = read(
        model(tensor(rest=external("sub/w.bin", offset="4096")), tensor("v", rest=external(length=None)))
    )
    assert header.tensors[0] == TensorRef("w", (2,), "F32", "sub/w.bin", 4096, 8)
    assert header.external_files == {"sub/w.bin": 4104, "w.bin": 8}


def test_tensors_of_nested_graphs_and_attributes_are_found() -> None:
    inner = graph(tensor("k", rest=RAW), nodes=(node("Relu"),))
    branch = block(1, "then_branch") + block(6, inner)
    constant = block(1, "value") + block(5, tensor("", rest=RAW))
    header = read(
        model(nodes=(node("If", attribute=branch, name="if1"), node("Constant", attribute=constant)))
    )
    assert [t.name for t in header.tensors] == ["if1.then_branch/k", "y.value/"]
    assert header.op_types == {"Constant": 1, "If": 1, "Relu": 1}


def test_operators_defined_in_the_model_are_not_custom() -> None:
    body = block(1, "Fold") + block(10, "acme") + block(7, node("Relu"))
    header = read(model(nodes=(node("Fold", "acme"),), rest=block(25, body)))
    assert header.functions == ("acme::Fold",)
    assert header.custom_domains == ()


def test_tensors_of_training_graphs_are_found() -> None:
    info = block(1, graph(tensor("a", rest=RAW))) + block(2, graph(tensor("b", rest=RAW)))
    header = read(model(tensor(rest=RAW), rest=block(20, info)))
    assert [t.name for t in header.tensors] == ["w", "training/a", "training/b"]


def test_initializers_are_not_inputs() -> None:
    listed = block(11, value_info("w", 1, (2,)))
    data = number(1, 9) + block(7, graph(tensor(rest=RAW), rest=listed)) + OPSET
    assert [value.name for value in read(data).inputs] == ["x"]


def test_a_model_inside_another_file_reads_the_same() -> None:
    data = model(tensor(rest=RAW))
    wrapped = io.BytesIO(b"z" * 501 + data + b"\xff" * 40)
    assert sniff_model(wrapped, 501, len(data)) == "onnx"
    assert read_model_header(wrapped, 501, len(data)) == read(data)


def test_a_model_made_by_the_onnx_package_reads_as_onnx_reads_it() -> None:
    onnx, np = pytest.importorskip("onnx"), pytest.importorskip("numpy")
    h, numpy_helper = onnx.helper, onnx.numpy_helper
    arrays = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f16": np.ones((3, 1), np.float16),
        "scalar": np.array(7, np.int64),
        "bool": np.array([True, False]),
    }
    made = h.make_model(
        h.make_graph(
            [h.make_node("MatMul", ["x", "f32"], ["y"])],
            "g",
            [h.make_tensor_value_info("x", 1, ["n", 2])],
            [h.make_tensor_value_info("y", 1, ["n", 3])],
            [numpy_helper.from_array(a, n) for n, a in arrays.items()],
            doc_string="a graph",
        ),
        opset_imports=[h.make_opsetid("", 20)],
    )
    data = made.SerializeToString()
    header = read(data)
    assert header.ir_version == made.ir_version
    assert {t.name: t.shape for t in header.tensors} == {n: a.shape for n, a in arrays.items()}
    for ref in header.tensors:
        assert data[ref.offset : ref.offset + ref.nbytes] == arrays[ref.name].tobytes()


def test_data_types_agree_with_the_onnx_package() -> None:
    onnx = pytest.importorskip("onnx")
    kinds = set(onnx.TensorProto.DataType.values()) - {0}
    for kind in kinds - {8}:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        header = read(model(tensor(dims=(0,), kind=kind)))
        assert header.unplaced == ("w",), dtype
    assert read(model(tensor(dims=(3,), kind=22, rest=block(9, bytes(2))))).tensors[0].nbytes == 2


def test_weights_are_not_read() -> None:
    class Counting(io.BytesIO):
        amount = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.amount += len(data)
            return data

    file = Counting(model(tensor(dims=(1 << 21,), rest=block(9, bytes(8 << 20)))))
    assert read_onnx_header(file).parameter_count == 1 << 21
    assert file.amount <= 1 << 20


# --- hostile files ----------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    content = graph()
    for _ in range(depth):
        content = graph(nodes=(node("If", attribute=block(1, "b") + block(6, content)),))
    return number(1, 9) + block(7, content) + OPSET


def typed(kind: int, rest: bytes, dims: tuple[int, ...] = (2,)) -> Callable[[], bytes]:
    return lambda: model(tensor(dims=dims, kind=kind, rest=rest))


PATHS = {
    "absolute": "/etc/passwd",
    "parent": "../w.bin",
    "parent-inside": "a/../../w.bin",
    "dot": "./w.bin",
    "backslash": "a\\w.bin",
    "drive": "C:w.bin",
    "empty": "",
    "empty-segment": "a//w.bin",
    "trailing-slash": "a/",
    "control-character": "a\nb",
    "nul": "a\0b",
    "memory-address": "*/_ORT_MEM_ADDR_/*",
    "too-long": "a" * 1025,
}

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "MODEL_UNKNOWN"),
    "text": (lambda: b"this is a text, not a model", "MODEL_UNKNOWN"),
    "zeros": (lambda: bytes(100), "MODEL_UNKNOWN"),
    "another-message": (lambda: block(1, "name") + block(2, "value"), "MODEL_UNKNOWN"),
    "no-graph": (lambda: number(1, 9) + OPSET, "MODEL_TRUNCATED"),
    "no-opset": (lambda: number(1, 9) + block(7, graph()), "MODEL_TRUNCATED"),
    "two-graphs": (lambda: model(rest=block(7, graph())), "MODEL_UNSAFE"),
    "opset-twice": (lambda: model(rest=OPSET), "MODEL_UNSAFE"),
    "opset-twice-by-alias": (lambda: model(rest=block(8, block(1, "ai.onnx"))), "MODEL_UNSAFE"),
    "property-twice": (lambda: model(rest=pair(14, "a", "1") + pair(14, "a", "2")), "MODEL_UNSAFE"),
    "graph-past-the-end": (lambda: number(1, 9) + varint(58) + varint(1 << 40), "MODEL_TRUNCATED"),
    "tensor-past-its-graph": (
        lambda: number(1, 9) + block(7, varint(5 << 3 | 2) + varint(5) + b"\x10\x01") + OPSET,
        "MODEL_UNSAFE",
    ),
    "group": (lambda: number(1, 9) + block(7, b"\x0b\x0c") + OPSET, "MODEL_UNSAFE"),
    "field-number-zero": (lambda: number(1, 9) + block(7, b"\x02\x00") + OPSET, "MODEL_UNSAFE"),
    "field-number-huge": (
        lambda: number(1, 9) + block(7, varint(1 << 40) + b"\x00") + OPSET,
        "MODEL_UNSAFE",
    ),
    "varint-of-11-bytes": (
        lambda: number(1, 9) + block(7, b"\x10" + b"\x80" * 11 + b"\x00") + OPSET,
        "MODEL_UNSAFE",
    ),
    "name-with-a-wrong-wire-type": (lambda: model(tensor(rest=RAW) + number(8, 1)), "MODEL_UNSAFE"),
    "name-not-utf8": (
        lambda: model(number(1, 2) + number(2, 1) + block(8, b"\xff") + RAW),
        "MODEL_UNSAFE",
    ),
    "name-empty": (lambda: model(tensor("", rest=RAW)), "MODEL_UNSAFE"),
    "initializer-twice": (lambda: model(tensor(rest=RAW), tensor(rest=RAW)), "MODEL_UNSAFE"),
    "graphs-too-deep": (lambda: nested(17), "MODEL_UNSAFE"),
    "type-undefined": (typed(0, RAW), "MODEL_UNSAFE"),
    "type-unknown": (typed(99, RAW), "MODEL_UNSAFE"),
    "size-negative": (typed(1, RAW, (-2,)), "MODEL_UNSAFE"),
    "size-huge": (typed(1, RAW, (1 << 62, 1 << 62)), "MODEL_UNSAFE"),
    "too-many-sizes": (typed(1, RAW, (1,) * 65), "MODEL_UNSAFE"),
    "raw-too-short": (typed(1, RAW, (3,)), "MODEL_UNSAFE"),
    "raw-too-long": (typed(1, RAW, (1,)), "MODEL_UNSAFE"),
    "raw-strings": (typed(8, RAW), "MODEL_UNSAFE"),
    "no-values": (typed(1, b""), "MODEL_UNSAFE"),
    "too-few-integers": (typed(7, block(7, b"\x01"), (100,)), "MODEL_UNSAFE"),
    "too-few-strings": (typed(8, block(6, "a"), (2,)), "MODEL_UNSAFE"),
    "values-twice": (typed(1, RAW + block(4, bytes(8))), "MODEL_UNSAFE"),
    "segment": (typed(1, RAW + block(3, b"")), "MODEL_UNSAFE"),
    "external-and-raw": (typed(1, external() + RAW), "MODEL_UNSAFE"),
    "external-without-a-file": (typed(1, EXTERNAL), "MODEL_UNSAFE"),
    "external-two-files": (typed(1, external() + pair(13, "location", "v")), "MODEL_UNSAFE"),
    "external-length-wrong": (typed(1, external(length="9")), "MODEL_UNSAFE"),
    "external-length-negative": (typed(1, external(length="-8")), "MODEL_UNSAFE"),
    "external-offset-not-decimal": (typed(1, external(offset="0x10")), "MODEL_UNSAFE"),
    "external-offset-other-digits": (typed(1, external(offset="٤")), "MODEL_UNSAFE"),
    "external-offset-huge": (typed(1, external(offset="9" * 40)), "MODEL_UNSAFE"),
    "external-strings": (typed(8, external(length="0")), "MODEL_UNSAFE"),
    "path-in-a-tensor-that-is-not-external": (
        typed(1, RAW + pair(13, "location", "/etc/passwd")),
        "MODEL_UNSAFE",
    ),
    "path-in-an-attribute": (
        lambda: model(nodes=(node("Constant", attribute=block(5, tensor(rest=external("../x")))),)),
        "MODEL_UNSAFE",
    ),
    "path-in-a-function": (
        lambda: model(rest=block(25, block(7, node("C", attribute=block(5, tensor(rest=external("../x"))))))),
        "MODEL_UNSAFE",
    ),
    "path-in-training": (
        lambda: model(rest=block(20, block(1, graph(tensor(rest=external("../x")))))),
        "MODEL_UNSAFE",
    ),
    "path-in-a-sparse-tensor": (
        lambda: (
            number(1, 9)
            + block(7, graph(rest=block(15, block(1, tensor(rest=external("/x"))) + block(2, tensor()))))
            + OPSET
        ),
        "MODEL_UNSAFE",
    ),
    **{f"path-{k}": (typed(1, external(v)), "MODEL_UNSAFE") for k, v in PATHS.items()},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_have_a_verdict(name: str) -> None:
    make, code = HOSTILE[name]
    with pytest.raises(SealpackError) as caught:
        read(make())
    assert caught.value.code == code


def test_sixteen_nested_graphs_are_read() -> None:
    assert read(nested(16)).node_count == 16


RICH = model(
    tensor(rest=RAW),
    tensor("e", rest=external()),
    tensor("i", kind=7, rest=block(7, varint(1) + varint(2))),
    nodes=(
        node("If", attribute=block(1, "b") + block(6, graph(tensor("k", rest=RAW)))),
        node("Fold", "acme"),
    ),
    rest=pair(14, "name", "n"),
)


def test_every_cut_is_noticed() -> None:
    whole = {len(RICH), len(RICH) - len(pair(14, "name", "n"))}  # nothing is missing there
    for length in set(range(len(RICH))) - whole:
        with pytest.raises(SealpackError) as caught:
            read(RICH[:length])
        assert caught.value.code == ("MODEL_UNKNOWN" if length < 2 else "MODEL_TRUNCATED"), length


def test_fields_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_MAX_FIELDS", 1000)
    flood = number(1, 9) + block(7, b"\x50\x00" * 1000 + graph()) + OPSET
    with pytest.raises(SealpackError, match="fields") as caught:
        read(flood)
    assert caught.value.code == "MODEL_UNSAFE"


def test_a_list_without_end_is_refused() -> None:
    attributes = block(5, b"") * ((1 << 14) + 1)
    with pytest.raises(SealpackError, match="more than 16384 times"):
        read(model(nodes=(attributes,)))


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"PK\x03\x04", "zip"),
        (b"\x80\x02}q", "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (struct.pack("<Q", 600) + b'{"w":{', "safetensors"),
    ],
)
def test_other_model_files_are_told_by_name(head: bytes, told: str) -> None:
    with pytest.raises(SealpackError, match=told) as caught:
        sniff_model(io.BytesIO(head + bytes(100)))
    assert caught.value.code == "MODEL_UNKNOWN"


def only_named_errors(read_it: Callable[[io.BytesIO], Any], data: bytes) -> None:
    try:
        read_it(io.BytesIO(data))
    except SealpackError as error:
        assert error.code in {"MODEL_UNKNOWN", "MODEL_TRUNCATED", "MODEL_UNSAFE"}


@settings(max_examples=300, deadline=2000)
@given(st.integers(0, 2**31), st.integers(0, 7), st.integers(0, 2**31))
def test_a_flipped_bit_and_a_cut_never_surprise(place: int, bit: int, keep: int) -> None:
    data = bytearray(RICH)
    data[place % len(data)] ^= 1 << bit
    only_named_errors(read_onnx_header, bytes(data))
    only_named_errors(read_model_header, bytes(data[: keep % len(data)]))


def test_every_single_bit_flip_has_a_verdict_or_reads() -> None:
    for place in range(len(RICH)):
        for bit in range(8):
            data = bytearray(RICH)
            data[place] ^= 1 << bit
            only_named_errors(read_onnx_header, bytes(data))


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=300))
def test_any_graph_bytes_never_surprise(content: bytes) -> None:
    only_named_errors(read_onnx_header, number(1, 9) + block(7, content) + OPSET)
    only_named_errors(read_onnx_header, number(1, 9) + block(7, block(5, content)) + OPSET)


def test_shuffled_fields_never_surprise() -> None:
    rng = random.Random(1)
    for _ in range(300):
        pieces = [number(rng.randrange(1, 30), rng.getrandbits(64)) for _ in range(4)]
        pieces += [block(rng.randrange(1, 30), rng.randbytes(rng.randrange(12))) for _ in range(6)]
        rng.shuffle(pieces)
        only_named_errors(read_onnx_header, number(1, 9) + block(7, b"".join(pieces)) + OPSET)


# --- bounds -------------------------------------------------------------------------------------


def test_more_nodes_than_any_engine_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_header, "_MAX_NODES", 3)
    assert read(model(nodes=(node("Relu"),) * 3)).node_count == 3
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*more than 3 nodes"):
        read(model(nodes=(node("Relu"),) * 4))


def test_tensors_are_counted_wherever_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_header, "LIMITS", replace(LIMITS, model_tensors=3))
    inner = node("If", attribute=block(1, "then") + block(6, graph(tensor("c", rest=RAW))))
    outer = (tensor("a", rest=RAW), tensor("b", kind=8, rest=block(6, "x") + block(6, "y")))
    header = read(model(*outer, nodes=(inner,)))
    assert len(header.tensors) + len(header.unplaced) == 3
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*more than 3 tensors"):
        read(model(*outer, tensor("d", rest=RAW), nodes=(inner,)))


def test_names_of_nested_graphs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_header, "_MAX_SCOPE", 40)
    inner = block(1, "b" * 20) + block(6, graph(tensor("k", rest=RAW)))
    (ref,) = read(model(nodes=(node("If", attribute=inner, name="n" * 10),))).tensors
    assert ref.name == f"{'n' * 10}.{'b' * 20}/k"
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*nested graphs are longer than 40"):
        read(model(nodes=(node("If", attribute=inner, name="n" * 20),)))


def test_text_held_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_MAX_KEPT_BYTES", 1000)
    assert read(model(nodes=(node("O" * 900),))).node_count == 1
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*names and texts are more than 1000 bytes"):
        read(model(nodes=(node("A" * 500), node("B" * 500))))


def test_sizes_may_be_packed_and_are_not_more_than_any_tensor_has() -> None:
    def packed(*dims: int) -> bytes:
        return block(1, b"".join(map(varint, dims))) + number(2, 1) + block(8, "w")

    (ref,) = read(model(packed(1, 2) + RAW)).tensors
    assert ref.shape == (1, 2)
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*more than 64 elements"):
        read(model(packed(*[1] * 65) + RAW))
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*has sizes \[-1\]"):
        read(model(packed(-1) + RAW))


def test_values_that_functions_give_their_attributes_are_recorded() -> None:
    default = block(1, "bias") + block(5, tensor("t", rest=RAW))
    header = read(model(rest=block(25, block(1, "F") + block(10, "acme") + block(11, default))))
    assert header.functions == ("acme::F",)
    assert [t.name for t in header.tensors] == ["acme::F.bias/t"]


@pytest.mark.parametrize("member", [22, 23], ids=["one", "list"])
def test_sparse_tensors_in_attributes_are_recorded(member: int) -> None:
    indices = tensor("i", (1,), 7, block(9, struct.pack("<q", 0)))
    sparse = block(1, tensor("v", rest=RAW)) + block(2, indices)
    constant = node("Constant", attribute=block(1, "sparse_value") + block(member, sparse))
    header = read(model(nodes=(constant,)))
    assert [(t.name, t.nbytes) for t in header.tensors] == [
        ("y.sparse_value/v", 8),
        ("y.sparse_value/v.indices/i", 8),
    ]
