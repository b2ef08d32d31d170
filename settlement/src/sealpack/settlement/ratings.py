"""What was rated for lists, kept until something it was rated from changes.

Source: specs/settlement-ledger.md, "Before issue". To rate a license is to read all its roll-ups; a list of a
thousand licenses does not do that each time it is shown. Nothing is issued from here: issuing rates anew. The
table may be emptied at any time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db
from sealpack.settlement.periods import Period
from sealpack.settlement.plan import Plan

LATE = "late"  # what invoiced periods rate to beyond, or below, their documents
_PIECE = 500  # ids in one question


def bases(
    connection: sa.Connection, license_ids: Sequence[str], what: str, day: date | None = None
) -> dict[str, str]:
    """Per license the digest of all that its money depends on: documents, plans, logs, customer, seller.

    A log's size and root, and the files that speak of it beyond its receipts, stand for its roll-ups, which
    change with them only. `day`: of documents that are made now; it counts where a plan estimates.
    """
    found: dict[str, str] = {}
    for start in range(0, len(license_ids), _PIECE):
        ids = license_ids[start : start + _PIECE]
        facts: dict[str, list[str]] = defaultdict(list)
        for name, fact in _facts(connection, ids, what, day):
            facts[name].append(fact)
        found |= {name: audit.sha256(canonical.dumps(sorted(facts[name]))) for name in ids}
    return found


def _facts(
    connection: sa.Connection, ids: Sequence[str], what: str, day: date | None
) -> Iterator[tuple[str, str]]:
    """(license, fact) in any order; what is under a sub-license concerns the license above it."""
    guessed = _estimated(connection, day)
    common = _common(connection, guessed)
    yield from ((name, common) for name in ids)
    below = db.sublicenses.c
    links = connection.execute(
        sa.select(below.license_id, below.parent_id).where(below.parent_id.in_(ids))
    ).all()
    whose = {name: name for name in ids} | {row.license_id: row.parent_id for row in links}
    versions, activations, logs, stated = db.license_versions.c, db.activations.c, db.logs.c, db.stated.c
    every = list(whose)
    gone = db.deactivations.c
    of_devices = (
        sa.select(activations.license_id, activations.device_id, activations.first_at),
        sa.select(gone.license_id, gone.origin),
    )
    for query in (
        *(of_devices if guessed else ()),
        sa.select(versions.license_id, versions.digest),
        sa.select(activations.license_id, sa.func.min(activations.first_at)).group_by(activations.license_id),
        sa.select(logs.license_id, logs.origin, logs.size, logs.root),
        sa.select(logs.license_id, stated.sha256).join(db.stated, stated.origin == logs.origin),
    ):
        for name, *fact in connection.execute(query.where(query.selected_columns[0].in_(every))):
            yield whose[name], " ".join(map(str, fact))
    yield from _about_issue(connection, ids, what)


def _about_issue(connection: sa.Connection, ids: Sequence[str], what: str) -> Iterator[tuple[str, str]]:
    """Who is billed; and what was issued, where that is compared."""
    licenses, customers, invoices = db.licenses.c, db.customers.c, db.invoices.c
    query = sa.select(licenses.license_id, customers.document).join(
        db.customers, customers.id == licenses.customer_id
    )
    for row in connection.execute(query.where(licenses.license_id.in_(ids))):
        yield row.license_id, row.document.decode()
    if what == LATE:
        issued = sa.select(invoices.license_id, invoices.name).where(invoices.license_id.in_(ids))
        yield from ((row.license_id, row.name) for row in connection.execute(issued))


def _common(connection: sa.Connection, guessed: Sequence[str]) -> str:
    """What every license depends on: the program, the plans, up to where these estimate, the sellers."""
    plans = connection.execute(sa.select(db.plans.c.id, db.plans.c.version, db.plans.c.digest))
    sellers = connection.execute(sa.select(db.sellers.c.document)).scalars()
    said = [
        version("sealpack"),
        *sorted(" ".join(map(str, row)) for row in plans),
        *sorted(document.decode() for document in sellers),
        *guessed,
    ]
    return audit.sha256(canonical.dumps(said))


def _estimated(connection: sa.Connection, day: date | None) -> list[str]:
    """The newest month that documents of a day estimate, of each plan that does."""
    columns, found = db.plans.c, []
    if day is None:
        return []
    for row in connection.execute(sa.select(columns.digest, columns.document)):
        if b'"estimate"' in row.document:
            plan = _plan(row.document)
            month = Period.containing(day - timedelta(days=plan.grace_days), plan.tz)
            found.append(f"{row.digest} {month.first}")  # estimates are of the months before
    return sorted(found)


@lru_cache(maxsize=256)
def _plan(document: bytes) -> Plan:
    return Plan.from_json(document)


def load(connection: sa.Connection, what: str, wanted: Mapping[str, str]) -> dict[str, Any]:
    """What is kept of licenses whose basis is still the one that is `wanted`: license -> value."""
    columns = db.rated.c
    found: dict[str, Any] = {}
    names = list(wanted)
    for start in range(0, len(names), _PIECE):
        query = sa.select(columns.license_id, columns.basis, columns.value).where(
            columns.what == what, columns.license_id.in_(names[start : start + _PIECE])
        )
        for row in connection.execute(query):
            if row.basis == wanted[row.license_id]:
                found[row.license_id] = json.loads(row.value)
    return found


def keep(database: db.Database, what: str, values: Mapping[str, tuple[str, Any]]) -> None:
    """Store what was rated, license -> (basis, value); a database nobody can write keeps nothing."""
    if not values:
        return
    rows = [
        {"license_id": name, "what": what, "basis": basis, "value": canonical.dumps(value)}
        for name, (basis, value) in values.items()
    ]
    try:
        with database.write("rated") as connection:
            statement = db.put(connection, db.rated)
            new = {"basis": statement.excluded.basis, "value": statement.excluded.value}
            keys = ["license_id", "what"]
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=new), rows)
    except SealpackError as error:
        if error.code not in ("STORE_READONLY", "STORE_FULL"):
            raise
