"""Invoices before they are issued: a license's period as it would be printed now, and where it stands.

Source: specs/settlement-ledger.md, "Before issue". A period is open while it runs, in grace while its plan
waits for late files, then a draft until a person approved it or it is issued. Lists show what was rated
before where nothing changed since (:mod:`sealpack.settlement.ratings`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.settlement import approvals, billing, db, invoice, ratings
from sealpack.settlement.approvals import Approval
from sealpack.settlement.audit import Actor
from sealpack.settlement.invoice import Invoice
from sealpack.settlement.periods import Period, day_start, local_day

OPEN, GRACE, DRAFT, APPROVED, ISSUED = "open", "grace", "draft", "approved", "issued"
FAULTY = "faulty"  # cannot be rated, for instance because its plan is unknown
STATES = (OPEN, GRACE, DRAFT, APPROVED, ISSUED, FAULTY)
_NOT_RUNNING = ("USAGE", "REGISTRY_INVALID")


@dataclass(frozen=True, slots=True)
class Entry:
    """A license's period in a list. `draft` is its JSON as a value, None while it is not rated; `number` is
    that of the invoice once there is one. `lapsed`: what was approved is not what it says now."""

    license_id: str
    customer: str
    period: date
    state: str
    draft: dict[str, Any] | None = None
    digest: str = ""
    approval: Approval | None = None
    number: str = ""
    problem: str = ""

    @property
    def lapsed(self) -> bool:
        """Whether it was approved as something else."""
        return self.approval is not None and bool(self.digest) and self.approval.digest != self.digest

    @property
    def estimated(self) -> int:
        """How many devices something is estimated of."""
        return sum(bool(one["amounts"]) for one in (self.draft or {}).get("estimates", ()))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, in the words of the list of issued documents."""
        said = self.draft or {}
        parts = {
            "number": self.number, "kind": "invoice", "customer": self.customer, "license": self.license_id,
            "period": f"{self.period:%Y-%m}", "currency": said.get("currency", ""),
            "net": said.get("net", ""), "total": said.get("total", ""), "state": self.state,
            "draft": self.digest, "problem": self.problem,
        }  # fmt: skip
        approved = {"approved_by": self.approval.who, "approved_at": self.approval.at,
                    "lapsed": self.lapsed} if self.approval else {}  # fmt: skip
        return {key: value for key, value in parts.items() if value} | approved


def grace_end(period: Period, grace_days: int) -> int:
    """When a period's days of grace are over, UTC ms."""
    return day_start(period.last + timedelta(days=1 + grace_days), period.tz)


def day_of(now: int) -> date:
    """The day of a document that is made at `now` (Unix seconds)."""
    return local_day(now * 1000, "UTC")


def state_of(now: int, end_ms: int, grace_ms: int) -> str:
    """open | grace | draft, at `now` (Unix seconds)."""
    if now * 1000 < end_ms:
        return OPEN
    return GRACE if now * 1000 < grace_ms else DRAFT


# --- one ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """One draft, rated now. `end_ms` and `grace_ms`: when its period and its days of grace end."""

    license: License
    document: Invoice
    end_ms: int
    grace_ms: int

    @property
    def value(self) -> dict[str, Any]:
        """Its JSON."""
        return invoice.to_dict(self.document)

    @property
    def digest(self) -> str:
        """What an approval of it names."""
        return approvals.digest(self.value)

    def entry(self, now: int, approval: Approval | None) -> Entry:
        """As lists show it."""
        return _entry(self.license.license_id, self.license.customer.id, self.document.first, now,
                      approval, _kept(self))  # fmt: skip


def draft(connection: sa.Connection, license_id: str, month: date, now: int | None = None) -> Draft:
    """The draft of a license for the period that holds `month`, with estimates as of `now` (Unix seconds) or
    without; errors as :func:`billing.bill`."""
    license = billing.license_of(connection, license_id)
    plan, period = billing.plan_for(connection, license, month)
    document = billing.draft_of(connection, license, month, None if now is None else day_of(now))
    return Draft(license, document, period.end_ms, grace_end(period, plan.grace_days))


def issued_as(connection: sa.Connection, license_id: str, month: date) -> str | None:
    """The number of the invoice for a period, None before it is issued."""
    columns = db.invoices.c
    query = sa.select(columns.name).where(
        columns.license_id == license_id, columns.period == month.replace(day=1).isoformat(),
        columns.kind == "invoice",
    )  # fmt: skip
    return connection.execute(query).scalar()


def approve(
    database: db.Database, license_id: str, month: date, *, expect: str | None = None, early: bool = False,
    actor: Actor,
) -> Approval:  # fmt: skip
    """Approve what a license's period would print now, if that has the digest `expect` where one is given.

    Approved as it stands already, nothing changes. USAGE when it is issued, or while usage may still come
    unless `early`; CHANGED_MEANWHILE; errors as :func:`billing.bill`.
    """
    with database.write() as connection:
        if number := issued_as(connection, license_id, month):
            raise SealpackError("USAGE", f"{license_id} is invoiced for {month:%Y-%m}: {number}")
        found = draft(connection, license_id, month, actor.at)
        if expect not in (None, found.digest):
            raise approvals.changed(license_id, found.document.first)
        until = _waits_until(found, actor.at)
        if until and not early:
            raise SealpackError(
                "USAGE", f"usage of {license_id} for {month:%Y-%m} is waited for until {until}",
                remedy="wait, or approve it early (--early)",
            )  # fmt: skip
        known = approvals.load(connection, license_id, found.document.first)
        if known is not None and known.digest == found.digest:
            return known
        return approvals.put(connection, found.document, actor)


