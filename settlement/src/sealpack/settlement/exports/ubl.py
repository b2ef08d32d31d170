"""Invoices and credit notes as EN 16931 electronic invoices, UBL 2.1 syntax.

Source: specs/exports.md, "EN 16931"; the business terms (BT-..) and rules (BR-..) are those of EN 16931-1.
Made from the issued JSON. A line is one unit at the line's amount, since tiers and minimums are no unit
price; how it was worked out stands in the line's note.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from decimal import Decimal
from typing import Any

from sealpack.settlement.exports import en16931, refused

_CAC = "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
_CBC = "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2"
CUSTOMIZATION = "urn:cen.eu:en16931:2017"
# Why no tax is due, for categories that must say so (BT-121, code list VATEX).
_REASON_CODES = {"AE": "VATEX-EU-AE", "K": "VATEX-EU-IC", "G": "VATEX-EU-G", "O": "VATEX-EU-O"}
_NOT_TAXED = {"category": "O", "percent": "0", "reason": "not subject to tax"}
_VAT_ID = re.compile(r"[A-Z]{2}[A-Z0-9]{2,13}")
_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b")
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PLACES = 2  # no amount of EN 16931 has more (BR-DEC-..)


def to_xml(value: dict[str, Any]) -> bytes:
    """The XML of a document, from its parsed JSON; the same JSON gives the same bytes.

    EXPORT_REFUSED for a draft, and naming the rule for what EN 16931 cannot say.
    """
    if value["draft"]:
        raise refused("a draft is no invoice", "issue it: `sealpack settle invoice`")
    credit = value["kind"] == "credit_note"
    document = _Document(value, credit)
    root = document.build()
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"
    for finding in en16931.check(data):
        raise refused(f"{value['number']}: EN 16931 {finding.rule}: {finding.message}")
    return data


class _Document:
    """One document being written; the order of the elements is that of the UBL schema."""

    def __init__(self, value: dict[str, Any], credit: bool) -> None:
        self.value, self.credit = value, credit
        self.name = "CreditNote" if credit else "Invoice"
        self.sign = -1 if credit else 1
        taxes = value["taxes"] or [
            _NOT_TAXED | {"base": value["net"], "amount": str(abs(Decimal(value["net"]) * 0))}
        ]
        if len(taxes) != 1:
            raise refused(
                f"{value['number']} has {len(taxes)} taxes, and its lines do not say whose they are"
            )
        self.tax = taxes[0]

    def build(self) -> ET.Element:
        value = self.value
        ET.register_namespace("cac", _CAC)
        ET.register_namespace("cbc", _CBC)
        namespace = f"urn:oasis:names:specification:ubl:schema:xsd:{self.name}-2"
        ET.register_namespace("", namespace)
        root = ET.Element(f"{{{namespace}}}{self.name}")
        _text(root, "CustomizationID", CUSTOMIZATION)
        _text(root, "ID", value["number"])
        _text(root, "IssueDate", value.get("date"))
        if self.credit:
            _text(root, "CreditNoteTypeCode", "381")
        else:
            _text(root, "DueDate", value.get("due"))
            _text(root, "InvoiceTypeCode", "380")
        _text(root, "Note", value.get("reason"))
        _text(root, "DocumentCurrencyCode", value["currency"])
        _period(root, value["period_start"], value["period_end"])
        if value.get("purchase_order"):
            _text(_group(root, "OrderReference"), "ID", value["purchase_order"])
        if value.get("corrects"):
            reference = _group(_group(root, "BillingReference"), "InvoiceDocumentReference")
            _text(reference, "ID", value["corrects"])
        _text(_group(root, "ContractDocumentReference"), "ID", value["license"])
        self._party(_group(root, "AccountingSupplierParty"), value["seller"], "seller")
        self._party(_group(root, "AccountingCustomerParty"), value["customer"], "customer")
        if self.tax["category"] == "K":  # where to (BR-IC-12)
            where = _group(_group(_group(root, "Delivery"), "DeliveryLocation"), "Address")
            code = self._country(value["customer"], "customer")
            _text(_group(where, "Country"), "IdentificationCode", code)
        self._payment(root)
        self._tax_total(root)
        self._totals(root)
        for number, line in enumerate(value["lines"], 1):
            self._line(root, number, line)
        return root

    # --- parts --------------------------------------------------------------------------------------

    def _party(self, parent: ET.Element, party: dict[str, Any], role: str) -> None:
        place, vat = _group(parent, "Party"), _vat_id(party)
        lines: list[str] = [*party["address"], "", ""]
        first, second, *rest = lines
        address = _group(place, "PostalAddress")
        _text(address, "StreetName", first)
        _text(address, "AdditionalStreetName", second)
        if any(rest):
            _text(_group(address, "AddressLine"), "Line", ", ".join(line for line in rest if line))
        _text(_group(address, "Country"), "IdentificationCode", self._country(party, role))
        taxed = self.tax["category"] != "O"  # which names no tax ids (BR-O-02)
        if vat and taxed:
            self._tax_scheme(place, vat, "VAT")
        elif party.get("tax_id") and taxed and role == "seller":
            self._tax_scheme(place, party["tax_id"], "TAX")
        legal = _group(place, "PartyLegalEntity")
        _text(legal, "RegistrationName", party["name"])
        if not vat or not taxed:
            _text(legal, "CompanyID", party.get("tax_id"))
        if party.get("email"):
            _text(_group(place, "Contact"), "ElectronicMail", party["email"])

    def _tax_scheme(self, place: ET.Element, tax_id: str, scheme: str) -> None:
        found = _group(place, "PartyTaxScheme")
        _text(found, "CompanyID", tax_id)
        _text(_group(found, "TaxScheme"), "ID", scheme)

    def _country(self, party: dict[str, Any], role: str) -> str:
        """The country's code, else that of the VAT id, which is Greece's own and Northern Ireland's."""
        vat = _vat_id(party)
        found = party.get("country") or {"EL": "GR", "XI": "GB"}.get(vat[:2], vat[:2])
        if not found:
            raise refused(
                f"{self.value['number']}: EN 16931 needs the country of the {role}, {party['name']}",
                f"import a {role} file with `country`; what is issued already keeps what it says",
            )
        return str(found)

    def _payment(self, root: ET.Element) -> None:
        said = self.value.get("payment", "")
        if said and not self.credit:
            iban = next((i for found in _IBAN.findall(said) if (i := _iban(found))), "")
            means = _group(root, "PaymentMeans")
            sepa = "58" if self.value["currency"] == "EUR" else "30"
            _text(means, "PaymentMeansCode", sepa if iban else "1")
            _text(means, "PaymentID", self.value["number"])
            if iban:
                _text(_group(means, "PayeeFinancialAccount"), "ID", iban)
            _text(_group(root, "PaymentTerms"), "Note", said)

    def _tax_total(self, root: ET.Element) -> None:
        tax, total = self.tax, _group(root, "TaxTotal")
        self._amount(total, "TaxAmount", tax["amount"])
        part = _group(total, "TaxSubtotal")
        self._amount(part, "TaxableAmount", tax["base"])
        self._amount(part, "TaxAmount", tax["amount"])
        category = _group(part, "TaxCategory")
        self._category(category)
        code = _REASON_CODES.get(tax["category"])
        if code or tax["category"] == "E":
            _text(category, "TaxExemptionReasonCode", code)
            _text(category, "TaxExemptionReason", tax.get("reason"))
        _text(_group(category, "TaxScheme"), "ID", "VAT")

    def _category(self, parent: ET.Element) -> None:
        _text(parent, "ID", self.tax["category"])
        if self.tax["category"] != "O":
            _text(parent, "Percent", self.tax["percent"])

    def _totals(self, root: ET.Element) -> None:
        totals = _group(root, "LegalMonetaryTotal")
        self._amount(totals, "LineExtensionAmount", self.value["net"])
        self._amount(totals, "TaxExclusiveAmount", self.value["net"])
        self._amount(totals, "TaxInclusiveAmount", self.value["total"])
        self._amount(totals, "PayableAmount", self.value["total"])

    def _line(self, root: ET.Element, number: int, line: dict[str, Any]) -> None:
        amount = self._signed(line["amount"])
        element = _group(root, f"{self.name}Line")
        _text(element, "ID", str(number))
        _text(element, "Note", "; ".join(step["text"] for step in line["working"]))
        quantity = "CreditedQuantity" if self.credit else "InvoicedQuantity"
        _text(element, quantity, "-1" if amount < 0 else "1", unitCode="C62")
        self._amount(element, "LineExtensionAmount", line["amount"])
        _period(element, line["service_start"], line["service_end"])
        item = _group(element, "Item")
        _text(item, "Name", line["description"] or line["charge"])
        _text(_group(item, "SellersItemIdentification"), "ID", line["charge"])
        category = _group(item, "ClassifiedTaxCategory")
        self._category(category)
        _text(_group(category, "TaxScheme"), "ID", "VAT")
        price = _group(element, "Price")
        _text(price, "PriceAmount", _plain(abs(amount)), currencyID=self.value["currency"])

    def _signed(self, text: str) -> Decimal:
        """As this document shows an amount: a credit note's above zero. EXPORT_REFUSED for a third place."""
        amount = Decimal(text) * self.sign
        if amount != amount.quantize(Decimal(1).scaleb(-_PLACES)):
            raise refused(
                f"{self.value['number']}: EN 16931 has amounts of two places, {text} "
                f"{self.value['currency']} has more"
            )
        return amount

    def _amount(self, parent: ET.Element, name: str, text: str) -> None:
        _text(parent, name, _plain(self._signed(text)), currencyID=self.value["currency"])


