"""Targets: model headers and the protobuf walker under one of them."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from math import prod
from pathlib import PurePosixPath

from support import world
from support.protowire import block, number, varint

from fuzz.target import Target
from sealpack.format.errors import SealpackError
from sealpack.format.gguf_header import GgufHeader, read_gguf_header
from sealpack.format.model_header import read_model_header, sniff_model
from sealpack.format.onnx_header import OnnxHeader, read_onnx_header
from sealpack.format.protobuf import LENGTH, Field, Span, Wire
from sealpack.format.window import ByteWindow

SHIFT = 77  # a model inside a bundle does not begin at 0


def run_gguf(data: bytes) -> None:
    """Tensors lie inside the file, aligned, behind the header, none over another."""
    header = read_gguf_header(io.BytesIO(data))
    end = header.data_offset
    for tensor in sorted(header.tensors, key=lambda t: t.offset):
        assert (
            end <= tensor.offset and tensor.offset % header.alignment == header.data_offset % header.alignment
        )
        end = tensor.offset + tensor.nbytes
        assert end <= len(data)
        assert len(tensor.shape) <= 4 and tensor.count > 0
    assert header.parameter_count >= len(header.tensors)
    assert header.quantization is not None and header.context_length != ""
    assert sniff_model(io.BytesIO(data)) == "gguf"
    _same_inside(data, header)


def run_onnx(data: bytes) -> None:
    """Values lie inside the file or in a plain relative path below the model's folder."""
    header = read_onnx_header(io.BytesIO(data))
    for tensor in header.tensors:
        if tensor.file:
            path = PurePosixPath(tensor.file)
            assert not path.is_absolute() and ".." not in path.parts and str(path) == tensor.file
        else:
            assert tensor.offset >= 0 and tensor.offset + tensor.nbytes <= len(data)
        assert tensor.count == prod(tensor.shape)
    assert header.node_count == sum(header.op_types.values())
    assert set(header.custom_domains) <= set(header.domains)
    assert all(need >= 0 for need in header.external_files.values())
    assert header.name != "" and header.quantization is not None
    _same_inside(data, header)


def _same_inside(data: bytes, header: GgufHeader | OnnxHeader) -> None:
    """The header does not depend on where the model begins; 0 == False apart, NaN is not itself."""
    if sniff_model(io.BytesIO(data)) == ("gguf" if isinstance(header, GgufHeader) else "onnx"):
        wrapped = io.BytesIO(b"\xaa" * SHIFT + data + b"\x55" * SHIFT)
        assert repr(read_model_header(wrapped, SHIFT, len(data))) == repr(header)


def run_protobuf(data: bytes) -> None:
    """Fields tile their message; walking into every one that is a message itself stays in bounds."""
    wire = Wire(ByteWindow(io.BytesIO(data)))
    _walk(wire, wire.whole, 0)


def _walk(wire: Wire, span: Span, depth: int) -> None:
    at = span.begin
    for field in wire.fields(span):
        assert at < field.end <= span.end and at <= field.begin
        at = field.end
        if field.wire == LENGTH and depth < 4:
            _quiet(lambda field=field: _walk(wire, wire.content(field), depth + 1))
            _quiet(lambda field=field: wire.signed_list(field, 16))
            _quiet(lambda field=field: wire.text(field, 64))
        _quiet(lambda field=field: wire.signed(field))
    assert at == span.end
    numbers = frozenset(range(1, 8))
    _quiet(lambda: wire.message(span, numbers))
    found = wire.message(span, frozenset(), numbers)
    assert all(isinstance(f, Field) and f.number == n for n, fields in found.items() for f in fields)


def _quiet(action: object) -> None:
    try:
        action()  # type: ignore[operator]
    except SealpackError as error:
        assert error.code in ("MODEL_UNSAFE", "MODEL_TRUNCATED")


# --- protobuf with its lengths kept right -------------------------------------------------------------

Tree = list[tuple[int, int, "int | bytes | Tree"]]


def mutate_protobuf(data: bytes, chance: random.Random) -> bytes | None:
    """A field changed, dropped, doubled or moved at any depth, every length around it right again."""
    tree = _parse(data, 0)
    if not tree:
        return None
    level = tree
    while chance.random() < 0.75:
        inner = [value for _, _, value in level if isinstance(value, list) and value]
        if not inner:
            break
        level = chance.choice(inner)
    at = chance.randrange(len(level))
    number, wire, value = level[at]
    match chance.randrange(6):
        case 0:
            level.pop(at)
        case 1:
            level.insert(at, level[at])
        case 2:
            level.insert(chance.randrange(len(level)), level.pop(at))
        case 3:
            level[at] = (chance.choice((1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 20, 25)), wire, value)
        case _:
            level[at] = (number, wire, _other(value, chance))
    return _write(tree)


def _other(value: int | bytes | Tree, chance: random.Random) -> int | bytes | Tree:
    if isinstance(value, int):
        return chance.choice((0, 1, 2, 7, 8, 255, 1 << 31, (1 << 64) - 1, value + 1))
    if isinstance(value, bytes):
        at = chance.randint(0, len(value))
        return value[:at] + chance.randbytes(chance.randint(0, 3)) + value[at + chance.randint(0, 3) :]
    return value + value


