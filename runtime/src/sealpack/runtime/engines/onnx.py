"""ONNX models through ONNX Runtime, from verified memory only, decrypted there if need be.

Source: specs/manifest.md (`io`). The graph is passed as bytes and its external data as read-only maps
of the store's copy; the file system is never asked for a name that stands in the model. Pre-processing
is `wordpiece` (texts) or `tensor` (numbers per input); post-processing is `embedding`, `labels` or
`tensor`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

# The wheels ship with telemetry switched on, and only this, before the first import, keeps it off.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort

from sealpack.format.errors import SealpackError
from sealpack.format.io import ModelIo, Post, Pre
from sealpack.runtime.engines.base import (
    Call,
    Description,
    Embed,
    Generate,
    Infer,
    OnToken,
    Options,
    Prepared,
    Result,
    Score,
    Usage,
    VerifiedModel,
    check_header,
    check_texts,
    wrong_task,
)
from sealpack.runtime.engines.cpu import choose_threads
from sealpack.runtime.engines.wordpiece import WordPiece

_BATCH = 32  # texts per run; bounds the padding and the activations
_TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_NO_FILES = "/dev/null"  # as external data folder: every path below it fails to open
_TYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxEngine:
    """Loads bundles of kind `onnx`."""

    def load(self, model: VerifiedModel, options: Options) -> OnnxSession:
        """Build a session; ENGINE_FAILED when ONNX Runtime refuses the model."""
        threads = choose_threads(options.threads)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FILES)
        external = _external_data(model)
        if external:
            settings.add_external_initializers_from_files_in_memory(
                list(external), list(external.values()), [len(v) for v in external.values()]
            )
        graph = model.read(model.model)
        if model.model in model.decrypted:
            check_header(model, io.BytesIO(graph))
        try:
            session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises a dozen types with no common base
            raise _failed(f"{model.name or model.model} could not be loaded", error) from None
        return OnnxSession(session, model, threads, external)


def _check_io(io: ModelIo, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Pre, Post]:
    """MANIFEST_INVALID where `io` asks for what the graph has not: every call would fail, and be billed."""

    def refuse(problem: str) -> NoReturn:
        raise SealpackError("MANIFEST_INVALID", f"manifest.io does not fit the model: {problem}")

    if io.pre is None or io.post is None:
        refuse("an ONNX model needs pre and post")
    if io.post.output not in outputs:
        refuse(f"there is no output {io.post.output}, only {', '.join(outputs)}")
    unfed = set(inputs) - set(_TOKEN_INPUTS)
    if io.pre.kind == "wordpiece" and unfed:
        refuse(f"a tokenizer does not fill {', '.join(sorted(unfed))}")
    if io.pre.kind == "tensor" and not inputs:
        refuse("the model takes no input")
    shape = outputs[io.post.output].shape
    last = shape[-1] if shape else None
    if io.post.kind == "labels" and isinstance(last, int) and last != len(io.post.labels):
        refuse(f"{len(io.post.labels)} labels are named, the model has {last}")
    return io.pre, io.post


def _external_data(model: VerifiedModel) -> dict[str, memoryview]:
    folder = model.model.rpartition("/")[0] + "/"
    return {path.removeprefix(folder): model.view(path) for path in model.with_role("model-data")}


def _failed(what: str, error: Exception) -> SealpackError:
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    return SealpackError("ENGINE_FAILED", f"{what}: {reason}")


class OnnxSession:
    """A loaded ONNX model; see :class:`sealpack.runtime.engines.base.Session`."""

    def __init__(
        self, session: Any, model: VerifiedModel, threads: int, keep: Mapping[str, memoryview]
    ) -> None:
        self._session = session
        self._keep = keep  # ONNX Runtime may read these maps as long as the session lives
        self._threads = threads
        self._io = model.io
        self._inputs = {i.name: i for i in session.get_inputs()}
        self._outputs = {o.name: o for o in session.get_outputs()}
        pre, self._post = _check_io(model.io, self._inputs, self._outputs)
        self._max_tokens = pre.max_tokens
        self._words: WordPiece | None = None
        if pre.vocab is not None:
            self._words = WordPiece.from_vocab(model.read(pre.vocab), lower=pre.lower)

    def describe(self) -> Description:
        """Engine, version, and the model's own input and output names."""
        return Description(
            "onnxruntime",
            ort.__version__,
            self._io.task,
            self._threads,
            tuple(self._inputs),
            tuple(self._outputs),
        )

    def prepare(self, call: Call) -> Prepared:
        """Tokenise or convert the inputs; INPUT_INVALID names what does not fit."""
        match call:
            case Embed(texts=texts) if self._words is not None:
                return self._prepare_texts(texts, self._words)
            case Infer(inputs=inputs) if self._words is None:
                return self._prepare_tensors(inputs)
            case Embed() | Infer() | Generate() | Score():
                raise wrong_task(self._io, call)

    def close(self) -> None:
        """Free the model."""
        self._session = None
        self._keep = {}

    def _prepare_texts(self, texts: tuple[str, ...], words: WordPiece) -> Prepared:
        check_texts(texts)
        ids = [words.encode(text, self._max_tokens) for text in texts]
        used = Usage(tok_in=sum(map(len, ids)), items=len(ids))

        def run(_: OnToken | None) -> Result:
            rows = [row for batch in _batches(ids) for row in self._run_ids(batch, words)]
            return Result(self._answer(rows), used)

        return Prepared(used, run)

    def _run_ids(self, ids: list[list[int]], words: WordPiece) -> list[Any]:
        width = max(map(len, ids))
        tokens = np.full((len(ids), width), words.pad, np.int64)
        mask = np.zeros_like(tokens)
        for row, sequence in enumerate(ids):
            tokens[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        feed = dict(zip(_TOKEN_INPUTS, (tokens, mask, mask * 0), strict=True))
        return self._run({name: feed[name] for name in self._inputs})

    def _prepare_tensors(self, inputs: Mapping[str, Any]) -> Prepared:
        unknown = sorted(set(inputs) ^ set(self._inputs))
        if unknown:
            raise SealpackError(
                "INPUT_INVALID",
                f"inputs are {', '.join(self._inputs)}; missing or unknown: {', '.join(unknown)}",
            )
        feed = {name: _tensor(self._inputs[name], value) for name, value in inputs.items()}
        used = Usage(items=_rows(self._inputs, feed))
        return Prepared(used, lambda _: Result(self._answer(self._run(feed)), used))

    def _run(self, feed: Mapping[str, Any]) -> list[Any]:
        try:
            (output,) = self._session.run([self._post.output], feed)
        except Exception as error:
            raise _failed("the model could not be run", error) from None
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "biuf":
            raise SealpackError("ENGINE_FAILED", f"output {self._post.output} is not an array of numbers")
        return list(np.atleast_1d(output))

    def _answer(self, rows: list[Any]) -> dict[str, Any]:
        post = self._post
        if post.kind == "tensor":
            return {"outputs": {post.output: [_plain(row) for row in rows]}}
        if not all(np.isfinite(row).all() for row in rows):
            raise SealpackError("ENGINE_FAILED", f"output {post.output} holds a value that is not finite")
        if post.kind == "embedding":
            if any(row.ndim != 1 for row in rows):
                raise SealpackError("ENGINE_FAILED", f"output {post.output} is not one vector per text")
            return {"embeddings": [row.tolist() for row in rows]}
        return {"labels": [_label(row, post.labels, post.softmax) for row in rows]}


def _rows(declared: Mapping[str, Any], feed: Mapping[str, Any]) -> int:
    """How many rows a call has: the longest first dimension that the model leaves open, else its first.

    Never by the order of the caller's inputs, which is the caller's to choose.
    """
    inputs = [(entry.shape[0], feed[name].shape[0]) for name, entry in declared.items() if entry.shape]
    given = [have for want, have in inputs if not isinstance(want, int)]
    return max(given, default=inputs[0][1] if inputs else 1)


def _plain(row: Any) -> Any:
    """Nested lists of numbers; null where a number is infinite or none, which JSON cannot carry."""
    finite = np.isfinite(row)
    if finite.all():
        return row.tolist()
    kept = np.array(row, object)
    kept[~finite] = None
    return kept.tolist()


def _batches(ids: list[list[int]]) -> Iterator[list[list[int]]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def _label(row: Any, names: tuple[str, ...], softmax: bool) -> dict[str, Any]:
    scores = np.asarray(row, np.float64).ravel()
    if len(scores) != len(names):
        raise SealpackError(
            "MANIFEST_INVALID", f"manifest names {len(names)} labels, the model has {len(scores)}"
        )
    if softmax:
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    best = int(scores.argmax())
    return {"label": names[best], "probability": round(float(scores[best]), 6)}


def _tensor(declared: Any, value: Any) -> Any:
    dtype = _TYPES.get(declared.type)

    def refuse(problem: str) -> NoReturn:
        raise SealpackError("INPUT_INVALID", f"input {declared.name} {problem}")

    if dtype is None:
        refuse(f"has type {declared.type}, which JSON cannot carry")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            refuse("is not an array of numbers")
        with np.errstate(all="ignore"):
            converted = array.astype(dtype)
    except (ValueError, OverflowError, TypeError):
        refuse("is not a rectangular array of numbers")
    if not np.isfinite(array).all() or not np.isfinite(converted).all():
        refuse(f"holds a value that is not finite as {declared.type}")
    if np.dtype(dtype).kind in "biu" and not np.array_equal(converted, array):
        refuse(f"holds a value that {declared.type} cannot")
    expected = declared.shape
    fits = array.ndim == len(expected) and all(
        not isinstance(want, int) or want == have for want, have in zip(expected, array.shape, strict=True)
    )
    if not fits or 0 in array.shape:
        refuse(f"has shape {list(array.shape)}, the model takes {expected}")
    return converted
