"""The bundle's own samples: run each, compare the answer with what the creator expects.

Source: specs/manifest.md, "io". Decimal strings are compared as numbers; cosine similarity is computed
on the vectors as the engine gave them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.format.io import Expect, Sample
from sealpack.runtime.api import Runtime
from sealpack.runtime.engines.base import Call, Embed, Generate, Infer

COST_CENTRE = "selftest"
Ask = Callable[[Call], dict[str, Any]]  # computes one call and gives its answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """One sample: what was expected, what came, and whether that is right."""

    what: str
    expected: str
    found: str
    ok: bool


def run_all(runtime: Runtime) -> list[Outcome]:
    """Run every sample as an ordinary metered call (cost centre `selftest`)."""

    def ask(call: Call) -> dict[str, Any]:
        return runtime.run(call, cost_centre=COST_CENTRE).value

    return [run_one(ask, sample) for sample in runtime.io.samples]


def run_one(ask: Ask, sample: Sample) -> Outcome:
    """Run one sample through `ask` and judge the answer."""
    expect, call = sample.expect, _call(sample)
    expected, found, good = _judge(expect, ask(call))
    what = "inputs"
    if sample.prompt is not None:
        what = f"prompt {sample.prompt!r}"
    elif sample.text is not None:
        what = f"text {sample.text!r}"
    return Outcome(what, expected, found, good)


def _call(sample: Sample) -> Call:
    if sample.prompt is not None:
        return Generate(sample.prompt, sample.max_tokens)
    if sample.text is not None:
        near = sample.expect.near
        return Embed((sample.text,) if near is None else (sample.text, near))
    return Infer(_numbers(sample.inputs or {}))


def _judge(expect: Expect, value: dict[str, Any]) -> tuple[str, str, bool]:
    if expect.text is not None:
        found = str(value.get("text", ""))
        return repr(expect.text), repr(found), found == expect.text
    if expect.label is not None:
        found = str((value.get("labels") or [{"label": ""}])[0]["label"])
        return expect.label, found, found == expect.label
    vectors: list[list[float]] = value.get("embeddings") or [[]]
    if expect.near is not None:
        similarity = cosine(vectors[0], vectors[-1]) if len(vectors) > 1 else 0.0
        return f"cosine >= {expect.cosine}", f"{similarity:.4f}", similarity >= float(expect.cosine)
    return _leading(expect, vectors[0])


def _leading(expect: Expect, vector: Sequence[float]) -> tuple[str, str, bool]:
    wanted = [float(x) for x in expect.embedding or ()]
    found = list(vector[: len(wanted)])
    near = len(found) == len(wanted) and all(
        abs(a - b) <= float(expect.tolerance) for a, b in zip(wanted, found, strict=True)
    )
    return ", ".join(expect.embedding or ()), ", ".join(f"{x:.4f}" for x in found), near


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
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
