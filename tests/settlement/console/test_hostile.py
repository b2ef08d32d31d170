"""The console and people who mean no good, or whose tools do not: nothing they send is a fault of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import pytest
from support.books import Books
from support.clerk import PASSWORD, Clerk, add_user, console_on, words

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, users
from sealpack.settlement.audit import Actor
from sealpack.settlement.console import forms, sessions
from sealpack.settlement.console.app import Console, Page
from sealpack.settlement.console.pages import PAGES
from sealpack.settlement.console.throttle import PAIR, Throttle
from sealpack.settlement.exports.stripe import Names
from sealpack.settlement.service.views import Span

LoggedIn = Callable[[str], Clerk]
NAMED = re.compile(r"\{([a-z_]+)[^}]*\}")
GETS = [page for page in PAGES if page.method == "GET"]
POSTS = [page for page in PAGES if page.method == "POST" and page.path != "/console/drop"]
ASKED = ("after", "customer", "day", "from", "kind", "license", "month", "on", "outcome", "q", "reference",
         "seller", "state", "to", "verb", "who")  # fmt: skip
FIELDS = (
    "address", "again", "amount", "category", "code", "country", "currency", "date", "days", "draft", "email",
    "expect", "head", "id", "issuer", "kind", "legal_name", "license", "month", "name", "number", "old",
    "party", "password", "payment", "payment_days", "payout", "percent", "prefix", "reason", "reference",
    "role", "seen", "tax_id", "verdict", "what", "whom",
)  # fmt: skip


def filled(page: Page, value: str) -> str:
    """The page's address below /console/ with that in every place."""
    address = NAMED.sub(lambda part: "2026-11" if part[1] == "month" else quote(value, safe=""), page.path)
    return address.removeprefix("/console/")


def is_told(answer: Any) -> bool:
    """Whether it is a page, and says in a code what was wrong where something was."""
    text = answer.text
    return answer.status_code < 400 or (answer.status_code < 500 and "<h1>" in text and "<code>" in text)


def test_no_database_is_asked_for_what_no_text_holds(books: Books, logged_in: LoggedIn) -> None:
    clerk = logged_in("admin")
    for page in GETS:
        if NAMED.search(page.path):
            answer = clerk.get(filled(page, "a\0b"), 404)
            assert "NOT_FOUND" in answer.text, page.path
        for name in ASKED:
            answer = clerk.http.get(f"/console/{filled(page, '1')}", params={name: "a\0b"})
            assert is_told(answer), (page.path, name, words(answer))
        assert is_told(clerk.http.get(f"/console/{filled(page, '1')}", params={"a\0b": "1"}))


@pytest.mark.parametrize("evil", ["a\0b", "a\x1b[31mb", "a\ufffeb"])
def test_what_cannot_be_printed_is_not_taken(books: Books, logged_in: LoggedIn, evil: str) -> None:
    clerk = logged_in("admin")
    token = clerk.csrf()
    for page in POSTS:
        data = {name: evil for name in FIELDS} | {"csrf": token}
        answer = clerk.http.post(f"/console/{filled(page, '1')}", data=data)
        assert answer.status_code in (303, *range(400, 500)) and is_told(answer), (page.path, words(answer))
    data = {"name": "mara", "role": "finance", "password": PASSWORD, "again": PASSWORD, "csrf": token}
    for name in ("name", "role", "party"):
        answer = clerk.http.post("/console/access/users", data=data | {name: f"x{evil}"})
        assert (answer.status_code, "FORM_INVALID" in answer.text) == (400, True)


def test_lines_and_every_script_are_taken() -> None:
    said = "Straße 1\r\nΩ \U0001f3e5 東京\t\u00a0é"
    form: Any = {"address": said}
    assert forms.text(form, "address") == said
    for half in ("\ud800", "a\udfffb"):
        with pytest.raises(SealpackError, match="printed"):
            forms.text({"address": half}, "address")  # type: ignore[arg-type]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "\\", "//[", "http://a]b"])
def test_an_origin_that_is_none(books: Books, logged_in: LoggedIn, origin: str) -> None:
    clerk = logged_in("admin")
    answer = clerk.http.post("/console/logout", data={"csrf": clerk.csrf()}, headers={"Origin": origin})
    assert (answer.status_code, "FORM_INVALID" in answer.text) == (400, True)
    clerk.get("account")


