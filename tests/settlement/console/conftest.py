"""Passwords cost little in these tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.books import SIGNERS, Books
from support.clerk import Clerk, add_user, console_on

from sealpack.settlement import users
from sealpack.settlement.console.app import Console


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """scrypt with the smallest parameters."""
    monkeypatch.setattr(users, "COST", users.Cost(ln=4))


@pytest.fixture
def console(books: Books) -> Console:
    """A console on empty books, with settlement's key."""
    return console_on(books.database, signers=SIGNERS)


@pytest.fixture
def logged_in(console: Console) -> Callable[[str], Clerk]:
    """Somebody of a role who is logged in."""

    def make(role: str) -> Clerk:
        with console.service.database.read() as connection:
            known = {account.user.name for account in users.listed(connection)}
        if role not in known:
            add_user(console.service.database, role)
        clerk = Clerk(console)
        clerk.login(role)
        return clerk

    return make
