"""Choosing the inputs worth keeping: the fewest and smallest that reach what all of them reach."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz.catalogue import TARGETS, keep, kept
from fuzz.target import Target

Pair = tuple[str, int, int]


def reached(target: Target, data: bytes) -> frozenset[Pair]:
    """The pairs of consecutive lines of sealpack that one input runs through, and how it ended."""
    pairs: set[Pair] = set()

    def in_frame(frame: FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if "/sealpack/" not in file:
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            pairs.add((file, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    sys.settrace(in_frame)
    try:
        outcome = target.check(data)
    finally:
        sys.settrace(None)
    return frozenset(pairs | {(outcome, 0, 0)})


def smallest(target: Target, inputs: Iterable[bytes]) -> Iterator[bytes]:
    """Greedily, small inputs first, those that reach something no smaller one reached."""
    seen: set[Pair] = set()
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = reached(target, data)
        if not new <= seen:
            seen |= new
            yield data


def renew(name: str, corpus: Path | None) -> str:
    """Make the kept corpus of a target anew from its seeds, what was kept, and what lies in `corpus`."""
    target = TARGETS[name]
    found = [path.read_bytes() for path in sorted((corpus / name).glob("*"))] if corpus else []
    inputs = [*target.seeds(), *(data for _, data in kept(target)), *found]
    inputs = [data for data in inputs if len(data) <= target.max_len]
    chosen = list(smallest(target, inputs))
    return f"kept {keep(target, iter(chosen))} of {len(inputs)} inputs, {sum(map(len, chosen))} bytes"
