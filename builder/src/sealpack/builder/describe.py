"""From a model file's header to what the manifest and the SBOM say of it.

Source: specs/manifest.md (`engine`, `io`). Reads headers only, through the bounded readers: no weight
is loaded and no model library is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealpack.builder.content import Content, FileContent, MergedContent
from sealpack.builder.model import BaseRef, ModelDescription, Port
from sealpack.builder.sections import IoSection
from sealpack.format import gguf_split
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.files import io_error
from sealpack.format.gguf_header import GgufHeader
from sealpack.format.gguf_split import SplitGguf
from sealpack.format.io import ModelIo, complete
from sealpack.format.model_header import read_model_header
from sealpack.format.onnx_header import OnnxHeader, ValueInfo
from sealpack.format.tensors import TensorRef

_MAX_NAMED = 64  # base models and data sets read from numbered GGUF keys


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on disk: its file, its external data, its description and tensor table.

    A split GGUF model is the one that its parts are merged into: `path` is its first part, `tensors` lie in
    the merged file.
    """

    path: Path
    external: tuple[Path, ...]
    description: ModelDescription
    tensors: tuple[TensorRef, ...]
    engine: dict[str, Any]
    warnings: tuple[str, ...] = ()
    split: SplitGguf | None = None

    @property
    def contents(self) -> tuple[Content, ...]:
        """What is packed of it: the model, then its external data."""
        main = FileContent(self.path) if self.split is None else MergedContent(self.path, self.split)
        return (main, *map(FileContent, self.external))


def read_model(path: Path) -> ModelFile:
    """Read the model at `path`.

    MODEL_MISSING (the file, its external data or another part), MODEL_UNKNOWN, MODEL_TRUNCATED, MODEL_UNSAFE.
    """
    if not path.is_file():
        problem = "is a folder; give the model file in it" if path.is_dir() else "does not exist"
        raise SealpackError("MODEL_MISSING", f"{path} {problem}")
    gguf_split.require_first(path)
    try:
        with path.open("rb") as file:
            header = read_model_header(file, what=path.name)
        size = path.stat().st_size
    except OSError as error:
        raise io_error(error, path, "read") from None
    if isinstance(header, GgufHeader):
        return _gguf_file(path, header, size)
    external = _external(path, header)
    warnings = tuple(f"needs operators of {d}" for d in header.custom_domains)
    engine = _onnx_engine(header)
    return ModelFile(path, external, _onnx(header, size), header.tensors, engine, warnings)


def _gguf_file(path: Path, header: GgufHeader, size: int) -> ModelFile:
    split = gguf_split.read_split(path, header)
    if split is not None:
        header, size = split.header, split.size
    description = _gguf(header, size)
    return ModelFile(path, (), description, header.tensors, _gguf_engine(header), split=split)


def _external(path: Path, header: OnnxHeader) -> tuple[Path, ...]:
    """The external data files, each there and long enough for what the model takes from it."""
    found = []
    for name, needed in sorted(header.external_files.items()):
        data = path.parent / name
        if not data.is_file():
            raise SealpackError("MODEL_MISSING", f"{path.name} keeps weights in {name}, which is missing")
        if data.stat().st_size < needed:
            raise SealpackError(
                "MODEL_TRUNCATED", f"{name} is {data.stat().st_size} bytes, {needed} are needed"
            )
        found.append(data)
    return tuple(found)


def _onnx(header: OnnxHeader, size: int) -> ModelDescription:
    return ModelDescription(
        format="onnx",
        size=size,
        name=header.name,
        version=header.prop("version"),
        description=header.prop("description"),
        author=header.prop("author"),
        license=header.license,
        architecture=header.prop("architecture") or header.prop("model_type"),
        quantization=header.quantization or None,
        parameters=header.parameter_count,
        opsets=tuple(sorted(header.opsets.items())),
        ir_version=header.ir_version,
        producer=f"{header.producer_name} {header.producer_version}".strip() or None,
        inputs=tuple(_port(value) for value in header.inputs),
        outputs=tuple(_port(value) for value in header.outputs),
        base_models=_prop_base(header),
        external=tuple(sorted(header.external_files)),
    )


