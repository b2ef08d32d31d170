"""Quality tiers: published gates, judged the same way by the builder and by the verifier.

Source: specs/tiers.md. A policy is a TOML file; its SHA-256 names it. Everything is judged as of the
signing time, so the same bundle gets the same answer on every day and every machine.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.format.evidence import Evidence
from sealpack.format.fields import Fields
from sealpack.format.io import TASKS
from sealpack.format.manifest import TIERS, Manifest, Threshold
from sealpack.format.statement import LAST_SECOND
from sealpack.format.values import utc_day

SCHEMA = "sealpack/tier-policy/v1"
POLICY_NAME = "evidence/tier-policy.toml"  # where a creator's own policy rides along
MAX_POLICY_BYTES = 64 * 1024
BASE = TIERS[0]
EVALUATORS = ("any", "separate-key", "other-issuer")
MEASURED = ("latency", "memory", "load")
REQUIRABLE = ("card", "intended_use", "support", "recertify_by", "license-terms")
_PUBLISHED = ("tiers.toml",)  # every version ever published, newest last
_DAY = 86_400
_GATES = {
    "evaluator", "min_rows", "min_thresholds", "min_samples", "max_age_days", "min_sbom_percent",
    "measured", "require",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gates:
    """What one tier asks for, on top of the tiers before it."""

    evaluator: str
    min_rows: int
    min_thresholds: int
    min_samples: int
    max_age_days: int
    min_sbom_percent: int
    measured: tuple[str, ...]
    require: tuple[str, ...]

    @classmethod
    def parse(cls, f: Fields) -> Gates:
        """Read one; a key that is no gate is refused, because a misspelt gate would be open."""
        _closed(f, _GATES)
        return cls(
            f.choice("evaluator", EVALUATORS),
            f.integer("min_rows", lo=1),
            f.integer("min_thresholds", lo=1, hi=16),
            f.integer("min_samples", hi=256),
            f.integer("max_age_days", lo=1, hi=36_500),
            f.integer("min_sbom_percent", hi=100, default=0),
            _words(f, "measured", MEASURED),
            _words(f, "require", REQUIRABLE),
        )


@dataclass(frozen=True, slots=True)
class TierPolicy:
    """A policy file. `metrics` are the ones a threshold may speak of, per task."""

    name: str
    version: int
    sha256: str
    metrics: dict[str, tuple[str, ...]]
    tiers: dict[str, Gates]

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "tier policy", code: str = "CONFIG_INVALID") -> TierPolicy:
        """Read a policy strictly; `code` names what is wrong."""
        if len(data) > MAX_POLICY_BYTES:
            raise SealpackError(code, f"{what} is larger than {MAX_POLICY_BYTES} bytes")
        try:
            value = tomllib.loads(data.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise SealpackError(code, f"{what} is not TOML: {error}") from None
        f = Fields(value, what, code)
        _closed(f, {"schema", "name", "version", "metrics", "tiers"})
        f.schema(SCHEMA)
        metrics, tiers = f.sub("metrics"), f.sub("tiers")
        _closed(metrics, set(TASKS))
        _closed(tiers, set(TIERS[1:]))
        return cls(
            f.text("name", max_len=100),
            f.integer("version", lo=1),
            hashlib.sha256(data).hexdigest(),
            {task: metrics.texts(task, max_items=32, default=()) for task in TASKS},
            {tier: Gates.parse(tiers.sub(tier)) for tier in TIERS[1:]},
        )

    def to_dict(self) -> dict[str, Any]:
        """Name, version and digest, for reports."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def _closed(f: Fields, known: set[str]) -> None:
    for key in sorted(f.keys()):
        if key not in known:
            raise f.fail(key, f"is not known here; known: {', '.join(sorted(known))}")


