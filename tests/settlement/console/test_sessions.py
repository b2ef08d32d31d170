"""Logging in and out of the console: sessions, passwords, and those who only try."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.books import NOW, Books
from support.clerk import PASSWORD, Clerk, add_user, console_on, words

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, users
from sealpack.settlement.audit import Actor
from sealpack.settlement.console import sessions
from sealpack.settlement.console.app import HOME, Console, own_path
from sealpack.settlement.console.throttle import ADDRESS, NAME, PAIR, Throttle

ME = Actor("tests", NOW)
LoggedIn = Callable[[str], Clerk]


class Clock:
    """Seconds that a test moves on."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return int(self.now)


def test_login_and_logout(books: Books, console: Console, logged_in: LoggedIn) -> None:
    clerk = logged_in("finance")
    token = clerk.http.cookies["sealpack_session"]
    assert "finance" in clerk.get("account").text
    (row,) = books.rows(db.sessions)
    assert token not in row.values() and row["created_at"] == row["seen_at"] == NOW
    answer = clerk.post("logout")
    assert books.rows(db.sessions) == [] and "You are logged out" in clerk.follow(answer).text
    clerk.http.cookies.set("sealpack_session", token)  # kept by somebody
    assert clerk.get("account", 303).headers["location"] == "/console/login?next=/console/account"


def test_what_the_browser_is_given(books: Books) -> None:
    add_user(books.database, "finance")
    for secure, name, more in (
        (False, "sealpack_session", ""),
        (True, "__Host-sealpack_session", "; Secure"),
    ):
        clerk = Clerk(console_on(books.database, secure=secure))
        made = [c for c in clerk.login("finance").headers.get_list("set-cookie") if c.startswith(f"{name}=")]
        assert len(made) == 1 and made[0].partition(";")[2] == f" HttpOnly; Path=/; SameSite=strict{more}"
        page = clerk.get("account")
        assert ("strict-transport-security" in page.headers) == secure


def test_a_wrong_name_and_a_wrong_password_are_told_alike(books: Books, console: Console) -> None:
    add_user(books.database, "finance")
    told = []
    for name, password in (("finance", "wrong password 1"), ("nobody", PASSWORD), ("nobody", "\ud800")):
        answer = Clerk(console).login(name, password.encode("utf-8", "replace").decode(), status=401)
        told.append(words(answer).replace(name, "NAME"))
        assert not [c for c in answer.headers.get_list("set-cookie") if "session" in c]
    assert len(set(told)) == 1 and "LOGIN_INVALID" in told[0]


def test_nobody_is_as_slow_as_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[users.Cost] = []
    monkeypatch.setattr(users, "_scrypt", lambda _p, _s, cost: made.append(cost) or b"\0" * 32)
    stored = users.hashed("x" * 12)
    assert users.is_right(stored, "anything") and not users.is_right(None, "anything")
    assert made == [users.COST] * 3


def test_passwords_are_kept_with_their_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = users.hashed(PASSWORD)
    assert stored.startswith("scrypt$4$8$1$") and stored != users.hashed(PASSWORD)
    monkeypatch.setattr(users, "COST", users.Cost(ln=5, p=2))
    assert users.is_right(stored, PASSWORD) and not users.is_right(stored, PASSWORD + "x")
    assert users.hashed(PASSWORD).startswith("scrypt$5$8$2$")
    assert users.is_right(users.hashed("u\u0308ber alle Berge"), "\u00fcber alle Berge")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaa", "finance-2026", "x" * 201])
def test_passwords_that_are_too_easy(books: Books, password: str) -> None:
    with pytest.raises(SealpackError, match=r"USAGE.*password"):
        users.add(books.database, "finance", "finance", "", password, actor=ME)


def test_sessions_end(books: Books) -> None:
    clock = Clock()
    console = console_on(books.database, clock=clock)
    add_user(books.database, "finance")
    idle, busy = Clerk(console), Clerk(console)
    idle.login("finance")
    busy.login("finance")
    with busy.http:  # what nobody waits for goes on after an answer
        while clock.now < NOW + sessions.LONGEST_S - 3000:
            clock.now += 3000
            busy.get("account")
            _wait_for(lambda: max(r["seen_at"] for r in books.rows(db.sessions)) == clock.now)
    assert idle.get("account", 303).headers["location"].startswith("/console/login")
    clock.now = NOW + sessions.LONGEST_S
    busy.get("account", 303)
    busy.login("finance")
    assert len(books.rows(db.sessions)) == 1  # those that were over are forgotten


def _wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_disabled_user_is_out_at_once(books: Books, logged_in: LoggedIn) -> None:
    clerk, other = logged_in("finance"), logged_in("auditor")
    users.disable(books.database, "finance", actor=ME)
    clerk.get("account", 303)
    other.get("account")
    clerk.login("finance", status=401)
    users.enable(books.database, "finance", actor=ME)
    clerk.login("finance")


