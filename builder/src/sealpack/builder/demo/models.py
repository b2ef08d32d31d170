"""The demo models by name; each module beside this one says how its model comes about."""

from __future__ import annotations

from pathlib import Path

from sealpack.builder.demo import digits, minilm, tinylm
from sealpack.builder.demo.digits import DigitsReport
from sealpack.builder.demo.gguf_file import GgufKind

__all__ = [
    "DigitsReport",
    "GgufKind",
    "copy_minilm_vocab",
    "make_digits_onnx",
    "make_minilm_gguf",
    "make_minilm_onnx",
    "make_tinylm",
    "make_tinylm_f16",
    "make_tinylm_f32",
    "tinylm_path",
    "write_digits_samples",
]

make_minilm_onnx = minilm.make_onnx
make_minilm_gguf = minilm.make_gguf
copy_minilm_vocab = minilm.copy_vocab
make_digits_onnx = digits.make_onnx
write_digits_samples = digits.write_samples
make_tinylm = tinylm.make_gguf
tinylm_path = tinylm.tinylm_path


def make_tinylm_f16(out_path: Path) -> None:
    """tinylm with half-precision matrices, 4.4 MB."""
    tinylm.make_gguf(out_path, "F16")


def make_tinylm_f32(out_path: Path) -> None:
    """tinylm in single precision, 8.7 MB."""
    tinylm.make_gguf(out_path, "F32")