@pytest.mark.sqlite_only
def test_a_form_of_a_browser_that_holds_nothing_is_none(console: Console, logged_in: LoggedIn) -> None:
    logged_in("finance")
    clerk = Clerk(console)
    said = {"name": "finance", "password": PASSWORD, "csrf": sessions.csrf("")}
    answer = clerk.http.post("/console/login", data=said)
    assert (answer.status_code, "FORM_INVALID" in answer.text) == (400, True)


# --- who comes from where -----------------------------------------------------------------------------


@pytest.mark.sqlite_only
def test_of_several_headers_the_proxys_own_counts(books: Books) -> None:
    add_user(books.database, "finance")
    clerk = Clerk(console_on(books.database, behind_proxy=True))
    said = {"csrf": clerk.csrf("login"), "name": "finance", "password": "wrong password 1"}
    for n in range(PAIR.burst + 1):  # a proxy that adds a header of its own to what the client sent
        headers = [("x-forwarded-for", f"9.9.9.{n}"), ("x-forwarded-for", "8.8.8.8")]
        answer = clerk.http.post("/console/login", data=said, headers=headers)
        assert answer.status_code == (401 if n < PAIR.burst else 429)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("1.2.3.4:1000", "1.2.3.4:2000", True), ("1.2.3.4:1000", "1.2.3.4", True),
     ("[2001:db8::1]:1000", "[2001:db8::2]:2000", True), ("[2001:db8::1]", "2001:db8::1", True),
     ("::ffff:1.2.3.4", "1.2.3.4", True), ("::ffff:1.2.3.4", "::ffff:1.2.3.5", False),
     ("1.2.3.4:1", "1.2.3.5:1", False), ("[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", False)],
)  # fmt: skip
def test_a_port_is_no_other_address(one: str, other: str, alike: bool) -> None:
    throttle = Throttle(lambda: 0.0)
    for _ in range(PAIR.burst):
        throttle.begin("joe", one)
    if alike:
        with pytest.raises(SealpackError, match="too many tries"):
            throttle.begin("joe", other)
    else:
        throttle.begin("joe", other)


def test_whoever_logs_in_while_the_password_changes_is_out(books: Books) -> None:
    """Comparing takes a third of a second: what was right when it began may not be so when it ends."""
    base, actor = books.database, Actor("tests", 1)
    user = add_user(base, "finance")
    with base.read() as connection:
        found = users.find(connection, "finance")
    assert found is not None
    users.set_password(base, "finance", "five quite other words", actor=actor)
    with pytest.raises(SealpackError) as caught:
        sessions.begin(base, user, 2, found[1])
    assert caught.value.code == "LOGIN_INVALID"
    users.disable(base, "finance", actor=actor)
    with pytest.raises(SealpackError):
        sessions.begin(base, user, 2)
    users.enable(base, "finance", actor=actor)
    assert sessions.begin(base, user, 3)


# --- numbers and days ---------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["0000000019999", "0" * 9 + "5" * 5000, "000000001" * 3])
def test_no_page_is_larger_than_it_may_be(limit: str) -> None:
    with pytest.raises(SealpackError, match="limit must be"):
        Span.parse(limit, None, str)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("month", ["9999-12", "9991-01", "1969-12", "0001-01"])
def test_months_beyond_the_calendar(books: Books, logged_in: LoggedIn, month: str) -> None:
    clerk = logged_in("finance")
    for path in ("drafts", "drafts/approve", "drafts/issue", "invoices", "exports/usage", "exports/json"):
        assert "FORM_INVALID" in clerk.get(f"{path}?month={month}", 400).text
    clerk.get(f"drafts/L-1/{month}", 404)
    for path in ("usage", "usage.csv"):
        clerk.get(f"{path}?month={month}")
        clerk.get(f"{path}?from={month}-01&to={month}-28")


