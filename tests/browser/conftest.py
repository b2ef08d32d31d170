"""A browser and two servers for this folder: one with a vendor's books, one with nothing in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs the package playwright")
pytest.importorskip("axe_playwright_python", reason="needs the package axe-playwright-python")
pytest.importorskip("starlette")
pytest.importorskip("jinja2")

from playwright.sync_api import Browser
from support import console, office


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium; tests are skipped where it is not installed."""
    if console.CHROMIUM is None:
        pytest.skip("needs the package chromium")
    with console.chromium() as found:
        yield found


@pytest.fixture(scope="package")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[console.Server]:
    """The service on a vendor's books; tests of this folder that change them use their own."""
    folder = tmp_path_factory.mktemp("vendor")
    yield from _served(folder, full=True)


@pytest.fixture(scope="package")
def beginner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[console.Server]:
    """The service on an empty database with its users."""
    yield from _served(tmp_path_factory.mktemp("beginner"), full=False)


def _served(folder: Path, *, full: bool) -> Iterator[console.Server]:
    database = office.make(folder).database if full else office.db.Database.open(folder / "settlement.db")
    console.add_users(database, office.NOW - 86_400)
    database.close()
    with console.serving(folder) as server:
        yield server
