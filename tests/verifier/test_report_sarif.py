"""SARIF: the members the standard and code-scanning services require, and what each result says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import reports, world
from support.reports import NOW

from sealpack.format.errors import CODES
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.render import sarif
from sealpack.verifier.report import Report

KINDS = {"pass", "open", "fail"}  # those of the standard that are written here
LEVELS = {"none", "warning", "error"}


def report_on(path: Path, data: bytes, now: int = NOW) -> Report:
    path.write_bytes(data)
    report = verify_bundle(path, world.make_trust())
    report.path = "out/notes.sealpack"
    report.verified_at = now
    return report


def check(log: dict[str, Any]) -> dict[str, Any]:
    """The run of a log that has what SARIF 2.1.0 requires and what GitHub needs to take it in."""
    assert set(log) == {"$schema", "version", "runs"} and log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "sealpack" and driver["version"]
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"] and rule["help"]["text"]
        assert rule["defaultConfiguration"]["level"] in LEVELS
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["kind"] in KINDS and result["level"] in LEVELS
        assert (result["kind"] == "fail") == (result["level"] != "none")  # SARIF 2.1.0, 3.27.9 and 3.27.10
        assert result["message"]["text"]
        (place,) = result["locations"]
        physical = place["physicalLocation"]
        assert physical["region"]["startLine"] >= 1
        index = physical["artifactLocation"]["index"]
        assert run["artifacts"][index]["location"]["uri"] == physical["artifactLocation"]["uri"]
        assert len(result["partialFingerprints"]["sealpackCheck/v1"]) == 64
    return dict(run)


def test_a_good_bundle(tmp_path: Path) -> None:
    report = report_on(tmp_path / "b", reports.rich())
    run = check(json.loads(sarif.render(report)))
    assert [r["message"]["text"] for r in run["results"]] == [f"{c.id}: {c.detail}" for c in report.checks]
    assert {r["kind"] for r in run["results"]} == {"pass"}
    assert run["invocations"] == [
        {"executionSuccessful": True, "exitCode": 0, "endTimeUtc": "2026-09-22T14:13:20Z"}
    ]
    assert run["artifacts"][0]["location"]["uri"] == "out/notes.sealpack"
    assert run["properties"]["bundleDigest"] == f"sha256:{report.facts['bundle_digest']}"


def test_a_bad_bundle(tmp_path: Path) -> None:
    data = reports.rich()
    at = data.index(b"groups reports")
    report = report_on(tmp_path / "b", data[:at] + b"G" + data[at + 1 :])
    run = check(sarif.to_dict(report))
    (failure,) = (r for r in run["results"] if r["kind"] == "fail")
    assert (failure["ruleId"], failure["level"]) == ("CONTAINER_CRC", "error")
    rule = run["tool"]["driver"]["rules"][failure["ruleIndex"]]
    assert rule["shortDescription"]["text"] == CODES["CONTAINER_CRC"].title
    assert CODES["CONTAINER_CRC"].remedy in rule["help"]["text"]
    assert run["invocations"][0]["exitCode"] == 3


def test_warnings_and_skips(tmp_path: Path) -> None:
    """Each warning that there is has a rule."""
    report = report_on(tmp_path / "b", reports.rich(), now=world.T0 + 10 * 365 * 86_400)
    report.facts |= reports.evidence_facts() | {"content_sample": {"leaves": 1, "of": 2}}
    report.facts["tier"]["proven"] = "Experimental"
    report.skipped("model", "sampled")
    run = check(sarif.to_dict(report))
    warned = {r["ruleId"] for r in run["results"] if r["level"] == "warning"}
    assert warned == {f"warning/{name}" for name in sarif._WARNINGS}
    assert [r["ruleId"] for r in run["results"] if r["kind"] == "open"] == ["check/model"]


def test_values_that_were_compared(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_bytes(reports.rich())
    floors = [{"bundle_id": "acme/notes", "floor": 3}]
    run = check(sarif.to_dict(verify_bundle(path, world.make_trust(floors=floors))))
    assert run["results"][-1]["properties"] == {
        "check": "revocation",
        "expected": "release 3 or newer",
        "found": "release 1",
    }


def test_hostile_facts_stay_text(tmp_path: Path) -> None:
    report = reports.poisoned(report_on(tmp_path / "b", reports.rich()))
    run = check(json.loads(sarif.render(report)))
    assert run["artifacts"][0]["location"]["uri"].isascii()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.sealpack", "a/b.sealpack"),
        ("a b%c:d#?.x", "a%20b%25c%3Ad%23%3F.x"),
        ("ü", "%C3%BC"),
        ("\udcff", "%FF"),
        ("/a b", "file:///a%20b"),
    ],
)
def test_addresses(path: str, expected: str) -> None:
    assert sarif.uri(path) == expected


def test_the_same_report_is_the_same_log(tmp_path: Path) -> None:
    data = reports.rich()
    assert sarif.render(report_on(tmp_path / "b", data)) == sarif.render(report_on(tmp_path / "b", data))
