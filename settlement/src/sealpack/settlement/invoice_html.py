"""An invoice as one HTML page that prints on A4: no script, no outside resource, all escaped.

Source: specs/invoice.md section 5. The page answers "what, for when, how much, and why": the lines
and totals first, then how each line was worked out, then the evidence. The payout split is left out
unless asked for: the customer's copy does not show what the creator is paid.
"""

from __future__ import annotations

from datetime import date
from html import escape

from sealpack.settlement import money
from sealpack.settlement.invoice import Business, Invoice
from sealpack.settlement.results import Line

_STYLE = """
@page { size: A4; margin: 18mm 18mm 20mm; }
* { box-sizing: border-box; }
html { background: #eceae4; }
body { max-width: 210mm; margin: 8mm auto; padding: 18mm; background: #fff; color: #1c1b19;
  font: 10pt/1.45 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
h1 { font-size: 22pt; line-height: 1.1; margin: 0; font-weight: 600; letter-spacing: -0.01em; }
h2 { font-size: 10.5pt; margin: 7mm 0 2mm; padding-bottom: 1mm; border-bottom: .3mm solid #1c1b19;
  break-after: avoid; }
header { display: flex; justify-content: space-between; gap: 10mm; align-items: flex-start; }
address { font-style: normal; }
.muted, dt, th, .why { color: #5c5952; }
.seller { text-align: right; max-width: 80mm; }
.parties { display: flex; justify-content: space-between; gap: 10mm; margin: 12mm 0 9mm; }
.label { font-size: 8.5pt; color: #5c5952; margin: 0 0 1mm; }
dl { display: grid; grid-template-columns: auto auto; gap: .6mm 5mm; margin: 0; }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th { font-size: 8.5pt; font-weight: 400; text-align: left; padding: 0 0 1.5mm;
  border-bottom: .3mm solid #1c1b19; vertical-align: bottom; }
td { padding: 2mm 0; border-bottom: .15mm solid #d8d4ca; vertical-align: top;
  overflow-wrap: anywhere; }
th + th, td + td { padding-left: 5mm; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr, .work li { break-inside: avoid; }
.totals { width: 88mm; margin: 4mm 0 0 auto; break-inside: avoid; }
.totals td { border: 0; padding: .8mm 0; }
.totals .sum td { border-top: .3mm solid #1c1b19; padding-top: 2mm; font-size: 13pt;
  font-weight: 600; }
.notes { margin: 8mm 0 0; white-space: pre-line; }
.work { list-style: none; margin: 0; padding: 0; font-size: 9pt; }
.work li { margin: 0 0 2.5mm; }
.work b { font-weight: 600; }
.why { margin: 0; padding: 0 0 0 4mm; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.proof { font-size: 8pt; color: #5c5952; overflow-wrap: anywhere; }
.proof p { margin: 0 0 1mm; }
code { font: 7.5pt/1.4 "DejaVu Sans Mono", "Liberation Mono", Menlo, monospace; }
.draft { display: inline-block; margin-left: 3mm; padding: .5mm 2.5mm; border: .3mm solid #a3390b;
  color: #a3390b; font-size: 9pt; vertical-align: middle; letter-spacing: 0; }
@media print { html { background: #fff; } body { max-width: none; margin: 0; padding: 0; } }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def to_html(document: Invoice, *, split: bool = False) -> str:
    """The page. `split` adds who is paid what, for the seller's own files."""
    title = f"{_title(document)} {document.header.number}".strip()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        _head(document),
        _parties(document),
        _table(document),
        _totals(document),
        _payment(document),
        _working(document),
        _split(document) if split else "",
        _proof(document),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _title(document: Invoice) -> str:
    return "Credit note" if document.kind == "credit_note" else "Invoice"


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _span(first: date, last: date) -> str:
    """A range of days, short: "1–30 April 2026"."""
    if first == last:
        return _day(first)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{_day(last)}"
    if first.year == last.year:
        return f"{first.day} {first:%B} – {_day(last)}"
    return f"{_day(first)} – {_day(last)}"


def _money(document: Invoice, amount: int) -> str:
    return money.grouped(document.text(amount)).replace("-", "−")


def _address(party: Business) -> str:
    lines = [f"<b>{escape(party.name)}</b>", *(escape(line) for line in party.address)]
    if party.tax_id:
        lines.append(f"Tax ID {escape(party.tax_id)}")
    if party.email:
        lines.append(escape(party.email))
    return "<address>" + "<br>".join(lines) + "</address>"


