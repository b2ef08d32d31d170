"""The bundle's own samples: run each, compare the answer with what the creator expects.

Source: specs/manifest.md, "io". Decimal strings are compared as numbers; cosine similarity is computed
on the vectors as the engine gave them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.format.io import Expect, Sample
from sealpack.runtime.api import Answer, Runtime

COST_CENTRE = "selftest"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One sample: what was expected, what came, and whether that is right."""

    what: str
    expected: str
    found: str
    ok: bool


def run_all(runtime: Runtime) -> list[Outcome]:
    """Run every sample as an ordinary metered call (cost centre `selftest`)."""
    return [run_one(runtime, sample) for sample in runtime.io.samples]


def run_one(runtime: Runtime, sample: Sample) -> Outcome:
    """Run one sample and judge it."""
    expect = sample.expect
    if sample.prompt is not None:
        answer = runtime.generate(sample.prompt, max_tokens=sample.max_tokens, cost_centre=COST_CENTRE)
        what = f"prompt {sample.prompt!r}"
    elif sample.text is not None:
        texts = [sample.text] if expect.near is None else [sample.text, expect.near]
        answer = runtime.embed(texts, cost_centre=COST_CENTRE)
        what = f"text {sample.text!r}"
    else:
        answer = runtime.infer(_numbers(sample.inputs or {}), cost_centre=COST_CENTRE)
        what = "inputs"
    expected, found, good = _judge(expect, answer)
    return Outcome(what, expected, found, good)


def _judge(expect: Expect, answer: Answer) -> tuple[str, str, bool]:
    value = answer.value
    if expect.text is not None:
        found = str(value.get("text", ""))
        return repr(expect.text), repr(found), found == expect.text
    if expect.label is not None:
        found = str((value.get("labels") or [{"label": ""}])[0]["label"])
        return expect.label, found, found == expect.label
    vectors: list[list[float]] = value.get("embeddings") or [[]]
    if expect.near is not None:
        similarity = _cosine(vectors[0], vectors[-1]) if len(vectors) > 1 else 0.0
        return f"cosine >= {expect.cosine}", f"{similarity:.4f}", similarity >= float(expect.cosine)
    return _leading(expect, vectors[0])


def _leading(expect: Expect, vector: Sequence[float]) -> tuple[str, str, bool]:
    wanted = [float(x) for x in expect.embedding or ()]
    found = list(vector[: len(wanted)])
    near = len(found) == len(wanted) and all(
        abs(a - b) <= float(expect.tolerance) for a, b in zip(wanted, found, strict=True)
    )
    return ", ".join(expect.embedding or ()), ", ".join(f"{x:.4f}" for x in found), near


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    norm = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


def _numbers(value: Any) -> Any:
    """Nested lists with decimal strings turned into numbers: signed JSON has no floats."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise SealpackError("MANIFEST_INVALID", f"sample input {value[:40]!r} is no number") from None
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    return value
