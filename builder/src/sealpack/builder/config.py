"""One `sealpack.toml` per model project, read strictly into frozen values.

Source: specs/config.md. Unknown keys are refused with their path, file names stand relative to
the file's own folder, and flags of `sealpack build` override what is written here.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sealpack.builder import profiles
from sealpack.builder.key_uri import KeyUri, is_uri
from sealpack.builder.sections import (
    BaseModel,
    BundleSection,
    Considerations,
    Dataset,
    EvidenceSection,
    ExtraFile,
    IoSection,
    KeysSection,
    LicenseSection,
    Metric,
    SbomSection,
    SecuritySection,
    Step,
    TermsSection,
)
from sealpack.builder.toml_table import Table, invalid
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import METRIC_NAME
from sealpack.format.io import DECIMAL
from sealpack.format.manifest import TIERS, Threshold
from sealpack.format.values import FEATURE, IDENTIFIER, VERSION_PATTERN
from sealpack.verifier.completeness_elements import WAIVABLE

T = TypeVar("T")

CONFIG_NAME = "sealpack.toml"
MAX_CONFIG_BYTES = 1 << 20

BUNDLE_ID = r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+"
ENTRY_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._/-]{0,180}"
KINDS = ("onnx", "gguf")
ROLES = ("tokenizer", "vocabulary", "labels", "asset")
DATASET_USES = ("training", "validation", "testing", "calibration", "other")
APPROACHES = (
    "supervised",
    "unsupervised",
    "reinforcement-learning",
    "semi-supervised",
    "self-supervised",
)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole sealpack.toml."""

    folder: Path
    bundle: BundleSection
    license: LicenseSection
    io: IoSection
    sbom: SbomSection
    keys: KeysSection
    model: Path | None = None
    publisher: str | None = None
    card: Path | None = None
    evidence: EvidenceSection = dataclasses.field(default_factory=EvidenceSection)
    files: tuple[ExtraFile, ...] = ()
    trust: Path | None = None


