"""The minimum elements of an SBOM for AI, and where each stands in a CycloneDX document.

Source: specs/sbom.md, "Completeness". The elements are those of "SBOM for AI - Minimum Elements" (G7
Cybersecurity Working Group, 2026-05-12); the places and the hints are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

STANDARD = "SBOM for AI - Minimum Elements (G7, 2026-05-12)"
CLUSTERS = {
    "metadata": "Metadata",
    "system": "System level properties",
    "models": "Models",
    "datasets": "Dataset properties",
    "kpi": "Key performance indicators",
    "infrastructure": "Infrastructure",
    "security": "Security properties",
}


@dataclass(frozen=True, slots=True)
class Element:
    """One minimum element.

    `scope` says which objects must have it, each of them: the `document`, the `bundle` (its
    metadata.component), every `model` component or every `dataset` component. `paths` are the places
    that count, any one of them; `@name` is a question that no path can ask (completeness.py answers it).
    `waivable` elements may be declared not applicable. `hint` says what to add.
    """

    id: str
    cluster: str
    title: str
    scope: str
    paths: tuple[str, ...]
    hint: str
    waivable: bool = False


def _metadata(name: str, title: str, hint: str, *paths: str) -> Element:
    return Element(name, "metadata", title, "document", paths, hint)


def _system(name: str, title: str, hint: str, *paths: str, waivable: bool = False) -> Element:
    return Element(name, "system", title, "bundle", paths, hint, waivable)


def _model(name: str, title: str, hint: str, *paths: str) -> Element:
    return Element(name, "models", title, "model", paths, hint)


def _dataset(name: str, title: str, hint: str, *paths: str) -> Element:
    return Element(name, "datasets", title, "dataset", paths, hint, True)


def _other(name: str, cluster: str, title: str, scope: str, hint: str, *paths: str) -> Element:
    return Element(name, cluster, title, scope, paths, hint, True)


_TOOLS = ("metadata.tools.components", "metadata.tools.services", "metadata.tools")
_REBUILD = "build the bundle again with this version of sealpack"
_CARD = "modelCard.modelParameters"
_METRICS = "modelCard.quantitativeAnalysis.performanceMetrics"

ELEMENTS: tuple[Element, ...] = (
    _metadata(
        "sbom-author",
        "SBOM author",
        "name the maker: sbom.supplier in sealpack.toml",
        "metadata.authors.name",
        "metadata.manufacturer.name",
    ),
    _metadata("sbom-version", "SBOM version", "give the document a version", "version"),
    _metadata("sbom-format-name", "SBOM data format name", "write it as CycloneDX", "bomFormat"),
    _metadata("sbom-format-version", "SBOM data format version", "state specVersion", "specVersion"),
    _metadata(
        "sbom-author-signature",
        "SBOM author signature",
        "sign the bundle: its signature covers the SBOM",
        "@signed",
        "signature.value",
    ),
    _metadata("sbom-tool-name", "SBOM tool name", _REBUILD, *(f"{t}.name" for t in _TOOLS)),
    _metadata("sbom-tool-version", "SBOM tool version", _REBUILD, *(f"{t}.version" for t in _TOOLS)),
    _metadata(
        "sbom-generation-context",
        "SBOM generation context",
        "state metadata.lifecycles",
        "metadata.lifecycles.phase",
        "metadata.lifecycles.name",
    ),
    _metadata("sbom-timestamp", "SBOM timestamp", "state metadata.timestamp", "metadata.timestamp"),
    _metadata(
        "sbom-dependency-relationship",
        "SBOM dependency relationship",
        "list which component depends on which",
        "dependencies.dependsOn",
    ),
    _system("system-name", "System name", "name the bundle: bundle.id", "name"),
    Element(
        "system-components",
        "system",
        "System components",
        "document",
        ("components.name",),
        "list the components",
    ),
    _system(
        "system-producer",
        "System producer",
        "name the maker: sbom.supplier",
        "supplier.name",
        "manufacturer.name",
        "authors.name",
    ),
    _system("system-version", "System version", "give the bundle a version: bundle.version", "version"),
    _system(
        "system-timestamp",
        "System timestamp",
        _REBUILD,
        "releaseNotes.timestamp",
        "properties[sealpack:built-at].value",
    ),
    _system(
        "system-data-flow",
        "System data flow",
        "say how data flows: sbom.data_flow",
        "properties[sealpack:data-flow].value",
        waivable=True,
    ),
    _system(
        "system-data-usage",
        "System data usage",
        "say what happens to data: sbom.data_usage",
        "properties[sealpack:data-usage].value",
        waivable=True,
    ),
    _system(
        "system-input-output-properties",
        "System input/output properties",
        "declare the task and the processing: [io]",
        "properties[sealpack:io:*].value",
    ),
    _system(
        "intended-application-area",
        "Intended application area",
        "say what it is for: bundle.intended_use",
        "properties[sealpack:intended-use].value",
    ),
    _model("model-name", "Model name", "name the model: bundle.name", "name"),
    _model(
        "model-identifier",
        "Model identifier",
        "give it a package URL: sbom.purl",
        "purl",
        "cpe",
        "swid.tagId",
        "swhid",
        "omniborId",
    ),
    _model("model-version", "Model version", "give it a version: bundle.version", "version"),
    _model(
        "model-timestamp",
        "Model timestamp",
        "say when the model was made or last changed: sbom.model_date",
        "releaseNotes.timestamp",
        "properties[sealpack:model-date].value",
    ),
    _model(
        "model-producer",
        "Model producer",
        "name who made it: sbom.supplier, or the author in the model file",
        "authors.name",
        "manufacturer.name",
        "publisher",
        "supplier.name",
    ),
    _model("model-description", "Model description", "describe it: bundle.description", "description"),
    _model("model-hash-value", "Model hash value", "state the weights' digest", "@model-digest"),
    _model("model-hash-algorithm", "Model hash algorithm", "state the digest's algorithm", "hashes.alg"),
    _model(
        "model-properties",
        "Model properties",
        "name the architecture: sbom.architecture",
        f"{_CARD}.modelArchitecture",
        f"{_CARD}.architectureFamily",
    ),
    _model(
        "model-input-output-properties",
        "Model input/output properties",
        "list inputs and outputs; sealpack build reads them from an ONNX file",
        f"{_CARD}.inputs.format",
        "modelCard.properties[sealpack:model:context-length].value",
    ),
    _model(
        "model-training-properties",
        "Model training properties",
        "say how it was trained: sbom.approach",
        f"{_CARD}.approach.type",
    ),
    _model(
        "model-license",
        "Model license",
        "state the license: license.spdx",
        "licenses.license.id",
        "licenses.license.name",
        "licenses.expression",
    ),
    _model(
        "model-external-references",
        "Model external references",
        "add a model card: card.file",
        "externalReferences.url",
    ),
    _dataset("dataset-name", "Dataset name", "list the data sets: sbom.datasets", "name"),
    _dataset(
        "dataset-description",
        "Dataset description",
        "describe each: sbom.datasets[].description",
        "description",
        "data.description",
    ),
    _dataset(
        "dataset-content",
        "Dataset content",
        "say what kind of data: sbom.datasets[].content",
        "properties[sealpack:dataset:content].value",
        "data.contents.attachment.content",
    ),
    _dataset(
        "dataset-identifier",
        "Dataset identifier",
        "say where it is: sbom.datasets[].url",
        "purl",
        "externalReferences[distribution].url",
        "data.contents.url",
    ),
    _dataset("dataset-hash", "Dataset hash", "state its digest: sbom.datasets[].sha256", "hashes.content"),
    _dataset(
        "dataset-provenance",
        "Dataset provenance",
        "say where it comes from: sbom.datasets[].provenance or owner",
        "properties[sealpack:dataset:provenance].value",
        "data.governance.owners.organization.name",
        "data.governance.custodians.organization.name",
    ),
    _dataset(
        "dataset-statistical-properties",
        "Dataset statistical properties",
        "say how much and how it is spread: sbom.datasets[].statistics",
        "properties[sealpack:dataset:statistics].value",
    ),
    _dataset(
        "dataset-sensitivity",
        "Dataset sensitivity",
        "classify it: sbom.datasets[].classification or sensitive",
        "data.classification",
        "data.sensitiveData",
    ),
    _dataset(
        "dataset-dependency-relationship",
        "Dataset dependency relationship",
        "say which component depends on it",
        "@dataset-used",
    ),
    _dataset(
        "dataset-license",
        "Dataset license",
        "state its license: sbom.datasets[].license",
        "licenses.license.id",
        "licenses.license.name",
        "licenses.expression",
    ),
    _other(
        "security-metrics",
        "kpi",
        "Security metrics",
        "model",
        "measure it: sbom.metrics with a type that begins with security:",
        f"{_METRICS}[security:*].value",
    ),
    _other(
        "operational-performance",
        "kpi",
        "Operational performance KPIs",
        "model",
        "measure it: sbom.metrics, or signed evidence",
        f"{_METRICS}[!security:*].value",
        "externalReferences[evidence].url",
    ),
    _other(
        "infrastructure-software",
        "infrastructure",
        "Infrastructure software",
        "document",
        "list what runs the model",
        "components[library].name",
        "components[framework].name",
        "components[platform].name",
        "components[operating-system].name",
        "components[container].name",
    ),
    _other(
        "infrastructure-hardware",
        "infrastructure",
        "Infrastructure hardware",
        "document",
        "say which hardware it needs: sbom.hardware",
        "components[device].name",
        "components.properties[sealpack:hardware].value",
        "metadata.component.externalReferences[bom].url",
    ),
    _other(
        "security-controls",
        "security",
        "Security controls",
        "bundle",
        "list the controls: sbom.security.controls",
        "properties[sealpack:security-control].value",
    ),
    _other(
        "security-compliance",
        "security",
        "Security compliance",
        "bundle",
        "name standards or certificates: sbom.security.compliance",
        "properties[sealpack:security-compliance].value",
        "externalReferences[certification-report].url",
    ),
    _other(
        "security-policy",
        "security",
        "Cybersecurity policy information",
        "bundle",
        "link your security.txt: sbom.security.policy_url",
        "externalReferences[security-contact].url",
    ),
    _other(
        "vulnerability-referencing",
        "security",
        "Vulnerability referencing",
        "bundle",
        "link your advisories: sbom.security.advisories_url",
        "externalReferences[advisories].url",
        "externalReferences[vulnerability-assertion].url",
        "externalReferences[exploitability-statement].url",
        "@vulnerabilities",
    ),
)
WAIVABLE = tuple(element.id for element in ELEMENTS if element.waivable)
