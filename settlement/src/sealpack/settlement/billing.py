"""Invoices from stored roll-ups: one per license and period, numbered without gaps, never changed.

Source: specs/invoice.md and specs/rating.md. The license's plan rates all its devices, epochs and bundles
together. Test licenses are never billed. Asked for again, an issued invoice is the stored one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.records import METER_ORDER
from sealpack.settlement import (
    db,
    epochs,
    invoice,
    issuing,
    logs,
    parties,
    registry,
    rollups,
    sublicenses,
)
from sealpack.settlement.audit import NOBODY, Actor
from sealpack.settlement.invoice import Evidence, Header, Invoice
from sealpack.settlement.issuing import Printed
from sealpack.settlement.parties import Customer, Seller
from sealpack.settlement.periods import Period, local_day
from sealpack.settlement.plan import LOST, Plan, Tax
from sealpack.settlement.printing import as_printed
from sealpack.settlement.rating import Span, rate
from sealpack.settlement.results import PeriodResult


def bill_all(
    database: db.Database,
    month: date,
    issued: date | None,
    *,
    customer: str | None = None,
    draft: bool = False,
    actor: Actor = NOBODY,
) -> tuple[list[Printed], dict[str, str]]:
    """:func:`bill` for every live license with a plan that runs in that month, of one customer or all.

    Returns what was printed, and for each license that could not be billed the reason.
    """
    printed: list[Printed] = []
    skipped: dict[str, str] = {}
    with database.read() as connection:
        names = [name for name in _billable(connection, customer) if _runs_in(connection, name, month)]
    for name in names:
        try:
            printed.append(bill(database, name, month, issued, draft=draft, actor=actor))
        except SealpackError as error:
            if error.spec.exit == 1:
                raise
            skipped[name] = error.message
    return printed, skipped


def _billable(connection: sa.Connection, customer: str | None) -> list[str]:
    found = []
    alone = db.licenses.c.license_id.not_in(sa.select(db.sublicenses.c.license_id))
    for row in connection.execute(sa.select(db.licenses).where(alone).order_by(db.licenses.c.license_id)):
        license = registry.stored_license(row.envelope)
        if license.environment == "live" and license.plan and customer in (None, row.customer_id):
            found.append(license.license_id)
    return found


def _runs_in(connection: sa.Connection, license_id: str, month: date) -> bool:
    """False when the license was never activated, starts later or ended before; unknown plans are told of."""
    try:
        license = _license(connection, license_id)
        _check_runs(connection, license, *_plan_for(connection, license, month))
    except SealpackError as error:
        return error.code == "PLAN_INVALID"
    return True


def running(connection: sa.Connection, month: date) -> list[tuple[License, Plan, Period]]:
    """Every live license that runs in that month, with its plan and the period; PLAN_INVALID."""
    found = []
    for name in _billable(connection, None):
        license = _license(connection, name)
        try:
            plan, period = _plan_for(connection, license, month)
            _check_runs(connection, license, plan, period)
        except SealpackError as error:
            if error.code not in ("USAGE", "REGISTRY_INVALID"):
                raise
            continue
        found.append((license, plan, period))
    return found


def bill(
    database: db.Database,
    license_id: str,
    month: date,
    issued: date | None,
    *,
    draft: bool = False,
    actor: Actor = NOBODY,
) -> Printed:
    """The invoice of a license for the period that holds `month`, dated `issued`.

    A draft has no number and is not stored. REGISTRY_INVALID for an unknown or never activated license,
    PLAN_INVALID for an unknown plan, USAGE for a test license or a period before the activation.
    """
    with database.write() as connection:
        license = _license(connection, license_id)
        plan, period = _plan_for(connection, license, month)
        stored = connection.execute(
            sa.select(db.invoices).where(
                db.invoices.c.license_id == license_id, db.invoices.c.period == period.first.isoformat(),
                db.invoices.c.kind == "invoice",
            )
        ).first()  # fmt: skip
        if stored is not None:
            return Printed(stored.name, license_id, stored.json, stored.csv, stored.html, False)
        _check_runs(connection, license, plan, period)
        customer = customer_of(connection, license)
        tax = customer.tax.tax if customer.tax else None
        result = printed_periods(connection, license, plan, period, tax)[-1]

        def make(number: str) -> Invoice:
            return invoice.invoice(result, header(connection, license, number, issued))

        if draft:
            return issuing.as_files(make(""), f"draft-{license_id}-{month:%Y-%m}")
        return issuing.issue(connection, license, "invoice", make, actor)


def _license(connection: sa.Connection, license_id: str) -> License:
    license = registry.load_license(connection, license_id)
    if license is None:
        raise SealpackError("REGISTRY_INVALID", f"license {license_id} is not known here")
    if license.parent_id is not None:
        raise SealpackError(
            "USAGE",
            f"sub-license {license_id} is billed with license {license.parent_id}",
            remedy=f"give --license {license.parent_id}",
        )
    if license.environment != "live":
        raise SealpackError("USAGE", f"license {license_id} is a test license: it is never billed")
    return license


def _plan_for(connection: sa.Connection, license: License, month: date) -> tuple[Plan, Period]:
    """The plan in force when the month began, and the month: a renewal's plan counts from the next one on.

    Months before the first live document of the license have that one's plan.
    """
    plan = registry.load_plan_of(connection, license)
    period = Period.containing(month, plan.tz)
    for version in registry.load_license_versions(connection, license.license_id):
        if version.plan is not None and version.environment == "live":
            plan = registry.load_plan_of(connection, version)
            period = Period.containing(month, plan.tz)
            if version.issued_at * 1000 <= period.start_ms:
                break
    return plan, period


def customer_of(connection: sa.Connection, license: License) -> Customer:
    """Whom a license is billed to: the record of that customer, else the name in the license."""
    found = parties.load_customer(connection, license.customer.id)
    return found or Customer(license.customer.id, license.customer.name)


def printed_periods(
    connection: sa.Connection, license: License, plan: Plan, last: Period, tax: Tax | None
) -> list[PeriodResult]:
    """What every invoice of a license up to a period prints, rated as if the plan had always been its own."""
    span = _span(connection, license, plan, last)
    results = rate(plan, usage_of(connection, license.license_id), span, tax=tax)
    return as_printed(results, tax=tax)[:-1]


def _span(connection: sa.Connection, license: License, plan: Plan, period: Period) -> Span:
    """From the activation to one period more than is printed: its advance lines are on this invoice."""
    activated = _activated(connection, license, plan)
    return Span(activated, period.next().last, activated=activated, ended=_ended(license, plan))


def _ended(license: License, plan: Plan) -> date | None:
    return None if license.exp is None else local_day(license.exp * 1000 - 1, plan.tz)


def _used_in(connection: sa.Connection, license: License, period: Period) -> bool:
    """Whether anything is billed for a period: in days of grace, or because a person accepted it."""
    usage = usage_of(connection, license.license_id)
    return any(period.start_ms <= quarter < period.end_ms for quarter, _, _ in usage)


def _check_runs(connection: sa.Connection, license: License, plan: Plan, period: Period) -> None:
    """USAGE for a period before the license's first day, or after its last one and without usage."""
    activated, ended = _activated(connection, license, plan), _ended(license, plan)
    if activated > period.last:
        raise SealpackError("USAGE", f"license {license.license_id} starts on {activated}, after that period")
    if ended is not None and ended < period.first and not _used_in(connection, license, period):
        raise SealpackError("USAGE", f"license {license.license_id} ended on {ended}, before that period")


