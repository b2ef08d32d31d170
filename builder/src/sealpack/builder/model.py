"""What a model file says of itself, in one value shared by the manifest and the SBOM.

Source: specs/manifest.md (`engine`) and specs/sbom.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Port:
    """One named tensor in or out; a dimension is an int, or a name where it is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class BaseRef:
    """A base model as the file itself names it."""

    name: str
    version: str | None = None
    organization: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Read from the file's header; None or empty where the file is silent.

    `parameters` counts the elements of all weights. `external` are the file names, relative to
    the model's own folder, that hold ONNX weights outside the model file.
    """

    format: str
    size: int
    name: str | None = None
    version: str | None = None
    description: str | None = None
    author: str | None = None
    license: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    parameters: int | None = None
    opsets: tuple[tuple[str, int], ...] = ()
    ir_version: int | None = None
    producer: str | None = None
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    context_length: int | None = None
    embedding_length: int | None = None
    tokenizer: str | None = None
    base_models: tuple[BaseRef, ...] = ()
    datasets: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
