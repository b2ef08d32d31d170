"""Statements as CSV: one row per item, payout or open document, then the sums.

Source: specs/statements.md. Cells are guarded as in specs/invoice.md, section 4.
"""

from __future__ import annotations

from typing import Any

from sealpack.settlement import reports

PAYOUT_COLUMNS = (
    "record", "date", "party", "license", "period", "documents", "reference", "earned", "written_off",
    "released", "paid", "waiting", "available", "currency",
)  # fmt: skip
CUSTOMER_COLUMNS = (
    "record", "date", "what", "document", "reference", "due", "amount", "open", "balance", "currency",
)  # fmt: skip


def to_csv(value: dict[str, Any]) -> bytes:
    """The CSV of a payout statement or a customer statement."""
    is_payout = value["schema"] == "sealpack/payout-statement/v1"
    columns: tuple[str, ...] = PAYOUT_COLUMNS if is_payout else CUSTOMER_COLUMNS
    records = _payout(value) if is_payout else _customer(value)
    common = {"party": value.get("party", ""), "currency": value["currency"]}
    rows = [[str((common | record).get(column, "")) for column in columns] for record in records]
    return reports.as_csv(columns, rows).encode()


def _payout(value: dict[str, Any]) -> list[dict[str, Any]]:
    waiting, available = value["waiting"], value["available"]
    opening = {"waiting": waiting["opening"], "available": available["opening"]}
    moved = {name: waiting[name] for name in ("earned", "written_off", "released")}
    closing = {"waiting": waiting["closing"], "available": available["closing"]}
    return [
        {"record": "opening", "date": value.get("from", "")} | opening,
        *(
            {"record": "item"} | item | {"documents": " ".join(item["documents"])}
            for item in value["items"]
        ),
        *({"record": "payout"} | paid | {"paid": paid["amount"]} for paid in value["payouts"]),
        {"record": "total", "date": value["to"], "paid": available["paid"]} | moved | closing,
    ]  # fmt: skip


def _customer(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"record": "opening", "date": value.get("from", ""), "balance": value["opening"]},
        *({"record": "item"} | item for item in value["items"]),
        {"record": "closing", "date": value["to"], "balance": value["closing"]},
        *(
            {"record": "open", "document": one["number"], "amount": one["total"]} | one
            for one in value["open"]
        ),
        {"record": "on account", "date": value["to"], "amount": value["on_account"]},
    ]  # fmt: skip
