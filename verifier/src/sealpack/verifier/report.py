"""What a verification found: one line per check, and the facts that were established.

Source: specs/report.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sealpack.format.errors import CODES, SealpackError, printable

SCHEMA = "sealpack/report/v1"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was compared. `status` is pass, fail or skip; `code` names a failure."""

    id: str
    status: str
    detail: str
    code: str | None = None
    remedy: str | None = None  # what to do next, where the code's usual advice does not fit


@dataclass(slots=True)
class Report:
    """Checks in the order they were made, and facts in the order they became known.

    Facts before a failed check are what the bundle *says*; `ok` tells whether to believe them.
    """

    path: str
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing failed."""
        return bool(self.checks) and all(c.status != "fail" for c in self.checks)

    @property
    def failures(self) -> list[Check]:
        """The failed checks."""
        return [c for c in self.checks if c.status == "fail"]

    @property
    def exit_status(self) -> int:
        """0, or the exit status of the first failure's code."""
        return 0 if self.ok else CODES[self.failures[0].code or "INTERNAL"].exit

    def passed(self, check: str, detail: str) -> None:
        """Record a check that holds."""
        self.checks.append(Check(check, "pass", printable(detail)))

    def skipped(self, check: str, detail: str) -> None:
        """Record a check that was not made, and why."""
        self.checks.append(Check(check, "skip", printable(detail)))

    def failed(self, check: str, error: SealpackError) -> None:
        """Record a check that does not hold."""
        self.checks.append(Check(check, "fail", error.message, error.code, error.remedy))

    def raise_first(self) -> None:
        """Raise the first failure as an error; return when there is none."""
        for check in self.failures:
            raise SealpackError(check.code or "INTERNAL", f"{self.path}: {check.detail}", remedy=check.remedy)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "schema": SCHEMA,
            "bundle": self.path,
            "verdict": "pass" if self.ok else "fail",
            "checks": [
                {"id": c.id, "status": c.status, "detail": c.detail, **({"code": c.code} if c.code else {})}
                for c in self.checks
            ],
            **self.facts,
        }

    def to_text(self) -> str:
        """The human form: verdict, who signed, every check."""
        lines = [f"{'PASS' if self.ok else 'FAIL'}  {printable(self.path)}"]
        lines += [f"  {label:<12} {printable(value)}" for label, value in self._summary()]
        width = max((len(c.id) for c in self.checks), default=0)
        for c in self.checks:
            mark = {"pass": "ok  ", "fail": "FAIL", "skip": "--  "}[c.status]
            code = f" [{c.code}]" if c.code else ""
            lines.append(f"  {mark} {c.id:<{width}}  {c.detail}{code}")
        if not self.ok and self.failures:
            lines.append(f"  next: {self.failures[0].remedy}")
        return "\n".join(lines)

    def _summary(self) -> list[tuple[str, str]]:
        facts, rows = self.facts, []
        if not self.ok:
            return []
        if bundle := facts.get("bundle_id"):
            rows.append(("bundle", f"{bundle} {facts['version']} (release {facts['release_index']})"))
            rows.append(("digest", f"sha256:{facts['bundle_digest']}"))
        if signer := facts.get("signer"):
            day = datetime.fromtimestamp(facts["signed_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
            rows.append(("signed by", f"{signer['issuer']}, key {signer['keyid'][:16]}, {day} (as stated)"))
        return rows
