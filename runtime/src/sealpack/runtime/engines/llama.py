"""GGUF models through llama.cpp, loaded without a copy from inside the store's bundle.

llama.cpp maps the open bundle from the model's offset on; an encrypted model it reads through a stream that
decrypts (:mod:`.stdio`), into its own memory. The high-level binding only takes a path, so
while it is being constructed the one loader symbol it calls is replaced, under a lock, by one that
gives the model already loaded. Tokens are counted in the generation loop.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import io
import os
import threading
from collections.abc import Iterator
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _internals

from sealpack.format.errors import SealpackError
from sealpack.format.io import ModelIo
from sealpack.runtime.decrypt import DecryptedFile, PlainStream
from sealpack.runtime.engines import base, stdio
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
    Span,
    Usage,
    VerifiedModel,
    check_texts,
    takes,
    wrong_task,
)
from sealpack.runtime.engines.cpu import choose_threads, require_avx2

_DEFAULT_CONTEXT = 4096  # tokens; a model trained on less gets its own length
_SCORED = 64  # tokens whose logits are held at once: a row of them is as long as the vocabulary
_HEADER_BUFFER = 1 << 16  # bytes
_SEQUENCES = 64  # texts that llama.cpp embeds in one batch

_loader_lock = threading.Lock()
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fdopen.restype = ctypes.c_void_p
_libc.fdopen.argtypes = [ctypes.c_int, ctypes.c_char_p]
_libc.fseeko.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
_libc.fclose.argtypes = [ctypes.c_void_p]
# Kept for the life of the process: llama.cpp calls it from its own threads.
_quiet = llama_cpp.llama_log_callback(lambda *_: None)


class LlamaEngine:
    """Loads bundles of kind `gguf`."""

    def load(self, model: VerifiedModel, options: Options) -> LlamaSession:
        """Map and load the model; ENGINE_FAILED when llama.cpp refuses it."""
        require_avx2()
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        threads = choose_threads(options.threads)
        name = model.name or model.model
        pointer = _load_weights(model, name)
        trained = llama_cpp.llama_model_n_ctx_train(pointer)
        # Positions past the trained length have no meaning, and some models abort on them.
        context = min(options.context or _DEFAULT_CONTEXT, trained)
        try:
            with _loader_gives(pointer):
                llm = llama_cpp.Llama(
                    os.devnull,  # only checked for existence; the replaced loader ignores it
                    n_ctx=context,
                    n_threads=threads,
                    n_threads_batch=threads,
                    embedding=takes(model.io) == "text",
                    verbose=False,
                )
        except (ValueError, RuntimeError, OSError):
            raise SealpackError("ENGINE_FAILED", f"llama.cpp could not start {name}") from None
        return LlamaSession(llm, model.io, threads, context)


def _load_weights(model: VerifiedModel, name: str) -> Any:
    llama_cpp.llama_backend_init()
    encrypted = model.decrypted.get(model.model)
    if encrypted is None:
        pointer = _map(model.fd, model.span(model.model), name)
    else:
        base.check_header(model, io.BufferedReader(PlainStream(encrypted), _HEADER_BUFFER))
        pointer = _read(encrypted)
    if not pointer:
        raise SealpackError("ENGINE_FAILED", f"llama.cpp could not load {name}")
    return pointer


def _read(encrypted: DecryptedFile) -> Any:
    """Read the GGUF into memory; what was read before a chunk failed is freed."""
    pointer = None
    try:
        with stdio.reading(encrypted) as file:
            params = _parameters(llama_cpp.LLAMA_LOAD_MODE_NONE)
            pointer = llama_cpp.llama_model_load_from_file_ptr(file, params)
    except BaseException:
        if pointer:
            llama_cpp.llama_model_free(pointer)
        raise
    return pointer


def _map(fd: int, span: Span, name: str) -> Any:
    """Map the GGUF that starts at the span's offset; the map outlives the file object."""
    file = _libc.fdopen(os.dup(fd), b"rb")
    if not file:
        raise SealpackError("ENGINE_FAILED", f"{name} could not be opened")
    try:
        _libc.fseeko(file, span.offset, os.SEEK_SET)
        return llama_cpp.llama_model_load_from_file_ptr(file, _parameters(llama_cpp.LLAMA_LOAD_MODE_MMAP))
    finally:
        _libc.fclose(file)


def _parameters(load_mode: int) -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = load_mode
    return params


@contextlib.contextmanager
def _loader_gives(pointer: Any) -> Iterator[None]:
    library = _internals.llama_cpp
    with _loader_lock:
        original = library.llama_model_load_from_file
        library.llama_model_load_from_file = lambda _path, _params: pointer
        try:
            yield
        finally:
            library.llama_model_load_from_file = original


