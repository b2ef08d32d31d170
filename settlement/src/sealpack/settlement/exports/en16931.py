"""The business rules of EN 16931-1 that our electronic invoices can break, checked on the XML itself.

Source: EN 16931-1:2017, section 6.4, by the names of its rules; tolerances as in CEN's published validation
artefacts. It reads UBL invoices and credit notes; it does not replace the XML schema or national rules.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

_CAC = "{urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2}"
_CBC = "{urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2}"
_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]{1,2})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# Categories: the rules that want a seller's tax id, both parties' ids, a rate of zero, a reason, or none.
_OWN_ID = {"S": "BR-S-02", "Z": "BR-Z-02", "E": "BR-E-02", "L": "BR-AF-02", "M": "BR-AG-02"}
_BOTH_IDS = {"AE": "BR-AE-02", "K": "BR-IC-02", "G": "BR-G-02"}
_ZERO = {"Z": "BR-Z-09", "E": "BR-E-09", "AE": "BR-AE-09", "K": "BR-IC-09", "G": "BR-G-09", "O": "BR-O-09"}
_REASON = {"E": "BR-E-10", "AE": "BR-AE-10", "K": "BR-IC-10", "G": "BR-G-10", "O": "BR-O-10"}
_NO_REASON = {"S": "BR-S-10", "Z": "BR-Z-10", "L": "BR-AF-10", "M": "BR-AG-10"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that does not hold, and how."""

    rule: str
    message: str


def check(data: bytes) -> list[Finding]:
    """Every rule that the document breaks; empty when none. `data` is XML of our own making."""
    return list(_Checker(ET.fromstring(data)).run())


