"""The report as one self-contained HTML page, to be read, printed on A4 and filed.

Source: specs/report.md, "HTML". The page has no script, no address and no picture; a content security policy
allows its own style sheet, by digest, and nothing else. Everything a bundle says goes through `markup`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import PurePath
from string import Template
from typing import Any

from sealpack.verifier.completeness import ABSENT, NOT_APPLICABLE, PRESENT
from sealpack.verifier.render import markdown, wording
from sealpack.verifier.render.markup import Html, bullets, definitions, element, escape, join, table
from sealpack.verifier.report import Check, Report, tool

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '$digest'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")  # noqa: E501 - one attribute
_MARKS = {"pass": "✓ pass", "fail": "✗ FAIL", "skip": "– not made"}
_SEGMENTS = {PRESENT: "present", ABSENT: "absent", NOT_APPLICABLE: "waived"}
_DOUBT = "The check failed. What follows is what the bundle says of itself; nobody vouches for it."
_DENIED = "All checks of the bundle itself hold. Only the policy it was held against does not let it in."


def render(report: Report) -> str:
    """The whole page."""
    style = resources.files(__package__).joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    word = "PASS" if report.ok else "FAIL"
    return _PAGE.substitute(
        digest=f"sha256-{digest}",
        title=escape(f"{word}: {_name(report)} - verification report"),
        style=style,
        body=join(_body(report), Html("\n")),
    )


def _name(report: Report) -> str:
    return PurePath(report.path).name


def _body(report: Report) -> Iterator[Html]:
    facts = report.facts
    yield _top(report)
    yield _verdict(report)
    if report.warnings:
        told = bullets(warning.detail for warning in report.warnings)
        yield element("section", element("h2", "To be weighed"), told, class_="caution")
    yield _checks(report)
    if report.skips or report.unreached:
        yield _section("What was not checked", bullets(_unchecked(report)))
    if not report.ok and facts:
        denied = all(c.code == "POLICY_DENIED" for c in report.failures)
        yield element("p", _DENIED if denied else _DOUBT, class_="doubt")
    yield from _facts(report)
    yield _foot()


def _facts(report: Report) -> Iterator[Html]:
    """A section for each thing that became known."""
    facts = report.facts
    if "signer" in facts or "trust" in facts:
        yield _section("Who signed, and who says so", _who(facts))
    if "bundle_id" in facts:
        yield _section("The bundle", _bundle(report))
    if "license_terms" in facts:
        yield _section("License of the model", _license(facts["license_terms"]))
    if facts.get("evidence") or facts.get("tier", {}).get("gates"):
        yield _section("Evidence and quality tier", *_evidence(facts))
    if "sbom" in facts:
        yield _section("Software bill of materials", *_sbom(facts))
    if "card" in facts:
        yield _section("Model card", *_card(facts["card"]))
    if "files" in facts:
        yield _section("Files", _files(facts["files"]))


def _section(title: str, *content: str) -> Html:
    return element("section", element("h2", title), *content)


def _mono(text: str) -> Html:
    return element("span", text, class_="mono")


def _top(report: Report) -> Html:
    """Which tool said this, and when: a filed page must tell by itself."""
    made = " ".join(tool().values())
    when = "" if report.verified_at is None else f", {wording.instant(report.verified_at)}"
    return element(
        "header",
        element("span", "Sealpack verification report"),
        element("span", f"{made}{when}"),
        class_="top",
    )


def _verdict(report: Report) -> Html:
    facts = report.facts
    state = "pass" if report.ok else "fail"
    name = f"{facts['name']} {facts['version']}" if report.ok and "name" in facts else _name(report)
    told = wording.headline(report)
    parts = [
        element("p", "✓ PASS" if report.ok else "✗ FAIL", class_="word"),
        element("div", element("p", told, class_="told"), element("h1", name), _of(report)),
    ]
    if report.failures:
        first = report.failures[0]
        code = element("code", first.code or "")
        others = len(report.failures) - 1
        more = f"({others} more below.) " if others else ""
        parts.append(
            element(
                "p",
                code,
                f" {first.detail}. {more}",
                element("strong", f"Next: {first.remedy}."),
                class_="next",
            )
        )
    return element("div", *parts, class_=f"verdict {state}", role="status")


def _of(report: Report) -> Html:
    """Which bundle and whose, below its name; only of a bundle that passed."""
    facts = report.facts
    if not report.ok or "bundle_id" not in facts:
        return Html("")
    told = f"{facts['bundle_id']}, signed by {facts['signer']['issuer']}"
    return element("p", told, class_="small quiet")


def _checks(report: Report) -> Html:
    rows = ((_mark(c), element("strong", c.id), _compared(c)) for c in report.checks)
    count = f"{sum(c.status == 'pass' for c in report.checks)} of {len(report.checks)} checks hold"
    body = table(("Result", "Check", "What was compared"), rows, class_="checks")
    parts = [element("p", count, class_="lead")]
    if policy := report.facts.get("policy"):
        digest = _mono(f"sha256:{policy['sha256']}")
        parts.append(element("p", f"Rules of the policy {policy['name']}, ", digest, class_="lead"))
    return _section("Checks", *parts, body)


def _unchecked(report: Report) -> Iterator[Html]:
    for check in report.skips:
        yield join([element("strong", check.id), f": {check.detail}"])
    why = "not made without a trust file" if report.ok else "not reached, a check before it failed"
    for name in report.unreached:
        yield join([element("strong", name), f": {why}"])


def _mark(check: Check) -> Html:
    return element("span", _MARKS[check.status], class_=f"mark {check.status}")


def _compared(check: Check) -> Html:
    parts: list[str] = [check.detail]
    if check.code:
        parts += [" ", element("code", check.code)]
    if check.expected is not None and check.found is not None:
        if check.expected == check.found:
            told = join(["expected and found ", element("code", check.found)])
        else:
            told = join(
                ["expected ", element("code", check.expected), ", found ", element("code", check.found)]
            )
        parts.append(element("span", told, class_="compared"))
    return join(parts)


def _who(facts: dict[str, Any]) -> Html:
    told = {"key": _mono, "in words": _mono, "ML-DSA key": _mono}
    return definitions(
        (label[0].upper() + label[1:], told.get(label, escape)(value)) for label, value in wording.who(facts)
    )


def _bundle(report: Report) -> Html:
    facts = report.facts
    rows: list[tuple[str, str]] = [
        ("Bundle", f"{facts['bundle_id']} {facts['version']}, release {facts['release_index']}"),
        ("Digest", _mono(f"sha256:{facts['bundle_digest']}")),
        ("File", _file(report)),
        ("Kind", _kind(facts)),
        *([("License", wording.license_line(facts))] if report.ok else []),
        ("Quality tier", wording.tier_line(facts)),
        ("Re-certification", wording.recertification(report)),
    ]
    more = (("Description", "description"), ("Intended use", "intended_use"), ("Support", "support"))
    rows += [(label, str(facts[key])) for label, key in more if facts.get(key)]
    if facts.get("custom_operators"):
        rows.append(("Own operators", ", ".join(facts["custom_operators"])))
    return definitions(rows)


def _file(report: Report) -> str:
    taken = report.facts.get("size")
    return report.path if taken is None else f"{report.path}, {wording.size(taken)}"


def _kind(facts: dict[str, Any]) -> str:
    parts = [str(facts["kind"]).upper(), "encrypted" if facts.get("encrypted") else "not encrypted"]
    return ", ".join([*parts, "watermarked" if facts.get("watermark") else "not watermarked"])


def _license(said: dict[str, Any]) -> Html:
    rows: list[tuple[str, str]] = [("SPDX", element("strong", said["spdx"]))]
    for label, key in (("Title", "title"), ("Legal text", "text"), ("Attribution", "attribution")):
        if said.get(key):
            rows.append((label, str(said[key])))
    for label, key in (("Allows", "allow"), ("Forbids", "deny")):
        if said.get(key):
            rows.append((label, ", ".join(said[key])))
    rows.append(
        ("Acceptance", "must be accepted before use" if said.get("ack_required") else "not asked for")
    )
    rows.append(("Terms digest", _mono(f"sha256:{said['digest']}")))
    return definitions(rows)


def _evidence(facts: dict[str, Any]) -> Iterator[Html]:
    for document in facts.get("evidence", ()):
        yield element("h3", _mono(document["name"]))
        yield definitions(_document(document))
    tier = facts.get("tier", {})
    if gates := tier.get("gates"):
        names = ", ".join(f"{p['name']} v{p['version']}" for p in tier.get("policies", ()))
        yield element("h3", f"Gates of {tier['claimed']} (policy {names})")
        rows = ((_MARKS["pass" if g["ok"] else "fail"], g["tier"], g["id"], g["detail"]) for g in gates)
        yield table(("Result", "Tier", "Gate", "What was compared"), rows, class_="gates")


def _document(document: dict[str, Any]) -> list[tuple[str, str]]:
    if not document.get("signed"):
        return [("Standing", "not signed by an evaluator: the creator's word, as stated")]
    if not document.get("verified"):
        return [("Standing", "signed, and not checked: no trust file was given")]
    data, method = document.get("data", {}), document.get("method", {})
    rows = [
        ("Standing", f"signed by {document.get('evaluator', 'an evaluator')}, and the signature holds"),
        ("Task", str(document.get("task", "not stated"))),
        ("Measured on", f"{method.get('evaluated', '?')} rows of {data.get('name', 'unnamed data')}"),
        ("Data digest", _mono(f"sha256:{data['digest']}") if "digest" in data else escape("not stated")),
    ]
    for label, key in (("Issued", "issued_at"), ("Valid until", "valid_until")):
        if key in document:
            rows.append((label, wording.day(document[key])))
    rows += [(m["name"], _figure(m)) for m in document.get("metrics", ()) if "n" in m]
    return rows


def _figure(metric: dict[str, Any]) -> str:
    baseline = f"; baseline {metric['baseline']}" if "baseline" in metric else ""
    return f"{metric['value']} (over {metric['n']}{baseline})"


def _sbom(facts: dict[str, Any]) -> Iterator[Html]:
    said = facts["sbom"]
    types = ", ".join(f"{count} {name}" for name, count in said.get("types", {}).items())
    rows = [
        ("Format", said["format"]),
        ("Components", f"{said['components']}" + (f": {types}" if types else "")),
    ]
    lists = (
        ("Licenses", "licenses"),
        ("Suppliers", "suppliers"),
        ("Data sets", "datasets"),
        ("Base model", "base_models"),
    )
    rows += [(label, ", ".join(said.get(key, ())) or "none named") for label, key in lists]
    yield definitions(rows)
    if "completeness" in facts:
        yield from _completeness(facts["completeness"])


def _completeness(told: dict[str, Any]) -> Iterator[Html]:
    yield element("h3", f"Completeness: {told['present']} of {told['applicable']} minimum elements")
    yield element("p", str(told["standard"]), class_="lead")
    rows = (
        (c["title"], f"{c['present']} of {c['applicable']}", _bar(c["elements"])) for c in told["clusters"]
    )
    yield table(("Cluster", "Present", "Elements"), rows, class_="clusters")
    missing = [(c, e) for c in told["clusters"] for e in c["elements"] if e["status"] != PRESENT]
    if missing:
        yield element("h4", "Not present")
        rows_of_missing = ((e["status"], e["title"], e.get("note", "")) for _, e in missing)
        yield table(("Status", "Element", "Note"), rows_of_missing, class_="elements")


def _bar(elements: Iterable[dict[str, Any]]) -> Html:
    """A square per element: filled, empty, or only its base line where it does not apply."""
    return element(
        "span",
        *(element("i", class_=_SEGMENTS.get(e["status"], "absent")) for e in elements),
        class_="bar",
        aria_hidden="true",
    )


def _card(card: dict[str, Any]) -> Iterator[Html]:
    yield element("p", f"{card['name']}, in the creator's words", class_="lead")
    yield element("div", markdown.render(card["text"]), class_="card")
    if card["truncated"]:
        yield element("p", "The card is longer; the rest is in the bundle.", class_="quiet small")


def _files(files: list[dict[str, Any]]) -> Html:
    """Chunk tables last: there is one per payload file, and nobody looks for them first."""
    ordered = sorted(files, key=lambda entry: bool(entry["role"] == "chunk-table"))
    rows = ((e["name"], e["role"], wording.size(e["size"]), _mono(e["sha256"])) for e in ordered)
    return table(("Name", "Role", "Size", "SHA-256"), rows, class_="files")


def _foot() -> Html:
    return element(
        "footer",
        element(
            "p",
            "The verdict holds for the bytes that were read at the time above. Times of signing are as the "
            "signer stated them. Compare the root's words with those the vendor gave you by another way.",
        ),
    )