def test_a_new_password_ends_the_other_sessions(logged_in: LoggedIn) -> None:
    here, there = logged_in("finance"), logged_in("finance")
    new = "some other plain words"
    wrong = here.post("account", 401, old="not this one", password=new, again=new)
    assert "name or password is wrong" in words(wrong).lower()
    here.post("account", 400, old=PASSWORD, password=new, again=new + "x")
    there.get("account")
    here.post("account", old=PASSWORD, password=new, again=new)
    here.get("account")
    there.get("account", 303)
    there.login("finance", status=401)
    there.login("finance", new)


def test_a_session_somebody_else_chose_is_not_taken(console: Console, books: Books) -> None:
    add_user(books.database, "finance")
    clerk = Clerk(console)
    clerk.http.cookies.set("sealpack_session", "known-to-a-thief")
    given = clerk.login("finance").headers.get_list("set-cookie")
    assert given and not any("known-to-a-thief" in cookie for cookie in given)
    thief = Clerk(console)
    thief.http.cookies.set("sealpack_session", "known-to-a-thief")
    thief.get("account", 303)


def test_guessing_is_slow(console: Console, books: Books) -> None:
    add_user(books.database, "finance")
    clerk = Clerk(console)
    for _ in range(PAIR.burst):
        clerk.login("finance", "wrong password 1", status=401)
    answer = clerk.login("finance", status=429)  # the right one, too
    assert 0 < int(answer.headers["retry-after"]) <= PAIR.every_s and "RATE_LIMITED" in answer.text
    Clerk(console, "10.0.0.2").login("finance")  # the owner, from elsewhere


def test_failures_are_counted_by_name_address_and_both() -> None:
    clock = Clock(0)
    throttle = Throttle(clock)

    def tries(name: Callable[[int], str], address: Callable[[int], str]) -> int:
        for n in range(1000):
            try:
                throttle.begin(name(n), address(n))
            except SealpackError as error:
                assert error.code == "RATE_LIMITED" and error.facts["retry_after_s"] > 0
                return n
        raise AssertionError("never too many")

    assert tries(lambda n: "ann", lambda n: "1.1.1.1") == PAIR.burst
    assert tries(lambda n: "ANN ", lambda n: "1.1.1.1") == 0
    assert tries(lambda n: f"u{n}", lambda n: "2.2.2.2") == ADDRESS.burst
    assert tries(lambda n: "bob", lambda n: f"3.3.3.{n}") == NAME.burst
    assert tries(lambda n: "eve", lambda n: f"2001:db8::{n:x}") == PAIR.burst  # one network
    clock.now += PAIR.every_s
    throttle.begin("ann", "1.1.1.1")
    with pytest.raises(SealpackError):
        throttle.begin("ann", "1.1.1.1")
    for _ in range(100):  # who knows the password is never stopped
        throttle.begin("joe", "4.4.4.4")
        throttle.succeeded("joe", "4.4.4.4")


def test_behind_a_proxy_its_word_is_the_address(books: Books) -> None:
    add_user(books.database, "finance")
    console = console_on(books.database, behind_proxy=True, secure=True)
    clerk = Clerk(console)
    for n in range(PAIR.burst + 1):
        clerk.http.headers["x-forwarded-for"] = f"9.9.9.{n}, 8.8.8.8"  # only the last one is the proxy's
        clerk.login("finance", "wrong password 1", status=401 if n < PAIR.burst else 429)
    clerk.http.headers["x-forwarded-for"] = "8.8.8.9"
    clerk.login("finance")


@pytest.mark.parametrize("text", [
    "//evil.example/x", "https://evil.example", "/\\evil.example", "/console/../x", "/console/a/../../v1",
    "javascript:alert(1)", "/consolex", "", "/console/\r\nSet-Cookie: a=b", "/console/\u2025",
    '/console/"><b>',    "/v1/cases", "/console/..",
])  # fmt: skip
def test_nobody_is_sent_elsewhere(text: str) -> None:
    assert own_path(text) == HOME


def test_on_to_the_page_that_was_asked_for(logged_in: LoggedIn, console: Console) -> None:
    logged_in("finance")
    clerk = Clerk(console)
    assert clerk.get("files?outcome=held", 303).headers["location"] == (
        "/console/login?next=/console/files%3Foutcome%3Dheld"
    )
    assert clerk.login("finance", next="/console/files?outcome=held").headers["location"] == (
        "/console/files?outcome=held"
    )
    assert Clerk(console).login("finance", next="https://evil.example").headers["location"] == HOME
    assert clerk.get("login?next=//evil.example", 303).headers["location"] == HOME


def test_a_link_on_another_site_does_not_log_out(logged_in: LoggedIn) -> None:
    clerk = logged_in("finance")
    kept = dict(clerk.http.cookies)
    clerk.http.cookies.clear()  # SameSite=Strict: the browser does not send it
    answer = clerk.get("files", headers={"Sec-Fetch-Site": "cross-site"})
    assert '<meta http-equiv="refresh" content="0">' in answer.text
    assert not [c for c in answer.headers.get_list("set-cookie") if "session" in c]
    clerk.http.cookies.update(kept)
    clerk.get("files", headers={"Sec-Fetch-Site": "same-origin"})
