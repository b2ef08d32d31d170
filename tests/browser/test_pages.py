"""Every page in every role: reachable, whole, accessible, without scripts too; nothing leaves the machine."""

from __future__ import annotations

from functools import cache

import pytest
from playwright.sync_api import Browser
from support import crawl
from support.console import USERS, Server, tab

from sealpack.settlement.console.pages import PAGES

# What forms lead to, not links; the flows go there.
BY_FORM = {"/console/search", "/console/exports/{what}", "/console/replies/zip", "/console/drops/{number}"}
AXE_ROLES = ("admin", "creator")  # between them they see every page


def visible(role: str) -> set[str]:
    return {page.path for page in PAGES if page.method == "GET" and role in page.roles}


@cache
def crawled(origin: str, role: str) -> crawl.Visitor:
    return crawl.Visitor(origin).login(role).crawl(4)


def pages(origin: str, role: str) -> list[str]:
    """An address of each registered page that links lead to; documents are no pages of the console."""
    found = crawled(origin, role).pages.items()
    shown = [addresses[0] for path, addresses in found if addresses and "/file/" not in path]
    return [*shown, "/console/search?q=l-2026", "/console/search"] if role != "creator" else shown


@pytest.mark.parametrize("role", USERS)
def test_links_lead_somewhere_and_reach_every_page(vendor: Server, role: str) -> None:
    found = crawled(vendor.url, role)
    assert found.broken == {}
    assert set(found.pages) - visible(role) == set()
    assert visible(role) - set(found.pages) - BY_FORM == set()


@pytest.mark.parametrize("role", USERS)
def test_every_page_is_whole(vendor: Server, browser: Browser, role: str) -> None:
    with tab(browser, vendor) as watched:
        watched.login(role)
        found = []
        for address in pages(vendor.url, role):
            watched.go(address)
            found += watched.check(axe=role in AXE_ROLES)
        assert found + watched.wrong == []


def test_every_page_is_accessible_in_the_dark(vendor: Server, browser: Browser) -> None:
    """Contrast is all that differs."""
    with tab(browser, vendor, color_scheme="dark") as watched:
        watched.login("admin")
        found = []
        for address in pages(vendor.url, "admin"):
            watched.go(address)
            found += watched.contrast()
        assert found + watched.wrong == []


def test_every_page_works_without_scripts(vendor: Server, browser: Browser) -> None:
    with tab(browser, vendor, java_script_enabled=False) as watched:
        watched.login("admin")
        for address in pages(vendor.url, "admin"):
            page = watched.go(address)
            assert page.locator("main h1").is_visible(), address
            for button in page.locator("main button").all():
                assert button.get_attribute("type") == "submit" and button.is_enabled(), address
        assert watched.wrong == []


@pytest.mark.parametrize("role", ["admin", "creator"])
def test_every_page_has_something_to_say_when_there_is_nothing(
    beginner: Server, browser: Browser, role: str
) -> None:
    assert crawled(beginner.url, role).broken == {}
    with tab(browser, beginner) as watched:
        watched.login(role)
        found = []
        for address in pages(beginner.url, role):
            watched.go(address)
            found += watched.check()
        assert found + watched.wrong == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/nothing-here", 404), ("/console/customers/nobody", 404), ("/console/licenses/L-0", 404),
        ("/console/devices/L-0/none", 404), ("/console/plans/none/1", 404), ("/console/plans/none/x", 404),
        ("/console/invoices/NONE-1", 400), ("/console/cases/999999", 400),
        ("/console/files/" + "0" * 64, 404), ("/console/usage?month=never", 400),
        ("/console/audit?after=%00", 400), ("/console/devices?after=bm9uZQ==", 400),
        ("/console/devices?state=none", 400), ("/console/usage?by=weather", 400),
        ("/console/usage?from=2026-12-01&to=2026-11-01", 400), ("/console/audit?day=today", 400),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_in_words(vendor: Server, browser: Browser, path: str, status: int) -> None:
    with tab(browser, vendor) as watched:
        watched.allowed.append(f"status of {status}")
        watched.login("admin")
        page = watched.go(path, status)
        assert page.get_by_role("alert").locator("code").last.inner_text().replace("_", "").isupper()
        assert page.get_by_text("What to do:").is_visible()
        assert watched.check(axe="usage?by" in path) + watched.wrong == []
