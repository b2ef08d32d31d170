"""What was used on each day, per machine and build: small enough for a chart over a whole fleet.

Source: specs/settlement-ingest.md, "Storage". The same amounts as the roll-ups, summed over local days of the
zone of the price plan that the license named when they came. Charts read this; invoices never do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from sealpack.format.records import METER_ORDER
from sealpack.format.runs import Cell
from sealpack.settlement import bulk, registry, tables
from sealpack.settlement.periods import local_day

Routes = Mapping[str, Mapping[str, Any]]
_NOTHING = [0] * len(METER_ORDER)


def put(connection: sa.Connection, origin: str, routes: Routes, rollup: Mapping[Cell, Sequence[int]]) -> None:
    """Add what was used in a log to its days."""
    _, _, license_id, device_id, epoch = origin.split("/")
    tz = zone(connection, license_id)
    found: dict[tuple[str, str, int, str], list[int]] = {}
    for (route, quarter_ms, status), amounts in rollup.items():
        said = routes[route]
        key = _day(quarter_ms, tz), said.get("bundle_digest", ""), said["seq"], status
        found[key] = [a + b for a, b in zip(found.get(key, _NOTHING), amounts, strict=True)]
    rows = [
        (day, license_id, device_id, int(epoch), build, seq, status, *found[day, build, seq, status])
        for day, build, seq, status in sorted(found)
    ]
    bulk.add(connection, tables.daily, rows)


def clear(connection: sa.Connection, origin: str) -> None:
    """Forget the days of a log."""
    _, _, license_id, device_id, epoch = origin.split("/")
    columns = tables.daily.c
    mine = columns.license_id == license_id, columns.device_id == device_id, columns.epoch == int(epoch)
    connection.execute(sa.delete(tables.daily).where(*mine))


def sums(connection: sa.Connection, origin: str) -> dict[str, list[int]]:
    """What the days of a log come to, per status."""
    _, _, license_id, device_id, epoch = origin.split("/")
    columns = tables.daily.c
    rows = connection.execute(
        sa.select(columns.status, *(sa.func.sum(columns[meter]) for meter in METER_ORDER))
        .where(columns.license_id == license_id, columns.device_id == device_id, columns.epoch == int(epoch))
        .group_by(columns.status)
    )
    return {status: [int(amount) for amount in amounts] for status, *amounts in rows}


def zone(connection: sa.Connection, license_id: str) -> str:
    """The zone of the price plan that a license names now; UTC where it names none that is known."""
    license = registry.load_license(connection, license_id)
    if license is None or license.plan is None:
        return "UTC"
    columns = tables.plans.c
    document = connection.execute(
        sa.select(columns.document).where(
            columns.id == license.plan.id, columns.version == license.plan.version
        )
    ).scalar()
    tz: str = "UTC" if document is None else json.loads(document)["plan"].get("tz", "UTC")
    return tz


@lru_cache(maxsize=1 << 16)
def _day(quarter_ms: int, tz: str) -> str:
    """The local day of a quarter of an hour; machines of a fleet work in the same ones."""
    return local_day(quarter_ms, tz).isoformat()