@pytest.mark.sqlite_only
@pytest.mark.parametrize("day", ["9999-12-31", "9991-01-01", "1969-12-31", "0001-01-01"])
def test_days_beyond_the_calendar(books: Books, logged_in: LoggedIn, day: str) -> None:
    clerk = logged_in("finance")
    assert "FORM_INVALID" in clerk.get(f"aging?on={day}", 400).text
    assert "FORM_INVALID" in clerk.get(f"statements/hospital-nord?to={day}", 400).text


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "ticked",
    ['["a","b","EUR",1e999]', '["a","b","EUR","x"]', '["a","b","EUR",null]', '["a","b","EUR",true]', "1",
     "[" * 20_000, '["a","b","EUR",1.5]', "{}", "", "NaN"],
)  # fmt: skip
def test_payouts_that_were_never_shown(books: Books, logged_in: LoggedIn, ticked: str) -> None:
    answer = logged_in("finance").post("payouts", 400, payout=ticked, date="2026-11-21", reference="x")
    assert "FORM_INVALID" in answer.text


@pytest.mark.sqlite_only
@pytest.mark.parametrize("act", ["approve", "issue"])
def test_drafts_that_were_never_shown(books: Books, logged_in: LoggedIn, act: str) -> None:
    clerk = logged_in("finance")
    for ticked in ([f"L-{n} {'0' * 64}" for n in range(201)], ["L-1"], ["L-1 "], [""]):
        answer = clerk.post(f"drafts/{act}", 400, draft=ticked, month="2026-10", date="2026-11-21")
        assert "FORM_INVALID" in answer.text
    clerk.post(f"drafts/{act}", draft=[f"L-{n} {'0' * 64}" for n in range(200)], month="2026-10",
               date="2026-11-21")  # fmt: skip


def test_a_notice_fits_into_a_cookie(console: Console) -> None:
    for letter in ("x", "é", "\U0001f3e5"):
        answer = console.redirect("/console/", letter * 2000)
        assert 500 < len(answer.headers["set-cookie"]) < 4096
        assert unquote(answer.headers["set-cookie"]).count(letter) > 250


# --- records ------------------------------------------------------------------------------------------


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "wrong", [{"country": "XX"}, {"currency": "ZZZ"}, {"email": "nobody"}, {"payment_days": "1000000000"}]
)
def test_a_typed_record_passes_the_checks_of_an_imported_one(
    books: Books, logged_in: LoggedIn, wrong: dict[str, str]
) -> None:
    clerk = logged_in("finance")
    seen = re.search(r'name="seen" value="([0-9a-f]+)"', clerk.get("customers/-/edit").text)
    assert seen is not None
    said = {"id": "c-1", "legal_name": "One", "seen": seen[1], "country": "DE", "currency": "EUR"}
    answer = clerk.post("customers/-/edit", 400, **(said | wrong))
    assert "REGISTRY_INVALID" in answer.text
    clerk.post("customers/-/edit", **said)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [("seller.json",
      b'{"schema":"sealpack/seller/v1","issuer":"a\\u0000","legal_name":"x"}', "REGISTRY_INVALID"),
     ("c.json", b'{"schema":"sealpack/customers/v1","customers":[{"id":"c","legal_name":"a\\u001bb"}]}',
      "REGISTRY_INVALID"),
     ("c.json", b'{"schema":"sealpack/customers/v1","customers":[{"id":"c","legal_name":"x","tax":'
      b'{"category":"E","percent":"0","reason":"a\\u000bb"}}]}', "REGISTRY_INVALID"),
     ("c.json", b'{"schema":"sealpack/customers/v1","customers":[{"id":"c","legal_name":"x","address":'
      b'["a\\u0000"]}]}', "REGISTRY_INVALID"),
     ("c.csv", b"id,legal_name,payment_days\nc,x," + b"9" * 5000, "REGISTRY_INVALID"),
     ("c.json", b'{"schema":"sealpack/customers/v1","customers":[{"id":"c","legal_name":"\\ud800"}]}', ""),
     ("c.json", b"[" * 200_000, ""), ("c.json", b'{"schema":' + b"[" * 100_000, "")],
)  # fmt: skip
def test_documents_nobody_wrote_by_hand(
    books: Books, logged_in: LoggedIn, name: str, data: bytes, code: str
) -> None:
    said = logged_in("finance").drop((name, data))
    assert (code or "left aside") in said and "imported" not in said
    assert not books.rows(db.customers) and not books.rows(db.sellers)


def test_a_map_for_stripe_that_is_none() -> None:
    for data in (b"[" * 100_000, b'{"a":' * 50_000, b"\0", b"\xff", b"", b"9" * 5000):
        with pytest.raises(SealpackError) as caught:
            Names.read(data, "map.json")
        assert caught.value.code == "REGISTRY_INVALID"
