"""Invoices and credit notes as values, and their JSON and CSV forms.

Source: specs/invoice.md. An invoice is made from a rated period and a header (number, date, parties)
that is an input, so the same evidence, plan and header give the same bytes. JSON is the form that
is signed; CSV and HTML (invoice_html) are made from the same value. Amounts are minor units here
and decimal strings in every output.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sealpack.format import canonical
from sealpack.settlement import money
from sealpack.settlement.plan import Plan
from sealpack.settlement.printing import Correction
from sealpack.settlement.results import BREAKAGE, Estimated, Line, PeriodResult, Taxed, TaxLine
from sealpack.settlement.shares import Share

SCHEMA = "sealpack/invoice/v1"
CSV_COLUMNS = (
    "record",
    "number",
    "date",
    "customer",
    "license",
    "charge",
    "description",
    "service_start",
    "service_end",
    "quantity",
    "amount",
    "currency",
)
_NUMERIC = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_ACTIVE = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Business:
    """A party of an invoice as it is printed: legal name, address lines, tax id, contact.

    `country` (ISO 3166-1 alpha-2) is not printed: address lines say it; exports need the code.
    """

    name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""
    country: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The signed usage an invoice rests on: leaves [first, end) of one log, under `root`.

    `stated` are the digests of files whose registers say what was used beyond that.
    """

    origin: str
    first: int
    end: int
    root: str
    stated: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        beyond = {"stated": list(self.stated)} if self.stated else {}
        return {"origin": self.origin, "first": self.first, "end": self.end, "root": self.root, **beyond}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What rating does not know. An empty `number` makes a draft.

    `issued` is the invoice date; a day that is None is not printed.
    """

    seller: Business
    customer: Business
    license_id: str
    number: str = ""
    issued: date | None = None
    due: date | None = None
    purchase_order: str = ""
    payment: str = ""  # how to pay, printed as given
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice(Taxed):
    """One printed document; for a credit note every amount is negative (or zero)."""

    kind: str  # invoice | credit_note
    header: Header
    plan: Plan = field(repr=False)
    first: date
    last: date
    lines: tuple[Line, ...]
    net: int
    taxes: tuple[TaxLine, ...]
    shares: tuple[Share, ...]
    corrects: str = ""  # number of the document this one adds to
    reason: str = ""  # why there is a further document, printed as given
    estimates: tuple[Estimated, ...] = ()  # of silent devices, in the period as it rates now

    @property
    def draft(self) -> bool:
        return not self.header.number

    def text(self, amount: int) -> str:
        """Minor units as a decimal string of the invoice's currency."""
        return money.amount_text(amount, self.plan.exponent)


def invoice(result: PeriodResult, header: Header) -> Invoice:
    """The invoice for a rated (or printed, see `printing.as_printed`) period."""
    return Invoice(
        kind="invoice",
        header=header,
        plan=result.plan,
        first=result.period.first,
        last=result.period.last,
        lines=result.lines,
        net=result.net,
        taxes=result.taxes,
        shares=result.shares,
        estimates=result.estimates,
    )


def credit_note(change: Correction, header: Header, *, corrects: str, reason: str = "") -> Invoice:
    """The credit note for a period that re-rates to less; `corrects` is the issued invoice.

    ValueError for a change that is not a credit: that one is a further invoice.
    """
    if not change.is_credit:
        raise ValueError("the period rates to more than was issued")
    return _changed("credit_note", change, header, corrects, reason)


def further(change: Correction, header: Header, *, corrects: str, reason: str = "") -> Invoice:
    """The further invoice for a period that re-rates to no less; ValueError for a credit."""
    if change.is_credit:
        raise ValueError("the period rates to less than was issued")
    return _changed("invoice", change, header, corrects, reason)


def _changed(kind: str, change: Correction, header: Header, corrects: str, reason: str) -> Invoice:
    return Invoice(
        kind=kind,
        header=header,
        plan=change.result.plan,
        first=change.result.period.first,
        last=change.result.period.last,
        lines=change.lines,
        net=change.net,
        taxes=change.taxes,
        shares=change.shares,
        corrects=corrects,
        reason=reason,
        estimates=change.result.estimates,
    )


@dataclass(frozen=True, slots=True)
class Issued:
    """What an issued document says, read back from its JSON; amounts are minor units."""

    name: str
    kind: str  # invoice | credit_note
    corrects: str
    reason: str
    date: str
    due: str
    currency: str
    plan: tuple[str, int, str]  # id, version, digest
    lines: tuple[Line, ...]
    net: int
    taxes: tuple[TaxLine, ...]
    total: int
    shares: dict[str, int]

    @classmethod
    def of(cls, value: dict[str, Any]) -> Issued:
        """From the parsed JSON of a document that was issued here."""
        return cls(
            name=value["number"],
            kind=value["kind"],
            corrects=value.get("corrects", ""),
            reason=value.get("reason", ""),
            date=value.get("date", ""),
            due=value.get("due", ""),
            currency=value["currency"],
            plan=(value["plan"]["id"], value["plan"]["version"], value["plan"]["digest"]),
            lines=tuple(_read_line(line) for line in value["lines"]),
            net=_minor(value["net"]),
            taxes=tuple(_read_tax(tax) for tax in value["taxes"]),
            total=_minor(value["total"]),
            shares={share["party"]: _minor(share["amount"]) for share in value["shares"]},
        )

    @property
    def tax(self) -> int:
        return self.total - self.net

    @property
    def breakage(self) -> int:
        """What of money paid ahead became the platform's without being drawn."""
        return sum(line.earned for line in self.lines if line.kind == BREAKAGE)

    def columns(self, kind: str) -> dict[str, Any]:
        """What the table of invoices says beside the bytes; `kind` as there."""
        return {
            "kind": kind,
            "corrects": self.corrects or None,
            "currency": self.currency,
            "issued": self.date,
            "due": self.due,
            "net": self.net,
            "total": self.total,
        }


