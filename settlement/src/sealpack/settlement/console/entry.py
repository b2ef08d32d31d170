"""Login, logout and the first set-up: what is open to those who are not logged in.

Source: specs/console.md, "Login" and "Set-up".
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError, printable
from sealpack.settlement import users
from sealpack.settlement.audit import Actor
from sealpack.settlement.console import sessions
from sealpack.settlement.console.app import HOME, LOGIN, SETUP, Console, own_path
from sealpack.settlement.console.forms import new_password, text
from sealpack.settlement.users import MAX_PASSWORD, User

START = "/console/start"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that is taken for another
_LOG = logging.getLogger("sealpack.console")


def new_code() -> str:
    """A one-time code of 80 bits, in groups that can be typed."""
    letters = [secrets.choice(_LETTERS) for _ in range(16)]
    return "-".join("".join(letters[n : n + 4]) for n in range(0, 16, 4))


async def get_login(console: Console, request: Request) -> Response:
    """The login, or on to the page when somebody is logged in."""
    wanted = own_path(request.query_params.get("next", HOME))
    if await console.user(request) is not None:
        return console.redirect(wanted)
    if not await console.query(users.any_there):
        return console.redirect(SETUP)
    return _login(console, request, wanted)


def _login(
    console: Console, request: Request, wanted: str, name: str = "", error: SealpackError | None = None
) -> Response:
    status = error.spec.http if error else 200
    return console.render(request, None, "login.html", status, next=wanted, name=name, error=error)


async def post_login(console: Console, request: Request) -> Response:
    """Look at name and password; LOGIN_INVALID does not tell which of them was wrong."""
    form = await console.form(request)
    wanted = own_path(text(form, "next", most=4096, needed=False))
    name, password = text(form, "name", needed=False), str(form.get("password", ""))[:MAX_PASSWORD]
    address = console.address(request)
    try:
        user, stored = await checked(console, name, password, address)
        return await logged_in(console, request, user, wanted, stored=stored)
    except SealpackError as error:
        if error.code not in ("LOGIN_INVALID", "RATE_LIMITED"):
            raise
        _LOG.warning("login as %s from %s: %s", printable(name)[:64], printable(address), error.code)
        response = _login(console, request, wanted, name, error)
        if (wait := error.facts.get("retry_after_s")) is not None:
            response.headers["Retry-After"] = str(wait)
        return response


async def checked(console: Console, name: str, password: str, address: str) -> tuple[User, str]:
    """The user of that name and password, and the password as it is kept; LOGIN_INVALID, RATE_LIMITED."""
    console.throttle.begin(name, address)
    found = await console.query(users.find, name)
    right = await console.hash(users.is_right, found[1] if found else None, password)
    if found is None or not right:
        raise SealpackError("LOGIN_INVALID", "name or password is wrong")
    console.throttle.succeeded(name, address)
    return found


async def logged_in(
    console: Console, request: Request, user: User, path: str, notice: str = "", *, stored: str | None = None
) -> Response:
    """On to a page in a new session, whatever the browser held before; `stored` as :func:`sessions.begin`."""
    token = await console.work(sessions.begin, console.service.database, user, console.now, stored)
    old = request.cookies.get(console.cookie("session"))
    if old:
        await console.work(sessions.end, console.service.database, old)
    response = console.redirect(path, notice)
    console.set_cookie(response, "session", token)
    console.drop_cookie(response, "visit")
    return response


async def post_logout(console: Console, request: Request) -> Response:
    """End the session, there and here."""
    await console.form(request)
    token = request.cookies.get(console.cookie("session"), "")
    await console.work(sessions.end, console.service.database, token)
    response = console.redirect(LOGIN, "You are logged out.")
    console.drop_cookie(response, "session")
    return response


async def get_setup(console: Console, request: Request) -> Response:
    """The first admin, while there is no user."""
    if await console.query(users.any_there):
        return console.redirect(HOME)
    return _setup(console, request)


def _setup(
    console: Console, request: Request, name: str = "", error: SealpackError | None = None
) -> Response:
    status = error.spec.http if error else 200
    return console.render(
        request, None, "setup.html", status, name=name, error=error, least=users.MIN_PASSWORD,
        has_code=console.code is not None,
    )  # fmt: skip


async def post_setup(console: Console, request: Request) -> Response:
    """Make the first admin for whoever knows the code that stands on the service's terminal."""
    form = await console.form(request)
    name = text(form, "name", needed=False)
    try:
        user = await _first(console, request, name, str(form.get("code", "")), new_password(form))
    except SealpackError as error:
        if error.code not in ("LOGIN_INVALID", "RATE_LIMITED", "USAGE"):
            raise
        return _setup(console, request, name, error)
    console.code = None
    return await logged_in(console, request, user, START, f"Welcome, {user.name}. You are an admin.")


async def _first(console: Console, request: Request, name: str, code: str, password: str) -> User:
    address = console.address(request)
    console.throttle.begin("the set-up", address)
    said = code.strip().upper().encode("utf-8", "replace")
    if console.code is None or not hmac.compare_digest(said, console.code.encode()):
        raise SealpackError("LOGIN_INVALID", "the set-up code is wrong", remedy="see where the service runs")
    console.throttle.succeeded("the set-up", address)
    make = partial(users.add, actor=Actor("set-up", console.now), first=True)
    return await console.hash(make, console.service.database, name, "admin", "", password)


Handler = Callable[[Console, Request], Awaitable[Response]]
OPEN: tuple[tuple[str, str, Handler], ...] = (
    ("GET", LOGIN, get_login),
    ("POST", LOGIN, post_login),
    ("POST", "/console/logout", post_logout),
    ("GET", SETUP, get_setup),
    ("POST", SETUP, post_setup),
)