class _Checker:
    def __init__(self, root: ET.Element) -> None:
        self.root = root
        self.name = root.tag.rpartition("}")[2]
        self.lines = root.findall(f"{_CAC}{self.name}Line")
        self.category = self.text("TaxTotal/TaxSubtotal/TaxCategory/ID")

    def text(self, path: str, within: ET.Element | None = None) -> str:
        """The text of an element by a path of names, or nothing."""
        *groups, name = path.split("/")
        steps = "/".join([*(f"{_CAC}{group}" for group in groups), f"{_CBC}{name}"])
        found = (self.root if within is None else within).find(steps)
        return (found.text or "") if found is not None else ""

    def amount(self, path: str, within: ET.Element | None = None) -> Decimal:
        text = self.text(path, within)
        return Decimal(text) if _AMOUNT.fullmatch(text) else Decimal(0)

    def run(self) -> Iterator[Finding]:
        yield from self._present()
        yield from self._amounts()
        yield from self._sums()
        yield from self._taxes()
        yield from self._rest()

    def _present(self) -> Iterator[Finding]:
        kind = f"{self.name}TypeCode"
        seller, buyer = "AccountingSupplierParty/Party", "AccountingCustomerParty/Party"
        for rule, path, what in (
            ("BR-01", "CustomizationID", "specification identifier"), ("BR-02", "ID", "number"),
            ("BR-03", "IssueDate", "date"), ("BR-04", kind, "type code"),
            ("BR-05", "DocumentCurrencyCode", "currency"),
            ("BR-06", f"{seller}/PartyLegalEntity/RegistrationName", "seller's name"),
            ("BR-07", f"{buyer}/PartyLegalEntity/RegistrationName", "buyer's name"),
            ("BR-09", f"{seller}/PostalAddress/Country/IdentificationCode", "seller's country"),
            ("BR-11", f"{buyer}/PostalAddress/Country/IdentificationCode", "buyer's country"),
            ("BR-12", "LegalMonetaryTotal/LineExtensionAmount", "sum of the lines"),
            ("BR-13", "LegalMonetaryTotal/TaxExclusiveAmount", "total without tax"),
            ("BR-14", "LegalMonetaryTotal/TaxInclusiveAmount", "total with tax"),
            ("BR-15", "LegalMonetaryTotal/PayableAmount", "amount due"),
        ):  # fmt: skip
            if not self.text(path):
                yield Finding(rule, f"there is no {what}")
        if not self.lines:
            yield Finding("BR-16", "there is no line")
        for rule, name in (("BR-21", "ID"), ("BR-24", "LineExtensionAmount")):
            if any(not self.text(name, line) for line in self.lines):
                yield Finding(rule, f"a line has no {name}")
        if any(not self.text("Item/Name", line) for line in self.lines):
            yield Finding("BR-25", "a line names no item")

    def _amounts(self) -> Iterator[Finding]:
        currency = self.text("DocumentCurrencyCode")
        for element in self.root.iter():
            if not element.tag.endswith("Amount"):
                continue
            name = element.tag.rpartition("}")[2]
            if not _AMOUNT.fullmatch(element.text or ""):
                yield Finding("BR-DEC", f"{name} {element.text} is no amount of at most two places")
            if element.get("currencyID") != currency:
                yield Finding("BR-CL-03", f"{name} is not in {currency}")
            if name == "PriceAmount" and (element.text or "").startswith("-"):
                yield Finding("BR-27", "a price is below zero")

    def _sums(self) -> Iterator[Finding]:
        totals = "LegalMonetaryTotal"
        lines = sum((self.amount("LineExtensionAmount", line) for line in self.lines), Decimal(0))
        net, gross = self.amount(f"{totals}/TaxExclusiveAmount"), self.amount(f"{totals}/TaxInclusiveAmount")
        tax = self.amount("TaxTotal/TaxAmount")
        for rule, is_so, what in (
            ("BR-CO-10", self.amount(f"{totals}/LineExtensionAmount") == lines, "the lines' sum"),
            ("BR-CO-13", net == lines, "the total without tax"),
            ("BR-CO-14", tax == self.amount("TaxTotal/TaxSubtotal/TaxAmount"), "the tax"),
            ("BR-CO-15", gross == net + tax, "the total with tax"),
            ("BR-CO-16", self.amount(f"{totals}/PayableAmount") == gross, "the amount due"),
        ):
            if not is_so:
                yield Finding(rule, f"{what} does not add up")
        for line in self.lines:
            quantity = self.amount("CreditedQuantity", line) or self.amount("InvoicedQuantity", line)
            if quantity * self.amount("Price/PriceAmount", line) != self.amount("LineExtensionAmount", line):
                yield Finding("BT-131", f"line {self.text('ID', line)} is not quantity times price")

    def _taxes(self) -> Iterator[Finding]:
        part, category = "TaxTotal/TaxSubtotal", self.category
        rate = Decimal(self.text(f"{part}/TaxCategory/Percent") or 0)
        base, tax = self.amount(f"{part}/TaxableAmount"), self.amount(f"{part}/TaxAmount")
        if not category:
            yield Finding("BR-CO-18", "there is no tax breakdown")
        if abs(base * rate / 100 - tax) >= 1:
            yield Finding("BR-CO-17", f"tax of {rate} % on {base} is not {tax}")
        if base != self.amount("LegalMonetaryTotal/TaxExclusiveAmount"):
            yield Finding("BR-S-08", "the tax is not on the sum of the lines")
        for line in self.lines:
            if self.text("Item/ClassifiedTaxCategory/ID", line) != category:
                yield Finding("BR-CO-04", f"line {self.text('ID', line)} has another tax category")
        if category in _ZERO and (rate or tax):
            yield Finding(_ZERO[category], f"category {category} has a tax")
        if category == "S" and not rate:
            yield Finding("BR-S-05", "category S has no rate")
        reason = self.text(f"{part}/TaxCategory/TaxExemptionReason") or self.text(
            f"{part}/TaxCategory/TaxExemptionReasonCode"
        )
        if category in _REASON and not reason:
            yield Finding(_REASON[category], f"category {category} needs a reason")
        if category in _NO_REASON and reason:
            yield Finding(_NO_REASON[category], f"category {category} has no reason")

    def _ids(self, role: str) -> tuple[str, str]:
        """Tax id and legal registration of a party."""
        party = f"Accounting{role}Party/Party"
        return self.text(f"{party}/PartyTaxScheme/CompanyID"), self.text(
            f"{party}/PartyLegalEntity/CompanyID"
        )

    def _rest(self) -> Iterator[Finding]:
        (own, registered), (theirs, their_number) = self._ids("Supplier"), self._ids("Customer")
        category = self.category
        if not own and not registered:
            yield Finding("BR-CO-26", "the seller has no tax id")
        if (category in _OWN_ID or category in _BOTH_IDS) and not own:
            yield Finding((_OWN_ID | _BOTH_IDS)[category], f"category {category} needs the seller's tax id")
        if category in ("AE", "K") and not theirs and not (category == "AE" and their_number):
            yield Finding(_BOTH_IDS[category], f"category {category} needs the buyer's tax id")
        if category == "O" and (own or theirs):
            yield Finding("BR-O-02", "category O names no tax ids")
        due = self.text("DueDate") or self.text("PaymentTerms/Note")
        if self.amount("LegalMonetaryTotal/PayableAmount") > 0 and self.name == "Invoice" and not due:
            yield Finding("BR-CO-25", "neither a due date nor terms of payment")
        if self.text("PaymentMeans/PaymentMeansCode") in ("30", "58") and not self.text(
            "PaymentMeans/PayeeFinancialAccount/ID"
        ):
            yield Finding("BR-61", "a credit transfer names no account")
        for period in self.root.iter(f"{_CAC}InvoicePeriod"):
            first, last = self.text("StartDate", period), self.text("EndDate", period)
            if not (_DAY.fullmatch(first) and _DAY.fullmatch(last) and first <= last):
                yield Finding("BR-29", f"the period {first} to {last} is none")
