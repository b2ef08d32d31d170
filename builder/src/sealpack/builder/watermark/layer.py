"""The licensee layer's arithmetic on blocks of rows. Source: specs/watermark.md sections 5 and 8.

Everything that decides a marked byte is exact IEEE arithmetic on single values. The one sum, a row's
rms, is rounded to 11 significant bits, so the order in which a machine adds cannot be seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sealpack.builder.watermark.stream import Bits

Floats = NDArray[np.float32]

CLIP = np.float32(2.5)  # a weight counts for at most this many rms when the original is not at hand
MIN_GAIN = 0.2  # a row that keeps less of the original than this is not rescaled
MIN_VARIANCE = 1e-8  # below this a row's change is rounding, which must not outweigh a mark


def row_rms(rows: Floats) -> Floats:
    """Root mean square of each row, shape (rows, 1), over its finite weights; 0 for an empty row."""
    finite = np.isfinite(rows)
    squares = np.square(np.where(finite, rows, 0), dtype=np.float64)
    count = np.maximum(finite.sum(axis=1, keepdims=True), 1)
    return _round_bits(np.sqrt(squares.sum(axis=1, keepdims=True) / count))


def _round_bits(values: NDArray[np.float64]) -> Floats:
    """Keep 11 significant bits; a value float32 cannot hold becomes 0 and its row stays as it is."""
    mantissa, exponent = np.frexp(values)
    rounded = np.ldexp(np.rint(mantissa * 2048) / 2048, exponent)
    usable = (rounded > 1e-30) & (rounded < 1e30)
    return np.where(usable, rounded, 0).astype(np.float32)


def add_mark(rows: Floats, bits: Bits, strength: float) -> Floats:
    """Return rows + strength * rms(row) * sign, same shape; zeros and non-finite weights stay.

    `bits`: one 0/1 per weight, flat, row by row.
    """
    step = np.float32(strength) * row_rms(rows)
    # int8 keeps the sign exact; a float32 product of a sign and the step is exact, too
    signs = (bits.astype(np.int8) * 2 - 1).reshape(rows.shape)
    marked: Floats = rows + signs * step
    return np.where(np.isfinite(rows) & (rows != 0), marked, rows)


def round_noisily(values: Floats, noise: Bits, dropped: int) -> NDArray[np.uint32]:
    """Drop the low `dropped` bits of float32 values, rounding up or down by chance of the noise.

    Rounding to nearest would erase a mark smaller than half a step of the short format; rounding by
    keyed chance keeps its mean. A value that already fits is never moved. Returns float32 bits.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    shift = dropped - 8
    chance = (noise.astype(np.uint32) << shift) + (1 << (shift - 1))
    mask = np.uint32(0xFFFFFFFF ^ ((1 << dropped) - 1))
    return (bits + chance.reshape(bits.shape)) & mask


def residual_blind(rows: Floats) -> Floats:
    """What a suspect's rows say without the original: weight / rms, held to +-2.5."""
    rows = np.where(np.isfinite(rows), rows, 0)
    rms = row_rms(rows)
    scaled = np.divide(rows, rms, out=np.zeros_like(rows), where=rms > 0)
    return np.clip(scaled, -CLIP, CLIP)


def residual_against(rows: Floats, original: Floats) -> Floats:
    """What a suspect's rows say next to the original's: the change in rms, weighted by 1/variance.

    A row's overall gain is undone first. Rows that no longer resemble the original (change above one
    rms) count nothing; single changes above three standard deviations are held there.
    """
    usable = np.isfinite(rows) & np.isfinite(original) & (original != 0)
    rows = np.where(usable, rows, 0)
    clean = np.where(usable, original, 0)
    rms = row_rms(original)
    change = rows / _gain(rows, clean) - clean
    change = np.divide(change, rms, out=np.zeros_like(change), where=rms > 0)
    variance = np.square(change).mean(axis=1, keepdims=True)
    kept = (variance < 1) & (variance > 0)
    variance = np.maximum(variance, np.float32(MIN_VARIANCE))
    weighted = np.divide(change, variance, out=np.zeros_like(change), where=kept)
    limit = 3 / np.sqrt(variance)
    clipped: Floats = np.clip(weighted, -limit, limit)
    return clipped


def _gain(rows: Floats, clean: Floats) -> Floats:
    energy = np.square(clean).sum(axis=1, keepdims=True)
    product = (rows * clean).sum(axis=1, keepdims=True)
    gain = np.divide(product, energy, out=np.ones_like(energy), where=energy > 0)
    return np.where(np.abs(gain) < MIN_GAIN, np.float32(1), gain)
