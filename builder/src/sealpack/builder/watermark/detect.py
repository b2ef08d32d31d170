"""Name the licensee whose mark is in a suspect file, with a p-value. Source: specs/watermark.md section 8.

The p-value is a randomisation p-value: given the two files, only the licensees' keys are random, so it
holds for any weights and any attack. A verdict says "not by chance"; it never says who leaked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealpack.builder.watermark import keys, layer, match, stream
from sealpack.builder.watermark.params import SEGMENT
from sealpack.builder.watermark.records import Mark, MarkedTensor, ModelRecord
from sealpack.builder.watermark.vault import Vault
from sealpack.builder.watermark.weights import OpenModel, Weights, open_model
from sealpack.format.errors import SealpackError

SCHEMA = "sealpack/watermark-verdict/v1"
FLOOR = -30.0  # no p-value is told below 1e-30: other things go wrong more often than that
NAMED = -6.0  # log10 of the p-value, after correction, from which a licensee is named
BLOCK = 1 << 20
_QUAD_SIGNS = np.array(
    [[1 if bits & place else -1 for bits in range(16)] for place in (8, 4, 2, 1)], np.float32
)
_HIGH = np.arange(0, SEGMENT * 4, 32)  # where the sums of each eight weights begin
LIMITS = (
    "a p-value says the match is not chance; it does not say who passed the file on",
    "no mark found does not mean the file is not yours: retraining, distillation, heavy pruning or "
    "mixing with a clean copy can remove the mark",
    "if the clean model is public, anyone can compare with it and wash the mark out",
    "this version does not resist licensees who combine their copies",
    "permuted or rotated hidden units, and matrices cut, stacked or fused by a converter, are reported as "
    "structure not matched",
    "without the original about 20 million marked weights are needed for a clear answer",
)


@dataclass(frozen=True, slots=True)
class Score:
    """One licensee's result: z in standard deviations, log10 of the p-value after correction."""

    license_ids: tuple[str, ...]
    licensee: str
    bundle_id: str
    model: str
    z: float
    log10_p: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What detection found.

    `structure` is "matched", "partly matched" or "not matched"; `method` "blind" or "against the
    original"; weights are counts; `tested` is the number of licensees the p-values are corrected for.
    `scores` is sorted, strongest first.
    """

    suspect: str
    structure: str
    method: str
    tested: int
    matched_tensors: int
    all_tensors: int
    matched_weights: int
    all_weights: int
    scores: tuple[Score, ...]
    limits: tuple[str, ...] = LIMITS

    @property
    def named(self) -> tuple[Score, ...]:
        """Every licensee whose mark stands out; several when copies were mixed."""
        return tuple(score for score in self.scores if score.log10_p <= NAMED)

    @property
    def best(self) -> Score | None:
        """The strongest of :attr:`named`, or None: no licensee is named."""
        return self.named[0] if self.named else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema sealpack/watermark-verdict/v1."""
        return {
            "schema": SCHEMA,
            "suspect": self.suspect,
            "structure": self.structure,
            "method": self.method,
            "tested": self.tested,
            "tensors": {"matched": self.matched_tensors, "marked": self.all_tensors},
            "weights": {"matched": self.matched_weights, "marked": self.all_weights},
            "named": [score.licensee for score in self.named],
            "scores": [_score_dict(score) for score in self.scores],
            "limits": list(self.limits),
        }


def _score_dict(score: Score) -> dict[str, Any]:
    return {
        "licensee": score.licensee,
        "license_ids": list(score.license_ids),
        "bundle_id": score.bundle_id,
        "model": score.model,
        "z": round(score.z, 2) + 0.0,
        "log10_p": round(score.log10_p, 2) + 0.0,
    }


def detect(suspect: Path, vault: Vault, original: Path | None = None) -> Verdict:
    """Test a suspect model file for every mark in the vault.

    With `original`, the clean model file the marks were made from, the test is far stronger.
    Raises FILE_MISSING, MODEL_UNKNOWN, MODEL_UNSAFE; INPUT_INVALID when the vault has no mark or
    does not know the original.
    """
    if not vault.marks:
        raise SealpackError(
            "INPUT_INVALID", f"{vault.path} holds no mark", remedy="build a marked copy first"
        )
    opened = open_model(suspect)
    clean = open_model(original) if original is not None else None
    models = [_model_of(vault, clean)] if clean is not None else list(vault.models.values())
    trials = [_Trial.prepare(vault, model, opened, clean) for model in models]
    return _verdict(suspect, original is not None, [trial for trial in trials if trial.marks])


def hoeffding_log10(z: float) -> float:
    """log10 of 2 exp(-z^2/2): no sum of signs of any weights exceeds z more often, either way."""
    return min(0.0, math.log10(2) - z * z / 2 / math.log(10))


def sidak_log10(log10_p: float, tested: int) -> float:
    """log10 of 1 - (1 - p)^tested: the chance that any of `tested` innocents looks this bad."""
    if log10_p < -12:
        return log10_p + math.log10(tested)
    p = 10.0**log10_p
    return 0.0 if p >= 1 else math.log10(-math.expm1(tested * math.log1p(-p)))


# --- one clean model against the suspect ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """One carrier: every license of one licensee to one bundle shares it."""

    key: bytes
    marks: tuple[Mark, ...]


