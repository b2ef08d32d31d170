"""What parties earned, what of it customers have paid for, and paying it out. A creator sees its own.

Source: specs/console.md, "Billing".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import desk, payouts, receivables
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.inputs import day_of, files, today
from sealpack.settlement.console.pages.invoices import converted
from sealpack.settlement.payouts import Key, Part, Payout
from sealpack.settlement.statements import payout as statements
from sealpack.settlement.statements.files import Statement
from sealpack.settlement.users import User

LIST = "/console/payouts"
_CRUMBS = [("Payouts", LIST)]
_MAX_KEY = 2000  # characters of a ticked box
_READERS = (*OFFICE, "creator")


def path(party: str) -> str:
    """Where a party's statement is."""
    return f"{LIST}/{quote(party, safe='')}"


async def get_list(console: Console, request: Request, user: User) -> Response:
    """Every party; a creator is led to its own page."""
    if user.role == "creator":
        return console.redirect(path(user.party or "-"))
    found = await console.query(payouts.payouts)
    return _ask(console, request, user, found)


def _ask(
    console: Console, request: Request, user: User, found: list[Payout], error: SealpackError | None = None
) -> Response:
    return console.render(
        request, user, "payouts.html", error.spec.http if error else 200, rows=found, place=path, error=error,
        today=today(console.now), may_change=user.role in CLERKS, key=_key_text,
    )  # fmt: skip


def _key_text(payout: Payout) -> str:
    """What a ticked box says: who, and how much was shown to be due."""
    return json.dumps([*payout.key, payout.due])


async def post_list(console: Console, request: Request, user: User) -> Response:
    """Tell what would be paid to whom, or book it when that was confirmed."""
    form = await console.form(request)
    found = await console.query(payouts.payouts)
    try:
        expect = _expected([str(value) for value in form.getlist("payout")])
        day, reference = day_of(text(form, "date", most=10)), text(form, "reference", most=200)
        _check(found, expect)
        if form.get("confirmed") == "yes":
            made = await console.work(
                payouts.pay_out, console.service.database, day, reference, expect=expect,
                actor=console.actor(user),
            )  # fmt: skip
            return console.redirect(LIST, f"{len(made)} payout{'s' * (len(made) != 1)} recorded.")
    except SealpackError as error:
        if error.spec.exit == 1:
            raise
        return _ask(console, request, user, found, error)
    chosen = [one for one in found if one.key in expect]
    return console.render(
        request, user, "payouts_review.html", rows=chosen, day=day, reference=reference, crumbs=_CRUMBS,
        key=_key_text,
    )  # fmt: skip


def _expected(ticked: list[str]) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for value in ticked:
        try:
            issuer, party, currency, due = json.loads(value[:_MAX_KEY])
        except (ValueError, TypeError, RecursionError):
            due = None
        if type(due) is not int:
            raise SealpackError("FORM_INVALID", "the form is not whole", remedy="open it again")
        found[str(issuer), str(party), str(currency)] = due
    if not found:
        raise SealpackError("FORM_INVALID", "nobody is ticked", remedy="tick who is to be paid")
    return found


def _check(found: list[Payout], expect: Mapping[Key, int]) -> None:
    """CHANGED_MEANWHILE unless what is due is what was shown: also when the form was sent before."""
    due = {one.key: one.due for one in found}
    if any(due.get(key) != amount or amount <= 0 for key, amount in expect.items()):
        raise SealpackError(
            "CHANGED_MEANWHILE", "what is due is not what was looked at: nothing was booked by this form"
        )


# --- one party ----------------------------------------------------------------------------------------


def _party(request: Request, user: User) -> str:
    """Whose statement is asked for; ROLE_DENIED to a creator for another's."""
    party: str = request.path_params["party"]
    if user.role == "creator" and party != user.party:
        raise SealpackError("ROLE_DENIED", "a creator sees its own statements")
    return party


async def get_one(console: Console, request: Request, user: User) -> Response:
    """What a party earned per license and month, and what it was paid."""
    party = _party(request, user)
    found = await console.query(_one, party)
    if not found["rows"] and user.role != "creator":
        raise SealpackError("NOT_FOUND", f"{party} has not earned anything here", remedy="see Payouts")
    return console.render(
        request, user, "payout.html", party=party, here=path(party),
        crumbs=[] if user.role == "creator" else _CRUMBS, **found,
    )  # fmt: skip


def _one(connection: sa.Connection, party: str) -> dict[str, Any]:
    standings = receivables.standings(connection)
    mine: list[Part] = [one for one in payouts.parts(standings) if one.party == party]
    mine.sort(key=lambda one: (one.period, one.license_id), reverse=True)
    rows = [one for one in payouts.payouts(connection) if one.party == party]
    return {"rows": rows, "parts": mine, "paid": desk.paid_to(connection, party)}


async def get_file(console: Console, request: Request, user: User) -> Response:
    """A party's statement: of a payout, or of what happened since the last one."""
    party, form = _party(request, user), request.path_params["form"]
    reference, day = request.query_params.get("reference"), today(console.now)

    def make(connection: sa.Connection) -> list[Statement]:
        if reference is not None:
            return statements.of_payout(connection, party, reference)
        return statements.since_last(connection, party, day)

    made = await console.query(make)
    return await console.paper(files, made, form, f"payouts-{party}-{day}", converted)


PAGES = (
    Page("GET", LIST, _READERS, get_list),
    Page("POST", LIST, CLERKS, post_list),
    Page("GET", LIST + "/{party}", _READERS, get_one),
    Page("GET", LIST + "/{party}/file/{form}", _READERS, get_file),
)
