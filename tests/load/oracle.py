"""What a settlement database says, compared with the truth a fleet was made with.

Tables are asked in plain SQL, amounts of money computed here: what is compared owes nothing to the code under
test but for the differences between one log and the next (specs/settlement-ingest.md, "Differences").
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal

import sqlalchemy as sa
from support import rating_plans, world

from load.fleet import MONTH, NOW, TAKEN, Truth
from sealpack.format.registry import read_lines
from sealpack.format.values import METERS
from sealpack.settlement import billing, db, epochs, registry
from sealpack.settlement.plan import Plan

UNIT = Decimal("0.0375")  # per 1,000 tok_out


def plan() -> Plan:
    """The plan every license of a fleet names: one price, so that a line can be computed by hand."""
    return rating_plans.make_plan(rating_plans.per_unit(str(UNIT)))


def learn(database: db.Database, lines: bytes) -> None:
    """Teach a database the vendor's trust, the plan and the fleet's registry."""
    trust = world.make_trust()
    with database.write() as connection:
        registry.put_trust(connection, trust)
        registry.put_plan(connection, plan())
        for line in read_lines(lines, "registry.jsonl"):
            registry.put_line(connection, line, trust)


def wrong(database: db.Database, truth: Truth) -> list[str]:
    """Everything in which the database differs from the truth; nothing when all is right."""
    with database.read() as connection:
        return [*_logs(connection, truth), *_files(connection, truth), *_totals(connection, truth)]


def _logs(connection: sa.Connection, truth: Truth) -> Iterator[str]:
    rows = connection.exec_driver_sql("SELECT origin, size, root FROM logs")
    found = {origin: (size, root) for origin, size, root in rows}
    for origin in sorted(found.keys() | truth.logs.keys()):
        if found.get(origin) != truth.logs.get(origin):
            yield f"{origin}: {found.get(origin)}, should be {truth.logs.get(origin)}"


def _files(connection: sa.Connection, truth: Truth) -> Iterator[str]:
    """Every stored file under the name it had when it first came; the same bytes may come under another."""
    rows = connection.exec_driver_sql("SELECT name, code FROM files")
    for name, code in rows:
        said = TAKEN if code is not None and (code == "OK" or code.startswith("W")) else code
        if said != truth.files[name]:
            yield f"{name}: {code}, should be {truth.files[name]}"


def _totals(connection: sa.Connection, truth: Truth) -> Iterator[str]:
    found: dict[str, Counter[str]] = {}
    rows = connection.exec_driver_sql(
        f"SELECT l.license_id, {', '.join(f'sum(r.{meter})' for meter in METERS)} "
        "FROM rollups r JOIN logs l ON l.origin = r.origin GROUP BY l.license_id"
    )
    for license_id, *amounts in rows:
        found[license_id] = Counter({m: int(a) for m, a in zip(METERS, amounts, strict=True) if a})
    for license_id in truth.totals:
        for difference in epochs.of_license(connection, license_id):
            found.setdefault(license_id, Counter())[difference.meter] += difference.amount
    for license_id, meters in truth.totals.items():
        if (said := dict(found.get(license_id, {}))) != meters:
            yield f"{license_id}: {said}, should be {meters}"


def wrong_invoices(database: db.Database, truth: Truth) -> list[str]:
    """Invoice the fleet's month; every net total that is not tokens times price, rounded once."""
    printed, skipped = billing.bill_all(database, MONTH.date(), MONTH.date().replace(month=11))
    problems = [f"{name}: {why}" for name, why in skipped.items()]
    for one in printed:
        tokens = truth.totals[one.license_id].get("tok_out", 0)
        should = (tokens * UNIT / 1000).quantize(Decimal("0.01"), ROUND_HALF_UP)
        if Decimal(json.loads(one.json)["net"]) != should:
            problems.append(f"{one.name}: not {should}")
    if len(printed) != len(truth.totals):
        problems.append(f"{len(printed)} invoices for {len(truth.totals)} licenses")
    return problems


__all__ = ["NOW", "learn", "plan", "wrong", "wrong_invoices"]
