"""From an empty database to a statement, as a clerk clicks it: no test helper changes the books meanwhile."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect
from support import console, office
from support.console import PASSWORD, Server, Watched, tab

_DROP = """
files => {
  const all = new DataTransfer();
  for (const [name, text] of files) {
    all.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name));
  }
  return all;
}
"""
WORKERS = ("radiology 1", "ward 3")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Server]:
    """The service on a database that does not even have a user."""
    with console.serving(tmp_path) as server:
        yield server


def drop(page: Page, files: dict[str, bytes]) -> None:
    """Drag files over the zone and let them go."""
    said = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
    carried = page.evaluate_handle(_DROP, said)
    page.dispatch_event("form.drop", "dragover", {"dataTransfer": carried})
    expect(page.locator("form.drop.over")).to_be_visible()
    with page.expect_navigation():
        page.dispatch_event("form.drop", "drop", {"dataTransfer": carried})


def usage() -> dict[str, bytes]:
    """October of two machines: one file each, and the second half of one alone."""
    found = {}
    for label, machine in office.fleet().items():
        if label in WORKERS:
            machine.days("2026-09-22", "2026-10-15", 20)
            half = machine.size
            machine.days("2026-10-16", "2026-10-30", 20)
            name = label.replace(" ", "-")
            if label == "ward 3":
                found[f"{name}-2.usage.gz"] = machine.export(half)
                found[f"{name}-1.usage.gz"] = machine.export(0, half)
            else:
                found[f"{name}.usage.gz"] = machine.export()
    return found


def outcomes(page: Page) -> dict[str, str]:
    """What the page says became of each file."""
    rows = page.locator("main table").first.locator("tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").first.inner_text() for row in rows}


def figure(page: Page, label: str) -> str:
    """The number above a label."""
    return page.locator(".figures li", has_text=label).locator(".number").first.inner_text()


def set_up(watched: Watched, code: str) -> Page:
    page = watched.go("/console/setup")
    page.get_by_label("Set-up code").fill(code)
    page.get_by_label("User name").fill("Ada")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.get_by_role("button", name="Make the admin").click()
    expect(page.get_by_role("heading", name="First steps")).to_be_visible()
    return page


def test_from_set_up_to_statement(empty: Server, browser: Browser) -> None:
    with tab(browser, empty) as watched:
        assert empty.code
        page = set_up(watched, empty.code)
        page.on("dialog", lambda dialog: dialog.accept())

        drop(page, office.registry_files())
        assert set(outcomes(page).values()) == {"imported"}
        page = watched.go("/console/start")
        expect(page.get_by_text("missing")).to_have_count(1)  # usage files

        files = usage()
        late = {"ward-3-2.usage.gz": files.pop("ward-3-2.usage.gz")}
        page = watched.go("/console/drop")
        drop(page, late)
        assert outcomes(page) == {"ward-3-2.usage.gz": "H201"}
        page.get_by_role("link", name="Drop more").click()
        drop(page, files)
        assert outcomes(page) == {"radiology-1.usage.gz": "OK", "ward-3-1.usage.gz": "OK"}
        expect(page.get_by_role("heading", name="Taken from what waited")).to_be_visible()
        page = watched.go("/console/cases")
        expect(page.get_by_text("No case")).to_be_visible()
        watched.go("/console/drop")
        drop(page, {"again.usage.gz": files["radiology-1.usage.gz"], "letter.txt": b"Dear Sir or Madam"})
        assert outcomes(page)["again.usage.gz"] == "W101"

        page = watched.go("/console/drafts?month=2026-10")
        page.get_by_role("link", name="L-2026-001", exact=True).click()
        total = page.locator("dt", has_text="Net, total").locator("+ dd").inner_text()
        page.get_by_role("button", name="Approve", exact=True).click()
        expect(page.get_by_role("status")).to_be_visible()
        expect(page.get_by_role("heading", name="Take the approval back")).to_be_visible()
        page.get_by_role("button", name="Issue the invoice").click()
        expect(page.get_by_role("heading", name="Invoice ACME-000001")).to_be_visible()
        due = figure(page, "total, EUR")
        assert due in total

        page.get_by_role("link", name="Record a payment").click()
        page.get_by_label(re.compile("^Amount")).fill("100.00")
        page.get_by_label("Bank reference").fill("bank 1")
        page.get_by_role("button", name="Look at it first").click()
        expect(page.get_by_role("heading", name="This will happen")).to_be_visible()
        page.locator("main form button.primary").click()
        assert figure(page, "paid") == "100.00"

        page.get_by_role("link", name="Credit", exact=True).click()
        page.get_by_label(re.compile("^Amount before tax")).fill("10.00")
        page.get_by_label("Reason").fill("One day without support")
        page.get_by_role("button", name="Look at it first").click()
        page.locator("main form button.primary").click()
        page = watched.go("/console/invoices/ACME-000001")
        assert figure(page, "credited") == "11.90"
        left = cents(due) - 10_000 - 1_190
        assert cents(figure(page, "open")) == left

        page = watched.go("/console/statements/hospital-nord")
        assert cents(figure(page, "open on")) == left
        rows = page.locator("main table tbody tr").all()
        assert [row.locator("td").nth(1).inner_text() for row in rows] == [
            "invoice",
            "payment",
            "credit note",
        ]
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        assert "ACME-000001" in Path(download.value.path()).read_text()

        page = watched.go("/console/audit")
        page.get_by_role("button", name="Verify the chain").click()
        expect(page.get_by_role("status")).to_contain_text("is whole")
        verbs = {row.locator("td").nth(2).inner_text() for row in page.locator("main table tbody tr").all()}
        assert {"issue", "payment", "approve"} <= verbs
        assert watched.wrong == []


def cents(text: str) -> int:
    """1,234.56 as 123456."""
    return int(re.sub(r"[^0-9]", "", text))


def test_a_question_is_asked_before_what_cannot_be_taken_back(vendor: Server, browser: Browser) -> None:
    with tab(browser, vendor) as watched:
        page = watched.login("admin").go("/console/drafts/L-2026-001/2026-11")
        asked: list[str] = []

        def refuse(dialog: Dialog) -> None:
            asked.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", refuse)
        page.get_by_role("button", name="Issue the invoice").click()
        assert asked == ["Issue this invoice? It cannot be taken back, only credited."]
        expect(page.get_by_role("button", name="Issue the invoice")).to_be_visible()
        assert "/drafts/" in page.url


def test_login_by_keyboard_alone(vendor: Server, browser: Browser) -> None:
    with tab(browser, vendor) as watched:
        page = watched.go("/console/login")
        keyboard = page.keyboard

        def tab_to(selector: str, most: int = 60) -> None:
            for _ in range(most):
                if page.evaluate("s => document.activeElement.matches(s)", selector):
                    style = "getComputedStyle(document.activeElement).outlineStyle"
                    assert page.evaluate(style) != "none", selector
                    return
                keyboard.press("Tab")
            raise AssertionError(f"{selector} is not reached")

        tab_to("#f-name", 8)
        keyboard.type(console.USERS["finance"][0])
        keyboard.press("Tab")
        keyboard.type(PASSWORD)
        with page.expect_navigation():
            keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
        keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        expect(page.locator(".skip")).to_be_in_viewport()
        keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        keyboard.press("Control+Home")
        watched.go("/console/")
        tab_to("#search")
        keyboard.type("acme-000002")
        with page.expect_navigation():
            keyboard.press("Enter")
        tab_to("main th a")
        with page.expect_navigation():
            keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Invoice ACME-000002")).to_be_visible()
        assert watched.wrong == []


def test_wrong_passwords_are_told_without_saying_what_was_wrong(vendor: Server, browser: Browser) -> None:
    with tab(browser, vendor) as watched:
        watched.allowed.append("status of 401")
        said = []
        for name in (console.USERS["finance"][0], "nobody"):
            page = watched.go("/console/login")
            page.get_by_label("User name").fill(name)
            page.get_by_label("Password").fill("not the password")
            page.get_by_role("button", name="Log in").click()
            said.append(page.get_by_role("alert").inner_text())
        assert said[0] == said[1]
        assert watched.check() + watched.wrong == []


def test_a_customers_record_is_changed_and_checked(vendor: Server, browser: Browser) -> None:
    with tab(browser, vendor) as watched:
        watched.allowed.append("status of 4")
        page = watched.login("finance").go("/console/customers/uni-tartu")
        page.get_by_role("link", name="Change the record").click()
        page.get_by_label("Legal name").fill("Tartu Ülikool")
        page.get_by_label("Country").fill("EE")
        page.get_by_label("Days to pay").fill("soon")
        page.get_by_role("button", name="Save the record").click()
        expect(page.get_by_role("alert")).to_contain_text("Days to pay must be a whole number")
        expect(page.get_by_label("Legal name")).to_have_value("Tartu Ülikool")
        assert watched.check() == []
        page.get_by_label("Days to pay").fill("21")
        page.get_by_role("button", name="Save the record").click()
        expect(page.get_by_role("status")).to_have_text("The record of Tartu Ülikool is saved.")
        expect(page.get_by_text("no record")).to_have_count(0)
        page.reload()
        expect(page.locator("main .notice")).to_have_count(0)

        with tab(browser, vendor) as other:  # somebody else, at the same time
            theirs = other.login("admin").go("/console/customers/uni-tartu/edit")
            page.goto(f"{vendor.url}/console/customers/uni-tartu/edit")
            for editor, email in ((page, "one@tartu.example"), (theirs, "two@tartu.example")):
                editor.get_by_label("E-mail for invoices").fill(email)
                editor.get_by_role("button", name="Save the record").click()
            expect(theirs.get_by_role("alert")).to_contain_text("CHANGED_MEANWHILE")
        assert watched.wrong == []


def test_usage_by_customer_as_chart_table_and_csv(vendor: Server, browser: Browser) -> None:
    with tab(browser, vendor) as watched:
        page = watched.login("auditor").go("/console/usage?month=2026-10")
        assert page.locator("figure svg rect.s1").count() > 15
        page.get_by_label("Count", exact=True).select_option("tok_out")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name="Customers", exact=True).last.click()
        first = page.locator("main tbody tr").first
        name, tokens = first.locator("th").inner_text(), first.locator("td").nth(2).inner_text()
        assert cents(tokens) > 0
        with page.expect_download() as download:
            page.get_by_role("link", name="Table as CSV").click()
        text = Path(download.value.path()).read_text()
        head, row = text.splitlines()[:2]
        assert head == "customer,customer name,calls,tok_in,tok_out,ms,items"
        assert row.split(",")[1] == name and row.split(",")[4] == str(cents(tokens))
        assert watched.wrong == []
