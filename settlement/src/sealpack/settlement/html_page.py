"""The HTML page of a document: the style, the head, parties and tables that all of them share.

Source: specs/invoice.md section 5. It prints on A4, runs no script and asks for nothing outside; a content
security policy says so. Callers escape nothing: everything given here as text is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
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
.parties > div { max-width: 85mm; }
.label { font-size: 8.5pt; color: #5c5952; margin: 0 0 1mm; }
dl { display: grid; grid-template-columns: auto auto; align-content: start;
  flex: none; max-width: 82mm; gap: .6mm 5mm; margin: 0; }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th { font-size: 8.5pt; font-weight: 400; text-align: left; padding: 0 0 1.5mm;
  border-bottom: .3mm solid #1c1b19; vertical-align: bottom; }
td { padding: 2mm 0; border-bottom: .15mm solid #d8d4ca; vertical-align: top;
  overflow-wrap: anywhere; }
th + th, td + td { padding-left: 5mm; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr, .work li { break-inside: avoid; }
.small { font-size: 8.5pt; }
.totals { width: 88mm; margin: 4mm 0 0 auto; break-inside: avoid; }
.totals td { border: 0; padding: .8mm 0; }
.totals .sum td { border-top: .3mm solid #1c1b19; padding-top: 2mm; font-size: 13pt;
  font-weight: 600; }
.ask { margin: 0; font-weight: 600; }
.notes { margin: 1mm 0 0; white-space: pre-line; }
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


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are HTML, empty ones are left out."""
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
    ]
    return "\n".join([*head, *(part for part in parts if part), "</body></html>"]) + "\n"


def address(business: dict[str, Any]) -> str:
    """A party as printed: legal name, address, tax id, contact."""
    lines = [f"<b>{escape(business['name'])}</b>", *(escape(line) for line in business["address"])]
    if business.get("tax_id"):
        lines.append(f"Tax ID {escape(business['tax_id'])}")
    if business.get("email"):
        lines.append(escape(business["email"]))
    return "<address>" + "<br>".join(lines) + "</address>"


def head(title: str, below: str, seller: dict[str, Any], *, draft: str = "") -> str:
    """Title and number on the left, who sends it on the right."""
    mark = f'<span class="draft">{escape(draft)}</span>' if draft else ""
    small = f'<div class="muted">{escape(below)}</div>' if below else ""
    return (
        f'<header><div><h1>{escape(title)}{mark}</h1>{small}</div><div class="seller">{address(seller)}</div>'
        "</header>"
    )


def parties(label: str, business: dict[str, Any], facts: Sequence[tuple[str, str]]) -> str:
    """To whom, and beside it what there is to know: empty facts are left out."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    to = f'<div><p class="label">{escape(label)}</p>{address(business)}</div>'
    return f'<section class="parties">{to}<dl>{rows}</dl></section>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """A table of HTML cells; `numbers` are the columns that are aligned to the right."""
    right = set(numbers)
    marks = [' class="n"' if n in right else "" for n in range(len(heads))]
    titles = "".join(
        f'<th scope="col"{mark}>{escape(title)}</th>' for title, mark in zip(heads, marks, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def totals(rows: Sequence[tuple[str, str]], last: tuple[str, str]) -> str:
    """Amounts under each other, the last one large. Labels are HTML, amounts text."""
    lines = "".join(f'<tr><td>{label}</td><td class="n">{escape(value)}</td></tr>' for label, value in rows)
    end = f'<tr class="sum"><td>{last[0]}</td><td class="n">{escape(last[1])}</td></tr>'
    return f'<table class="totals"><tbody>{lines}{end}</tbody></table>'


def small(text: str) -> str:
    """A remark below something, as HTML."""
    return f'<div class="muted small">{escape(text)}</div>' if text else ""
