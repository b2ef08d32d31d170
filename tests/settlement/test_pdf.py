"""Documents on paper, read back with another library: they say what the JSON says, once and legibly."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pypdf
import pytest
from click.testing import CliRunner
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from support.einvoices import BUYER, IBAN, SELLER, document

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import money, pdf, wording
from sealpack.settlement.cli.quote import quote
from sealpack.settlement.invoice import Business
from sealpack.settlement.pdf import invoices, paper, typeface
from sealpack.settlement.pdf.paper import BOTTOM, LEFT, RIGHT, TOP, About, Column, Paper, Style, Text
from sealpack.settlement.plan import Tax

RATING = Path(__file__).parents[2] / "specs/vectors/rating"
LOG = {"origin": "sealpack/usage/L-1/dev-e01e45a6d135d37021d97a7d425d0e89/0", "first": 0, "end": 1512,
       "root": "5e" * 32}  # fmt: skip


def made(**members: Any) -> dict[str, Any]:
    """An invoice with a log as evidence; None takes a member away."""
    value = document(payment=f"IBAN {IBAN}\nBIC COBADEFFXXX", purchase_order="PO 7/2026")
    return {key: one for key, one in (value | {"evidence": [LOG]} | members).items() if one is not None}


def read(value: dict[str, Any], fonts: tuple[Path, ...] = ()) -> pypdf.PdfReader:
    return pypdf.PdfReader(io.BytesIO(pdf.to_pdf(canonical.dumps(value), fonts)))


def text(value: dict[str, Any], fonts: tuple[Path, ...] = ()) -> str:
    """All words of all pages, line ends as spaces."""
    return " ".join(" ".join(page.extract_text().split()) for page in read(value, fonts).pages)


def refusal(value: dict[str, Any], fonts: tuple[Path, ...] = ()) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        pdf.to_pdf(canonical.dumps(value), fonts)
    return caught.value


# --- what is on it ------------------------------------------------------------------------------------


def test_an_invoice_says_all_of_it() -> None:
    value = made(taxes=[{"category": "AE", "percent": "0", "base": "963.16", "amount": "0.00",
                         "reason": "Reverse charge, Article 196"}])  # fmt: skip
    said = text(value)
    for words in (
        "Invoice", "No. INV-7", "Acme GmbH", "DE123456789", "ar@acme.example", "10115 Berlin", BUYER.name,
        "FR12345678901", "Hinterhaus", "3 May 2026", "2 June 2026", "1–30 April 2026", "PO 7/2026",
        "base: recurring", "tok: 12,345 output tokens", "12.345", "99.01", "0.86", "EUR 99.87",
        "AE: reverse charge", "Reverse charge, Article 196", "963.16",
        "Please pay EUR 99.87 by 2 June 2026, naming INV-7.", IBAN, "BIC COBADEFFXXX",
        "How each amount was worked out", "12.345 × 0.07 = 0.86415", "0.86415 rounded once = 0.86",
        "sealpack/usage/L-1/dev-e01e45a6…/0", "1,512", "5e5e5e5e5e5e5e5e…", "Page 1 of 1",
        hashlib.sha256(canonical.dumps(value)).hexdigest(),
    ):  # fmt: skip
        assert words in said, words
    assert "platform" not in said and LOG["root"] not in said


def test_a_credit_note_names_its_invoice() -> None:
    value = made(kind="credit_note", number="INV-8", corrects="INV-7", reason="two days lost", due=None,
                 net="-10.00", tax="-1.90", total="-11.90", payment=None)  # fmt: skip
    said = text(value)
    for words in (
        "Credit note", "Credited to", "Corrects invoice INV-7", "two days lost", "EUR −11.90",
        "EUR 11.90 is credited on invoice INV-7. Nothing is to be paid.", wording.CORRECTED,
    ):  # fmt: skip
        assert words in said, words
    late = text(made(corrects="INV-6", reason="late usage for April 2026"))
    assert "Adds to invoice INV-6" in late and "late usage for April 2026" in late


def test_a_draft_says_so_on_every_page() -> None:
    value = made(number=None, draft=True, date=None, due=None, lines=made()["lines"] * 40)
    pages = read(value).pages
    assert len(pages) > 1 and all("DRAFT" in page.extract_text() for page in pages)
    said = text(value)
    assert "nothing is to be paid for it" in said and "Please pay" not in said
    assert "DRAFT" not in text(made()) and read(value).xmp_metadata.dc_title == {
        "x-default": "Draft of invoice"
    }


def test_nothing_to_bill_and_nothing_to_pay() -> None:
    said = text(made(lines=[], taxes=[], net="0.00", tax="0.00", total="0.00"))
    assert "Nothing to bill in this period." in said and "Nothing is to be paid." in said


def test_what_readings_state_is_told() -> None:
    said = text(made(evidence=[LOG | {"stated": ["ab" * 32]}]))
    assert "and 1 reading beyond them" in said


@pytest.mark.parametrize(("currency", "amount", "shown"), [
    ("JPY", "1234567", "JPY 1,234,567"), ("KWD", "1234.567", "KWD 1,234.567"),
    ("CLF", "9.0001", "CLF 9.0001"),
])  # fmt: skip
def test_places_of_currencies(currency: str, amount: str, shown: str) -> None:
    value = document(currency=currency, amount=amount, usage=0)
    assert value["total"] == amount and shown in text(value)


@pytest.mark.parametrize("case", sorted(p.parent.name for p in RATING.glob("*/expect.json")))
def test_every_golden_example_can_be_printed(case: str) -> None:
    folder = RATING / case
    arguments = [
        "--plan",
        str(folder / "plan.yaml"),
        "--usage",
        str(folder / "usage.csv"),
        "--format",
        "json",
    ]
    for option, given in json.loads((folder / "case.json").read_text()).get("options", {}).items():
        arguments += [f"--{option.replace('_', '-')}", given]
    answer = json.loads(CliRunner().invoke(quote, arguments, catch_exceptions=False).output)
    for rated in answer["invoices"]:
        said = text(made() | {key: rated[key] for key in made() if key in rated})
        for line in rated["lines"]:
            assert wording.amount(line["amount"]) in said
            for step in line["working"] if len(line["working"]) > 1 else ():
                assert " ".join(step["text"].split()) in said, step
        assert f"{rated['currency']} {wording.amount(rated['total'])}" in said


# --- the file -----------------------------------------------------------------------------------------


def test_metadata() -> None:
    value = made()
    file = read(value)
    digest = hashlib.sha256(canonical.dumps(value)).hexdigest()
    xmp = file.xmp_metadata
    assert xmp is not None and xmp.dc_title == {"x-default": "Invoice INV-7"}
    assert xmp.dc_description == {"x-default": f"INV-7, SHA-256 {digest}"}
    assert xmp.dc_creator == ["Acme GmbH"] and xmp.dc_language == ["en"]
    assert xmp.xmp_create_date is None and xmp.xmp_modify_date is None
    assert (xmp.pdfaid_part, xmp.pdfaid_conformance) == ("2", "U")
    root = file.trailer["/Root"]
    assert root["/Lang"] == "en" and file.metadata is None
    assert root["/OutputIntents"][0].get_object()["/S"] == "/GTS_PDFA1"
    assert file.trailer["/ID"][0].hex() == digest[:32]
    fonts = [font.get_object() for font in file.pages[0]["/Resources"]["/Font"].values()]
    for font in fonts:
        below = font["/DescendantFonts"][0].get_object()
        assert "/FontFile2" in below["/FontDescriptor"].get_object() and "/ToUnicode" in font
    assert len(fonts) == 2 and file.pages[0].mediabox.width == pytest.approx(595.28, abs=0.01)


def test_the_same_bytes_anywhere(tmp_path: Path) -> None:
    """In another process, zone, language and hash seed."""
    data = canonical.dumps(made(customer={"name": "株式会社 Łódź Ωmega", "address": []}))
    path = tmp_path / "a.json"
    path.write_bytes(data)
    script = (
        "import sys, pathlib; from sealpack.settlement import pdf; "
        "sys.stdout.buffer.write(pdf.to_pdf(pathlib.Path(sys.argv[1]).read_bytes()))"
    )
    found = {pdf.to_pdf(data)}
    for seed, zone in (("1", "Asia/Tokyo"), ("2", "America/New_York")):
        more = {"PYTHONHASHSEED": seed, "TZ": zone, "LANG": "pl_PL.UTF-8"}
        call = [sys.executable, "-c", script, str(path)]
        found.add(subprocess.run(call, env=os.environ | more, capture_output=True, check=True).stdout)
    assert len(found) == 1


def test_300_lines() -> None:
    one = made()["lines"][1]
    lines = [one | {"description": f"row number {n} of the table", "amount": f"{n}.07"} for n in range(300)]
    pages = [" ".join(page.extract_text().split()) for page in read(made(lines=lines)).pages]
    said = " ".join(pages)
    for n in range(300):
        assert said.count(f"row number {n} of") == 2, n  # in the table and in the working
    assert all(f"Page {n} of {len(pages)}" in page for n, page in enumerate(pages, start=1))
    ends = max(n for n, page in enumerate(pages) if "Service period" in page)
    assert all("Amount, EUR" in page and "Quantity" in page for page in pages[: ends + 1])
    assert "Total" in pages[ends] or "Total" in pages[ends + 1]
    assert "What this rests on" in pages[-1] and "SHA-256" in pages[-1]


# --- letters ------------------------------------------------------------------------------------------

NAMES = (
    "Zakład Opieki Zdrowotnej „Ślązak” Łódź", "Νοσοκομείο Αθηνών", "Больница №1 Київ", "Đại học Huế",
    "Åsele Őrség İstanbul Ţară", "株式会社日本医療センター", "上海第一医院", "서울대학교병원",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_many_scripts(name: str) -> None:
    assert name in text(made(customer={"name": name, "address": [name]}))


def test_decomposed_and_unseen_letters() -> None:
    said = text(made(customer={"name": "Cafe\u0301\u00a0Nord\t\u202e3", "address": ["a\u200bb"]}))
    assert "Café Nord \\u202e3" in said and "a\\u200bb" in said


@pytest.mark.parametrize("name", ["בית חולים", "مستشفى", "अस्पताल", "โรงพยาบาล"])
def test_scripts_that_need_shaping_are_refused(name: str) -> None:
    error = refusal(made(customer={"name": name, "address": []}))
    assert (
        error.code == "EXPORT_REFUSED" and f"U+{ord(name[0]):04X}" in error.message and "HTML" in error.remedy
    )


def test_a_font_of_ones_own(tmp_path: Path) -> None:
    value = made(customer={"name": "საავადმყოფო", "address": []})
    error = refusal(value)
    assert error.code == "EXPORT_REFUSED" and "U+10E1" in error.message and "--font" in error.remedy
    own = tmp_path / "own.ttf"
    _font(own, "საავადმყოფო")
    assert "საავადმყოფო" in text(value, (own,))
    own.write_bytes(b"no font")
    assert refusal(value, (own,)).code == "USAGE"


def _font(path: Path, letters: str) -> None:
    """A font that draws a box for each letter."""
    names = [".notdef", *sorted({f"uni{ord(letter):04X}" for letter in letters})]
    pen = TTGlyphPen(None)
    for corner, move in zip(
        [(50, 0), (50, 700), (450, 700), (450, 0)], ["moveTo", *["lineTo"] * 3], strict=True
    ):
        getattr(pen, move)(corner)
    pen.closePath()
    glyph = pen.glyph()
    made = FontBuilder(1000)
    made.setupGlyphOrder(names)
    made.setupCharacterMap({ord(letter): f"uni{ord(letter):04X}" for letter in letters})
    made.setupGlyf(dict.fromkeys(names, glyph))
    made.setupHorizontalMetrics(dict.fromkeys(names, (500, 50)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Own", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(path)


def test_every_font_has_its_license_beside_it() -> None:
    folder = typeface.REGULAR.parent
    notes = (folder / "README.md").read_text()
    fonts = sorted(folder.glob("*.ttf"))
    assert len(fonts) == 3 and all(font.name in notes for font in fonts)
    assert "SIL OPEN FONT LICENSE" in (folder / "IBMPlexSans-OFL.txt").read_text()
    assert sum(font.stat().st_size for font in fonts) < 1_500_000


# --- the layout ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """Where a line of text stands, mm."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: Box) -> bool:
        apart = (
            self.right <= other.left or other.right <= self.left or self.bottom <= other.top + 0.01
            or other.bottom <= self.top + 0.01
        )  # fmt: skip
        return not apart


