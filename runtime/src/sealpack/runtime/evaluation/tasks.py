"""What can be measured: each measure turns rows into calls, and answers into figures.

Source: specs/evidence.md, "Measures". A measure is chosen by the model's task and the fields of the data.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import median
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.format.evidence import Metric
from sealpack.format.io import ModelIo
from sealpack.runtime.engines.base import Call, Embed, Generate, Infer, Score, takes
from sealpack.runtime.evaluation.data import Data, Row
from sealpack.runtime.samples import cosine

_PLACES = Decimal("0.000001")
_MAX_VALUE = 10**18
_GENERATED = 64  # tokens of an answer, unless the row says otherwise
_MAX_GENERATED = 4096
_RETRIEVED = 20_000  # queries that are ranked against each other


def decimal(value: float) -> str:
    """A figure as signed documents write it: six places, half to even; ENGINE_FAILED when not finite."""
    if not math.isfinite(value) or abs(value) >= _MAX_VALUE:
        raise SealpackError("ENGINE_FAILED", f"a figure came out as {value}, which is no evidence")
    text = str(Decimal(value).quantize(_PLACES, ROUND_HALF_EVEN))
    return text.removeprefix("-") if not float(text) else text


class Measure(ABC):
    """One kind of evaluation, for the rows of one file."""

    batched = True

    def __init__(self, io: ModelIo, inputs: tuple[str, ...], vocabulary: int | None = None) -> None:
        self.io = io
        self.inputs = inputs  # the model's own input names
        self.vocabulary = vocabulary  # tokens it can say, where it says any

    @abstractmethod
    def call(self, rows: Sequence[Row]) -> Call:
        """The call that computes these rows; a row that does not fit is refused by its line."""

    @abstractmethod
    def take(self, rows: Sequence[Row], answer: dict[str, Any]) -> None:
        """Keep what the figures need of the answer to :meth:`call`."""

    @abstractmethod
    def figures(self) -> tuple[Metric, ...]:
        """The figures over everything taken."""


def higher(name: str, value: float, n: int, baseline: float) -> Metric:
    """A figure of which more is better."""
    return Metric(name, decimal(value), n, True, None, decimal(baseline))


def lower(name: str, value: float, n: int, baseline: float | None, unit: str | None = None) -> Metric:
    """A figure of which less is better."""
    return Metric(name, decimal(value), n, False, unit, None if baseline is None else decimal(baseline))


class _Inputs(Measure):
    """Measures whose model takes text or tensors, beside one field that is the truth."""

    truth = "label"

    def call(self, rows: Sequence[Row]) -> Call:
        for row in rows:
            self.truth_of(row)  # a bad row is told before anything is computed
        if takes(self.io) == "text":
            return Embed(tuple(row.text("text") for row in rows))
        tensors = [self._tensors(row) for row in rows]
        return Infer({name: [each[name] for each in tensors] for name in self.inputs})

    @abstractmethod
    def truth_of(self, row: Row) -> Any:
        """What the answer should be."""

    def _tensors(self, row: Row) -> dict[str, Any]:
        """One example by input name: under `input`, under the inputs' own names, or as number columns."""
        given = row.values.get("input")
        if isinstance(given, dict):
            found = given
        elif given is not None and len(self.inputs) == 1:
            found = {self.inputs[0]: given}
        elif all(name in row.values for name in self.inputs):
            found = {name: row.values[name] for name in self.inputs}
        elif len(self.inputs) == 1:
            found = {self.inputs[0]: self._columns(row)}
        else:
            row.fail(f"has no input; the model takes {', '.join(self.inputs)}")
        if set(found) != set(self.inputs):
            row.fail(f"input names {', '.join(map(str, found))}, the model takes {', '.join(self.inputs)}")
        return found

    def _columns(self, row: Row) -> list[float]:
        """Every column but the truth and the id, as numbers in file order (CSV)."""
        numbers = []
        for name, value in row.values.items():
            if name in (self.truth, "id"):
                continue
            try:
                number = float(value)
            except (TypeError, ValueError):
                row.fail(f"{name} is not a number")
            if not math.isfinite(number):
                row.fail(f"{name} is not finite")
            numbers.append(number)
        if not numbers:
            row.fail("has no input")
        return numbers


