"""Small models with weights of a fixed seed, and vaults with a fixed root key."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from sealpack.builder.describe import read_model
from sealpack.builder.watermark.embed import mark_model
from sealpack.builder.watermark.records import Mark
from sealpack.builder.watermark.vault import Vault

ROOT = bytes(range(32))
PASSPHRASE = "correct horse battery"
NOW = 1_795_000_000

MakeVault = Callable[[Path], Vault]
MakeOnnx = Callable[..., Path]
MakeGguf = Callable[..., Path]
MarkFor = Callable[..., Mark]


@pytest.fixture(scope="session")
def make_vault() -> MakeVault:
    def make(path: Path) -> Vault:
        vault = Vault.create(path, PASSPHRASE, scrypt_n=1 << 14)
        vault.root = ROOT
        vault.save()
        return vault

    return make


@pytest.fixture(scope="session")
def make_onnx() -> MakeOnnx:
    """Write tensors as an ONNX file; a value may be a ready TensorProto (types numpy lacks)."""

    def make(path: Path, tensors: dict[str, Any], *, external: bool = False) -> Path:
        protos = [
            value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
            for name, value in tensors.items()
        ]
        port = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
        out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [port], [out], protos)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        onnx.save(model, str(path), save_as_external_data=external, location=f"{path.name}.data")
        return path

    return make


@pytest.fixture(scope="session")
def make_gguf() -> MakeGguf:
    def make(path: Path, tensors: dict[str, Any], kind: str = "F32") -> Path:
        writer = gguf.GGUFWriter(str(path), "llama")
        quant = gguf.GGMLQuantizationType[kind]
        for name, values in tensors.items():
            raw = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), quant)
            writer.add_tensor(name, raw, raw_dtype=quant)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


@pytest.fixture(scope="session")
def mark_for() -> MarkFor:
    """Mark a model file for a licensee, whole: `out` may be a folder for models of several files."""

    def mark(vault: Vault, source: Path, out: Path, number: int = 7, **options: Any) -> Mark:
        model = read_model(source)
        outputs = [out, *(out.parent / path.name for path in model.external)]
        return mark_model(
            vault,
            (source, *model.external),
            outputs,
            model.tensors,
            licensee=f"licensee-{number:02}",
            license_id=f"lic-{number:02}",
            bundle_id="acme/minilm",
            now=NOW,
            **options,
        )

    return mark


@pytest.fixture(scope="session")
def add_innocents() -> Callable[[Vault, Mark, int], None]:
    """Records of other licensees of the same model; their keys follow from the root alone."""

    def add(vault: Vault, mark: Mark, total: int) -> None:
        own = {known.licensee for known in vault.marks}
        for number in range(total):
            name = f"licensee-{number:02}"
            if name not in own:
                vault.marks.append(dataclasses.replace(mark, licensee=name, license_id=f"lic-{number:02}"))

    return add


@pytest.fixture
def matrices() -> dict[str, Any]:
    """Two matrices of a fixed seed: one wide enough to cross segments, one with odd rows."""
    rng = np.random.default_rng(11)
    return {
        "wide": rng.normal(0, 0.05, (300, 512)).astype(np.float32),
        "odd": rng.normal(0, 0.2, (257, 257)).astype(np.float32),
    }
