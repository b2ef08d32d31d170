"""Write GGUF files whole or not at all, and change how their tensors are stored."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Literal

from sealpack.format.files import io_error

GgufKind = Literal["F32", "F16", "Q8_0"]


def add_kind(writer: Any, kind: GgufKind) -> None:
    """Tell the file's quantisation in its metadata."""
    import gguf

    types = gguf.LlamaFileType
    files = {"F32": types.ALL_F32, "F16": types.MOSTLY_F16, "Q8_0": types.MOSTLY_Q8_0}
    writer.add_file_type(files[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_tensor(writer: Any, name: str, values: Any, kind: GgufKind) -> None:
    """Add float32 `values`, stored as `kind`; vectors always stay F32, as llama.cpp wants them."""
    import gguf
    import numpy as np

    values = np.ascontiguousarray(values, np.float32)
    if values.ndim == 1 or kind == "F32":
        writer.add_tensor(name, values)
    elif kind == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        q8 = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, q8), raw_dtype=q8)


def save(writer: Any, out_path: Path) -> None:
    """Finish a GGUFWriter that was made without a path: temporary name, fsync, rename."""
    part = out_path.with_name(f".{out_path.name}.{secrets.token_hex(4)}.part")
    try:
        writer.write_header_to_file(part)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        for file in writer.fout:
            file.flush()
            os.fsync(file.fileno())
        part.replace(out_path)
    except OSError as error:
        raise io_error(error, out_path, "write") from None
    finally:
        writer.close()
        part.unlink(missing_ok=True)


def convert(source: Path, out_path: Path, kind: GgufKind) -> None:
    """Write a copy of a trusted GGUF file with its tensors stored as `kind`.

    From Q8_0 to floats nothing more is lost, and nothing comes back. All other metadata is kept.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(None, reader.fields["general.architecture"].contents())
    ours = ("general.architecture", "general.file_type", "general.quantization_version")
    for name, field in reader.fields.items():
        if name not in ours and not name.startswith("GGUF."):
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    add_kind(writer, kind)
    for tensor in reader.tensors:
        floats = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        add_tensor(writer, tensor.name, floats, kind)
    save(writer, out_path)