class Ruled(Paper):
    """Paper that remembers where everything was put."""

    def __post_init__(self) -> None:
        self.boxes: list[list[Box]] = []
        super().__post_init__()

    def put(self, x: float, y: float, text: str, style: Style, *, right: bool = False) -> None:
        super().put(x, y, text, style, right=right)
        width = self.width(text, style)
        start = x - width if right else x
        while len(self.boxes) < len(self.pages):
            self.boxes.append([])
        self.boxes[-1].append(Box(text, start, start + width, y, y + style.leading))


def ruled(value: dict[str, Any]) -> Ruled:
    with closing(Ruled(invoices.about(value, "ab" * 32))) as made:
        invoices.write(made, value)
        return made


def check(boxes: list[list[Box]]) -> None:
    """Nothing over the margins, nothing over anything else."""
    for page in boxes:
        for n, box in enumerate(page):
            assert box.left >= LEFT - 0.01 and box.right <= RIGHT + 0.01, box
            assert box.top >= TOP - 0.01 and box.bottom <= BOTTOM + 4, box
            assert not [other for other in page[n + 1 :] if box.meets(other)], box


def words(rng: random.Random) -> str:
    """A name as nasty as a name can be: long, with and without spaces."""
    letters = "abcdefghij ŁódźΩЖ-/" if rng.random() < 0.7 else "Wm"
    return "".join(rng.choice(letters) for _ in range(rng.randrange(1, 160))) + "x"


