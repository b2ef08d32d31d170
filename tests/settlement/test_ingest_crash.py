"""A process that dies while it ingests, at every statement it sends to the database.

The child is killed (kill -9) right before its n-th statement; then the same files are given again. Whatever
n was, the tables must end as if nothing had happened.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.books import NOW, Books
from support.device import Device

from sealpack.settlement import db, ingest
from sealpack.settlement.reconcile import reconcile

# Forks one child per database and dies in it before statement n; the parent never opens a database.
CRASHER = """
import json, os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from sealpack.settlement import db, ingest

folder, now, points = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
files = sorted(folder.glob("*.usage.gz"))


def run(number):
    sent = 0

    def count(*_):
        nonlocal sent
        sent += 1
        if sent == number:
            os.kill(os.getpid(), signal.SIGKILL)

    with db.Database.open(folder / f"{number}.db") as database:
        sa.event.listen(sa.engine.Engine, "before_cursor_execute", count)
        sa.event.listen(sa.engine.Engine, "commit", count)
        for path in files:
            ingest.ingest_file(database, path, now)


ended = []
for number in points:
    child = os.fork()
    if not child:
        run(number)
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ended))
"""


@pytest.fixture
def stick(tmp_path: Path) -> tuple[Path, Device]:
    """Files that come out of order, twice, torn and overlapping, in the order of their names."""
    device = Device().work(280).lose().work(20)
    files = [
        device.export(0, 40),
        device.export(200),
        device.export(0, 270)[:-200],
        device.export(90, 200),
        device.export(40, 120),
        device.export(),
    ]
    for number, data in enumerate(files):
        (tmp_path / f"{number}.usage.gz").write_bytes(data)
    return tmp_path, device


def prepared(folder: Path, device: Device, name: str) -> Books:
    """A database of that name that knows the device."""
    return Books(folder, db.Database.open(folder / name)).learn(device)


def take_all(books: Books) -> None:
    for path in sorted(books.folder.glob("*.usage.gz")):
        ingest.ingest_file(books.database, path, NOW)


def tables(books: Books) -> dict[str, list[dict[str, Any]]]:
    assert reconcile(books.database, NOW).problems == ()
    return {
        name: books.rows(table) for name, table in db.metadata.tables.items() if table.primary_key.columns
    }


def crash(folder: Path, points: list[int]) -> list[int]:
    """Exit status of a child per point: -9 where it was killed, 0 where it had no such statement."""
    command = [sys.executable, "-c", CRASHER, str(folder), str(NOW), json.dumps(points)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    ended: list[int] = json.loads(done.stdout)
    return ended


def test_killed_at_any_statement_and_run_again(stick: tuple[Path, Device]) -> None:
    folder, device = stick
    undisturbed = prepared(folder, device, "whole.db")
    take_all(undisturbed)
    expected = tables(undisturbed)
    assert undisturbed.log(device).frontier == device.frontier(device.size)
    points = [*range(1, 110, 3), 100_000]
    for number in points:
        prepared(folder, device, f"{number}.db").database.close()
    ended = crash(folder, points)
    assert ended[-1] == 0  # nothing to be killed at
    assert ended[:-1].count(-signal.SIGKILL) > 20
    for number in points:
        books = Books(folder, db.Database.open(folder / f"{number}.db"))
        take_all(books)
        assert tables(books) == expected, f"killed before statement {number}"
        books.database.close()
    undisturbed.database.close()
