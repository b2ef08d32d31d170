"""The console's pages: each module has `PAGES`."""

from __future__ import annotations

from sealpack.settlement.console.app import Page
from sealpack.settlement.console.pages import (
    access,
    account,
    cases,
    drop,
    files,
    home,
    replies,
    start,
)

MODULES = (
    home,
    drop,
    files,
    cases,
    replies,
    start,
    access,
    account,
)
PAGES: tuple[Page, ...] = tuple(page for module in MODULES for page in module.PAGES)
