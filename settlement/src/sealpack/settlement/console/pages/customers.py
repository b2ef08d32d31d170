"""Customers: the list, one with all that belongs to it, and its record as a form."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError, printable
from sealpack.settlement import db, desk, parties
from sealpack.settlement.console import lists
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.overview import customers, devices, licenses
from sealpack.settlement.parties import Customer
from sealpack.settlement.plan import TAX_CATEGORIES
from sealpack.settlement.users import User

LIST = "/console/customers"
NEW = "-"  # stands for an id that is still to be given
_NO_ONE = Customer("", "")
TAX_WORDS = {
    "S": "Standard rate", "Z": "Zero rated", "E": "Exempt", "AE": "Reverse charge",
    "K": "Within the EU, exempt", "G": "Export, exempt", "O": "Outside the scope of tax",
    "L": "Canary Islands (IGIC)", "M": "Ceuta and Melilla (IPSI)",
}  # fmt: skip
assert set(TAX_WORDS) == set(TAX_CATEGORIES)


def today(console: Console) -> date:
    """The day it is, UTC."""
    return datetime.fromtimestamp(console.now, UTC).date()


async def get_list(console: Console, request: Request, user: User) -> Response:
    """Every customer, by name."""
    rows = await console.query(customers.listed)
    shown = lists.page(rows, _key, lists.after(request))
    return console.render(request, user, "customers.html", page=shown, count=len(rows))


def _key(row: customers.Row) -> lists.Key:
    return printable(row.name).casefold(), row.id


async def get_one(console: Console, request: Request, user: User) -> Response:
    """One customer."""
    name = request.path_params["id"]

    def look(connection: sa.Connection) -> dict[str, Any]:
        row = customers.find(connection, name)
        machines = devices.listed(connection, console.now, customer=name)
        states = {state: sum(one.state == state for one in machines) for state in devices.STATES}
        return {
            "row": row,
            "licenses": licenses.listed(connection, console.now, name),
            "states": {state: count for state, count in states.items() if count},
            "documents": desk.newest(connection, db.invoices.c.customer_id == name),
        }

    found = await console.query(look)
    crumbs = (("Customers", LIST),)
    return console.render(
        request,
        user,
        "customer.html",
        **found,
        crumbs=crumbs,
        tax_words=TAX_WORDS,
        may_edit=user.role in CLERKS,
        now=console.now,
        today=today(console).isoformat(),
    )


# --- the record ---------------------------------------------------------------------------------------


async def get_edit(console: Console, request: Request, user: User) -> Response:
    """The record as a form; an empty one for a new customer."""
    name = request.path_params["id"]
    record = await console.query(_record, name)
    return _form(console, request, user, record, _fields(record), _seen(record))


def _record(connection: sa.Connection, name: str) -> Customer:
    """What is known; of a customer whom only a license names, that name. NOT_FOUND."""
    if name == NEW:
        return _NO_ONE
    row = customers.find(connection, name)
    return row.record or Customer(row.id, row.name)


def _seen(record: Customer) -> str:
    """What tells whether a record was changed since it was looked at."""
    return hashlib.sha256(repr(record).encode()).hexdigest()


def _fields(record: Customer) -> dict[str, str]:
    tax = record.tax
    return {
        "id": record.id, "legal_name": record.legal_name, "address": "\n".join(record.address),
        "country": record.country, "currency": record.currency, "tax_id": record.tax_id,
        "email": record.email, "purchase_order": record.purchase_order,
        "payment_days": "" if record.payment_days is None else str(record.payment_days),
        "category": tax.category if tax else "", "percent": tax.percent if tax else "",
        "reason": tax.reason if tax else "",
    }  # fmt: skip


def _form(
    console: Console, request: Request, user: User, record: Customer, fields: dict[str, str], seen: str,
    error: SealpackError | None = None,
) -> Response:  # fmt: skip
    crumbs = (("Customers", LIST), *(((record.legal_name, f"{LIST}/{record.id}"),) if record.id else ()))
    return console.render(
        request, user, "customer_edit.html", error.spec.http if error else 200, fields=fields, seen=seen,
        error=error, is_new=not record.id, crumbs=crumbs, tax_words=TAX_WORDS,
    )  # fmt: skip


async def post_edit(console: Console, request: Request, user: User) -> Response:
    """Put the record in the place of the one there was, after the checks that an imported one passes."""
    name = request.path_params["id"]
    form = await console.form(request)
    fields = {field: text(form, field, most=2000, needed=False) for field in _fields(_NO_ONE)}
    if name != NEW:
        fields["id"] = name
    record = await console.query(_record, name)
    seen = text(form, "seen", needed=False)
    try:
        await console.work(_save, console, user, fields, seen, name)
    except SealpackError as error:
        if error.spec.exit == 1:
            raise
        return _form(console, request, user, record, fields, seen, error)
    return console.redirect(f"{LIST}/{fields['id']}", f"The record of {fields['legal_name']} is saved.")


def _save(console: Console, user: User, fields: dict[str, str], seen: str, name: str) -> None:
    said = record_of(fields)
    with console.service.database.write() as connection:
        if _seen(_record(connection, name)) != seen:
            raise SealpackError("CHANGED_MEANWHILE", "somebody changed the record since you opened it")
        if name == NEW and parties.load_customer(connection, fields["id"]) is not None:
            raise SealpackError("REGISTRY_INVALID", f"there is a customer {fields['id']} already")
        parties.change_customer(connection, said, actor=console.actor(user))


def record_of(fields: dict[str, str]) -> dict[str, Any]:
    """The record as a customers file would say it, of what was typed; REGISTRY_INVALID."""
    said: dict[str, Any] = {name: fields[name] for name in _fields(_NO_ONE) if fields[name]}
    if "address" in said:
        said["address"] = [line.strip() for line in said["address"].splitlines() if line.strip()]
    if "payment_days" in said:
        if not said["payment_days"].isascii() or not said["payment_days"].isdigit():
            raise SealpackError("REGISTRY_INVALID", "days to pay must be a whole number")
        if len(said["payment_days"]) > 9:
            raise SealpackError("REGISTRY_INVALID", "so many days to pay are never over")
        said["payment_days"] = int(said["payment_days"])
    tax = {name: said.pop(name) for name in ("category", "percent", "reason") if name in said}
    if "category" in tax:
        said["tax"] = {"percent": "0"} | tax
    elif tax:
        raise SealpackError("REGISTRY_INVALID", "a tax rate or reason needs a tax category")
    return said


PAGES = (
    Page("GET", LIST, OFFICE, get_list),
    Page("GET", LIST + "/{id}", OFFICE, get_one),
    Page("GET", LIST + "/{id}/edit", CLERKS, get_edit),
    Page("POST", LIST + "/{id}/edit", CLERKS, post_edit),
)
