"""What the builder states of the bundle as a system, and how complete that makes the SBOM."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack
from builder.test_sbom import GIVEN

from sealpack.builder import config, sbom, sbom_system, sections
from sealpack.format.errors import SealpackError
from sealpack.verifier.completeness import assess
from sealpack.verifier.completeness_elements import WAIVABLE

MINIMAL = '[bundle]\nid = "acme/x"\nversion = "1"\n'
DATASET = sections.Dataset(
    "SNLI", "training", url="https://data.example/snli", license="CC-BY-4.0", owner="Someone",
    description="pairs", classification="public", content="text", provenance="crowd", statistics="570k",
    sha256="5" * 64,
)  # fmt: skip
FULL = replace(
    GIVEN,
    bundle=replace(GIVEN.bundle, intended_use="triage", description="embeds"),
    model=replace(GIVEN.model, datasets=()),
    io={"task": "embedding", "pre": {"kind": "wordpiece"}, "post": {"kind": "embedding"}},
    sbom=replace(
        GIVEN.sbom,
        approach="self-supervised",
        datasets=(DATASET,),
        metrics=(*GIVEN.sbom.metrics, sections.Metric("security:robust-accuracy", "0.5")),
        model_date="2026-01-31",
        security=sections.SecuritySection(
            ("red-teamed",),
            ("IEC 62443-4-1",),
            "https://acme.example/security.txt",
            "https://acme.example/adv",
        ),
    ),
)


class _Manifest:
    """As much of a manifest as completeness looks at."""

    model = GIVEN.of_role("model")[0]

    def with_role(self, role: str) -> tuple[str, ...]:
        return (role,)


def score(given: Any) -> dict[str, tuple[int, int]]:
    found = assess(json.loads(sbom.build(given)), _Manifest())  # type: ignore[arg-type]
    return {c.id: (c.present, c.applicable) for c in found.clusters}


def properties(given: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in json.loads(sbom.build(given))["metadata"]["component"]["properties"]:
        found.setdefault(row["name"], []).append(row["value"])
    return found


def test_a_configuration_that_says_everything_has_every_element() -> None:
    sbom.validate(sbom.build(FULL))
    assert score(FULL) == {
        "metadata": (10, 10), "system": (9, 9), "models": (13, 13), "datasets": (10, 10), "kpi": (2, 2),
        "infrastructure": (2, 2), "security": (4, 4),
    }  # fmt: skip


def test_what_is_known_without_being_told() -> None:
    bare = replace(GIVEN, sbom=sections.SbomSection())
    found = score(bare)
    assert found["metadata"] == (10, 10) and found["infrastructure"] == (2, 2)
    assert found["system"] == (8, 9)  # not what it is meant for
    assert found["security"] == (1, 4)


def test_the_defaults_say_what_is_so_for_this_bundle() -> None:
    found = properties(FULL)
    assert found["sealpack:built-at"] == ["2026-09-21T14:13:20+00:00"]
    assert found["sealpack:data-flow"] == [
        "input -> wordpiece -> ONNX Runtime -> embedding -> answer; in one process, on the machine it runs on"
    ]
    assert found["sealpack:data-usage"] == [sbom_system.DATA_USAGE]
    assert [found[f"sealpack:io:{part}"] for part in ("task", "pre", "post")] == [
        ["embedding"], ["wordpiece"], ["embedding"]
    ]  # fmt: skip
    assert found["sealpack:security-control"] == [*sbom_system.CONTROLS, "red-teamed"]
    assert found["sealpack:security-compliance"] == ["IEC 62443-4-1"]
    assert sbom_system.hardware(FULL) == "CPU; memory for 3 bytes of weights"
    assert "AVX2" in sbom_system.hardware(replace(FULL, model=replace(FULL.model, format="gguf")))


def test_a_marked_copy_says_so() -> None:
    assert sbom_system.MARK_CONTROL in properties(replace(FULL, marked=True))["sealpack:security-control"]
    assert sbom_system.MARK_CONTROL not in properties(FULL)["sealpack:security-control"]


def test_the_creators_words_replace_the_defaults() -> None:
    own = replace(FULL.sbom, data_flow="in, out", data_usage="kept for a day", hardware="a GPU")
    given = replace(FULL, sbom=own)
    assert properties(given)["sealpack:data-flow"] == ["in, out"]
    assert properties(given)["sealpack:data-usage"] == ["kept for a day"]
    assert sbom_system.hardware(given) == "a GPU"


def test_what_is_declared_not_applicable_does_not_count() -> None:
    section = replace(
        GIVEN.sbom, datasets=(), not_applicable=tuple((e, "trained on nothing") for e in WAIVABLE)
    )
    given = replace(GIVEN, model=replace(GIVEN.model, datasets=()), sbom=section)
    assert score(given)["datasets"] == (0, 0)
    assert score(given)["infrastructure"] == (2, 2)  # what is there stays there


def test_the_keys_of_the_configuration() -> None:
    text = MINIMAL + (
        '[sbom]\nmodel_date = 2026-01-31\ndata_flow = "a"\ndata_usage = "b"\nhardware = "c"\n'
        '[sbom.security]\ncontrols = ["x"]\ncompliance = ["y"]\npolicy_url = "https://a.example/s"\n'
        'advisories_url = "https://a.example/v"\n[sbom.not_applicable]\ndataset-hash = "none was kept"\n'
        '[[sbom.datasets]]\nname = "d"\ncontent = "e"\nprovenance = "f"\nstatistics = "g"\n'
        f'sha256 = "{"5" * 64}"\n'
    )
    read = config.parse(text, Path()).sbom
    assert (read.model_date, read.data_flow, read.data_usage, read.hardware) == ("2026-01-31", "a", "b", "c")
    assert read.security == sections.SecuritySection(
        ("x",), ("y",), "https://a.example/s", "https://a.example/v"
    )
    assert read.not_applicable == (("dataset-hash", "none was kept"),)
    (data,) = read.datasets
    assert (data.content, data.provenance, data.statistics, data.sha256) == ("e", "f", "g", "5" * 64)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('[sbom.not_applicable]\nmodel-name = "no name"', "sbom.not_applicable.model-name"),
        ('[sbom.not_applicable]\ndataset-hash = ""', "sbom.not_applicable.dataset-hash"),
        ("[sbom.security]\ncontrol = []", "sbom.security.control"),
        ('[sbom]\nmodel_date = "soon"', "sbom.model_date"),
        ('[[sbom.datasets]]\nname = "d"\nsha256 = "5"', "sbom.datasets[0].sha256"),
    ],
)
def test_a_faulty_key_is_named(line: str, place: str) -> None:
    with pytest.raises(SealpackError) as caught:
        config.parse(MINIMAL + line, Path())
    assert caught.value.code == "CONFIG_INVALID" and caught.value.message.startswith(f"{place} ")


def test_build_tells_the_score(
    home: Path, gguf_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert sealpack("build", gguf_model, "--out", home / "a.sealpack") == 0
    out = capsys.readouterr().out
    assert "sbom     " in out and f"sealpack inspect {home / 'a.sealpack'}" in out
    assert sealpack("build", gguf_model, "--out", home / "b.sealpack", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)["completeness"]
    assert told["applicable"] == 50 and f"{told['present']} of 50 minimum elements" in out
