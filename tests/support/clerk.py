"""Somebody at the console, without a browser: logs in, reads pages, sends their forms."""

from __future__ import annotations

import re
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

from sealpack.settlement import db, users
from sealpack.settlement.audit import Actor
from sealpack.settlement.console.app import Console
from sealpack.settlement.service.app import Service, make_app
from support.books import NOW

PASSWORD = "four plain words here"
SCOPES = {"creator": "party:creator:acme"}
_TOKEN = re.compile(r'name="csrf" value="([0-9a-f]{64})"')


def add_user(database: db.Database, role: str, name: str | None = None) -> users.User:
    """A user called like the role, with :data:`PASSWORD`."""
    scope = SCOPES.get(role, "")
    return users.add(database, name or role, role, scope, PASSWORD, actor=Actor("tests", NOW))


class Clerk:
    """A browser of its own on a console; follows nothing by itself."""

    def __init__(self, console: Console, address: str = "10.0.0.1") -> None:
        scheme = "https" if console.secure else "http"
        self.console = console
        self.http = TestClient(
            make_app(console.service, console), base_url=f"{scheme}://console.example",
            follow_redirects=False, raise_server_exceptions=False, client=(address, 50_000),
        )  # fmt: skip

    def get(self, path: str, status: int = 200, **more: Any) -> Response:
        """A page, by its path under /console/."""
        answer = self.http.get(f"/console/{path}", **more)
        assert answer.status_code == status, (path, answer.status_code, words(answer))
        return answer

    def csrf(self, path: str = "account") -> str:
        """What the forms of a page carry."""
        found = _TOKEN.search(self.http.get(f"/console/{path}").text)
        assert found, path
        return found[1]

    def post(self, path: str, status: int = 303, *, csrf: str | None = None, **fields: Any) -> Response:
        """Send a form, with its token unless another is given; `files` are (name, content)."""
        files = [("files", (name, data)) for name, data in fields.pop("files", ())]
        fields["csrf"] = self.csrf() if csrf is None else csrf
        answer = self.http.post(f"/console/{path}", data=fields, files=files or None)
        assert answer.status_code == status, (path, answer.status_code, words(answer))
        return answer

    def login(self, name: str, password: str = PASSWORD, status: int = 303, **more: str) -> Response:
        """By the form."""
        return self.post("login", status, csrf=self.csrf("login"), name=name, password=password, **more)

    def follow(self, answer: Response) -> Response:
        """The page that an answer leads to."""
        assert answer.status_code == 303
        return self.http.get(answer.headers["location"])

    def drop(self, *files: tuple[str, bytes]) -> str:
        """Drop files; what the page says then."""
        return words(self.follow(self.post("drop", files=files)))


def words(answer: Response) -> str:
    """What a page says, without its marks."""
    inner = answer.text.partition("<main")[2].partition("</main>")[0].partition(">")[2]
    return " ".join(re.sub(r"<[^>]*>", " ", inner).split())


def console_on(database: db.Database, **more: Any) -> Console:
    """A console on a database; `clock` and `signers` are the service's."""
    service = Service(database, more.pop("signers", None), clock=more.pop("clock", lambda: NOW))
    return Console(service, **more)
