"""Plans that the rating tests share, made the way a registry would: from parsed data."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sealpack.settlement.plan import Plan
from sealpack.settlement.rating import Span, Usage

TIERS = [{"up_to": "10000", "unit": "0.0400"}, {"up_to": "50000", "unit": "0.0250"}, {"unit": "0.0150"}]
GRADUATED = {"id": "tok", "type": "usage", "meter": "m", "model": "graduated", "tiers": TIERS}
APRIL = Span(date(2026, 4, 1), date(2026, 4, 30))
MID_APRIL = int(datetime.fromisoformat("2026-04-15T12:00Z").timestamp()) * 1000
QUARTER = 900_000


def plan_data(*charges: dict[str, Any], per: int = 1000, **more: Any) -> dict[str, Any]:
    head = {"id": "example", "version": 1, "currency": "USD", "tz": "UTC", **more.pop("head", {})}
    return {
        "plan": head,
        "meters": {"m": {"field": "tok_out", "per": per}},
        "charges": list(charges) or [GRADUATED],
        **more,
    }


def make_plan(*charges: dict[str, Any], per: int = 1000, **more: Any) -> Plan:
    return Plan.from_dict(plan_data(*charges, per=per, **more))


def per_unit(unit: str = "1", name: str = "tok", **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "usage", "meter": "m", "model": "per_unit", "unit": unit, **more}


def recurring(amount: str, name: str = "base", **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "recurring", "amount": amount, **more}


def tokens(amount: int, *, at: int = MID_APRIL, status: str = "ok") -> Usage:
    return {(at, status, "tok_out"): amount}