class LlamaSession:
    """A loaded GGUF model; see :class:`sealpack.runtime.engines.base.Session`."""

    def __init__(self, llm: Any, io: ModelIo, threads: int, context: int) -> None:
        self._llm = llm
        self._io = io
        self._threads = threads
        self._context = context

    def describe(self) -> Description:
        """Engine, version, context length and what the model says of itself."""
        facts = {
            "context": self._context,
            "vocabulary": self._llm.n_vocab(),
            "architecture": self._llm.metadata.get("general.architecture", ""),
        }
        return Description("llama.cpp", llama_cpp.__version__, self._io.task, self._threads, facts=facts)

    def prepare(self, call: Call) -> Prepared:
        """Tokenise; REQUEST_TOO_LARGE when the prompt does not fit the context."""
        match call:
            case Generate() if takes(self._io) == "prompt":
                return self._prepare_generate(call)
            case Embed(texts=texts) if takes(self._io) == "text":
                return self._prepare_embed(texts)
            case Score(text=text) if takes(self._io) == "prompt":
                return self._prepare_score(text)
            case Embed() | Infer() | Generate() | Score():
                raise wrong_task(self._io, call)

    def close(self) -> None:
        """Free the model."""
        self._llm.close()

    def _prepare_generate(self, call: Generate) -> Prepared:
        if call.max_tokens < 1:
            raise SealpackError("INPUT_INVALID", f"max_tokens is {call.max_tokens}, not 1 or more")
        if not 0 <= call.temperature <= 10:
            raise SealpackError("INPUT_INVALID", "temperature is outside 0 to 10")
        check_texts((call.prompt,))
        tokens = self._tokenise(call.prompt)
        room = self._context - len(tokens)
        if not tokens or room < 1:
            raise SealpackError(
                "REQUEST_TOO_LARGE" if tokens else "INPUT_INVALID",
                f"the prompt is {len(tokens)} tokens, the model takes 1 to {self._context - 1}",
            )
        limit = min(call.max_tokens, room)
        bound = Usage(tok_in=len(tokens), tok_out=limit, items=1)
        return Prepared(bound, lambda on_token: self._generate(call, tokens, limit, on_token))

    def _tokenise(self, text: str) -> list[int]:
        tokens: list[int] = self._llm.tokenize(text.encode("utf-8", "replace"), special=False)
        return tokens

    def _generate(self, call: Generate, tokens: list[int], limit: int, on_token: OnToken | None) -> Result:
        self._llm.reset()  # nothing of the call before may shine through
        self._llm.set_seed(call.seed)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces: list[str] = []
        produced = 0
        finish = "length"
        try:
            for token in self._llm.generate(tokens, temp=call.temperature, top_k=40, top_p=0.95):
                if llama_cpp.llama_vocab_is_eog(self._llm._model.vocab, token):
                    finish = "stop"  # the end mark is not a token of the answer
                    break
                produced += 1
                pieces.append(decoder.decode(self._llm.detokenize([token], prev_tokens=tokens)))
                if on_token is not None and not on_token(pieces[-1], produced):
                    finish = "cancel"
                    break
                if produced >= limit:
                    break
        except RuntimeError:
            raise SealpackError("ENGINE_FAILED", "llama.cpp failed during generation") from None
        pieces.append(decoder.decode(b"", final=True))
        value = {"text": "".join(pieces), "finish": finish}
        used = Usage(tok_in=len(tokens), tok_out=produced, items=1)
        return Result(value, used, cancelled=finish == "cancel")

    def _prepare_score(self, text: str) -> Prepared:
        check_texts((text,))
        tokens = self._tokenise(text)
        if len(tokens) < 2:
            raise SealpackError("INPUT_INVALID", "the text is too short to be scored: it has no second token")
        used = Usage(tok_in=len(tokens), items=1)
        return Prepared(used, lambda _: Result(self._score(tokens), used))

    def _score(self, tokens: list[int]) -> dict[str, Any]:
        windows = [tokens[i : i + self._context] for i in range(0, len(tokens), self._context)]
        try:
            total = sum(self._score_window(window) for window in windows)
        except RuntimeError:
            raise SealpackError("ENGINE_FAILED", "llama.cpp failed to score the text") from None
        finally:
            self._llm.reset()
            self._llm._ctx.kv_cache_clear()
        return {"logprob": total, "tokens": sum(len(window) - 1 for window in windows)}

    def _score_window(self, window: list[int]) -> float:
        """Sum of natural-log probabilities of every token after the first."""
        context, batch, total = self._llm._ctx, self._llm._batch, 0.0
        context.kv_cache_clear()
        step = min(_SCORED, int(self._llm.n_batch))
        for start in range(0, len(window), step):
            part = window[start : start + step]
            batch.set_batch(batch=part, n_past=start, logits_all=True)
            context.decode(batch)
            rows = np.ctypeslib.as_array(context.get_logits(), shape=(len(part), self._llm.n_vocab()))
            for row, following in zip(rows, window[start + 1 : start + step + 1], strict=False):
                scores = row.astype(np.float64)
                top = scores.max()
                total += float(scores[following] - top - np.log(np.exp(scores - top).sum()))
        return total

    def _prepare_embed(self, texts: tuple[str, ...]) -> Prepared:
        check_texts(texts)
        longest = int(self._llm.n_batch)
        # The binding cuts longer texts the same way, so what is counted is what is computed.
        counts = [min(len(self._llm.tokenize(t.encode("utf-8", "replace"))), longest) for t in texts]
        used = Usage(tok_in=sum(counts), items=len(texts))
        return Prepared(used, lambda _: Result({"embeddings": self._embed(texts)}, used))

    def _embed(self, texts: tuple[str, ...]) -> list[list[float]]:
        try:
            vectors = [
                vector
                for start in range(0, len(texts), _SEQUENCES)
                for vector in self._llm.embed(list(texts[start : start + _SEQUENCES]), normalize=True)
            ]
        except (RuntimeError, ValueError):
            raise SealpackError("ENGINE_FAILED", "llama.cpp failed to embed the text") from None
        return vectors
