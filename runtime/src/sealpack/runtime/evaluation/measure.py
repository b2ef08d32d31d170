"""Run the rows, time every call, and write down what came out. Source: specs/evidence.md, "Method"."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.format.evidence import (
    DataSet,
    Environment,
    Evidence,
    Latency,
    Method,
    Performance,
    SampleCount,
)
from sealpack.format.statement import LAST_SECOND
from sealpack.runtime import samples
from sealpack.runtime.engines.base import Description
from sealpack.runtime.engines.cpu import processor
from sealpack.runtime.evaluation import tasks
from sealpack.runtime.evaluation.data import Data, Row
from sealpack.runtime.evaluation.subject import Loaded

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure and what to say of it. `valid_days` from `issued_at` (Unix seconds)."""

    evaluator: str
    issued_at: int
    valid_days: int = 365
    measure: str | None = None
    limit: int | None = None
    seed: int = 0
    batch: int = 1
    warmup: int = 1
    data_name: str | None = None
    data_license: str | None = None
    data_source: str | None = None
    notes: str | None = None


def evaluate(
    loaded: Loaded, data: Data, plan: Plan, progress: Callable[[int], None] = lambda _: None
) -> Evidence:
    """Run the model on the data and give the evidence; `progress(n)` is called with rows done.

    INPUT_INVALID names a bad row; ENGINE_FAILED, or whatever refuses a metered call.
    """
    described = loaded.model.describe()
    vocabulary = described.facts.get("vocabulary")
    measure = tasks.choose(plan.measure, loaded.io, described.inputs, data, vocabulary)
    rows = data.sample(plan.limit, plan.seed)
    batch = plan.batch if measure.batched else 1
    groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    warmup = 0 if loaded.metered else min(plan.warmup, len(groups))
    for group in groups[:warmup]:
        _ask(loaded, measure, group)
    times = []
    for group in groups:
        answer, took = _ask(loaded, measure, group)
        measure.take(group, answer)
        times.append(took)
        progress(len(group))
    return Evidence(
        evaluator=plan.evaluator,
        issued_at=plan.issued_at,
        valid_until=min(plan.issued_at + plan.valid_days * DAY, LAST_SECOND),
        subject=loaded.subject,
        task=loaded.io.task,
        data=_data(data, plan),
        metrics=measure.figures(),
        performance=_performance(times, len(rows), loaded.load_us),
        environment=_environment(described),
        method=Method(len(rows), plan.seed, batch, warmup, loaded.metered, described.facts.get("context")),
        samples=_samples(loaded),
        notes=plan.notes,
    )


def _ask(loaded: Loaded, measure: tasks.Measure, group: Sequence[Row]) -> tuple[dict[str, object], int]:
    """The answer and its wall time in nanoseconds; what is refused is named by its row."""
    call = measure.call(group)
    began = time.perf_counter_ns()
    try:
        answer = loaded.model.ask(call)
    except SealpackError as error:
        if error.code not in ("INPUT_INVALID", "REQUEST_TOO_LARGE"):
            raise
        place = group[0].place if len(group) == 1 else f"{group[0].place} and {len(group) - 1} more"
        raise SealpackError(error.code, f"{place}: {error.message}", remedy="correct the row named") from None
    return answer, time.perf_counter_ns() - began


def _data(data: Data, plan: Plan) -> DataSet:
    return DataSet(
        plan.data_name or data.path.name[:200],
        data.digest,
        data.format,
        len(data.rows),
        data.fields,
        plan.data_license,
        plan.data_source,
    )


def percentile(ordered: Sequence[int], share: int) -> int:
    """The nearest-rank percentile: the smallest value that `share` per cent do not exceed."""
    return ordered[max(0, -(-share * len(ordered) // 100) - 1)]


def _performance(times: list[int], items: int, load_us: int) -> Performance:
    ordered = sorted(-(-took // 1000) for took in times)
    p50, p90, p99 = (percentile(ordered, share) for share in (50, 90, 99))
    per_second = items * 1_000_000_000 / max(1, sum(times))
    return Performance(len(times), Latency(p50, p90, p99), tasks.decimal(per_second), _peak_memory(), load_us)


def _peak_memory() -> int:
    """Peak resident size of this process, bytes.

    Not ru_maxrss where Linux tells it otherwise: that one starts from the parent's at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes


def _environment(described: Description) -> Environment:
    cpu, cores = processor()
    return Environment(
        described.engine,
        described.version,
        metadata.version("sealpack"),
        f"{platform.system()} {platform.release()}"[:200],
        platform.machine(),
        described.threads,
        None if cpu is None else cpu[:200],
        cores,
    )


def _samples(loaded: Loaded) -> SampleCount:
    outcomes = list(_outcomes(loaded))
    return SampleCount(sum(outcomes), len(outcomes))


def _outcomes(loaded: Loaded) -> Iterator[bool]:
    for sample in loaded.io.samples:
        yield samples.run_one(loaded.model.ask, sample).ok
