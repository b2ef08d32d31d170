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
from sealpack.format.values import METERS
from sealpack.settlement import billing, db, epochs, logs, registry
from sealpack.settlement.periods import local_day
from sealpack.settlement.plan import FIELDS, LOST

KEYS = ("day", "customer", "license", "device", "model", "status", "billed")
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
    by: Sequence[str] = KEYS,
    customer: str | None = None,
) -> Report:
    """Usage from one day to another, both included, days in the zone of each license's plan.

    `by` are the keys to tell apart, of KEYS; what differs only in others is summed.
    """
    total: Counter[tuple[Key, str]] = Counter()
    query = sa.select(db.logs.c.license_id).distinct().order_by(db.logs.c.license_id)
    for license_id in connection.execute(query).scalars().all():
        license = registry.load_license(connection, license_id)
        if license is None or customer not in (None, license.customer.id):
            continue
        for key, meter, amount in _of_license(connection, license):
            if first.isoformat() <= key[0] <= last.isoformat():
                kept = tuple(cell for name, cell in zip(KEYS, key, strict=True) if name in by)
                total[kept, meter] += amount
    keys = sorted({key for key, _ in total})
    rows = tuple((*key, *(str(total[key, meter]) for meter in FIELDS)) for key in keys)
    return Report((*(name for name in KEYS if name in by), *FIELDS), rows)


def _of_license(connection: sa.Connection, license: License) -> Iterator[tuple[Key, str, int]]:
    """(key, field, base units) of everything settled under one license or sub-license."""
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
    for row in rows:
        counts = billed and (row.origin, row.route) not in tests
        model = models[row.origin][row.route]
        key = _key(row.quarter_ms, tz, license, row.device_id, model, row.status, counts)
        for meter in METERS:
            if amount := getattr(row, meter):
                yield key, meter, amount
    for said in epochs.of_license(connection, license.license_id):
        device, model = said.origin.split("/")[3], _model(connection, said.bundle_digest)
        yield _key(said.quarter_ms, tz, license, device, model, LOST, billed), said.meter, said.amount


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
