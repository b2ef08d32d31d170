"""Where a tensor's values lie in a file: the record that ONNX and GGUF readers share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One stored tensor; its `nbytes` values lie in one run, so floats can be changed in place.

    `shape` is outermost first (row-major), whatever the file's own order. `dtype` is a short name:
    F64 F32 F16 BF16, I8..I64, U8..U64, BOOL, or a quantised block type such as Q8_0. `file` is ""
    for the model file itself, else the external data file, relative to the model's folder.
    `offset` counts bytes from the first byte of that file; a reader given a model inside a bundle
    counts from the model's first byte, so the record is the same wherever the model lies.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    offset: int
    nbytes: int

    @property
    def count(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)


def main_dtype(tensors: Iterable[TensorRef]) -> str:
    """The type that holds the most bytes, by name when equal; "" when there is no tensor."""
    weight: Counter[str] = Counter()
    for tensor in tensors:
        weight[tensor.dtype] += tensor.nbytes
    return max(weight, key=lambda dtype: (weight[dtype], dtype), default="")
