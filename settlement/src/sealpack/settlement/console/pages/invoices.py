"""Issued documents: the list, each with everything that happened to it, and its files.

Source: specs/console.md, "Billing".
"""

from __future__ import annotations

import json
from datetime import date
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, desk, ledger, receivables
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.inputs import file, month_of, today
from sealpack.settlement.desk import Filter
from sealpack.settlement.service.views import Span, cursor
from sealpack.settlement.users import User

LIST = "/console/invoices"
CRUMBS = [("Invoices", LIST)]
KINDS = {"invoice": "invoice", "late": "late usage", "correction": "correction", "credit": "goodwill credit"}
FORMS = ("html", "pdf", "json", "csv", "xml")
_PER_PAGE = 50


def path(name: str, more: str = "") -> str:
    """Where a document is."""
    return f"{LIST}/{quote(name, safe='')}{more}"


async def get_list(console: Console, request: Request, user: User) -> Response:
    """Documents, the newest first."""
    said = {name: request.query_params.get(name, "").strip()[:200] for name in
            ("state", "customer", "month", "kind", "q")}  # fmt: skip
    if said["month"]:
        month_of(said["month"])
    day = today(console.now)
    which = Filter(said["state"], said["customer"], said["month"], said["kind"], said["q"], day.isoformat())
    span = Span.parse(str(_PER_PAGE), request.query_params.get("after"), str, int)
    before = (str(span.after[0]), int(span.after[1])) if span.after else None
    found, key = await console.query(desk.documents, which, before=before, limit=_PER_PAGE)
    names = await console.query(desk.names, [one.document.customer for one in found])
    page = {"items": found, **({"next": cursor(key)} if key else {})}
    return console.render(
        request, user, "invoices.html", page=page, said=said, kinds=KINDS, names=names, today=day.isoformat(),
        states=(desk.OPEN, desk.OVERDUE, *desk.STATES),
    )  # fmt: skip


async def get_one(console: Console, request: Request, user: User) -> Response:
    """A document and all that belongs to it."""
    found = await console.query(_one, request.path_params["number"])
    day = today(console.now).isoformat()
    return console.render(
        request, user, "invoice.html", crumbs=CRUMBS, kinds=KINDS, today=day, place=path,
        acts=_acts(found) if user.role in CLERKS else [], **found,
    )  # fmt: skip


def _one(connection: sa.Connection, name: str) -> dict[str, Any]:
    now = receivables.standing(connection, name)
    value = json.loads(stored(connection, name, "json"))
    document = now.document
    period = date.fromisoformat(document.period)
    held = ledger.on_account(connection, document.issuer, document.customer, value["currency"])
    names = [name, *([] if document.kind != "invoice" else [document.license_id])]
    trail = [one for one in desk.history(connection, *names) if _concerns(one.what, name, now)]
    return {
        "now": now, "doc": value, "month": period, "trail": trail, "on_account": held,
        "bookings": desk.bookings(connection, name), "family": desk.family(connection, now),
        "left": receivables.left_net(connection, name) if value["kind"] != "credit_note" else 0,
    }  # fmt: skip


def _concerns(what: dict[str, Any], name: str, now: receivables.Standing) -> bool:
    """Whether an entry of the audit trail is about a document, or about the draft that it was."""
    if name in (what.get("number"), what.get("invoice"), what.get("corrects")):
        return True
    said = what.get("license"), what.get("period")
    return now.document.kind == "invoice" and said == (now.document.license_id, now.document.period)


def _acts(found: dict[str, Any]) -> list[str]:
    """What can be done with a document now, in the order of use: pages of `booking`."""
    now: receivables.Standing = found["now"]
    held = found["on_account"] > 0
    is_note = found["doc"]["kind"] == "credit_note"
    can = {
        "pay": not is_note and not now.written_off, "apply": not is_note and now.open > 0 and held,
        "credit": found["left"] > 0 and not now.written_off, "refund": held,
        "write-off": now.open > 0,
    }  # fmt: skip
    return [name for name, is_possible in can.items() if is_possible]


def stored(connection: sa.Connection, name: str, form: str) -> bytes:
    """A form of a document as it was stored; INVOICE_UNKNOWN."""
    columns = db.invoices.c
    found = connection.execute(sa.select(columns[form]).where(columns.name == name)).scalar()
    if found is None:
        raise SealpackError("INVOICE_UNKNOWN", f"no invoice {name} was issued here")
    data: bytes = found
    return data


async def get_file(console: Console, request: Request, user: User) -> Response:
    """A document as a file: html, json and csv as they were stored, pdf and xml made of the JSON."""
    name, form = request.path_params["number"], request.path_params["form"]
    if form not in FORMS:
        raise SealpackError("NOT_FOUND", f"documents have no form {form}")
    own = form if form in ("html", "json", "csv") else "json"
    data = await console.query(stored, name, own)
    return file(await console.paper(converted, data, form), f"{name}.{form}")


def converted(data: bytes, form: str) -> bytes:
    """A document's JSON as PDF or as an e-invoice (UBL); what is stored as it is. EXPORT_REFUSED."""
    if form == "pdf":
        from sealpack.settlement import pdf

        pdf.require()
        return pdf.to_pdf(data)
    if form == "xml":
        from sealpack.settlement.exports import ubl

        return ubl.to_xml(json.loads(data))
    return data


PAGES = (
    Page("GET", LIST, OFFICE, get_list),
    Page("GET", LIST + "/{number}", OFFICE, get_one),
    Page("GET", LIST + "/{number}/file/{form}", OFFICE, get_file),
)