class Classification(_Inputs):
    """Accuracy, F1 (macro over the classes that occur), and top-5 where scores are given."""

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._pairs: list[tuple[str, str]] = []  # (truth, found)
        self._top5 = 0
        self._classes = 0  # of a scores output

    def truth_of(self, row: Row) -> str:
        value = row.values.get(self.truth)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            row.fail(f"{self.truth} is not a class name or number")
        names = self.io.post.labels if self.io.post is not None else ()
        if names and str(value) not in names:
            row.fail(f"{self.truth} {str(value)[:40]!r} is none of the model's")
        return str(value)

    def take(self, rows: Sequence[Row], answer: dict[str, Any]) -> None:
        if "labels" in answer:
            found = [entry["label"] for entry in answer["labels"]]
        else:
            found = [self._best(row, scores) for row, scores in zip(rows, _outputs(answer), strict=True)]
        self._pairs += zip((self.truth_of(row) for row in rows), found, strict=True)

    def _best(self, row: Row, scores: Any) -> str:
        """The best class of a vector of scores; a single number is the class itself."""
        if not isinstance(scores, list):
            return str(scores)
        if not scores or not all(isinstance(score, (int, float)) for score in scores):
            raise SealpackError("ENGINE_FAILED", "the answer is not one vector of scores per row")
        ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
        self._classes = len(scores)
        self._top5 += self.truth_of(row) in map(str, ranked[:5])
        return str(ranked[0])

    def figures(self) -> tuple[Metric, ...]:
        n = len(self._pairs)
        right = Counter(truth for truth, found in self._pairs if truth == found)
        truths = Counter(truth for truth, _ in self._pairs)
        founds = Counter(found for _, found in self._pairs)
        classes = sorted(truths.keys() | founds.keys())
        f1 = [2 * right[c] / (truths[c] + founds[c]) for c in classes]
        accuracy = right.total() / n
        usual = [count / n for _, count in truths.most_common(5)]
        usual_f1 = 2 * usual[0] / (1 + usual[0]) / len(truths)
        made = [
            higher("accuracy", accuracy, n, usual[0]),
            higher("f1_macro", math.fsum(f1) / len(f1), n, usual_f1),
            higher("f1_micro", accuracy, n, usual[0]),  # equal where every row has exactly one class
        ]
        if self._classes > 5:
            made.append(higher("top5_accuracy", self._top5 / n, n, math.fsum(usual)))
        return tuple(made)


def _outputs(answer: dict[str, Any]) -> list[Any]:
    (rows,) = answer["outputs"].values()
    return list(rows)


class Regression(_Inputs):
    """Mean absolute and root mean square error over every number of the output."""

    truth = "target"

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._errors: list[float] = []
        self._wanted: list[float] = []

    def truth_of(self, row: Row) -> list[float]:
        return _numbers(row, row.values.get(self.truth))

    def take(self, rows: Sequence[Row], answer: dict[str, Any]) -> None:
        for row, output in zip(rows, _outputs(answer), strict=True):
            wanted, found = self.truth_of(row), _numbers(row, output)
            if len(wanted) != len(found):
                row.fail(f"{self.truth} has {len(wanted)} numbers, the model gives {len(found)}")
            self._errors += [a - b for a, b in zip(wanted, found, strict=True)]
            self._wanted += wanted

    def figures(self) -> tuple[Metric, ...]:
        n = len(self._errors)
        middle, mean = median(self._wanted), math.fsum(self._wanted) / n
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in self._wanted) / n)
        return (
            lower("mae", math.fsum(map(abs, self._errors)) / n, n,
                  math.fsum(abs(x - middle) for x in self._wanted) / n),
            lower("rmse", math.sqrt(math.fsum(e * e for e in self._errors) / n), n, spread),
        )  # fmt: skip


