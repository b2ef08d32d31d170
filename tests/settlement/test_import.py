"""What finance is given is imported as it comes: tables and files, alone, in folders and in zips."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.books import Books
from support.device import Device, make_license, registry
from support.rating_plans import make_plan, plan_data, recurring

from sealpack.format.errors import SealpackError
from sealpack.settlement import billing, db, parties
from sealpack.settlement.cli.settle import settle

TABLE = (
    b"legal_name;id;tax_id;email;country;currency;payment_days;address_1;address_2;"
    b"tax_category;tax_percent;tax_reason;purchase_order\r\n"
    b'"Klinik ""Nord"" gGmbH";nord;DE123;ap@nord.example;DE;EUR;14;'
    b"Am Kai 1;24103 Kiel;AE;0;reverse charge;P-7\r\n"
    b"\r\n"
    b"S\xc3\xbcd AG;sued;;;;;;;;;;;\r\n"
)


def customer(books: Books, name: str) -> parties.Customer:
    with books.database.read() as connection:
        found = parties.load_customer(connection, name)
    assert found is not None
    return found


def refused(books: Books, name: str, data: bytes) -> str:
    before = books.rows(db.customers)
    with pytest.raises(SealpackError) as caught:
        books.take(name, data)
    assert books.rows(db.customers) == before
    assert caught.value.code == "REGISTRY_INVALID"
    return caught.value.message


NORD = parties.Customer(
    "nord", 'Klinik "Nord" gGmbH', ("Am Kai 1", "24103 Kiel"), "DE123", "ap@nord.example", "P-7",
    parties.TaxRule("AE", "0", "reverse charge"), 14, "DE", "EUR",
)  # fmt: skip


@pytest.mark.parametrize("mark", [b";", b",", b"\t"])
def test_a_table_of_customers(books: Books, mark: bytes) -> None:
    assert books.take("c.csv", b"\xef\xbb\xbf" + TABLE.replace(b";", mark)) == "2 customers"
    assert customer(books, "nord") == NORD
    assert customer(books, "sued") == parties.Customer("sued", "Süd AG")


def test_an_address_in_one_cell(books: Books) -> None:
    assert books.take("c.csv", b'id,legal_name,address\na,A,"Am Kai 1\r\n\r\n Kiel "\n') == "1 customer"
    assert customer(books, "a").address == ("Am Kai 1", "Kiel")


def test_customers_and_seller_in_yaml(books: Books) -> None:
    text = """
schema: sealpack/customers/v1
customers:
  - {id: nord, legal_name: 'Klinik "Nord" gGmbH', address: [Am Kai 1, 24103 Kiel], tax_id: DE123,
     email: ap@nord.example, purchase_order: P-7, tax: {category: AE, percent: "0", reason: reverse charge},
     payment_days: 14, country: DE, currency: EUR}
