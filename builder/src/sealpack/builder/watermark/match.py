"""Which tensor of a suspect is which tensor of the clean model. Source: specs/watermark.md section 8.

Names change when a model is converted and matrices are stored turned; a few hundred weights at keyed
positions tell tensors apart in any format, after any conversion that keeps the weights in place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealpack.builder.watermark.keys import derive
from sealpack.builder.watermark.records import MarkedTensor, ModelRecord
from sealpack.builder.watermark.weights import Weights

SAMPLES = 256
MIN_DISTINCT = 32  # fewer different values than this: a mask or a table, not weights
MIN_CORRELATION = 0.5  # eight standard deviations above what unrelated tensors reach
_CLIP = 4.0  # in medians, so that a few outliers do not decide


@dataclass(frozen=True, slots=True)
class Pair:
    """A clean tensor and what holds its weights in the suspect, already turned the clean way."""

    tensor: MarkedTensor
    weights: Weights


def positions(
    model_key: bytes, name: str, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The keyed rows and columns at which a tensor is sampled: 256 of each."""
    stream = hashlib.shake_128(derive(model_key, "sample", name)).digest(SAMPLES * 8)
    flat = np.frombuffer(stream, ">u8") % np.uint64(shape[0] * shape[1])
    rows, columns = np.divmod(flat.astype(np.int64), shape[1])
    return rows, columns


def sample(model_key: bytes, name: str, weights: Weights) -> NDArray[np.float32]:
    """The weights at a tensor's keyed positions; non-finite ones count as zero."""
    values = weights.at(*positions(model_key, name, weights.shape))
    return np.where(np.isfinite(values), values, np.float32(0))


def pack(values: NDArray[np.float32]) -> bytes:
    """A sample as 256 signed bytes, scaled so that four medians are 127."""
    return _scale(values).tobytes()


def _scale(values: NDArray[np.float32]) -> NDArray[np.int8]:
    magnitude = np.abs(values.astype(np.float64))
    present = magnitude[magnitude > 0]
    if not present.size:
        return np.zeros(values.shape, np.int8)
    limit = _CLIP * np.median(present)
    scaled: NDArray[np.int8] = np.rint(np.clip(values / limit, -1, 1) * 127).astype(np.int8)
    return scaled


def correlation(packed: bytes, values: NDArray[np.float32]) -> float:
    """Cosine between a kept sample and a suspect's, in [-1, 1]; 0 when either is all zero."""
    kept = np.frombuffer(packed, np.int8).astype(np.float64)
    found = _scale(values).astype(np.float64)
    if kept.shape != found.shape:
        return 0.0
    norm = float(np.linalg.norm(kept) * np.linalg.norm(found))
    return float(kept @ found) / norm if norm else 0.0


def match(model: ModelRecord, model_key: bytes, suspects: dict[str, Weights]) -> tuple[Pair, ...]:
    """Find each clean tensor in the suspect: by name where the content agrees, else by content.

    Tied copies stand in for their first tensor when that is missing.
    """
    pairs = []
    taken: set[str] = set()
    for tensor in model.tensors:
        if tensor.tied_to is not None:
            continue
        named = [suspects[name] for name in _names(model, tensor) if name in suspects]
        pair = _best(tensor, model_key, named)
        if pair is None:
            others = [weights for name, weights in suspects.items() if name not in taken]
            pair = _best(tensor, model_key, others)
        if pair is not None:
            taken.add(pair.weights.name)
            pairs.append(pair)
    return tuple(pairs)


def _names(model: ModelRecord, tensor: MarkedTensor) -> list[str]:
    tied = [other.name for other in model.tensors if other.tied_to == tensor.name]
    return [tensor.name, *tied]


def _best(tensor: MarkedTensor, model_key: bytes, suspects: Iterable[Weights]) -> Pair | None:
    best, best_value = None, MIN_CORRELATION
    for weights in suspects:
        for view in _views(tensor, weights):
            value = correlation(tensor.sample, sample(model_key, tensor.name, view))
            if value >= best_value:
                best, best_value = Pair(tensor, view), value
    return best


def _views(tensor: MarkedTensor, weights: Weights) -> Iterator[Weights]:
    shape = (tensor.rows, tensor.columns)
    if weights.shape == shape:
        yield weights
    if weights.shape == shape[::-1]:
        yield weights.turned
