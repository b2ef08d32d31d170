"""The state database: what an older version wrote is brought up to date, with nothing lost."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from sealpack.runtime import home, state

VERSION_2 = (Path(__file__).parent / "state-2.sql").read_text(encoding="utf-8")


def _columns(db: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    return {
        name: sorted(tuple(row[1:]) for row in db.execute(f"PRAGMA table_info({name})")) for name in names
    }


def test_an_upgraded_database_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    old = home.open_home(tmp_path / "old")
    made = sqlite3.connect(old.database)
    made.executescript(VERSION_2)
    made.execute("INSERT INTO documents VALUES('license','L-1','d',x'7b7d')")
    made.commit()
    made.close()
    shapes = []
    for place in (old, home.open_home(tmp_path / "new")):
        with state.State(place) as opened, opened.read() as db:
            shapes.append({name: _without_order(rows) for name, rows in _columns(db).items()})
            strict = [row[0] for row in db.execute("SELECT name FROM pragma_table_list WHERE strict=1")]
            assert set(shapes[-1]) <= set(strict)
    assert shapes[0] == shapes[1]
    with state.State(old) as opened, opened.read() as db:
        assert db.execute("SELECT * FROM documents").fetchall() == [("license", "L-1", "d", b"{}")]


def _without_order(rows: list[tuple[object, ...]]) -> set[tuple[object, ...]]:
    """Name, type, not null, key; columns that were added later stand last, and have a default."""
    return {(name, kind, notnull, key) for name, kind, notnull, _, key in rows}


def test_what_is_told_afterwards_is_told_only_of_what_is_durable(tmp_path: Path) -> None:
    done: list[str] = []
    with state.State(home.open_home(tmp_path / "state")) as opened:
        with pytest.raises(ZeroDivisionError), opened.write() as db:
            state.afterwards(db, "one", lambda: done.append("undone"))
            raise ZeroDivisionError
        with opened.write() as db:
            state.afterwards(db, "one", lambda: done.append("first"))
            state.afterwards(db, "one", lambda: done.append("last"))
        with opened.write():
            pass
    assert done == ["last"]


def test_the_versions_statements_name_every_version() -> None:
    assert sorted(state._UPGRADES) == list(range(1, state.VERSION))
    assert re.search(r"user_version=2", VERSION_2)