"""
    assert books.take("c.yaml", text.encode()) == "1 customer"
    assert customer(books, "nord") == NORD
    seller = b'schema: "sealpack/seller/v1"\nissuer: A\nlegal_name: Acme AG\n'
    assert books.take("s.yml", seller) == "seller Acme AG"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"id,legal_name,tex_id\na,A,1\n", "c.csv row 1 has a column 'tex_id'; known are id, legal_name,"),
        (b"id,legal_name,id\na,A,b\n", "c.csv row 1 has the column 'id' twice"),
        (b"id,legal_name\na,A\nb\n", "c.csv row 3 has 1 cell, the header has 2"),
        (b"id,legal_name\na,A\nb,\n", "c.csv row 3.legal_name is missing"),
        (b"id,legal_name\na,A\na,B\n", "c.csv has customer a twice"),
        (b'id,legal_name\na,"A\n', "c.csv row 2 is not CSV: unexpected end of data"),
        (b"id,legal_name,payment_days\na,A,soon\n", "c.csv row 2.payment_days is not a whole number"),
        (b"id,legal_name,payment_days\na,A,-1\n", "c.csv row 2.payment_days is not a whole number"),
        (b"id,legal_name,tax_percent\na,A,20\n", "c.csv row 2.tax.category is missing"),
        (b"id,legal_name,tax_category,tax_percent\na,A,S,\"19,5\"\n", "c.csv row 2.tax.percent '19,5' is"),
        (b"id,legal_name,tax_category,tax_percent\na,A,AE,19\n", "c.csv row 2.tax.percent does not go with"),
        (b"id,legal_name,country\na,A,UK\n", "c.csv row 2.country is 'UK', which is no country code"),
        (b"id,legal_name,currency\na,A,EURO\n", "c.csv row 2.currency has a value that is not"),
        (b"id,legal_name,currency\na,A,XAU\n", "c.csv row 2.currency is 'XAU', which is no currency"),
        (b"id,legal_name,email\na,A,nobody\n", "c.csv row 2.email"),
        (b"id,legal_name\na,M\xfcller\n", "c.csv is not UTF-8 text: save it as CSV in UTF-8"),
    ],
)  # fmt: skip
def test_tables_that_make_no_sense(books: Books, data: bytes, words: str) -> None:
    assert refused(books, "c.csv", data).startswith(words)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"country": "ZZ"}, "c.json.customers[0].country is 'ZZ', which is no country code of ISO 3166-1"),
        ({"currency": "XXX"}, "c.json.customers[0].currency is 'XXX', which is no currency of ISO 4217"),
        ({"email": "a@b@c"}, "c.json.customers[0].email is 'a@b@c', which is no address"),
    ],
)
def test_codes_that_do_not_exist(books: Books, members: dict[str, Any], words: str) -> None:
    record = {"id": "a", "legal_name": "A"} | members
    data = json.dumps({"schema": "sealpack/customers/v1", "customers": [record]}).encode()
    assert refused(books, "c.json", data) == words


def test_a_customer_of_another_currency_is_not_billed(books: Books) -> None:
    books.learn(Device(), plan=make_plan(recurring("1.00")))
    books.take("c.csv", b"id,legal_name,currency\nhospital,Hospital,EUR\n")
    printed, skipped = billing.bill_all(books.database, date(2026, 9, 1), date(2026, 10, 5))
    words = "plan example version 1 is in USD, customer hospital is billed in EUR: nothing is converted"
    assert (printed, skipped) == ([], {"L-1": words})
    books.take("c.csv", b"id,legal_name,currency\nhospital,Hospital,USD\n")
    printed, skipped = billing.bill_all(books.database, date(2026, 9, 1), date(2026, 10, 5))
    assert ([one.name for one in printed], skipped) == (["INV-000001"], {})


# --- folders and zips -------------------------------------------------------------------------------


def run(books: Books, *arguments: str) -> Any:
    found = CliRunner().invoke(settle, ["--db", books.address, "import", *arguments])
    return found


def everything(device: Device) -> dict[str, bytes]:
    """All that a first invoice needs, in names that sort the wrong way, and what is not settlement's."""
    return {
        "a.license": device.parcel(),
        "b-registry.jsonl": registry(device),
        "c-plan.yaml": json.dumps(plan_data(recurring("1.00"))).encode(),
        "d-customers.csv": TABLE,
        "e-seller.yaml": b"schema: sealpack/seller/v1\nissuer: Acme Models (test)\nlegal_name: Acme AG\n",
        "f-trust.json": device.trust.to_bytes(),
        "g.usage.gz": device.export(),
        "h-photo.jpg": b"\xff\xd8\xff\xe0",
        "i-notes.txt": b"call the ward",
        "j-table.csv": b"day,visitors\nMonday,3\n",
    }


IMPORTED = [
    "f-trust.json",
    "e-seller.yaml",
    "d-customers.csv",
    "c-plan.yaml",
    "b-registry.jsonl",
    "a.license",
]
LEFT = ["g.usage.gz", "h-photo.jpg", "i-notes.txt", "j-table.csv"]


def test_a_folder_is_imported_in_the_order_in_which_its_files_need_each_other(books: Books) -> None:
    folder = books.folder / "mail"
    (folder / "deep").mkdir(parents=True)
    for name, data in everything(Device()).items():
        (folder / ("deep" if name < "d" else ".") / name).write_bytes(data)
    found = run(books, str(folder), "--format", "json")
    assert found.exit_code == 0, found.output
    value = json.loads(found.output)
    assert [one["file"] for one in value["imported"]] == IMPORTED
    assert sorted(value["left"]) == LEFT
    assert billing.bill(books.database, "L-1", date(2026, 9, 1), None).name == "INV-000001"


def test_a_zip_is_imported_likewise(books: Books) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in everything(Device()).items():
            archive.writestr(f"mail/{name}", data)
    path = books.folder / "mail.zip"
    path.write_bytes(packed.getvalue())
    found = run(books, str(path))
    assert found.exit_code == 0, found.output
    assert [line.split(":")[0] for line in found.output.splitlines()] == IMPORTED + LEFT
    assert found.output.splitlines()[-1] == "j-table.csv: left, nothing settlement imports"


def test_a_file_that_is_named_is_settlements_or_an_error(books: Books) -> None:
    path = books.folder / "notes.txt"
    path.write_bytes(b"call the ward")
    found = run(books, str(path))
    assert found.exit_code != 0 and "notes.txt is not JSON, YAML or CSV settlement knows" in str(
        found.exception
    )


def test_what_is_good_before_a_fault_stays(books: Books) -> None:
    folder = books.folder / "mail"
    folder.mkdir()
    device = Device(make_license())
    (folder / "trust.json").write_bytes(device.trust.to_bytes())
    (folder / "customers.csv").write_bytes(b"id,legal_name\na,\n")
    found = run(books, str(folder))
    assert found.exit_code != 0
    assert len(books.rows(db.trust)) == 1 and not books.rows(db.customers)


def test_links_in_a_folder_are_not_followed(books: Books, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    (tmp_path / "c.csv").write_bytes(TABLE)
    (folder / "c.csv").symlink_to(tmp_path / "c.csv")
    found = run(books, str(folder))
    assert found.exit_code == 0 and found.output.strip() == ""
    assert not books.rows(db.customers)