def _activated(connection: sa.Connection, license: License, plan: Plan) -> date:
    first = connection.execute(
        sa.select(sa.func.min(db.activations.c.first_at)).where(
            db.activations.c.license_id.in_(sublicenses.billed_with(connection, license.license_id))
        )
    ).scalar()
    if first is None:
        raise SealpackError("REGISTRY_INVALID", f"license {license.license_id} was never activated")
    if license.provisional is not None:  # what ran before the activation is billed when it ran
        first = min(first, _first_use(connection, license.license_id, first))
    # A renewal begins later than the license did: the earliest live document says from when on it is billed.
    versions = registry.load_license_versions(connection, license.license_id)
    begins = min((v.nbf for v in versions if v.environment == "live"), default=license.nbf)
    return local_day(max(first, begins) * 1000, plan.tz)


def _first_use(connection: sa.Connection, license_id: str, default: int) -> int:
    """When the first settled call under a license ran (to a quarter hour), Unix seconds."""
    quarter = connection.execute(
        sa.select(sa.func.min(db.license_usage.c.quarter_ms)).where(
            db.license_usage.c.license_id.in_(sublicenses.billed_with(connection, license_id))
        )
    ).scalar()
    return default if quarter is None else quarter // 1000


def usage_of(connection: sa.Connection, license_id: str) -> dict[tuple[int, str, str], int]:
    """What is billed with a license, its sub-licenses included: (quarter hour UTC ms, status, meter) ->
    amount."""
    total: Counter[tuple[int, str, str]] = Counter()
    for name in sublicenses.billed_with(connection, license_id):
        total.update(own_usage_of(connection, name))
    return dict(total)