def _numbers(row: Row, value: Any) -> list[float]:
    """A number, or nested lists of numbers, flat."""
    if isinstance(value, list):
        return [number for item in value for number in _numbers(row, item)]
    try:
        number = float(value)
    except (TypeError, ValueError):
        row.fail("target is not made of numbers")
    if not math.isfinite(number):
        row.fail("target is not finite")
    return [number]


class _Texts(Measure):
    """Measures over embeddings of the named texts of a row; one call embeds them all."""

    names: tuple[str, ...] = ()

    def call(self, rows: Sequence[Row]) -> Call:
        return Embed(tuple(row.text(name) for row in rows for name in self.names))

    def take(self, rows: Sequence[Row], answer: dict[str, Any]) -> None:
        vectors, width = answer["embeddings"], len(self.names)
        for index, row in enumerate(rows):
            self.keep(row, vectors[index * width : (index + 1) * width])

    @abstractmethod
    def keep(self, row: Row, vectors: list[list[float]]) -> None:
        """Keep what is needed of one row's vectors."""


class Retrieval(_Texts):
    """Each query against every positive of the file: is its own the nearest?"""

    names = ("query", "positive")

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._queries: list[list[float]] = []
        self._positives: list[list[float]] = []
        self._texts: list[str] = []

    def keep(self, row: Row, vectors: list[list[float]]) -> None:
        if len(self._queries) == _RETRIEVED:
            row.fail(f"retrieval ranks at most {_RETRIEVED:,} rows; use --limit")
        self._queries.append(vectors[0])
        self._positives.append(vectors[1])
        self._texts.append(row.text("positive"))

    def figures(self) -> tuple[Metric, ...]:
        ranks = list(self._ranks())
        n, choices = len(ranks), len(set(self._texts))
        by_chance = math.fsum(1 / rank for rank in range(1, choices + 1)) / choices
        return (
            higher("retrieval_top1", sum(rank == 1 for rank in ranks) / n, n, 1 / choices),
            higher("retrieval_top5", sum(rank <= 5 for rank in ranks) / n, n, min(5, choices) / choices),
            higher("mrr", math.fsum(1 / rank for rank in ranks) / n, n, by_chance),
        )

    def _ranks(self) -> list[int]:
        """1 + how many other texts are nearer or as near; a row with the same positive is no rival."""
        import numpy as np

        queries, positives = (_unit(np.array(v, np.float64)) for v in (self._queries, self._positives))
        _, group = np.unique(np.array(self._texts), return_inverse=True)
        ranks = []
        for index, query in enumerate(queries):
            near = positives @ query
            rivals = (near >= near[index]) & (group != group[index])
            ranks.append(1 + len(np.unique(group[rivals])))
        return ranks


def _unit(vectors: Any) -> Any:
    import numpy as np

    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


class Triplets(_Texts):
    """Is the query nearer to the positive than to the negative?"""

    names = ("query", "positive", "negative")

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._right: list[bool] = []

    def keep(self, row: Row, vectors: list[list[float]]) -> None:
        query, positive, negative = vectors
        self._right.append(cosine(query, positive) > cosine(query, negative))

    def figures(self) -> tuple[Metric, ...]:
        n = len(self._right)
        return (higher("triplet_accuracy", sum(self._right) / n, n, 0.5),)


class Similarity(_Texts):
    """Rank correlation (Spearman) between cosine similarity and the scores people gave."""

    names = ("a", "b")

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._pairs: list[tuple[float, float]] = []

    def call(self, rows: Sequence[Row]) -> Call:
        for row in rows:
            _score(row)
        return super().call(rows)

    def keep(self, row: Row, vectors: list[list[float]]) -> None:
        self._pairs.append((cosine(*vectors), _score(row)))

    def figures(self) -> tuple[Metric, ...]:
        found, given = (_rank([pair[i] for pair in self._pairs]) for i in (0, 1))
        n = len(self._pairs)
        mean = (n + 1) / 2
        squares = [math.fsum((rank - mean) ** 2 for rank in ranks) for ranks in (found, given)]
        spread = math.sqrt(squares[0] * squares[1])
        if not spread:
            raise SealpackError("INPUT_INVALID", "all pairs have one score: there is nothing to correlate")
        together = math.fsum((x - mean) * (y - mean) for x, y in zip(found, given, strict=True))
        return (higher("spearman", together / spread, n, 0),)


