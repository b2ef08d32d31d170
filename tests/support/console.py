"""The console as a browser meets it: `settle serve` in a process of its own, users who can log in, and a
Chromium that tells of everything that is not right with a page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from sealpack.settlement import db, users
from sealpack.settlement.audit import Actor
from support import office
from support.books import settlement_pem

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")
PASSWORD = "four plain words here"
USERS = {
    "admin": ("ada", ""),
    "finance": ("mara", ""),
    "auditor": ("otto", ""),
    "creator": ("rosa", "party:creator:radiolab"),
}
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 375, "height": 800}
# The books end on a day of 2026; the server that shows them lives on that day too, and its clock runs.
_SERVE = """
import sys, time
from sealpack.verifier.cli import support
behind = int(time.time()) - int(sys.argv.pop(1))
support.now = lambda: int(time.time()) - behind
from functools import partial
from sealpack.settlement.service import limits
limits.Limits = partial(limits.Limits, burst=1_000_000)  # tests click faster than people
from sealpack.verifier.cli.main import main
main()
"""


def add_users(database: db.Database, now: int) -> None:
    """One of each role, all with :data:`PASSWORD`, which costs little to check."""
    usual, users.COST = users.COST, users.Cost(ln=10)
    try:
        for role, (name, scope) in USERS.items():
            users.add(database, name, role, scope, PASSWORD, actor=Actor("tests", now))
    finally:
        users.COST = usual


@contextmanager
def serving(folder: Path, address: str | None = None, now: int = office.NOW) -> Iterator[Server]:
    """`settle serve` on a free port of this machine, its clock at `now` when it starts."""
    where = address or str(folder / "settlement.db")
    verb = ["settle", "--db", where, "serve", "--port", "0", *(_key(folder, where))]
    command = [sys.executable, "-c", _SERVE, str(now), *verb]
    with (folder / "serve.log").open("w+") as log:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        drain = None
        try:
            said = process.stderr.readline()
            found = re.search(r"listening on (http://\S+)", said)
            assert found, said + process.stderr.read()
            server = Server(found[1])
            first = re.search(r"set-up code: (\S+)", process.stderr.readline()) if server.is_new else None
            server.code = first[1] if first else ""
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log)
            yield server
        finally:
            process.terminate()
            process.wait(40)
            process.stderr.close()
            if drain is not None:
                drain.wait(10)


def _key(folder: Path, address: str) -> list[str]:
    """The option that lets it sign replies: it asks for a trust file that knows the key."""
    with db.Database.open(address) as database, database.read() as connection:
        pinned = connection.execute(db.trust.select()).first() is not None
    return ["--key", str(settlement_pem(folder))] if pinned else []


@dataclass
class Server:
    """Where it listens; `code` is what the first set-up asks for, where there is no user yet."""

    url: str
    code: str = ""

    @property
    def is_new(self) -> bool:
        """Whether it asks for the first set-up."""
        import urllib.request

        with urllib.request.urlopen(self.url + "/console/login", timeout=30) as answer:
            return urlsplit(answer.url).path == "/console/setup"


@dataclass
class Watched:
    """A page of the browser, and all that was wrong with what it showed."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)  # parts of messages that are expected

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"{self.page.url}: {error}"))
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in self.allowed):
            self.wrong.append(f"{self.page.url}: {message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.wrong.append(f"{self.page.url}: asks {request.url}")

    def go(self, path: str, status: int = 200) -> Page:
        """Open a path of the console."""
        answer = self.page.goto(self.origin + path)
        assert answer is not None and answer.status == status, (path, answer and answer.status)
        return self.page

    def login(self, role: str) -> Watched:
        """Log in by the form."""
        self.go("/console/login")
        self.page.get_by_label("User name").fill(USERS[role][0])
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        assert urlsplit(self.page.url).path == "/console/", self.page.url
        return self

    def contrast(self) -> list[str]:
        """Text that cannot be told from its ground."""
        path = urlsplit(self.page.url).path
        return [f"{path}: {problem}" for problem in accessibility(self.page, "color-contrast")]

    def check(self, *, axe: bool = True) -> list[str]:
        """What is wrong with the page that is shown: rules of axe-core, room at two widths, one heading."""
        path, page = urlsplit(self.page.url).path, self.page
        found = []
        if axe:
            found += [f"{path}: {problem}" for problem in accessibility(page)]
        if page.locator("h1").count() != 1:
            found.append(f"{path}: {page.locator('h1').count()} headings of the first level")
        for size in (NARROW, WIDE):
            page.set_viewport_size(size)
            room = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            if (over := page.evaluate(room)) > 0:
                found.append(f"{path}: {over} px too wide at {size['width']}")
        return found


def accessibility(page: Page, *rules: str) -> list[str]:
    """Violations of axe-core's rules, of :data:`RULES` or those named, with the elements."""
    page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text())
    run = "runOnly => axe.run(document, {runOnly, resultTypes: ['violations']})"
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": list(RULES)}
    violations: list[dict[str, Any]] = page.evaluate(run, only)["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'].splitlines()[-1].strip()}"
        for one in violations
        for node in one["nodes"]
    ]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The installed Chromium, headless, with a folder of its own."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="sealpack-chromium-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), env={"HOME": folder, "TMPDIR": folder}
        )
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser, server: Server, **options: Any) -> Iterator[Watched]:
    """A page in a fresh context: no cookies, wide."""
    context: BrowserContext = browser.new_context(viewport=WIDE, locale="en-GB", timezone_id="UTC", **options)
    context.set_default_timeout(15_000)
    try:
        yield Watched(context.new_page(), server.url)
    finally:
        context.close()
