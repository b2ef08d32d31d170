"""The console's pages: each module has `PAGES`."""

from __future__ import annotations

from sealpack.settlement.console.app import Page
from sealpack.settlement.console.pages import (
    access,
    account,
    audit,
    cases,
    customers,
    devices,
    drop,
    files,
    home,
    licenses,
    replies,
    search,
    start,
)

MODULES = (
    home,
    drop,
    files,
    cases,
    replies,
    customers,
    licenses,
    devices,
    search,
    start,
    access,
    account,
    audit,
)
PAGES: tuple[Page, ...] = tuple(page for module in MODULES for page in module.PAGES)