def _words(f: Fields, key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    words = f.texts(key, max_items=len(allowed), default=())
    unknown = sorted(set(words) - set(allowed))
    if unknown:
        raise f.fail(key, f"names {', '.join(unknown)}; known: {', '.join(allowed)}")
    return words


def published() -> tuple[TierPolicy, ...]:
    """Every policy this version of sealpack knows, newest last."""
    folder = resources.files("sealpack.verifier")
    return tuple(TierPolicy.from_bytes(folder.joinpath(name).read_bytes(), name) for name in _PUBLISHED)


@dataclass(frozen=True, slots=True)
class Proof:
    """Evidence that verified, fits the bundle, and was signed by this key of this issuer.

    `digest` is that of the signed payload: a second signature over it makes no second document.
    """

    name: str
    evidence: Evidence
    issuer: str
    keyid: str
    digest: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything a tier is judged by. `signer` is (issuer, keyid); `sbom` (present, applicable)."""

    manifest: Manifest
    signer: tuple[str, str]
    signed_at: int
    proofs: tuple[Proof, ...]
    sbom: tuple[int, int]
    thresholds: tuple[Threshold, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate, judged. `remedy` says how to meet it."""

    tier: str
    id: str
    ok: bool
    detail: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the remedy only where the gate is not met."""
        told = {"tier": self.tier, "id": self.id, "ok": self.ok, "detail": self.detail}
        return told | ({} if self.ok else {"remedy": self.remedy})


def judge(policies: Iterable[TierPolicy], tier: str, standing: Standing) -> list[Gate]:
    """Every gate on the way to `tier`, of every policy; the tier is proven when all are met."""
    wanted = TIERS[1 : TIERS.index(tier) + 1]
    return [gate for policy in policies for name in wanted for gate in _tier(policy, name, standing)]


def highest(policies: tuple[TierPolicy, ...], standing: Standing) -> str:
    """The highest tier whose gates are all met."""
    proven = BASE
    for tier in TIERS[1:]:
        if not all(gate.ok for gate in judge(policies, tier, standing)):
            break
        proven = tier
    return proven


def _tier(policy: TierPolicy, tier: str, standing: Standing) -> Iterator[Gate]:
    gates = policy.tiers[tier]
    rows = [_evidence_gates(policy, tier, proof, standing) for proof in standing.proofs]
    if rows:
        yield from min(rows, key=lambda found: sum(not gate.ok for gate in found))
    else:
        yield Gate(
            tier, "evidence", False, "there is no signed evidence about this model",
            "run `sealpack evaluate`, and name the file under [evidence] in sealpack.toml",
        )  # fmt: skip
    yield from _bundle_gates(gates, tier, standing)


def _evidence_gates(policy: TierPolicy, tier: str, proof: Proof, standing: Standing) -> list[Gate]:
    gates, evidence = policy.tiers[tier], proof.evidence
    said, total = evidence.samples, len(standing.manifest.model_io.samples)
    return [
        _evaluator(gates, tier, proof, standing.signer),
        _age(gates, tier, evidence, standing.signed_at),
        Gate(
            tier, "rows", evidence.method.evaluated >= gates.min_rows,
            f"{evidence.method.evaluated} rows evaluated, {gates.min_rows} needed",
            f"evaluate on at least {gates.min_rows} rows",
        ),
        _metrics(policy, tier, evidence, standing.thresholds),
        Gate(
            tier, "samples", said.total == total >= gates.min_samples and said.passed == total,
            f"{said.passed} of {total} samples passed, {gates.min_samples} needed",
            f"give the model at least {gates.min_samples} [[io.samples]] that it passes",
        ),
        *_measured(gates, tier, evidence),
    ]  # fmt: skip


def _evaluator(gates: Gates, tier: str, proof: Proof, signer: tuple[str, str]) -> Gate:
    separate = proof.keyid != signer[1]
    other = separate and proof.issuer != signer[0]
    ok = {"any": True, "separate-key": separate, "other-issuer": other}[gates.evaluator]
    how = "another issuer" if other else "another key of the same issuer" if separate else "the bundle's key"
    return Gate(
        tier, "evidence", ok, f"{proof.name} by {proof.issuer} ({how}), {gates.evaluator} needed",
        {"any": "", "separate-key": "sign the evidence with a key that does not sign bundles",
         "other-issuer": "have it evaluated by somebody else, whose key your keyring lists for evidence"}[
            gates.evaluator
        ],
    )  # fmt: skip


def _age(gates: Gates, tier: str, evidence: Evidence, signed_at: int) -> Gate:
    age = signed_at - evidence.issued_at
    ok = 0 <= age <= gates.max_age_days * _DAY and signed_at < evidence.valid_until
    return Gate(
        tier, "age", ok,
        f"issued {utc_day(evidence.issued_at)}, valid until {utc_day(evidence.valid_until)}, "
        f"bundle signed {utc_day(signed_at)}, at most {gates.max_age_days} days apart",
        "evaluate again, before the bundle is signed",
    )  # fmt: skip


def _metrics(policy: TierPolicy, tier: str, evidence: Evidence, thresholds: tuple[Threshold, ...]) -> Gate:
    known = policy.metrics[evidence.task]
    need = policy.tiers[tier].min_thresholds
    bounds = [_bound(threshold, evidence) for threshold in thresholds]
    counted = {bound.metric for bound in bounds if bound.strict and bound.metric in known}
    ok = len(counted) >= need and all(bound.met for bound in bounds)
    detail = "; ".join(bound.detail for bound in bounds) or "no threshold is declared"
    remedy = (
        f"under [evidence] thresholds, declare a bound for {need} of {', '.join(known)} that the baseline "
        "does not reach and the model does"
    )
    return Gate(tier, "metric", ok, detail, remedy)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A declared threshold, judged; `strict` when an answer that knows no input would not reach it."""

    metric: str
    met: bool
    strict: bool
    detail: str


def _bound(threshold: Threshold, evidence: Evidence) -> _Bound:
    """Judge one; a bound on the wrong side bounds nothing and is not met."""
    metric = evidence.metric(threshold.metric)
    if metric is None:
        return _Bound(threshold.metric, False, False, f"{threshold.metric} was not measured")
    up = threshold.min is not None
    bound = Decimal(threshold.min or threshold.max or "0")
    right_side = metric.higher_is_better == up
    met = right_side and (metric.number >= bound if up else metric.number <= bound)
    base = None if metric.baseline is None else Decimal(metric.baseline)
    strict = base is not None and (base < bound if up else base > bound)
    note = "no baseline stated" if base is None else f"baseline {metric.baseline}"
    note += "" if base is None or strict else " reaches it too"
    note = note if right_side else "a bound on the wrong side"
    said = f"{metric.name} {metric.value}, {'>=' if up else '<='} {bound} declared ({note})"
    return _Bound(metric.name, met, strict, said)


def _measured(gates: Gates, tier: str, evidence: Evidence) -> Iterator[Gate]:
    found = evidence.performance
    have = {
        "latency": f"p99 {found.latency_us.p99} us",
        "memory": None if found.peak_memory_bytes is None else f"peak {found.peak_memory_bytes} bytes",
        "load": None if found.load_us is None else f"{found.load_us} us",
    }
    for name in gates.measured:
        value = have[name]
        yield Gate(
            tier, name, value is not None, value or "not measured", "evaluate with `sealpack evaluate`"
        )


def _bundle_gates(gates: Gates, tier: str, standing: Standing) -> Iterator[Gate]:
    if gates.min_sbom_percent:
        present, applicable = standing.sbom
        yield Gate(
            tier, "sbom", present * 100 >= gates.min_sbom_percent * applicable,
            f"{present} of {applicable} minimum elements, {gates.min_sbom_percent} % needed",
            "fill in [sbom]; `sealpack inspect` says what is missing",
        )  # fmt: skip
    for name in gates.require:
        ok, detail, remedy = _required(name, standing, gates.max_age_days)
        yield Gate(tier, name, ok, detail, remedy)


def _required(name: str, standing: Standing, max_days: int) -> tuple[bool, str, str]:
    m = standing.manifest
    if name in ("card", "license-terms"):
        held = m.with_role(name)
        return bool(held), held[0].name if held else f"no {name}", "name it in sealpack.toml"
    if name == "recertify_by":
        day = m.recertify_by or ""
        latest = utc_day(min(standing.signed_at + max_days * _DAY, LAST_SECOND))
        ok = utc_day(standing.signed_at) < day <= latest
        return ok, day or "no date", f"set bundle.recertify_by to a day to come, at latest {latest}"
    text = getattr(m, name) or ""
    return bool(text.strip()), text[:80] or f"no {name}", f"set bundle.{name}"
