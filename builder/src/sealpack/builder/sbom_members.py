"""The members of the SBOM that cyclonedx-python-lib does not know, as plain JSON values.

Source: specs/sbom.md, sections "Model card", "Data", "Formulation", "Compositions". Nothing here
invents a fact: a member without a source is left out.
"""

from __future__ import annotations

from typing import Any

from sealpack.builder.model import ModelDescription, Port
from sealpack.builder.sections import Dataset, Metric, SbomSection

FAMILIES = {"bert": "transformer", "llama": "transformer", "qwen2": "transformer"}


def pruned(value: dict[str, Any]) -> dict[str, Any]:
    """`value` without members that are None or empty."""
    return {key: member for key, member in value.items() if member not in (None, "", [], {}, ())}


def model_card(
    ref: str, model: ModelDescription, task: str | None, sbom: SbomSection, dataset_refs: list[str]
) -> dict[str, Any]:
    """The model component's `modelCard`."""
    architecture = sbom.architecture or model.architecture
    return pruned(
        {
            "bom-ref": ref,
            "modelParameters": pruned(
                {
                    "approach": pruned({"type": sbom.approach}),
                    "task": task,
                    "architectureFamily": FAMILIES.get(architecture or ""),
                    "modelArchitecture": architecture,
                    "datasets": [{"ref": ref} for ref in dataset_refs],
                    "inputs": [{"format": port_text(p)} for p in model.inputs],
                    "outputs": [{"format": port_text(p)} for p in model.outputs],
                }
            ),
            "quantitativeAnalysis": pruned(
                {"performanceMetrics": [_metric(metric) for metric in sbom.metrics]}
            ),
            "considerations": _considerations(sbom),
            "properties": [{"name": n, "value": v} for n, v in model_properties(model)],
        }
    )


def port_text(port: Port) -> str:
    """`name: dtype[d0, d1]`, for people and for tools that only know `format`."""
    return f"{port.name}: {port.dtype}[{', '.join(map(str, port.shape))}]"


def model_properties(model: ModelDescription) -> list[tuple[str, str]]:
    """What CycloneDX has no member for, under our own property names."""
    facts: list[tuple[str, object]] = [
        ("format", model.format),
        ("parameters", model.parameters),
        ("quantization", model.quantization),
        ("ir-version", model.ir_version),
        ("producer", model.producer),
        ("context-length", model.context_length),
        ("embedding-length", model.embedding_length),
        ("tokenizer", model.tokenizer),
        *((f"opset:{domain or 'ai.onnx'}", version) for domain, version in model.opsets),
    ]
    return [(f"sealpack:model:{name}", str(value)) for name, value in facts if value is not None]


def _metric(metric: Metric) -> dict[str, Any]:
    interval = pruned({"lowerBound": metric.lower, "upperBound": metric.upper})
    return pruned(
        {
            "type": metric.type,
            "value": metric.value,
            "slice": metric.slice,
            "confidenceInterval": interval,
        }
    )


def _considerations(sbom: SbomSection) -> dict[str, Any]:
    c = sbom.considerations
    return pruned(
        {
            "users": list(c.users),
            "useCases": list(c.use_cases),
            "technicalLimitations": list(c.limitations),
            "performanceTradeoffs": list(c.tradeoffs),
            "ethicalConsiderations": [
                pruned({"name": name, "mitigationStrategy": mitigation}) for name, mitigation in c.ethical
            ],
        }
    )


def dataset_data(dataset: Dataset) -> dict[str, Any]:
    """The `data` entry of a data component."""
    owners = [{"organization": {"name": dataset.owner}}] if dataset.owner else []
    return pruned(
        {
            "type": "dataset",
            "name": dataset.name,
            "contents": pruned({"url": dataset.url}),
            "classification": dataset.classification,
            "sensitiveData": list(dataset.sensitive),
            "description": dataset.description,
            "governance": pruned({"owners": owners}),
        }
    )


def formulation(
    sbom: SbomSection, *, marked: bool, inputs: list[str], uid: str, tool: str
) -> list[dict[str, Any]]:
    """How the bundle came about: the creator's declared steps, then ours, in order.

    `inputs` are bom-refs of what went in (data sets, base model); `uid` names this build.
    """
    steps = [
        pruned(
            {
                "name": step.name,
                "description": step.description,
                "commands": [{"executed": step.command}] if step.command else [],
            }
        )
        for step in sbom.steps
    ]
    if marked:
        steps.append({"name": "watermark", "description": "per-licensee mark added to the float weights"})
    steps.append({"name": "checksum", "description": "SHA-256 of every file and of each 1 MiB of payload"})
    steps.append({"name": "sign", "description": "model-signing statement over every file's digest"})
    workflow = {
        "bom-ref": "workflow",
        "uid": uid,
        "name": "sealpack build",
        "taskTypes": ["build"],
        "inputs": [{"resource": {"ref": ref}} for ref in inputs],
        "outputs": [{"type": "artifact", "resource": {"ref": "bundle"}}],
        "steps": steps,
        "resourceReferences": [{"ref": tool}],
    }
    return [{"bom-ref": "formula", "workflows": [pruned(workflow)]}]


def compositions(complete: list[str], libraries: list[str]) -> list[dict[str, Any]]:
    """Say how complete the lists are: ours are, the libraries' own dependencies are not listed."""
    return [
        {"aggregate": "complete", "assemblies": ["bundle"]},
        {"aggregate": "complete", "dependencies": sorted(complete)},
        {"aggregate": "incomplete", "dependencies": sorted(libraries)},
    ]
