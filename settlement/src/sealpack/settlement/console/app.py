"""The console's frame: what a page is, and what every page is given.

Source: specs/console.md. Pages are in `pages/`; routes and who may call them are put together in `routes`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import anyio
import anyio.to_thread
import sqlalchemy as sa
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sealpack.format.errors import SealpackError
from sealpack.settlement.audit import Actor
from sealpack.settlement.console import forms, nav, sessions
from sealpack.settlement.console.rendering import Renderer
from sealpack.settlement.console.throttle import Throttle
from sealpack.settlement.service.core import Service
from sealpack.settlement.users import ROLES, User

T = TypeVar("T")
Handler = Callable[["Console", Request, User], Awaitable[Response]]

OFFICE = ("finance", "admin", "auditor")  # who may read everything
CLERKS = ("finance", "admin")  # who may change it
HOME, LOGIN, SETUP = "/console/", "/console/login", "/console/setup"
_LOGINS = 2  # passwords worked on at the same time: each takes 128 MiB
_WRITERS = 4  # beside the uploads of the API
_SLOW = 2  # of what may take minutes
_PAPERS = 2  # documents made into PDF or e-invoices
_BEHIND = 20  # waiting to be done after a page
_NOTICE_S = 60
_MAX_NOTICE = 500  # characters
_MAX_COOKIE = 3600
_LOG = logging.getLogger("sealpack.console")


@dataclass(frozen=True, slots=True)
class Page:
    """A page or an action: GET or POST, a path under /console/, and the roles it is for."""

    method: str
    path: str
    roles: tuple[str, ...]
    handler: Handler

    def __post_init__(self) -> None:
        assert self.method in ("GET", "POST") and self.path.startswith("/console/"), self.path
        assert self.roles and set(self.roles) <= set(ROLES), self.path


@dataclass
class Console:
    """What pages are given. `secure`: browsers come over TLS, so cookies are for TLS alone.

    `code` is the one-time code of the first set-up, while there is no user.
    """

    service: Service
    secure: bool = False
    behind_proxy: bool = False
    code: str | None = None
    pages: tuple[Page, ...] = ()
    throttle: Throttle = field(default_factory=Throttle)
    renderer: Renderer = field(init=False)
    _hashers: anyio.CapacityLimiter = field(init=False)
    _writers: anyio.CapacityLimiter = field(init=False)
    _slow: anyio.CapacityLimiter = field(init=False)
    _papers: anyio.CapacityLimiter = field(init=False)
    _rest: anyio.CapacityLimiter = field(init=False)
    _behind: set[str] = field(default_factory=set)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.renderer = Renderer(self.service.database.kind)
        self._hashers = anyio.CapacityLimiter(_LOGINS)
        self._writers = anyio.CapacityLimiter(_WRITERS)
        self._slow = anyio.CapacityLimiter(_SLOW)
        self._papers = anyio.CapacityLimiter(_PAPERS)
        self._rest = anyio.CapacityLimiter(1)

    # --- the database ---

    @property
    def now(self) -> int:
        """Unix seconds."""
        return self.service.clock()

    def actor(self, user: User) -> Actor:
        """Who does something now, for the audit trail."""
        return user.actor(self.now)

    async def query(self, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """Call `work(connection, *args)` in a thread, on one moment of the database."""
        return await self.service.query(partial(work, **more), *args)

    async def work(self, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """Call `work(*args)` in a thread, as few at a time as write."""
        return await anyio.to_thread.run_sync(partial(work, *args, **more), limiter=self._writers)

    async def slow(self, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """The same for what may take minutes: nobody who does anything else waits for it."""
        return await anyio.to_thread.run_sync(partial(work, *args, **more), limiter=self._slow)

    async def slow_query(self, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """`query` for what may take minutes."""
        return await self.slow(self.service.look, partial(work, **more), *args)

    async def paper(self, work: Callable[..., T], *args: Any) -> T:
        """The same for making a document's file, which takes a processor and no database."""
        return await anyio.to_thread.run_sync(work, *args, limiter=self._papers)

    async def behind(self, name: str, work: Callable[..., object], *args: Any, **more: Any) -> None:
        """Do something after a page was sent, one thing at a time; not again while it waits or runs."""
        if name in self._behind or len(self._behind) >= _BEHIND:
            return
        self._behind.add(name)
        try:
            await anyio.to_thread.run_sync(partial(work, *args, **more), limiter=self._rest)
        except SealpackError as error:
            _LOG.warning("%s", error)
        finally:
            self._behind.discard(name)

    async def hash(self, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """The same for what works on a password."""
        return await anyio.to_thread.run_sync(partial(work, *args, **more), limiter=self._hashers)

    # --- what comes in ---

    async def form(self, request: Request, *, max_bytes: int = forms.MAX_BYTES, files: int = 0) -> FormData:
        """The form that was sent, with at most so many files; FORM_INVALID unless it is of this session."""
        limits = self.service.limits
        form = await forms.read(request, self.browser(request), limits, max_bytes=max_bytes, max_files=files)
        request.state.form = form
        return form

    def browser(self, request: Request) -> str:
        """What the browser of a request holds: its session's token, or before a login a token of its own."""
        return request.cookies.get(self.cookie("session")) or request.cookies.get(self.cookie("visit"), "")

    async def user(self, request: Request) -> User | None:
        """Who is logged in; that the session was used is noted."""
        token = request.cookies.get(self.cookie("session"))
        if not token:
            return None
        now = self.now
        found = await self.query(sessions.user_of, token, now)
        if found is None:
            return None
        user, seen_at = found
        if now - seen_at >= sessions.TOUCH_S:
            self._later(sessions.touch, self.service.database, token, now)
        return user

    def _later(self, work: Callable[..., None], *args: Any) -> None:
        """Write something nobody waits for."""

        async def run() -> None:
            try:
                await self.work(work, *args)
            except SealpackError as error:
                _LOG.warning("%s", error)

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def address(self, request: Request) -> str:
        """Where a request comes from; behind a proxy, what that says."""
        if self.behind_proxy and (said := request.headers.getlist("x-forwarded-for")):
            return said[-1].rpartition(",")[2].strip()[:64]
        return request.client.host if request.client else ""

    # --- what goes out ---

    def render(
        self, request: Request, user: User | None, template: str, status: int = 200, **context: Any
    ) -> Response:
        """A page made of a template of `templates/`, which extends `layout.html`.

        Every template is also given `user`, `path`, `nav`, `notice`, `csrf_token`, `version`, `database`;
        `crumbs` may name the pages above this one: (label, path).
        """
        said = unquote(request.cookies.get(self.cookie("notice"), ""))[:_MAX_NOTICE]
        token = self.browser(request) or sessions.new_token()
        context.setdefault("crumbs", ())
        context.update(
            request=request, user=user, path=request.url.path, notice=said, csrf_token=sessions.csrf(token),
            nav=self._navigation(user, request.url.path),
        )  # fmt: skip
        response = self.renderer.render(template, status, context)
        if not self.browser(request):
            self.set_cookie(response, "visit", token)
        if said:
            self.drop_cookie(response, "notice")
        return response

    def _navigation(self, user: User | None, path: str) -> list[nav.Group]:
        """The side navigation: the pages that are for the user."""
        seen = {p.path for p in self.pages if user and p.method == "GET" and user.role in p.roles}
        return nav.groups(seen, path)

    def redirect(self, path: str, notice: str = "") -> Response:
        """Go on to a page of the console (303), which then shows the notice once."""
        assert own_path(path) == path, path
        response = RedirectResponse(path, 303)
        if notice:  # browsers keep cookies of 4 KiB: a character is up to twelve there
            while len(said := quote(notice[:_MAX_NOTICE])) > _MAX_COOKIE:
                notice = notice[: min(len(notice), _MAX_NOTICE) * 3 // 4]
            self.set_cookie(response, "notice", said, _NOTICE_S)
        return response

    def cookie(self, name: str) -> str:
        """What a cookie is called; over TLS browsers bind such a name to this very host."""
        return f"{'__Host-' if self.secure else ''}sealpack_{name}"

    def set_cookie(self, response: Response, name: str, value: str, max_age: int | None = None) -> None:
        """Give the browser something that no script and no other site can use."""
        response.set_cookie(
            self.cookie(name), value, max_age, path="/", secure=self.secure, httponly=True, samesite="strict"
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        """Take it back."""
        response.delete_cookie(
            self.cookie(name), path="/", secure=self.secure, httponly=True, samesite="strict"
        )


def own_path(text: str) -> str:
    """`text` when it is a path of the console, the home page otherwise: nobody is sent elsewhere."""
    plain = text.isascii() and text.isprintable() and not set(text) & set('\\ "<>')
    return text if plain and text.startswith("/console/") and "/../" not in f"{text}/" else HOME


def count(connection: sa.Connection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    """How many rows there are."""
    return connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()