def load(path: Path) -> Config:
    """Read and check `path`; FILE_MISSING or CONFIG_INVALID."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SealpackError("FILE_MISSING", f"no configuration file at {path}") from None
    except OSError as error:
        raise SealpackError("IO_ERROR", f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise invalid(str(path), f"is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        return parse(data.decode("utf-8"), path.resolve().parent)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise invalid(str(path), f"is not TOML: {error}") from None


def parse(text: str, folder: Path) -> Config:
    """Check the TOML `text`, whose file names stand on `folder`."""
    top = Table(tomllib.loads(text), "", folder)
    project, card, trust = (top.sub(name) for name in ("project", "card", "trust"))
    config = Config(
        folder=folder,
        publisher=project.text("publisher"),
        model=project.file("model"),
        bundle=_closed(top.sub("bundle"), _bundle),
        license=_closed(top.sub("license"), _license),
        io=_closed(top.sub("io"), _io),
        sbom=_closed(top.sub("sbom"), _sbom),
        keys=_closed(top.sub("keys"), _keys),
        card=card.file("file"),
        evidence=_closed(top.sub("evidence"), _evidence),
        files=top.each("files", _extra),
        trust=trust.file("file"),
    )
    for table in (project, card, trust, top):
        table.close()
    return config


def _closed(table: Table, read: Callable[[Table], T]) -> T:
    value = read(table)
    table.close()
    return value


def _bundle(table: Table) -> BundleSection:
    release_index = table.integer("release_index", lo=1)
    return BundleSection(
        id=table.required("id", pattern=BUNDLE_ID),
        version=table.required("version", pattern=VERSION_PATTERN),
        release_index=1 if release_index is None else release_index,
        name=table.text("name", max_len=200),
        kind=table.choice("kind", KINDS),
        description=table.text("description"),
        quality_tier=table.choice("quality_tier", TIERS),
        intended_use=table.text("intended_use"),
        recertify_by=table.date("recertify_by"),
        support=table.text("support", max_len=200),
        requires_features=_features(table, "requires_features"),
    )


def _features(table: Table, key: str) -> tuple[str, ...]:
    words = table.texts(key)
    for word in words:
        if not re.fullmatch(FEATURE, word):
            table.fail(key, f"{word!r} does not fit the pattern {FEATURE}")
    return words


def _evidence(table: Table) -> EvidenceSection:
    return EvidenceSection(
        files=table.files("files"),
        thresholds=table.each("thresholds", _threshold),
        tier_policy=table.file("tier_policy"),
    )


def _threshold(table: Table) -> Threshold:
    bounds = {name: table.text(name, pattern=DECIMAL) for name in ("min", "max")}
    if sum(value is not None for value in bounds.values()) != 1:
        table.fail("min", "or max: exactly one is needed")
    return Threshold(table.required("metric", pattern=METRIC_NAME), **bounds)


def _extra(table: Table) -> ExtraFile:
    path = table.file("path")
    if path is None:
        table.fail("path", "is missing")
    return ExtraFile(
        path=path,
        name=table.text("name", pattern=ENTRY_NAME) or path.name,
        role=table.choice("role", ROLES) or "asset",
        media_type=table.text("media_type", max_len=100),
    )


def _license(table: Table) -> LicenseSection:
    return LicenseSection(
        spdx=table.text("spdx", max_len=200),
        text=table.file("text"),
        terms=_closed(table.sub("terms"), _terms),
        profiles=_closed(table.sub("profiles"), profiles.read),
    )


def _terms(table: Table) -> TermsSection:
    return TermsSection(
        title=table.text("title", max_len=200),
        allow=table.texts("allow"),
        deny=table.texts("deny"),
        attribution=table.text("attribution"),
        ack_required=table.boolean("ack_required", False),
        plan=_closed(table.sub("plan"), _plan) if "plan" in table else None,
    )


def _plan(table: Table) -> Mapping[str, Any]:
    return {
        "id": table.required("id", pattern=IDENTIFIER),
        "version": table.integer("version", lo=1) or 1,
    }


def _io(table: Table) -> IoSection:
    samples = table.free("samples")
    if samples is not None and not (isinstance(samples, list) and all(isinstance(s, dict) for s in samples)):
        table.fail("samples", "must be an array of tables")
    return IoSection(
        task=table.text("task", pattern=r"[a-z0-9-]{1,64}"),
        pre=_free_table(table, "pre"),
        post=_free_table(table, "post"),
        samples=tuple(samples or ()),
    )


def _free_table(table: Table, key: str) -> Mapping[str, Any] | None:
    value = table.free(key)
    if value is not None and not isinstance(value, dict):
        table.fail(key, "must be a table")
    return value


def _sbom(table: Table) -> SbomSection:
    return SbomSection(
        supplier=table.text("supplier", max_len=200),
        supplier_url=table.text("supplier_url"),
        contact=table.text("contact", max_len=200),
        approach=table.choice("approach", APPROACHES),
        architecture=table.text("architecture", max_len=200),
        purl=table.text("purl"),
        base_model=_closed(table.sub("base_model"), _base_model) if "base_model" in table else None,
        datasets=table.each("datasets", _dataset),
        metrics=table.each("metrics", _metric),
        considerations=_closed(table.sub("considerations"), _considerations),
        steps=table.each("steps", _step),
        model_date=table.date("model_date"),
        data_flow=table.text("data_flow", max_len=2000),
        data_usage=table.text("data_usage", max_len=2000),
        hardware=table.text("hardware", max_len=2000),
        security=_closed(table.sub("security"), _security),
        not_applicable=_closed(table.sub("not_applicable"), _not_applicable),
    )


def _security(table: Table) -> SecuritySection:
    return SecuritySection(
        controls=table.texts("controls"),
        compliance=table.texts("compliance"),
        policy_url=table.text("policy_url"),
        advisories_url=table.text("advisories_url"),
    )


def _not_applicable(table: Table) -> tuple[tuple[str, str], ...]:
    reasons = ((element, table.text(element, max_len=500)) for element in WAIVABLE)
    return tuple((element, reason) for element, reason in reasons if reason is not None)


def _base_model(table: Table) -> BaseModel:
    return BaseModel(
        name=table.required("name"),
        version=table.text("version"),
        purl=table.text("purl"),
        license=table.text("license"),
        url=table.text("url"),
    )


def _dataset(table: Table) -> Dataset:
    return Dataset(
        name=table.required("name"),
        use=table.choice("use", DATASET_USES) or "training",
        url=table.text("url"),
        license=table.text("license"),
        description=table.text("description"),
        owner=table.text("owner"),
        classification=table.text("classification"),
        sensitive=table.texts("sensitive"),
        content=table.text("content", max_len=500),
        provenance=table.text("provenance", max_len=2000),
        statistics=table.text("statistics", max_len=2000),
        sha256=table.text("sha256", pattern=r"[0-9a-f]{64}"),
    )


def _metric(table: Table) -> Metric:
    decimal = r"-?[0-9]+(\.[0-9]+)?"
    return Metric(
        type=table.required("type"),
        value=table.required("value", pattern=decimal),
        slice=table.text("slice"),
        lower=table.text("lower", pattern=decimal),
        upper=table.text("upper", pattern=decimal),
    )


def _considerations(table: Table) -> Considerations:
    return Considerations(
        users=table.texts("users"),
        use_cases=table.texts("use_cases"),
        limitations=table.texts("limitations"),
        tradeoffs=table.texts("tradeoffs"),
        ethical=table.each("ethical", lambda row: (row.required("name"), row.text("mitigation"))),
    )


def _step(table: Table) -> Step:
    return Step(
        name=table.required("name"),
        description=table.text("description"),
        command=table.text("command"),
    )


def _keys(table: Table) -> KeysSection:
    return KeysSection(
        bundle=_key(table, "bundle"),
        license=_key(table, "license"),
        passphrase_file=table.file("passphrase_file"),
    )


def _key(table: Table, name: str) -> Path | str | None:
    """A key file, or a key on a token; which code to load for that never stands in a project's file."""
    text = table.text(name)
    if text is None or not is_uri(text):
        return table.file(name)
    try:
        uri = KeyUri.parse(text)
    except SealpackError as error:
        table.fail(name, error.message)
    if uri.module_path is not None:
        table.fail(name, "must not name the PKCS#11 module: set SEALPACK_PKCS11_MODULE")
    return text


