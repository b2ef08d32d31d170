"""Cases and access on the console: the proof in words, decisions, users and tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from support.books import Books
from support.clerk import PASSWORD, Clerk, words
from support.device import T0, Device, make_license
from support.rating_plans import make_plan, per_unit

from sealpack.settlement import db
from sealpack.settlement.console.app import Console
from sealpack.settlement.console.case_words import WORDS, sides
from sealpack.settlement.outcomes import OUTCOMES
from sealpack.settlement.service import tokens

LoggedIn = Callable[[str], Clerk]


def test_every_held_outcome_has_words() -> None:
    assert set(WORDS) == {code for code in OUTCOMES if code.startswith("H")}


def test_a_fork_is_shown_with_its_proof(books: Books, logged_in: LoggedIn) -> None:
    device = Device().use(3)
    books.learn(device)
    twin = copy.deepcopy(device)
    books.ingest(device.use(5).export())
    books.ingest(twin.use(7, tok_out=9).export())
    clerk = logged_in("finance")
    assert "Two machines used the same identity" in words(clerk.get("cases"))
    page = clerk.get("cases/1")
    told = words(page)
    assert (
        "signed with the machine's own key" in told.replace("&#39;", "'")
        and told.count("The signed text") == 2
    )
    (row,) = books.rows(db.cases)
    ours, theirs = sides(row["ours"], row["theirs"])
    assert ours.root != theirs.root and ours.root in page.text and theirs.root in page.text
    assert ours.origin == theirs.origin == device.origin
    assert 'name="verdict"' not in page.text and "not decided by hand" in told
    assert "CASE_INVALID" in clerk.post("cases/1", 400, verdict="accept", reason="x").text


def test_notes_that_cannot_be_read_are_shown_as_they_are() -> None:
    (one, two) = sides(b"\xff<b>", b"a\nb\n\nc")
    assert (one.size, two.size) == (None, None) and one.text == "\ufffd<b>"
    assert sides(None, None) == []


def over(books: Books) -> Device:
    """A device that was used after its license had ended; what it wrote is held (H230)."""
    device = Device(make_license(exp=T0 + 3600, grace_s=0)).use(tok_out=100)
    books.learn(device, plan=make_plan(per_unit("1"), per=1))
    books.ingest(device.wait(4 * 3_600_000).use(tok_out=30).export(), name="<late>.usage.gz")
    return device


def test_a_decision_with_its_reason(books: Books, logged_in: LoggedIn) -> None:
    device, clerk, auditor = over(books), logged_in("finance"), logged_in("auditor")
    page = clerk.get("cases/1")
    assert "Used after the license had ended" in page.text and page.text.count('name="verdict"') == 2
    assert "<late>" not in page.text and "&lt;late&gt;.usage.gz" in page.text
    assert 'name="verdict"' not in auditor.get("cases/1").text
    auditor.post("cases/1", 403, verdict="accept", reason="x")
    for bad in ({"verdict": "accept", "reason": "  "}, {"verdict": "delete", "reason": "x"}, {"reason": "x"}):
        assert "FORM_INVALID" in clerk.post("cases/1", 400, **bad).text
    refused = clerk.follow(clerk.post("cases/1", verdict="refuse", reason="<b>not ours</b>"))
    assert "Case 1 is refused." in words(refused) and "&lt;b&gt;not ours&lt;/b&gt;" in refused.text
    accepted = words(clerk.follow(clerk.post("cases/1", verdict="accept", reason="the renewal was late")))
    assert "Case 1 is accepted. 1 file could be taken." in accepted and "by user finance" in accepted
    assert books.log(device).size == device.size
    clerk.post("cases/1", 400, verdict="refuse", reason="x")
    assert "Accepted (1)" in words(clerk.get("cases"))
    assert "Case 1" in words(clerk.get("cases?state=accepted"))


# --- access ----------------------------------------------------------------------------------------


def test_an_admin_makes_and_ends_users(books: Books, console: Console, logged_in: LoggedIn) -> None:
    admin = logged_in("admin")
    new = {"password": PASSWORD, "again": PASSWORD}
    admin.post("access/users", name="Rosa", role="creator", party="creator:acme", **new)
    assert "You are logged in for creator:acme" in words(_as(console, "rosa").get(""))
    for bad in ({"name": "x", "role": "creator"}, {"name": "x", "role": "finance", "party": "creator:a"},
                {"name": "rosa", "role": "finance"}, {"name": "a b", "role": "finance"},
                {"name": "x", "role": "root"}):  # fmt: skip
        assert "USAGE" in admin.post("access/users", 400, **bad, **new).text
    rosa = _as(console, "rosa")
    other = "quite another phrase"
    admin.post("access/users/password", name="rosa", password=other, again=other)
    rosa.get("", 303)
    _as(console, "rosa", other)
    admin.post("access/users/change", name="rosa", what="disable")
    Clerk(console).login("rosa", other, status=401)
    assert "disabled" in words(admin.get("access"))
    admin.post("access/users/change", name="rosa", what="enable")
    _as(console, "rosa", other)
    assert "last admin" in admin.post("access/users/change", 400, name="admin", what="disable").text
    admin.post("access/users/change", 404, name="nobody", what="disable")
    admin.post("access/users/change", 400, name="rosa", what="delete")


def _as(console: Console, name: str, password: str = PASSWORD) -> Clerk:
    clerk = Clerk(console)
    clerk.login(name, password)
    return clerk


def test_a_token_is_shown_once(books: Books, logged_in: LoggedIn) -> None:
    admin = logged_in("admin")
    said = {"name": "ward 3", "role": "device", "kind": "customer", "whom": "hospital", "days": "9"}
    page = admin.post("access/tokens", 200, **said).text
    text = page.partition("<pre>")[2].partition("</pre>")[0]
    with books.database.read() as connection:
        caller = tokens.identify(connection, text, 0)
    assert (caller.name, caller.role, caller.scope) == ("ward 3", "device", "customer:hospital")
    assert text not in admin.get("access").text
    for bad in ({"days": "0"}, {"days": "x"}, {"role": "root"}, {"kind": "", "whom": ""}, {"name": "<b>"}):
        admin.post("access/tokens", 400, **(said | {"name": "other"} | bad))
    admin.post("access/tokens/revoke", name="ward 3")
    assert "revoked" in words(admin.get("access"))
    with books.database.read() as connection, pytest.raises(Exception, match="TOKEN_INVALID"):
        tokens.identify(connection, text, 0)
