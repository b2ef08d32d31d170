"""A settlement database for each test: SQLite, and PostgreSQL where a module asks for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import outputs, postgres
from support.books import Books

from sealpack.verifier.cli import support

KINDS = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of `books` runs on both databases, but for those that look into SQLite's file."""
    if "books" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("sqlite_only"):
        metafunc.parametrize("books", KINDS, indirect=True)


@pytest.fixture(autouse=True)
def _outputs_fit_their_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a verb prints in any test has the form that is published for it."""
    emit = support.emit

    def checked(result: dict[str, Any], text: str, fmt: str) -> None:
        outputs.check(result)
        emit(result, text, fmt)

    monkeypatch.setattr(support, "emit", checked)


@pytest.fixture
def books(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Books]:
    """Books of the kind that the parameter names."""
    if getattr(request, "param", "sqlite") == "sqlite":
        made = Books.open(tmp_path)
        yield made
        made.database.close()
        return
    cluster: postgres.Server = request.getfixturevalue("server")
    with cluster.lent() as url:
        made = Books.open(tmp_path, url)
        yield made
        made.database.close()
