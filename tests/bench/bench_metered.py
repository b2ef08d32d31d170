"""A metered call (admission, reservation, inference, durable receipt) against a bare session.run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

Row = tuple[str, list[float], list[float]]


def measure(folder: Path, rounds: int) -> list[Row]:
    """Seconds per call, ours and bare, for a tiny and for a real model; one thread each."""
    from support.site import Site
    from support.world import make_trust

    from sealpack.builder.demo import models

    models.make_digits_onnx(folder / "digits.onnx")
    models.make_minilm_onnx(folder / "minilm.onnx")
    models.copy_minilm_vocab(folder / "vocab.txt")
    site = Site(folder, {}, make_trust()).pin()
    site.install("digits", **_digits(folder))
    site.install("minilm", **_minilm(folder))
    site.activate(_license())
    return [
        ("metered call vs bare session.run, digits (tiny)", *_pair(site, folder, "digits", 200, rounds)),
        ("metered call vs bare session.run, MiniLM, 8 words", *_pair(site, folder, "minilm", 20, rounds)),
    ]


def _license() -> Any:
    from support.site import make_license

    from sealpack.format.license import BundleGrant

    return make_license(bundles=(BundleGrant("acme/digits"), BundleGrant("acme/minilm")))


def _digits(folder: Path) -> dict[str, Any]:
    labels = [str(n) for n in range(10)]
    io = {"task": "classification", "pre": {"kind": "tensor"},
          "post": {"kind": "labels", "output": "probabilities", "labels": labels}}  # fmt: skip
    return _onnx(folder / "digits.onnx", io, {})


def _minilm(folder: Path) -> dict[str, Any]:
    vocabulary = (folder / "vocab.txt").read_bytes()
    io = {"task": "embedding", "pre": {"kind": "wordpiece", "vocab": "payload/vocab.txt"},
          "post": {"kind": "embedding", "output": "sentence_embedding"}}  # fmt: skip
    return _onnx(folder / "minilm.onnx", io, {"payload/vocab.txt": ("vocabulary", "text/plain", vocabulary)})


def _onnx(model: Path, io: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "onnx", "model_name": "payload/model.onnx", "model": model.read_bytes(), "io": io,
            "extra": extra, "engine": {"name": "onnxruntime"}}  # fmt: skip


def _pair(site: Any, folder: Path, name: str, calls: int, rounds: int) -> tuple[list[float], list[float]]:
    """Alternating batches of calls; seconds per call of each batch."""
    import sealpack.runtime

    runtime = sealpack.runtime.open(f"acme/{name}", state=site.state_dir, threads=1)
    metered = _metered(runtime, name)
    bare = _bare(folder / f"{name}.onnx", name)
    ours, peer = [], []
    try:
        for _ in range(rounds):
            ours.append(_seconds(metered, calls))
            peer.append(_seconds(bare, calls))
    finally:
        runtime.close()
    return ours, peer


def _metered(runtime: Any, name: str) -> Callable[[], object]:
    if name == "digits":
        pixels = {"pixels": [[0.0] * 64]}
        return lambda: runtime.infer(pixels)
    return lambda: runtime.embed(["a patient has a high fever tonight"])


def _bare(path: Path, name: str) -> Callable[[], object]:
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    if name == "digits":
        feed = {"pixels": np.zeros((1, 64), np.float32)}
    else:
        ids = np.array([[101, 1037, 5776, 2038, 1037, 2152, 9016, 3892, 102]], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return lambda: session.run(None, feed)


def _seconds(call: Callable[[], object], count: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
