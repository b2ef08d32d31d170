"""What stands beside amounts in the console: documents page by page, what happened to each, what is missing.

Source: specs/console.md, "Billing". Reads only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.settlement import audit, checks, db, receivables
from sealpack.settlement.audit import Entry
from sealpack.settlement.ledger import CASH, CREDIT, RECEIVABLE
from sealpack.settlement.receivables import Standing

STATES = ("issued", "partly paid", "paid", "credited", "written off")
OPEN = "open"  # of any state: something is to be paid
OVERDUE = "overdue"
_AT_ONCE = 100  # documents looked at for a page


# --- documents ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents: `state` one of STATES, `open` or `overdue`; `text` in the number, the customer, the
    license."""

    state: str = ""
    customer: str = ""
    month: str = ""  # YYYY-MM
    kind: str = ""
    text: str = ""
    today: str = ""  # for `overdue`

    def where(self) -> list[sa.ColumnElement[bool]]:
        """What the table of documents can be asked."""
        columns = db.invoices.c
        found: list[sa.ColumnElement[bool]] = []
        if self.customer:
            found.append(columns.customer_id == self.customer)
        if self.month:
            found.append(columns.period == f"{self.month}-01")
        if self.kind:
            found.append(columns.kind == self.kind)
        if self.state == OVERDUE:
            found += [columns.due < self.today, columns.due != ""]
        if self.text:
            places = (columns.name, columns.customer_id, columns.license_id)
            found.append(sa.or_(*(place.icontains(self.text, autoescape=True) for place in places)))
        return found

    def fits(self, one: Standing) -> bool:
        """Whether a document's state is the one asked for."""
        if self.state in (OPEN, OVERDUE):
            return one.open > 0
        return self.state in ("", one.state)


Key = tuple[str, int]  # issuer, number


def documents(
    connection: sa.Connection, which: Filter, *, before: Key | None = None, limit: int = 50
) -> tuple[list[Standing], Key | None]:
    """So many documents, the newest first, from the one before a key on; the key to go on from."""
    columns = db.invoices.c
    order = (columns.issuer.desc(), columns.number.desc())
    found: list[Standing] = []
    while True:
        query = sa.select(columns.issuer, columns.number, columns.name).where(*which.where())
        if before is not None:
            query = query.where(
                sa.tuple_(columns.issuer, columns.number) < sa.tuple_(*map(sa.literal, before))
            )
        rows = connection.execute(query.order_by(*order).limit(_AT_ONCE)).all()
        names = [row.name for row in rows]
        standing = {
            one.document.name: one for one in receivables.standings(connection, columns.name.in_(names))
        }
        for row in rows:
            if which.fits(standing[row.name]):
                if len(found) == limit:
                    return found, before
                found.append(standing[row.name])
            before = row.issuer, row.number
        if len(rows) < _AT_ONCE:
            return found, None


def newest(connection: sa.Connection, *where: sa.ColumnElement[bool], limit: int = 12) -> list[Standing]:
    """So many documents that `where` picks of `db.invoices`, the newest first."""
    columns = db.invoices.c
    order = columns.issued.desc(), columns.issuer, columns.number.desc()
    names = list(
        connection.execute(sa.select(columns.name).where(*where).order_by(*order).limit(limit)).scalars()
    )
    found = {one.document.name: one for one in receivables.standings(connection, columns.name.in_(names))}
    return [found[name] for name in names]


def family(connection: sa.Connection, one: Standing) -> list[Standing]:
    """All documents of the same license and period, in the order of issue."""
    columns = db.invoices.c
    same = (columns.license_id == one.document.license_id, columns.period == one.document.period)
    return receivables.standings(connection, *same)


def names(connection: sa.Connection, customers: Iterable[str]) -> dict[str, str]:
    """What customers are called, by id: those that have a record."""
    ids, columns = sorted({*customers}), db.customers.c
    found: dict[str, str] = {}
    for start in range(0, len(ids), 500):
        query = sa.select(columns.id, columns.document).where(columns.id.in_(ids[start : start + 500]))
        found |= {row.id: json.loads(row.document)["legal_name"] for row in connection.execute(query)}
    return found


# --- what happened ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Booking:
    """A transaction as it concerns a document, minor units: what became open, what was paid in cash, and what
    came from or went to what the customer has on account."""

    day: str
    kind: str
    document: str
    reference: str
    narration: str
    currency: str
    open: int
    cash: int
    account: int


def bookings(connection: sa.Connection, name: str) -> list[Booking]:
    """Everything that was booked on a document, in the order of booking."""
    legs = db.postings.c
    seqs = sa.select(legs.seq).where(legs.document == name)
    return _bookings(connection, name, db.transactions.c.seq.in_(seqs))


