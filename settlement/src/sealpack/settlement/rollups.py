"""Roll-ups: what was used in each quarter of an hour, per log and per license.

Source: specs/settlement-ingest.md, "Storage". Every meter is a column, so a row holds all that was counted of
one status. `rollups` says it of each route of each log; `license_usage` is its sum per license and number of
the license document, which is all that an invoice needs: once every quarter of an hour saw usage it does not
grow any more, however many devices and receipts there are. Both change in the transaction that moves a log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from sealpack.format import records
from sealpack.format.records import METER_ORDER, Record
from sealpack.format.runs import QUARTER_MS, Cell, Run
from sealpack.settlement import bulk, daily, tables

Rollup = dict[Cell, list[int]]  # amounts in METER_ORDER; none of a cell's is below 0, one is above
Usage = dict[tuple[int, int, str], list[int]]  # (quarter hour UTC ms, seq of the license, status) -> amounts
Routes = Mapping[str, Mapping[str, Any]]  # the route table of a log

_NOTHING = [0] * len(METER_ORDER)
_HOUR_MS = 3_600_000
_EARLIEST_MS, _LATEST_MS = 14 * _HOUR_MS, 12 * _HOUR_MS  # a day begins so long before and after UTC's


def add(rollup: Rollup, cell: Cell, amounts: list[int]) -> None:
    """Count amounts, at least one of them not 0, in a cell."""
    rollup[cell] = [a + b for a, b in zip(rollup.get(cell, _NOTHING), amounts, strict=True)]


def roll(record: Record, rollup: Rollup, floor_ms: int, latest_ms: int | None = None) -> None:
    """Count a record's meters into its quarter hour, not before `floor_ms` and not after `latest_ms`."""
    if record.kind == records.USAGE:
        status = record.body["status"]
    elif record.kind == records.LOST:
        status = records.LOST_STATUS
    else:
        return
    time_ms = max(record.time_ms, floor_ms)
    if latest_ms is not None:
        time_ms = min(time_ms, latest_ms)
    if meters := record.body["meters"]:
        cell = record.body["route"], time_ms - time_ms % QUARTER_MS, status
        add(rollup, cell, [meters.get(meter, 0) for meter in METER_ORDER])


def roll_run(run: Run, rollup: Rollup, floor_ms: int) -> None:
    """:func:`roll` of every record of a run."""
    floor_quarter = floor_ms - floor_ms % QUARTER_MS
    for (route, quarter, status), amounts in run.amounts.items():
        if any(amounts):
            add(rollup, (route, max(quarter, floor_quarter), status), amounts)


def not_after(rollup: Rollup, time_ms: int) -> Rollup:
    """The same amounts, what is dated after a time moved to its quarter."""
    last, moved = time_ms - time_ms % QUARTER_MS, Rollup()
    for (route, quarter, status), amounts in rollup.items():
        add(moved, (route, min(quarter, last), status), amounts)
    return moved


def stored(
    connection: sa.Connection, origin: str, start_ms: int | None = None, end_ms: int | None = None
) -> Rollup:
    """The roll-up of a log as it stands in its table, of all times or of those in [start, end)."""
    columns = tables.rollups.c
    query = sa.select(tables.rollups).where(columns.origin == origin)
    if start_ms is not None:
        query = query.where(columns.quarter_ms >= start_ms)
    if end_ms is not None:
        query = query.where(columns.quarter_ms < end_ms)
    rows = connection.execute(query)
    return {(route, quarter, status): amounts for _, route, quarter, status, *amounts in rows}


def store(
    connection: sa.Connection, origin: str, license_id: str, routes: Routes, new: Rollup, held: Rollup | None
) -> None:
    """Count what is `new` of a log; `held`, where given, takes the place of all that was there before.

    Comes last in its transaction: other logs of the license wait from here on.
    """
    change = by_number(new, routes)
    if held is not None:
        _join(change, by_number(held, routes), 1)
        _join(change, by_number(stored(connection, origin), routes), -1)
        connection.execute(sa.delete(tables.rollups).where(tables.rollups.c.origin == origin))
        put(connection, origin, held)
        daily.clear(connection, origin)
        daily.put(connection, origin, routes, held)
    put(connection, origin, new)
    daily.put(connection, origin, routes, new)
    put_usage(connection, license_id, change)
    if held is not None:
        nothing = [tables.license_usage.c[meter] == 0 for meter in METER_ORDER]
        mine = tables.license_usage.c.license_id == license_id
        connection.execute(sa.delete(tables.license_usage).where(mine, *nothing))


