"""From a model's kind to its engine: the one place that knows both engines, loaded when needed."""

from __future__ import annotations

import contextlib

from sealpack.format.errors import SealpackError
from sealpack.runtime.engines.base import Engine, Options, Session, VerifiedModel


def load(model: VerifiedModel, options: Options | None = None) -> Session:
    """Load a verified model with the engine of its kind; EXTRA_MISSING when that is not installed."""
    try:
        with contextlib.closing(model):
            return _engine(model.kind).load(model, options or Options())
    except ModuleNotFoundError as error:
        extra = "runtime-gguf" if model.kind == "gguf" else "runtime"
        raise SealpackError(
            "EXTRA_MISSING",
            f"{model.kind} models need {error.name}, which is not installed",
            remedy=f"pip install 'sealpack[{extra}]'",
        ) from None


def _engine(kind: str) -> Engine:
    if kind == "onnx":
        from sealpack.runtime.engines.onnx import OnnxEngine

        return OnnxEngine()
    if kind == "gguf":
        from sealpack.runtime.engines.llama import LlamaEngine

        return LlamaEngine()
    raise SealpackError("ENGINE_FAILED", f"no engine for a bundle of kind {kind!r}")
