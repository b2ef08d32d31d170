"""Words and numbers of documents for people, the same in HTML and PDF.

Source: specs/invoice.md sections 5 and 6.
"""

from __future__ import annotations

import re
from datetime import date
from fractions import Fraction

from sealpack.settlement import money
from sealpack.settlement.pricing import show

MINUS = "−"
# What neither XML nor every database takes: controls but for tabs and ends of lines, halves of characters.
CONTROL = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CORRECTED = (
    "The working is of the period as it rates now; the amount is what that adds to what was invoiced before."
)
ESTIMATED = (
    "Usage that did not arrive in time is estimated where the working says so; when it arrives, the "
    "difference is billed or credited."
)
TAX_WORDS = {
    "S": "standard rate", "Z": "zero rated", "E": "exempt", "AE": "reverse charge",
    "K": "intra-community supply", "G": "export", "O": "outside the scope of tax", "L": "IGIC", "M": "IPSI",
}  # fmt: skip


def day(value: date) -> str:
    """A day: "3 May 2026"."""
    return f"{value.day} {value:%B %Y}"


def iso_day(text: str) -> str:
    """A day of a document's JSON, or nothing."""
    return day(date.fromisoformat(text)) if text else ""


def span(first: date, last: date) -> str:
    """A range of days, short: "1–30 April 2026"."""
    if first == last:
        return day(first)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day}–{day(last)}"
    if first.year == last.year:
        return f"{first.day} {first:%B} – {day(last)}"
    return f"{day(first)} – {day(last)}"


def iso_span(first: str, last: str) -> str:
    """:func:`span` of two days of a document's JSON."""
    return span(date.fromisoformat(first), date.fromisoformat(last))


def month(text: str) -> str:
    """A period named by its first day or month: "April 2026"."""
    return f"{date.fromisoformat(f'{text[:7]}-01'):%B %Y}"


def amount(text: str) -> str:
    """A decimal string for people: grouped, with a real minus."""
    return money.grouped(text).replace("-", MINUS)


def quantity(text: str) -> str:
    """An exact number of a document's JSON for people; one whose decimals do not end is cut, with "…"."""
    return show(Fraction(text)).replace("-", MINUS)


def party(name: str) -> str:
    """A member of a share pool: "creator:acme" is called acme."""
    return name.partition(":")[2] or name


def payment(total: str, currency: str, number: str, *, due: str, corrects: str, credit: bool) -> str:
    """What a document asks for; `total` is its decimal string, `due` a day or nothing."""
    shown = f"{currency} {amount(total.removeprefix('-'))}"
    if credit:
        return f"{shown} is credited on invoice {corrects}. Nothing is to be paid."
    if not total.strip("0."):
        return "Nothing is to be paid."
    return f"Please pay {shown}{f' by {iso_day(due)}' if due else ''}, naming {number}."
