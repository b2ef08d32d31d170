"""Every page of the console that can be reached by links, without a browser."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from starlette.routing import compile_path

from sealpack.settlement.console.pages import PAGES
from support.console import PASSWORD, USERS

PATTERNS = {page.path: compile_path(page.path)[0] for page in PAGES if page.method == "GET"}
REFUSED = "EXPORT_REFUSED"  # a document that a form cannot express, told in words


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Addresses of links."""
        said = dict(attrs)
        if tag == "a" and said.get("href"):
            self.found.append(said["href"] or "")


@dataclass
class Visitor:
    """Somebody who is logged in and follows links; `broken` are those that lead nowhere."""

    origin: str
    broken: dict[str, str] = field(default_factory=dict)  # address -> status and where the link stands
    pages: dict[str, list[str]] = field(default_factory=dict)  # registered path -> addresses of pages
    at: str = ""  # where the last answer came from, after redirects

    def __post_init__(self) -> None:
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)

    def get(self, address: str) -> tuple[int, str, str]:
        """Status, media type and text."""
        try:
            with self._opener.open(self.origin + address, timeout=60) as answer:
                self.at = answer.url.removeprefix(self.origin)
                return (
                    answer.status,
                    answer.headers.get_content_type(),
                    answer.read().decode("utf-8", "replace"),
                )
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get_content_type(), error.read().decode("utf-8", "replace")

    def login(self, role: str) -> Visitor:
        """Log in by the form."""
        token = re.search(r'name="csrf" value="([^"]+)"', self.get("/console/login")[2])
        assert token is not None
        said = {"csrf": token[1], "name": USERS[role][0], "password": PASSWORD, "next": "/console/"}
        body = urllib.parse.urlencode(said).encode()
        with self._opener.open(self.origin + "/console/login", body, timeout=60) as answer:
            assert answer.url == self.origin + "/console/", answer.url
        return self

    def crawl(self, each: int = 12) -> Visitor:
        """Follow every link of every page, at most `each` addresses of a registered path."""
        waiting, seen = [("/console/", "the start")], {"/console/"}
        visits: Counter[str | None] = Counter()
        while waiting:
            address, source = waiting.pop(0)
            pattern = pattern_of(address)
            if pattern:
                self.pages.setdefault(pattern, [])
            visits[pattern] += 1
            if visits[pattern] > each:
                continue
            status, kind, text = self.get(address)
            if status != 200:
                if REFUSED not in text:
                    self.broken[address] = f"{status}, from {source}"
                continue
            if kind == "text/html" and pattern:
                self.pages.setdefault(pattern_of(self.at) or pattern, []).append(self.at)
                for link in links(text, address):
                    if link not in seen:
                        seen.add(link)
                        waiting.append((link, address))
        return self


def links(text: str, address: str) -> Iterator[str]:
    """Addresses under /console/ that a page links to, without fragments."""
    parser = _Links()
    parser.feed(text)
    for found in parser.found:
        link = urllib.parse.urldefrag(urllib.parse.urljoin(address, found)).url
        if link.startswith("/console/"):
            yield link


def pattern_of(address: str) -> str | None:
    """The registered path that an address belongs to."""
    path = urllib.parse.urlsplit(address).path
    decoded = urllib.parse.unquote(path)
    return next((name for name, pattern in PATTERNS.items() if pattern.match(decoded)), None)
