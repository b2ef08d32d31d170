"""The tables of sealpack.toml as frozen values. Source: specs/config.md, "Format"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealpack.builder.presets import Preset
from sealpack.format.manifest import Threshold


@dataclass(frozen=True, slots=True)
class BundleSection:
    """[bundle]: what the bundle is called and meant for. None means: take it from the model."""

    id: str
    version: str
    release_index: int
    name: str | None = None
    kind: str | None = None
    description: str | None = None
    quality_tier: str | None = None
    intended_use: str | None = None
    recertify_by: str | None = None
    support: str | None = None
    requires_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceSection:
    """[evidence]: documents that ride along, the bounds they must meet, a tier policy of one's own."""

    files: tuple[Path, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    tier_policy: Path | None = None


@dataclass(frozen=True, slots=True)
class ExtraFile:
    """[[files]]: a tokenizer, vocabulary or the like that travels under payload/."""

    path: Path
    name: str
    role: str
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class TermsSection:
    """[license.terms]: what a machine can read of the license; it grants nothing by itself."""

    title: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    attribution: str | None = None
    ack_required: bool = False
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LicenseSection:
    """[license]: the SPDX id or LicenseRef, the full text, the machine-readable terms."""

    spdx: str | None = None
    text: Path | None = None
    terms: TermsSection = field(default_factory=TermsSection)
    profiles: Mapping[str, Preset] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IoSection:
    """[io]: the task, declared pre- and post-processing, samples with expected answers."""

    task: str | None = None
    pre: Mapping[str, Any] | None = None
    post: Mapping[str, Any] | None = None
    samples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """[[sbom.datasets]]: one data set behind the model."""

    name: str
    use: str
    url: str | None = None
    license: str | None = None
    description: str | None = None
    owner: str | None = None
    classification: str | None = None
    sensitive: tuple[str, ...] = ()
    content: str | None = None
    provenance: str | None = None
    statistics: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BaseModel:
    """[sbom.base_model]: what this model was made from."""

    name: str
    version: str | None = None
    purl: str | None = None
    license: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """[[sbom.metrics]]: one measured figure; values are decimal strings."""

    type: str
    value: str
    slice: str | None = None
    lower: str | None = None
    upper: str | None = None


@dataclass(frozen=True, slots=True)
class Considerations:
    """[sbom.considerations]: users, uses, limits, trade-offs and risks, in plain sentences."""

    users: tuple[str, ...] = ()
    use_cases: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    tradeoffs: tuple[str, ...] = ()
    ethical: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """[[sbom.steps]]: one step by which the model file was made, before `sealpack build`."""

    name: str
    description: str | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class SecuritySection:
    """[sbom.security]: the creator's own controls, what they comply with, and where to report faults."""

    controls: tuple[str, ...] = ()
    compliance: tuple[str, ...] = ()
    policy_url: str | None = None
    advisories_url: str | None = None


@dataclass(frozen=True, slots=True)
class SbomSection:
    """[sbom]: what no model file says of itself. `not_applicable` pairs an element's id with the reason."""

    supplier: str | None = None
    supplier_url: str | None = None
    contact: str | None = None
    approach: str | None = None
    architecture: str | None = None
    purl: str | None = None
    base_model: BaseModel | None = None
    datasets: tuple[Dataset, ...] = ()
    metrics: tuple[Metric, ...] = ()
    considerations: Considerations = field(default_factory=Considerations)
    steps: tuple[Step, ...] = ()
    model_date: str | None = None
    data_flow: str | None = None
    data_usage: str | None = None
    hardware: str | None = None
    security: SecuritySection = field(default_factory=SecuritySection)
    not_applicable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KeysSection:
    """[keys]: private key files or pkcs11: URIs (str); `passphrase_file` opens encrypted files."""

    bundle: Path | str | None = None
    license: Path | str | None = None
    passphrase_file: Path | None = None