def _score(row: Row) -> float:
    try:
        number = float(row.values["score"])
    except (TypeError, ValueError, KeyError):
        row.fail("score is not a number")
    if not math.isfinite(number):
        row.fail("score is not finite")
    return number


def _rank(values: list[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for index in order[start : end + 1]:
            ranks[index] = (start + end) / 2 + 1
        start = end + 1
    return ranks


class Perplexity(Measure):
    """How well the model predicts the tokens of a text, in windows of its context."""

    batched = False

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._logprob, self._tokens = 0.0, 0

    def call(self, rows: Sequence[Row]) -> Call:
        return Score(rows[0].text("text"))

    def take(self, rows: Sequence[Row], answer: dict[str, Any]) -> None:
        self._logprob += answer["logprob"]
        self._tokens += answer["tokens"]

    def figures(self) -> tuple[Metric, ...]:
        nats, n = -self._logprob / self._tokens, self._tokens
        choices = self.vocabulary
        return (
            lower("bits_per_token", nats / math.log(2), n, choices and math.log2(choices), "bit"),
            lower("perplexity", math.exp(min(nats, 700.0)), n, choices),
        )


class Completion(Measure):
    """Does the greedy continuation of the prompt begin with exactly the expected text?"""

    batched = False

    def __init__(self, *model: Any) -> None:
        super().__init__(*model)
        self._right: list[bool] = []

    def call(self, rows: Sequence[Row]) -> Call:
        row = rows[0]
        row.text("expect")
        limit = row.values.get("max_tokens", _GENERATED)
        if isinstance(limit, str) and limit.isdigit():  # a CSV has only texts
            limit = int(limit)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MAX_GENERATED:
            row.fail(f"max_tokens is not 1 to {_MAX_GENERATED}")
        return Generate(row.text("prompt"), limit)

    def take(self, rows: Sequence[Row], answer: dict[str, Any]) -> None:
        self._right.append(answer["text"].strip().startswith(rows[0].text("expect").strip()))

    def figures(self) -> tuple[Metric, ...]:
        n = len(self._right)
        return (higher("exact_match", sum(self._right) / n, n, 0),)


# Measure -> (the class, the model's tasks it fits, the fields its rows have besides an input).
MEASURES: dict[str, tuple[type[Measure], tuple[str, ...], tuple[str, ...]]] = {
    "classification": (Classification, ("classification", "tensor"), ("label",)),
    "regression": (Regression, ("tensor",), ("target",)),
    "triplets": (Triplets, ("embedding",), Triplets.names),
    "retrieval": (Retrieval, ("embedding",), Retrieval.names),
    "similarity": (Similarity, ("embedding",), ("a", "b", "score")),
    "completion": (Completion, ("text-generation",), ("prompt", "expect")),
    "perplexity": (Perplexity, ("text-generation",), ("text",)),
}


def choose(
    wanted: str | None, io: ModelIo, inputs: tuple[str, ...], data: Data, vocabulary: int | None = None
) -> Measure:
    """The measure that was asked for, else the first that fits model and data; USAGE says what would."""
    fitting = {name: row for name, row in MEASURES.items() if io.task in row[1]}
    if wanted is not None:
        if wanted not in fitting:
            raise SealpackError("USAGE", f"a model for {io.task} is evaluated by {', '.join(fitting)}")
        return fitting[wanted][0](io, inputs, vocabulary)
    for made, _, fields in fitting.values():
        if set(fields) <= set(data.rows[0].values):
            return made(io, inputs, vocabulary)
    rules = "; ".join(f"{name}: {', '.join(fields)}" for name, (_, _, fields) in fitting.items())
    raise SealpackError(
        "INPUT_INVALID",
        f"{data.rows[0].place} has {', '.join(data.fields[:8])}, which fits no measure of {io.task}",
        remedy=f"name the fields of each row ({rules})",
    )
