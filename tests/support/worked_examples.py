"""The worked examples of specs/rating.md, section 12, as literals: what goes in, and the cents that come out.

Each is answered twice, by the package and by tests/support/rating_oracle.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from sealpack.settlement.plan import load_plan
from sealpack.settlement.printing import correction
from sealpack.settlement.quote import Terms, quote, to_dict
from sealpack.settlement.results import PeriodResult
from sealpack.settlement.usage_table import read_rows
from support import rating_oracle as oracle
from support.rating_plans import TIERS, per_unit, plan_data

APRIL = "2026-04-15T12:00:00Z"
TAX = {"category": "S", "percent": "20"}


def _tokens(model: str, **more: Any) -> dict[str, Any]:
    charge = {"id": "tok", "type": "usage", "meter": "m", "model": model, "tiers": TIERS}
    return plan_data(charge, per=1000, **more)


def _units(unit: str, **more: Any) -> dict[str, Any]:
    return plan_data(*more.pop("charges", []), per_unit(unit), per=1, **more)


def _packages() -> dict[str, Any]:
    package = {"size": "10000", "price": "0.85", "free": "100000"}
    charge = {"id": "calls", "type": "usage", "meter": "m", "model": "package", "package": package}
    return plan_data(charge) | {"meters": {"m": {"field": "calls"}}}


def _minimum() -> dict[str, Any]:
    base = {"id": "base", "type": "recurring", "amount": "99.00"}
    minimum = {"id": "min", "kind": "minimum", "scope": ["base", "tok"], "amount": "500.00"}
    return _units("0.01", charges=[base], commitments=[minimum], tax=TAX)


def _prepaid() -> dict[str, Any]:
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "12000.00",
             "billing": "prepaid", "overage_factor": "1.2", "unused": "forfeit"}  # fmt: skip
    return _units("0.01", commitments=[spend])


def _split() -> dict[str, Any]:
    pool = [{"party": "platform", "bps": 2500}, {"party": "creator:acme", "rest": True}]
    return _units("0.01", shares={"scope": ["tok"], "pool": pool})


@dataclass(frozen=True)
class Example:
    """One row: a plan and one row of usage, what an earlier period used, and what must come out."""

    case: str
    plan: Mapping[str, Any]
    field: str
    amount: int
    expected: Mapping[str, str]  # of the only period: lines as "charge kind", tax, total, parties, month
    at: str = APRIL
    used: Mapping[str, Fraction] | None = None
    less: int = 0  # what turned out never to have been used: the credit note is what comes out


EXAMPLES = (
    Example("graduated", _tokens("graduated"), "tok_out", 73_456_789, {"total": "1751.85"}),
    Example("volume, at the bound", _tokens("volume"), "tok_out", 50_000_000, {"total": "1250.00"}),
    Example("volume, one above", _tokens("volume"), "tok_out", 50_000_001, {"total": "750.00"}),
    Example("packages, one started", _packages(), "calls", 1_234_567, {"total": "96.90"}),
    Example("packages, whole", _packages(), "calls", 1_100_000, {"total": "85.00"}),
    Example(
        "minimum and tax", _minimum(), "tok_out", 25_185,
        {"base charge": "99.00", "tok charge": "251.85", "min true_up": "149.15", "tax": "100.00",
         "total": "600.00"},
    ),
    Example(
        "committed, overage", _prepaid(), "tok_out", 150_000,
        {"tok charge": "0.00", "year overage": "1080.00", "total": "1080.00", "platform": "1680.00"},
        used={"year": Fraction(11_400)},
    ),
    Example(
        "split 25/75", _split(), "tok_out", 100_001,
        {"total": "1000.01", "platform": "250.00", "creator:acme": "750.01"},
    ),
    Example(
        "credit note", _tokens("graduated", tax=TAX), "tok_out", 73_456_789,
        {"tok charge": "-150.00", "tax": "-30.00", "total": "-180.00"}, less=10_000_000,
    ),
    Example(
        "time zone", _units("1", head={"tz": "Europe/Berlin"}), "tok_out", 1,
        {"month": "2026-04", "total": "1.00"}, at="2026-03-31T22:30:00Z",
    ),
)  # fmt: skip


def by_package(example: Example) -> dict[str, str]:
    """What the package answers, with the members that are expected."""
    now = _quoted(example, example.amount)
    if not example.less:
        (said,) = to_dict(now.plan, [now])["invoices"]
        found = {f"{line['charge']} {line['kind']}": line["amount"] for line in said["lines"]}
        found |= {share["party"]: share["amount"] for share in said["shares"]}
        found |= {"tax": said["tax"], "total": said["total"], "month": said["period_start"][:7]}
    else:
        change = correction(now, _quoted(example, example.amount - example.less))
        assert change is not None and change.is_credit
        found = {f"{line.charge} {line.kind}": now.text(line.amount) for line in change.lines}
        found |= {"tax": now.text(change.tax), "total": now.text(change.total)}
    return {name: found.get(name, "nothing") for name in example.expected}


def _quoted(example: Example, amount: int) -> PeriodResult:
    table = f"time,{example.field}\n{example.at},{amount}\n"
    rows = read_rows(io.StringIO(table, newline=""), what="usage.csv")
    terms = Terms(commitment_used=example.used)
    (result,) = quote(load_plan(json.dumps(example.plan).encode()), rows, terms, what="usage.csv")
    return result


def by_oracle(example: Example) -> dict[str, str]:
    """What the oracle answers, likewise."""
    now = _rated(example, example.amount)
    before = _rated(example, example.amount - example.less) if example.less else None
    found: dict[str, str] = {"month": f"{now['period']:%Y-%m}"}
    for charge, kind, amount in now["lines"]:
        found[f"{charge} {kind}"] = _text(amount)
    found |= {party: _text(amount) for party, amount in now["shares"].items()}
    found |= {"tax": _text(now["tax"]), "total": _text(now["total"])}
    if before is not None:
        found = {name: _text(before[name] - now[name]) for name in ("tax", "total")}
        for (charge, kind, amount), (_, _, old) in zip(before["lines"], now["lines"], strict=True):
            found[f"{charge} {kind}"] = _text(amount - old)
    return {name: found.get(name, "nothing") for name in example.expected}


def _rated(example: Example, amount: int) -> dict[str, Any]:
    row = (datetime.fromisoformat(example.at), "ok", {example.field: amount})
    (answer,) = oracle.rate(example.plan, [row], used=example.used)
    return answer


def _text(cents: int) -> str:
    sign, cents = ("-" if cents < 0 else ""), abs(cents)
    return f"{sign}{cents // 100}.{cents % 100:02}"
