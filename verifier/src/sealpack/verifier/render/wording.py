"""How values are told to people, the same in text and HTML."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sealpack.format.errors import CODES
from sealpack.verifier.report import Report

MARKS = {"pass": "ok", "fail": "FAIL", "skip": "--"}
_SCHEMES = {"ecdsa-p256-sha256": "ECDSA P-256", "ed25519": "Ed25519", "ml-dsa-65": "ML-DSA-65"}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def instant(seconds: int) -> str:
    """Unix seconds as a minute in UTC; a number no calendar has is told as it is."""
    return _date(seconds, "%Y-%m-%d %H:%M UTC")


def day(seconds: int) -> str:
    """Unix seconds as a date in UTC."""
    return _date(seconds, "%Y-%m-%d")


def _date(seconds: int, form: str) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"second {seconds}"


def size(count: int) -> str:
    """Bytes, in the unit that leaves at most four digits."""
    value, unit = float(count), 0
    while value >= 1024 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    return f"{count} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def scheme(name: str) -> str:
    """A signature scheme's usual name."""
    return _SCHEMES.get(name, name)


def headline(report: Report) -> str:
    """The verdict in words."""
    if not report.ok:
        failures = report.failures
        return CODES[failures[0].code or "INTERNAL"].title if failures else "nothing was checked"
    if report.facts.get("content_mode") == "sample":
        return "authentic; content sampled, not complete"
    return "authentic and intact"


def who(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Who signed, with what, on whose word: rows of label and value, as far as it is known."""
    rows: list[tuple[str, str]] = []
    signer, trust = facts.get("signer"), facts.get("trust")
    if signer:
        rows.append(("signed by", f"{signer['issuer']}, {instant(facts['signed_at'])} (as stated)"))
        schemes = [scheme(signer["scheme"])]
        if facts.get("post_quantum", {}).get("bundle"):
            schemes.append("ML-DSA-65 (post-quantum)")
        rows.append(("signature", " and ".join(schemes)))
        rows.append(("key", signer["keyid"]))
        rows.append(("in words", signer["words"]))
        if "mldsa_keyid" in signer:
            rows.append(("ML-DSA key", signer["mldsa_keyid"]))
    if signer and trust:
        rows.append(("namespaces", ", ".join(signer["namespaces"]) or "none"))
        since = (
            f"since {day(signer['since'])}" if "since" in signer else "the keyring does not say since when"
        )
        rows.append(("trusted", f"{since}; {signer['status']}"))
    if trust:
        root, keyring, lists = trust["root"], trust["keyring"], trust["revocations"]
        rows.append(("root", f"{root['words']} (version {root['version']})"))
        told = f"version {keyring['version']} of {day(keyring['issued_at'])}"
        rows.append(
            ("keyring", f"{told}; revocations version {lists['version']} of {day(lists['issued_at'])}")
        )
    elif signer:
        rows.append(("trust", "only that this key signed; nobody was asked whose key it is"))
    return rows


def license_line(facts: dict[str, Any]) -> str:
    """The license of the model in one line."""
    said = facts.get("license_terms")
    if not said:
        return "no machine-readable terms"
    title = f", {said['title']}" if said.get("title") else ""
    return f"{said['spdx']}{title}"


def tier_line(facts: dict[str, Any]) -> str:
    """The claimed quality tier, and what of it is proven."""
    tier = facts.get("tier")
    claimed = str(facts.get("quality_tier", "not stated"))
    if not tier or claimed == "Experimental":
        return claimed
    proven = tier["proven"]
    return f"{claimed}, proven" if proven == claimed else f"{claimed} claimed, {proven} proven"


def recertification(report: Report) -> str:
    """When re-certification is due."""
    due = report.facts.get("recertify_by")
    if due is None:
        return "no date stated"
    late = any(w.id == "recertification-overdue" for w in report.warnings)
    return f"due by {due}" + (" (overdue)" if late else "")
