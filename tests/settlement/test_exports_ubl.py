"""EN 16931 e-invoices: the same amounts as the invoice, the standard's rules, and what it cannot say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from support.books import NOW, Books
from support.device import Device
from support.einvoices import APRIL, BUYER, IBAN, SELLER, STANDARD, document
from support.rating_plans import make_plan, per_unit, tokens

from sealpack.format.errors import SealpackError
from sealpack.settlement import billing, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.exports import en16931, ubl
from sealpack.settlement.invoice import Business, Header, credit_note, to_dict
from sealpack.settlement.plan import Tax
from sealpack.settlement.printing import correction
from sealpack.settlement.rating import rate
from sealpack.verifier.cli.main import make_cli, run

CAC, CBC = (
    f"{{urn:oasis:names:specification:ubl:schema:xsd:{name}-2}}"
    for name in ("CommonAggregateComponents", "CommonBasicComponents")
)


def texts(data: bytes, path: str) -> list[str]:
    """Texts of the elements at a path of names, the last one basic."""
    *groups, name = path.split("/")
    steps = "/".join([*(CAC + group for group in groups), CBC + name])
    return [element.text or "" for element in ET.fromstring(data).findall(steps)]


def rules(data: bytes) -> set[str]:
    return {finding.rule for finding in en16931.check(data)}


def test_an_invoice() -> None:
    value = document(tax=STANDARD, purchase_order="PO 1", payment=f"IBAN {IBAN} within 30 days")
    data = ubl.to_xml(value)
    assert data == ubl.to_xml(value)
    assert rules(data) == set()
    assert ET.fromstring(data).tag.endswith("Invoice-2}Invoice")
    for path, told in {
        "CustomizationID": "urn:cen.eu:en16931:2017", "ID": "INV-7", "IssueDate": "2026-05-03",
        "DueDate": "2026-06-02", "InvoiceTypeCode": "380", "DocumentCurrencyCode": "EUR",
        "OrderReference/ID": "PO 1", "ContractDocumentReference/ID": "L-1",
        "AccountingCustomerParty/Party/PartyLegalEntity/RegistrationName": "Nordwind <& Söhne>",
        "AccountingCustomerParty/Party/PostalAddress/Country/IdentificationCode": "FR",
        "AccountingCustomerParty/Party/PostalAddress/AddressLine/Line": "75001 Paris",
        "AccountingSupplierParty/Party/PartyTaxScheme/CompanyID": "DE123456789",
        "AccountingSupplierParty/Party/Contact/ElectronicMail": "ar@acme.example",
        "PaymentMeans/PaymentMeansCode": "58",
        "PaymentMeans/PayeeFinancialAccount/ID": IBAN.replace(" ", ""),
        "TaxTotal/TaxSubtotal/TaxCategory/ID": "S", "TaxTotal/TaxSubtotal/TaxCategory/Percent": "19",
        "LegalMonetaryTotal/TaxExclusiveAmount": value["net"], "TaxTotal/TaxAmount": value["tax"],
        "LegalMonetaryTotal/PayableAmount": value["total"], "InvoicePeriod/EndDate": "2026-04-30",
    }.items():  # fmt: skip
        assert texts(data, path) == [told], path
    assert texts(data, "InvoiceLine/LineExtensionAmount") == [line["amount"] for line in value["lines"]]
    assert texts(data, "InvoiceLine/InvoicePeriod/StartDate") == ["2026-04-01"] * 2
    assert "12.345 × 0.07" in texts(data, "InvoiceLine/Note")[1].replace("x", "×")


def test_a_credit_note_shows_what_is_given_back() -> None:
    plan = make_plan(per_unit("1"))
    (old,) = rate(plan, tokens(30_000), APRIL, tax=STANDARD)
    (new,) = rate(plan, tokens(10_000), APRIL, tax=STANDARD)
    change = correction(old, new)
    assert change is not None
    header = Header(seller=SELLER, customer=BUYER, license_id="L-1", number="INV-8", issued=date(2026, 6, 1))
    value = to_dict(credit_note(change, header, corrects="INV-7", reason="less was used"))
    data = ubl.to_xml(value)
    assert ET.fromstring(data).tag.endswith("CreditNote-2}CreditNote")
    assert texts(data, "CreditNoteTypeCode") == ["381"]
    assert texts(data, "BillingReference/InvoiceDocumentReference/ID") == ["INV-7"]
    assert texts(data, "Note") == ["less was used"]
    assert texts(data, "CreditNoteLine/LineExtensionAmount") == ["20.00"]
    assert texts(data, "LegalMonetaryTotal/PayableAmount") == ["23.80"] == [value["total"].lstrip("-")]
    assert texts(data, "PaymentMeans/PaymentMeansCode") == []


def test_a_line_below_zero_has_a_price_above() -> None:
    value = document(tax=STANDARD)
    value["lines"][0] |= {"amount": "-1.00"}
    value |= {"net": "-0.14", "tax": "-0.03", "total": "-0.17"}
    value["taxes"] = [{"category": "S", "percent": "19", "base": "-0.14", "amount": "-0.03"}]
    data = ubl.to_xml(value)
    assert texts(data, "InvoiceLine/InvoicedQuantity") == ["-1", "1"]
    assert texts(data, "InvoiceLine/Price/PriceAmount") == ["1.00", "0.86"]


@pytest.mark.parametrize(
    ("category", "reason", "code"),
    [("Z", "", []), ("E", "training, § 4 UStG", []), ("AE", "reverse charge", ["VATEX-EU-AE"]),
     ("K", "", ["VATEX-EU-IC"]), ("G", "", ["VATEX-EU-G"]), ("O", "", ["VATEX-EU-O"])],
)  # fmt: skip
def test_categories_without_tax(category: str, reason: str, code: list[str]) -> None:
    data = ubl.to_xml(document(tax=Tax(category, Fraction(0), reason)))
    place = "TaxTotal/TaxSubtotal/TaxCategory"
    assert texts(data, f"{place}/ID") == [category]
    assert texts(data, f"{place}/TaxExemptionReasonCode") == code
    assert texts(data, f"{place}/TaxExemptionReason") == [reason] * bool(reason)
    ids = texts(data, "AccountingSupplierParty/Party/PartyTaxScheme/CompanyID")
    assert bool(ids) == (category != "O")
    where = texts(data, "Delivery/DeliveryLocation/Address/Country/IdentificationCode")
    assert where == ["FR"] * (category == "K")


def test_without_any_tax_it_is_outside_of_its_scope() -> None:
    data = ubl.to_xml(document())
    assert texts(data, "TaxTotal/TaxSubtotal/TaxCategory/ID") == ["O"]
    assert texts(data, "TaxTotal/TaxAmount") == ["0.00"]
    assert texts(data, "AccountingSupplierParty/Party/PartyLegalEntity/CompanyID") == ["DE123456789"]


def test_places_of_currencies() -> None:
    due = "LegalMonetaryTotal/PayableAmount"
    assert texts(ubl.to_xml(document(currency="JPY", amount="99")), due) == ["100"]
    assert texts(ubl.to_xml(document(currency="KWD", amount="99.01", usage=0)), due) == ["99.01"]
    with pytest.raises(SealpackError, match=r"two places, .* KWD has more"):
        ubl.to_xml(document(currency="KWD", amount="99.011"))
    exotic = document(tax=Tax("S", Fraction(7375, 100_000), ""))
    assert texts(ubl.to_xml(exotic), "TaxTotal/TaxSubtotal/TaxCategory/Percent") == ["7.375"]


def test_drafts_are_refused() -> None:
    with pytest.raises(SealpackError, match="a draft is no invoice") as error:
        ubl.to_xml(document(number=""))
    assert error.value.code == "EXPORT_REFUSED"


@pytest.mark.parametrize(
    ("rule", "members"),
    [
        ("country of the customer", {"buyer": Business("X", (), "12")}),
        ("BR-CO-26", {"seller": Business("X", country="DE")}),
        ("BR-AE-02", {"buyer": Business("X", country="FR"), "tax": Tax("AE", Fraction(0), "")}),
        ("BR-IC-02", {"buyer": Business("X", country="FR"), "tax": Tax("K", Fraction(0), "")}),
        ("BR-E-10", {"tax": Tax("E", Fraction(0), "")}),
        ("BR-S-05", {"tax": Tax("S", Fraction(0), "")}),
        ("BR-CO-25", {"due": None}),
        ("BR-03", {"issued": None}),
        ("BR-07", {"buyer": Business(" ", country="FR")}),
    ],
)
def test_what_a_rule_forbids_is_refused(rule: str, members: dict[str, Any]) -> None:
    with pytest.raises(SealpackError, match=rule):
        ubl.to_xml(document(**members))


@pytest.mark.parametrize(
    ("element", "old", "new", "rule"),
    [
        ("cbc:LineExtensionAmount", "0.86", "0.87", "BR-CO-10"),
        ("cbc:TaxExclusiveAmount", "99.87", "99.86", "BR-CO-13"),
        ("cbc:TaxInclusiveAmount", "118.85", "118.84", "BR-CO-15"),
        ("cbc:PayableAmount", "118.85", "118.84", "BR-CO-16"),
        ("cbc:Percent", "19", "25", "BR-CO-17"),
        ("cbc:PriceAmount", "0.86", "-0.86", "BR-27"),
        ("cbc:PriceAmount", "0.86", "0.87", "BT-131"),
        ("cbc:PriceAmount", "0.86", "0.860", "BR-DEC"),
        ("cbc:EndDate", "2026-04-30", "2026-03-30", "BR-29"),
        ("cbc:PaymentMeansCode", "1", "30", "BR-61"),
        ("cbc:TaxableAmount", "99.87", "99.88", "BR-S-08"),
    ],
)
def test_the_checker_sees(element: str, old: str, new: str, rule: str) -> None:
    """Each rule on a document in which the text of one element was changed."""
    data = ubl.to_xml(document(tax=STANDARD, payment="as agreed")).decode()
    changed, count = re.subn(rf"(<{element}[^>]*>){re.escape(old)}<", rf"\g<1>{new}<", data)
    assert count
    assert rule in rules(changed.encode())


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("cbc:Name", "cbc:Nick", "BR-25"),
        ("cac:InvoiceLine", "cac:Line", "BR-16"),
        ("cac:TaxTotal", "cac:Tax", "BR-CO-18"),
        ("cac:PartyTaxScheme", "cac:Scheme", "BR-S-02"),
        (
            "ClassifiedTaxCategory>\n        <cbc:ID>S",
            "ClassifiedTaxCategory>\n        <cbc:ID>Z",
            "BR-CO-04",
        ),
        ('<cbc:TaxAmount currencyID="EUR">18.98</cbc:TaxAmount>\n    <cac', "<cac", "BR-CO-14"),
        ('currencyID="EUR">0.86', 'currencyID="USD">0.86', "BR-CL-03"),
        ("<cbc:Percent>19", "<cbc:TaxExemptionReason>x</cbc:TaxExemptionReason><cbc:Percent>19", "BR-S-10"),
        ("<cbc:ID>S<", "<cbc:ID>Z<", "BR-Z-09"),
        ("<cbc:ID>S<", "<cbc:ID>O<", "BR-O-02"),
    ],
)
def test_the_checker_sees_what_is_missing(old: str, new: str, rule: str) -> None:
    data = ubl.to_xml(document(tax=STANDARD, payment="as agreed")).decode()
    assert old in data
    assert rule in rules(data.replace(old, new).encode())


def test_every_amount_is_the_invoices() -> None:
    """Random charges and usage: sums in the XML are the JSON's to the cent."""
    for n in range(60):
        value = document(tax=STANDARD, amount=f"{n * 7}.{n:02d}", usage=n * 7_919)
        data = ubl.to_xml(value)
        lines = sum(map(Decimal, texts(data, "InvoiceLine/LineExtensionAmount")))
        assert lines == Decimal(value["net"])
        assert texts(data, "LegalMonetaryTotal/TaxInclusiveAmount") == [value["total"]]


