"""A classifier of handwritten digits, trained in a second on data that scikit-learn carries.

1,797 images of 8 x 8 pixels, 0 to 16 (UCI ML hand-written digits; CC BY 4.0). A quarter is held out
and never trained on; the accuracy is that on the held-out quarter, whatever it comes to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealpack.builder.demo import graph
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write

_SEED = 20
_HELD_OUT = 450
_HIDDEN = 64
_STEPS = 200
_RATE = 0.01
_DECAY = 1e-3  # of weights, per step and rate
LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, slots=True)
class DigitsReport:
    """What the training came to. `per_digit` holds (right, shown) of the held-out images."""

    n_train: int
    n_test: int
    correct: int
    per_digit: tuple[tuple[int, int], ...]
    parameters: int

    @property
    def accuracy(self) -> str:
        """Share of held-out images told right, as a decimal of four places: signed documents
        hold no floats."""
        scaled = (self.correct * 20000 + self.n_test) // (2 * self.n_test)
        return f"{scaled // 10000}.{scaled % 10000:04}"


@dataclass(frozen=True, slots=True)
class _Split:
    """float32 images [n, 64] and int64 labels [n]; `test_rows` number the images in the data."""

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any
    test_rows: Any


def _split() -> _Split:
    import numpy as np

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        command = "pip install scikit-learn"
        raise SealpackError(
            "EXTRA_MISSING", f"the digits data is not installed: run `{command}`", remedy=command
        ) from None
    x, y = load_digits(return_X_y=True)
    x, y = x.astype(np.float32), y.astype(np.int64)
    order = np.random.default_rng(_SEED).permutation(len(x))
    train, test = order[_HELD_OUT:], np.sort(order[:_HELD_OUT])
    return _Split(x[train], y[train], x[test], y[test], test)


def _train(x: Any, y: Any) -> dict[str, Any]:
    """Fit 64 -> 64 -> 10 with Adam on whole batches; deterministic. `x` is scaled to 0..1."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    weights = {
        "w1": rng.normal(0, 64**-0.5, (64, _HIDDEN)).astype(np.float32),
        "b1": np.zeros(_HIDDEN, np.float32),
        "w2": rng.normal(0, _HIDDEN**-0.5, (_HIDDEN, 10)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }
    mean = {name: np.zeros_like(w) for name, w in weights.items()}
    square = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(1, _STEPS + 1):
        for name, slope in _slopes(weights, x, y).items():
            mean[name] = 0.9 * mean[name] + 0.1 * slope
            square[name] = 0.999 * square[name] + 0.001 * slope**2
            move = mean[name] / (1 - 0.9**step)
            move /= np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8
            weights[name] -= np.float32(_RATE) * (move + _DECAY * weights[name])
    return weights


def _slopes(weights: dict[str, Any], x: Any, y: Any) -> dict[str, Any]:
    """Gradients of the mean cross-entropy."""
    import numpy as np

    hidden = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    scores = hidden @ weights["w2"] + weights["b2"]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    shares /= len(y)
    back = (shares @ weights["w2"].T) * (hidden > 0)
    return {"w1": x.T @ back, "b1": back.sum(0), "w2": hidden.T @ shares, "b2": shares.sum(0)}


def _model(weights: dict[str, Any], accuracy: str) -> Any:
    import numpy as np

    g = graph.Graph()
    for name, value in weights.items():
        g.constant(name, value)
    scaled = g.op("Mul", ["pixels", g.constant("sixteenth", np.float32(1 / 16))], "scaled")
    hidden = g.op("Relu", [g.op("Gemm", [scaled, "w1", "b1"], "hidden_sum")], "hidden")
    scores = g.op("Gemm", [hidden, "w2", "b2"], "scores")
    g.op("Softmax", [scores], "probabilities", axis=-1)
    g.op("ArgMax", [scores], "label", axis=-1, keepdims=0)
    props = {
        "name": "digits",
        "author": "Sealpack",
        "license": "Apache-2.0",
        "task": "image-classification",
        "description": f"Tells handwritten digits of 8 x 8 pixels apart; {accuracy} on images "
        "held out of the UCI digits data that scikit-learn carries.",
    }
    outputs: dict[str, tuple[str, list[Any]]] = {
        "probabilities": ("FLOAT", ["batch", 10]),
        "label": ("INT64", ["batch"]),
    }
    return g.model("digits", {"pixels": ("FLOAT", ["batch", 64])}, outputs, props)


def make_onnx(out_path: Path) -> DigitsReport:
    """Train, write ONNX, and report the held-out accuracy.

    Input `pixels`: float32 [batch, 64], rows of an 8 x 8 image, 0 (white) to 16 (black). Outputs
    `probabilities`: float32 [batch, 10]; `label`: int64 [batch].
    """
    import numpy as np

    data = _split()
    weights = _train(data.train_x / 16, data.train_y)
    hidden = np.maximum(data.test_x / 16 @ weights["w1"] + weights["b1"], 0)
    right = (hidden @ weights["w2"] + weights["b2"]).argmax(1) == data.test_y
    per_digit = tuple((int(right[data.test_y == d].sum()), int((data.test_y == d).sum())) for d in range(10))
    report = DigitsReport(
        n_train=len(data.train_y),
        n_test=len(data.test_y),
        correct=int(right.sum()),
        per_digit=per_digit,
        parameters=sum(int(w.size) for w in weights.values()),
    )
    graph.save(_model(weights, report.accuracy), out_path)
    return report


def write_samples(out_path: Path, count: int | None = None) -> int:
    """Write labelled held-out images as JSON lines, the first `count` or all; return how many.

    A line is {"id": "digits-<row in the data>", "input": {"pixels": [64 integers]}, "label": "7"}.
    """
    data = _split()
    rows = list(zip(data.test_rows, data.test_x, data.test_y, strict=True))[:count]
    lines = [
        json.dumps(
            {
                "id": f"digits-{row:04}",
                "input": {"pixels": [int(pixel) for pixel in pixels]},
                "label": LABELS[label],
            }
        )
        for row, pixels, label in rows
    ]
    atomic_write(out_path, "".join(line + "\n" for line in lines).encode())
    return len(lines)
