"""Faults of model content, signed by a creator who is hostile or was deceived."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from support import world
from support.protowire import block, number
from support.world import BundleSpec

from corpus.base import Add

GGUF = world.tiny_gguf(8)
# only a reader of whole ONNX headers sees these faults; one that follows external data alone does not
WHOLE: dict[str, Any] = {"header": "whole"}
UNSAFE, CUT = "MODEL_UNSAFE", "MODEL_TRUNCATED"


def cases(add: Add) -> None:
    """The whole group."""
    _kinds(add)
    for name, description, code, data in (*_counts(), *_pairs(), *_tensors()):
        add(f"gguf-{name}", description, code, BundleSpec(model=data).build())
    for name, description, code, data in (*_wire(), *_graphs(), *_stored()):
        whole = {} if code == "ok" or name.startswith(("cut", "external")) else WHOLE
        add(f"onnx-{name}", description, code, onnx_bundle(data), **whole)
    _external(add)


def _kinds(add: Add) -> None:
    for name, description, code, data in (
        ("model-unknown", "The model is text.", "MANIFEST_MISMATCH", b"not a model at all, only text"),
        ("model-cut", "The GGUF is cut short.", CUT, GGUF[:40]),
        ("model-count", "A GGUF that states 2^60 tensors.", UNSAFE, _at(8, "Q", 1 << 60)),
        ("model-empty", "The model has no bytes.", "MANIFEST_MISMATCH", b""),
        ("model-pickle", "The model is a Python pickle.", "MANIFEST_MISMATCH", b"\x80\x02cos\nsystem\n."),
        ("model-zip", "The model is a PyTorch archive.", "MANIFEST_MISMATCH", b"PK\3\4" + bytes(60)),
        ("model-hdf5", "The model is an HDF5 file.", "MANIFEST_MISMATCH", b"\x89HDF\r\n\x1a\n" + bytes(60)),
        ("model-elf", "The model is a program.", "MANIFEST_MISMATCH", b"\x7fELF\2\1\1" + bytes(60)),
        ("model-lfs", "The model is a pointer to another file.", "MANIFEST_MISMATCH",
         b"version https://git-lfs.github.com/spec/v1\n"),
        ("model-safetensors", "The model is a safetensors file.", "MANIFEST_MISMATCH",
         struct.pack("<Q", 2) + b'{"a":0}'),
        ("gguf-big-endian", "A GGUF of the other byte order.", "MANIFEST_MISMATCH", _at(4, ">I", 3)),
        ("gguf-version", "A GGUF of version 1.", "MANIFEST_MISMATCH", _at(4, "I", 1)),
        ("gguf-magic-only", "Four bytes.", "MANIFEST_MISMATCH", b"GGUF"),
        ("onnx-as-gguf", "An ONNX model, the manifest says gguf.", "MANIFEST_MISMATCH", onnx(tensor())),
    ):  # fmt: skip
        add(name, description, code, BundleSpec(model=data).build())
    add("gguf-as-onnx", "A GGUF, the manifest says onnx.", "MANIFEST_MISMATCH", onnx_bundle(GGUF))


# --- GGUF -----------------------------------------------------------------------------------------------


def _at(offset: int, form: str, value: int) -> bytes:
    data = bytearray(GGUF)
    struct.pack_into(form if form[0] == ">" else "<" + form, data, offset, value)
    return bytes(data)


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string; `length` lies."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


ARCH = text("general.architecture") + struct.pack("<I", 8) + text("llama")


def gguf(
    pairs: bytes = b"", more: int = 0, table: bytes | None = None, count: int = 1, size: int = 32
) -> bytes:
    """A GGUF with `more` pairs behind the architecture, and a table of `count` tensors."""
    head = b"GGUF" + struct.pack("<IQQ", 3, count, 1 + more) + ARCH + pairs
    head += row() if table is None else table
    return head + bytes(-len(head) % 32) + bytes(size)


def row(name: str | bytes = "w", sizes: tuple[int, ...] = (8,), kind: int = 0, at: int = 0) -> bytes:
    """A row of the tensor table."""
    dims = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    return text(name) + dims + struct.pack("<IQ", kind, at)


def pair(key: str, kind: int, value: bytes) -> bytes:
    """A key-value."""
    return text(key) + struct.pack("<I", kind) + value


Model = tuple[str, str, str, bytes]


def _counts() -> tuple[Model, ...]:
    return (
        ("tensors-2-64", "2^64 - 1 tensors.", UNSAFE, _at(8, "Q", 2**64 - 1)),
        ("tensors-million", "A million tensors in a file of 200 bytes.", CUT, _at(8, "Q", 1 << 20)),
        ("tensors-one-more", "One tensor more than there is.", CUT, _at(8, "Q", 2)),
        ("pairs-2-64", "2^64 - 1 key-values.", UNSAFE, _at(16, "Q", 2**64 - 1)),
        ("pairs-65536", "65,536 key-values in a file of 200 bytes.", UNSAFE, _at(16, "Q", 1 << 16)),
        ("cut-header", "The file ends inside the counts.", CUT, GGUF[:20]),
        ("cut-key", "The file ends inside a key.", CUT, GGUF[:36]),
        ("cut-table", "The file ends inside the tensor table.", CUT, GGUF[:90]),
        ("cut-data", "The last weight is missing.", CUT, GGUF[:-1]),
    )


def _pairs() -> tuple[Model, ...]:
    array = struct.pack("<IQ", 9, 1) * 3 + struct.pack("<IQ", 4, 0)
    strings = struct.pack("<IQ", 8, 1 << 40)
    return (
        ("key-long", "A key of 2^63 bytes.", CUT, _at(24, "Q", 1 << 63)),
        ("key-2-64", "A key of 2^64 - 1 bytes: added to the position, it is small.", CUT,
         _at(24, "Q", 2**64 - 1)),
        ("key-2000", "A key of 2,000 bytes.", UNSAFE, gguf(pair("k" * 2000, 0, b"\0"), 1)),
        ("key-twice", "A key twice.", UNSAFE, gguf(ARCH, 1)),
        ("key-not-utf-8", "A key that is no text.", UNSAFE,
         gguf(text(b"\xff") + struct.pack("<IB", 0, 0), 1)),
        ("value-long", "A text of 2^62 bytes.", CUT, gguf(pair("k", 8, text("x", 1 << 62)), 1)),
        ("value-not-utf-8", "A value that is no text.", UNSAFE, gguf(pair("k", 8, text(b"\xc3\x28")), 1)),
        ("value-type", "A value of unknown type.", UNSAFE, gguf(pair("k", 99, b""), 1)),
        ("value-bool", "A truth value of 2.", UNSAFE, gguf(pair("k", 7, b"\2"), 1)),
        ("array-nested", "Arrays in arrays.", UNSAFE, gguf(pair("k", 9, array), 1)),
        ("array-type", "An array of unknown type.", UNSAFE, gguf(pair("k", 9, struct.pack("<IQ", 77, 1)), 1)),
        ("array-2-60", "An array of 2^60 numbers.", CUT,
         gguf(pair("k", 9, struct.pack("<IQ", 4, 1 << 60)), 1)),
        ("array-2-62-wide", "2^62 numbers of 8 bytes: 2^65 overflows.", CUT,
         gguf(pair("k", 9, struct.pack("<IQ", 10, 1 << 62)), 1)),
        ("array-strings", "An array of 2^40 texts.", UNSAFE, gguf(pair("k", 9, strings), 1)),
        ("array-strings-million", "A million texts in 200 bytes.", CUT,
         gguf(pair("k", 9, struct.pack("<IQ", 8, 1 << 20)), 1)),
        ("architecture-number", "general.architecture is a number.", UNSAFE,
         b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("general.architecture", 4, bytes(4)) + bytes(64)),
        ("architecture-none", "No general.architecture.", UNSAFE,
         b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(64)),
        ("alignment-zero", "Alignment 0: a division by zero.", UNSAFE, gguf(_alignment(0), 1)),
        ("alignment-odd", "Alignment 33.", UNSAFE, gguf(_alignment(33), 1)),
        ("alignment-huge", "Alignment 2^31.", UNSAFE, gguf(_alignment(1 << 31), 1)),
        ("alignment-text", "The alignment is a text.", UNSAFE,
         gguf(pair("general.alignment", 8, text("32")), 1)),
        ("alignment-negative", "The alignment is negative.", UNSAFE,
         gguf(pair("general.alignment", 5, struct.pack("<i", -32)), 1)),
        ("alignment-lie", "An alignment at which the weights end past the file.", CUT,
         gguf(_alignment(4096), 1)),
    )  # fmt: skip


def _alignment(value: int) -> bytes:
    return pair("general.alignment", 4, struct.pack("<I", value))


def _tensors() -> tuple[Model, ...]:
    def one(**fields: Any) -> bytes:
        return gguf(table=row(**fields))

    def two(second: bytes, size: int = 64) -> bytes:
        return gguf(table=row() + second, count=2, size=size)

    return (
        ("tensor-past-end", "A tensor beyond the file.", CUT, one(at=1 << 40)),
        ("tensor-offset-2-64", "An offset that overflows.", CUT, one(at=2**64 - 32)),
        ("tensor-too-large", "A tensor larger than the file.", CUT, one(sizes=(1 << 20,))),
        ("tensor-sizes-overflow", "2^32 x 2^32 numbers: 0 in 64 bits.", CUT, one(sizes=(1 << 32, 1 << 32))),
        ("tensor-sizes-2-64", "2^64 - 1 numbers.", CUT, one(sizes=(2**64 - 1,))),
        ("tensor-size-zero", "A dimension of 0.", UNSAFE, one(sizes=(8, 0))),
        ("tensor-dims-5", "Five dimensions.", UNSAFE, one(sizes=(8, 1, 1, 1, 1))),
        ("tensor-dims-2-32", "2^32 - 1 dimensions.", UNSAFE,
         gguf(table=text("w") + struct.pack("<I", 2**32 - 1))),
        ("tensor-type", "An unknown type.", UNSAFE, one(kind=1000)),
        ("tensor-type-removed", "A type that was taken out of the format.", UNSAFE, one(kind=4)),
        ("tensor-block", "8 numbers of a type that has blocks of 32.", UNSAFE, one(kind=8)),
        ("tensor-unaligned", "A tensor at offset 1.", UNSAFE, one(at=1)),
        ("tensor-overlap", "Two tensors share their bytes.", UNSAFE, two(row("v"))),
        ("tensor-overlap-part", "One tensor begins inside another.", UNSAFE,
         gguf(table=row(sizes=(16,)) + row("v", at=32), count=2, size=64)),
        ("tensor-name-twice", "Two tensors of one name.", UNSAFE, two(row(at=32))),
        ("tensor-name-long", "A name of 4,000 bytes.", UNSAFE, one(name="w" * 4000)),
        ("tensor-name-2-63", "A name of 2^63 bytes.", CUT, gguf(table=text("w", 1 << 63))),
        ("tensor-name-not-utf-8", "A name that is no text.", UNSAFE, one(name=b"\xfe")),
    )  # fmt: skip


# --- ONNX -----------------------------------------------------------------------------------------------


RAW = block(9, struct.pack("<2f", 1.5, -2.5))
OPSET = block(8, number(2, 20))


def tensor(name: str = "w", dims: tuple[int, ...] = (2,), kind: int = 1, rest: bytes = RAW) -> bytes:
    """A TensorProto of two floats."""
    return b"".join(number(1, d) for d in dims) + number(2, kind) + block(8, name) + rest


def external(location: str | bytes | None = "w.bin", length: str = "8", offset: str = "0") -> bytes:
    """A TensorProto whose values are in another file."""
    told = {"location": location, "offset": offset, "length": length}
    pairs = (block(13, block(1, k) + block(2, v)) for k, v in told.items() if v is not None)
    return tensor(rest=b"".join(pairs) + number(14, 1))


def node(*attributes: bytes, op: str = "Relu", domain: str = "") -> bytes:
    """A NodeProto."""
    own = block(7, domain) if domain else b""
    return block(1, "x") + block(2, "y") + block(4, op) + own + b"".join(block(5, a) for a in attributes)


def graph(*tensors: bytes, nodes: tuple[bytes, ...] = (), rest: bytes = b"") -> bytes:
    """A GraphProto."""
    return (
        b"".join(block(1, n) for n in nodes) + block(2, "g") + b"".join(block(5, t) for t in tensors) + rest
    )


def onnx(*tensors: bytes, nodes: tuple[bytes, ...] = (), rest: bytes = b"", more: bytes = b"") -> bytes:
    """A ModelProto; `rest` stands in its graph, `more` behind it."""
    return number(1, 9) + block(7, graph(*tensors, nodes=nodes, rest=rest)) + OPSET + more


def onnx_bundle(model: bytes, **more: Any) -> bytes:
    """A signed bundle of an ONNX model."""
    engine, io = {"name": "onnxruntime"}, {"task": "tensor"}
    return BundleSpec(
        kind="onnx", model_name="payload/model.onnx", model=model, engine=engine, io=io, **more
    ).build()


def _nested(depth: int) -> bytes:
    inner = graph()
    for _ in range(depth):
        inner = graph(nodes=(node(block(1, "body") + block(6, inner), op="Loop"),))
    return inner


def _wire() -> tuple[Model, ...]:
    good = onnx(tensor())
    return (
        ("cut", "The last byte is missing.", CUT, good[:-1]),
        ("cut-half", "The second half is missing.", CUT, good[: len(good) // 2]),
        ("varint-long", "A number of 11 bytes.", UNSAFE, onnx(rest=b"\x08" + b"\xff" * 10 + b"\1")),
        ("varint-cut", "A number that does not end.", UNSAFE, onnx(rest=b"\x08\xff")),
        ("length-2-63", "A field of 2^63 bytes.", CUT, onnx(rest=block(5, b"", 1 << 63))),
        ("length-2-64", "A field of 2^64 - 1 bytes: the position wraps round.", CUT,
         onnx(rest=block(5, b"", 2**64 - 1))),
        ("length-past-message", "A field that reaches out of its message.", UNSAFE,
         onnx(rest=block(5, b"xx", 4), more=block(14, block(1, "k") + block(2, "v" * 40)))),
        ("group", "A group, long out of use.", UNSAFE, onnx(rest=b"\x0b\x0c")),
        ("wire-type", "A wire type that does not exist.", UNSAFE, onnx(rest=b"\x0e")),
        ("field-zero", "Field number 0.", UNSAFE, onnx(rest=b"\x00\x00")),
        ("graph-twice", "Two graphs: decoders would merge them.", UNSAFE, onnx(more=block(7, graph()))),
        ("graph-none", "No graph.", CUT, number(1, 9) + OPSET),
        ("opset-none", "No operator set.", CUT, number(1, 9) + block(7, graph())),
        ("opset-twice", "One operator domain in two versions.", UNSAFE, onnx(more=OPSET)),
        ("metadata-twice", "A metadata property twice.", UNSAFE,
         onnx(more=2 * block(14, block(1, "k") + block(2, "v")))),
        ("producer-not-utf-8", "The producer's name is no text.", UNSAFE, onnx(more=block(2, b"\xff"))),
        ("producer-long", "A producer's name of 1 MiB.", UNSAFE, onnx(more=block(2, "x" * (1 << 20)))),
    )  # fmt: skip


def _graphs() -> tuple[Model, ...]:
    deep = number(1, 9) + block(7, _nested(17)) + OPSET
    ports = block(11, block(1, "p")) * ((1 << 14) + 1)
    both = block(1, "x") + block(2, block(1, number(1, 1)) + block(4, b""))
    size_and_name = block(1, number(1, 1) + block(2, block(1, number(1, 3) + block(2, "n"))))
    function = block(1, "f") + block(10, "evil") + block(7, node(block(1, "v") + block(5, external("../x"))))
    return (
        ("nested-17", "Graphs nested 17 deep.", UNSAFE, deep),
        ("nested-500", "Graphs nested 500 deep.", UNSAFE, number(1, 9) + block(7, _nested(500)) + OPSET),
        ("ports", "16,385 inputs.", UNSAFE, onnx(rest=ports)),
        ("port-two-types", "An input that is tensor and sequence.", UNSAFE, onnx(rest=block(11, both))),
        ("port-dimension", "A dimension with a size and a name.", UNSAFE,
         onnx(rest=block(11, block(1, "x") + block(2, size_and_name)))),
        ("port-type", "An input of unknown type.", UNSAFE,
         onnx(rest=block(11, block(1, "x") + block(2, block(1, number(1, 99)))))),
        ("attribute-wire", "A graph attribute that is a number.", UNSAFE,
         onnx(nodes=(node(block(1, "body") + number(6, 1)),))),
        ("domain", "An operator of an unknown domain: listed, not refused.", "ok",
         onnx(tensor(), nodes=(node(op="Shell", domain="com.evil"),))),
        ("external-in-attribute", "A path out of the folder in an operator's attribute.", UNSAFE,
         onnx(nodes=(node(block(1, "value") + block(5, external("../secret"))),))),
        ("external-in-subgraph", "A path out of the folder in a loop's body.", UNSAFE,
         onnx(nodes=(node(block(1, "body") + block(6, graph(external("../secret")))),))),
        ("external-in-function", "A path out of the folder in a function.", UNSAFE,
         onnx(more=block(25, function))),
        ("external-in-training", "A path out of the folder in training information.", UNSAFE,
         onnx(more=block(20, block(1, graph(external("../secret")))))),
        ("external-in-sparse", "A path out of the folder in a sparse tensor.", UNSAFE,
         onnx(rest=block(15, block(1, external("../secret")) + block(2, tensor("i"))))),
        ("sparse-half", "A sparse tensor without indices.", UNSAFE, onnx(rest=block(15, block(1, tensor())))),
    )  # fmt: skip


def _stored() -> tuple[Model, ...]:
    floats = block(4, struct.pack("<2f", 1, 2))
    return (
        ("tensor-short", "A tensor with fewer bytes than its shape says.", UNSAFE, onnx(tensor(dims=(3,)))),
        ("tensor-long", "A tensor with more bytes than its shape says.", UNSAFE, onnx(tensor(dims=(1,)))),
        ("tensor-negative", "A size of -1.", UNSAFE, onnx(tensor(dims=(-1,)))),
        ("tensor-overflow", "2^32 x 2^32 x 2^32 numbers.", UNSAFE, onnx(tensor(dims=(1 << 32,) * 3))),
        ("tensor-2-63", "2^63 - 1 numbers.", UNSAFE, onnx(tensor(dims=(2**63 - 1,)))),
        ("tensor-dims-65", "65 dimensions.", UNSAFE, onnx(tensor(dims=(1,) * 65))),
        ("tensor-type", "An unknown data type.", UNSAFE, onnx(tensor(kind=99))),
        ("tensor-two-places", "Values in two fields.", UNSAFE, onnx(tensor(rest=RAW + floats))),
        ("tensor-raw-twice", "Raw values twice.", UNSAFE, onnx(tensor(rest=RAW + RAW))),
        ("tensor-segment", "A tensor in segments.", UNSAFE, onnx(tensor(rest=RAW + block(3, number(1, 0))))),
        ("tensor-name-twice", "Two initializers of one name.", UNSAFE, onnx(tensor(), tensor())),
        ("tensor-name-none", "An initializer without a name.", UNSAFE, onnx(tensor(""))),
        ("tensor-few", "1,000 strings, of which one is there.", UNSAFE,
         onnx(tensor(dims=(1000,), kind=8, rest=block(6, "x")))),
    )  # fmt: skip


PATHS = {
    "traversal": "../../../etc/passwd", "traversal-inside": "a/../../x", "absolute": "/etc/passwd",
    "drive": "C:\\Windows\\x", "backslash": "..\\x", "share": "\\\\host\\share", "dot": "./w.bin",
    "empty": "", "folder": "w/", "nul": "w.bin\0.txt", "newline": "w\n.bin", "stream": "w.bin:x",
    "memory": "*/_ORT_MEM_ADDR_/*", "device": "/dev/zero", "long": "w" * 2000, "url": "file:///etc/passwd",
}  # fmt: skip


def _external(add: Add) -> None:
    data = {"payload/w.bin": ("model-data", "application/octet-stream", bytes(8))}
    card = {"payload/w.bin": ("asset", "application/octet-stream", bytes(8))}
    add(
        "onnx-external",
        "Weights in a file beside the model.",
        "ok",
        onnx_bundle(onnx(external()), extra=data),
    )
    for name, path in PATHS.items():
        add(
            f"onnx-path-{name}",
            f"Weights in {path[:24]!r}.",
            UNSAFE,
            onnx_bundle(onnx(external(path)), extra=data),
        )
    changes: tuple[tuple[str, str, Callable[[], bytes], dict[str, Any]], ...] = (
        ("missing", "Weights in a file that is not there.", external, {}),
        ("role", "Weights in a file of another role.", external, card),
        ("model", "Weights in the model file itself.", lambda: external("model.onnx"), data),
        ("manifest", "Weights in a folder beside, out of payload.", lambda: external("../card.md"), data),
        ("short", "Weights that end past the file.", lambda: external(offset="4"), data),
        ("length", "Another length than the shape says.", lambda: external(length="4"), data),
        ("offset-negative", "A negative offset.", lambda: external(offset="-8"), data),
        ("offset-huge", "An offset of 400 digits.", lambda: external(offset="9" * 400), data),
        ("offset-hex", "An offset in hex.", lambda: external(offset="0x0"), data),
        ("offset-digits", "An offset in Arabic digits.", lambda: external(offset="\u0660"), data),
        ("no-location", "External, but no file is named.", lambda: external(None), data),
        ("location-twice", "Two files are named.", lambda: external() + block(
            13, block(1, "location") + block(2, "/etc/passwd")), data),
        ("and-inside", "Values inside and outside.", lambda: external() + RAW, data),
        ("not-utf-8", "A path that is no text.", lambda: external(b"\xff"), data),
        ("unused", "A path out of the folder at a tensor that says it is not external.",
         lambda: tensor(rest=RAW + block(13, block(1, "location") + block(2, "../x"))), data),
    )  # fmt: skip
    for name, description, made, extra in changes:
        whole = WHOLE if name in ("length", "offset-digits", "and-inside") else {}
        add(f"onnx-external-{name}", description, UNSAFE, onnx_bundle(onnx(made()), extra=extra), **whole)
    late = tensor("v", rest=RAW)
    add("onnx-external-second", "A good tensor first, then a path out of the folder.", UNSAFE,
        onnx_bundle(onnx(late, external("../x")), extra=data))  # fmt: skip