def _minor(text: str) -> int:
    """A printed amount, which has exactly the currency's places, in minor units."""
    return int(text.replace(".", ""))


def _read_line(value: dict[str, Any]) -> Line:
    breakage = _minor(value.get(BREAKAGE, "0"))
    return Line(
        charge=value["charge"],
        kind=value["kind"],
        description=value["description"],
        amount=_minor(value["amount"]),
        first=date.fromisoformat(value["service_start"]),
        last=date.fromisoformat(value["service_end"]),
        accrues=((value["charge"], breakage),) if breakage else (),
    )


def _read_tax(value: dict[str, Any]) -> TaxLine:
    rate = money.parse_decimal(value["percent"]) / 100
    amounts = _minor(value["base"]), _minor(value["amount"])
    return TaxLine(value["category"], rate, *amounts, value.get("reason", ""))


def to_dict(document: Invoice) -> dict[str, Any]:
    """The JSON object, schema sealpack/invoice/v1; members without a value are left out."""
    header = document.header
    optional = {
        "number": header.number,
        "date": _iso(header.issued),
        "due": _iso(header.due),
        "purchase_order": header.purchase_order,
        "payment": header.payment,
        "corrects": document.corrects,
        "reason": document.reason,
    }
    return {
        "schema": SCHEMA,
        "kind": document.kind,
        "draft": document.draft,
        **{key: value for key, value in optional.items() if value},
        "seller": business_dict(header.seller),
        "customer": business_dict(header.customer),
        "license": header.license_id,
        "period_start": document.first.isoformat(),
        "period_end": document.last.isoformat(),
        "tz": document.plan.tz,
        "currency": document.plan.currency,
        "lines": [line.to_dict(document.plan.exponent) for line in document.lines],
        "net": document.text(document.net),
        "taxes": [tax.to_dict(document.plan.exponent) for tax in document.taxes],
        "tax": document.text(document.tax),
        "total": document.text(document.total),
        "shares": [share.to_dict(document.plan.exponent) for share in document.shares],
        "plan": {
            "id": document.plan.id,
            "version": document.plan.version,
            "digest": document.plan.digest,
        },
        "evidence": [item.to_dict() for item in header.evidence],
        **({"estimates": [one.to_dict() for one in document.estimates]} if document.estimates else {}),
    }


def to_json(document: Invoice) -> bytes:
    """Canonical JSON (RFC 8785 subset): the bytes that are signed."""
    return canonical.dumps(to_dict(document))


def _iso(day: date | None) -> str:
    return day.isoformat() if day else ""


def business_dict(party: Business) -> dict[str, Any]:
    """The JSON form of a party; members without a value are left out."""
    optional = {"tax_id": party.tax_id, "email": party.email, "country": party.country}
    return {
        "name": party.name,
        "address": list(party.address),
        **{key: value for key, value in optional.items() if value},
    }


def to_csv(document: Invoice) -> bytes:
    """UTF-8 CSV: one row per line, then per tax category, then the total.

    Cells a spreadsheet would run as a formula get a leading apostrophe; numbers stay numbers.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for line in document.lines:
        writer.writerow(guarded(_line_cells(document, line)))
    for tax in document.taxes:
        text = f"tax {tax.category} {money.exact_text(tax.rate * 100)} %"
        writer.writerow(guarded(_sum_cells(document, "tax", text, tax.amount)))
    writer.writerow(guarded(_sum_cells(document, "total", "total", document.total)))
    return stream.getvalue().encode("utf-8")


def guarded(cells: list[str]) -> list[str]:
    """Cells safe to open in a spreadsheet: text that begins like a formula is made plain text."""
    return [
        f"'{cell}" if cell.startswith(_ACTIVE) and not _NUMERIC.fullmatch(cell) else cell for cell in cells
    ]


def _common(document: Invoice) -> list[str]:
    header = document.header
    return [header.number, _iso(header.issued), header.customer.name, header.license_id]


def _line_cells(document: Invoice, line: Line) -> list[str]:
    quantity = "" if line.quantity is None else money.exact_text(line.quantity)
    return [
        line.kind,
        *_common(document),
        line.charge,
        line.description,
        line.first.isoformat(),
        line.last.isoformat(),
        quantity,
        document.text(line.amount),
        document.plan.currency,
    ]


def _sum_cells(document: Invoice, record: str, text: str, amount: int) -> list[str]:
    empty = ["", "", ""]
    currency = document.plan.currency
    return [record, *_common(document), "", text, *empty, document.text(amount), currency]
