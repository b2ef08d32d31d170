"""Every page of the console: who may see it, with which headers, and what it says when there is nothing."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from support.books import Books
from support.clerk import Clerk, words

from sealpack.settlement import db
from sealpack.settlement.console import nav
from sealpack.settlement.console.app import Console, Page
from sealpack.settlement.console.pages import PAGES
from sealpack.settlement.console.rendering import HEADERS
from sealpack.settlement.users import ROLES

LoggedIn = Callable[[str], Clerk]
_TURNED_AWAY = "This is not for the role|The session is over"
ASKING = (
    "/console/drafts/approve",
    "/console/drafts/issue",
    "/console/replies/zip",
)  # for a month, a customer
PLAIN = [
    page for page in PAGES
    if page.method == "GET" and not re.search(r"[{.]|/file/", page.path) and page.path not in ASKING
]  # fmt: skip


def ask(clerk: Clerk, page: Page, csrf: str = "") -> tuple[int, str]:
    path = re.sub(r"\{[^}]*\}", "1", page.path)
    more = {"data": {"csrf": csrf}} if page.method == "POST" else {}
    answer = clerk.http.request(page.method, path, **more)
    for name, value in HEADERS.items():
        if name != "Content-Security-Policy":
            assert answer.headers[name], (path, name, value)
    assert "unsafe-inline" not in answer.headers["content-security-policy"] or page.path.endswith("{form}")
    return answer.status_code, answer.text


def test_each_page_is_for_its_roles_alone(books: Books, logged_in: LoggedIn, console: Console) -> None:
    console.service.meter.limits = type(console.service.limits)(burst=10_000)
    for role in ROLES:
        clerk = logged_in(role)
        csrf = clerk.csrf()
        for page in PAGES:
            before = len(books.rows(db.audit))
            status, text = ask(clerk, page, csrf)
            if role in page.roles:
                assert status != 500 and not re.search(_TURNED_AWAY, text), (role, page)
            else:
                assert status == 403 and re.search(_TURNED_AWAY, text), (role, page)
                assert len(books.rows(db.audit)) == before


def test_nobody_sees_anything_without_a_session(console: Console, logged_in: LoggedIn) -> None:
    logged_in("admin")
    clerk = Clerk(console)
    for page in PAGES:
        status, text = ask(clerk, page, clerk.csrf("login"))
        if page.method == "GET":
            assert (status, text) == (303, ""), page
        else:
            assert status == 401 and "LOGIN_INVALID" in text, page
    clerk.get("no-such-page", 303)


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.path)
def test_pages_of_empty_books(logged_in: LoggedIn, page: Page) -> None:
    answer = logged_in(page.roles[0]).http.get(page.path)
    assert answer.status_code == 200, words(answer)
    assert answer.text.count("<h1") == 1 and re.search(
        r"<title>\S.* - Sealpack settlement</title>", answer.text
    )
    assert not re.search(r"<[^>]* style=|<[^>]* on[a-z]+=|javascript:", answer.text)


def test_an_auditor_changes_nothing() -> None:
    changing = [page for page in PAGES if page.method == "POST" and "auditor" in page.roles]
    assert {page.path for page in changing} <= {
        "/console/account", "/console/audit/verify", "/console/exports/stripe"
    }  # fmt: skip
    assert all("creator" not in p.roles for p in PAGES if p.method == "POST" and p.path != "/console/account")


def test_the_navigation_leads_to_what_one_may_see(logged_in: LoggedIn) -> None:
    for role in ROLES:
        text = logged_in(role).get("").text.partition('class="side"')[2].partition("</nav>")[0]
        shown = set(re.findall(r'href="([^"]+)"', text))
        known = {path for _, entries in nav.ENTRIES for _, path in entries}
        assert shown == {p.path for p in PLAIN if p.path in known and role in p.roles}


def test_pages_that_there_are_not(logged_in: LoggedIn) -> None:
    clerk = logged_in("finance")
    for path in ("nix", "files/zz", "files/" + "0" * 64, "drops/99", "drops/x", "cases/-1", "cases/x", "%00",
                 "static/../app.py", "static/%2e%2e%2fapp.py",
                 "files?outcome=X1", "cases?state=<b>"):  # fmt: skip
        answer = clerk.get(path, 404)
        assert "NOT_FOUND" in answer.text
    assert "CASE_INVALID" in clerk.http.get("/console/cases/7").text
    assert clerk.http.put("/console/files").status_code == 404


def test_static_files_are_kept_by_browsers(console: Console) -> None:
    clerk = Clerk(console)
    for name in ("console.css", "console.js", "icon.svg"):
        answer = clerk.get(f"static/{name}")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_way_to_the_console(console: Console) -> None:
    clerk = Clerk(console)
    for path in ("/", "/console"):
        answer = clerk.http.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")


def test_whoever_asks_too_often_waits(console: Console, logged_in: LoggedIn) -> None:
    clerk = logged_in("finance")
    statuses = [clerk.http.get("/console/account").status_code for _ in range(130)]
    assert set(statuses) == {200, 429} and statuses.index(429) >= 90
    assert statuses.count(200) >= 90


def test_what_fails_on_this_side_is_told_without_its_words(
    console: Console, logged_in: LoggedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clerk = logged_in("finance")

    def fail(*_: object) -> None:
        raise RuntimeError("secret place")

    monkeypatch.setattr("sealpack.settlement.console.pages.files._page", fail)
    answer = clerk.get("files", 500)
    assert "INTERNAL" in answer.text and "secret" not in answer.text