def approve_all(
    database: db.Database, month: date, *, customer: str | None = None, early: bool = False, actor: Actor
) -> tuple[list[Approval], dict[str, str]]:
    """:func:`approve` every draft of a month, of one customer or all.

    Returns the approvals, and for each that could not be approved the reason.
    """
    made, failed = [], {}
    for entry in list(everything(database, month, actor.at, customer)):
        if entry.state == FAULTY:
            failed[entry.license_id] = entry.problem
        elif entry.state != ISSUED:
            try:
                made.append(approve(database, entry.license_id, month, early=early, actor=actor))
            except SealpackError as error:
                if error.spec.exit == 1:
                    raise
                failed[entry.license_id] = error.message
    return made, failed


def _waits_until(found: Draft, now: int) -> date | None:
    """The last day of grace, while that is not over."""
    if state_of(now, found.end_ms, found.grace_ms) == DRAFT:
        return None
    return (datetime.fromtimestamp(found.grace_ms // 1000, UTC) - timedelta(seconds=1)).date()


# --- lists --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """Some of a month's licenses, by id. `next`: the last id when more follow. `unrated`: of these licenses
    what they come to is not known yet (:func:`refresh`)."""

    entries: list[Entry]
    next: str | None = None
    unrated: list[str] = field(default_factory=list)


def listed(
    connection: sa.Connection, month: date, now: int, *, customer: str | None = None, after: str = "",
    limit: int = 50,
) -> Listed:  # fmt: skip
    """So many licenses of a month after the id `after`, as far as they are rated."""
    first = month.replace(day=1)
    found = _names(connection, customer, after, limit + 1)
    names = dict(found[:limit])
    issued = _issued(connection, first, list(names))
    open_ids = [name for name in names if name not in issued]
    what = _what(first)
    kept = ratings.load(connection, what, ratings.bases(connection, open_ids, what, day_of(now)))
    approved = approvals.of_month(connection, first)
    entries, unrated = [], []
    for name, whose in names.items():
        if name in issued:
            number, data = issued[name]
            entries.append(
                Entry(name, whose, first, ISSUED, json.loads(data), "", approved.get(name), number)
            )
        elif name not in kept:
            unrated.append(name)
        elif kept[name]:
            entries.append(_entry(name, whose, first, now, approved.get(name), kept[name]))
    return Listed(entries, found[limit - 1][0] if len(found) > limit else None, unrated)


def refresh(
    database: db.Database, license_ids: Sequence[str], month: date, *, now: int | None = None,
    seconds: float | None = None,
) -> list[str]:  # fmt: skip
    """Rate these licenses for a month and keep what comes out, for lists; no more after so many seconds.

    With the estimates of documents made at `now` (Unix seconds), else of today.

    Returns the licenses that are left.
    """
    began, left = time.monotonic(), []
    what, values = _what(month), {}
    at = int(time.time()) if now is None else now
    with database.read() as connection:
        known = ratings.bases(connection, license_ids, what, day_of(at))
        for name in license_ids:
            if seconds is not None and time.monotonic() - began > seconds:
                left.append(name)
                continue
            try:
                values[name] = known[name], _kept(draft(connection, name, month, at))
            except SealpackError as error:
                if error.spec.exit == 1:
                    raise
                problem = {} if error.code in _NOT_RUNNING else {"problem": error.message}
                values[name] = known[name], problem
    ratings.keep(database, what, values)
    return left


def everything(database: db.Database, month: date, now: int, customer: str | None = None) -> Iterator[Entry]:
    """Every license's period of a month, rated where it is not yet."""
    after = ""
    while True:
        with database.read() as connection:
            page = listed(connection, month, now, customer=customer, after=after, limit=100)
        if page.unrated:
            refresh(database, page.unrated, month, now=now)
            with database.read() as connection:
                page = listed(connection, month, now, customer=customer, after=after, limit=100)
        yield from page.entries
        if page.next is None:
            return
        after = page.next


def _what(month: date) -> str:
    return f"draft:{month:%Y-%m}"


def _kept(found: Draft) -> dict[str, Any]:
    return {"draft": found.value, "end_ms": found.end_ms, "grace_ms": found.grace_ms}


def _entry(
    license_id: str, customer: str, period: date, now: int, approval: Approval | None, kept: dict[str, Any]
) -> Entry:
    if "problem" in kept:
        return Entry(license_id, customer, period, FAULTY, problem=kept["problem"], approval=approval)
    said = approvals.digest(kept["draft"])
    state = state_of(now, kept["end_ms"], kept["grace_ms"])
    if approval is not None and approval.digest == said:
        state = APPROVED
    return Entry(license_id, customer, period, state, kept["draft"], said, approval)


def _names(connection: sa.Connection, customer: str | None, after: str, limit: int) -> list[tuple[str, str]]:
    """(license, customer) of those that may be billed, by id: neither below another one nor without plan."""
    columns = db.licenses.c
    alone = columns.license_id.not_in(sa.select(db.sublicenses.c.license_id))
    where = [alone, columns.license_id > after]
    if customer is not None:
        where.append(columns.customer_id == customer)
    query = sa.select(columns.license_id, columns.customer_id).where(*where).order_by(columns.license_id)
    return [(row.license_id, row.customer_id) for row in connection.execute(query.limit(limit))]


def _issued(connection: sa.Connection, first: date, names: list[str]) -> dict[str, tuple[str, bytes]]:
    """License -> number and JSON of its invoice for a month."""
    columns = db.invoices.c
    query = sa.select(columns.license_id, columns.name, columns.json).where(
        columns.license_id.in_(names), columns.period == first.isoformat(), columns.kind == "invoice"
    )
    return {row.license_id: (row.name, row.json) for row in connection.execute(query)}
