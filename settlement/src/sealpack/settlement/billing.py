"""Invoices from stored roll-ups: one per license and period, numbered without gaps, never changed.

Source: specs/invoice.md and specs/rating.md. The license's plan rates all its devices, epochs and bundles
together. Test licenses are never billed. Asked for again, an issued invoice is the stored one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.settlement import db, invoice, invoice_html, registry
from sealpack.settlement.invoice import Business, Evidence, Header
from sealpack.settlement.periods import Period, local_day
from sealpack.settlement.plan import Plan
from sealpack.settlement.printing import as_printed
from sealpack.settlement.rating import Span, rate

PAYMENT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Printed:
    """An invoice or draft in its three forms; `name` is its number, or `draft-...`."""

    name: str
    license_id: str
    json: bytes
    csv: bytes
    html: bytes
    fresh: bool  # made now, not stored earlier

    @property
    def files(self) -> dict[str, bytes]:
        """File names with their bytes."""
        return {f"{self.name}.json": self.json, f"{self.name}.csv": self.csv, f"{self.name}.html": self.html}


def billable(connection: sa.Connection, customer: str | None = None) -> list[str]:
    """Ids of the live licenses with a plan, of one customer or of all."""
    found = []
    for row in connection.execute(sa.select(db.licenses).order_by(db.licenses.c.license_id)):
        license = registry.stored_license(row.envelope)
        if license.environment == "live" and license.plan and customer in (None, row.customer_id):
            found.append(license.license_id)
    return found


def bill(
    database: db.Database, license_id: str, month: date, issued: date | None, *, draft: bool = False
) -> Printed:
    """The invoice of a license for the period that holds `month`, dated `issued`.

    A draft has no number and is not stored. REGISTRY_INVALID for an unknown or never activated license,
    PLAN_INVALID for an unknown plan, USAGE for a test license or a period before the activation.
    """
    with database.write() as connection:
        license = _license(connection, license_id)
        plan = registry.load_plan_of(connection, license)
        period = Period.containing(month, plan.tz)
        stored = connection.execute(
            sa.select(db.invoices).where(
                db.invoices.c.license_id == license_id, db.invoices.c.period == period.first.isoformat()
            )
        ).first()
        if stored is not None:
            return Printed(stored.name, license_id, stored.json, stored.csv, stored.html, False)
        if draft:
            return _print(connection, license, plan, period, "", issued, f"draft-{license_id}-{month:%Y-%m}")
        return _issue(connection, license, plan, period, issued)


def _license(connection: sa.Connection, license_id: str) -> License:
    license = registry.load_license(connection, license_id)
    if license is None:
        raise SealpackError("REGISTRY_INVALID", f"license {license_id} is not known here")
    if license.environment != "live":
        raise SealpackError("USAGE", f"license {license_id} is a test license: it is never billed")
    return license


def _issue(
    connection: sa.Connection, license: License, plan: Plan, period: Period, issued: date | None
) -> Printed:
    last = connection.execute(sa.select(sa.func.max(db.invoices.c.number))).scalar() or 0
    number = last + 1
    name = f"INV-{number:06d}"
    printed = _print(connection, license, plan, period, name, issued, name)
    row = {"number": number, "name": name, "license_id": license.license_id,
           "period": period.first.isoformat(), "json": printed.json, "csv": printed.csv,
           "html": printed.html}  # fmt: skip
    connection.execute(sa.insert(db.invoices).values(row))
    return printed


def _print(
    connection: sa.Connection, license: License, plan: Plan, period: Period, number: str,
    issued: date | None, name: str,
) -> Printed:  # fmt: skip
    activated = _activated(connection, license, plan)
    if activated > period.last:
        raise SealpackError("USAGE", f"license {license.license_id} starts on {activated}, after that period")
    ended = None if license.exp is None else local_day(license.exp * 1000 - 1, plan.tz)
    if ended is not None and ended < period.first:
        raise SealpackError("USAGE", f"license {license.license_id} ended on {ended}, before that period")
    # One period more is rated: an invoice prints the next period's advance lines.
    span = Span(activated, period.next().last, activated=activated, ended=ended)
    results = rate(plan, usage_of(connection, license.license_id), span)
    printed = as_printed(results)[:-1]
    header = _header(connection, license, number, issued)
    made = invoice.invoice(printed[-1], header)
    html = invoice_html.to_html(made).encode()
    return Printed(name, license.license_id, invoice.to_json(made), invoice.to_csv(made), html, True)


def _activated(connection: sa.Connection, license: License, plan: Plan) -> date:
    first = connection.execute(
        sa.select(sa.func.min(db.activations.c.issued_at)).where(
            db.activations.c.license_id == license.license_id
        )
    ).scalar()
    if first is None:
        raise SealpackError("REGISTRY_INVALID", f"license {license.license_id} was never activated")
    return local_day(max(first, license.nbf) * 1000, plan.tz)


def usage_of(connection: sa.Connection, license_id: str) -> dict[tuple[int, str, str], int]:
    """Roll-ups of all the license's logs: (quarter hour UTC ms, status, meter) -> amount."""
    rows = connection.execute(
        sa.select(
            db.rollups.c.quarter_ms, db.rollups.c.status, db.rollups.c.meter, sa.func.sum(db.rollups.c.amount)
        )
        .join(db.logs, db.logs.c.origin == db.rollups.c.origin)
        .where(db.logs.c.license_id == license_id)
        .group_by(db.rollups.c.quarter_ms, db.rollups.c.status, db.rollups.c.meter)
    )
    total: Counter[tuple[int, str, str]] = Counter()
    for quarter, status, meter, amount in rows:
        total[quarter, status, meter] += amount
    return dict(total)


def _header(connection: sa.Connection, license: License, number: str, issued: date | None) -> Header:
    customer = registry.load_customer(connection, license.customer.id)
    billed = (
        Business(customer.legal_name, customer.address, customer.tax_id, customer.email)
        if customer
        else Business(license.customer.name)
    )
    logs = connection.execute(
        sa.select(db.logs.c.origin, db.logs.c.size, db.logs.c.root)
        .where(db.logs.c.license_id == license.license_id)
        .order_by(db.logs.c.origin)
    )
    return Header(
        seller=Business(license.issuer, email=license.support or ""),
        customer=billed,
        license_id=license.license_id,
        number=number,
        issued=issued,
        due=issued + timedelta(days=PAYMENT_DAYS) if issued else None,
        purchase_order=(customer.purchase_order if customer else "") or license.order_ref or "",
        evidence=tuple(Evidence(r.origin, 0, r.size, r.root) for r in logs),
    )