def _port(value: ValueInfo) -> Port:
    known = value.shape if value.shape is not None else ("...",)
    return Port(value.name, value.dtype or value.kind, tuple(d if d != "" else "?" for d in known))


def _prop_base(header: OnnxHeader) -> tuple[BaseRef, ...]:
    base = header.prop("base_model")
    return (BaseRef(base),) if base else ()


def _onnx_engine(header: OnnxHeader) -> dict[str, Any]:
    return {
        "name": "onnxruntime",
        "ir_version": header.ir_version,
        "opsets": dict(header.opsets),
        "domains": list(header.domains),
        "dtype": header.quantization,
    }


def _gguf(header: GgufHeader, size: int) -> ModelDescription:
    tokenizer = header.text("tokenizer.ggml.model")
    return ModelDescription(
        format="gguf",
        size=size,
        name=header.name,
        version=header.text("general.version"),
        description=header.text("general.description"),
        author=header.text("general.author") or header.text("general.organization"),
        license=header.license,
        architecture=header.architecture,
        quantization=header.quantization or None,
        parameters=header.parameter_count,
        producer=header.text("general.quantized_by"),
        context_length=header.context_length,
        embedding_length=header.integer(f"{header.architecture}.embedding_length"),
        tokenizer=tokenizer,
        base_models=_numbered_bases(header),
        datasets=_datasets(header),
    )


def _numbered_bases(header: GgufHeader) -> tuple[BaseRef, ...]:
    count = min(header.integer("general.base_model.count") or 0, _MAX_NAMED)
    found = []
    for index in range(count):
        at = f"general.base_model.{index}"
        name = header.text(f"{at}.name")
        if name:
            url = header.text(f"{at}.repo_url") or header.text(f"{at}.url")
            organization = header.text(f"{at}.organization")
            found.append(BaseRef(name, header.text(f"{at}.version"), organization, url))
    return tuple(found)


def _datasets(header: GgufHeader) -> tuple[str, ...]:
    count = min(header.integer("general.dataset.count") or 0, _MAX_NAMED)
    named = [header.text(f"general.dataset.{index}.name") for index in range(count)]
    listed = header.metadata.get("general.datasets")
    older = [v for v in listed if isinstance(v, str)] if isinstance(listed, tuple) else []
    return tuple(dict.fromkeys(name for name in (*named, *older) if name))


def _gguf_engine(header: GgufHeader) -> dict[str, Any]:
    context = header.context_length
    return {
        "name": "llama.cpp",
        "gguf_version": header.version,
        "architecture": header.architecture,
        "quantization": header.quantization,
        **({} if context is None else {"context_length": context}),
    }


def io_member(model: ModelDescription, io: IoSection, files: set[str]) -> dict[str, Any]:
    """The manifest's `io`: what the creator declared, completed from the model where it is silent.

    `files` are the payload's entry names. CONFIG_INVALID when a field is wrong, names a file that is
    not packed, or an output the model does not have.
    """
    declared = {"task": io.task, "pre": io.pre, "post": io.post, "samples": io.samples}
    outputs = [port.name for port in model.outputs]
    member = {
        **complete(declared, model.format, model.architecture, outputs),
        "inputs": [_port_member(port) for port in model.inputs],
        "outputs": [_port_member(port) for port in model.outputs],
    }
    _check_io(ModelIo.parse(Fields(member, "io", "CONFIG_INVALID")), model, files)
    return member


def _check_io(io: ModelIo, model: ModelDescription, files: set[str]) -> None:
    if io.pre is not None and io.pre.vocab is not None and io.pre.vocab not in files:
        raise SealpackError(
            "CONFIG_INVALID", f"io.pre.vocab: {io.pre.vocab} is not packed; list it under [[files]]"
        )
    outputs = [port.name for port in model.outputs]
    if io.post is not None and outputs and io.post.output not in outputs:
        raise SealpackError(
            "CONFIG_INVALID",
            f"io.post.output: the model has no output {io.post.output!r}, but {', '.join(outputs)}",
        )


def _port_member(port: Port) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}
