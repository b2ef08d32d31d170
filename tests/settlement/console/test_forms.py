"""What the console takes from a form, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.books import Books
from support.clerk import PASSWORD, Clerk

from sealpack.settlement import db
from sealpack.settlement.console.app import Console

LoggedIn = Callable[[str], Clerk]
PLAIN = "application/x-www-form-urlencoded"
USER = {"name": "mallory", "role": "admin", "password": PASSWORD, "again": PASSWORD}


def names(books: Books) -> list[str]:
    return [row["name"] for row in books.rows(db.users)]


@pytest.mark.parametrize("csrf", ["", "0" * 64, "x", "\u00e9"])
def test_a_form_without_its_token_does_nothing(books: Books, logged_in: LoggedIn, csrf: str) -> None:
    answer = logged_in("admin").post("access/users", 400, csrf=csrf, **USER)
    assert "FORM_INVALID" in answer.text and names(books) == ["admin"]


def test_the_token_of_another_session_is_none(books: Books, logged_in: LoggedIn) -> None:
    mine, other = logged_in("admin"), logged_in("admin")
    assert mine.csrf() != other.csrf()
    mine.post("access/users", 400, csrf=other.csrf(), **USER)
    assert names(books) == ["admin"]
    mine.post("access/users", csrf=mine.csrf(), **USER)
    assert names(books) == ["admin", "mallory"]


def test_the_login_has_a_token_too(console: Console, logged_in: LoggedIn) -> None:
    logged_in("finance")
    clerk, other = Clerk(console), Clerk(console)
    clerk.post("login", 400, csrf=other.csrf("login"), name="finance", password=PASSWORD)


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Origin": "https://evil.example"}, 400), ({"Origin": "null"}, 400),
     ({"Sec-Fetch-Site": "cross-site"}, 400), ({"Sec-Fetch-Site": "same-site"}, 400),
     ({"Sec-Fetch-Site": "cross-site", "Origin": "http://console.example"}, 400),
     ({"Origin": "http://console.example"}, 303), ({"Sec-Fetch-Site": "same-origin"}, 303),
     ({"Sec-Fetch-Site": "same-origin", "Origin": "https://outer.example"}, 303), ({}, 303)],
)  # fmt: skip
def test_where_a_form_comes_from(
    books: Books, logged_in: LoggedIn, headers: dict[str, str], status: int
) -> None:
    clerk = logged_in("admin")
    fields = USER | {"csrf": clerk.csrf()}
    answer = clerk.http.post("/console/access/users", data=fields, headers=headers)
    assert answer.status_code == status
    assert ("mallory" in names(books)) == (status == 303)


@pytest.mark.parametrize(
    ("more", "status"),
    [({"data": {"name": "x" * 300_000}}, 413),
     ({"content": b"&".join([b"a=b"] * 2000), "headers": {"content-type": PLAIN}}, 400),
     ({"content": b"no boundary", "headers": {"content-type": "multipart/form-data"}}, 400),
     ({"content": b"--x\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
     ({"content": b"\xff\xfe%zz", "headers": {"content-type": PLAIN}}, 400),
     ({"json": {"csrf": "x"}}, 400), ({"files": {"name": ("a", b"b")}}, 400), ({}, 400)],
)  # fmt: skip
def test_forms_that_are_no_good(books: Books, logged_in: LoggedIn, more: dict[str, Any], status: int) -> None:
    clerk = logged_in("admin")
    answer = clerk.http.post("/console/access/users", **more)
    assert answer.status_code == status, answer.text
    assert "<h1>" in answer.text and names(books) == ["admin"]
    clerk.get("account")


def test_html_in_what_people_write_is_text(logged_in: LoggedIn) -> None:
    clerk, evil = logged_in("admin"), '<script>alert("x")</script>'
    for path in ("search", "files", "cases", "access", "login"):
        answer = clerk.http.get(
            f"/console/{path}", params={"q": evil, "after": evil, "next": evil, evil: evil}
        )
        assert evil not in answer.text
    answer = clerk.post("access/users", 400, **(USER | {"name": evil}))
    assert evil not in answer.text and "&lt;script&gt;" in answer.text
    clerk.http.cookies.set("sealpack_notice", "%3Cscript%3Ealert(1)%3C/script%3E")
    page = clerk.get("account")
    assert "<script>alert" not in page.text and "&lt;script&gt;alert(1)" in page.text
