"""The console's pages: each module has `PAGES`."""

from __future__ import annotations

from sealpack.settlement.console.app import Page
from sealpack.settlement.console.pages import (
    access,
    account,
    accounts,
    audit,
    booking,
    cases,
    customers,
    devices,
    drafts,
    drop,
    exports,
    files,
    home,
    invoices,
    licenses,
    payouts,
    replies,
    search,
    start,
    unbilled,
    usage,
)

MODULES = (
    home,
    drop,
    files,
    cases,
    replies,
    drafts,
    unbilled,
    invoices,
    booking,
    accounts,
    payouts,
    exports,
    customers,
    licenses,
    devices,
    usage,
    search,
    start,
    access,
    account,
    audit,
)
PAGES: tuple[Page, ...] = tuple(page for module in MODULES for page in module.PAGES)
