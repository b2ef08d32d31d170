"""Issued lines as a FOCUS 1.0 cost and usage dataset, for the customer's FinOps tools.

Source: specs/exports.md, "FOCUS"; columns and values are those of the FinOps Open Cost and Usage
Specification. The billed costs of a document sum to its total.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa

from sealpack.format.license import PlanRef
from sealpack.settlement import registry, reports
from sealpack.settlement.exports.documents import Stored
from sealpack.settlement.periods import day_start
from sealpack.settlement.plan import FIELD_WORDS, Plan

COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription",
    "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "CommitmentDiscountCategory",
    "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountStatus", "CommitmentDiscountType",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingQuantity", "PricingUnit",
    "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType",
    "ServiceCategory", "ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
    "x_InvoiceNumber", "x_CorrectsInvoiceNumber",
)  # fmt: skip
_CORRECTIONS = ("late", "correction")  # kinds that correct an earlier period
_CATEGORIES = {"credit": "Credit", "true_up": "Adjustment", "shortfall": "Adjustment", "overage": "Usage",
               "prepayment": "Purchase", "breakage": "Adjustment"}  # fmt: skip


def to_csv(connection: sa.Connection, documents: Iterable[Stored]) -> bytes:
    """One row per line and per tax, in the order of issue."""
    rows = [
        [cells.get(column, "") for column in COLUMNS]
        for document in documents
        for cells in _rows(document, _plan(connection, document.value["plan"]))
    ]
    return reports.as_csv(COLUMNS, rows).encode()


def _plan(connection: sa.Connection, named: dict[str, Any]) -> Plan | None:
    """The plan of a document, for the names of its units."""
    plan = registry.load_plan(connection, PlanRef(named["id"], named["version"]))
    return plan if plan is not None and plan.digest == named["digest"] else None


def _rows(document: Stored, plan: Plan | None) -> list[dict[str, str]]:
    value = document.value
    common = {
        "BillingAccountId": document.customer,
        "BillingAccountName": value["customer"]["name"],
        "BillingCurrency": value["currency"],
        **_span("BillingPeriod", value["period_start"], value["period_end"], value["tz"]),
        "ChargeClass": "Correction" if document.kind in _CORRECTIONS else "",
        "InvoiceIssuerName": value["seller"]["name"],
        "ProviderName": value["seller"]["name"],
        "PublisherName": value["seller"]["name"],
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": value["plan"]["id"],
        "SubAccountId": value["license"],
        "SubAccountName": value["license"],
        "x_InvoiceNumber": document.name,
        "x_CorrectsInvoiceNumber": value.get("corrects", ""),
    }
    lines = [common | _line(line, value["tz"], plan) for line in value["lines"]]
    period = _span("ChargePeriod", value["period_start"], value["period_end"], value["tz"])
    return lines + [common | period | _tax(tax) for tax in value["taxes"]]


def _line(line: dict[str, Any], tz: str, plan: Plan | None) -> dict[str, str]:
    used = "raw" in line
    category = _CATEGORIES.get(line["kind"], "Usage" if used else "Purchase")
    frequency = "Usage-Based" if used or line["kind"] == "overage" else _frequency(line["charge"], plan)
    priced = category in ("Usage", "Purchase")
    unit, base = _units(line["charge"], plan)
    return {
        **_costs(line["amount"]),
        **_span("ChargePeriod", line["service_start"], line["service_end"], tz),
        "ChargeCategory": category,
        "ChargeDescription": line["description"],
        "ChargeFrequency": frequency,
        "ConsumedQuantity": line.get("raw", ""),
        "ConsumedUnit": base if used else "",
        "PricingCategory": ("Standard" if line["kind"] == "charge" else "Other") if priced else "",
        "PricingQuantity": line.get("quantity", "1") if priced else "",
        "PricingUnit": (unit if used else "Units") if priced else "",
        "SkuId": line["charge"],
    }


def _tax(tax: dict[str, str]) -> dict[str, str]:
    return {
        **_costs(tax["amount"]),
        "ChargeCategory": "Tax",
        "ChargeDescription": f"tax {tax['category']} {tax['percent']} %",
        "ChargeFrequency": "One-Time",
    }


def _costs(amount: str) -> dict[str, str]:
    """Nothing is amortised, and discounts are inside of a line: the four costs are one."""
    return dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), amount)


def _frequency(charge: str, plan: Plan | None) -> str:
    types = {c.id: c.type for c in plan.charges} if plan else {}
    return "Recurring" if types.get(charge) == "recurring" else "One-Time"


def _units(charge: str, plan: Plan | None) -> tuple[str, str]:
    """What a priced unit is ("1000 Output Tokens") and what a base unit is."""
    meters = {c.id: plan.meters[c.meter] for c in plan.charges if c.meter} if plan else {}
    meter = meters.get(charge)
    if meter is None:
        return "Units", "Units"
    words = FIELD_WORDS[meter.field].title()
    return (words if meter.per == 1 else f"{meter.per} {words}"), words


def _span(name: str, first: str, last: str, tz: str) -> dict[str, str]:
    """Start and exclusive end of days in the plan's zone, UTC."""
    start = day_start(date.fromisoformat(first), tz)
    end = _end(date.fromisoformat(last), tz)
    return {f"{name}Start": _utc(start), f"{name}End": _utc(end)}


def _end(last: date, tz: str) -> int:
    return day_start(date.fromordinal(last.toordinal() + 1), tz)


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
