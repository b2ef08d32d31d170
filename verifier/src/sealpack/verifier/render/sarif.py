"""The report as SARIF 2.1.0, for code-scanning services and other collectors of findings.

Source: specs/report.md, "SARIF". A failure is a result of level error whose rule is its code; a warning is
one of level warning; what passed has kind `pass`, and what was not checked kind `open`, both of level none.
"""

from __future__ import annotations

import hashlib
import json
import os
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealpack.format.errors import CODES
from sealpack.format.values import utc_instant
from sealpack.verifier.report import Check, Report, tool

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_KINDS = {"pass": ("pass", "none"), "fail": ("fail", "error"), "skip": ("open", "none")}
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~/")
_WARNINGS = {
    "content-sampled": "only part of the content was hashed",
    "tier-unproven": "the quality tier is claimed and not proven",
    "custom-operators": "the model needs operators that only some engines have",
    "recertification-overdue": "re-certification is overdue",
    "evidence-expired": "evidence is no longer valid",
}


@dataclass(frozen=True, slots=True)
class _Finding:
    """One result before it is written: its rule, and what it says."""

    rule: str
    kind: str
    level: str
    message: str
    properties: dict[str, str]


def render(report: Report) -> str:
    """The log as JSON text."""
    return json.dumps(to_dict(report), indent=2, ensure_ascii=False)


def to_dict(report: Report) -> dict[str, Any]:
    """The log: one run with one result per check and warning."""
    found = list(_findings(report))
    rules = sorted({finding.rule for finding in found})
    results = [_result(report, finding, rules.index(finding.rule)) for finding in found]
    driver = {
        "name": tool()["name"],
        "version": tool()["version"],
        "semanticVersion": tool()["version"],
        "rules": [_rule(name) for name in rules],
    }
    invocation: dict[str, Any] = {"executionSuccessful": True, "exitCode": report.exit_status}
    if report.verified_at is not None:
        invocation["endTimeUtc"] = utc_instant(report.verified_at)
    digest = report.facts.get("bundle_digest")
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "artifacts": [{"location": {"uri": uri(report.path)}, "roles": ["analysisTarget"]}],
        "results": results,
        "properties": {"verdict": "pass" if report.ok else "fail"}
        | ({"bundleDigest": f"sha256:{digest}"} if digest else {}),
    }
    return {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [run]}


def uri(path: str) -> str:
    """A path as a URI reference: a file URI when absolute, relative and percent-encoded otherwise."""
    if Path(path).is_absolute():
        return Path(path).as_uri()
    name = os.fsencode(Path(path).as_posix())
    return "".join(chr(byte) if chr(byte) in _UNRESERVED else f"%{byte:02X}" for byte in name)


def _findings(report: Report) -> Iterator[_Finding]:
    for check in report.checks:
        kind, level = _KINDS[check.status]
        rule = check.code or f"check/{check.id}"
        yield _Finding(rule, kind, level, f"{check.id}: {check.detail}", _compared(check))
    for warning in report.warnings:
        yield _Finding(f"warning/{warning.id}", "fail", "warning", warning.detail, {})


def _compared(check: Check) -> dict[str, str]:
    members = {"check": check.id, "expected": check.expected, "found": check.found}
    return {name: value for name, value in members.items() if value is not None}


def _result(report: Report, finding: _Finding, index: int) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": uri(report.path), "index": 0}, "region": {"startLine": 1}}
    same = (
        f"{finding.rule}\n{report.facts.get('bundle_id', report.path)}\n{finding.properties.get('check', '')}"
    )
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "kind": finding.kind,
        "level": finding.level,
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {
            "sealpackCheck/v1": hashlib.sha256(same.encode("utf-8", "surrogateescape")).hexdigest()
        },
    }
    return result | ({"properties": finding.properties} if finding.properties else {})


def _rule(name: str) -> dict[str, Any]:
    """A rule with help: of a code its row in docs/errors.md, else what the check or warning is about."""
    kind, _, rest = name.partition("/")
    if kind == "check":
        text, level = f"the check {rest!r} of specs/verification.md", "none"
        help_text = "what is compared, and in which order: specs/verification.md"
    elif kind == "warning":
        text, level = _WARNINGS[rest], "warning"
        help_text = "nothing failed; weigh it before you use the bundle: specs/report.md"
    else:
        text, level, help_text = CODES[name].title, "error", f"next: {CODES[name].remedy}"
    return {
        "id": name,
        "name": "".join(part.capitalize() for part in name.replace("/", "_").replace("-", "_").split("_")),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "help": {"text": help_text},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["security", "supply-chain"], "precision": "very-high"},
    }
