"""The console's routes: every page behind a session and a role, and what goes wrong told as a page.

Source: specs/console.md.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sealpack.format.errors import SealpackError, printable
from sealpack.settlement import users
from sealpack.settlement.console import entry, forms, pages
from sealpack.settlement.console.app import HOME, LOGIN, SETUP, Console, Page
from sealpack.settlement.console.rendering import HEADERS
from sealpack.settlement.users import User

Answer = Callable[[Request], Awaitable[Response]]
_LOG = logging.getLogger("sealpack.console")


def console_routes(console: Console) -> list[Route]:
    """Everything under /console/, and the way there."""
    console.pages = pages.PAGES
    made = [
        Route(page.path, _answering(console, partial(_guarded, console, page)), methods=[page.method])
        for page in pages.PAGES
    ]
    made += [
        Route(path, _answering(console, partial(handler, console)), methods=[method])
        for method, path, handler in entry.OPEN
    ]
    unknown = _answering(console, partial(_unknown, console))
    made += [
        Route("/", partial(_home), methods=["GET"]),
        Route("/console", partial(_home), methods=["GET"]),
        Route("/console/static/{name}", _answering(console, partial(_static, console)), methods=["GET"]),
        Route("/console/{rest:path}", unknown, methods=["GET", "POST"]),
    ]
    return made


def _answering(console: Console, answer: Answer) -> Answer:
    """An endpoint whose failures become pages, and whose answers carry the headers of every page."""

    async def endpoint(request: Request) -> Response:
        request.state.user = None
        try:
            forms.check_address(request)
            if request.method == "POST":
                forms.check_origin(request)
            response = await answer(request)
        except ClientDisconnect:
            return Response(status_code=400)
        except SealpackError as error:
            response = _failed(console, request, error)
        except Exception:
            _LOG.exception("%s %s", request.method, printable(request.url.path))
            response = _failed(console, request, SealpackError("INTERNAL", "the console failed"))
        finally:
            if (form := getattr(request.state, "form", None)) is not None:
                await form.close()
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if console.secure:
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response

    return endpoint


async def _guarded(console: Console, page: Page, request: Request) -> Response:
    """A page for those who are logged in, in one of its roles, and not too often."""
    user = request.state.user = await console.user(request)
    if user is None:
        return await _turned_away(console, request)
    console.service.meter.count(f"user {user.id}")
    if user.role not in page.roles:
        raise SealpackError(
            "ROLE_DENIED", f"this is not for the role {user.role}",
            remedy=f"ask somebody with the role {' or '.join(page.roles)}",
        )  # fmt: skip
    return await page.handler(console, request, user)


async def _turned_away(console: Console, request: Request) -> Response:
    """Nobody is logged in: on to the login, or to the set-up while there is no user at all."""
    if not await console.query(users.any_there):
        return console.redirect(SETUP)
    if request.method == "POST":
        raise SealpackError("LOGIN_INVALID", "the session is over", remedy="log in and do it again")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A link on another site: the browser keeps the session back until this site itself leads on.
        return console.render(request, None, "again.html")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return console.redirect(LOGIN if path == HOME else f"{LOGIN}?next={quote(path)}")


async def _home(_request: Request) -> Response:
    return RedirectResponse(HOME, 303, headers=HEADERS)


async def _static(console: Console, request: Request) -> Response:
    found = console.renderer.static.get(request.path_params["name"])
    if found is None:
        raise SealpackError("NOT_FOUND", "there is no such file")
    return found.response()


async def _unknown(console: Console, request: Request) -> Response:
    """A path that there is not: who is not logged in learns nothing about that."""
    user: User | None = await console.user(request)
    if user is None:
        return await _turned_away(console, request)
    request.state.user = user
    raise SealpackError("NOT_FOUND", "there is no such page", remedy="use the navigation or the search")


def _failed(console: Console, request: Request, error: SealpackError) -> Response:
    """What went wrong, in words, with its code and what to do."""
    ours = error.spec.exit == 1  # its words may name files, servers and users
    if error.spec.http >= 500:
        _LOG.error("%s %s: %s", request.method, printable(request.url.path), error)
    response = console.render(
        request, request.state.user, "error.html", error.spec.http, code=error.code, title=error.spec.title,
        message="" if ours else error.message, remedy=error.remedy,
    )  # fmt: skip
    if (wait := error.facts.get("retry_after_s")) is not None:
        response.headers["Retry-After"] = str(wait)
    if request.method == "POST":  # a body that nobody reads to its end
        response.headers["Connection"] = "close"
    return response
