"""Issuing a document: the next number of its series, its bytes, what it books, all in one transaction.

Source: specs/invoice.md and specs/settlement-ledger.md. Numbers of a legal entity have no gaps: a number is
taken in the transaction that stores the document, so a process that dies takes none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.settlement import audit, db, invoice, invoice_html, ledger, parties
from sealpack.settlement.audit import Actor
from sealpack.settlement.invoice import Invoice, Issued


@dataclass(frozen=True, slots=True)
class Printed:
    """A document or draft in its three forms; `name` is its number, or `draft-...`."""

    name: str
    license_id: str
    json: bytes
    csv: bytes
    html: bytes
    fresh: bool  # made now, not stored earlier

    @property
    def files(self) -> dict[str, bytes]:
        """File names with their bytes."""
        return {f"{self.name}.json": self.json, f"{self.name}.csv": self.csv, f"{self.name}.html": self.html}


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document: its place in the books and what it says. `kind` as in the table of invoices."""

    name: str
    kind: str
    issuer: str
    license_id: str
    period: str
    customer: str
    issued: Issued


def as_files(document: Invoice, name: str) -> Printed:
    """The three forms of a document or draft that was made now."""
    html = invoice_html.to_html(document).encode()
    license_id = document.header.license_id
    return Printed(name, license_id, invoice.to_json(document), invoice.to_csv(document), html, True)


def issue(
    connection: sa.Connection, license: License, kind: str, make: Callable[[str], Invoice], actor: Actor
) -> Printed:
    """Store and book what `make` prints under the next number of the license's issuer."""
    number, name = _next_number(connection, license.issuer)
    document = make(name)
    printed = as_files(document, name)
    said = Issued.of(json.loads(printed.json))
    customer = license.customer.id
    row = {"issuer": license.issuer, "number": number, "name": name, "license_id": license.license_id,
           "period": document.first.replace(day=1).isoformat(), "customer_id": customer, "json": printed.json,
           "csv": printed.csv, "html": printed.html}  # fmt: skip
    connection.execute(sa.insert(db.invoices).values(row | said.columns(kind)))
    booked = ledger.book_document(connection, license.issuer, customer, kind, said)
    audit.note(
        connection, actor, "issue", number=name, kind=kind, corrects=said.corrects, reason=said.reason,
        document=audit.sha256(printed.json), booked=booked,
    )  # fmt: skip
    return printed


def _next_number(connection: sa.Connection, issuer: str) -> tuple[int, str]:
    invoices = db.invoices.c
    last = connection.execute(sa.select(sa.func.max(invoices.number)).where(invoices.issuer == issuer))
    number = (last.scalar() or 0) + 1
    name = f"{parties.load_seller(connection, issuer).prefix}-{number:06d}"
    if connection.execute(sa.select(invoices.name).where(invoices.name == name)).first() is not None:
        raise SealpackError(
            "REGISTRY_INVALID",
            f"invoice number {name} is another issuer's",
            remedy=f"import a seller file with a prefix of its own for {issuer}",
        )
    return number, name


def documents(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Document]:
    """Stored documents in the order in which they were issued."""
    columns = db.invoices.c
    rows = connection.execute(
        sa.select(
            columns.name, columns.kind, columns.issuer, columns.license_id, columns.period,
            columns.customer_id, columns.json,
        )
        .where(*where)
        .order_by(columns.issuer, columns.number)
    )  # fmt: skip
    return [Document(*row[:-1], Issued.of(json.loads(row.json))) for row in rows]


def find(connection: sa.Connection, name: str) -> Document:
    """A document by its number; INVOICE_UNKNOWN."""
    found = documents(connection, db.invoices.c.name == name)
    if not found:
        raise SealpackError("INVOICE_UNKNOWN", f"no invoice {name} was issued here")
    return found[0]