def _group(parent: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{_CAC}}}{name}")


def _text(parent: ET.Element, name: str, text: str | None, **attributes: str) -> None:
    """An element with text; none for an empty one, which UBL does not allow."""
    cleaned = _printable(text or "")
    if cleaned:
        ET.SubElement(parent, f"{{{_CBC}}}{name}", attributes).text = cleaned


def _printable(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return _NOT_XML.sub("", text).strip()


def _period(parent: ET.Element, first: str, last: str) -> None:
    period = _group(parent, "InvoicePeriod")
    _text(period, "StartDate", first)
    _text(period, "EndDate", last)


def _plain(amount: Decimal) -> str:
    """Without exponent and minus zero, with the places it came with, at most two."""
    places = min(_PLACES, max(0, -int(amount.as_tuple().exponent)))
    return f"{amount if amount else abs(amount):.{places}f}"


def _vat_id(party: dict[str, Any]) -> str:
    """A VAT id, which begins with a country; or nothing."""
    squeezed = re.sub(r"[ .-]", "", party.get("tax_id", ""))
    return squeezed if _VAT_ID.fullmatch(squeezed) and any(c.isdigit() for c in squeezed) else ""


def _iban(text: str) -> str:
    """An IBAN whose check digits hold, without spaces; or nothing (ISO 13616)."""
    squeezed = text.replace(" ", "")
    for end in range(len(squeezed), 14, -1):  # words may follow it
        number = squeezed[:end]
        moved = number[4:] + number[:4]
        if int("".join(str(int(c, 36)) for c in moved)) % 97 == 1:
            return number
    return ""
