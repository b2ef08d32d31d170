"""An invoice as one HTML page that prints on A4: no script, no outside resource, all escaped.

Source: specs/invoice.md section 5. The page answers "what, for when, how much, and why": the lines
and totals first, then how each line was worked out, then the evidence. The payout split is left out
unless asked for: the customer's copy does not show what the creator is paid.
"""

from __future__ import annotations

from html import escape

from sealpack.settlement import html_page, money, wording
from sealpack.settlement.invoice import Invoice, business_dict
from sealpack.settlement.pricing import show
from sealpack.settlement.results import Line, TaxLine


def to_html(document: Invoice, *, split: bool = False) -> str:
    """The page. `split` adds who is paid what, for the seller's own files."""
    number = document.header.number
    parts = [
        html_page.head(
            _title(document), f"No. {number}" if number else "", business_dict(document.header.seller),
            draft="Draft, not yet issued" if document.draft else "",
        ),
        _parties(document),
        _table(document),
        _totals(document),
        _payment(document),
        _working(document),
        _split(document) if split else "",
        _proof(document),
    ]  # fmt: skip
    return html_page.page(f"{_title(document)} {number}".strip(), parts)


def _title(document: Invoice) -> str:
    return "Credit note" if document.kind == "credit_note" else "Invoice"


def _money(document: Invoice, amount: int) -> str:
    return wording.amount(document.text(amount))


def _parties(document: Invoice) -> str:
    header = document.header
    facts = [
        ("Date", wording.day(header.issued) if header.issued else ""),
        ("Due", wording.day(header.due) if header.due else ""),
        ("Period", wording.span(document.first, document.last)),
        ("License", header.license_id),
        ("Your order", header.purchase_order),
        ("Corrects invoice" if document.kind == "credit_note" else "Adds to invoice", document.corrects),
        ("For", document.reason),
    ]
    label = "Credited to" if document.kind == "credit_note" else "Billed to"
    return html_page.parties(label, business_dict(header.customer), facts)


def _table(document: Invoice) -> str:
    heads = ("Description", "Service period", "Quantity", f"Amount, {document.plan.currency}")
    rows = [_row(document, line) for line in document.lines]
    return html_page.table(heads, rows or [_no_rows()], numbers=(2, 3))


def _no_rows() -> tuple[str, ...]:
    return '<span class="muted">Nothing to bill in this period.</span>', "", "", ""


def _row(document: Invoice, line: Line) -> tuple[str, ...]:
    quantity = "" if line.quantity is None else show(line.quantity).replace("-", wording.MINUS)
    return (
        escape(line.description), wording.span(line.first, line.last), quantity,
        _money(document, line.amount),
    )  # fmt: skip


def _totals(document: Invoice) -> str:
    rows = [("Net", _money(document, document.net))]
    rows += [(_tax(document, tax), _money(document, tax.amount)) for tax in document.taxes]
    word = "Total credited" if document.kind == "credit_note" else "Total"
    total = f"{document.plan.currency} {_money(document, document.total)}"
    return html_page.totals(rows, (word, total))


def _tax(document: Invoice, tax: TaxLine) -> str:
    percent = money.exact_text(tax.rate * 100)
    words = f"{tax.category}: {wording.TAX_WORDS.get(tax.category, tax.category)}"
    label = f"Tax {percent} % on {_money(document, tax.base)}"
    return escape(label) + html_page.small(words) + html_page.small(tax.reason)


def _payment(document: Invoice) -> str:
    header = document.header
    notes = f'<p class="notes">{escape(header.payment)}</p>' if header.payment else ""
    if document.draft:
        return notes
    said = wording.payment(
        document.text(document.total), document.plan.currency, header.number,
        due=header.due.isoformat() if header.due else "", corrects=document.corrects,
        credit=document.kind == "credit_note",
    )  # fmt: skip
    return f'<h2>Payment</h2><p class="ask">{escape(said)}</p>{notes}'


def _working(document: Invoice) -> str:
    items = "".join(_work(document, line) for line in document.lines if len(line.steps) > 1)
    if not items:
        return ""
    corrected = "" if not document.corrects else html_page.small(wording.CORRECTED)
    guessed = html_page.small(wording.ESTIMATED) if any(line.estimated for line in document.lines) else ""
    return f'<h2>How each amount was worked out</h2>{corrected}{guessed}<ul class="work">{items}</ul>'


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
        f"{max(item.end - 1, 0):,}, root <code>{escape(item.root)}</code>"
        + (f", and the running totals of {len(item.stated)} signed files beyond" if item.stated else "")
        for item in document.header.evidence
    ]
    body = "".join(f"<p>{line}</p>" for line in lines)
    return f'<h2>What this rests on</h2><div class="proof">{body}</div>'
