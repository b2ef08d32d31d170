"""An invoice or credit note on paper, made of its JSON and nothing else.

Source: specs/invoice.md section 6. The customer's copy: the payout split is not on it.
"""

from __future__ import annotations

from typing import Any

from sealpack.settlement import wording
from sealpack.settlement.pdf import blocks
from sealpack.settlement.pdf.paper import BODY, SMALL, STRONG, About, Column, Paper, Text


def about(value: dict[str, Any], digest: str) -> About:
    """What the file says of itself."""
    number = value.get("number", "")
    title = f"{_title(value)} {number}" if number else f"Draft of {_title(value).lower()}"
    name = number or f"draft for {value['license']}"
    return About(title, name, value["seller"]["name"], digest, "" if number else "DRAFT")


def write(paper: Paper, value: dict[str, Any]) -> None:
    """All of the document."""
    draft = "" if value.get("number") else "Draft, not yet issued: nothing is to be paid for it"
    number = value.get("number", "")
    blocks.head(paper, _title(value), f"No. {number}" if number else "", value["seller"], draft=draft)
    label = "Credited to" if _is_credit(value) else "Billed to"
    blocks.parties(paper, label, value["customer"], _facts(value))
    _lines(paper, value)
    _totals(paper, value)
    _taxes(paper, value)
    _payment(paper, value)
    _working(paper, value)
    _evidence(paper, value)
    blocks.source(paper)


def _is_credit(value: dict[str, Any]) -> bool:
    return bool(value["kind"] == "credit_note")


def _title(value: dict[str, Any]) -> str:
    return "Credit note" if _is_credit(value) else "Invoice"


def _facts(value: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Date", wording.iso_day(value.get("date", ""))),
        ("Due", wording.iso_day(value.get("due", ""))),
        ("Period", wording.iso_span(value["period_start"], value["period_end"])),
        ("License", value["license"]),
        ("Your order", value.get("purchase_order", "")),
        ("Corrects invoice" if _is_credit(value) else "Adds to invoice", value.get("corrects", "")),
        ("For", value.get("reason", "")),
    ]


def _lines(paper: Paper, value: dict[str, Any]) -> None:
    columns = (
        Column("Description", open=True), Column("Service period"), Column("Quantity", number=True),
        Column(f"Amount, {value['currency']}", number=True),
    )  # fmt: skip
    rows = [
        (
            [Text(line["description"]), *_used(line)],
            [Text(wording.iso_span(line["service_start"], line["service_end"]))],
            [Text(wording.quantity(line["quantity"]))] if "quantity" in line else [Text("")],
            [Text(wording.amount(line["amount"]))],
        )
        for line in value["lines"]
    ]
    paper.table(
        columns, rows or [([Text("Nothing to bill in this period.")], [Text("")], [Text("")], [Text("")])]
    )


def _used(line: dict[str, Any]) -> list[Text]:
    """What was measured, where the line is of usage."""
    steps = [step["text"] for step in line["working"] if step["step"] == "usage"]
    return [Text(text, SMALL) for text in steps[:1] if text not in line["description"]]


def _totals(paper: Paper, value: dict[str, Any]) -> None:
    rows = [("Net", wording.amount(value["net"])), ("Tax", wording.amount(value["tax"]))]
    word = "Total credited" if _is_credit(value) else "Total"
    blocks.sums(paper, rows, (word, f"{value['currency']} {wording.amount(value['total'])}"))


def _taxes(paper: Paper, value: dict[str, Any]) -> None:
    if not value["taxes"]:
        return
    paper.heading("Tax", rule=False)
    columns = (
        Column("Category", open=True), Column("Rate", number=True),
        Column(f"Taxable amount, {value['currency']}", number=True),
        Column(f"Tax, {value['currency']}", number=True),
    )  # fmt: skip
    rows = []
    for tax in value["taxes"]:
        category = tax["category"]
        words = f"{category}: {wording.TAX_WORDS.get(category, 'other')}"
        reason = [Text(tax["reason"], SMALL)] if tax.get("reason") else []
        rows.append(
            (
                [Text(words), *reason],
                [Text(f"{wording.quantity(tax['percent'])} %")],
                [Text(wording.amount(tax["base"]))],
                [Text(wording.amount(tax["amount"]))],
            )
        )
    paper.table(columns, rows)


def _payment(paper: Paper, value: dict[str, Any]) -> None:
    number = value.get("number", "")
    if not number:
        return
    paper.heading("Payment")
    said = wording.payment(
        value["total"], value["currency"], number, due=value.get("due", ""),
        corrects=value.get("corrects", ""), credit=_is_credit(value),
    )  # fmt: skip
    paper.paragraph(said, STRONG)
    if value.get("payment"):
        paper.y += 1
        paper.paragraph(value["payment"])


def _working(paper: Paper, value: dict[str, Any]) -> None:
    lines = [line for line in value["lines"] if len(line["working"]) > 1]
    if not lines:
        return
    paper.heading("How each amount was worked out")
    if value.get("corrects"):
        paper.paragraph(wording.CORRECTED, SMALL)
        paper.y += 1
    if any("estimated" in line for line in lines):
        paper.paragraph(wording.ESTIMATED, SMALL)
        paper.y += 1
    for line in lines:
        paper.need(STRONG.leading + 2 * SMALL.leading)
        paper.paragraph(f"{line['description']}: {wording.amount(line['amount'])}", STRONG)
        for step in line["working"]:
            paper.paragraph(step["text"], SMALL, x=22, width=170)
        paper.y += 1.5


def _evidence(paper: Paper, value: dict[str, Any]) -> None:
    plan = value["plan"]
    paper.heading("What this rests on", 24)
    paper.paragraph(
        f"Price plan {plan['id']} version {plan['version']} (SHA-256 {plan['digest'][:16]}…). Periods follow "
        f"the calendar of {value['tz']}.",
        BODY,
    )
    if not value["evidence"]:
        return
    paper.y += 2
    columns = (Column("Usage log", open=True), Column("Entries", number=True), Column("Root"))
    paper.table(
        columns,
        [
            (
                [Text(_short(item["origin"]) + _beyond(item), SMALL)],
                [Text(f"{item['end'] - item['first']:,}", SMALL)],
                [Text(f"{item['root'][:16]}…", SMALL)],
            )
            for item in value["evidence"]
        ],
    )


def _beyond(item: dict[str, Any]) -> str:
    """How many files state what was used beyond the entries of a log."""
    stated = len(item.get("stated", ()))
    return f", and {stated} reading{'s' * (stated != 1)} beyond them" if stated else ""


def _short(origin: str) -> str:
    """A log's name with its device id cut: "sealpack/usage/L-1/dev-e01e45a6…/0"."""
    parts = origin.split("/")
    return "/".join(f"{part[:12]}…" if part.startswith("dev-") and len(part) > 13 else part for part in parts)
