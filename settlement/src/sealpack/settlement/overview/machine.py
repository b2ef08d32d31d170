"""Everything about one machine: its logs, files and cases, and how much of its limits is used.

Source: specs/console.md, "Register".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format.values import METERS
from sealpack.settlement import db, epochs, leases, registry
from sealpack.settlement.overview import devices
from sealpack.settlement.overview.devices import Row

MOST_FILES = 50


@dataclass(frozen=True, slots=True)
class Log:
    """One log as it is held here; `replies` were given for it."""

    origin: str
    epoch: int
    size: int
    root: str
    last_at: int
    frozen: bool
    ended: bool
    replies: int


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a meter was used in all, and the most that any lease allowed so far."""

    meter: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class File:
    """A file that came from the machine."""

    sha256: str
    name: str
    received_at: int
    code: str | None
    detail: str
    accepted: int


@dataclass(frozen=True, slots=True)
class Case:
    """A case about one of its logs; `number` is absent until somebody looks at the list of cases."""

    number: int | None
    code: str
    detail: str
    opened_at: int
    closed_at: int | None


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine under one license."""

    row: Row
    logs: tuple[Log, ...]
    used: dict[str, int]  # meter -> amount in all, what logs carry over included
    limits: tuple[Limit, ...]
    files: tuple[File, ...]
    more_files: bool
    cases: tuple[Case, ...]


def load(connection: sa.Connection, license_id: str, device_id: str, now: int) -> Machine:
    """The machine with all its logs; NOT_FOUND."""
    row = devices.find(connection, license_id, device_id, now)
    held = _logs(connection, license_id, device_id)
    origins = [log.origin for log in held]
    totals = epochs.totals(epochs.family(connection, license_id, device_id))
    used = {meter: totals[meter] for meter in METERS if totals[meter]}
    files = _files(connection, origins)
    return Machine(
        row, tuple(held), used, tuple(_limits(connection, license_id, origins, used)),
        tuple(files[:MOST_FILES]), len(files) > MOST_FILES, tuple(_cases(connection, origins)),
    )  # fmt: skip


def _logs(connection: sa.Connection, license_id: str, device_id: str) -> list[Log]:
    columns, said = db.logs.c, db.acks.c
    rows = connection.execute(
        sa.select(columns.origin, columns.epoch, columns.size, columns.root, columns.last_ms, columns.frozen)
        .where(columns.license_id == license_id, columns.device_id == device_id)
        .order_by(columns.epoch.desc())
    ).all()
    mine = [row.origin for row in rows]
    counts = sa.select(said.origin, sa.func.count()).where(said.origin.in_(mine)).group_by(said.origin)
    replies: dict[str, int] = {origin: count for origin, count in connection.execute(counts)}
    ended = devices.ended_logs(connection, mine)
    return [
        Log(r.origin, r.epoch, r.size, r.root, r.last_ms // 1000, bool(r.frozen), r.origin in ended,
            replies.get(r.origin, 0))
        for r in rows
    ]  # fmt: skip


def _limits(
    connection: sa.Connection, license_id: str, origins: list[str], used: dict[str, int]
) -> list[Limit]:
    license = registry.load_license(connection, license_id)
    if license is None:
        return []
    most = leases.ceilings(connection, license, origins)
    return [Limit(meter, used.get(meter, 0), most[meter]) for meter in METERS if meter in most]


def _files(connection: sa.Connection, origins: Sequence[str]) -> list[File]:
    """The newest files, one more than are shown."""
    columns = db.files.c
    rows = connection.execute(
        sa.select(
            columns.sha256, columns.name, columns.received_at, columns.code, columns.detail, columns.accepted
        )
        .where(columns.origin.in_(origins))
        .order_by(columns.received_at.desc(), columns.sha256)
        .limit(MOST_FILES + 1)
    )
    return [File(r.sha256, r.name, r.received_at, r.code, r.detail or "", r.accepted or 0) for r in rows]


def _cases(connection: sa.Connection, origins: Sequence[str]) -> list[Case]:
    columns, said = db.cases.c, db.decisions.c
    rows = connection.execute(
        sa.select(said.number, columns.code, columns.detail, columns.opened_at, columns.closed_at)
        .outerjoin_from(db.cases, db.decisions, (said.code == columns.code) & (said.sha256 == columns.sha256))
        .where(columns.origin.in_(origins))
        .order_by(columns.closed_at.is_not(None), columns.opened_at.desc(), columns.code)
    )
    return [Case(*row) for row in rows]
