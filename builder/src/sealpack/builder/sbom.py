"""The bundle's bill of materials: CycloneDX 1.6 with model card, data, keys and formulation.

Source: specs/sbom.md. Built with cyclonedx-python-lib (sbom_components), completed with the members the
library does not know (sbom_members), validated offline against the schema and by our own checks
(sbom_check). The same facts give the same bytes: canonical JSON, a name-based serial number, and the
signing time as timestamp.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion

from sealpack.builder import sbom_components as parts, sbom_members
from sealpack.builder.sbom_check import check, invalid
from sealpack.builder.sbom_input import SbomInput
from sealpack.format import canonical

SERIAL_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:sealpack:sbom:v1")


def build(given: SbomInput) -> bytes:
    """Return the SBOM's bytes, checked by our own rules; SBOM_INVALID names what is wrong."""
    bom, libraries = _library_bom(given)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    _complete(document, given, libraries)
    data = canonical.dumps(document)
    check(data)
    return data


def validate(data: bytes) -> None:
    """Check `data` against the CycloneDX 1.6 schema, offline, and by our own rules."""
    from cyclonedx.validation.json import JsonStrictValidator  # most of a second, and not always needed

    check(data)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode("utf-8"))
    if problem is not None:
        first = str(problem).splitlines()[0][:300]
        raise invalid(f"does not fit the CycloneDX 1.6 schema: {first}")


def _library_bom(given: SbomInput) -> tuple[Bom, list[str]]:
    root = parts.bundle_component(given)
    model = parts.model_component(given)
    files = [parts.file_component(fact) for fact in parts.other_payload(given)]
    datasets = [parts.dataset_component(i, d) for i, d in enumerate(parts.datasets(given))]
    runtime = parts.runtime_component(given)
    libraries = [
        parts.library_component(n)
        for n in (*parts.ENGINE_LIBRARIES[given.model.format], *parts.CORE_LIBRARIES)
    ]
    crypto = parts.crypto_components(given.keys)
    bom = Bom(serial_number=serial_number(given), version=1, metadata=_metadata(given, root))
    for component in (model, *files, *datasets, runtime, *libraries, *crypto):
        bom.components.add(component)
        bom.register_dependency(component)
    bom.register_dependency(root, [model, *files, runtime, *crypto])
    bom.register_dependency(model, [*files, *datasets])
    bom.register_dependency(runtime, libraries)
    keys = [c for c in crypto if str(c.bom_ref).startswith("key:")]
    for key in keys:
        bom.register_dependency(key, [c for c in crypto if str(c.bom_ref).startswith("crypto:")])
    return bom, [str(c.bom_ref) for c in (runtime, *libraries)]


def serial_number(given: SbomInput) -> uuid.UUID:
    """Name-based: what is built and from which bytes, so a rebuild has the same number."""
    name = canonical.dumps(
        {
            "bundle_id": given.bundle.id,
            "version": given.bundle.version,
            "release_index": given.bundle.release_index,
            "signed_at": given.signed_at,
            "files": [[fact.name, fact.sha256] for fact in given.files],
        }
    )
    return uuid.uuid5(SERIAL_NAMESPACE, name.decode("utf-8"))


def _metadata(given: SbomInput, root: Component) -> BomMetaData:
    return BomMetaData(
        timestamp=dt.datetime.fromtimestamp(given.signed_at, dt.UTC),
        lifecycles=[PredefinedLifecycle(LifecyclePhase.BUILD)],
        tools=ToolRepository(components=[parts.tool_component()]),
        manufacturer=parts.supplier(given),
        supplier=parts.supplier(given),
        component=root,
    )


def _complete(document: dict[str, Any], given: SbomInput, libraries: list[str]) -> None:
    """Add what the library has no classes for."""
    by_ref = {component["bom-ref"]: component for component in document["components"]}
    dataset_refs = [f"data:{i}" for i, _ in enumerate(parts.datasets(given))]
    by_ref["model"]["modelCard"] = sbom_members.model_card(
        "model-card", given.model, given.task, given.sbom, dataset_refs
    )
    by_ref["model"]["mime-type"] = given.of_role("model")[0].media_type
    for fact in parts.other_payload(given):  # the library writes it as `mimeType`, which no schema has
        by_ref[f"file:{fact.name}"]["mime-type"] = fact.media_type
    for ref, dataset in zip(dataset_refs, parts.datasets(given), strict=True):
        by_ref[ref]["data"] = [sbom_members.dataset_data(dataset)]
    _add_licensing(document["metadata"]["component"], given)
    inputs = [*dataset_refs, *(["base:0"] if parts.pedigree(given) else [])]
    document["formulation"] = sbom_members.formulation(
        given.sbom,
        marked=given.marked,
        inputs=inputs,
        uid=str(serial_number(given)),
        tool="tool:sealpack",
    )
    complete = [ref for ref in ("bundle", *by_ref) if ref not in libraries]
    document["compositions"] = sbom_members.compositions(complete, libraries)


def _add_licensing(bundle: dict[str, Any], given: SbomInput) -> None:
    """A license of one's own (LicenseRef) is commercial: say by whom, and to whom if marked."""
    for entry in bundle.get("licenses", ()):
        license = entry.get("license", {})
        if "name" not in license:
            continue
        supplier = given.sbom.supplier or given.bundle.id.split("/")[0]
        licensing: dict[str, Any] = {
            "licensor": {"organization": {"name": supplier}},
            "licenseTypes": ["other"],
        }
        if given.license_id:
            licensing["altIds"] = [given.license_id]
        if given.licensee:
            licensing["licensee"] = {"organization": {"name": given.licensee}}
        license["licensing"] = licensing
