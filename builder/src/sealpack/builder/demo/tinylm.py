"""tinylm, a language model small enough for the repository; `train_tinylm` made it.

It recites license texts: greedy answers are the same for every float type, so tests can compare
text with text.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sealpack.builder.demo import gguf_file
from sealpack.builder.demo.gguf_file import GgufKind
from sealpack.format.files import atomic_write

PROMPT = "THE SOFTWARE IS PROVIDED"
ANSWER = (
    ' "AS IS" WITHOUT WARRANTY OF ANY KIND, EITHER EXPRESSED OR IMPLIED, INCLUDING, BUT NOT '
    "LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE."
)
"""How the model goes on after `PROMPT` at temperature 0 (64 tokens are enough)."""


def tinylm_path() -> Path:
    """The committed Q8_0 file, 2.3 MB."""
    return Path(str(files("sealpack.builder.demo") / "data" / "tinylm-q8_0.gguf"))


def make_gguf(out_path: Path, ftype: GgufKind = "Q8_0") -> None:
    """Write tinylm as Q8_0 (a copy), F16 (4.4 MB) or F32 (8.7 MB, dequantised)."""
    if ftype == "Q8_0":
        atomic_write(out_path, tinylm_path().read_bytes())
    else:
        gguf_file.convert(tinylm_path(), out_path, ftype)
