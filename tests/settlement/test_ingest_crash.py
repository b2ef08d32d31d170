"""A process that dies while it ingests, at every statement it sends to the database.

The child is killed (kill -9) right before its n-th statement; then the same files are given again. Whatever
n was, the tables must end as if nothing had happened.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
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
files = [folder / name for name in json.loads(sys.argv[4])]


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


@dataclass
class Stick:
    """Files that come out of order, twice, torn and overlapping."""

    folder: Path
    device: Device
    files: list[str]

    def books(self, name: str, before: list[str]) -> Books:
        """A database of that name that knows the device and took in some of the files."""
        made = Books(self.folder, db.Database.open(self.folder / name)).learn(self.device)
        self.ingest(made, before)
        return made

    def ingest(self, books: Books, names: list[str]) -> None:
        for name in names:
            ingest.ingest_file(books.database, self.folder / name, NOW)

    def crash(self, points: list[int], names: list[str]) -> list[int]:
        """Exit status of a child per point: -9 where it was killed, 0 where it had no such statement."""
        arguments = [str(self.folder), str(NOW), json.dumps(points), json.dumps(names)]
        done = subprocess.run([sys.executable, "-c", CRASHER, *arguments], capture_output=True, text=True)
        assert not done.stderr
        ended: list[int] = json.loads(done.stdout)
        return ended


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    device = Device().work(280).lose().work(20)
    exports = {
        "0.usage.gz": device.export(0, 40),
        "1-far.usage.gz": device.export(200),
        "2-torn.usage.gz": device.export(0, 270)[:-200],
        "3.usage.gz": device.export(90, 200),
        "4-whole.usage.gz": device.export(),
    }
    for name, data in exports.items():
        (tmp_path / name).write_bytes(data)
    return Stick(tmp_path, device, list(exports))


def tables(books: Books) -> dict[str, list[dict[str, Any]]]:
    assert reconcile(books.database, NOW).problems == ()
    return {
        name: books.rows(table) for name, table in db.metadata.tables.items() if table.primary_key.columns
    }


# How many files came before, how many a child takes that dies, and every which statement is tried.
@pytest.mark.parametrize(("before", "taken", "step"), [(0, 5, 4), (2, 1, 1)])
def test_killed_at_a_statement_and_run_again(stick: Stick, before: int, taken: int, step: int) -> None:
    early, rest = stick.files[:before], stick.files[before : before + taken]
    with stick.books("whole.db", [*early, *rest]).database as whole:
        expected = tables(Books(stick.folder, whole))
    stick.books("early.db", early).database.close()
    points = [*range(1, 56 * min(step, 3), step), 100_000]
    for number in points:
        shutil.copy(stick.folder / "early.db", stick.folder / f"{number}.db")
    ended = stick.crash(points, rest)
    assert ended[-1] == 0  # it has not so many
    assert ended[:-1].count(-signal.SIGKILL) > 30
    for number in points:
        with db.Database.open(stick.folder / f"{number}.db") as database:
            again = Books(stick.folder, database)
            stick.ingest(again, rest)
            assert tables(again) == expected, f"killed before statement {number}"
