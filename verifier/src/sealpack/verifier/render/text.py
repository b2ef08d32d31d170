"""The form for a terminal: verdict, who signed, every check, what to weigh. At most 80 columns.

Source: specs/report.md, "Text". A value that has no blank, such as a digest, is never broken.
"""

from __future__ import annotations

import textwrap
from typing import Any

from sealpack.format.errors import printable
from sealpack.verifier.render import wording
from sealpack.verifier.report import Check, Report

WIDTH = 80
_LABEL = 13


def render(report: Report) -> str:
    """The whole text, without a last newline."""
    lines = [f"{'PASS' if report.ok else 'FAIL'}  {printable(report.path)}"]
    if report.ok:
        for label, value in _summary(report):
            lines += _wrapped(f"  {label:<{_LABEL}}", value)
    width = max((len(c.id) for c in report.checks), default=0)
    for check in report.checks:
        lines += _check(check, min(width, 20))
    if report.unreached:
        lines += _wrapped("  not checked: ", ", ".join(report.unreached))
    for warning in report.warnings:
        lines += _wrapped("  warning: ", warning.detail)
    if report.failures:
        lines += _wrapped("  next: ", str(report.failures[0].remedy))
    return "\n".join(lines)


def _check(check: Check, width: int) -> list[str]:
    code = f" [{check.code}]" if check.code else ""
    lines = _wrapped(f"  {wording.MARKS[check.status]:<4} {check.id:<{width}}  ", check.detail + code)
    if check.status == "fail" and check.expected is not None and check.found is not None:
        for label, value in (("expected", check.expected), ("found", check.found)):
            lines += _wrapped(f"       {label:<10}", value)
    return lines


def _wrapped(start: str, value: str) -> list[str]:
    indent = " " * len(start)
    return textwrap.wrap(
        printable(value),
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]


def _summary(report: Report) -> list[tuple[str, str]]:
    """What the bundle is; each row once it is known."""
    facts: dict[str, Any] = report.facts
    rows: list[tuple[str, str]] = []
    if "bundle_id" in facts:
        rows.append(("bundle", f"{facts['bundle_id']} {facts['version']} (release {facts['release_index']})"))
        rows.append(("digest", f"sha256:{facts['bundle_digest']}"))
    rows += wording.who(facts)
    if "bundle_id" in facts:
        rows.append(("license", wording.license_line(facts)))
        rows.append(("tier", wording.tier_line(facts)))
        rows.append(("re-certify", wording.recertification(report)))
    if "completeness" in facts:
        told = facts["completeness"]
        rows.append(("SBOM", f"{told['present']} of {told['applicable']} minimum elements for AI"))
    return rows
