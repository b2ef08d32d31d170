"""What a verification found: one line per check, and the facts that were established.

Source: specs/report.md. This is the model only; how it is shown is `sealpack.verifier.render`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from sealpack.format.errors import CODES, SealpackError, printable
from sealpack.format.values import utc_day

SCHEMA = "sealpack/report/v1"
ORDER = (  # the checks a bundle is due, specs/verification.md, "Order"
    "container",
    "trust",
    "signature",
    "manifest",
    "revocation",
    "content",
    "sbom",
    "terms",
    "model",
    "evidence",
    "tier",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared. `status` is pass, fail or skip; `code` names a failure.

    `expected` and `found` are the two values, where there are two that say something by themselves.
    """

    id: str
    status: str
    detail: str
    code: str | None = None
    remedy: str | None = None  # what to do next, where the code's usual advice does not fit
    expected: str | None = None
    found: str | None = None

    def to_dict(self) -> dict[str, str]:
        """The JSON form; the remedy is told once, with the verdict."""
        members = {"id": self.id, "status": self.status, "detail": self.detail}
        more = {"code": self.code, "expected": self.expected, "found": self.found}
        return members | {name: value for name, value in more.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Warning:
    """Something a reader should weigh although no check failed."""

    id: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        """The JSON form."""
        return {"id": self.id, "detail": self.detail}


@dataclass(slots=True)
class Report:
    """Checks in the order they were made, and facts in the order they became known.

    Facts before a failed check are what the bundle *says*; `ok` tells whether to believe them.
    `verified_at` is when, Unix seconds; None leaves out what depends on the day.
    """

    path: str
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    verified_at: int | None = None

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing failed."""
        return bool(self.checks) and all(c.status != "fail" for c in self.checks)

    @property
    def failures(self) -> list[Check]:
        """The failed checks."""
        return [c for c in self.checks if c.status == "fail"]

    @property
    def skips(self) -> list[Check]:
        """What was not checked."""
        return [c for c in self.checks if c.status == "skip"]

    @property
    def unreached(self) -> list[str]:
        """Checks that were not even begun: a failure came first, or they need a trust file."""
        made = {c.id for c in self.checks}
        return [name for name in ORDER if name not in made and self._is_due(name)]

    def _is_due(self, check: str) -> bool:
        """Whether the bundle has what the check is about, as far as its manifest was read."""
        if "files" not in self.facts:
            return True
        if check == "evidence":
            return any(entry["role"] == "evidence" for entry in self.facts["files"])
        return check != "tier" or self.facts["quality_tier"] != "Experimental"

    @property
    def warnings(self) -> list[Warning]:
        """What is not wrong and still matters, of a bundle that passed."""
        return list(_warnings(self.facts, self.verified_at)) if self.ok else []

    @property
    def exit_status(self) -> int:
        """0, or the exit status of the first failure's code."""
        return 0 if self.ok else CODES[self.failures[0].code or "INTERNAL"].exit

    def passed(
        self, check: str, detail: str, *, expected: str | None = None, found: str | None = None
    ) -> None:
        """Record a check that holds."""
        self.checks.append(Check(check, "pass", printable(detail), expected=expected, found=found))

    def skipped(self, check: str, detail: str) -> None:
        """Record a check that was not made, and why."""
        self.checks.append(Check(check, "skip", printable(detail)))

    def failed(self, check: str, error: SealpackError) -> None:
        """Record a check that does not hold; the error's facts `expected` and `found` are kept."""
        expected, found = (_told(error.facts.get(name)) for name in ("expected", "found"))
        self.checks.append(Check(check, "fail", error.message, error.code, error.remedy, expected, found))

    def raise_first(self) -> None:
        """Raise the first failure as an error; return when there is none."""
        for check in self.failures:
            raise SealpackError(check.code or "INTERNAL", f"{self.path}: {check.detail}", remedy=check.remedy)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        when = {} if self.verified_at is None else {"verified_at": self.verified_at}
        return {
            "schema": SCHEMA,
            "tool": tool(),
            **when,
            "bundle": self.path,
            "verdict": "pass" if self.ok else "fail",
            "checks": [c.to_dict() for c in self.checks],
            "not_reached": self.unreached,
            "warnings": [w.to_dict() for w in self.warnings],
            **self.facts,
        }


def tool() -> dict[str, str]:
    """Name and version of what verified."""
    return {"name": "sealpack", "version": version("sealpack")}


def _told(value: Any) -> str | None:
    return None if value is None else printable(str(value))


def _warnings(facts: dict[str, Any], now: int | None) -> Iterator[Warning]:
    """In the order of specs/report.md, "Warnings"."""
    if sample := facts.get("content_sample"):
        told = f"only {sample['leaves']} of {sample['of']} chunks were hashed: not complete integrity"
        yield Warning("content-sampled", told)
    tier = facts.get("tier", {})
    if tier and tier["claimed"] != tier["proven"]:
        yield Warning("tier-unproven", f"{tier['claimed']} is claimed, {tier['proven']} is proven")
    if domains := facts.get("custom_operators"):
        told = printable(", ".join(domains))
        yield Warning("custom-operators", f"the model needs operators of its own: {told}")
    if now is not None:
        yield from _overdue(facts, now)


def _overdue(facts: dict[str, Any], now: int) -> Iterator[Warning]:
    today = utc_day(now)
    due = facts.get("recertify_by")
    if due is not None and due < today:  # the day itself is in time; ISO dates sort as text
        yield Warning("recertification-overdue", f"re-certification was due by {due}")
    for document in facts.get("evidence", ()):
        until = document.get("valid_until")
        if document.get("verified") and until is not None and until <= now:
            told = f"{printable(document['name'])} was valid until {utc_day(until)}"
            yield Warning("evidence-expired", told)