def _bookings(connection: sa.Connection, name: str, where: sa.ColumnElement[bool]) -> list[Booking]:
    head, leg = db.transactions.c, db.postings.c

    def part(account: str, *more: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        mine = sa.and_(leg.account == account, *more)
        return sa.func.sum(sa.case((mine, leg.amount), else_=0))

    here = leg.document == name
    rows = connection.execute(
        sa.select(
            head.day, head.kind, head.document, head.reference, head.narration, head.currency,
            part(RECEIVABLE, here).label("open"), part(CASH).label("cash"),
            part(CREDIT, here).label("account"),
        )
        .join(db.postings, head.seq == leg.seq)
        .where(where)
        .group_by(head.seq, head.day, head.kind, head.document, head.reference, head.narration, head.currency)
        .order_by(head.seq)
    )  # fmt: skip
    return [Booking(*row[:6], *(int(amount) for amount in row[6:])) for row in rows]


PAYMENT_KINDS = ("payment", "apply", "refund", "writeoff", "payout")


def payments(
    connection: sa.Connection, *, kind: str = "", before: int | None = None, limit: int = 50
) -> tuple[list[dict[str, Any]], int | None]:
    """What was paid, given back, given up and paid out, the newest first; the number to go on from."""
    head, leg = db.transactions.c, db.postings.c
    kinds = [kind] if kind in PAYMENT_KINDS else PAYMENT_KINDS
    query = sa.select(db.transactions).where(head.kind.in_(kinds))
    if before is not None:
        query = query.where(head.seq < before)
    rows = connection.execute(query.order_by(head.seq.desc()).limit(limit + 1)).all()
    legs = connection.execute(sa.select(db.postings).where(leg.seq.in_([row.seq for row in rows]))).all()
    found = []
    for row in rows[:limit]:
        mine = [one for one in legs if one.seq == row.seq]
        amount = sum(one.amount for one in mine if one.amount > 0)
        party = next((one.party for one in mine if one.party), "")
        found.append({"seq": row.seq, "day": row.day, "kind": row.kind, "document": row.document,
                      "reference": row.reference, "narration": row.narration, "currency": row.currency,
                      "amount": amount, "party": party})  # fmt: skip
    return found, rows[limit - 1].seq if len(rows) > limit else None


def paid_to(connection: sa.Connection, party: str) -> list[dict[str, Any]]:
    """Payouts to a party, the newest first; amounts in minor units."""
    head, leg = db.transactions.c, db.postings.c
    rows = connection.execute(
        sa.select(head.day, head.reference, head.issuer, head.currency, leg.amount)
        .join(db.postings, head.seq == leg.seq)
        .where(head.kind == "payout", leg.party == party)
        .order_by(head.seq.desc())
    )
    return [dict(row) for row in rows.mappings()]


def history(connection: sa.Connection, *names: str) -> list[Entry]:
    """The audit trail's entries that name one of these: a document, or a license and period of a draft."""
    columns = db.audit.c
    told = [columns.what.contains(json.dumps(name, ensure_ascii=False), autoescape=True) for name in names]
    rows = connection.execute(sa.select(db.audit).where(sa.or_(*told)).order_by(columns.seq))
    return [
        audit.Entry(row.seq, row.at, row.who, json.loads(row.what), row.previous, row.digest) for row in rows
    ]


# --- what is missing ----------------------------------------------------------------------------------


def open_cases(connection: sa.Connection) -> Counter[str]:
    """How many cases are open per license; one of a sub-license counts for the license it is billed with."""
    cases, said = db.cases.c, db.decisions.c
    refused = sa.exists().where(
        said.code == cases.code, said.sha256 == cases.sha256, said.verdict == "refuse"
    )  # fmt: skip
    origins = connection.execute(sa.select(cases.origin).where(cases.closed_at.is_(None), ~refused)).scalars()
    above = _above(connection)
    names = [name for origin in origins if (name := checks.license_id_of(origin)) is not None]
    return Counter(above.get(name, name) for name in names)


def missing(connection: sa.Connection, license_ids: Sequence[str], end_ms: int) -> Counter[str]:
    """How many devices per license have sent no file since a period ended, and have not said goodbye."""
    above = _above(connection)
    every = [*license_ids, *(name for name, parent in above.items() if parent in license_ids)]
    activations, logs, segments, files = db.activations.c, db.logs.c, db.segments.c, db.files.c
    came = (
        sa.select(logs.license_id, logs.device_id, sa.func.max(files.received_at).label("at"))
        .join(db.segments, segments.origin == logs.origin)
        .join(db.files, files.sha256 == segments.sha256)
        .where(logs.license_id.in_(every))
        .group_by(logs.license_id, logs.device_id)
        .subquery()
    )
    gone = sa.exists().where(
        db.deactivations.c.license_id == activations.license_id,
        db.deactivations.c.device_id == activations.device_id,
    )
    rows = connection.execute(
        sa.select(activations.license_id, sa.func.count())
        .outerjoin(
            came, (came.c.license_id == activations.license_id) & (came.c.device_id == activations.device_id)
        )
        .where(
            activations.license_id.in_(every), activations.first_at * 1000 < end_ms, ~gone,
            sa.func.coalesce(came.c.at, 0) * 1000 < end_ms,
        )
        .group_by(activations.license_id)
    )  # fmt: skip
    found: Counter[str] = Counter()
    for row in rows:
        name = str(row[0])
        found[above.get(name, name)] += int(row[1])
    return found


def _above(connection: sa.Connection) -> dict[str, str]:
    below = db.sublicenses.c
    rows = connection.execute(sa.select(below.license_id, below.parent_id))
    return {row.license_id: row.parent_id for row in rows}
