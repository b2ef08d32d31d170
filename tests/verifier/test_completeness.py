"""Completeness of an SBOM: each element at its place, one object without it is enough to lack it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support import world
from support.world import BundleSpec

from sealpack.format.container import BundleReader
from sealpack.format.manifest import Manifest
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli import main as cli
from sealpack.verifier.completeness import WAIVER, Completeness, ElementResult, assess
from sealpack.verifier.completeness_elements import CLUSTERS, ELEMENTS, WAIVABLE, Element

ROOT = Path(__file__).parents[2]
MANIFEST = Manifest.from_bytes(BundleSpec().members()["manifest.json"])
SCORES = {
    "metadata": 10, "system": 9, "models": 13, "datasets": 10, "kpi": 2, "infrastructure": 2, "security": 4
}  # fmt: skip
BARE: dict[str, Any] = {
    "metadata": {"component": {"type": "application"}},
    "components": [{"type": "machine-learning-model"}, {"type": "data"}],
}


def result(found: Completeness, element: str) -> ElementResult:
    (only,) = (e for c in found.clusters for e in c.elements if e.id == element)
    return only


def status(document: Any, element: str) -> str:
    return result(assess(document, MANIFEST, signed=False), element).status


def place(document: dict[str, Any], element: Element, value: Any, path: str) -> dict[str, Any]:
    """`document` with `value` at one path of an element."""
    made: dict[str, Any] = json.loads(json.dumps(document))
    at = {
        "document": made,
        "bundle": made["metadata"]["component"],
        "model": made["components"][0],
        "dataset": made["components"][1],
    }[element.scope]
    steps = re.findall(r"([A-Za-z]+)(?:\[(!?)([^\]*]+)(\*?)\])?", path)
    for name, negated, tag, prefix in steps[:-1]:
        if tag:
            label = "something" if negated else tag + ("x" if prefix else "")
            key = "alg" if name == "hashes" else "name" if name == "properties" else "type"
            at[name] = [*at.get(name, []), {key: label}]
            at = at[name][-1]
        elif name == "components" and name in at:
            at = at["components"][0]
        else:
            at = at.setdefault(name, {})
    at[steps[-1][0]] = value
    return made


PLACES = [(e, p) for e in ELEMENTS for p in e.paths if not p.startswith("@")]


@pytest.mark.parametrize(("element", "path"), PLACES, ids=lambda v: v.id if isinstance(v, Element) else v)
def test_every_place_counts_and_a_blank_one_does_not(element: Element, path: str) -> None:
    alone = BARE if element.id != "system-components" else BARE | {"components": []}
    if element.id != "system-components":
        assert status(alone, element.id) == "absent"
        assert status(place(BARE, element, " ", path), element.id) == "absent"
    assert status(place(BARE, element, "said", path), element.id) == "present"


def test_components_without_a_name_are_none() -> None:
    assert status(BARE, "system-components") == "absent"


def test_the_list_is_the_published_one() -> None:
    per_cluster = {c: sum(e.cluster == c for e in ELEMENTS) for c in CLUSTERS}
    assert per_cluster == SCORES and sum(SCORES.values()) == 50
    assert len({e.id for e in ELEMENTS}) == 50
    assert all(e.hint and e.paths for e in ELEMENTS)


def test_the_specification_lists_every_element_and_place() -> None:
    page = (ROOT / "specs/sbom.md").read_text()
    for element in ELEMENTS:
        row = next(line for line in page.splitlines() if line.startswith(f"| `{element.id}` |"))
        assert all(f"`{path}`" in row for path in element.paths), element.id
        assert ("waivable" in row) == element.waivable, element.id


def test_one_dataset_of_two_without_it_is_absent_and_told() -> None:
    document = {"components": [{"type": "data", "name": "a"}, {"type": "data"}]}
    found = result(assess(document, MANIFEST), "dataset-name")
    assert found.status == "absent" and found.note.endswith("(1 of 2 lack it)")
    document["components"][1]["name"] = "b"
    assert status(document, "dataset-name") == "present"


def test_no_dataset_at_all_lacks_everything() -> None:
    found = assess({"components": []}, MANIFEST)
    datasets = next(c for c in found.clusters if c.id == "datasets")
    assert (datasets.present, datasets.applicable) == (0, 10)


def waive(element: str, reason: Any) -> dict[str, Any]:
    properties = [{"name": f"{WAIVER}{element}", "value": reason}]
    return {"metadata": {"component": {"properties": properties}}}


@pytest.mark.parametrize("element", [e.id for e in ELEMENTS])
def test_only_some_elements_can_be_declared_not_applicable(element: str) -> None:
    found = assess(waive(element, "no data set was used"), MANIFEST, signed=False)
    if element in WAIVABLE:
        assert result(found, element).status == "not-applicable"
        assert result(found, element).note == "no data set was used"
        assert found.applicable == 49
    else:
        assert result(found, element).status == "absent"
        assert found.applicable == 50


def test_a_waiver_needs_a_reason_and_does_not_hide_what_is_there() -> None:
    assert result(assess(waive("dataset-hash", " "), MANIFEST), "dataset-hash").status == "absent"
    document = waive("dataset-name", "none") | {"components": [{"type": "data", "name": "there"}]}
    assert status(document, "dataset-name") == "present"


def test_the_signature_of_the_bundle_signs_the_sbom() -> None:
    assert result(assess({}, MANIFEST), "sbom-author-signature").status == "present"
    assert result(assess({}, MANIFEST, signed=False), "sbom-author-signature").status == "absent"


def test_the_model_digest_must_be_this_models() -> None:
    def model(digest: str) -> dict[str, Any]:
        hashes = [{"alg": "SHA-256", "content": digest}]
        return {"components": [{"type": "machine-learning-model", "hashes": hashes}]}

    assert status(model(MANIFEST.model.sha256), "model-hash-value") == "present"
    assert status(model("0" * 64), "model-hash-value") == "absent"
    assert status(model("0" * 64), "model-hash-algorithm") == "present"


def test_a_dataset_is_used_by_a_dependency_or_a_model_card() -> None:
    data = {"type": "data", "bom-ref": "data:0"}
    card = {"modelParameters": {"datasets": [{"ref": "data:0"}]}}
    by_card = {"components": [data, {"type": "machine-learning-model", "modelCard": card}]}
    by_row = {"components": [data], "dependencies": [{"ref": "model", "dependsOn": ["x", "data:0"]}]}
    by_itself = {"components": [data], "dependencies": [{"ref": "data:0"}]}
    assert status(by_card, "dataset-dependency-relationship") == "present"
    assert status(by_row, "dataset-dependency-relationship") == "present"
    assert status(by_itself, "dataset-dependency-relationship") == "absent"


def test_an_empty_list_of_vulnerabilities_is_an_answer() -> None:
    assert status(BARE | {"vulnerabilities": []}, "vulnerability-referencing") == "present"
    assert status(BARE | {"vulnerabilities": None}, "vulnerability-referencing") == "absent"


def test_security_metrics_are_not_performance() -> None:
    def metric(kind: str) -> dict[str, Any]:
        analysis = {"performanceMetrics": [{"type": kind, "value": "0.9"}]}
        return {
            "components": [
                {"type": "machine-learning-model", "modelCard": {"quantitativeAnalysis": analysis}}
            ]
        }

    found = [
        (status(metric(kind), "security-metrics"), status(metric(kind), "operational-performance"))
        for kind in ("security:robust-accuracy", "accuracy")
    ]
    assert found == [("present", "absent"), ("absent", "present")]


def test_scores_add_up_and_are_told() -> None:
    found = assess(json.loads(world.sbom_for(MANIFEST.model.sha256)), MANIFEST)
    assert found.present == sum(c.present for c in found.clusters) == 8
    assert found.summary().startswith("8 of 50 minimum elements (metadata 4/10, system 1/9, models 3/13")
    assert len(found.lines()) == 7 + 42
    told = found.to_dict()
    assert (told["present"], told["applicable"]) == (8, 50)
    assert [c["id"] for c in told["clusters"]] == list(CLUSTERS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "component", "components", "properties", "name", "type", "value", "hashes",
                 "dependencies", "dependsOn", "modelCard", "modelParameters", "datasets", "bom-ref", "data"]
            ) | st.text(max_size=4),
            inner | st.sampled_from(["machine-learning-model", "data", WAIVER + "dataset-name"]),
            max_size=5,
        )
    ),
    max_leaves=25,
)  # fmt: skip


@given(JSON)
def test_a_document_of_any_shape_has_a_result(document: Any) -> None:
    found = assess(document, MANIFEST)
    assert 0 <= found.present <= found.applicable <= 50
    json.dumps(found.to_dict())


# --- where it is shown ------------------------------------------------------------------------------------


def test_verify_states_it_as_a_fact(tmp_path: Path) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(BundleSpec().build())
    fact = verify_bundle(path, world.make_trust()).facts["completeness"]
    assert (fact["present"], fact["applicable"]) == (8, 50)


def test_inspect_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(BundleSpec().build())
    assert cli.run(cli.make_cli(), ["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Metadata                    4 of 10" in out
    assert "absent          Dataset license: state its license: sbom.datasets[].license" in out
    assert cli.run(cli.make_cli(), ["inspect", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["completeness"]["present"] == 8


@pytest.mark.parametrize("sbom", [b"not json", b"[" * 100_000, b"\xff"])
def test_inspect_of_a_bundle_with_a_broken_sbom_says_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sbom: bytes
) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(BundleSpec(extra={"sbom.cdx.json": ("sbom", "application/json", sbom)}).build())
    assert cli.run(cli.make_cli(), ["inspect", str(path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["manifest"]["bundle_id"] == "acme/tiny" and "completeness" not in found


def test_the_sample_of_an_older_release_has_a_result() -> None:
    with BundleReader.open(ROOT / "tests/releases/0.2.0/bundle.sealpack") as bundle:
        manifest = Manifest.from_bytes(bundle.read("manifest.json"))
        found = assess(json.loads(bundle.read("sbom.cdx.json")), manifest)
    assert (found.present, found.applicable) == (24, 50)


@pytest.mark.parametrize(("count", "told"), [(1000, " (1 of 1000 lack it)"), (1001, "")])
def test_of_very_many_objects_it_is_only_said_that_one_lacks_it(count: int, told: str) -> None:
    document = {"components": [{"type": "data", "name": "d"}] * (count - 1) + [{"type": "data"}]}
    found = result(assess(document, MANIFEST), "dataset-name")
    assert (found.status, found.note) == ("absent", f"list the data sets: sbom.datasets{told}")
