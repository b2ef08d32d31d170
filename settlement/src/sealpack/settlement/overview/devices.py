"""Machines as finance watches them: who sent usage when, who should have, and who fell silent.

Source: specs/console.md, "Register".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.settlement import db, logs, registry
from sealpack.settlement.overview import licenses
from sealpack.settlement.reconcile import SILENT_S

STATES = ("frozen", "overdue", "silent", "waiting", "reporting", "closed", "revoked")  # in the list's order
Key = tuple[str, str]  # license id, device id
_LATE = ("overdue", "silent")
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Row:
    """An activated machine under a license. Times are Unix seconds.

    `used_at` is when it worked last as far as its receipts tell, `received_at` when the file came that
    brought the newest of them, `due_at` when it should have sent the next one.
    """

    license_id: str
    device_id: str
    label: str
    customer: str
    first_at: int
    issued_at: int
    state: str = "waiting"
    used_at: int | None = None
    received_at: int | None = None
    due_at: int | None = None
    receipts: int = 0
    logs: int = 0
    cases: int = 0  # open ones
    origin: str = ""  # of its newest log

    @property
    def key(self) -> tuple[int, int, str, str]:
        """What needs somebody comes first, the longest unheard of it at the top."""
        heard = self.received_at or self.first_at
        return STATES.index(self.state), heard, self.license_id, self.device_id


@dataclass(frozen=True, slots=True)
class _Log:
    """The newest log of a device, and all of them in sum."""

    origin: str
    epoch: int
    frozen: bool
    last_ms: int
    size: int
    count: int


def listed(
    connection: sa.Connection, now: int, *, license_id: str | None = None, customer: str | None = None
) -> list[Row]:
    """Every machine, or those of a license or customer, in the order of :attr:`Row.key`."""
    columns, owner = db.activations.c, db.licenses.c
    query = sa.select(
        columns.license_id, columns.device_id, columns.device_label, columns.first_at, columns.issued_at,
        owner.customer_id,
    ).join(db.licenses, owner.license_id == columns.license_id)  # fmt: skip
    if license_id is not None:
        query = query.where(columns.license_id == license_id)
    if customer is not None:
        query = query.where(owner.customer_id == customer)
    found = [
        Row(r.license_id, r.device_id, r.device_label, r.customer_id, r.first_at, r.issued_at)
        for r in connection.execute(query)
    ]
    only = None if license_id is None and customer is None else {row.license_id for row in found}
    return sorted(_with_state(connection, found, now, only), key=lambda row: row.key)


def find(connection: sa.Connection, license_id: str, device_id: str, now: int) -> Row:
    """One machine; NOT_FOUND."""
    for row in listed(connection, now, license_id=license_id):
        if row.device_id == device_id:
            return row
    raise SealpackError("NOT_FOUND", f"there is no machine {device_id} under license {license_id}")


def _with_state(connection: sa.Connection, rows: list[Row], now: int, only: set[str] | None) -> list[Row]:
    newest = _logs(connection, only)
    received = _received(connection, [log.origin for log in newest.values()] if only is not None else None)
    open_cases = _open_cases(connection)
    proofs = {
        (r.license_id, r.device_id): r.epoch
        for r in connection.execute(
            sa.select(db.deactivations.c.license_id, db.deactivations.c.device_id,
                      sa.func.max(db.deactivations.c.epoch).label("epoch"))
            .group_by(db.deactivations.c.license_id, db.deactivations.c.device_id)
        )
    }  # fmt: skip
    revoked = _revoked(connection)
    terms = licenses.every(connection) if only is None else _some(connection, only)
    told = []
    for row in rows:
        key = row.license_id, row.device_id
        log = newest.get(key)
        came = received.get(log.origin) if log else None
        one = replace(
            row, received_at=came, due_at=_due(terms.get(row.license_id), came or row.first_at),
            cases=open_cases.get("/".join(key), 0), origin=log.origin if log else "",
        )  # fmt: skip
        if log is not None:
            one = replace(one, used_at=log.last_ms // 1000, receipts=log.size, logs=log.count)
        closed = proofs.get(key, -1) >= (log.epoch if log else 0)
        frozen = log is not None and log.frozen
        told.append(replace(one, state=_state(one, now, row.device_id in revoked, frozen, closed)))
    over = ended_logs(connection, [row.origin for row in told if row.origin and row.state in _LATE])
    return [replace(row, state="closed") if row.origin in over else row for row in told]


def _state(row: Row, now: int, revoked: bool, frozen: bool, closed: bool) -> str:
    if revoked:
        return "revoked"
    if frozen or closed:
        return "frozen" if frozen else "closed"
    if row.due_at is not None and now > row.due_at:
        return "overdue"
    if now - max(row.used_at or 0, row.first_at) > SILENT_S:
        return "silent"
    return "reporting" if row.origin else "waiting"


def _due(license: License | None, since: int) -> int | None:
    """When usage must be settled again; None where the license sets no such time."""
    age = license.lease.max_age_s if license is not None else None
    return None if age is None else since + age


def ended_logs(connection: sa.Connection, origins: list[str]) -> set[str]:
    """Those of these logs whose last record ended them."""
    columns, found = db.logs.c, set()
    for start in range(0, len(origins), _AT_ONCE):
        some = columns.origin.in_(origins[start : start + _AT_ONCE])
        for origin, state in connection.execute(sa.select(columns.origin, columns.state).where(some)):
            if logs.read_state(origin, state).closed:
                found.add(origin)
    return found


def _logs(connection: sa.Connection, only: set[str] | None) -> dict[Key, _Log]:
    columns = db.logs.c
    query = sa.select(
        columns.license_id, columns.device_id, columns.origin, columns.epoch, columns.size, columns.last_ms,
        columns.frozen,
    ).order_by(columns.epoch)  # fmt: skip
    if only is not None:
        query = query.where(columns.license_id.in_(only))
    found: dict[Key, _Log] = {}
    for r in connection.execute(query):
        key = r.license_id, r.device_id
        before = found.get(key)
        size, count = (before.size, before.count) if before else (0, 0)
        last_ms = max(r.last_ms, before.last_ms if before else 0)
        found[key] = _Log(r.origin, r.epoch, bool(r.frozen), last_ms, size + r.size, count + 1)
    return found


def _received(connection: sa.Connection, origins: list[str] | None) -> dict[str, int]:
    """When the file came that brought a log's newest receipts, by origin."""
    segment, file = db.segments.c, db.files.c
    newest = sa.select(segment.origin, sa.func.max(segment.first).label("first")).group_by(segment.origin)
    if origins is not None:
        newest = newest.where(segment.origin.in_(origins))
    ends = newest.subquery()
    rows = connection.execute(
        sa.select(segment.origin, file.received_at)
        .join(ends, (ends.c.origin == segment.origin) & (ends.c.first == segment.first))
        .join(db.files, file.sha256 == segment.sha256)
    )
    return {row.origin: row.received_at for row in rows}


def _open_cases(connection: sa.Connection) -> dict[str, int]:
    """Open cases per machine, by `license/device` as it stands in an origin."""
    columns = db.cases.c
    rows = connection.execute(
        sa.select(columns.origin, sa.func.count()).where(columns.closed_at.is_(None)).group_by(columns.origin)
    )
    found: dict[str, int] = {}
    for origin, count in rows:
        parts = origin.split("/")
        if len(parts) == 5:
            name = f"{parts[2]}/{parts[3]}"
            found[name] = found.get(name, 0) + count
    return found


def _revoked(connection: sa.Connection) -> frozenset[str]:
    try:
        return frozenset(registry.load_trust(connection).revocations.devices)
    except SealpackError as error:
        if error.code != "TRUST_UNPINNED":
            raise
        return frozenset()


def _some(connection: sa.Connection, names: set[str]) -> dict[str, License]:
    found = {name: registry.load_license(connection, name) for name in names}
    return {name: one for name, one in found.items() if one is not None}