@pytest.mark.parametrize("seed", range(30))
def test_nothing_overlaps(seed: int) -> None:
    rng = random.Random(seed)
    places = rng.choice([0, 2, 3, 4])

    def amount() -> str:
        return money.amount_text(rng.choice([-1, 1]) * rng.randrange(10 ** rng.randrange(1, 18)), places)

    line = made()["lines"][1]
    lines = [
        line | {"description": words(rng), "amount": amount(), "quantity": f"{rng.randrange(10**12)}.12345",
                "working": [{"step": "usage", "text": words(rng)}, {"step": "x", "text": words(rng)}]}
        for _ in range(rng.randrange(1, 40))
    ]  # fmt: skip
    party = {"name": words(rng), "address": [words(rng) for _ in range(8)], "tax_id": words(rng)[:64],
             "email": words(rng)}  # fmt: skip
    tax = {"category": "E", "percent": "12.345", "base": amount(), "amount": amount(), "reason": words(rng)}
    value = made(lines=lines, seller=party, customer=party, net=amount(), tax=amount(), total=amount(),
                 taxes=[tax], license=words(rng), purchase_order=words(rng), reason=words(rng),
                 payment=words(rng) + "\n" + words(rng), evidence=[LOG] * rng.randrange(60))  # fmt: skip
    check(ruled(value).boxes)


