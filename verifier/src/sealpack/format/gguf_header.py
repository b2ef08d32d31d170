"""Read what a GGUF file says about itself, without trusting it and without reading its weights.

Engines parse these bytes with C++ that has had memory faults; this reader decides first whether
they may. It knows GGUF versions 2 and 3, little-endian, and holds every number it reads against
the file's size and a bound before using it. Source: the GGUF specification of ggml (docs/gguf.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import BinaryIO

from sealpack.format.gguf_types import (
    ARRAY,
    FILE_TYPE_GUESSED,
    FILE_TYPES,
    STRING,
    TENSOR_TYPES,
    VALUE_TYPES,
)
from sealpack.format.limits import LIMITS
from sealpack.format.tensors import TensorRef, main_dtype
from sealpack.format.window import ByteWindow

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_PAIRS = 1 << 16
_MAX_KEY_BYTES = 1024
_MAX_NAME_BYTES = 1024  # of a tensor
_MAX_TEXT_BYTES = 1 << 20  # longer strings are told by their length only
_MAX_LISTED = 64  # longer arrays are told by their length only
_MAX_STRINGS = 1 << 23  # in all arrays together
_MAX_KEPT_BYTES = 64 << 20  # of text held in memory
_MAX_DIMS = 4
_MAX_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True)
class Summary:
    """Stands for a value too long to keep: `kind` is STRING (`count` bytes) or e.g. [INT32]."""

    kind: str
    count: int


Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...] | Summary


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensor table of a GGUF file; `data_offset` is where the weights begin."""

    version: int
    alignment: int
    data_offset: int
    metadata: dict[str, Value]
    tensors: tuple[TensorRef, ...]

    def text(self, key: str) -> str | None:
        """A string of the metadata; None when it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """A whole number of the metadata; None when it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""

    @property
    def name(self) -> str | None:
        return self.text("general.name")

    @property
    def license(self) -> str | None:
        return self.text("general.license")

    @property
    def context_length(self) -> int | None:
        """Tokens the model was made for."""
        return self.integer(f"{self.architecture}.context_length")

    @property
    def quantization(self) -> str:
        """The file's own word (Q4_K_M), else the type that holds the most bytes."""
        number = self.integer("general.file_type")
        told = None if number is None else FILE_TYPES.get(number & ~FILE_TYPE_GUESSED)
        return told or main_dtype(self.tensors)

    @property
    def parameter_count(self) -> int:
        return sum(tensor.count for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class GgufPart:
    """One file of a split model: its header, and the bytes [start, end) where each key-value lies."""

    header: GgufHeader
    pairs: dict[str, tuple[int, int]]


def read_gguf_header(
    file: BinaryIO, start: int = 0, length: int | None = None, what: str = "model"
) -> GgufHeader:
    """Read the header of the GGUF model in bytes [start, start + length) of `file`.

    Raises MODEL_UNKNOWN (not GGUF, or a version we do not read), MODEL_TRUNCATED (the file ends
    too early) or MODEL_UNSAFE (anything else that no honest writer produces).
    """
    return _Reader(ByteWindow(file, start, length, what)).header()


def read_gguf_part(file: BinaryIO, what: str) -> GgufPart:
    """Read the header of one file of a split model; only the first need say its architecture.

    Raises what :func:`read_gguf_header` raises.
    """
    pairs: dict[str, tuple[int, int]] = {}
    return GgufPart(_Reader(ByteWindow(file, what=what), pairs).header(), pairs)


class _Reader:
    """A cursor over the header; positions count from the model's first byte."""

    def __init__(self, window: ByteWindow, pairs: dict[str, tuple[int, int]] | None = None) -> None:
        self.window = window
        self.pairs = pairs  # filled with places, for one file of a split model
        self.at = 0
        self.strings = 0
        self.kept = 0

    def header(self) -> GgufHeader:
        version = self.preamble()
        tensor_count = self.bounded("tensor count", LIMITS.model_tensors)
        pair_count = self.bounded("metadata count", _MAX_PAIRS)
        metadata = self.metadata(pair_count)
        if self.pairs is None and not isinstance(metadata.get("general.architecture"), str):
            raise self.window.unsafe("has no general.architecture")
        alignment = self.alignment(metadata)
        infos = [self.tensor_info() for _ in range(tensor_count)]
        data = -(-self.at // alignment) * alignment
        tensors = self.place(infos, data, alignment)
        return GgufHeader(version, alignment, data, metadata, tensors)

    def preamble(self) -> int:
        if self.window.size < 8 or self.window.take(0, 4) != MAGIC:
            raise self.window.unknown("is not a GGUF file")
        self.at = 4
        version = self.number("<I", 4)
        if version not in _VERSIONS:
            big = int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS
            told = "is big-endian" if big else f"has GGUF version {version}"
            raise self.window.unknown(f"{told}; little-endian versions 2 and 3 are read")
        return version

    def number(self, code: str, size: int) -> int:
        buffer, index = self.window.near(self.at, size)
        self.at += size
        value: int = struct.unpack_from(code, buffer, index)[0]
        return value

    def bounded(self, what: str, most: int) -> int:
        value = self.number("<Q", 8)
        if value > most:
            raise self.window.unsafe(f"{what} {value} is more than {most}")
        return value

    def advance(self, count: int) -> None:
        """Step over `count` bytes; they must exist and stay within the header's bound."""
        if count > self.window.size - self.at:
            raise self.window.cut(f"{count} bytes wanted at {self.at}, it ends at {self.window.size}")
        self.at += count
        if self.at > LIMITS.model_header_bytes:
            raise self.window.unsafe(f"header is longer than {LIMITS.model_header_bytes} bytes")

    def string(self, what: str, most: int) -> str:
        size = self.number("<Q", 8)
        at = self.at
        self.advance(size)
        self.kept += size
        if size > most or self.kept > _MAX_KEPT_BYTES:
            raise self.window.unsafe(f"{what} of {size} bytes is more text than we keep")
        try:
            return self.window.take(at, size).decode()
        except UnicodeDecodeError as error:
            raise self.window.unsafe(f"{what} at {at} is not UTF-8") from error

    def metadata(self, count: int) -> dict[str, Value]:
        pairs: dict[str, Value] = {}
        for _ in range(count):
            start = self.at
            key = self.string("metadata key", _MAX_KEY_BYTES)
            if key in pairs:
                raise self.window.unsafe(f"metadata key {key!r} appears twice")
            pairs[key] = self.value(key, self.number("<I", 4))
            if self.pairs is not None:
                self.pairs[key] = (start, self.at)
        return pairs

    def value(self, key: str, kind: int) -> Value:
        if kind == ARRAY:
            return self.array(key)
        if kind == STRING:
            return self.long_string(key)
        return self.scalar(key, kind)

    def scalar(self, key: str, kind: int) -> Scalar:
        if kind not in VALUE_TYPES:
            raise self.window.unsafe(f"{key!r} has unknown value type {kind}")
        name, code = VALUE_TYPES[kind]
        at, size = self.at, struct.calcsize(code)
        self.advance(size)
        value: int | float = struct.unpack(code, self.window.take(at, size))[0]
        if name != "BOOL":
            return value
        if value > 1:
            raise self.window.unsafe(f"{key!r} has truth value {value}")
        return value == 1

    def long_string(self, key: str) -> str | Summary:
        """A string, or its length when it is longer than we keep (an embedded tokenizer)."""
        size, before = self.number("<Q", 8), self.at - 8
        if size > _MAX_TEXT_BYTES:
            self.advance(size)
            return Summary("STRING", size)
        self.at = before
        return self.string(repr(key), _MAX_TEXT_BYTES)

    def array(self, key: str) -> Value:
        """A short array's values, a long one's length. Arrays of arrays are not read by engines."""
        kind, count = self.number("<I", 4), self.number("<Q", 8)
        if kind == STRING:
            return self.string_array(key, count)
        if kind not in VALUE_TYPES:
            raise self.window.unsafe(f"{key!r} is an array of unknown or nested type {kind}")
        name, code = VALUE_TYPES[kind]
        if count <= _MAX_LISTED:
            return tuple(self.scalar(key, kind) for _ in range(count))
        self.advance(count * struct.calcsize(code))
        return Summary(f"[{name}]", count)

    def string_array(self, key: str, count: int) -> Value:
        self.strings += count
        if self.strings > _MAX_STRINGS:
            raise self.window.unsafe(f"arrays hold more than {_MAX_STRINGS} strings at {key!r}")
        if count <= _MAX_LISTED:
            return tuple(self.string(repr(key), _MAX_TEXT_BYTES) for _ in range(count))
        for _ in range(count):
            self.advance(self.number("<Q", 8))
        return Summary("[STRING]", count)

    def alignment(self, metadata: dict[str, Value]) -> int:
        value = metadata.get("general.alignment", 32)
        if not isinstance(value, int) or not 1 <= value <= _MAX_ALIGNMENT or value & (value - 1):
            raise self.window.unsafe(f"alignment {value!r} is not a power of two we read")
        return value

    def tensor_info(self) -> TensorRef:
        """One row of the tensor table; its `offset` still counts from the data section."""
        name = self.string("tensor name", _MAX_NAME_BYTES)
        dims = self.number("<I", 4)
        if dims > _MAX_DIMS:
            raise self.window.unsafe(f"tensor {name!r} has {dims} dimensions")
        sizes = [self.number("<Q", 8) for _ in range(dims)]
        dtype, nbytes = self.storage(name, sizes, self.number("<I", 4))
        return TensorRef(name, tuple(reversed(sizes)), dtype, "", self.number("<Q", 8), nbytes)

    def storage(self, name: str, sizes: list[int], kind: int) -> tuple[str, int]:
        """Type name and bytes of a tensor; `sizes` are innermost first, as stored."""
        if kind not in TENSOR_TYPES:
            raise self.window.unsafe(f"tensor {name!r} has unknown type {kind}")
        dtype, block, block_bytes = TENSOR_TYPES[kind]
        if 0 in sizes or (sizes or [1])[0] % block:
            raise self.window.unsafe(f"tensor {name!r} of type {dtype} has sizes {sizes}")
        return dtype, prod(sizes) // block * block_bytes

    def place(self, infos: list[TensorRef], data: int, alignment: int) -> tuple[TensorRef, ...]:
        """Turn offsets into file positions; every tensor aligned, inside, and on its own."""
        if len({info.name for info in infos}) != len(infos):
            raise self.window.unsafe("two tensors have one name")
        end = 0
        for info in sorted(infos, key=lambda info: info.offset):
            if info.offset % alignment:
                raise self.window.unsafe(f"tensor {info.name!r} is not aligned to {alignment}")
            if info.offset < end:
                raise self.window.unsafe(f"tensor {info.name!r} overlaps the one before it")
            end = info.offset + info.nbytes
            if data + end > self.window.size:
                raise self.window.cut(
                    f"tensor {info.name!r} ends at {data + end}, the file at {self.window.size}"
                )
        return tuple(TensorRef(i.name, i.shape, i.dtype, "", data + i.offset, i.nbytes) for i in infos)