def minimal(bundle_id: str, version: str, folder: Path) -> Config:
    """A configuration from two flags alone, for a build without a sealpack.toml."""
    return Config(
        folder=folder,
        bundle=BundleSection(bundle_id, version, 1),
        license=LicenseSection(),
        io=IoSection(),
        sbom=SbomSection(),
        keys=KeysSection(),
    )


def override(
    config: Config,
    *,
    bundle: Mapping[str, Any],
    license: Mapping[str, Any],
    keys: Mapping[str, Any],
    evidence: Mapping[str, Any] | None = None,
    top: Mapping[str, Any],
) -> Config:
    """`config` with every value that is not None in place of its own, checked like the file's."""
    given = _given(bundle)
    _check_flag(given, "id", BUNDLE_ID)
    _check_flag(given, "version", VERSION_PATTERN)
    return dataclasses.replace(
        config,
        bundle=dataclasses.replace(config.bundle, **given),
        license=dataclasses.replace(config.license, **_given(license)),
        keys=dataclasses.replace(config.keys, **_given(keys)),
        evidence=dataclasses.replace(config.evidence, **_given(evidence or {})),
        **_given(top),
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _check_flag(given: Mapping[str, Any], key: str, pattern: str) -> None:
    if key in given and not re.fullmatch(pattern, given[key]):
        raise invalid(f"bundle.{key}", f"{given[key]!r} does not fit the pattern {pattern}")
