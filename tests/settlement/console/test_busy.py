"""The console while somebody asks for much: nobody else waits for that."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from support.books import Books
from support.clerk import PASSWORD, add_user
from support.service import make_token, running

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, postgres, unbilled
from sealpack.settlement.console import app
from sealpack.settlement.service import limits, uploads
from sealpack.settlement.service.app import Service

pytestmark = pytest.mark.sqlite_only
TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')
MANY = 9  # more than anything is done at the same time


class Held:
    """Work that does not end before it is let go; `started` says how often it began."""

    def __init__(self, answer: Any = None) -> None:
        self.answer, self.started, self._go = answer, 0, threading.Event()

    def __call__(self, *_args: Any, **_more: Any) -> Any:
        self.started += 1
        assert self._go.wait(60)
        return self.answer

    def let_go(self) -> None:
        """It ends now."""
        self._go.set()


class Site:
    """A console that listens, and who came."""

    def __init__(self, url: str) -> None:
        self.url, self.came = url, ExitStack()

    def client(self, **more: Any) -> httpx2.Client:
        """A browser of its own."""
        return self.came.enter_context(httpx2.Client(base_url=self.url, timeout=60, trust_env=False, **more))

    def login(self, name: str) -> tuple[httpx2.Client, str]:
        """Somebody who is logged in, and the token of their forms."""
        return log_in(self.client(), name)


def log_in(http: httpx2.Client, name: str) -> tuple[httpx2.Client, str]:
    """The same client, after the form of the login."""
    token = TOKEN.search(http.get("/console/login").text)
    assert token is not None
    answer = http.post("/console/login", data={"name": name, "password": PASSWORD, "csrf": token[1]})
    assert answer.status_code == 303, answer.text
    mine = TOKEN.search(http.get("/console/account").text)
    assert mine is not None
    return http, mine[1]


@contextmanager
def at_once(held: Held, call: Callable[[], int]) -> Iterator[list[int]]:
    """Many calls that wait for the same work, let go at the end; their statuses."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(MANY)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        held.let_go()
        for thread in threads:
            thread.join(60)


@pytest.fixture
def site(books: Books) -> Iterator[Site]:
    for role in ("finance", "auditor"):
        add_user(books.database, role)
    with running(Service(books.database)) as address:
        made = Site(address)
        with made.came:
            yield made


def test_many_who_verify_hold_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held((1, "0" * 64))
    monkeypatch.setattr(audit, "verify", held)
    auditor, token = site.login("auditor")
    with at_once(
        held, lambda: auditor.post("/console/audit/verify", data={"csrf": token}).status_code
    ) as told:
        clerk, _ = site.login("finance")
        for path in ("", "payments", "files", "drafts"):
            assert clerk.get(f"/console/{path}").status_code == 200
        assert not told and held.started <= 2
    assert told == [200] * MANY


def test_many_who_export_hold_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealpack.settlement.console.pages import exports

    held = Held(({"a.json": b"{}"}, {}))
    monkeypatch.setitem(exports._MAKERS, "json", held)
    auditor, _ = site.login("auditor")
    address = "/console/exports/json?month=2026-10"
    with at_once(held, lambda: auditor.get(address).status_code) as told:
        clerk, _ = site.login("finance")
        assert clerk.get("/console/invoices").status_code == 200 and not told
    assert told == [200] * MANY


def test_many_who_print_hold_nobody_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealpack.settlement.console.pages import invoices

    held = Held(b"%PDF-")
    monkeypatch.setattr(invoices, "stored", lambda *_: b"{}")
    monkeypatch.setattr(invoices, "converted", held)
    auditor, _ = site.login("auditor")
    with at_once(held, lambda: auditor.get("/console/invoices/A-1/file/pdf").status_code) as told:
        clerk, _ = site.login("finance")
        assert clerk.get("/console/invoices").status_code == 200 and not told
    assert told == [200] * MANY


def test_what_is_done_after_a_page_is_done_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    monkeypatch.setattr(unbilled, "catch_up", held)
    auditor, _ = site.login("auditor")
    try:
        for _ in range(MANY):
            assert auditor.get("/console/unbilled").status_code == 200
        site.login("finance")
        assert held.started == 1
    finally:
        held.let_go()


def test_many_who_upload_hold_nobody_up(books: Books, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(uploads.Taken())
    monkeypatch.setattr(uploads, "take", held)
    headers = {"Authorization": f"Bearer {make_token(books.database, 'device')}"}
    http = site.client(headers=headers)
    with at_once(held, lambda: http.post("/v1/files", content=b"x").status_code) as told:
        clerk, token = site.login("finance")
        assert clerk.post("/console/logout", data={"csrf": token}).status_code == 303 and not told
    assert told == [200] * MANY


def test_every_thread_has_its_connection(books: Books) -> None:
    """More threads than connections would wait for each other, and fail after a while."""
    given = limits.Limits()
    threads = given.readers + given.uploads + app._WRITERS + app._LOGINS + app._SLOW + 1
    assert threads <= 5 + postgres.POOL
    with pytest.raises(SealpackError) as told, books.database.read() as connection:
        connection.execute(sa.select(1))
        raise_from_the_pool()
    assert told.value.code == "STATE_LOCKED"


def raise_from_the_pool() -> None:
    raise sa.exc.TimeoutError("QueuePool limit reached")
