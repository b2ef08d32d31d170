"""What was used: by day or month, customer, license, machine and model.

Source: specs/console.md, "Usage". Sums of the table `daily`, and what later logs carry over of earlier ones
(:mod:`sealpack.settlement.epochs`); days are local ones of the price plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date

import sqlalchemy as sa

from sealpack.format.records import METER_ORDER
from sealpack.settlement import db, epochs, registry
from sealpack.settlement.daily import zone
from sealpack.settlement.overview import customers
from sealpack.settlement.periods import local_day
from sealpack.settlement.plan import LOST

KEYS = ("day", "month", "customer", "license", "machine", "model", "status")
_COLUMNS = {
    "day": "day",
    "license": "license_id",
    "machine": "device_id",
    "model": "build",
    "status": "status",
}

Key = tuple[str, ...]
Amounts = dict[str, int]  # meter -> base units


@dataclass(frozen=True, slots=True)
class Choice:
    """Which usage: days from `first` to `last`, both included, of a customer or license or of all.

    Without `tests` that of test licenses is left out: it is never billed.
    """

    first: date
    last: date
    customer: str = ""
    license_id: str = ""
    tests: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """How keys are shown: names of customers, labels of machines, names of builds."""

    customers: dict[str, str] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def of(self, kind: str, key: str) -> str:
        """The name of a key of that kind."""
        known = {"customer": self.customers, "machine": self.machines, "model": self.models}.get(kind, {})
        return known.get(key) or key or "not named"


def totals(connection: sa.Connection, choice: Choice, by: Sequence[str]) -> dict[Key, Amounts]:
    """Amounts per key; a key has the values of `by`, of :data:`KEYS`, in that order."""
    owners = _owners(connection)
    billed = _billed_licenses(connection, choice, owners)
    tests = set() if choice.tests else _test_documents(connection)
    found: dict[Key, Amounts] = {}
    for license_id, seq, said, amounts in _rows(connection, choice, billed, by):
        if (license_id, seq) not in tests:
            _add(found, _key(by, said, license_id, owners), amounts)
    for said, license_id, amounts in _carried(connection, choice, billed):
        if choice.tests or not _is_test_now(connection, license_id, tests):
            _add(found, _key(by, said, license_id, owners), amounts)
    return found


def months_of(
    connection: sa.Connection, license_id: str, now: date, count: int = 6
) -> list[tuple[str, Amounts]]:
    """What was used under a license and those below it, tests included, the newest month first."""
    number = now.year * 12 + now.month - count
    choice = Choice(date(number // 12, number % 12 + 1, 1), now, license_id=license_id, tests=True)
    found = totals(connection, choice, ("month",))
    return sorted(((month, amounts) for (month,), amounts in found.items()), reverse=True)


def _add(found: dict[Key, Amounts], key: Key, amounts: Amounts) -> None:
    known = found.setdefault(key, dict.fromkeys(METER_ORDER, 0))
    for meter, amount in amounts.items():
        known[meter] += amount


def _key(by: Sequence[str], said: dict[str, str], license_id: str, owners: dict[str, str]) -> Key:
    full = said | {"license": license_id, "customer": owners.get(license_id, "")}
    if "day" in said:
        full["month"] = said["day"][:7]
    return tuple(full[name] for name in by)


def _rows(
    connection: sa.Connection, choice: Choice, billed: set[str] | None, by: Sequence[str]
) -> Iterator[tuple[str, int, dict[str, str], Amounts]]:
    """Sums of the table: (license, number of its document, values by name, amounts)."""
    columns = db.daily.c
    wanted = {"day" if name == "month" else name for name in by} & _COLUMNS.keys() - {"license"}
    names = sorted(wanted)
    picked = [columns.license_id, columns.seq, *(columns[_COLUMNS[name]] for name in names)]
    query = sa.select(*picked, *(sa.func.sum(columns[meter]) for meter in METER_ORDER)).where(
        columns.day >= choice.first.isoformat(), columns.day <= choice.last.isoformat()
    )
    if billed is not None:
        query = query.where(columns.license_id.in_(billed))
    for license_id, seq, *rest in connection.execute(query.group_by(*picked)):
        values, amounts = rest[: len(names)], rest[len(names) :]
        sums = {meter: int(amount) for meter, amount in zip(METER_ORDER, amounts, strict=True)}
        yield license_id, seq, dict(zip(names, values, strict=True)), sums


def _carried(
    connection: sa.Connection, choice: Choice, billed: set[str] | None
) -> Iterator[tuple[dict[str, str], str, Amounts]]:
    """What later logs carry over beyond all receipts of those before them: lost, on the day they began."""
    logs = db.logs.c
    query = sa.select(logs.license_id).join(db.successions, db.successions.c.origin == logs.origin).distinct()
    for license_id in connection.execute(query).scalars().all():
        if billed is not None and license_id not in billed:
            continue
        tz = zone(connection, license_id)
        for one in epochs.of_license(connection, license_id):
            day = local_day(one.quarter_ms, tz)
            if choice.first <= day <= choice.last:
                said = {"day": day.isoformat(), "machine": one.origin.split("/")[3], "status": LOST,
                        "model": one.bundle_digest}  # fmt: skip
                yield said, license_id, {one.meter: one.amount}


# --- whose it is --------------------------------------------------------------------------------------


def _owners(connection: sa.Connection) -> dict[str, str]:
    """Who is billed for each license and sub-license."""
    columns = db.licenses.c
    rows = connection.execute(sa.select(columns.license_id, columns.customer_id))
    return {row.license_id: row.customer_id for row in rows}


def _billed_licenses(connection: sa.Connection, choice: Choice, owners: dict[str, str]) -> set[str] | None:
    """The licenses of the choice, those below them included; None for all."""
    if choice.license_id:
        below = db.sublicenses.c
        query = sa.select(below.license_id).where(below.parent_id == choice.license_id)
        return {choice.license_id, *connection.execute(query).scalars()}
    if choice.customer:
        return {license_id for license_id, owner in owners.items() if owner == choice.customer}
    return None


def _test_documents(connection: sa.Connection) -> set[tuple[str, int]]:
    """Licenses and numbers of the documents that are for tests."""
    columns, below = db.license_versions.c, db.sublicenses.c
    rows = connection.execute(sa.select(columns.license_id, columns.seq, columns.envelope)).all()
    written = set(connection.execute(sa.select(below.license_id)).scalars())
    found = set()
    for row in rows:
        if row.license_id in written:
            (license, *_) = registry.load_license_forms(connection, license_id=row.license_id, seq=row.seq)
        else:
            license = registry.stored_license(row.envelope)
        if license.environment == "test":
            found.add((row.license_id, row.seq))
    return found


def _is_test_now(connection: sa.Connection, license_id: str, tests: set[tuple[str, int]]) -> bool:
    seq = connection.execute(
        sa.select(db.licenses.c.seq).where(db.licenses.c.license_id == license_id)
    ).scalar_one()
    return (license_id, seq) in tests


def names(connection: sa.Connection) -> Names:
    """What customers, machines and builds are called."""
    labels, builds = db.activations.c, db.bundles.c
    machines = connection.execute(sa.select(labels.device_id, labels.device_label))
    models = connection.execute(sa.select(builds.digest, builds.name, builds.bundle_id, builds.version))
    return Names(
        customers.names(connection),
        {row.device_id: row.device_label for row in machines},
        {row.digest: f"{row.name} {row.version}" for row in models},
    )