def own_usage_of(connection: sa.Connection, license_id: str) -> dict[tuple[int, str, str], int]:
    """Usage of all logs of one license or sub-license: (quarter hour UTC ms, status, meter) -> amount.

    Nothing of a test document: a later live one does not make it billable. What a log carries over beyond the
    receipts of those before it counts as lost when it began.
    """
    tests = _test_numbers(connection, license_id)
    total: Counter[tuple[int, str, str]] = Counter()
    for (quarter, seq, status), amounts in rollups.usage_of(connection, license_id).items():
        if seq not in tests:
            for meter, amount in zip(METER_ORDER, amounts, strict=True):
                if amount:
                    total[quarter, status, meter] += amount
    for difference in epochs.of_license(connection, license_id):
        total[difference.quarter_ms, LOST, difference.meter] += difference.amount
    return dict(total)


def used_below(database: db.Database, license_id: str, month: date) -> dict[str, dict[str, int]]:
    """What was used under each sub-license in the month's period: meter -> base units; for information."""
    found = {}
    with database.read() as connection:
        _, period = _plan_for(connection, _license(connection, license_id), month)
        for name in sublicenses.of_parent(connection, license_id):
            used: Counter[str] = Counter()
            for (quarter, _, meter), amount in own_usage_of(connection, name).items():
                if period.start_ms <= quarter < period.end_ms:
                    used[meter] += amount
            found[name] = dict(sorted(used.items()))
    return found


def _test_numbers(connection: sa.Connection, license_id: str) -> set[int]:
    """Which documents of a license are test documents."""
    versions = registry.load_license_versions(connection, license_id)
    return {version.seq for version in versions if version.environment == "test"}


def test_routes(connection: sa.Connection, license_id: str) -> list[tuple[str, str]]:
    """(origin, route) of usage under a test document: a later live one does not make it billable."""
    tests = _test_numbers(connection, license_id)
    if not tests:
        return []
    origins = connection.execute(sa.select(db.logs.c.origin).where(db.logs.c.license_id == license_id))
    found = [log for o in origins.scalars().all() if (log := logs.load(connection, o)) is not None]
    return [
        (log.origin, route)
        for log in found
        for route, entry in (log.state.routes or {}).items()
        if entry["seq"] in tests
    ]


def header(
    connection: sa.Connection, license: License, number: str, issued: date | None, *, payable: bool = True
) -> Header:
    """Who bills whom, when and on what evidence; nothing is due for what is not `payable`, a credit note."""
    customer = customer_of(connection, license)
    seller: Seller = parties.load_seller(connection, license.issuer)
    days = seller.payment_days if customer.payment_days is None else customer.payment_days
    held = connection.execute(
        sa.select(db.logs.c.origin, db.logs.c.size, db.logs.c.root)
        .where(db.logs.c.license_id.in_(sublicenses.billed_with(connection, license.license_id)))
        .order_by(db.logs.c.origin)
    )
    business = seller.business
    return Header(
        seller=business if business.email else replace(business, email=license.support or ""),
        customer=customer.business,
        license_id=license.license_id,
        number=number,
        issued=issued,
        due=issued + timedelta(days=days) if issued and payable else None,
        purchase_order=customer.purchase_order or license.order_ref or "",
        payment=seller.payment if payable else "",
        evidence=tuple(Evidence(r.origin, 0, r.size, r.root) for r in held),
    )
