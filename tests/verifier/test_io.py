"""A manifest's `io`: what is left unsaid is taken from the model, what is said twice is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.io import EMBEDDING_ARCHITECTURES, Expect, ModelIo, Sample, complete

SAMPLE = {"input": {"prompt": "One, two,"}, "expect": {"text": " three"}}


def parse(member: dict[str, Any]) -> ModelIo:
    return ModelIo.parse(Fields(member, "io", "MANIFEST_INVALID"))


# --- defaults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "architecture", "task"),
    [("onnx", None, "tensor"), ("gguf", "llama", "text-generation"), ("gguf", None, "text-generation")]
    + [("gguf", name, "embedding") for name in EMBEDDING_ARCHITECTURES],
)
def test_the_model_says_the_task_where_the_creator_is_silent(
    kind: str, architecture: str | None, task: str
) -> None:
    made = complete({}, kind, architecture, ["y"])
    assert made["task"] == task == parse(made).task
    assert complete({"task": "classification"}, kind, architecture, ["y"])["task"] == "classification"


def test_onnx_models_are_fed_numbers_and_read_at_their_first_output() -> None:
    made = complete({}, "onnx", None, ["logits", "hidden"])
    assert made == {
        "task": "tensor",
        "pre": {"kind": "tensor"},
        "post": {"kind": "tensor", "output": "logits"},
    }
    assert complete({}, "onnx", None, [])["post"]["output"] == ""
    labels = {"kind": "labels", "labels": ["a", "b"]}
    assert complete({"post": labels}, "onnx", None, ["logits"])["post"] == {"output": "logits", **labels}
    given = {"pre": {"kind": "wordpiece", "vocab": "payload/vocab.txt"}, "post": {"output": "hidden"}}
    made = complete(given, "onnx", None, ["logits", "hidden"])
    assert made["pre"] == given["pre"]
    assert made["post"] == {"kind": "tensor", "output": "hidden"}


def test_gguf_models_need_no_word_on_either_side() -> None:
    assert complete({}, "gguf", "llama", []) == {"task": "text-generation"}
    declared = {"post": {"kind": "embedding", "output": "x"}, "samples": [SAMPLE]}
    made = complete(declared, "gguf", "bert", [])
    assert made == {"task": "embedding", **declared}
    read = parse(made)
    assert read.pre is None and read.post is not None and read.post.kind == "embedding"
    assert read.samples == (Sample(Expect(text=" three"), prompt="One, two,"),)


def test_what_was_declared_is_copied() -> None:
    declared = {"samples": [dict(SAMPLE)]}
    made = complete(declared, "gguf", "llama", [])
    made["samples"][0]["input"] = {}
    assert declared == {"samples": [SAMPLE]}


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "told"),
    [
        ({}, "io.task is missing"),
        ({"task": "oracle"}, "io.task is 'oracle'"),
        ({"task": "embedding", "pre": {"kind": "wordpiece"}}, "io.pre.vocab is missing"),
        ({"task": "embedding", "pre": {"kind": "tensor", "max_tokens": 1}}, "io.pre.max_tokens is 1"),
        ({"task": "tensor", "post": {"kind": "tensor"}}, "io.post.output is missing"),
        ({"task": "tensor", "post": {"kind": "labels", "output": "y"}}, "io.post.labels is missing"),
        ({"task": "tensor", "samples": [{"input": {}, "expect": {"text": "x"}}]}, "exactly one of prompt"),
        (
            {"task": "tensor", "samples": [{"input": {"text": "a", "prompt": "b"}, "expect": {"text": "x"}}]},
            "exactly one of prompt",
        ),
        ({"task": "tensor", "samples": [{"input": {"text": "a"}, "expect": {}}]}, "exactly one is needed"),
        (
            {"task": "tensor", "samples": [{"input": {"text": "a"}, "expect": {"text": "b", "near": "c"}}]},
            "exactly one is needed",
        ),
        (
            {
                "task": "tensor",
                "samples": [{"input": {"text": "a"}, "expect": {"near": "b", "cosine": "1e3"}}],
            },
            "cosine has a value that is not allowed",
        ),
        ({"task": "tensor", "samples": [SAMPLE] * 257}, "more than 256 items"),
    ],
)
def test_faults_are_named(member: dict[str, Any], told: str) -> None:
    with pytest.raises(SealpackError, match=f"MANIFEST_INVALID.*{told}"):
        parse(member)
