"""Estimates in the console: the list of drafts counts them, the draft says them, and what is late takes them
back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from support.books import Books
from support.clerk import Clerk, add_user, console_on, words
from support.device import Device
from support.rating_plans import make_plan, per_unit

READY = int(datetime(2026, 12, 11, tzinfo=UTC).timestamp())  # November's days of grace are over
LIST, DRAFT = "drafts?month=2026-11", "drafts/L-1/2026-11"


def at(month: int) -> int:
    return int(datetime(2026, month, 1, tzinfo=UTC).timestamp()) * 1000


def silent() -> Device:
    """One that used 100 tokens in September and October, and is not known after that."""
    return Device().use(tok_out=100).until(at(10)).use(tok_out=100).tally().until(at(11)).tally()


def clerk_at(books: Books, clock: Callable[[], int]) -> Clerk:
    add_user(books.database, "finance")
    clerk = Clerk(console_on(books.database, clock=clock))
    clerk.login("finance")
    return clerk


def test_a_month_with_estimates(books: Books) -> None:
    device, now = silent(), [READY - 1]
    books.learn(device, plan=make_plan(per_unit("0.01"), per=1, estimate={"months": 3}))
    assert books.code(device.export(), now=READY) == "OK"
    clerk = clerk_at(books, lambda: now[0])
    assert "estimated" not in words(clerk.get(LIST)), "in grace"
    now[0] = READY
    assert "1 estimated" in words(clerk.get(LIST))
    page = clerk.get(DRAFT)
    assert f"100 output tokens estimated for device {device.id}" in words(page)
    assert "estimated for device" in clerk.get(f"{DRAFT}/file/html").text
    found = re.search(r'name="draft" value="([0-9a-f]{64})"', page.text)
    assert found is not None
    clerk.post(f"{DRAFT}/issue", draft=found[1], date="2026-12-11")
    assert "L-1" not in words(clerk.get("unbilled")), "nothing differs from what was issued"
    size = device.size
    device.until(at(12)).tally()
    assert books.code(device.export(size), now=READY) == "OK"
    assert "-1.00" in words(clerk.get("unbilled")).replace("−", "-")
    assert "-1.00" in words(clerk.get("corrections/L-1")).replace("−", "-")
