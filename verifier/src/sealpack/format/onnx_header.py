"""Read what an ONNX file says about itself, without trusting it and without reading its weights.

The weights of an ONNX model lie inside the graph or in files beside it, and engines open whatever
path the model names: such paths are checked here first. Source: onnx.proto (IR version 3 and up).
Where the format lets two readings of the same bytes exist, the file is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from math import prod
from typing import BinaryIO

from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.format.onnx_types import DTYPES, OnnxHeader, ValueInfo
from sealpack.format.protobuf import LENGTH, VARINT, Field, Message, Span, Wire
from sealpack.format.tensors import TensorRef
from sealpack.format.window import ByteWindow

__all__ = ["OnnxHeader", "ValueInfo", "looks_like_onnx", "read_onnx_header"]

_MAX_NODES = 1 << 20
_MAX_DEPTH = 16  # graphs within graphs
_MAX_SCOPE = 1 << 13  # characters of the names a nested tensor is told by
_MAX_DIMS = 64
_MAX_PORTS = 1 << 14
_MAX_LISTED = 1 << 20  # fields of one tensor: strings, or integers written one by one
_MAX_PROP_BYTES = 4 << 20
_MAX_DIMENSION = 1 << 48

# TypeProto's alternatives
_KINDS = {
    1: "tensor",
    4: "sequence",
    5: "map",
    7: "opaque",
    8: "sparse_tensor",
    9: "optional",
}

# ModelProto's fields and their wire types: what tells an ONNX file from any other
_MODEL_FIELDS = {1: VARINT, 5: VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), LENGTH)


def read_onnx_header(
    file: BinaryIO, start: int = 0, length: int | None = None, what: str = "model"
) -> OnnxHeader:
    """Read the facts of the ONNX model in bytes [start, start + length) of `file`.

    External data files are named, not opened: compare `external_files` with what is there.
    Raises MODEL_UNKNOWN (not ONNX), MODEL_TRUNCATED (the file ends too early) or MODEL_UNSAFE (a
    path out of the model's folder, sizes that contradict each other, or an ambiguous encoding).
    """
    window = ByteWindow(file, start, length, what)
    if not looks_like_onnx(window):
        raise window.unknown("is not an ONNX file")
    return _Reader(window).header()


def looks_like_onnx(window: ByteWindow) -> bool:
    """Whether the top-level fields are those of a ModelProto, as far as the file goes."""
    told_version = False
    try:
        wire = Wire(window)
        for field in wire.fields(wire.whole):
            if _MODEL_FIELDS.get(field.number, field.wire if field.number > 26 else -1) != field.wire:
                return False
            told_version |= field.number == 1 and 0 < field.value < 256
    except SealpackError as error:
        return told_version and error.code == "MODEL_TRUNCATED"
    return told_version


class _Reader:
    """Walks one model and gathers tensors, operators and their counts on the way."""

    def __init__(self, window: ByteWindow) -> None:
        self.window = window
        self.wire = Wire(window)
        self.tensors: list[TensorRef] = []
        self.unplaced: list[str] = []
        self.op_types: Counter[str] = Counter()
        self.functions: list[str] = []
        self.nodes = 0
        self.elements = 0

    def header(self) -> OnnxHeader:
        single, many = frozenset({1, 2, 3, 4, 5, 7}), frozenset({8, 14, 20, 25})
        model = self.wire.message(self.wire.whole, single, many)
        graph = model.one(7)
        if graph is None or 8 not in model:
            raise self.window.cut("it has no graph or no operator set")
        names, inputs, outputs, graph_name = self.graph(self.wire.content(graph), "", 0)
        for function in model.all(25):
            self.function(self.wire.content(function))
        for training in model.all(20):
            self.training(self.wire.content(training))
        return OnnxHeader(
            ir_version=self.integer(model, 1),
            producer_name=self.text(model, 2),
            producer_version=self.text(model, 3),
            domain=self.text(model, 4),
            model_version=self.integer(model, 5),
            opsets=self.opsets(model.all(8)),
            metadata_props=self.pairs(model.all(14), "metadata property"),
            graph_name=graph_name,
            inputs=tuple(value for value in inputs if value.name not in names),
            outputs=tuple(outputs),
            tensors=tuple(self.tensors),
            unplaced=tuple(self.unplaced),
            functions=tuple(self.functions),
            op_types=dict(sorted(self.op_types.items())),
            parameter_count=self.elements,
        )

    # --- small values -------------------------------------------------------------------------

    def text(self, message: Message, number: int) -> str:
        field = message.one(number)
        return "" if field is None else self.wire.text(field)

    def integer(self, message: Message, number: int) -> int:
        field = message.one(number)
        return 0 if field is None else self.wire.signed(field)

    def pairs(self, fields: Iterable[Field], what: str) -> dict[str, str]:
        """StringStringEntryProto list; a key that appears twice is refused."""
        found: dict[str, str] = {}
        for field in fields:
            entry = self.wire.message(self.wire.content(field), frozenset({1, 2}))
            key, value = self.text(entry, 1), entry.one(2)
            if key in found:
                raise self.window.unsafe(f"{what} {key!r} appears twice")
            found[key] = "" if value is None else self.wire.text(value, _MAX_PROP_BYTES)
        return found

    def opsets(self, fields: Iterable[Field]) -> dict[str, int]:
        found: dict[str, int] = {}
        for field in fields:
            entry = self.wire.message(self.wire.content(field), frozenset({1, 2}))
            domain = self.text(entry, 1) or "ai.onnx"
            if domain in found:
                raise self.window.unsafe(f"operator set {domain!r} appears twice")
            found[domain] = self.integer(entry, 2)
        return found

    # --- graphs -------------------------------------------------------------------------------

    def graph(
        self, span: Span, scope: str, depth: int
    ) -> tuple[set[str], list[ValueInfo], list[ValueInfo], str]:
        """Walk a GraphProto: names of its initializers, its inputs, outputs and name."""
        if depth > _MAX_DEPTH:
            raise self.window.unsafe(f"graphs are nested more than {_MAX_DEPTH} deep")
        names: set[str] = set()
        ports: dict[int, list[ValueInfo]] = {11: [], 12: []}
        own_name = ""
        # one by one, not gathered first: a graph may have very many of them
        for field in self.wire.fields(span):
            if field.number == 1:
                self.node(self.wire.content(field), scope, depth)
            elif field.number == 2:
                own_name = self.wire.text(field)
            elif field.number == 5:
                self.initializer(self.tensor(self.wire.content(field), scope), names, scope)
            elif field.number == 15:
                self.initializer(self.sparse_tensor(self.wire.content(field), scope), names, scope)
            elif field.number in ports:
                self.port(field, ports[field.number])
        return names, ports[11], ports[12], own_name

    def port(self, field: Field, known: list[ValueInfo]) -> None:
        if len(known) == _MAX_PORTS:
            raise self.window.unsafe(f"a graph has more than {_MAX_PORTS} inputs or outputs")
        known.append(self.value_info(self.wire.content(field)))

    def initializer(self, name: str, names: set[str], scope: str) -> None:
        if not name or name in names:
            raise self.window.unsafe(f"initializer name {scope + name!r} is empty or used twice")
        names.add(name)

    def node(self, span: Span, scope: str, depth: int) -> None:
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            raise self.window.unsafe(f"has more than {_MAX_NODES} nodes")
        node = self.wire.message(span, frozenset({3, 4, 7}), frozenset({2, 5}))
        op_type, domain = self.text(node, 4), self.text(node, 7)
        plain = domain in ("", "ai.onnx")
        self.op_types[op_type if plain else f"{domain}::{op_type}"] += 1
        attributes = node.all(5)
        if attributes:
            outputs = node.all(2)
            label = self.text(node, 3) or (self.wire.text(outputs[0]) if outputs else op_type)
            for field in attributes:
                self.attribute(self.wire.content(field), f"{scope}{label}", depth)

    def attribute(self, span: Span, owner: str, depth: int) -> None:
        """Tensors and graphs that an attribute carries; numbers and strings are of no interest."""
        attribute = self.wire.message(span, frozenset({1, 5, 6, 22}), frozenset({10, 11, 23}))
        if attribute.keys() <= {1}:
            return
        scope = f"{owner}.{self.text(attribute, 1)}/"
        if len(scope) > _MAX_SCOPE:
            raise self.window.unsafe(f"names of nested graphs are longer than {_MAX_SCOPE} characters")
        for field in attribute.all(5) + attribute.all(10):
            self.tensor(self.wire.content(field), scope)
        for field in attribute.all(22) + attribute.all(23):
            self.sparse_tensor(self.wire.content(field), scope)
        for field in attribute.all(6) + attribute.all(11):
            self.graph(self.wire.content(field), scope, depth + 1)

    def function(self, span: Span) -> None:
        function = self.wire.message(span, frozenset({1, 10}), frozenset({7, 11}))
        name = f"{self.text(function, 10)}::{self.text(function, 1)}"
        self.functions.append(name)
        for field in function.all(7):
            self.node(self.wire.content(field), f"{name}/", 1)
        for field in function.all(11):
            self.attribute(self.wire.content(field), name, 1)

    def training(self, span: Span) -> None:
        info = self.wire.message(span, frozenset({1, 2}))
        for fields in info.values():
            self.graph(self.wire.content(fields[0]), "training/", 1)

    def value_info(self, span: Span) -> ValueInfo:
        info = self.wire.message(span, frozenset({1, 2}))
        name, described = self.text(info, 1), info.one(2)
        if described is None:
            return ValueInfo(name, "", "", None)
        kinds = self.wire.message(self.wire.content(described), frozenset(_KINDS))
        if len(kinds) > 1:
            raise self.window.unsafe(f"value {name!r} has two types")
        for number, fields in kinds.items():
            dtype, shape = "", None
            if number in (1, 8):
                dtype, shape = self.tensor_type(self.wire.content(fields[0]), name)
            return ValueInfo(name, _KINDS[number], dtype, shape)
        return ValueInfo(name, "", "", None)

    def tensor_type(self, span: Span, name: str) -> tuple[str, tuple[int | str, ...] | None]:
        tensor = self.wire.message(span, frozenset({1, 2}))
        number, shape = self.integer(tensor, 1), tensor.one(2)
        dtype = self.dtype(number, name)[0] if number else ""
        if shape is None:
            return dtype, None
        dims = self.wire.message(self.wire.content(shape), frozenset(), frozenset({1}))
        return dtype, tuple(self.dimension(self.wire.content(dim)) for dim in dims.all(1))

    def dimension(self, span: Span) -> int | str:
        dim = self.wire.message(span, frozenset({1, 2}))
        if len(dim) > 1:
            raise self.window.unsafe("a dimension has both a size and a symbol")
        size = self.integer(dim, 1)
        # some exporters write -1 for a size they do not know
        return size if 1 in dim and size >= 0 else self.text(dim, 2)

    # --- tensors ------------------------------------------------------------------------------

    def dtype(self, number: int, name: str) -> tuple[str, int]:
        if number not in DTYPES:
            raise self.window.unsafe(f"{name!r} has unknown data type {number}")
        return DTYPES[number]

    def sparse_tensor(self, span: Span, scope: str) -> str:
        """Both halves of a SparseTensorProto; its name is that of its values."""
        sparse = self.wire.message(span, frozenset({1, 2}))
        values, indices = sparse.one(1), sparse.one(2)
        if values is None or indices is None:
            raise self.window.unsafe(f"a sparse tensor in {scope!r} lacks values or indices")
        name = self.tensor(self.wire.content(values), scope)
        self.tensor(self.wire.content(indices), f"{scope}{name}.indices/")
        return name

    def tensor(self, span: Span, scope: str) -> str:
        """Record a TensorProto and return its own name."""
        tensor = self.wire.message(span, frozenset({2, 3, 8, 9, 14}), frozenset({1, 4, 5, 6, 7, 10, 11, 13}))
        name = self.text(tensor, 8)
        full = scope + name
        self.wire.keep(len(scope))  # held once for every tensor in it
        dtype, bits = self.dtype(self.integer(tensor, 2), full)
        shape = self.shape(tensor, full)
        count = prod(shape)
        self.elements += count
        if 3 in tensor:
            raise self.window.unsafe(f"tensor {full!r} is split into segments")
        if len(self.tensors) + len(self.unplaced) >= LIMITS.model_tensors:
            raise self.window.unsafe(f"has more than {LIMITS.model_tensors} tensors")
        place = self.place(tensor, full, count, (count * bits + 7) // 8, bits)
        if place is None:
            self.unplaced.append(full)
        else:
            self.tensors.append(TensorRef(full, shape, dtype, *place))
        return name

    def shape(self, tensor: Message, name: str) -> tuple[int, ...]:
        dims = [d for field in tensor.all(1) for d in self.wire.signed_list(field, _MAX_DIMS)]
        if len(dims) > _MAX_DIMS or any(not 0 <= d <= _MAX_DIMENSION for d in dims):
            raise self.window.unsafe(f"tensor {name!r} has sizes {dims[:_MAX_DIMS]}")
        return tuple(dims)

    def place(
        self, tensor: Message, name: str, count: int, nbytes: int, bits: int
    ) -> tuple[str, int, int] | None:
        """(file, offset, bytes) of the values, or None when they do not lie in one run."""
        external = self.location(tensor, name, nbytes)
        stored = [field for number in (4, 5, 6, 7, 9, 10, 11) for field in tensor.all(number)]
        spans = [self.wire.content(f) if f.wire == LENGTH else f.span for f in stored]
        size = sum(span.size for span in spans)
        if len({field.number for field in stored}) > (0 if external else 1):
            raise self.window.unsafe(f"tensor {name!r} has its values in two places")
        if external:
            if not bits:
                raise self.window.unsafe(f"tensor {name!r} has strings in an external file")
            return external
        if 9 in tensor:
            if size != nbytes or not bits:
                raise self.window.unsafe(f"tensor {name!r} has {size} bytes, not {nbytes}")
            return ("", spans[0].begin, nbytes) if nbytes else None
        self.enough(name, count, len(stored) if not bits else 4 * size, bits)
        in_one_run = len(stored) == 1 and stored[0].wire == LENGTH
        if in_one_run and stored[0].number in (4, 10) and size == nbytes:
            return "", spans[0].begin, nbytes
        return None

    def enough(self, name: str, count: int, have: int, bits: int) -> None:
        """Typed lists: one string each, or at least one byte for up to four small elements."""
        if count > have or (not bits and count != have):
            raise self.window.unsafe(f"tensor {name!r} has fewer values than its shape says")

    def location(self, tensor: Message, name: str, nbytes: int) -> tuple[str, int, int] | None:
        """The external data place of a tensor; checked even where a reader would ignore it."""
        entries = self.pairs(tensor.all(13), f"external data of {name!r}:")
        if "location" in entries:
            self.check_path(entries["location"], name)
        if self.integer(tensor, 14) != 1:
            return None
        if "location" not in entries:
            raise self.window.unsafe(f"tensor {name!r} is external but names no file")
        offset = self.decimal(entries.get("offset", "0"), name)
        length = self.decimal(entries.get("length", str(nbytes)), name)
        if length != nbytes:
            raise self.window.unsafe(f"tensor {name!r} has {length} bytes, not {nbytes}")
        return entries["location"], offset, nbytes

    def decimal(self, text: str, name: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII):
            raise self.window.unsafe(f"external data of {name!r} has the number {text[:32]!r}")
        return int(text)

    def check_path(self, path: str, name: str) -> None:
        """Only a plain relative path below the model's folder, on any operating system.

        `*` is refused too: onnxruntime takes a location of that form for a memory address.
        """
        parts = path.split("/")
        bad = any(part in ("", ".", "..") for part in parts) or len(path) > 1024
        if bad or re.search(r'[\x00-\x1f\x7f\\:*?"<>|]', path):
            raise self.window.unsafe(f"tensor {name!r} has its values in {path[:200]!r}")
