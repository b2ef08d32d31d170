"""Tell which kind of model a file is, and read its header."""

from __future__ import annotations

from typing import BinaryIO, Literal

from sealpack.format.gguf_header import MAGIC, GgufHeader, read_gguf_header
from sealpack.format.onnx_header import OnnxHeader, looks_like_onnx, read_onnx_header
from sealpack.format.window import ByteWindow

# Files people try first; they are told apart so that the message can say what to do.
_OTHERS = (
    (b"PK\x03\x04", "is a zip file (a PyTorch checkpoint or a bundle?), not an ONNX or GGUF model"),
    (b"\x80\x02", "is a Python pickle, not an ONNX or GGUF model"),
    (b"\x89HDF", "is an HDF5 file, not an ONNX or GGUF model"),
    (b"version https://git-lfs", "is a Git LFS pointer: fetch the model itself"),
)


def sniff_model(
    file: BinaryIO, start: int = 0, length: int | None = None, what: str = "model"
) -> Literal["onnx", "gguf"]:
    """The kind of model in bytes [start, start + length) of `file`; MODEL_UNKNOWN if neither."""
    window = ByteWindow(file, start, length, what)
    head = window.take(0, min(window.size, 64))
    if head.startswith(MAGIC):
        return "gguf"
    for magic, told in _OTHERS:
        if head.startswith(magic):
            raise window.unknown(told)
    if head[8:10] == b'{"':
        raise window.unknown("is a safetensors file: convert it to ONNX or GGUF first")
    if looks_like_onnx(window):
        return "onnx"
    raise window.unknown("is neither an ONNX nor a GGUF model")


def read_model_header(
    file: BinaryIO, start: int = 0, length: int | None = None, what: str = "model"
) -> GgufHeader | OnnxHeader:
    """The header of either kind; errors as in `read_gguf_header` and `read_onnx_header`."""
    if sniff_model(file, start, length, what) == "gguf":
        return read_gguf_header(file, start, length, what)
    return read_onnx_header(file, start, length, what)