@dataclass(slots=True)
class _Trial:
    model: ModelRecord
    marks: tuple[_Hypothesis, ...]
    pairs: tuple[match.Pair, ...]
    original: dict[str, Weights] | None

    @classmethod
    def prepare(
        cls, vault: Vault, model: ModelRecord, suspect: OpenModel, original: OpenModel | None
    ) -> _Trial:
        k_model = keys.model_key(vault.root, model.digest)
        own = _own_marks(vault, model)
        pairs = match.match(model, k_model, suspect.tensors) if own else ()
        return cls(model, own, pairs, original.tensors if original else None)

    @property
    def weights(self) -> int:
        return sum(pair.tensor.rows * pair.tensor.columns for pair in self.pairs)

    def zs(self) -> NDArray[np.float64]:
        """One z per hypothesis: the signed sum over all matched weights in its own deviations."""
        sums, energy = np.zeros(len(self.marks)), 0.0
        for pair in self.pairs:
            signs = [keys.tensor_key(own.key, "signs", pair.tensor.name) for own in self.marks]
            for start, values in self._residuals(pair):
                energy += float(np.square(values, dtype=np.float64).sum())
                sums += _signed_sums(signs, start, values)
        return sums / math.sqrt(energy) if energy else sums

    def _residuals(self, pair: match.Pair) -> Iterator[tuple[int, layer.Floats]]:
        """(flat start, residuals) of each block of whole rows."""
        tensor = pair.tensor
        clean = self.original[tensor.name] if self.original is not None else None
        step = max(1, BLOCK // tensor.columns)
        for start in range(0, tensor.rows, step):
            stop = min(start + step, tensor.rows)
            rows = pair.weights.rows(start, stop)
            values = (
                layer.residual_blind(rows)
                if clean is None
                else layer.residual_against(rows, clean.rows(start, stop))
            )
            yield start * tensor.columns, values.reshape(-1)


def _signed_sums(tensor_keys: list[bytes], start: int, values: layer.Floats) -> NDArray[np.float64]:
    """Sum of sign * value for each key; `start` is the flat position of the first value."""
    totals = np.zeros(len(tensor_keys))
    part = np.zeros(SEGMENT, np.float32)
    for index, first, end in stream.segments(start, start + len(values)):
        base = index * SEGMENT - start
        part[:] = 0
        part[first:end] = values[base + first : base + end]
        # the sum of any four signed neighbours is looked up by the four sign bits: 16 for each four
        sums = (part.reshape(-1, 4) @ _QUAD_SIGNS).reshape(-1)
        for number, key in enumerate(tensor_keys):
            octets = stream.segment_bytes(key, index, SEGMENT // 8)
            high, low = sums[_HIGH + (octets >> 4)], sums[_HIGH + 16 + (octets & 15)]
            totals[number] += (high + low).sum(dtype=np.float64)
    return totals


def _own_marks(vault: Vault, model: ModelRecord) -> tuple[_Hypothesis, ...]:
    groups: dict[tuple[str, str], list[Mark]] = {}
    for mark in vault.marks:
        if mark.model == model.digest:
            groups.setdefault((mark.licensee, mark.bundle_id), []).append(mark)
    return tuple(
        _Hypothesis(vault.licensee_key(model.digest, *names), tuple(marks)) for names, marks in groups.items()
    )


def _model_of(vault: Vault, original: OpenModel) -> ModelRecord:
    """The vault's record of the clean model given as original."""
    folder = original.path.parent
    digests = {}
    for path in original.files:
        with path.open("rb") as file:
            name = "" if path == original.path else path.relative_to(folder).as_posix()
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    model = vault.models.get(keys.model_digest(digests))
    if model is None:
        raise SealpackError(
            "INPUT_INVALID",
            f"{original.path} is not a model this vault's marks were made from",
            remedy="give the clean model file that was built, unchanged",
        )
    return model


# --- the verdict ----------------------------------------------------------------------------------


def _verdict(suspect: Path, against: bool, trials: list[_Trial]) -> Verdict:
    """Score the models that match; every licensee of those counts in the correction."""
    matched = [trial for trial in trials if trial.pairs]
    tested = sum(len(trial.marks) for trial in matched)
    scores = [score for trial in matched for score in _scores(trial, tested)]
    scores.sort(key=lambda score: (score.log10_p, -abs(score.z)))
    closest = max(matched or trials, key=lambda trial: trial.weights)
    tensors = [tensor for tensor in closest.model.tensors if tensor.tied_to is None]
    return Verdict(
        suspect=str(suspect),
        structure=_structure(len(closest.pairs), tensors),
        method="against the original" if against else "blind",
        tested=tested,
        matched_tensors=len(closest.pairs),
        all_tensors=len(tensors),
        matched_weights=closest.weights,
        all_weights=closest.model.weights,
        scores=tuple(scores),
    )


def _structure(pairs: int, tensors: Iterable[MarkedTensor]) -> str:
    if not pairs:
        return "not matched"
    return "matched" if pairs == len(list(tensors)) else "partly matched"


def _scores(trial: _Trial, tested: int) -> Iterator[Score]:
    for hypothesis, z in zip(trial.marks, trial.zs(), strict=True):
        mark = hypothesis.marks[0]
        log10_p = max(FLOOR, sidak_log10(hoeffding_log10(float(z)), tested))
        licenses = tuple(sorted({m.license_id for m in hypothesis.marks}))
        yield Score(licenses, mark.licensee, mark.bundle_id, mark.model, float(z), log10_p)
