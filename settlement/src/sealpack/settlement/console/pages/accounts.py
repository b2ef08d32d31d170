"""Who paid, who owes for how long, how each customer's account moved, and the ledger behind it.

Source: specs/console.md, "Billing".
"""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import beancount, db, desk, issuing, ledger, reports
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.inputs import day_of, file, files, today
from sealpack.settlement.console.pages.invoices import converted, path
from sealpack.settlement.console.paging import number_of
from sealpack.settlement.service.views import Span, cursor
from sealpack.settlement.statements import customer as statements
from sealpack.settlement.users import User

_PER_PAGE = 50
_STATEMENTS = "/console/statements"


# --- payments -----------------------------------------------------------------------------------------


async def get_payments(console: Console, request: Request, user: User) -> Response:
    """What was paid, given back, given up and paid out, the newest first."""
    kind = request.query_params.get("kind", "")
    before = number_of(request.query_params.get("after"))
    found, key = await console.query(desk.payments, kind=kind, before=before, limit=_PER_PAGE)
    page = {"items": found, **({"next": str(key)} if key is not None else {})}
    return await _payments(console, request, user, page, kind)


async def _payments(
    console: Console, request: Request, user: User, page: dict[str, Any], kind: str = "",
    error: SealpackError | None = None,
) -> Response:  # fmt: skip
    names = await console.query(desk.names, [one["party"] for one in page["items"]])
    return console.render(
        request, user, "payments.html", error.spec.http if error else 200, page=page, kind=kind, error=error,
        kinds=desk.PAYMENT_KINDS, may_change=user.role in CLERKS, names=names,
    )  # fmt: skip


async def post_payments(console: Console, request: Request, user: User) -> Response:
    """On to the form of the invoice whose number was typed."""
    form = await console.form(request)
    name = text(form, "number", most=100)
    try:
        await console.query(issuing.find, name)
    except SealpackError as error:
        if error.code != "INVOICE_UNKNOWN":
            raise
        found, _ = await console.query(desk.payments, limit=_PER_PAGE)
        return await _payments(console, request, user, {"items": found}, error=error)
    return console.redirect(path(name, "/pay"))


# --- open items ---------------------------------------------------------------------------------------


async def get_aging(console: Console, request: Request, user: User) -> Response:
    """Who owes for how long, on a day; as a page or as CSV."""
    said = request.query_params.get("on")
    on = day_of(said) if said else today(console.now)
    found = await console.query(reports.aging, on)
    if request.query_params.get("format") == "csv":
        data = reports.as_csv(reports.AGING_COLUMNS, [one.cells() for one in found])
        return file(data.encode(), f"aging-{on}.csv")
    totals: dict[str, list[int]] = {}
    for one in found:
        row = totals.setdefault(one.currency, [0] * (len(reports.BUCKETS) + 2))
        for n, amount in enumerate((*one.buckets, one.open, one.on_account)):
            row[n] += amount
    names = await console.query(desk.names, [one.customer for one in found])
    return console.render(
        request, user, "aging.html", rows=found, on=on, buckets=reports.BUCKETS, totals=totals, names=names
    )


# --- statements of customers --------------------------------------------------------------------------


async def get_statements(console: Console, request: Request, user: User) -> Response:
    """Every customer that anything was booked for, with what is open and on account."""
    span = Span.parse(str(_PER_PAGE), request.query_params.get("after"), str)
    after = str(span.after[0]) if span.after else ""
    found = await console.query(_balances, today(console.now), after)
    shown = found[:_PER_PAGE]
    page = {"items": shown, **({"next": cursor([shown[-1]["customer"]])} if len(found) > _PER_PAGE else {})}
    return console.render(request, user, "statements.html", page=page)


def _balances(connection: sa.Connection, day: date, after: str) -> list[dict[str, Any]]:
    """So many customers after an id, and one more where there are more."""
    columns = db.invoices.c
    query = sa.select(columns.customer_id).distinct().where(columns.customer_id > after)
    ids = list(connection.execute(query.order_by(columns.customer_id).limit(_PER_PAGE + 1)).scalars())
    aged: dict[str, list[reports.Aged]] = {}
    for one in reports.aging(connection, day):
        aged.setdefault(one.customer, []).append(one)
    called = desk.names(connection, ids)
    return [{"customer": id, "name": called.get(id, id), "aged": aged.get(id, [])} for id in ids]


def _span(request: Request, now: int) -> tuple[date | None, date]:
    said = request.query_params
    first = day_of(said["from"]) if said.get("from") else None
    return first, day_of(said["to"]) if said.get("to") else today(now)


async def get_statement(console: Console, request: Request, user: User) -> Response:
    """A customer's documents and payments with a running balance."""
    customer = request.path_params["customer"]
    first, last = _span(request, console.now)
    found = await console.query(reports.statement, customer, first, last)
    aged = [one for one in await console.query(reports.aging, last) if one.customer == customer]
    name = (await console.query(desk.names, [customer])).get(customer, customer)
    return console.render(
        request, user, "statement.html", customer=customer, name=name, rows=found, first=first, last=last,
        aged=aged,
        crumbs=[("Statements", _STATEMENTS)], here=f"{_STATEMENTS}/{quote(customer, safe='')}",
    )  # fmt: skip


async def get_statement_file(console: Console, request: Request, user: User) -> Response:
    """The statement as it is sent: one per currency, several in a zip."""
    customer, form = request.path_params["customer"], request.path_params["form"]
    first, last = _span(request, console.now)
    made = await console.query(statements.statements, customer, first, last)
    return await console.paper(files, made, form, f"statement-{customer}-{last}", converted)


# --- the ledger ---------------------------------------------------------------------------------------


async def get_ledger(console: Console, request: Request, user: User) -> Response:
    """The balances of all accounts, and whether every transaction balances."""

    def look(connection: sa.Connection) -> dict[str, Any]:
        every = ledger.trial_balance(connection)
        folded = {key: _folded(accounts) for key, accounts in every.items()}
        return {"balances": folded, "wrong": ledger.unbalanced(connection)}

    return console.render(request, user, "ledger.html", **await console.query(look))


def _folded(accounts: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    """A row per account, its parties summed; what parties of the price plans are owed, one by one."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (account, party), amount in accounts.items():
        key = account, party if account == ledger.PAYABLE else ""
        row = rows.setdefault(key, {"account": account, "party": key[1], "count": 0, "balance": 0})
        row["count"] += bool(party and amount)
        row["balance"] += amount
    return [row for row in rows.values() if row["balance"] or row["count"]]


async def get_beancount(console: Console, request: Request, user: User) -> Response:
    """Every transaction as beancount text."""

    def make(connection: sa.Connection) -> bytes:
        return beancount.text(ledger.transactions(connection)).encode()

    return file(await console.slow_query(make), "settlement.beancount")


PAGES = (
    Page("GET", "/console/payments", OFFICE, get_payments),
    Page("POST", "/console/payments", CLERKS, post_payments),
    Page("GET", "/console/aging", OFFICE, get_aging),
    Page("GET", _STATEMENTS, OFFICE, get_statements),
    Page("GET", _STATEMENTS + "/{customer}", OFFICE, get_statement),
    Page("GET", _STATEMENTS + "/{customer}/file/{form}", OFFICE, get_statement_file),
    Page("GET", "/console/ledger", OFFICE, get_ledger),
    Page("GET", "/console/ledger/file/beancount", OFFICE, get_beancount),
)