def put(connection: sa.Connection, origin: str, rollup: Rollup) -> None:
    """Add to the stored roll-up of a log."""
    bulk.add(connection, tables.rollups, [(origin, *cell, *rollup[cell]) for cell in sorted(rollup)])


def put_usage(connection: sa.Connection, license_id: str, usage: Usage) -> None:
    """Add to the stored usage of a license; always in the same order, so that no two wait for each other."""
    rows = [(license_id, *key, *usage[key]) for key in sorted(usage) if any(usage[key])]
    bulk.add(connection, tables.license_usage, rows)


def joined(one: Rollup, other: Rollup) -> Rollup:
    """Both together."""
    both = dict(one)
    for cell, amounts in other.items():
        add(both, cell, amounts)
    return both


def without(rollup: Rollup, part: Rollup) -> Rollup:
    """A roll-up less a part of it."""
    left = dict(rollup)
    for cell, amounts in part.items():
        left[cell] = [a - b for a, b in zip(left[cell], amounts, strict=True)]
    return {cell: amounts for cell, amounts in left.items() if any(amounts)}


def routes(connection: sa.Connection, origin: str, known: Routes) -> dict[str, Any]:
    """The route table of a log, with what statements beyond its receipts say of it."""
    said = tables.stated.c
    found: dict[str, Any] = {}
    for text in connection.execute(sa.select(said.routes).where(said.origin == origin)).scalars():
        found |= {
            route: entry
            for route, entry in json.loads(text).items()
            if len(entry) > len(found.get(route, ()))
        }
    return found | dict(known)


def by_number(rollup: Rollup, routes: Routes) -> Usage:
    """A log's roll-up by the number of the license document that its routes name."""
    usage: Usage = {}
    for (route, quarter, status), amounts in rollup.items():
        key = quarter, routes[route]["seq"], status
        usage[key] = [a + b for a, b in zip(usage.get(key, _NOTHING), amounts, strict=True)]
    return usage


def _join(usage: Usage, more: Usage, sign: int) -> None:
    for key, amounts in more.items():
        usage[key] = [a + sign * b for a, b in zip(usage.get(key, _NOTHING), amounts, strict=True)]


def usage_of(connection: sa.Connection, license_id: str) -> Usage:
    """The usage of a license as it stands in its table."""
    rows = connection.execute(
        sa.select(tables.license_usage).where(tables.license_usage.c.license_id == license_id)
    )
    return {(quarter, seq, status): amounts for _, quarter, seq, status, *amounts in rows}


def usage_by_month(connection: sa.Connection, license_id: str) -> Usage:
    """:func:`usage_of`, but for the quarters that lie in one month in every time zone: these are summed.

    Their sum stands under the first of them. The database adds them up, many times faster than they are read:
    every invoice rates all that a license ever used.
    """
    columns = tables.license_usage.c
    mine = columns.license_id == license_id
    first, last = connection.execute(
        sa.select(sa.func.min(columns.quarter_ms), sa.func.max(columns.quarter_ms)).where(mine)
    ).one()
    usage: Usage = {}
    if first is None:
        return usage
    month = datetime.fromtimestamp(first // 1000, UTC).date().replace(day=1)
    while (start := _utc_ms(month) - _EARLIEST_MS) <= last:
        month = (month + timedelta(days=32)).replace(day=1)
        inside, end = start + _EARLIEST_MS + _LATEST_MS, _utc_ms(month) - _EARLIEST_MS
        for at, until, quarter in ((start, inside, columns.quarter_ms), (inside, end, sa.literal(inside))):
            rows = connection.execute(
                sa.select(
                    quarter, columns.seq, columns.status, *(sa.func.sum(columns[m]) for m in METER_ORDER)
                )
                .where(mine, columns.quarter_ms >= at, columns.quarter_ms < until)
                .group_by(quarter, columns.seq, columns.status)
            )
            for found, seq, status, *amounts in rows:
                usage[found, seq, status] = [int(amount) for amount in amounts]  # PostgreSQL's are decimals
    return usage


def _utc_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def summed(connection: sa.Connection, license_id: str) -> Usage:
    """What the table should say of a license: the sum of the roll-ups of its logs."""
    usage: Usage = {}
    mine = sa.select(tables.logs.c.origin, tables.logs.c.state).where(tables.logs.c.license_id == license_id)
    for log in connection.execute(mine).all():
        table = routes(connection, log.origin, json.loads(log.state)["routes"])
        _join(usage, by_number(stored(connection, log.origin), table), 1)
    return usage