def _parse(data: bytes, depth: int) -> Tree | None:
    """Fields of a message; None when it is none (then it is a string, or plain bytes)."""
    wire = Wire(ByteWindow(io.BytesIO(data)))
    tree: Tree = []
    try:
        for field in wire.fields(wire.whole):
            raw = data[field.begin : field.end]
            inner = _parse(raw, depth + 1) if field.wire == LENGTH and raw and depth < 12 else None
            tree.append((field.number, field.wire, field.value if field.wire == 0 else inner or raw))
    except SealpackError:
        return None
    return tree


def _write(tree: Tree) -> bytes:
    out = b""
    for at, wire, value in tree:
        out += varint(at << 3 | wire)
        if isinstance(value, int):
            out += varint(value)
        else:
            raw = _write(value) if isinstance(value, list) else value
            out += (varint(len(raw)) if wire == LENGTH else b"") + raw
    return out


def tensor(name: str, rest: bytes = b"", dims: tuple[int, ...] = (2,), kind: int = 1) -> bytes:
    """A TensorProto."""
    return b"".join(number(1, d) for d in dims) + number(2, kind) + block(8, name) + rest


def onnx_model(graph: bytes, rest: bytes = b"") -> bytes:
    """A ModelProto around a graph."""
    return number(1, 9) + block(2, "fuzz") + block(7, graph) + block(8, number(2, 20)) + rest


# --- GGUF with its counts kept right ------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def gguf(pairs: list[bytes], infos: list[bytes], weights: int = 0, version: int = 3) -> bytes:
    """A GGUF file of these rows and `weights` zero bytes."""
    architecture = text("general.architecture") + struct.pack("<I", 8) + text("toy")
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs) + 1)
    head += b"".join([architecture, *pairs, *infos])
    return head + bytes(-len(head) % 32) + bytes(weights)


def pair(key: str, kind: int, value: bytes) -> bytes:
    """A metadata row."""
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, sizes: tuple[int, ...], kind: int, offset: int) -> bytes:
    """A tensor row."""
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def seeds_gguf() -> Iterator[bytes]:
    """A file with every value type, arrays short and long, several tensor types."""
    scalars = (
        (0, "B", 1), (1, "b", -1), (2, "H", 3), (3, "h", -3), (4, "I", 64), (5, "i", -9),
        (6, "f", 0.5), (7, "?", True), (10, "Q", 1 << 40), (11, "q", -5), (12, "d", 2.5),
    )  # fmt: skip
    rows = [pair(f"toy.v{kind}", kind, struct.pack(f"<{code}", value)) for kind, code, value in scalars]
    rows += [
        pair("general.alignment", 4, struct.pack("<I", 32)),
        pair("general.file_type", 4, struct.pack("<I", 7)),
        pair("toy.context_length", 4, struct.pack("<I", 64)),
        pair("toy.few", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3)),
        pair("toy.many", 9, struct.pack("<IQ", 0, 80) + bytes(80)),
        pair("toy.words", 9, struct.pack("<IQ", 8, 2) + text("a") + text("ß")),
        pair("toy.more", 9, struct.pack("<IQ", 8, 70) + text("t") * 70),
    ]
    yield gguf(rows, [info("a", (64, 2), 8, 0), info("b", (3,), 0, 160)], 172)
    yield gguf([], [])
    yield gguf([], [info("a", (), 0, 0)], 4, version=2)
    yield world.tiny_gguf(4)


def seeds_onnx() -> Iterator[bytes]:
    """Small graphs with raw, packed, external, sparse and nested tensors, functions and properties."""
    raw = block(9, struct.pack("<2f", 1.5, -2.5))
    shape = block(2, block(1, number(1, 4)) + block(1, block(2, "n")))
    port = block(1, "x") + block(2, block(1, number(1, 1) + shape))
    relu = block(1, "x") + block(2, "y") + block(4, "Relu")
    yield onnx_model(
        block(1, relu) + block(2, "g") + block(5, tensor("w", raw)) + block(11, port) + block(12, port)
    )
    entry = block(13, block(1, "location") + block(2, "w.bin")) + block(
        13, block(1, "offset") + block(2, "64")
    )
    yield onnx_model(block(5, tensor("w", entry + number(14, 1))))
    inner = block(1, relu) + block(5, tensor("k", block(4, struct.pack("<2f", 1, 2))))
    branch = block(1, "then_branch") + block(6, inner)
    sparse = block(1, tensor("s", raw)) + block(2, tensor("", block(7, varint(1) + varint(2)), kind=7))
    yield onnx_model(block(1, block(4, "If") + block(5, branch)) + block(15, sparse))
    function = block(1, "Fold") + block(10, "acme") + block(7, relu)
    props = block(14, block(1, "License") + block(2, "MIT"))
    nodes = block(1, block(4, "Fold") + block(7, "acme"))
    yield onnx_model(nodes, block(25, function) + props + block(20, block(1, block(2, "t"))))
    yield onnx_model(block(5, tensor("s", block(6, "a") + block(6, "b"), kind=8)))
    yield onnx_model(block(5, tensor("e", dims=(0, 4))))


TARGETS = (
    Target("gguf", run_gguf, seeds_gguf),
    Target("onnx", run_onnx, seeds_onnx, mutate_protobuf),
    Target("protobuf", run_protobuf, seeds_onnx, mutate_protobuf, max_len=1024),
)
