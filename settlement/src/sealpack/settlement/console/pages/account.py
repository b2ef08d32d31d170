"""One's own account: who one is here, and another password."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import users
from sealpack.settlement.console import entry
from sealpack.settlement.console.app import Console, Page
from sealpack.settlement.console.forms import new_password
from sealpack.settlement.users import MAX_PASSWORD, ROLES, User

ACCOUNT = "/console/account"


async def get_account(console: Console, request: Request, user: User) -> Response:
    """Name, role, and the form for another password."""
    return _show(console, request, user)


def _show(console: Console, request: Request, user: User, error: SealpackError | None = None) -> Response:
    status = error.spec.http if error else 200
    return console.render(request, user, "account.html", status, error=error, least=users.MIN_PASSWORD)


async def post_account(console: Console, request: Request, user: User) -> Response:
    """Change the password: the old one is asked for, and every other session ends."""
    form = await console.form(request)
    old = str(form.get("old", ""))[:MAX_PASSWORD]
    try:
        await entry.checked(console, user.name, old, console.address(request))
        await console.hash(
            users.set_password, console.service.database, user.name, new_password(form),
            actor=console.actor(user),
        )  # fmt: skip
    except SealpackError as error:
        if error.code not in ("LOGIN_INVALID", "RATE_LIMITED", "USAGE"):
            raise
        return _show(console, request, user, error)
    return await entry.logged_in(console, request, user, ACCOUNT, "Your password is changed.")


PAGES = (
    Page("GET", ACCOUNT, ROLES, get_account),
    Page("POST", ACCOUNT, ROLES, post_account),
)
