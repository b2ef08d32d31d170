"""What documents have in common on paper: head, parties and facts, sums, and what the page was made from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from sealpack.settlement.pdf.paper import (
    BODY,
    BOTTOM,
    LABEL,
    LEFT,
    RIGHT,
    SMALL,
    STRONG,
    TITLE,
    TOTAL,
    WARNING,
    Paper,
    Style,
    Text,
)

_SELLER_WIDTH, _PARTY_WIDTH, _FACTS_LEFT = 76.0, 78.0, 104.0
_SUMS_LEFT = 104.0


def business_lines(business: dict[str, Any]) -> list[Text]:
    """A party as printed: legal name, address, tax id, contact."""
    lines = [Text(business["name"], STRONG), *(Text(line) for line in business["address"])]
    if business.get("tax_id"):
        lines.append(Text(f"Tax ID {business['tax_id']}"))
    if business.get("email"):
        lines.append(Text(business["email"]))
    return lines


def head(paper: Paper, title: str, below: str, seller: dict[str, Any], *, draft: str = "") -> None:
    """Title and number on the left, who sends it on the right."""
    top = paper.y
    paper.put(LEFT, paper.y, title, TITLE)
    paper.y += TITLE.leading + 0.5
    if below:
        paper.paragraph(below, Style(11), width=90)
    if draft:
        paper.paragraph(draft, Style(9, True, WARNING), width=90)
    end, page, paper.y = paper.y, len(paper.pages), top
    for text in business_lines(seller):
        for line in paper.wrap(text.text, text.style, _SELLER_WIDTH):
            paper.need(text.style.leading)
            paper.put(RIGHT, paper.y, line, text.style, right=True)
            paper.y += text.style.leading
    paper.y = (max(paper.y, end) if len(paper.pages) == page else paper.y) + 9


def parties(paper: Paper, label: str, business: dict[str, Any], facts: Sequence[tuple[str, str]]) -> None:
    """To whom, and beside it what there is to know: empty facts are left out."""
    left = [Text(label, LABEL)] + [
        Text(line, text.style)
        for text in business_lines(business)
        for line in paper.wrap(text.text, text.style, _PARTY_WIDTH)
    ]
    right = [
        (name if n == 0 else "", line)
        for name, value in facts
        if value
        for n, line in enumerate(paper.wrap(value, BODY, RIGHT - _FACTS_LEFT - 34))
    ]
    for to, fact in zip_longest(left, right):
        paper.need(BODY.leading)
        if to is not None:
            paper.put(LEFT, paper.y, to.text, to.style)
        if fact is not None:
            paper.put(_FACTS_LEFT, paper.y + 0.4, fact[0], LABEL)  # on one base line with the value
            paper.put(RIGHT, paper.y, fact[1], BODY, right=True)
        paper.y += BODY.leading + 0.2
    paper.y += 8


def sums(paper: Paper, rows: Sequence[tuple[str, str]], last: tuple[str, str]) -> None:
    """Amounts under the table's right side, the last one large."""
    paper.need(len(rows) * 5.4 + 14)
    paper.y += 2.5
    for label, value in rows:
        room = RIGHT - _SUMS_LEFT - 6 - paper.width(value, BODY)
        for n, line in enumerate(paper.wrap(label, BODY, room)):
            paper.put(_SUMS_LEFT, paper.y, line, BODY)
            if n == 0:
                paper.put(RIGHT, paper.y, value, BODY, right=True)
            paper.y += BODY.leading
        paper.y += 0.8
    paper.y += 0.6
    paper.rule(paper.y, (28, 27, 25), 0.3, x=_SUMS_LEFT)
    paper.y += 1.8
    paper.put(_SUMS_LEFT, paper.y, last[0], TOTAL)
    paper.put(RIGHT, paper.y, last[1], TOTAL, right=True)
    paper.y += TOTAL.leading


def source(paper: Paper) -> None:
    """Of which bytes this is a picture, at the foot of the last page."""
    text = f"Made from the document's JSON, SHA-256 {paper.about.digest}"
    paper.put(LEFT, BOTTOM + 0.2, text, SMALL)
