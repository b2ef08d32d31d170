"""The console's pages: each module has `PAGES`."""

from __future__ import annotations

from sealpack.settlement.console.app import Page
from sealpack.settlement.console.pages import home

MODULES = (home,)
PAGES: tuple[Page, ...] = tuple(page for module in MODULES for page in module.PAGES)
