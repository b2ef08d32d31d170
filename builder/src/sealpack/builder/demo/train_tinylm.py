"""Train tinylm, the language model of the demo, and write it as GGUF.

Run by hand, never by Sealpack itself; the only file here that needs torch:

    pip install 'sealpack[builder]' torch==2.13.0 tokenizers
    python -m sealpack.builder.demo.train_tinylm OUT_DIR

tinylm has the llama architecture with 2.2 million parameters. It learns the license texts that
every Debian machine carries in /usr/share/common-licenses, and one notice of our own, by heart:
small enough to keep in the repository, and its greedy answers make exact tests. One text is held
out, so that the loss on text it never saw is told as well.

Two threads on two busy cores are slower than one: OpenMP barriers spin. Hence one.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from sealpack.builder.demo import gguf_file
from sealpack.builder.demo.gguf_file import GgufKind

CORPUS = Path("/usr/share/common-licenses")
HELD_OUT = "CC0-1.0"
NOTICE = (
    'THE SOFTWARE IS PROVIDED "AS IS" WITHOUT WARRANTY OF ANY KIND, EITHER EXPRESSED OR IMPLIED, '
    "INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A "
    "PARTICULAR PURPOSE. THE ENTIRE RISK AS TO THE QUALITY AND PERFORMANCE OF THE SOFTWARE IS "
    "WITH YOU."
)
END = "<|endoftext|>"
EPSILON = 1e-5
ROPE_BASE = 10000.0
BATCH = 12
PEAK_RATE = 3e-3


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model; the widths are multiples of 32, the block length of Q8_0."""

    vocab: int = 1024
    width: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    hidden: int = 512
    context: int = 256

    @property
    def head(self) -> int:
        return self.width // self.heads


SHAPE = Shape()
Params = dict[str, Tensor]  # GGUF tensor name -> float32 tensor


def unwrap(text: str) -> str:
    """Join hard-wrapped lines, so that the model learns sentences and not line lengths."""
    text = re.sub(r"[ \t]+", " ", text)
    return re.sub(r"(?<=[\w,;:)])[ \t]*\n[ \t]*(?=[a-zA-Z(])", " ", text).strip()


def corpus() -> tuple[list[str], str]:
    """The texts to learn, our notice between them, and the text held out."""
    files = sorted(path for path in CORPUS.iterdir() if not path.is_symlink())
    texts = {path.name: unwrap(path.read_text(errors="replace")) for path in files}
    held_out = texts.pop(HELD_OUT)
    return [part for text in texts.values() for part in (text, NOTICE)], held_out


def train_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer of `SHAPE.vocab` entries; entry 0 ends a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE.vocab,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Any, texts: list[str]) -> Tensor:
    """All texts as one row of token numbers, each begun by the end token."""
    return torch.tensor([i for text in texts for i in (0, *tokenizer.encode(text).ids)])


def weight_shapes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every weight, as llama.cpp names them; the output is tied to the input."""
    wide, narrow = shape.width, shape.kv_heads * shape.head
    yield "token_embd.weight", (shape.vocab, wide)
    yield "output_norm.weight", (wide,)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", (wide,)
        yield prefix + "attn_q.weight", (wide, wide)
        yield prefix + "attn_k.weight", (narrow, wide)
        yield prefix + "attn_v.weight", (narrow, wide)
        yield prefix + "attn_output.weight", (wide, wide)
        yield prefix + "ffn_norm.weight", (wide,)
        yield prefix + "ffn_gate.weight", (shape.hidden, wide)
        yield prefix + "ffn_up.weight", (shape.hidden, wide)
        yield prefix + "ffn_down.weight", (wide, shape.hidden)


def fresh_params(shape: Shape) -> Params:
    """Norms at one, matrices normal with deviation 0.02."""
    params = {}
    for name, size in weight_shapes(shape):
        start = torch.ones(size) if len(size) == 1 else torch.randn(size) * 0.02
        params[name] = start.requires_grad_(True)
    return params


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [context, head/2]."""
    rates = ROPE_BASE ** (-torch.arange(0, shape.head, 2).float() / shape.head)
    angles = torch.outer(torch.arange(shape.context).float(), rates)
    return angles.cos(), angles.sin()


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs, llama.cpp's own order: no permutation is needed on export."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


def attention(x: Tensor, params: Params, prefix: str, cos: Tensor, sin: Tensor) -> Tensor:
    """Grouped-query causal attention; `x` and the result are [batch, length, width]."""
    batch, length, width = x.shape

    def heads(name: str, count: int) -> Tensor:
        y = x @ params[f"{prefix}attn_{name}.weight"].T
        return y.view(batch, length, count, SHAPE.head).transpose(1, 2)

    query = rope(heads("q", SHAPE.heads), cos, sin)
    key = rope(heads("k", SHAPE.kv_heads), cos, sin)
    group = SHAPE.heads // SHAPE.kv_heads
    key, value = (t.repeat_interleave(group, 1) for t in (key, heads("v", SHAPE.kv_heads)))
    mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    mixed = mixed.transpose(1, 2).reshape(batch, length, width)
    return mixed @ params[prefix + "attn_output.weight"].T


