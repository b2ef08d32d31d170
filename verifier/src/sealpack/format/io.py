"""How a model is fed and read: the manifest's `io` member.

Source: specs/manifest.md, "io". The creator declares the task, what happens before and after the engine,
and samples with their expected answers, so that the runtime needs no code from the bundle and a customer
can check an installation. Numbers that are not integers are decimal strings: signed JSON has no floats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sealpack.format.fields import Fields

TASKS = ("text-generation", "embedding", "classification", "tensor")
PRE = ("wordpiece", "tensor")
POST = ("embedding", "labels", "tensor")
EMBEDDING_ARCHITECTURES = ("bert", "nomic-bert", "jina-bert-v2", "t5encoder")
DECIMAL = r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?"


@dataclass(frozen=True, slots=True)
class Pre:
    """Before the engine: `wordpiece` turns text into token ids by a vocabulary file; `tensor` is numbers."""

    kind: str
    vocab: str | None = None
    lower: bool = True
    max_tokens: int = 512

    @classmethod
    def parse(cls, f: Fields) -> Pre:
        """Read one; wordpiece needs its vocabulary."""
        kind = f.choice("kind", PRE)
        vocab = f.text("vocab") if kind == "wordpiece" else None
        return cls(
            kind,
            vocab,
            f.boolean("lower", default=True),
            f.integer("max_tokens", lo=2, hi=65536, default=512),
        )


@dataclass(frozen=True, slots=True)
class Post:
    """After the engine: which output is the answer, and whether it is a vector, labels or plain numbers."""

    kind: str
    output: str
    labels: tuple[str, ...] = ()
    softmax: bool = False

    @classmethod
    def parse(cls, f: Fields) -> Post:
        """Read one; labels need their names."""
        kind = f.choice("kind", POST)
        labels = f.texts("labels", max_items=100_000) if kind == "labels" else ()
        return cls(kind, f.text("output"), labels, f.boolean("softmax", default=False))


@dataclass(frozen=True, slots=True)
class Expect:
    """What a sample's answer must be; exactly one of the members is given.

    `text`: the generated text, to the character (greedy). `label`: the best label. `embedding`: the
    vector's leading numbers, each within `tolerance`. `near`: a text whose embedding has at least
    `cosine` similarity.
    """

    text: str | None = None
    label: str | None = None
    embedding: tuple[str, ...] | None = None
    tolerance: str = "0.001"
    near: str | None = None
    cosine: str = "0.5"

    @classmethod
    def parse(cls, f: Fields) -> Expect:
        """Read one."""
        if sum(name in f for name in ("text", "label", "embedding", "near")) != 1:
            raise f.fail("text", "or label, embedding or near: exactly one is needed")
        return cls(
            f.text("text", default=None),
            f.text("label", default=None),
            f.texts("embedding", pattern=DECIMAL, default=None),
            f.text("tolerance", pattern=DECIMAL, default="0.001"),
            f.text("near", default=None),
            f.text("cosine", pattern=DECIMAL, default="0.5"),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One input with its expected answer. `inputs` maps names to nested lists of integers or decimals."""

    expect: Expect
    prompt: str | None = None
    max_tokens: int = 32
    text: str | None = None
    inputs: dict[str, Any] | None = None

    @classmethod
    def parse(cls, f: Fields) -> Sample:
        """Read one; exactly one of prompt, text and inputs."""
        given = f.sub("input")
        if sum(name in given for name in ("prompt", "text", "inputs")) != 1:
            raise f.fail("input", "needs exactly one of prompt, text, inputs")
        inputs = given.sub("inputs", default=None)
        return cls(
            Expect.parse(f.sub("expect")),
            given.text("prompt", default=None),
            given.integer("max_tokens", lo=1, hi=4096, default=32),
            given.text("text", default=None),
            None if inputs is None else given.raw("inputs"),
        )


@dataclass(frozen=True, slots=True)
class ModelIo:
    """A parsed `io`. `pre` and `post` are absent where the engine does both itself (GGUF)."""

    task: str
    pre: Pre | None = None
    post: Post | None = None
    samples: tuple[Sample, ...] = ()

    @classmethod
    def parse(cls, f: Fields) -> ModelIo:
        """Read one."""
        pre, post = f.sub("pre", default=None), f.sub("post", default=None)
        return cls(
            f.choice("task", TASKS),
            Pre.parse(pre) if pre else None,
            Post.parse(post) if post else None,
            f.objects("samples", Sample.parse, max_items=256, default=()),
        )


def complete(
    declared: Mapping[str, Any], kind: str, architecture: str | None, outputs: Sequence[str]
) -> dict[str, Any]:
    """`io` as a manifest has it: what the creator declared, and defaults from the model where silent.

    `declared` holds any of task, pre, post and samples; `kind` is onnx or gguf; `outputs` are the model's.
    """
    task = declared.get("task") or _default_task(kind, architecture, EMBEDDING_ARCHITECTURES)
    member: dict[str, Any] = {"task": task}
    pre, post, samples = (declared.get(name) for name in ("pre", "post", "samples"))
    if kind == "onnx":
        member["pre"] = dict(pre or {"kind": "tensor"})
        member["post"] = {"kind": "tensor", "output": outputs[0] if outputs else ""} | dict(post or {})
    else:
        member |= {name: dict(part) for name, part in (("pre", pre), ("post", post)) if part}
    if samples:
        member["samples"] = [dict(sample) for sample in samples]
    return member


def _default_task(kind: str, architecture: str | None, embedding: Collection[str]) -> str:
    if kind == "onnx":
        return "tensor"
    return "embedding" if architecture in embedding else "text-generation"
