"""Start of an encrypted model against the same engine loading the plain one into memory, leaves checked too.

Each start is a process of its own: load to the first answer, and the peak of its resident memory. Both sides
have their stored bytes in the page cache, in one bundle-like file at 64 KiB.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MIB = 1 << 20
KEY = bytes(range(32))
_RUN = "import sys; sys.path.insert(0, {here!r}); import bench_encrypted as b; b.child(*sys.argv[1:])"


def make_gguf(path: Path, mib: int) -> None:
    """A two-layer language model of about `mib` MiB with random F16 weights."""
    import gguf
    import numpy as np

    rng, width, context = np.random.default_rng(7), 1024, 64
    hidden = (mib * MIB // 2 // 2 - 4 * width * width) // (3 * width) // 256 * 256
    words = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "th", "<end>"]
    w = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (w.add_context_length, context),
        (w.add_embedding_length, width),
        (w.add_block_count, 2),
        (w.add_feed_forward_length, hidden),
        (w.add_head_count, 8),
        (w.add_head_count_kv, 8),
        (w.add_layer_norm_rms_eps, 1e-5),
        (w.add_rope_dimension_count, width // 8),
        (w.add_tokenizer_model, "gpt2"),
        (w.add_tokenizer_pre, "gpt-2"),
        (w.add_token_list, words),
        (w.add_token_types, [1] * (len(words) - 1) + [3]),
        (w.add_token_merges, ["t h"]),
        (w.add_eos_token_id, len(words) - 1),
        (w.add_bos_token_id, len(words) - 1),
        (w.add_add_bos_token, False),
    ):
        add(value)

    def weights(name: str, *shape: int) -> None:
        w.add_tensor(name, (rng.standard_normal(shape, np.float32) * 0.02).astype(np.float16))

    weights("token_embd.weight", len(words), width)
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(2):
        at = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            w.add_tensor(f"{at}.{norm}.weight", np.ones(width, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights(f"{at}.{name}.weight", width, width)
        weights(f"{at}.ffn_gate.weight", hidden, width)
        weights(f"{at}.ffn_up.weight", hidden, width)
        weights(f"{at}.ffn_down.weight", width, hidden)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_onnx(path: Path, mib: int) -> None:
    """A graph with one external matrix of about `mib` MiB."""
    import numpy as np
    import onnx

    h, rows = onnx.helper, mib * MIB // 4 // 4096
    weight = np.random.default_rng(7).standard_normal((rows, 4096), np.float32)
    graph = h.make_graph(
        [h.make_node("Gather", ["w", "x"], ["y"])],
        "big",
        [h.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4096])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=0)


def prepare(folder: Path, kind: str, mib: int) -> None:
    """Write the model, and its files as they are stored, plain and encrypted, with their leaves."""
    from sealpack.format import chunked
    from sealpack.format.chunked import FileCipher

    model = folder / f"model.{kind}"
    (make_gguf if kind == "gguf" else make_onnx)(model, mib)
    facts: dict[str, Any] = {}
    for number, path in enumerate(sorted(folder.glob(f"model.{kind}*"))):
        salt = bytes([number]) * 24
        cipher = FileCipher.derive(KEY, salt, b"{}")
        plain = path.read_bytes()
        blocks = (plain[at : at + MIB] for at in range(0, len(plain), MIB))
        sealed = b"".join(chunked.encrypted(cipher, blocks))
        name = f"payload/{path.name}"
        facts[name] = {"size": len(plain), "salt": salt.hex()}
        for side, data in (("plain", plain), ("sealed", sealed)):
            (folder / f"{path.name}.{side}").write_bytes(data)
            table = b"".join(hashlib.sha256(data[at : at + MIB]).digest() for at in range(0, len(data), MIB))
            (folder / f"{path.name}.{side}.leaves").write_bytes(table)
        path.unlink()
    (folder / "facts.json").write_text(json.dumps(facts))


def child(folder: str, kind: str, side: str) -> None:
    """Load and answer once; print seconds and peak MiB of what that added."""
    import time

    from sealpack.format.fields import Fields
    from sealpack.format.io import ModelIo
    from sealpack.runtime.engines import choose
    from sealpack.runtime.engines.base import Generate, Infer, Options

    choose._engine(kind)  # imports are the same on both sides
    io = {
        "gguf": {"task": "text-generation"},
        "onnx": {"task": "tensor", "pre": {"kind": "tensor"}, "post": {"kind": "tensor", "output": "y"}},
    }[kind]
    typed = ModelIo.parse(Fields(io, "io"))
    start = time.perf_counter()
    model = (_sealed if side == "sealed" else _plain)(Path(folder), kind, typed)
    session = choose.load(model, Options(threads=1))
    call = Generate("the", 1) if kind == "gguf" else Infer({"x": [0]})
    session.prepare(call).run(None)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def _sealed(folder: Path, kind: str, io: Any) -> Any:
    from sealpack.format.chunked import FileCipher
    from sealpack.runtime.decrypt import DecryptedFile, StoredFile
    from sealpack.runtime.engines.base import Span, VerifiedModel

    facts, spans, decrypted = json.loads((folder / "facts.json").read_text()), {}, {}
    for name, fact in facts.items():
        stem = folder / name.removeprefix("payload/")
        cipher = FileCipher.derive(KEY, bytes.fromhex(fact["salt"]), b"{}")
        table = stem.with_name(stem.name + ".sealed.leaves").read_bytes()
        reader = _reader(stem.with_name(stem.name + ".sealed"))
        decrypted[name] = DecryptedFile(StoredFile(name, fact["size"], table, reader), cipher)
        spans[name] = Span(0, 0, "model-data" if name.endswith(".data") else "model")
    return VerifiedModel(-1, kind, f"payload/model.{kind}", spans, io, "big", decrypted)


def _plain(folder: Path, kind: str, io: Any) -> Any:
    """The same loader's way into memory: leaves are compared on all cores, then the engine reads the file."""
    import mmap

    import llama_cpp

    from sealpack.format import chunks
    from sealpack.runtime.engines.base import Span, VerifiedModel

    facts, spans = json.loads((folder / "facts.json").read_text()), {}
    for name, fact in facts.items():
        stem = folder / name.removeprefix("payload/")
        path = stem.with_name(stem.name + ".plain")
        count = chunks.chunk_count(fact["size"])
        found = chunks.leaves_at(_reader(path), fact["size"], range(count))
        assert found == path.with_name(path.name + ".leaves").read_bytes()
        file = path.open("rb", buffering=0)
        _KEPT.append(file)
        role = "model-data" if name.endswith(".data") else "model"
        spans[name] = Span(0, fact["size"], role, file.fileno())

    class InMemory(VerifiedModel):
        """External data is read into private memory: as decryption does, not as a map."""

        def view(self, path: str) -> memoryview:
            span = self.span(path)
            memory = mmap.mmap(-1, span.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for at in range(0, span.size, MIB):
                block = memoryview(memory)[at : at + MIB]
                _reader_at(self._descriptor(span), at, block)
            return memoryview(memory)

    llama_cpp.LLAMA_LOAD_MODE_MMAP = llama_cpp.LLAMA_LOAD_MODE_NONE  # the peer loads without a map
    name = f"payload/model.{kind}"
    return InMemory(spans[name].fd or 0, kind, name, spans, io, "big")


_KEPT: list[Any] = []


def _reader(path: Path) -> Any:
    file = path.open("rb", buffering=0)
    _KEPT.append(file)
    return lambda at, view: _reader_at(file.fileno(), at, view)


def _reader_at(fd: int, at: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.preadv(fd, [view[done:]], at + done)


def start(folder: Path, kind: str, side: str) -> dict[str, float]:
    """One start in a process of its own."""
    program = _RUN.format(here=str(Path(__file__).resolve().parent))
    command = [sys.executable, "-c", program, str(folder), kind, side]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(out)
    return figures
