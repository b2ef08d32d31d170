"""The first set-up of a console, users made on the command line, and what settlement has to know first."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.books import NOW, Books
from support.clerk import PASSWORD, Clerk, add_user, console_on, words
from support.device import Device, registry

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db, parties, users
from sealpack.settlement.audit import Actor
from sealpack.settlement.console import entry, sessions
from sealpack.settlement.console.app import Console
from sealpack.settlement.console.throttle import PAIR
from sealpack.verifier.cli.main import make_cli, run

CODE = "ABCD-EFGH-JKLM-NPQR"
LoggedIn = Callable[[str], Clerk]


@pytest.fixture
def new(books: Books) -> Console:
    """A console that nobody has set up."""
    return console_on(books.database, code=CODE)


def set_up(clerk: Clerk, status: int = 303, **fields: str) -> Any:
    said = {"code": CODE, "name": "Ann", "password": PASSWORD, "again": PASSWORD} | fields
    return clerk.post("setup", status, csrf=clerk.csrf("setup"), **said)


def test_the_first_admin(books: Books, new: Console) -> None:
    clerk = Clerk(new)
    for path in ("", "files", "nix", "login"):
        assert clerk.get(path, 303).headers["location"] == "/console/setup"
    page = clerk.follow(set_up(clerk, code=f" {CODE.lower()} "))
    assert "Welcome, ann" in page.text and "Trust file" in page.text
    assert [(row["name"], row["role"]) for row in books.rows(db.users)] == [("ann", "admin")]
    with books.database.read() as connection:
        (noted,) = audit.entries(connection)
    assert (noted.who, noted.what) == ("set-up", {"verb": "user", "user": "ann", "role": "admin"})
    assert clerk.get("setup", 303).headers["location"] == "/console/"
    late = Clerk(new)
    late.post("setup", 401, csrf=late.csrf("login"), code=CODE, name="eve", password=PASSWORD, again=PASSWORD)
    assert len(books.rows(db.users)) == 1


def test_who_does_not_know_the_code_is_nobody(books: Books, new: Console) -> None:
    clerk = Clerk(new)
    for code in ("", "ABCD", CODE[:-1] + "S", "\u00e9", CODE + CODE):
        assert "set-up code is wrong" in words(set_up(clerk, 401, code=code))
    assert "RATE_LIMITED" in set_up(clerk, 429).text  # the right one, too
    assert PAIR.burst == 5 and books.rows(db.users) == []


def test_without_a_code_nobody_sets_up(books: Books, console: Console) -> None:
    clerk = Clerk(console)
    assert "settle user add" in words(clerk.get("setup"))
    token = sessions.csrf(clerk.http.cookies["sealpack_visit"])
    clerk.post("setup", 401, csrf=token, code="", name="eve", password=PASSWORD, again=PASSWORD)
    assert books.rows(db.users) == []


@pytest.mark.parametrize(
    "fields", [{"password": "short", "again": "short"}, {"again": "another one"}, {"name": "<b>"}]
)
def test_a_set_up_that_is_no_good_can_be_done_again(
    books: Books, new: Console, fields: dict[str, str]
) -> None:
    clerk = Clerk(new)
    assert "USAGE" in set_up(clerk, 400, **fields).text
    set_up(clerk)
    assert len(books.rows(db.users)) == 1


def test_only_one_is_the_first(books: Books) -> None:
    add_user(books.database, "auditor")
    with pytest.raises(SealpackError, match="there is a user already"):
        users.add(
            books.database, "eve", "admin", "", PASSWORD, actor=Actor("set-up", NOW), first=True
        )  # fmt: skip


def test_codes_are_long_and_never_the_same() -> None:
    made = {entry.new_code() for _ in range(1000)}
    assert len(made) == 1000 and all(len(code.replace("-", "")) == 16 for code in made)


# --- first steps -----------------------------------------------------------------------------------


def test_first_steps(books: Books, logged_in: LoggedIn) -> None:
    clerk, device = logged_in("finance"), Device().use(3)
    assert "the trust file, the seller, a price plan, licenses" in words(clerk.get(""))
    device_files = ("trust.json", device.trust.to_bytes()), ("registry.jsonl", registry(device))
    told = clerk.drop(("a.usage.gz", device.export()), *device_files[::-1])
    assert "H250" in told and "the license, bundle or plan is not known" in told  # the plan is missing yet
    seller = {"issuer": world.ISSUER, "legal_name": "Acme <Models> GmbH", "address": " Weg 1 \r\n\r\nKiel",
              "country": "DE", "payment_days": "14", "prefix": "AC"}  # fmt: skip
    answer = clerk.follow(clerk.post("start/seller", **seller))
    assert "Kept: seller Acme &lt;Models&gt; GmbH." in answer.text
    with books.database.read() as connection:
        found = parties.load_seller(connection, world.ISSUER)
    assert (found.legal_name, found.address, found.payment_days) == (
        "Acme <Models> GmbH",
        ("Weg 1", "Kiel"),
        14,
    )
    assert "Still missing: a price plan." in words(clerk.get(""))
    assert "REGISTRY_INVALID" in clerk.post("start/seller", 400, **(seller | {"country": "Germany"})).text
    assert "FORM_INVALID" in clerk.post("start/seller", 400, **(seller | {"payment_days": "soon"})).text
    books.learn(device)
    page = words(clerk.get("start"))
    assert "Everything that billing needs is here" in page
    verbs = [json.loads(row["what"])["verb"] for row in books.rows(db.audit)]
    assert verbs == ["user", "import", "import", "upload", "import"]
    assert "Open cases" in words(clerk.get(""))


# --- on the command line -----------------------------------------------------------------------------


def test_the_verbs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, file = tmp_path / "settlement.db", tmp_path / "password"
    file.write_text(PASSWORD + "\n")

    def settle(*words: str, status: int = 0) -> str:
        got = run(make_cli(), ["settle", "--db", str(database), "user", *words])
        out, err = capsys.readouterr()
        assert got == status, out + err
        return str(out + err)

    secret = ("--password-file", str(file))
    assert "ann can log in as admin" in settle("add", "Ann", "--role", "admin", *secret)
    settle("add", "ann", "--role", "admin", *secret, status=2)
    settle("add", "rosa", "--role", "creator", *secret, status=2)
    settle("add", "rosa", "--role", "finance", "--party", "creator:a", *secret, status=2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(PASSWORD.encode() + b"\r\nmore")))
    settle("add", "rosa", "--role", "creator", "--party", "creator:a", "--password-file", "-")
    assert "last admin" in settle("disable", "ann", status=2)
    settle("disable", "rosa")
    settle("disable", "rosa")
    shown = json.loads(settle("list", "--format", "json"))
    assert shown == {"schema": "sealpack/settle-users/v1", "users": [
        {"name": "ann", "role": "admin", "state": "active"},
        {"name": "rosa", "role": "creator", "state": "disabled", "party": "creator:a"},
    ]}  # fmt: skip
    settle("enable", "rosa")
    file.write_text("another four plain words")
    settle("password", "rosa", *secret)
    assert "NOT_FOUND" in settle("password", "nobody", *secret, status=4)
    file.write_bytes(b"\xff\xfe" * 8)
    settle("password", "rosa", *secret, status=2)
    with db.Database.open(database) as opened, opened.read() as connection:
        found = users.find(connection, "ROSA")
        verbs = [entry.what["verb"] for entry in audit.entries(connection)]
    assert found is not None and users.is_right(found[1], "another four plain words")
    assert verbs == ["user", "user", "disable-user", "enable-user", "password"]
