"""What a statement shows, the same in HTML and PDF: head, facts, tables and sums.

Source: specs/statements.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sealpack.settlement import money, wording

KINDS = {
    "invoice": "Invoice", "late": "Late usage", "correction": "Correction", "credit": "Credit note",
    "payment": "Payment", "apply": "Paid from account", "refund": "Refund", "writeoff": "Written off",
}  # fmt: skip
BUCKETS = {
    "not_due": "Not due", "days_1_30": "1–30 days", "days_31_60": "31–60 days", "days_61_90": "61–90 days",
    "over_90": "Over 90 days",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grid:
    """A table under a title. `numbers`: columns aligned right; `wide`: the one that takes what is left."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: tuple[int, ...]
    wide: int = 0


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole statement, as text; `sums` come after the first `after` grids."""

    title: str
    below: str
    seller: dict[str, Any]
    label: str
    receiver: dict[str, Any]
    facts: list[tuple[str, str]]
    grids: list[Grid]
    sums: list[tuple[str, str]]
    last: tuple[str, str]
    notes: list[str]


def sheet(value: dict[str, Any]) -> Sheet:
    """What the JSON of a statement looks like."""
    return _payout(value) if value["schema"] == "sealpack/payout-statement/v1" else _customer(value)


def name(value: dict[str, Any]) -> str:
    """What a statement is called: "Payout statement for creator:acme to 31 October 2026"."""
    until = wording.iso_day(value["to"])
    if value["schema"] == "sealpack/payout-statement/v1":
        return f"Payout statement for {value['party']} to {until}"
    return f"Statement of account of {value['customer_id']} to {until}"


def _when(value: dict[str, Any]) -> str:
    until = wording.iso_day(value["to"])
    return f"{wording.iso_day(value['from'])} to {until}" if "from" in value else f"up to {until}"


def _payout(value: dict[str, Any]) -> Sheet:
    currency, amount = value["currency"], wording.amount
    waiting, available = value["waiting"], value["available"]
    items = Grid(
        "What you earned",
        ("License", "Month", "Documents", f"Earned, {currency}", "Released", "Waiting"),
        [
            (
                item["license"],
                wording.month(item["period"]),
                ", ".join(item["documents"]),
                amount(item["earned"]) + _lost(item),
                amount(item["released"]),
                amount(item["waiting"]),
            )
            for item in value["items"]
        ],
        (3, 4, 5),
        2,
    )
    wait = Grid(
        "Not yet paid by customers", ("", f"Amount, {currency}"),
        [
            ("Carried over", amount(waiting["opening"])), ("Earned", amount(waiting["earned"])),
            ("Written off: customers do not pay it", amount(_minus(waiting["written_off"]))),
            ("Released, because customers paid", amount(_minus(waiting["released"]))),
            ("Still waiting", amount(waiting["closing"])),
        ],
        (1,),
    )  # fmt: skip
    if not waiting["written_off"].strip("-0."):
        del wait.rows[2]
    paid = Grid(
        "Payouts", ("Date", "Reference", f"Amount, {currency}"),
        [(wording.iso_day(p["date"]), p["reference"], amount(p["amount"])) for p in value["payouts"]],
        (2,), 1,
    )  # fmt: skip
    return Sheet(
        title="Payout statement", below=_when(value), seller=value["seller"], label="For",
        receiver={"name": value["party"], "address": []},
        facts=[("Currency", currency), ("Issuer", value["issuer"])],
        grids=[grid for grid in (items, wait, paid) if grid.rows],
        sums=[
            ("Carried over from before", amount(available["opening"])),
            ("Released", amount(available["released"])), ("Paid out", amount(_minus(available["paid"]))),
        ],
        last=("Carried forward", f"{currency} {amount(available['closing'])}"),
        notes=[
            "Earned is your part of what was invoiced. It is released when the customer pays, in proportion "
            "to what was paid; what is released is paid out, or carried forward to the next payout.",
            f"Owed to you in all, paid for by customers or not: {currency} {amount(value['payable'])}.",
        ],
    )  # fmt: skip


def _lost(item: dict[str, Any]) -> str:
    """What of an item's money is lost, told where it is earned."""
    lost = item["written_off"]
    return "" if not lost.strip("-0.") else f" ({wording.amount(_minus(lost))} written off)"


def _minus(text: str) -> str:
    """An amount of the other sign."""
    if not text.strip("-0."):
        return text
    return text[1:] if text.startswith("-") else f"-{text}"


def _customer(value: dict[str, Any]) -> Sheet:
    currency, amount = value["currency"], wording.amount
    before = wording.iso_day(value.get("from", ""))
    opening = (before, "Balance before", "", "", amount(value["opening"]))
    moves = Grid(
        "What happened",
        ("Date", "What", "Document", f"Amount, {currency}", "Balance"),
        [
            opening,
            *(
                (
                    wording.iso_day(item["date"]),
                    _what(item),
                    item["document"],
                    amount(item["amount"]),
                    amount(item["balance"]),
                )
                for item in value["items"]
            ),
        ],
        (3, 4),
        1,
    )
    owed = Grid(
        "What is open",
        ("Document", "Date", "Due", "Days overdue", "Total", f"Open, {currency}"),
        [
            (
                one["number"],
                wording.iso_day(one["date"]),
                wording.iso_day(one.get("due", "")),
                str(one["days_overdue"] or ""),
                amount(one["total"]),
                amount(one["open"]),
            )
            for one in value["open"]
        ],
        (3, 4, 5),
    )
    aging = Grid(
        "By age", tuple(BUCKETS.values()), [tuple(amount(value["aging"][name]) for name in BUCKETS)],
        (0, 1, 2, 3, 4), -1,
    )  # fmt: skip
    credit = value["closing"].startswith("-")
    words = "In your favour" if credit else "To be paid"
    return Sheet(
        title="Statement of account", below=_when(value), seller=value["seller"], label="For",
        receiver=value["customer"],
        facts=[
            ("Customer", value["customer_id"]), ("Currency", currency),
        ],
        grids=[moves, *([owed, aging] if owed.rows else [])],
        sums=[
            ("Open", amount(_plus(value["closing"], value["on_account"]))),
            ("On account", amount(_minus(value["on_account"]))),
        ],
        last=(words, f"{currency} {amount(value['closing'].removeprefix('-'))}"),
        notes=["Payments that arrived after the last day of this statement are not on it."],
    )  # fmt: skip


def _what(item: dict[str, Any]) -> str:
    words = KINDS.get(item["what"], item["what"])
    return f"{words}, {item['reference']}" if item["reference"] else words


def _plus(one: str, other: str) -> str:
    """The sum of two amounts of one currency."""
    places = len(one.partition(".")[2])
    return money.amount_text(int(one.replace(".", "")) + int(other.replace(".", "")), places)