def test_amounts_end_at_the_right_margin() -> None:
    boxes = [box for page in ruled(made()).boxes for box in page]
    for shown in ("99.01", "0.86", "99.87", "EUR 99.87"):
        assert any(box.text == shown and box.right == pytest.approx(RIGHT) for box in boxes), shown


def test_a_row_that_is_longer_than_a_page() -> None:
    line = made()["lines"][1]
    made_ = ruled(made(lines=[line | {"description": "word " * 3000}, line]))
    check(made_.boxes)
    found = sum(box.text.count("word") for page in made_.boxes for box in page)
    assert found >= 3000 and len(made_.boxes) > 3


def test_a_table_without_an_open_column_fills_the_width() -> None:
    with closing(Ruled(About("t", "n", "a", "00" * 16))) as sheet:
        sheet.table([Column("a", number=True), Column("b", number=True)], [[[Text("1")], [Text("2")]]])
    assert max(box.right for box in sheet.boxes[0]) == pytest.approx(RIGHT)


# --- what cannot be printed ---------------------------------------------------------------------------


def test_another_json_is_refused() -> None:
    assert refusal({"schema": "sealpack/plan/v1"}).code == "EXPORT_REFUSED"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = refusal(made())
    assert error.code == "EXTRA_MISSING" and "sealpack[pdf]" in error.remedy


def test_tax_words_are_those_of_plans() -> None:
    from sealpack.settlement.plan import TAX_CATEGORIES

    assert set(wording.TAX_WORDS) == set(TAX_CATEGORIES)


def test_a_seller_without_anything() -> None:
    value = document(seller=Business("S"), buyer=Business("B"), tax=Tax("O", Fraction(0), ""))
    assert re.search(r"O: outside the scope of tax 0 % 99\.87 0\.00", text(value))
    assert SELLER.name not in text(value)


def pages_of(value: dict[str, Any]) -> Iterator[str]:
    for page in read(value).pages:
        yield page.extract_text()


def test_the_foot_is_cut_when_names_are_long() -> None:
    value = made(seller={"name": "Gesellschaft " * 20, "address": []})
    assert all("…" in page and "Page 1 of" in page for page in list(pages_of(value))[:1])
    assert paper.WIDTH == RIGHT - LEFT