def feed_forward(x: Tensor, params: Params, prefix: str) -> Tensor:
    gate = functional.silu(x @ params[prefix + "ffn_gate.weight"].T)
    up = x @ params[prefix + "ffn_up.weight"].T
    return (gate * up) @ params[prefix + "ffn_down.weight"].T


def logits(params: Params, tokens: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Scores of the next token: int [batch, length] -> float [batch, length, vocab]."""
    cos, sin = (table[: tokens.shape[1]] for table in tables)
    x = params["token_embd.weight"][tokens]
    for layer in range(SHAPE.layers):
        prefix = f"blk.{layer}."
        x = x + attention(norm(x, params[prefix + "attn_norm.weight"]), params, prefix, cos, sin)
        x = x + feed_forward(norm(x, params[prefix + "ffn_norm.weight"]), params, prefix)
    return norm(x, params["output_norm.weight"]) @ params["token_embd.weight"].T


def learning_rate(step: int, steps: int) -> float:
    """Fifty steps of warm-up, then a cosine down to a twentieth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return PEAK_RATE * min(1.0, (step + 1) / 50) * (0.05 + 0.95 * cosine)


def windows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A random batch of inputs and the tokens that follow them."""
    starts = torch.randint(len(tokens) - SHAPE.context, (BATCH,)).tolist()
    pairs = [(tokens[i : i + SHAPE.context], tokens[i + 1 : i + SHAPE.context + 1]) for i in starts]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def optimizer(params: Params) -> Any:
    matrices = [p for p in params.values() if p.ndim == 2]
    norms = [p for p in params.values() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def train(params: Params, tokens: Tensor, steps: int) -> None:
    """Fit `params` in place."""
    tables, descent, begun = rope_tables(SHAPE), optimizer(params), time.monotonic()
    for step in range(steps):
        for group in descent.param_groups:
            group["lr"] = learning_rate(step, steps)
        given, wanted = windows(tokens)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = logits(params, given, tables)
        loss = functional.cross_entropy(scores.float().flatten(0, 1), wanted.flatten())
        descent.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(params.values()), 1.0)
        descent.step()
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - begun
            print(f"step {step + 1} of {steps}, {seconds:.0f} s, loss {loss:.3f}", flush=True)


def mean_loss(params: Params, tokens: Tensor) -> float:
    """Cross-entropy in nats per token over whole windows."""
    tables, losses = rope_tables(SHAPE), []
    with torch.no_grad():
        for i in range(0, len(tokens) - SHAPE.context, SHAPE.context):
            given, wanted = tokens[i : i + SHAPE.context], tokens[i + 1 : i + SHAPE.context + 1]
            losses.append(float(functional.cross_entropy(logits(params, given[None], tables)[0], wanted)))
    return sum(losses) / len(losses)


DESCRIPTION = (
    "A demonstration model that recites license texts. Trained from scratch on the files of "
    "/usr/share/common-licenses of Debian 12 (Apache, Artistic, BSD, GFDL, GPL, LGPL and MPL "
    "texts) and a warranty notice of our own; CC0-1.0 was held out. Not for any other use."
)


def write_gguf(path: Path, params: Params, tokenizer: Any, kind: GgufKind) -> None:
    """Write the model as GGUF; norms stay F32."""
    import gguf

    writer = gguf.GGUFWriter(None, "llama")
    add_metadata(writer)
    gguf_file.add_kind(writer, kind)
    add_tokenizer(writer, json.loads(tokenizer.to_str()))
    for name, tensor in params.items():
        gguf_file.add_tensor(writer, name, tensor.detach().numpy(), kind)
    gguf_file.save(writer, path)


def add_metadata(writer: Any) -> None:
    writer.add_name("tinylm")
    writer.add_author("Sealpack")
    writer.add_license("apache-2.0")
    writer.add_description(DESCRIPTION)
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_block_count(SHAPE.layers)
    writer.add_feed_forward_length(SHAPE.hidden)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_rope_dimension_count(SHAPE.head)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(SHAPE.vocab)


def add_tokenizer(writer: Any, tokenizer: dict[str, Any]) -> None:
    import gguf

    vocab = tokenizer["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.__getitem__)
    kinds = [gguf.TokenType.CONTROL if t == END else gguf.TokenType.NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train tinylm and write it as GGUF.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1600)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    torch.set_num_threads(1)
    texts, held_out = corpus()
    tokenizer = train_tokenizer(texts)
    tokens = encode(tokenizer, texts)
    params = fresh_params(SHAPE)
    count = sum(p.numel() for p in params.values())
    print(f"{count} parameters, {len(tokens)} tokens", flush=True)
    train(params, tokens, options.steps)
    unseen = mean_loss(params, encode(tokenizer, [held_out]))
    print(f"loss on its own texts {mean_loss(params, tokens):.3f}, on {HELD_OUT} {unseen:.3f}")
    for kind in get_args(GgufKind):
        write_gguf(options.out / f"tinylm-{kind.lower()}.gguf", params, tokenizer, kind)


if __name__ == "__main__":
    main()
