"""Invoices from stored roll-ups: one per license and period, numbered without gaps, never changed.

Source: specs/invoice.md and specs/rating.md. The license's plan rates all its devices, epochs and bundles
together. Test licenses are never billed. Asked for again, an issued invoice is the stored one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import date, timedelta

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.records import METER_ORDER
from sealpack.settlement import (
    approvals,
    db,
    epochs,
    estimates,
    invoice,
    issuing,
    logs,
    parties,
    readings,
    registry,
    rollups,
    sublicenses,
)
from sealpack.settlement.audit import NOBODY, Actor
from sealpack.settlement.contract import Contract
from sealpack.settlement.invoice import Evidence, Header, Invoice
from sealpack.settlement.issuing import Printed
from sealpack.settlement.parties import Customer, Seller
from sealpack.settlement.periods import Period
from sealpack.settlement.plan import LOST, Plan, Tax
from sealpack.settlement.results import PeriodResult


def bill_all(
    database: db.Database,
    month: date,
    issued: date | None,
    *,
    customer: str | None = None,
    draft: bool = False,
    approved: bool = False,
    actor: Actor = NOBODY,
) -> tuple[list[Printed], dict[str, str]]:
    """:func:`bill` for every live license with a plan that runs in that month, of one customer or all.

    `approved`: only for those that were approved for it. Returns what was printed, and for each license that
    could not be billed the reason.
    """
    printed: list[Printed] = []
    skipped: dict[str, str] = {}
    with database.read() as connection:
        names = _billable(connection, customer)
        if approved:
            known = approvals.of_month(connection, month)
            names = [name for name in names if name in known]
        names = [name for name in names if _runs_in(connection, name, month)]
    for name in names:
        try:
            printed.append(bill(database, name, month, issued, draft=draft, approved=approved, actor=actor))
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
        _check_runs(connection, Contract(connection, license_of(connection, license_id)), month)
    except SealpackError as error:
        return error.code == "PLAN_INVALID"
    return True


def running(connection: sa.Connection, month: date) -> list[tuple[License, Plan, Period]]:
    """Every live license that runs in that month, with its plan and the period; PLAN_INVALID."""
    found = []
    for name in _billable(connection, None):
        license = license_of(connection, name)
        sold = Contract(connection, license)
        try:
            _check_runs(connection, sold, month)
        except SealpackError as error:
            if error.code not in ("USAGE", "REGISTRY_INVALID"):
                raise
            continue
        plan, period = sold.plan_for(month), sold.period(month)
        found.append((license, plan, period))
    return found


def bill(
    database: db.Database,
    license_id: str,
    month: date,
    issued: date | None,
    *,
    draft: bool = False,
    approved: bool = False,
    expect: str | None = None,
    actor: Actor = NOBODY,
) -> Printed:
    """The invoice of a license for the period that holds `month`, dated `issued`.

    Estimates are those of that day; without a day there are none. A draft has no number and is not stored.
    `approved`: only if it is what was approved, as always where the seller says so; `expect`: only if it has
    this digest (:func:`approvals.digest`). REGISTRY_INVALID for an
    unknown or never activated license, PLAN_INVALID for an unknown plan, USAGE for a test license or a period
    before the activation, APPROVAL_MISSING, CHANGED_MEANWHILE.
    """
    with database.write() as connection:
        license = license_of(connection, license_id)
        _, period = plan_for(connection, license, month)
        stored = connection.execute(
            sa.select(db.invoices).where(
                db.invoices.c.license_id == license_id, db.invoices.c.period == period.first.isoformat(),
                db.invoices.c.kind == "invoice",
            )
        ).first()  # fmt: skip
        if stored is not None:
            return Printed(stored.name, license_id, stored.json, stored.csv, stored.html, False)
        result = rated(connection, license, month, issued)

        def make(number: str) -> Invoice:
            return invoice.invoice(result, header(connection, license, number, issued))

        if draft:
            return issuing.as_files(make(""), f"draft-{license_id}-{month:%Y-%m}")
        approved = approved or parties.load_seller(connection, license.issuer).approval
        approvals.check(connection, make(""), approved=approved, expect=expect)
        return issuing.issue(connection, license, "invoice", make, actor)


def rated(connection: sa.Connection, license: License, month: date, day: date | None = None) -> PeriodResult:
    """What the invoice of a license for the period that holds `month` would print now, with the estimates
    of a document of that day; errors as `bill`."""
    sold = Contract(connection, license)
    _check_runs(connection, sold, month)
    customer = customer_of(connection, license)
    plan = sold.plan_for(month)
    if customer.currency not in ("", plan.currency):
        raise SealpackError(
            "PLAN_INVALID",
            f"plan {plan.id} version {plan.version} is in {plan.currency}, customer {customer.id} is billed"
            f" in {customer.currency}: nothing is converted",
            remedy=f"give license {license.license_id} a plan in {customer.currency}",
        )
    tax = customer.tax.tax if customer.tax else None
    return printed_periods(connection, sold, month, tax, day)[-1]


def draft_of(connection: sa.Connection, license: License, month: date, day: date | None = None) -> Invoice:
    """The same as a draft without number or day."""
    return invoice.invoice(rated(connection, license, month, day), header(connection, license, "", None))


def license_of(connection: sa.Connection, license_id: str) -> License:
    """A license that is billed; REGISTRY_INVALID, USAGE."""
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


def plan_for(connection: sa.Connection, license: License, month: date) -> tuple[Plan, Period]:
    """The plan in force when the month began, and the month: a renewal's plan counts from the next one on.

    Months before the first live document of the license have that one's plan.
    """
    sold = Contract(connection, license)
    return sold.plan_for(month), sold.period(month)


def customer_of(connection: sa.Connection, license: License) -> Customer:
    """Whom a license is billed to: the record of that customer, else the name in the license."""
    found = parties.load_customer(connection, license.customer.id)
    return found or Customer(license.customer.id, license.customer.name)


def printed_periods(
    connection: sa.Connection, sold: Contract, last: date, tax: Tax | None, day: date | None = None,
    only: Collection[tuple[str, str]] | None = None,
) -> list[PeriodResult]:  # fmt: skip
    """What every invoice of a license up to a month prints, each month rated under its own plan.

    `day` and `only` say what is estimated: :func:`estimates.of_license`.
    """
    usage = usage_of(connection, sold.license.license_id, monthly=True)
    guessed = estimates.of_license(connection, sold, last.replace(day=1), day, only)
    return sold.printed(usage, last.replace(day=1), tax, guessed)


def _check_runs(connection: sa.Connection, sold: Contract, month: date) -> None:
    """USAGE for a period before the license's first day, or outside its terms and without usage.

    What is used then was used in days of grace, or a person accepted it.
    """
    period = sold.period(month)

    def used() -> bool:
        usage = usage_of(connection, sold.license.license_id, monthly=True)
        return any(period.start_ms <= quarter < period.end_ms for quarter, _, _ in usage)

    sold.check_runs(period, used)


def usage_of(
    connection: sa.Connection, license_id: str, *, monthly: bool = False
) -> dict[tuple[int, str, str], int]:
    """What is billed with a license, its sub-licenses included: (quarter hour UTC ms, status, meter) ->
    amount. `monthly`: in as few quarters as tell months apart in every zone."""
    total: Counter[tuple[int, str, str]] = Counter()
    for name in sublicenses.billed_with(connection, license_id):
        total.update(own_usage_of(connection, name, monthly=monthly))
    return dict(total)


def own_usage_of(
    connection: sa.Connection, license_id: str, *, monthly: bool = False
) -> dict[tuple[int, str, str], int]:
    """Usage of all logs of one license or sub-license: (quarter hour UTC ms, status, meter) -> amount.

    Nothing of a test document: a later live one does not make it billable. What a log carries over beyond the
    receipts of those before it counts as lost when it began.
    """
    tests = registry.test_numbers(connection, license_id)
    total: Counter[tuple[int, str, str]] = Counter()
    stored = rollups.usage_by_month if monthly else rollups.usage_of
    for (quarter, seq, status), amounts in stored(connection, license_id).items():
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
        _, period = plan_for(connection, license_of(connection, license_id), month)
        for name in sublicenses.of_parent(connection, license_id):
            used: Counter[str] = Counter()
            for (quarter, _, meter), amount in own_usage_of(connection, name, monthly=True).items():
                if period.start_ms <= quarter < period.end_ms:
                    used[meter] += amount
            found[name] = dict(sorted(used.items()))
    return found


def test_routes(connection: sa.Connection, license_id: str) -> list[tuple[str, str]]:
    """(origin, route) of usage under a test document: a later live one does not make it billable."""
    tests = registry.test_numbers(connection, license_id)
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
    together = sublicenses.billed_with(connection, license.license_id)
    stated = readings.files(connection, db.logs.c.license_id.in_(together))
    held = connection.execute(
        sa.select(db.logs.c.origin, db.logs.c.size, db.logs.c.root)
        .where(db.logs.c.license_id.in_(together))
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
        evidence=tuple(Evidence(r.origin, 0, r.size, r.root, stated.get(r.origin, ())) for r in held),
    )