@pytest.mark.sqlite_only
def test_command(books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device().work(30)
    books.learn(device, plan=make_plan(per_unit("0.01"), per=1, tax={"category": "S", "percent": "19"}))
    assert books.code(device.export()) == "OK"
    actor = Actor("clerk", NOW)
    billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 5), actor=actor)
    settle = ["settle", "--db", books.address, "export", "ubl", "--out", str(tmp_path / "out")]
    assert run(make_cli(), [*settle, "INV-000001"]) == 5
    assert "EN 16931 needs the country of the seller" in capsys.readouterr().out
    seller = {"schema": "sealpack/seller/v1", "issuer": device.license.issuer, "legal_name": "Acme",
              "country": "DE", "tax_id": "DE123456789", "prefix": "A"}  # fmt: skip
    books.take("seller.json", json.dumps(seller).encode())
    customer = {"id": "hospital", "legal_name": "Hospital Nord", "country": "DE"}
    books.take("c.json", json.dumps({"schema": "sealpack/customers/v1", "customers": [customer]}).encode())
    receivables.credit(books.database, "INV-000001", "0.01", "slow", date(2026, 10, 6), actor=actor)
    assert run(make_cli(), [*settle, "--period", "2026-09", "--customer", "hospital"]) == 5
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["A-000002.xml"]
    assert run(make_cli(), [*settle, "INV-9"]) == 2
    assert run(make_cli(), settle) == run(make_cli(), [*settle, "--period", "2026"]) == 2
    assert "error[INVOICE_UNKNOWN]" in capsys.readouterr().err
