"""Issued documents for tests of electronic invoices."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

from sealpack.settlement.invoice import Business, Header, invoice, to_dict
from sealpack.settlement.plan import Tax
from sealpack.settlement.rating import Span, rate
from support.rating_plans import make_plan, per_unit, recurring, tokens

STANDARD = Tax("S", Fraction(19, 100), "")
APRIL = Span(date(2026, 4, 1), date(2026, 4, 30))
SELLER = Business("Acme GmbH", ("Ring 1", "10115 Berlin"), "DE123456789", "ar@acme.example", "DE")
BUYER = Business("Nordwind <& Söhne>", ("Kai 2", "Hinterhaus", "75001 Paris"), "FR12345678901", "", "FR")
IBAN = "DE89 3704 0044 0532 0130 00"


def document(
    *, tax: Tax | None = None, currency: str = "EUR", seller: Business = SELLER, buyer: Business = BUYER,
    amount: str = "99.01", usage: int = 12_345, **header: Any,
) -> dict[str, Any]:  # fmt: skip
    plan = make_plan(recurring(amount, when="arrears"), per_unit("0.07"), head={"currency": currency})
    (result,) = rate(plan, tokens(usage), APRIL, tax=tax)
    facts: dict[str, Any] = {"number": "INV-7", "issued": date(2026, 5, 3), "due": date(2026, 6, 2)} | header
    return to_dict(invoice(result, Header(seller=seller, customer=buyer, license_id="L-1", **facts)))
