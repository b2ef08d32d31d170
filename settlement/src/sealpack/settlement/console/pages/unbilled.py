"""What was used and is not on an invoice, and putting invoiced months right.

Source: specs/console.md, "Billing".
"""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import corrections, db, desk, invoice, unbilled
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.inputs import day_of, today
from sealpack.settlement.console.pages.invoices import KINDS
from sealpack.settlement.users import User

LIST = "/console/unbilled"
_CORRECTIONS = "/console/corrections"
_MOST = 200  # rows of a list
_SECONDS = 0.05  # that the page may spend on rating; the rest is rated after it is sent
_AFTER = 60.0


def path(license_id: str) -> str:
    """Where a license's corrections are."""
    return f"{_CORRECTIONS}/{quote(license_id, safe='')}"


async def get_list(console: Console, request: Request, user: User) -> Response:
    """Late usage, months without an invoice, held files."""
    customer, base = request.query_params.get("customer", "").strip() or None, console.service.database

    def look() -> dict[str, Any]:
        now = console.now
        late = unbilled.late_known(base, customer, now)
        if unbilled.compare(base, late.waiting, now=now, seconds=_SECONDS) != late.waiting:
            late = unbilled.late_known(base, customer, now)
        months = unbilled.months(base, console.now)
        with base.read() as connection:
            held = unbilled.held(connection, customer)
            ids = [one.customer for one in late.found[:_MOST]] + [one.customer for one in held[:_MOST]]
            return {
                "late": late, "held": held, "names": desk.names(connection, ids),
                "months": [one for one in unbilled.by_month(connection, months) if one.without],
            }  # fmt: skip

    found = await console.service.read(look)
    response = console.render(
        request, user, "unbilled.html", customer=customer or "", kinds=KINDS, place=path, most=_MOST, **found
    )
    response.background = BackgroundTask(
        console.behind, LIST, unbilled.catch_up, base, console.now, seconds=_AFTER
    )
    return response


async def get_one(console: Console, request: Request, user: User) -> Response:
    """What would be issued for the invoiced months of a license."""
    return await _show(console, request, user)


async def _show(
    console: Console, request: Request, user: User, error: SealpackError | None = None
) -> Response:
    license_id = request.path_params["license"]
    if error is not None and error.spec.exit == 1:
        raise error
    found = await console.query(_one, license_id, today(console.now))
    return console.render(
        request, user, "corrections.html", error.spec.http if error else 200, license=license_id, error=error,
        kinds=KINDS, crumbs=[("Not billed", LIST)], today=today(console.now), here=path(license_id),
        may_change=user.role in CLERKS, **found,
    )  # fmt: skip


def _one(connection: sa.Connection, license_id: str, day: date) -> dict[str, Any]:
    documents = corrections.drafts(connection, license_id, day)
    customer = connection.execute(
        sa.select(db.licenses.c.customer_id).where(db.licenses.c.license_id == license_id)
    ).scalar()
    return {
        "digest": corrections.digest(documents), "documents": [invoice.to_dict(one) for one in documents],
        "customer": customer or "", "cases": desk.open_cases(connection)[license_id],
    }  # fmt: skip


async def post_one(console: Console, request: Request, user: User) -> Response:
    """Issue what was looked at. Sent twice there is nothing left, which is told."""
    license_id = request.path_params["license"]
    form = await console.form(request)
    try:
        expect, day = text(form, "expect", most=64), day_of(text(form, "date", most=10))
        made = await console.work(
            corrections.correct, console.service.database, license_id, day, expect=expect,
            actor=console.actor(user),
        )  # fmt: skip
    except SealpackError as error:
        return await _show(console, request, user, error)
    names = ", ".join(one.name for one in made)
    return console.redirect(path(license_id), f"Issued: {names}." if names else "There was nothing to issue.")


PAGES = (
    Page("GET", LIST, OFFICE, get_list),
    Page("GET", _CORRECTIONS + "/{license}", OFFICE, get_one),
    Page("POST", _CORRECTIONS + "/{license}", CLERKS, post_one),
)
