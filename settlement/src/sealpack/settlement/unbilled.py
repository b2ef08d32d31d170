"""What was used and is not billed: periods without an invoice, usage that came late, and what is held.

Source: specs/settlement-ledger.md, "Reports". Amounts are what would be issued now.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import checks, corrections, db, decisions, drafts, invoice, ratings
from sealpack.settlement.outcomes import OUTCOMES

COLUMNS = ("customer", "license", "period", "kind", "state", "currency", "net", "total")
HELD_COLUMNS = ("customer", "license", "device", "received", "days", "code", "receipts", "meaning", "file")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Unbilled:
    """One document that could be issued. `kind`: draft | late | correction; amounts are decimal strings."""

    customer: str
    license_id: str
    period: date
    kind: str
    state: str
    currency: str
    net: str
    total: str

    def cells(self) -> list[str]:
        """A row of the table."""
        return [self.customer, self.license_id, f"{self.period:%Y-%m}", self.kind, self.state, self.currency,
                self.net, self.total]  # fmt: skip


def unbilled(database: db.Database, now: int, customer: str | None = None) -> list[Unbilled]:
    """Every draft that comes to something, and every correction, by customer, license and period."""
    found = [
        Unbilled(entry.customer, entry.license_id, entry.period, "draft", entry.state,
                 entry.draft["currency"], entry.draft["net"], entry.draft["total"])
        for month in months(database, now)
        for entry in drafts.everything(database, month, now, customer)
        if entry.state != drafts.ISSUED and entry.draft is not None and _comes_to(entry.draft)
    ]  # fmt: skip
    found += late(database, customer, now)
    return sorted(found, key=lambda one: (one.customer, one.license_id, one.period, one.kind))


def _comes_to(draft: dict[str, Any]) -> bool:
    return any(line["amount"].strip("-0.") or int(line.get("raw", "0")) for line in draft["lines"])


def months(database: db.Database, now: int) -> list[date]:
    """The first days of all months since the first activation, the running one included."""
    with database.read() as connection:
        first = connection.execute(sa.select(sa.func.min(db.activations.c.first_at))).scalar()
    if first is None:
        return []
    day, last = (datetime.fromtimestamp(at, UTC).date().replace(day=1) for at in (first, max(first, now)))
    found = [day]
    while found[-1] < last:
        found.append((found[-1] + timedelta(days=32)).replace(day=1))
    return found


def late(database: db.Database, customer: str | None = None, now: int | None = None) -> list[Unbilled]:
    """What invoiced periods rate to beyond, or below, what was issued for them.

    Here and below: with the estimates of documents made at `now` (Unix seconds), else of today.
    """
    compare(database, late_known(database, customer, now).waiting, now=now)
    return late_known(database, customer, now).found


@dataclass(frozen=True, slots=True)
class Late:
    """Corrections of the licenses that were compared with what was issued for them; `waiting` are not yet."""

    found: list[Unbilled]
    waiting: list[str]


def _day(now: int | None) -> date:
    return drafts.day_of(int(time.time()) if now is None else now)


def late_known(database: db.Database, customer: str | None = None, now: int | None = None) -> Late:
    """What is known of corrections without rating anything; :func:`compare` does the rest."""
    with database.read() as connection:
        names = _invoiced(connection, customer)
        wanted = ratings.bases(connection, list(names), ratings.LATE, _day(now))
        known = ratings.load(connection, ratings.LATE, wanted)
    found = [
        Unbilled(whose, name, date.fromisoformat(one["period"]), one["kind"], "draft", one["currency"],
                 one["net"], one["total"])
        for name, whose in names.items()
        for one in known.get(name, ())
    ]  # fmt: skip
    return Late(found, [name for name in names if name not in known])


def compare(
    database: db.Database, license_ids: Sequence[str], *, now: int | None = None,
    seconds: float | None = None,
) -> list[str]:  # fmt: skip
    """Rate what was invoiced of these licenses again and keep what differs; no more after so many seconds.

    Returns the licenses that are left. One that cannot be rated is kept as if nothing differed: the verb
    `settle correct` says why.
    """
    began, left, day = time.monotonic(), list(license_ids), _day(now)
    while left and (seconds is None or time.monotonic() - began < seconds):
        some, left = left[:20], left[20:]
        made = {}
        with database.read() as connection:
            wanted = ratings.bases(connection, some, ratings.LATE, day)
            for name in some:
                try:
                    documents = corrections.drafts(connection, name, day)
                except SealpackError as error:
                    if error.spec.exit == 1:
                        raise
                    documents = []
                made[name] = wanted[name], [_short(one) for one in documents]
        ratings.keep(database, ratings.LATE, made)
    return left


@dataclass(frozen=True, slots=True)
class Month:
    """How many licenses have an invoice for a month, and how many that may be billed have none."""

    first: date
    issued: int
    without: int


def catch_up(database: db.Database, now: int, *, seconds: float) -> None:
    """Compare and rate what lists do not know of months that are over, for so many seconds."""
    began = time.monotonic()

    def rest() -> float:
        return seconds - (time.monotonic() - began)

    compare(database, late_known(database, now=now).waiting, now=now, seconds=rest())
    for first in reversed(months(database, now)[:-1]):
        with database.read() as connection:
            rated = sa.select(db.rated.c.license_id).where(db.rated.c.what == f"draft:{first:%Y-%m}")
            query = _without(first).where(db.activations.c.license_id.not_in(rated))
            names = list(connection.execute(query).scalars())
        if names and rest() > 0:
            drafts.refresh(database, names, first, now=now, seconds=rest())


def _without(first: date) -> sa.Select[str]:
    """Licenses that ran by the end of a month, have no invoice for it, and may be billed for all we know."""
    invoices, activations, rated = db.invoices.c, db.activations.c, db.rated.c
    issued = sa.select(invoices.license_id).where(
        invoices.period == first.isoformat(), invoices.kind == "invoice"
    )
    none = sa.select(rated.license_id).where(rated.what == f"draft:{first:%Y-%m}", rated.value == b"{}")
    end = int(datetime.combine(first, datetime.min.time(), UTC).timestamp()) + 32 * _DAY_S
    query = sa.select(activations.license_id).distinct().where(
        activations.license_id.not_in(sa.select(db.sublicenses.c.license_id)), activations.first_at < end,
        activations.license_id.not_in(issued), activations.license_id.not_in(none),
    )  # fmt: skip
    return query.order_by(activations.license_id)


def by_month(connection: sa.Connection, every: Sequence[date]) -> list[Month]:
    """Counts per month, the newest first; licenses that are known not to be billed are left out."""
    columns = db.invoices.c
    found = []
    for first in reversed(every):
        mine = (columns.period == first.isoformat(), columns.kind == "invoice")
        issued = sa.select(sa.func.count()).select_from(db.invoices).where(*mine)
        without = sa.select(sa.func.count()).select_from(_without(first).subquery())
        counts = (connection.execute(query).scalar_one() for query in (issued, without))
        found.append(Month(first, *counts))
    return found


def _short(document: invoice.Invoice) -> dict[str, str]:
    kind = "correction" if document.kind == "credit_note" else "late"
    return {"period": document.first.isoformat(), "kind": kind, "currency": document.plan.currency,
            "net": document.text(document.net), "total": document.text(document.total)}  # fmt: skip


def _invoiced(connection: sa.Connection, customer: str | None) -> dict[str, str]:
    """License -> customer of those that were invoiced."""
    columns = db.licenses.c
    some = columns.license_id.in_(sa.select(db.invoices.c.license_id))
    where = [some, *([] if customer is None else [columns.customer_id == customer])]
    query = sa.select(columns.license_id, columns.customer_id).where(*where).order_by(columns.license_id)
    return {row.license_id: row.customer_id for row in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Held:
    """A file whose usage waits. `receipts`: how many it says it holds; of an unknown license `customer` is
    empty. `received_at` in Unix seconds."""

    customer: str
    license_id: str
    device_id: str
    file: str
    sha256: str
    code: str
    receipts: int
    received_at: int

    def cells(self, now: int) -> list[str]:
        """A row of the table."""
        day = datetime.fromtimestamp(self.received_at, UTC).date().isoformat()
        days = max(0, now - self.received_at) // _DAY_S
        return [self.customer, self.license_id, self.device_id, day, str(days), self.code,
                str(self.receipts), OUTCOMES[self.code], self.file]  # fmt: skip


def held(connection: sa.Connection, customer: str | None = None) -> list[Held]:
    """Every file that is held and that nobody refused, by customer and license, the oldest first."""
    found = [one for one in _held(connection) if customer in (None, one.customer)]
    return sorted(found, key=lambda one: (one.customer, one.license_id, one.received_at, one.sha256))


def _held(connection: sa.Connection) -> Iterator[Held]:
    files, owner = db.files.c, db.licenses.c
    query = (
        sa.select(
            files.name, files.sha256, files.code, files.origin, files.license_id, files.first, files.last,
            files.received_at, owner.customer_id,
        )
        .outerjoin(db.licenses, owner.license_id == files.license_id)
        .where(files.code.like("H%"), ~decisions.is_refused(files.code, files.sha256))
    )  # fmt: skip
    for row in connection.execute(query):
        device = row.origin.split("/")[-2] if row.origin else ""
        license_id = row.license_id or (checks.license_id_of(row.origin) if row.origin else "") or ""
        receipts = 0 if row.last is None else row.last - row.first
        yield Held(row.customer_id or "", license_id, device, row.name, row.sha256, row.code, receipts,
                   row.received_at)  # fmt: skip
