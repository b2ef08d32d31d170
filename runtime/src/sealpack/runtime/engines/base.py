"""What every engine offers: load verified weights, prepare a call, run it, count it.

Source: specs/manifest.md (`io`). A call has two steps. `prepare` validates and tokenises and gives an
upper bound of what the call can use, so that the ledger reserves before anything is computed; a
refused input therefore costs nothing. `run` computes and returns what was really used, counted where
it happens.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from sealpack.format.errors import SealpackError
from sealpack.format.io import ModelIo
from sealpack.runtime.decrypt import DecryptedFile
from sealpack.verifier import content

MAX_TEXT = 4 << 20  # characters in one call, far beyond every context; more only costs time to refuse

# Called after every produced token with (text piece, tokens so far); False stops the generation.
OnToken = Callable[[str, int], bool]


@dataclass(frozen=True, slots=True)
class Span:
    """Where a verified file's bytes lie inside the store's bundle copy, in bytes, and its role.

    `fd` where they lie in a file of their own: a creator evaluates a model that is in no bundle yet.
    """

    offset: int
    size: int
    role: str = ""
    fd: int | None = None


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A bundle whose content was verified, open on the runtime's own read-only copy.

    `fd` stays open as long as the object is used; `files` maps manifest paths to their bytes;
    `model` is the path of the model file itself; `io` says how it is fed and read. `decrypted` holds the
    encrypted ones of `files`, which are read through it and verified as they are read.
    """

    fd: int
    kind: str
    model: str
    files: Mapping[str, Span]
    io: ModelIo
    name: str = ""
    decrypted: Mapping[str, DecryptedFile] = field(default_factory=dict)

    def span(self, path: str) -> Span:
        """The place of `path`; BUNDLE_INVALID when the bundle does not hold it."""
        try:
            return self.files[path]
        except KeyError:
            raise SealpackError("BUNDLE_INVALID", f"bundle has no file {path}") from None

    def read(self, path: str) -> bytes:
        """The bytes of a small file."""
        if path in self.decrypted:
            return self.decrypted[path].to_bytes()
        span = self.span(path)
        return os.pread(self._descriptor(span), span.size, span.offset)

    def _descriptor(self, span: Span) -> int:
        return self.fd if span.fd is None else span.fd

    def view(self, path: str) -> memoryview:
        """The bytes of a file mapped read-only, without copying them; of an encrypted one, in memory."""
        if path in self.decrypted:
            return self.decrypted[path].to_memory()
        span = self.span(path)
        if span.size == 0:
            return memoryview(b"")
        start = span.offset - span.offset % mmap.ALLOCATIONGRANULARITY
        length = span.offset + span.size - start
        mapped = mmap.mmap(self._descriptor(span), length, prot=mmap.PROT_READ, offset=start)
        return memoryview(mapped)[span.offset - start :]

    def close(self) -> None:
        """End decryption: an engine has loaded all it needs."""
        for file in self.decrypted.values():
            file.close()

    def with_role(self, role: str) -> list[str]:
        """The paths of the files with a role, in order."""
        return sorted(path for path, span in self.files.items() if span.role == role)


@dataclass(frozen=True, slots=True)
class Options:
    """How to load: `threads` None means the default of engines/cpu.py; `context` in tokens."""

    threads: int | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call uses, in base units; the ledger adds calls and ms."""

    tok_in: int = 0
    tok_out: int = 0
    items: int = 0


@dataclass(frozen=True, slots=True)
class Generate:
    """Continue `prompt` by at most `max_tokens` tokens; temperature 0 is greedy."""

    prompt: str
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Embed:
    """One embedding per text."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Infer:
    """Named inputs as nested lists of numbers."""

    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """How probable the model finds `text`: the sum of log-probabilities, and over how many tokens.

    A text longer than the context is cut into windows of its length; a window's first token is given.
    """

    text: str


Call = Generate | Embed | Infer | Score


@dataclass(frozen=True, slots=True)
class Result:
    """An answer: `value` is JSON-ready; `used` was counted; `cancelled` when the caller stopped it."""

    value: dict[str, Any]
    used: Usage
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that was checked but not computed; `bound` is the most it can use."""

    bound: Usage
    run: Callable[[OnToken | None], Result]


@dataclass(frozen=True, slots=True)
class Description:
    """What is loaded: engine name and version, task, threads, and the model's inputs and outputs."""

    engine: str
    version: str
    task: str
    threads: int
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """A loaded model. Not thread-safe: the runtime runs one call at a time."""

    def describe(self) -> Description:
        """What is loaded."""

    def prepare(self, call: Call) -> Prepared:
        """Check and bound a call; INPUT_INVALID, REQUEST_TOO_LARGE or FEATURE_NOT_LICENSED."""

    def close(self) -> None:
        """Free the model."""


class Engine(Protocol):
    """Loads one kind of model."""

    def load(self, model: VerifiedModel, options: Options) -> Session:
        """Load verified weights; ENGINE_FAILED or CPU_UNSUPPORTED."""


def check_texts(texts: tuple[str, ...]) -> None:
    """INPUT_INVALID without a text, REQUEST_TOO_LARGE for more than :data:`MAX_TEXT` characters in all."""
    if not texts:
        raise SealpackError("INPUT_INVALID", "there is no text to work on")
    length = sum(map(len, texts))
    if length > MAX_TEXT:
        raise SealpackError(
            "REQUEST_TOO_LARGE", f"the text has {length:,} characters, a call takes {MAX_TEXT:,}"
        )


def check_header(model: VerifiedModel, stream: BinaryIO) -> None:
    """What `verify` could not say of an encrypted model, before a parser sees `stream`, its plain bytes.

    MANIFEST_MISMATCH, MODEL_UNSAFE, MODEL_TRUNCATED.
    """
    sizes = {path: model.decrypted[path].size for path in model.with_role("model-data")}
    content.model_header(stream, 0, model.decrypted[model.model], model.kind, sizes)


OPTIONS: Mapping[str, str] = {"prompt": "--prompt TEXT", "text": "--text TEXT", "inputs": "--input FILE"}


def takes(io: ModelIo) -> str:
    """What a call gives the model: a `prompt`, `text`, or named `inputs`; a key of :data:`OPTIONS`."""
    if io.task == "text-generation":
        return "prompt"
    words = io.task == "embedding" or (io.pre is not None and io.pre.kind == "wordpiece")
    return "text" if words else "inputs"


def wrong_task(io: ModelIo, call: Call) -> SealpackError:
    """The error for a call that the bundle's task does not offer."""
    wanted = type(call).__name__.lower()
    return SealpackError(
        "INPUT_INVALID",
        f"this bundle's task is {io.task}, it cannot {wanted}",
        remedy=f"use {OPTIONS[takes(io)]}",
    )
