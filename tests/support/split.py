"""A GGUF model cut into parts by the gguf package, as publishers do it."""

from __future__ import annotations

from pathlib import Path

import pytest


def split_gguf(source: Path, folder: Path, parts: int, *, prefix: str = "model") -> Path:
    """Write `source` as at most `parts` files into `folder`; the first of them."""
    gguf = pytest.importorskip("gguf")
    folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    in_each = -(-len(reader.tensors) // parts)
    writer = gguf.GGUFWriter(folder / f"{prefix}.gguf", architecture, split_max_tensors=in_each)
    for name, field in reader.fields.items():
        if name != "general.architecture" and not name.startswith("GGUF."):
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return next(folder.glob(f"{prefix}-00001-of-*.gguf"))
