"""What an ONNX model says of itself, as values, and the numbers of its tensor types."""

from __future__ import annotations

from dataclasses import dataclass

from sealpack.format.tensors import TensorRef, main_dtype

# TensorProto.DataType: short name, bits of one element (0: strings have no fixed size)
DTYPES: dict[int, tuple[str, int]] = {
    1: ("F32", 32),
    2: ("U8", 8),
    3: ("I8", 8),
    4: ("U16", 16),
    5: ("I16", 16),
    6: ("I32", 32),
    7: ("I64", 64),
    8: ("STRING", 0),
    9: ("BOOL", 8),
    10: ("F16", 16),
    11: ("F64", 64),
    12: ("U32", 32),
    13: ("U64", 64),
    14: ("C64", 64),
    15: ("C128", 128),
    16: ("BF16", 16),
    17: ("F8E4M3FN", 8),
    18: ("F8E4M3FNUZ", 8),
    19: ("F8E5M2", 8),
    20: ("F8E5M2FNUZ", 8),
    21: ("U4", 4),
    22: ("I4", 4),
    23: ("F4E2M1", 4),
    24: ("F8E8M0", 8),
    25: ("U2", 2),
    26: ("I2", 2),
    27: ("F6E2M3", 6),
    28: ("F6E3M2", 6),
}

_STANDARD_DOMAINS = frozenset({"ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
_ENGINE_DOMAINS = frozenset({"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """One input or output of the graph.

    `kind` is tensor, sparse_tensor, sequence, map, optional, opaque or "" (not told). For a tensor
    `dtype` is a short name (F32, I64, STRING) and `shape` its dimensions: a size, a symbol such as
    "batch", or "" when unknown; None when even the rank is unknown.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """Facts of an ONNX model.

    `tensors` are all stored in one run of bytes, in file order: initializers by name, those of a
    nested graph as "node.attribute/name", of a function as "domain::function/node...". `unplaced`
    names the tensors whose values are spread (varints, strings) or empty: they have no place to
    point at. `op_types` counts nodes, nested ones too; operators outside ai.onnx are
    "domain::Type". `opsets`: domain to version, with "" written ai.onnx.
    """

    ir_version: int
    producer_name: str
    producer_version: str
    domain: str
    model_version: int
    opsets: dict[str, int]
    metadata_props: dict[str, str]
    graph_name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    tensors: tuple[TensorRef, ...]
    unplaced: tuple[str, ...]
    functions: tuple[str, ...]
    op_types: dict[str, int]
    parameter_count: int

    def prop(self, key: str) -> str | None:
        """A metadata property; case does not matter."""
        wanted = key.lower()
        found = (v for k, v in self.metadata_props.items() if k.lower() == wanted)
        return next(found, None)

    @property
    def name(self) -> str | None:
        return self.prop("name") or self.graph_name or None

    @property
    def license(self) -> str | None:
        return self.prop("license")

    @property
    def node_count(self) -> int:
        return sum(self.op_types.values())

    @property
    def quantization(self) -> str:
        """The type that holds the most bytes: F32, F16, I8, ..."""
        return main_dtype(self.tensors)

    @property
    def domains(self) -> tuple[str, ...]:
        """Operator domains that nodes use, sorted."""
        return tuple(sorted({op.rpartition("::")[0] or "ai.onnx" for op in self.op_types}))

    @property
    def custom_domains(self) -> tuple[str, ...]:
        """Used domains that only a custom operator library could serve."""
        own = {name.split("::")[0] for name in self.functions}
        known = _STANDARD_DOMAINS | _ENGINE_DOMAINS | own
        return tuple(domain for domain in self.domains if domain not in known)

    @property
    def external_files(self) -> dict[str, int]:
        """External data files, each with the bytes it must at least have."""
        needed: dict[str, int] = {}
        for tensor in self.tensors:
            if tensor.file:
                end = tensor.offset + tensor.nbytes
                needed[tensor.file] = max(end, needed.get(tensor.file, 0))
        return needed
