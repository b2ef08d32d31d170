"""Access: users of the console and tokens of the API; for admins.

Source: specs/console.md, "Access". A token, and a password that an admin sets, is shown to nobody else.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import users
from sealpack.settlement.console.app import Console, Page
from sealpack.settlement.console.forms import new_password, text
from sealpack.settlement.console.paging import number_of
from sealpack.settlement.service import tokens
from sealpack.settlement.users import User

ADMIN = ("admin",)
LIST = "/console/access"
_MAX_DAYS = 36_500


async def get_access(console: Console, request: Request, user: User) -> Response:
    """Who may log in, and which tokens there are."""
    return await _show(console, request, user)


async def _show(
    console: Console, request: Request, user: User, made: dict[str, str] | None = None
) -> Response:
    accounts, listed = await console.query(_look)
    return console.render(
        request, user, "access.html", accounts=accounts, tokens=listed, now=console.now, made=made,
        roles=users.ROLES, token_roles=tokens.ROLES, least=users.MIN_PASSWORD,
    )  # fmt: skip


def _look(connection: sa.Connection) -> tuple[list[users.Account], list[tokens.Token]]:
    return users.listed(connection), tokens.listed(connection)


async def post_user(console: Console, request: Request, user: User) -> Response:
    """Make a user."""
    form = await console.form(request)
    name, role = text(form, "name", most=64), text(form, "role", most=20)
    party = text(form, "party", most=200, needed=False)
    scope = f"party:{party}" if party else ""
    await console.hash(
        users.add, console.service.database, name, role, scope, new_password(form), actor=console.actor(user)
    )
    return console.redirect(LIST, f"{name.lower()} can log in now.")


async def post_change(console: Console, request: Request, user: User) -> Response:
    """Disable or enable a user."""
    form = await console.form(request)
    name, what = text(form, "name", most=64), text(form, "what", most=20)
    if what not in ("disable", "enable"):
        raise SealpackError("FORM_INVALID", "a user is disabled or enabled")
    change = users.disable if what == "disable" else users.enable
    await console.work(change, console.service.database, name, actor=console.actor(user))
    return console.redirect(LIST, f"{name} is {what}d.")


async def post_password(console: Console, request: Request, user: User) -> Response:
    """Give a user another password."""
    form = await console.form(request)
    name = text(form, "name", most=64)
    await console.hash(
        users.set_password, console.service.database, name, new_password(form), actor=console.actor(user)
    )
    return console.redirect(LIST, f"{name} has a new password and is logged out everywhere.")


async def post_token(console: Console, request: Request, user: User) -> Response:
    """Make a token; it is on the page that answers, and never again."""
    form = await console.form(request)
    name, role = text(form, "name", most=64), text(form, "role", most=20)
    if role not in tokens.ROLES:
        raise SealpackError("FORM_INVALID", "there is no such role")
    made: Any = await console.work(
        tokens.new, console.service.database, name, role, _scope(form), _days(form), actor=console.actor(user)
    )
    return await _show(console, request, user, {"name": name, "token": made})


def _scope(form: FormData) -> str:
    kind, whom = text(form, "kind", most=20, needed=False), text(form, "whom", most=200, needed=False)
    return f"{kind}:{whom}" if kind or whom else ""


def _days(form: FormData) -> int | None:
    said = text(form, "days", most=6, needed=False)
    days = number_of(said)
    if said and (days is None or not 0 < days <= _MAX_DAYS):
        raise SealpackError("FORM_INVALID", f"days are 1 to {_MAX_DAYS}, or nothing")
    return days


async def post_revoke(console: Console, request: Request, user: User) -> Response:
    """End a token."""
    form = await console.form(request)
    name = text(form, "name", most=64)
    await console.work(tokens.revoke, console.service.database, name, actor=console.actor(user))
    return console.redirect(LIST, f"The token {name} is revoked.")


PAGES = (
    Page("GET", LIST, ADMIN, get_access),
    Page("POST", f"{LIST}/users", ADMIN, post_user),
    Page("POST", f"{LIST}/users/change", ADMIN, post_change),
    Page("POST", f"{LIST}/users/password", ADMIN, post_password),
    Page("POST", f"{LIST}/tokens", ADMIN, post_token),
    Page("POST", f"{LIST}/tokens/revoke", ADMIN, post_revoke),
)
