"""Cases: held files, what they are about, and the decision where one is possible.

Source: specs/console.md, "Cases".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import cases, checks, parties, tables
from sealpack.settlement.cases import ACCEPT, REFUSE
from sealpack.settlement.console import case_words
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.paging import number_of
from sealpack.settlement.users import User

LIST = "/console/cases"
STATES = ("open", "accepted", "refused", "settled")
_PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a log is, as far as that is known."""

    license_id: str = ""
    device_id: str = ""
    label: str = ""
    customer: str = ""
    name: str = ""


async def get_cases(console: Console, request: Request, user: User) -> Response:
    """The cases of a state, by number; open ones by default."""
    state = request.query_params.get("state", "open")
    if state not in (*STATES, "all"):
        raise SealpackError("NOT_FOUND", "there is no such state of a case")
    after = number_of(request.query_params.get("after")) or 0
    everything = await console.service.read(cases.cases, console.service.database)
    counts = {name: sum(case.state == name for case in everything) for name in STATES}
    found = [c for c in everything if c.number > after and state in ("all", c.state)]
    shown = found[:_PER_PAGE]
    owners = await console.query(_owners, {case.origin for case in shown})
    page = {"items": shown, **({"next": str(shown[-1].number)} if len(found) > len(shown) else {})}
    return console.render(
        request, user, "cases.html", page=page, owners=owners, state=state, counts=counts,
        words=case_words.WORDS,
    )  # fmt: skip


async def get_case(console: Console, request: Request, user: User) -> Response:
    """One case with its proof."""
    case = await console.service.read(cases.find, console.service.database, _number(request))
    owners = await console.query(_owners, {case.origin})
    return console.render(
        request, user, "case.html", case=case, owner=owners[case.origin], words=case_words.WORDS[case.code],
        sides=case_words.sides(case.ours, case.theirs), may_decide=user.role in CLERKS and bool(case.can),
        crumbs=[("Cases", LIST)],
    )  # fmt: skip


async def post_case(console: Console, request: Request, user: User) -> Response:
    """Accept or refuse, with a reason."""
    number = _number(request)
    form = await console.form(request)
    verdict, reason = text(form, "verdict", most=10), text(form, "reason", most=1000)
    if verdict not in (ACCEPT, REFUSE):
        raise SealpackError("FORM_INVALID", "the verdict is accept or refuse")
    case, freed = await console.work(
        cases.decide, console.service.database, number, verdict, reason, actor=console.actor(user)
    )
    told = f" {len(freed)} file{'s' * (len(freed) != 1)} could be taken." if verdict == ACCEPT else ""
    return console.redirect(f"{LIST}/{number}", f"Case {number} is {case.state}.{told}")


def _number(request: Request) -> int:
    number = number_of(request.path_params["number"])
    if number is None:
        raise SealpackError("NOT_FOUND", "there is no such case")
    return number


def _owners(connection: sa.Connection, origins: set[str]) -> dict[str, Owner]:
    return {origin: _owner(connection, origin) for origin in origins}


def _owner(connection: sa.Connection, origin: str) -> Owner:
    parts = origin.split("/")
    license_id, device_id = checks.license_id_of(origin), parts[3] if len(parts) == 5 else ""
    if not license_id:
        return Owner()
    device, license = tables.activations.c, tables.licenses.c
    label = connection.execute(
        sa.select(device.device_label).where(device.license_id == license_id, device.device_id == device_id)
    ).scalar()
    customer: Any = connection.execute(
        sa.select(license.customer_id).where(license.license_id == license_id)
    ).scalar()
    record = parties.load_customer(connection, customer) if customer else None
    name = record.legal_name if record else customer or ""
    return Owner(license_id, device_id, label or "", customer or "", name)


PAGES = (
    Page("GET", LIST, OFFICE, get_cases),
    Page("GET", f"{LIST}/{{number}}", OFFICE, get_case),
    Page("POST", f"{LIST}/{{number}}", CLERKS, post_case),
)
