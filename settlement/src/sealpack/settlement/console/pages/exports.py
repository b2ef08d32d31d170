"""Issued documents and usage in the forms that other systems read. Source: specs/console.md, "Billing"."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from typing import Any

import sqlalchemy as sa
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import billing, db, payouts, reports
from sealpack.settlement.console.app import OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.inputs import file, month_of, today, zipped
from sealpack.settlement.console.pages.invoices import converted
from sealpack.settlement.exports import documents, focus, stripe, ubl, usage
from sealpack.settlement.exports.documents import Stored
from sealpack.settlement.payouts import Payout
from sealpack.settlement.users import User

_MAX_MAP = 1 << 20
Files = dict[str, bytes]
Refused = dict[str, str]  # document -> why
Items = list[dict[str, Any]]


async def get_page(console: Console, request: Request, user: User) -> Response:
    """What can be exported."""
    return _show(console, request, user)


def _show(console: Console, request: Request, user: User, error: SealpackError | None = None) -> Response:
    month = (today(console.now).replace(day=1) - timedelta(days=1)).replace(day=1)
    return console.render(
        request, user, "exports.html", error.spec.http if error else 200, month=f"{month:%Y-%m}", error=error
    )


async def get_file(console: Console, request: Request, user: User) -> Response:
    """A month in one form, of one customer or all. EXPORT_REFUSED when nothing can be exported."""
    what, said = request.path_params["what"], request.query_params
    if what not in _MAKERS:
        raise SealpackError("NOT_FOUND", "there is no such export")
    month, customer = month_of(said.get("month", "")), said.get("customer", "").strip() or None

    def make(connection: sa.Connection) -> tuple[Files, Refused]:
        return _MAKERS[what](connection, month, customer)

    try:
        made, refused = await console.slow_query(make)
        return _answer(made, refused, f"{what}-{month:%Y-%m}{f'-{customer}' if customer else ''}")
    except SealpackError as error:
        if error.spec.exit == 1:
            raise
        return _show(console, request, user, error)


def _answer(made: Files, refused: Refused, name: str) -> Response:
    """One file as it is, several in a zip; what was refused is told there, or as the error."""
    if not made:
        why = "; ".join(f"{one}: {reason}" for one, reason in list(refused.items())[:5])
        raise SealpackError("EXPORT_REFUSED", why or "there is nothing to export for this month")
    if len(made) == 1 and not refused:
        ((only, data),) = made.items()
        return file(data, only)
    if refused:
        lines = "".join(f"{one}: {reason}\n" for one, reason in refused.items())
        made = {**made, "REFUSED.txt": lines.encode()}
    return file(zipped(made), f"{name}.zip")


def _stored(connection: sa.Connection, month: date, customer: str | None) -> list[Stored]:
    return documents.load(connection, month=f"{month:%Y-%m}", customer=customer)


def _as_stored(form: str) -> Callable[[sa.Connection, date, str | None], tuple[Files, Refused]]:
    def make(connection: sa.Connection, month: date, customer: str | None) -> tuple[Files, Refused]:
        columns = db.invoices.c
        where = [columns.period == month.isoformat()]
        where += [] if customer is None else [columns.customer_id == customer]
        query = sa.select(columns.name, columns[form if form != "pdf" else "json"]).where(*where)
        rows = connection.execute(query.order_by(columns.issuer, columns.number)).all()
        return {f"{name}.{form}": converted(data, form) for name, data in rows}, {}

    return make


def _ubl(connection: sa.Connection, month: date, customer: str | None) -> tuple[Files, Refused]:
    made: Files = {}
    refused: Refused = {}
    for one in _stored(connection, month, customer):
        try:
            made[f"{one.name}.xml"] = ubl.to_xml(one.value)
        except SealpackError as error:
            refused[one.name] = f"{error.message}; {error.remedy}"
    return made, refused


def _focus(connection: sa.Connection, month: date, customer: str | None) -> tuple[Files, Refused]:
    found = _stored(connection, month, customer)
    return ({"focus.csv": focus.to_csv(connection, found)} if found else {}), {}


def _usage(connection: sa.Connection, month: date, customer: str | None) -> tuple[Files, Refused]:
    last = (month + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    found = usage.report(connection, month, last, by=list(usage.KEYS), customer=customer)
    return {f"usage-{month:%Y-%m}.csv": reports.as_csv(found.columns, found.rows).encode()}, {}


_MAKERS: dict[str, Callable[[sa.Connection, date, str | None], tuple[Files, Refused]]] = {
    "json": _as_stored("json"), "csv": _as_stored("csv"), "html": _as_stored("html"),
    "pdf": _as_stored("pdf"), "ubl": _ubl, "focus": _focus, "usage": _usage,
}  # fmt: skip


# --- Stripe: a file that says what Stripe calls whom comes with the form -----------------------------------


async def post_stripe(console: Console, request: Request, user: User) -> Response:
    """Invoice items or meter events of a month, or transfers of what parties are due."""
    form = await console.form(request, max_bytes=_MAX_MAP + (1 << 16), files=1)
    try:
        given = form.get("map")
        if not isinstance(given, UploadFile) or not given.filename:
            raise SealpackError("FORM_INVALID", "no file was chosen", remedy="choose the map file")
        names = stripe.Names.read(await given.read(_MAX_MAP + 1), given.filename[:100])
        what, month = text(form, "what", most=20), month_of(text(form, "month", most=7))

        def make(connection: sa.Connection) -> tuple[Files, Refused]:
            return _stripe(connection, what, month, names, console.now)

        made, refused = await console.slow_query(make)
        return _answer(made, refused, f"stripe-{what}-{month:%Y-%m}")
    except SealpackError as error:
        if error.spec.exit == 1:
            raise
        return _show(console, request, user, error)


def _stripe(
    connection: sa.Connection, what: str, month: date, names: stripe.Names, now: int
) -> tuple[Files, Refused]:
    items: Items = []
    refused: Refused = {}
    for name, make in _stripe_parts(connection, what, month, names, now):
        try:
            items += make()
        except SealpackError as error:
            refused[name] = f"{error.message}; {error.remedy}"
    file_name = {"items": "invoice_items", "events": "meter_events"}.get(what, "transfers")
    return ({f"{file_name}.ndjson": stripe.ndjson(items)} if items else {}), refused


def _stripe_parts(
    connection: sa.Connection, what: str, month: date, names: stripe.Names, now: int
) -> Iterator[tuple[str, Callable[[], Items]]]:
    """What is made or refused as a whole, by name."""
    if what == "items":
        for one in _stored(connection, month, None):
            yield one.name, partial(stripe.invoice_items, one, names)
    elif what == "events":
        for license, plan, span in billing.running(connection, month):
            yield license.license_id, partial(_events, connection, license, plan, span, names, now)
    else:
        for payout in payouts.payouts(connection):
            yield f"{payout.party} {payout.currency}", partial(_transfer, payout, names)


def _events(*args: Any) -> Items:
    found, left = stripe.meter_events(*args)
    if left:
        raise SealpackError("EXPORT_REFUSED", f"{left} events are not of the last 35 days")
    return list(found)


def _transfer(payout: Payout, names: stripe.Names) -> Items:
    made = stripe.transfer(payout, names)
    return [made] if made else []


PAGES = (
    Page("GET", "/console/exports", OFFICE, get_page),
    Page("GET", "/console/exports/{what}", OFFICE, get_file),
    Page("POST", "/console/exports/stripe", OFFICE, post_stripe),
)