def _head(document: Invoice) -> str:
    draft = '<span class="draft">Draft, not yet issued</span>' if document.draft else ""
    number = document.header.number
    below = f'<div class="muted">No. {escape(number)}</div>' if number else ""
    seller = f'<div class="seller">{_address(document.header.seller)}</div>'
    return f"<header><div><h1>{_title(document)}{draft}</h1>{below}</div>{seller}</header>"


def _parties(document: Invoice) -> str:
    header = document.header
    facts = [
        ("Date", _day(header.issued) if header.issued else ""),
        ("Due", _day(header.due) if header.due else ""),
        ("Period", _span(document.first, document.last)),
        ("License", header.license_id),
        ("Your order", header.purchase_order),
        ("Corrects invoice" if document.kind == "credit_note" else "Adds to invoice", document.corrects),
        ("For", document.reason),
    ]
    rows = "".join(f"<dt>{label}</dt><dd>{escape(value)}</dd>" for label, value in facts if value)
    label = "Credited to" if document.kind == "credit_note" else "Billed to"
    to = f'<div><p class="label">{label}</p>{_address(header.customer)}</div>'
    return f'<section class="parties">{to}<dl>{rows}</dl></section>'


def _table(document: Invoice) -> str:
    head = (
        "<thead><tr><th>Description</th><th>Service period</th>"
        f'<th class="n">Amount, {escape(document.plan.currency)}</th></tr></thead>'
    )
    rows = "".join(_row(document, line) for line in document.lines)
    return f"<table>{head}<tbody>{rows or _no_rows()}</tbody></table>"


def _no_rows() -> str:
    return '<tr><td colspan="3" class="muted">Nothing to bill in this period.</td></tr>'


def _row(document: Invoice, line: Line) -> str:
    return (
        f"<tr><td>{escape(line.description)}</td><td>{_span(line.first, line.last)}</td>"
        f'<td class="n">{_money(document, line.amount)}</td></tr>'
    )


def _totals(document: Invoice) -> str:
    rows = [("Net", document.net, "")]
    for tax in document.taxes:
        percent = money.exact_text(tax.rate * 100)
        label = f"Tax {percent} % on {_money(document, tax.base)} ({tax.category})"
        rows.append((label, tax.amount, tax.reason))
    body = "".join(
        f'<tr><td>{escape(label)}{_reason(reason)}</td><td class="n">{_money(document, amount)}</td></tr>'
        for label, amount, reason in rows
    )
    currency = escape(document.plan.currency)
    word = "Total credited" if document.kind == "credit_note" else "Total"
    total = (
        f'<tr class="sum"><td>{word}</td>'
        f'<td class="n">{currency} {_money(document, document.total)}</td></tr>'
    )
    return f'<table class="totals"><tbody>{body}{total}</tbody></table>'


def _reason(reason: str) -> str:
    return f'<div class="muted">{escape(reason)}</div>' if reason else ""


def _payment(document: Invoice) -> str:
    text = document.header.payment
    return f'<p class="notes">{escape(text)}</p>' if text else ""


def _working(document: Invoice) -> str:
    items = "".join(_work(document, line) for line in document.lines if len(line.steps) > 1)
    if not items:
        return ""
    return f'<h2>How each amount was worked out</h2><ul class="work">{items}</ul>'


def _work(document: Invoice, line: Line) -> str:
    steps = "".join(f'<p class="why">{escape(step.text)}</p>' for step in line.steps)
    amount = _money(document, line.amount)
    return f"<li><b>{escape(line.description)}: {amount}</b>{steps}</li>"


def _split(document: Invoice) -> str:
    rows = "".join(
        f'<tr><td>{escape(share.party)}</td><td class="n">{_money(document, share.amount)}</td></tr>'
        for share in document.shares
    )
    return f"<h2>Payout split (not for the customer)</h2><table><tbody>{rows}</tbody></table>"


def _proof(document: Invoice) -> str:
    plan = document.plan
    lines = [
        f"Price plan {escape(plan.id)} version {plan.version}, SHA-256 <code>{plan.digest}</code>",
        f"Periods follow the calendar of {escape(plan.tz)}.",
    ]
    lines += [
        f"Usage: log <code>{escape(item.origin)}</code>, entries {item.first:,} to "
        f"{item.end - 1:,}, root <code>{escape(item.root)}</code>"
        for item in document.header.evidence
    ]
    body = "".join(f"<p>{line}</p>" for line in lines)
    return f'<h2>What this rests on</h2><div class="proof">{body}</div>'
