"""The SBOM: what it says, that it is valid, and that our checks catch what the schema lets through."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.world import CREATOR, T0

from sealpack.builder import sbom, sections
from sealpack.builder.model import BaseRef, ModelDescription, Port
from sealpack.builder.sbom_check import check, check_expression
from sealpack.builder.sbom_input import SbomInput
from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.manifest import FileEntry


def entry(name: str, role: str, digit: str) -> FileEntry:
    return FileEntry(name, role, "application/octet-stream", 3, digit * 64)


GIVEN = SbomInput(
    bundle=sections.BundleSection("acme/minilm", "1.2.0", 3, support="help@acme.example"),
    model=ModelDescription(
        "onnx",
        10,
        name="MiniLM",
        architecture="bert",
        license="apache-2.0",
        parameters=22_500_000,
        opsets=(("ai.onnx", 20),),
        inputs=(Port("ids", "I64", ("batch", 8)),),
        base_models=(BaseRef("Base", "2"),),
        datasets=("Letters",),
    ),
    files=(
        entry("card.md", "card", "a"),
        entry("evidence/e.json", "evidence", "b"),
        entry("license/LICENSE.txt", "license-text", "c"),
        entry("payload/model.onnx", "model", "d"),
        entry("payload/vocab.txt", "vocabulary", "e"),
    ),
    sbom=sections.SbomSection(
        supplier="Acme",
        datasets=(sections.Dataset("SNLI", "training", license="CC-BY-4.0", owner="Someone"),),
        metrics=(sections.Metric("accuracy", "0.97", lower="0.96", upper="0.98"),),
        considerations=sections.Considerations(users=("nurses",), ethical=(("bias", None),)),
        steps=(sections.Step("convert", command="python convert.py"),),
    ),
    signed_at=T0,
    keys=(CREATOR.public,),
    task="embedding",
    license_expression="LicenseRef-acme",
)


def components(data: bytes) -> dict[str, Any]:
    return {c["bom-ref"]: c for c in json.loads(data)["components"]}


def test_same_facts_same_bytes_other_facts_other_serial() -> None:
    first = sbom.build(GIVEN)
    assert sbom.build(GIVEN) == first
    other = sbom.build(replace(GIVEN, signed_at=T0 + 1))
    assert json.loads(other)["serialNumber"] != json.loads(first)["serialNumber"]
    assert json.loads(first)["metadata"]["timestamp"] == "2026-09-21T14:13:20+00:00"


def test_model_component_says_what_the_file_says() -> None:
    model = components(sbom.build(GIVEN))["model"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["purl"].startswith("pkg:generic/acme/minilm@1.2.0?checksum=sha256:dddd")
    assert model["pedigree"]["ancestors"][0]["name"] == "Base"
    references = {r["type"]: (r["url"], r["hashes"][0]["content"]) for r in model["externalReferences"]}
    assert references == {"model-card": ("card.md", "a" * 64), "evidence": ("evidence/e.json", "b" * 64)}
    card = model["modelCard"]
    assert card["modelParameters"]["inputs"] == [{"format": "ids: I64[batch, 8]"}]
    assert card["modelParameters"]["architectureFamily"] == "transformer"
    assert len(card["modelParameters"]["datasets"]) == 2
    assert card["quantitativeAnalysis"]["performanceMetrics"][0]["value"] == "0.97"
    assert {"name": "sealpack:model:opset:ai.onnx", "value": "20"} in card["properties"]


def test_bundle_keys_libraries_and_steps_are_listed() -> None:
    document = json.loads(sbom.build(replace(GIVEN, marked=True, license_id="L-1", licensee="Ward")))
    refs = {c["bom-ref"] for c in document["components"]}
    assert {"runtime", "lib:onnxruntime", f"key:{CREATOR.keyid}", "data:0", "data:1"} <= refs
    assert len(document["dependencies"]) == len(document["components"]) + 1
    steps = [s["name"] for s in document["formulation"][0]["workflows"][0]["steps"]]
    assert steps == ["convert", "watermark", "checksum", "sign"]
    licensing = document["metadata"]["component"]["licenses"][0]["license"]["licensing"]
    assert licensing["altIds"] == ["L-1"]
    assert licensing["licensee"]["organization"]["name"] == "Ward"


def test_a_bad_url_is_refused_by_the_schema() -> None:
    bad = replace(GIVEN.sbom, datasets=(sections.Dataset("SNLI", "training", url="not a url at all"),))
    with pytest.raises(SealpackError) as caught:
        sbom.validate(sbom.build(replace(GIVEN, sbom=bad)))
    assert caught.value.code == "SBOM_INVALID"


def edit(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(json.loads(sbom.build(GIVEN)))
    change(document)
    return canonical.dumps(document)


def _two_rows(d: dict[str, Any]) -> None:
    d["dependencies"].append(dict(d["dependencies"][0]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["components"].append(dict(d["components"][0], name="other")), "used twice"),
        (lambda d: d["dependencies"].append({"ref": "ghost"}), "nowhere defined"),
        (lambda d: d["compositions"][0]["assemblies"].append("ghost"), "nowhere defined"),
        (_two_rows, "name a component twice"),
        (lambda d: d["dependencies"].pop(), "lack a row"),
        (lambda d: d["components"][-1].update(type="library"), "modelCard stands on"),
        (lambda d: d["components"][-1]["hashes"][0].update(content="d" * 40), "digest"),
        (lambda d: d["components"][-1]["hashes"][0].update(content="D" * 64), "digest"),
        (lambda d: d["components"][-1].update(licenses=[{"expression": "MIT AND"}]), "expression"),
        (lambda d: d.update(bomFormat="SPDX"), "not a CycloneDX"),
    ],
)
def test_our_checks_catch(change: Callable[[dict[str, Any]], object], says: str) -> None:
    with pytest.raises(SealpackError, match=says) as caught:
        sbom.validate(edit(change))
    assert caught.value.code == "SBOM_INVALID"


def test_a_key_standing_twice_is_caught() -> None:
    data = sbom.build(GIVEN).replace(b'"bomFormat":', b'"bomFormat":"x","bomFormat":', 1)
    with pytest.raises(SealpackError, match="same key twice"):
        check(data)


@pytest.mark.parametrize(
    "text", ["MIT", "MIT OR Apache-2.0", "(MIT AND LicenseRef-x) OR GPL-2.0+", "GPL-2.0 WITH X-exception"]
)
def test_expressions_that_are(text: str) -> None:
    check_expression(text, "here")


@pytest.mark.parametrize(
    "text", ["", "MIT AND", "AND MIT", "MIT Apache-2.0", "(MIT", "MIT)", "()", "MIT WITH", "a,b", None, 3]
)
def test_expressions_that_are_not(text: object) -> None:
    with pytest.raises(SealpackError, match="license expression"):
        check_expression(text, "here")


operand = st.sampled_from(["MIT", "Apache-2.0", "LicenseRef-acme", "GPL-3.0+"])
expression = st.recursive(
    operand,
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
        lambda t: f"({t[0]} {t[1]} {t[2]})"
    ),
    max_leaves=8,
)


@given(expression)
def test_every_built_expression_is_accepted_and_none_with_a_lost_bracket(text: str) -> None:
    check_expression(text, "here")
    if text.endswith(")"):
        with pytest.raises(SealpackError):
            check_expression(text[:-1], "here")
