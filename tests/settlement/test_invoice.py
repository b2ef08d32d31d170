"""Invoices: the three forms say the same, byte for byte, and cannot be abused."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.rating_plans import APRIL, make_plan, per_unit, recurring, tokens

from sealpack.format import canonical
from sealpack.settlement import invoice as forms
from sealpack.settlement.invoice import Business, Evidence, Header, Invoice
from sealpack.settlement.invoice_html import to_html
from sealpack.settlement.plan import Plan, Tax
from sealpack.settlement.printing import correction
from sealpack.settlement.rating import rate

SCHEMA = Path(__file__).parents[2] / "specs" / "schemas" / "invoice.json"
ROOT = "ab" * 32
HEADER = Header(
    seller=Business("Acme Models GmbH", ("Torstraße 1", "10119 Berlin"), "DE123456789"),
    customer=Business(
        "=HYPERLINK(\"x\") <script>alert('1')</script> & Sons", ("-1 High Street",), email="@b"
    ),
    license_id="lic-1",
    number="A-2026-1",
    issued=date(2026, 5, 3),
    due=date(2026, 6, 2),
    purchase_order="PO 7",
    payment="Pay to IBAN X\nwithin 30 days",
    evidence=(Evidence("sealpack/usage/1", 0, 512, ROOT),),
)


def the_plan(**more: Any) -> Plan:
    shares = {"pool": [{"party": "platform", "bps": 2500}, {"party": "creator:acme", "rest": True}]}
    return make_plan(recurring("99.00"), per_unit("0.025185"), tax={"percent": "20"}, shares=shares, **more)


def the_invoice(header: Header = HEADER, amount: int = 50_000_000) -> Invoice:
    return forms.invoice(rate(the_plan(), tokens(amount), APRIL)[0], header)


def the_credit_note() -> Invoice:
    old, new = (rate(the_plan(), tokens(amount), APRIL)[0] for amount in (50_000_000, 40_000_000))
    change = correction(old, new)
    assert change is not None
    return forms.credit_note(change, dataclasses.replace(HEADER, number="C-2026-1"), corrects="A-2026-1")


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_json_is_canonical_and_fits_its_schema() -> None:
    for document in (
        the_invoice(),
        the_credit_note(),
        the_invoice(Header(seller=HEADER.seller, customer=HEADER.customer, license_id="l")),
    ):
        data = canonical.loads(forms.to_json(document))
        validator().validate(data)


def test_json_says_what_was_rated() -> None:
    data = json.loads(forms.to_json(the_invoice()))
    assert (data["net"], data["tax"], data["total"]) == ("1358.25", "271.65", "1629.90")
    assert [(line["charge"], line["amount"]) for line in data["lines"]] == [
        ("base", "99.00"),
        ("tok", "1259.25"),
    ]
    assert data["shares"] == [
        {"party": "platform", "amount": "339.56"},
        {"party": "creator:acme", "amount": "1018.69"},
    ]
    assert data["evidence"] == [{"origin": "sealpack/usage/1", "first": 0, "end": 512, "root": ROOT}]
    assert data["plan"]["digest"] == the_plan().digest
    assert (data["draft"], data["number"], data["date"]) == (False, "A-2026-1", "2026-05-03")


def test_a_header_without_a_number_makes_a_draft() -> None:
    draft = the_invoice(dataclasses.replace(HEADER, number="", issued=None, due=None))
    data = json.loads(forms.to_json(draft))
    assert data["draft"] is True
    assert not {"number", "date", "due"} & set(data)
    assert "Draft" in to_html(draft)
    assert "Draft" not in to_html(the_invoice())


def test_the_same_input_gives_the_same_bytes() -> None:
    a, b = the_invoice(), the_invoice()
    assert (forms.to_json(a), forms.to_csv(a), to_html(a)) == (forms.to_json(b), forms.to_csv(b), to_html(b))


def test_csv_rows_add_up_to_the_total() -> None:
    rows = list(csv.DictReader(io.StringIO(forms.to_csv(the_invoice()).decode(), newline="")))
    cents = [int(row["amount"].replace(".", "")) for row in rows]
    assert [row["record"] for row in rows] == ["charge", "charge", "tax", "total"]
    assert sum(cents[:-1]) == cents[-1] == 162990
    assert {row["currency"] for row in rows} == {"USD"}


def test_csv_cells_are_not_formulas_but_numbers_stay_numbers() -> None:
    rows = list(csv.reader(io.StringIO(forms.to_csv(the_credit_note()).decode(), newline="")))
    assert rows[1][3].startswith("'=HYPERLINK")
    assert rows[1][10] == "-251.85"


@pytest.mark.parametrize("cell", ["=1", "+1", "-1+1", "@x", "\tx", "\rx", "-", "--1", "-1e5"])
def test_every_dangerous_beginning_is_guarded(cell: str) -> None:
    assert forms.guarded([cell]) == [f"'{cell}"]


@pytest.mark.parametrize("cell", ["-180.00", "-1", "0.50", "", "a=b", "'x"])
def test_what_is_harmless_is_left_alone(cell: str) -> None:
    assert forms.guarded([cell]) == [cell]


class _Page(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page(document: Invoice, **more: Any) -> _Page:
    result = _Page()
    result.feed(to_html(document, **more))
    return result


def test_html_carries_no_script_and_no_outside_resource() -> None:
    html, parsed = to_html(the_invoice()), page(the_invoice())
    assert not {"script", "img", "link", "iframe", "object", "a", "form"} & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "href")]
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert "<script>alert('1')</script> & Sons" in parsed.text


def test_html_says_the_amounts_and_why() -> None:
    text = page(the_invoice()).text
    for part in ("1,358.25", "271.65", "USD 1,629.90", "1–30 April 2026", "50,000,000 output tokens", "PO 7"):
        assert part in text
    assert "50,000 × 0.025185 = 1,259.25" in text
    assert ROOT in text
    assert the_plan().digest in text


def test_the_customers_page_does_not_show_the_split() -> None:
    assert "creator:acme" not in page(the_invoice()).text
    assert "creator:acme1,018.69" in page(the_invoice(), split=True).text


def test_a_credit_note_is_negative_and_names_its_invoice() -> None:
    note = the_credit_note()
    data = json.loads(forms.to_json(note))
    assert (data["kind"], data["corrects"]) == ("credit_note", "A-2026-1")
    assert (data["net"], data["tax"], data["total"]) == ("-251.85", "-50.37", "-302.22")
    text = page(note).text
    assert "Credit note" in text
    assert "−302.22" in text


def test_more_usage_is_not_a_credit_note() -> None:
    old, new = (rate(the_plan(), tokens(amount), APRIL)[0] for amount in (1000, 50_000_000))
    change = correction(old, new)
    assert change is not None
    with pytest.raises(ValueError, match="more than was issued"):
        forms.credit_note(change, HEADER, corrects="A")


def test_a_tax_reason_and_an_empty_invoice_are_printed() -> None:
    plan = make_plan({"id": "s", "type": "one_time", "amount": "1"})
    result = rate(plan, {}, APRIL, tax=Tax("AE", plan.charges[0].amount * 0, "reverse charge"))[0]
    text = page(forms.invoice(result, HEADER)).text
    assert "reverse charge" in text
    assert "Nothing to bill" in text


def test_amounts_without_minor_units() -> None:
    plan = make_plan(per_unit("1.5"), head={"currency": "JPY"})
    document = forms.invoice(rate(plan, tokens(1_000_000), APRIL)[0], HEADER)
    assert json.loads(forms.to_json(document))["total"] == "1500"
    assert re.search(r"JPY 1,500\b", page(document).text)


def test_the_specifications_example_fits_the_schema_and_is_canonical() -> None:
    text = (SCHEMA.parents[1] / "invoice.md").read_text(encoding="utf-8")
    block = re.search(r"^    \{.*?\n(?=\n\()", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    data = "".join(line.strip() for line in block.group().splitlines()).encode()
    validator().validate(canonical.loads(data))
