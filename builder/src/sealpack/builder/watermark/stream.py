"""The keyed streams behind a mark: signs and rounding noise. Source: specs/watermark.md section 3.

A stream belongs to one tensor and is cut into segments of 65,536 weights, each its own SHAKE-128
output, so any part of a tensor of any size can be made alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sealpack.builder.watermark.params import SEGMENT

Bits = NDArray[np.uint8]


def segment_bytes(key: bytes, index: int, count: int) -> Bits:
    """The first `count` bytes of SHAKE-128(key, index as 8 bytes big-endian)."""
    seed = key + index.to_bytes(8, "big")
    return np.frombuffer(hashlib.shake_128(seed).digest(count), np.uint8)


def segments(start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Cut the flat range into (segment index, first, end) with first and end inside the segment."""
    for index in range(start // SEGMENT, -(-stop // SEGMENT)):
        base = index * SEGMENT
        yield index, max(start - base, 0), min(stop - base, SEGMENT)


def sign_bits(key: bytes, start: int, stop: int) -> Bits:
    """One 0 or 1 per weight of the flat range; 1 stands for +1, most significant bit first."""
    parts = [
        np.unpackbits(segment_bytes(key, index, SEGMENT // 8))[first:end]
        for index, first, end in segments(start, stop)
    ]
    return np.concatenate(parts)


def noise_bytes(key: bytes, start: int, stop: int) -> Bits:
    """One byte per weight of the flat range: where a half-precision weight is rounded to."""
    parts = [segment_bytes(key, index, end)[first:] for index, first, end in segments(start, stop)]
    return np.concatenate(parts)
