"""A model file's 2-D tensors as float32, whatever they are stored as. Source: specs/watermark.md section 8.

Reads suspects and originals: ONNX (floats, external data, 8-bit weights as `quantize_dynamic` and
QDQ tools name them) and GGUF (every type the gguf package can dequantise). Nothing is loaded before
it is asked for. A suspect is somebody else's file: only its bytes are read, nothing in it is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sealpack.builder.describe import read_model
from sealpack.format.errors import SealpackError
from sealpack.format.tensors import TensorRef

Floats = NDArray[np.float32]
Raw = NDArray[Any]
Index = tuple[Any, Any]

STORED: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_BYTES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "I8": np.dtype(np.int8)}


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor: `shape` is (rows, columns), a row lies contiguous in the file.

    `take` returns float32 for a numpy index pair: two slices, or two arrays of positions.
    """

    name: str
    shape: tuple[int, int]
    take: Callable[[Index], Floats]

    def rows(self, start: int, stop: int) -> Floats:
        """Rows start to stop, shape (stop - start, columns)."""
        return self.take((slice(start, stop), slice(None)))

    def at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        """Single weights, shape of the two position arrays."""
        return self.take((rows, columns))

    @property
    def turned(self) -> Weights:
        """The transposed tensor."""
        take = self.take
        shape = (self.shape[1], self.shape[0])
        return Weights(self.name, shape, lambda index: np.asarray(take(index[::-1])).T)


def decode(raw: NDArray[Any], dtype: str) -> Floats:
    """Stored F32, F16 or BF16 (as uint16) to a float32 copy of the same shape."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32)


def float_weights(name: str, raw: NDArray[Any], dtype: str) -> Weights:
    """Wrap a 2-D array of stored floats."""
    return Weights(name, (raw.shape[0], raw.shape[1]), lambda index: decode(raw[index], dtype))


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model file's readable 2-D tensors, and every file it consists of."""

    path: Path
    files: tuple[Path, ...]
    tensors: dict[str, Weights]


def open_model(path: Path) -> OpenModel:
    """Open an ONNX or GGUF file; MODEL_MISSING, MODEL_UNKNOWN, MODEL_UNSAFE, MODEL_TRUNCATED."""
    model = read_model(path)
    if model.split is not None:
        raise SealpackError(
            "MODEL_UNKNOWN",
            f"{path.name} is one of {len(model.split.parts)} parts of a model",
            remedy="give the model in one file (llama-gguf-split --merge); as original,"
            " payload/model.gguf of an unmarked bundle made from the parts",
        )
    refs = [ref for ref in model.tensors if len(ref.shape) == 2 and ref.count]
    small = _small_values(path) if model.description.format == "onnx" and _has_bytes(refs) else {}
    tensors: dict[str, Weights] = {}
    for ref in refs:
        weights = _open_tensor(path, ref, small)
        if weights is not None:
            tensors.setdefault(weights.name, weights)
    return OpenModel(path, (path, *model.external), tensors)


def map_tensor(path: Path, ref: TensorRef, dtype: np.dtype[Any], mode: Literal["r", "r+"] = "r") -> Any:
    """A 2-D tensor's stored values, mapped from the model at `path` or its external data."""
    file = path.parent / ref.file if ref.file else path
    if file.stat().st_size < ref.offset + ref.nbytes:
        raise SealpackError("MODEL_TRUNCATED", f"{file} ends inside tensor {ref.name!r}")
    return np.memmap(file, dtype, mode, ref.offset, (ref.shape[0], ref.shape[1]))


def _open_tensor(path: Path, ref: TensorRef, small: dict[str, Raw]) -> Weights | None:
    if ref.dtype in STORED:
        return float_weights(ref.name, map_tensor(path, ref, STORED[ref.dtype]), ref.dtype)
    if ref.dtype in _BYTES:
        return _onnx_quantised(ref, map_tensor(path, ref, _BYTES[ref.dtype]), small)
    return _gguf_blocks(path, ref)


# --- GGUF -----------------------------------------------------------------------------------------


def _gguf_blocks(path: Path, ref: TensorRef) -> Weights | None:
    """Quantised blocks, if the gguf package can turn that type into floats."""
    import gguf

    rows, kind = ref.shape[0], gguf.GGMLQuantizationType.__members__.get(ref.dtype)
    if kind is None or ref.nbytes % rows:
        return None
    blocks = np.memmap(path, np.uint8, "r", ref.offset, (rows, ref.nbytes // rows))
    try:
        gguf.quants.dequantize(np.asarray(blocks[:1]), kind)
    except NotImplementedError:
        return None
    return _block_weights(ref.name, (rows, ref.shape[1]), blocks, kind)


def _block_weights(name: str, shape: tuple[int, int], blocks: Raw, kind: Any) -> Weights:
    """Rows are dequantised as they are asked for; a turned read dequantises the tensor once."""
    from gguf import quants

    whole: list[Floats] = []

    def take(index: Index) -> Floats:
        rows, columns = index
        if isinstance(rows, slice) and rows == slice(None):  # columns of all rows: a turned read
            if not whole:
                whole.append(quants.dequantize(np.asarray(blocks), kind))
            return whole[0][:, columns]
        dense: Floats = quants.dequantize(np.asarray(blocks[rows]), kind)
        return dense[:, columns] if isinstance(columns, slice) else _pick(dense, columns)

    return Weights(name, shape, take)


def _pick(dense: Floats, columns: NDArray[np.int64]) -> Floats:
    return dense[np.arange(len(columns)), columns]


# --- ONNX with 8-bit weights ------------------------------------------------------------------------


def _has_bytes(refs: list[TensorRef]) -> bool:
    return any(ref.dtype in _BYTES for ref in refs)


def _small_values(path: Path) -> dict[str, Raw]:
    """Scales and zero points by name: tools store them as protobuf numbers, which only onnx reads."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path), load_external_data=False).graph
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if len(tensor.dims) <= 1 and tensor.data_location != tensor.EXTERNAL
    }


def _onnx_quantised(ref: TensorRef, raw: Raw, small: dict[str, Raw]) -> Weights | None:
    """8-bit weights with their scale and zero point, found by the names the usual tools give."""
    stem = ref.name.removesuffix("_quantized")
    scale, zero = small.get(f"{stem}_scale"), small.get(f"{stem}_zero_point")
    steps = _per_weight(scale, raw.shape) if scale is not None else None
    offsets = _per_weight(zero if zero is not None else np.zeros(1), raw.shape)
    if steps is None or offsets is None:
        return None

    def take(index: Index) -> Floats:
        values: Floats = (raw[index].astype(np.float32) - offsets[index]) * steps[index]
        return values

    return Weights(stem, (raw.shape[0], raw.shape[1]), take)


def _per_weight(values: Raw, shape: tuple[int, ...]) -> Floats | None:
    """Spread one value, one per column or one per row over a tensor without copying."""
    flat = values.astype(np.float32).reshape(-1)
    if flat.size in (1, shape[1]):
        return np.broadcast_to(flat.reshape(1, -1), shape)
    if flat.size == shape[0]:
        return np.broadcast_to(flat.reshape(-1, 1), shape)
    return None
