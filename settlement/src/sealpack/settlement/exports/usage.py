"""Settled usage as a table: per day, customer, license, device, model and status.

Source: specs/exports.md, "Usage". It reads the roll-ups that invoices are made from, so its sums are theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.format.license import License
from sealpack.format.records import METER_ORDER, Record
from sealpack.settlement import billing, db, epochs, logs, registry
from sealpack.settlement.periods import local_day
from sealpack.settlement.plan import FIELDS, LOST
from sealpack.settlement.rollups import Rollup

CENTRE = "cost_centre"
KEYS = ("day", "customer", "license", "device", "model", "status", CENTRE, "billed")
PLAIN = tuple(name for name in KEYS if name != CENTRE)  # what roll-ups say
Key = tuple[str, ...]  # in the order of KEYS


@dataclass(frozen=True, slots=True)
class Report:
    """Rows of a usage report: values of the asked-for keys, then base units per field."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def report(
    connection: sa.Connection,
    first: date,
    last: date,
    *,
    by: Sequence[str] = PLAIN,
    customer: str | None = None,
) -> Report:
    """Usage from one day to another, both included, days in the zone of each license's plan.

    `by` are the keys to tell apart, of KEYS; what differs only in others is summed. Cost centres are not in
    roll-ups: for them the stored receipts of the days are read, each of which may name one. What no receipt
    shows, such as usage known from tallies alone, has none. STORE_CORRUPT.
    """
    days = first.isoformat(), last.isoformat()
    total: Counter[tuple[Key, str]] = Counter()
    query = sa.select(db.logs.c.license_id).distinct().order_by(db.logs.c.license_id)
    for license_id in connection.execute(query).scalars().all():
        license = registry.load_license(connection, license_id)
        if license is None or customer not in (None, license.customer.id):
            continue
        for key, meter, amount in _of_license(connection, license, days, CENTRE in by):
            if days[0] <= key[0] <= days[1]:
                kept = tuple(cell for name, cell in zip(KEYS, key, strict=True) if name in by)
                total[kept, meter] += amount
    keys = sorted({key for key, _ in total})
    rows = tuple((*key, *(str(total[key, meter]) for meter in FIELDS)) for key in keys)
    return Report((*(name for name in KEYS if name in by), *FIELDS), rows)


def _of_license(
    connection: sa.Connection, license: License, days: tuple[str, str], centres: bool
) -> Iterator[tuple[Key, str, int]]:
    """(key, field, base units) of everything settled under one license or sub-license.

    With `centres` what was used on these days is split by cost centre.
    """
    tz = _zone(connection, license)
    tests = set(billing.test_routes(connection, license.license_id))
    query = (
        sa.select(db.rollups, db.logs.c.device_id)
        .join(db.logs, db.logs.c.origin == db.rollups.c.origin)
        .where(db.logs.c.license_id == license.license_id)
    )
    rows = connection.execute(query).all()
    models = {origin: _models(connection, origin) for origin in {row.origin for row in rows}}
    billed = license.environment == "live"
    split = _Centres(connection)
    for row in rows:
        counts = billed and (row.origin, row.route) not in tests
        model = models[row.origin][row.route]
        key = _key(row.quarter_ms, tz, license, row.device_id, model, row.status, counts)
        used = [getattr(row, meter) for meter in METER_ORDER]
        asked = centres and days[0] <= key[0] <= days[1]
        for centre, amounts in split.of(row, used) if asked else [("", used)]:
            for meter, amount in zip(METER_ORDER, amounts, strict=True):
                if amount:
                    yield (*key[:-1], centre, key[-1]), meter, amount
    for said in epochs.of_license(connection, license.license_id):
        device, model = said.origin.split("/")[3], _model(connection, said.bundle_digest)
        key = _key(said.quarter_ms, tz, license, device, model, LOST, billed)
        yield (*key[:-1], "", key[-1]), said.meter, said.amount


class _Centres:
    """Rows of roll-ups by cost centre, from the receipts of their logs; each log is read once."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._known: dict[str, dict[str, Rollup]] = {}

    def of(self, row: Any, used: list[int]) -> list[tuple[str, list[int]]]:
        """What of a row each cost centre used, of METER_ORDER; what receipts do not show has no name.

        A row is left whole where receipts show more than it, because further statements moved some of it.
        """
        if row.origin not in self._known:
            self._known[row.origin] = logs.roll_up_by(self._connection, row.origin, _centre)
        cell = row.route, row.quarter_ms, row.status
        shown = {name: rolled[cell] for name, rolled in self._known[row.origin].items() if cell in rolled}
        named = {name: amounts for name, amounts in shown.items() if name}
        left = [all_of - sum(parts) for all_of, *parts in zip(used, *named.values(), strict=True)]
        return [("", used)] if min(left) < 0 else [*sorted(named.items()), ("", left)]


def _centre(record: Record) -> str:
    return str(record.body.get(CENTRE, ""))


def _key(
    quarter_ms: int, tz: str, license: License, device: str, model: str, status: str, billed: bool
) -> Key:
    day, told = local_day(quarter_ms, tz).isoformat(), "yes" if billed else "no"
    return day, license.customer.id, license.license_id, device, model, status, told


def _zone(connection: sa.Connection, license: License) -> str:
    plan = registry.load_plan(connection, license.plan) if license.plan else None
    return plan.tz if plan else "UTC"


def _models(connection: sa.Connection, origin: str) -> dict[str, str]:
    """The model of every route of a log."""
    log = logs.load(connection, origin)
    routes: dict[str, Any] = (log.state.routes or {}) if log else {}
    return {route: _model(connection, entry["bundle_digest"]) for route, entry in routes.items()}


def _model(connection: sa.Connection, digest: str) -> str:
    """A build as "id version", or its digest where its name is not known."""
    found = registry.load_bundle(connection, digest)
    return f"{found.bundle_id} {found.version}" if found else digest
