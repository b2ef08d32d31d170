"""One search over everything that has a name, a number or a digest.

Source: specs/console.md, "Search". What is called exactly so comes first, then what begins so, then what has
it somewhere; capital letters make no difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.settlement import db
from sealpack.settlement.overview import customers

KINDS = ("customer", "license", "machine", "document", "plan", "file", "log")  # in this order where equal
MAX_HITS = 20  # of a kind
MAX_TEXT = 200
_DIGITS = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that was found: `key` finds it again, `rank` is 0 for an exact hit, 1 and 2 after it."""

    kind: str
    key: tuple[str, ...]
    title: str
    detail: str
    rank: int


def search(connection: sa.Connection, text: str) -> list[Hit]:
    """What fits a text, the best first, at most :data:`MAX_HITS` of a kind; nothing for an empty one."""
    wanted = " ".join(text.split())[:MAX_TEXT].casefold()
    if not wanted:
        return []
    found: list[Hit] = []
    for look in (_customers, _licenses, _machines, _documents, _plans, _files, _logs):
        some = sorted(look(connection, wanted), key=lambda hit: (hit.rank, hit.title))
        found += some[:MAX_HITS]
    return sorted(found, key=lambda hit: (hit.rank, KINDS.index(hit.kind), hit.title.casefold()))


def _rank(wanted: str, *names: str) -> int | None:
    """How well the best of some names fits; None when none does."""
    plain = [name.casefold() for name in names if name]
    if wanted in plain:
        return 0
    if any(name.startswith(wanted) for name in plain):
        return 1
    return 2 if any(wanted in name for name in plain) else None


def _like(column: sa.ColumnElement[str], wanted: str) -> sa.ColumnElement[bool]:
    return column.icontains(wanted, autoescape=True)


def _customers(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    for row in customers.listed(connection):
        said = row.record
        more = (said.tax_id, said.email, said.purchase_order) if said else ()
        if (rank := _rank(wanted, row.id, row.name, *more)) is not None:
            place = ", ".join(said.address) if said else "known from a license only"
            yield Hit("customer", (row.id,), row.name, place, rank)


def _licenses(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    columns = db.licenses.c
    query = sa.select(columns.license_id, columns.customer_id, columns.digest)
    for row in connection.execute(query.order_by(columns.license_id)):
        digest = row.digest if _DIGITS.fullmatch(wanted) else ""
        if (rank := _rank(wanted, row.license_id, digest)) is not None:
            yield Hit("license", (row.license_id,), row.license_id, f"for {row.customer_id}", rank)


def _machines(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    columns = db.activations.c
    query = sa.select(columns.license_id, columns.device_id, columns.device_label)
    for row in connection.execute(query.order_by(columns.license_id, columns.device_id)):
        if (rank := _rank(wanted, row.device_label, row.device_id)) is not None:
            key = row.license_id, row.device_id
            title = row.device_label or row.device_id
            yield Hit("machine", key, title, f"{row.device_id} under license {row.license_id}", rank)


def _documents(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    columns = db.invoices.c
    query = (
        sa.select(columns.name, columns.kind, columns.customer_id, columns.issued)
        .where(_like(columns.name, wanted))
        .order_by(columns.issued.desc(), columns.name)
        .limit(MAX_HITS)
    )
    for row in connection.execute(query):
        rank = _rank(wanted, row.name)
        what = "Credit note" if row.kind == "credit" else "Invoice"
        if rank is not None:
            yield Hit("document", (row.name,), row.name, f"{what} for {row.customer_id}, {row.issued}", rank)


def _plans(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    columns = db.plans.c
    for row in connection.execute(sa.select(columns.id, columns.version, columns.document)):
        title = f"{row.id} version {row.version}"
        if (rank := _rank(wanted, row.id, f"{row.id} {row.version}", title)) is not None:
            currency = json.loads(row.document)["plan"]["currency"]
            yield Hit("plan", (row.id, str(row.version)), title, f"Price plan in {currency}", rank)


def _files(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    columns = db.files.c
    fits = _like(columns.name, wanted)
    if _DIGITS.fullmatch(wanted):  # a range, for which the key serves
        fits = fits | ((columns.sha256 >= wanted) & (columns.sha256 < f"{wanted}g"))
    query = (
        sa.select(columns.sha256, columns.name, columns.code, columns.detail)
        .where(fits)
        .order_by(columns.received_at.desc(), columns.sha256)
        .limit(MAX_HITS)
    )
    for row in connection.execute(query):
        rank = _rank(wanted, row.name, row.sha256)
        detail = f"{row.code or 'not decided yet'} {row.detail or ''}".strip()
        yield Hit("file", (row.sha256,), row.name, detail, 2 if rank is None else rank)


def _logs(connection: sa.Connection, wanted: str) -> Iterator[Hit]:
    """Logs by their origins, which hold the names of licenses and machines: only for what looks like one."""
    if "/" not in wanted:
        return
    columns = db.logs.c
    query = sa.select(columns.origin, columns.license_id, columns.device_id, columns.size)
    for row in connection.execute(query.where(_like(columns.origin, wanted)).limit(MAX_HITS)):
        rank = _rank(wanted, row.origin)
        if rank is not None:
            key = row.license_id, row.device_id
            yield Hit("log", key, row.origin, f"{row.size:,} receipts", rank)
