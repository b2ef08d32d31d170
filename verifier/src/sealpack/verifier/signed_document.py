"""Checking a signed invoice or statement by itself: who signed, what it is, and that its amounts add up.

Source: specs/invoice.md section 7.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sealpack.format import billing
from sealpack.format.billing import Signed
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.trust import Trust
from sealpack.verifier import sums


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked; `code` is empty when it holds."""

    name: str
    detail: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class SignedReport:
    """The verdict. After a check that failed there are no more."""

    kind: str
    name: str  # number, or whose statement
    signed_by: dict[str, Any]
    sha256: str  # of the document's JSON; of the file while nothing in it is verified
    checks: tuple[Check, ...]

    @property
    def exit_status(self) -> int:
        """0 when everything holds, else that of the code."""
        code = self.checks[-1].code
        return CODES[code].exit if code else 0

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema sealpack/signed-report/v1."""
        checks = [
            {"check": check.name, "ok": not check.code, "detail": check.detail}
            | ({"code": check.code} if check.code else {})
            for check in self.checks
        ]
        return {
            "schema": "sealpack/signed-report/v1", "ok": self.exit_status == 0, "kind": self.kind,
            "name": self.name, "signed_by": self.signed_by, "sha256": self.sha256, "checks": checks,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The text form."""
        first = ["PASS" if self.exit_status == 0 else "FAIL"]
        marked = [
            f"  FAIL  {check.name}: {check.code}: {check.detail}" if check.code
            else f"  ok    {check.name}: {check.detail}"
            for check in self.checks
        ]  # fmt: skip
        return [*first, *marked, f"sha256 {self.sha256}"]


def verify(data: bytes, trust: Trust) -> SignedReport:
    """Check a file under the reader's trust. Never raises for what the file holds."""
    try:
        signed = billing.open_signed(data, trust)
    except SealpackError as error:
        failed = Check("signature", error.message, error.code)
        return SignedReport("", "", {}, hashlib.sha256(data).hexdigest(), (failed,))
    entry = signed.entry
    checks = [Check("signature", f"{entry.issuer}, key {entry.key.keyid[:16]}")]
    try:
        name = _name(signed)
        checks.append(Check("document", name))
        checks.append(Check("sums", sums.check(signed)))
    except SealpackError as error:
        what = "document" if len(checks) == 1 else "sums"
        checks.append(Check(what, error.message, error.code))
        name = checks[1].detail if what == "sums" else ""
    return SignedReport(signed.kind, name, entry.summary(), signed.digest, tuple(checks))


def _name(signed: Signed) -> str:
    """What it is, of whom and for whom; DOC_SCHEMA for a draft: nobody owes anything for it."""
    f = signed.fields
    seller = f.sub("seller").text("name", max_len=300)
    if signed.kind == "payout-statement":
        return f"payout statement of {seller} for {f.text('party')} to {f.text('to')}"
    customer = f.sub("customer").text("name", max_len=300)
    if signed.kind == "customer-statement":
        return f"statement of {seller} for {customer} to {f.text('to')}"
    if f.boolean("draft"):
        raise f.fail("draft", "says that this is not issued")
    kind = f.choice("kind", ("invoice", "credit_note")).replace("_", " ")
    total = f"{f.text('currency', pattern='[A-Z]{3}')} {f.text('total')}"
    return f"{kind} {f.text('number')} of {seller} for {customer}, {total}"
