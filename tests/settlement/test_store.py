"""The database where disks are full, read-only or damaged: one line on stderr, and nothing half-done."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.books import NOW, Books
from support.device import Device

from sealpack.settlement import db
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

pytestmark = pytest.mark.sqlite_only


@contextmanager
def at_most(pages: int) -> Iterator[None]:
    """A disk with room for so many pages of every database that is opened meanwhile."""

    def limit(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    sa.event.listen(sa.engine.Engine, "connect", limit)
    try:
        yield
    finally:
        sa.event.remove(sa.engine.Engine, "connect", limit)


def settle(books: Books, *arguments: str | Path) -> int:
    return run(make_cli(), ["settle", "--db", str(books.folder / "settlement.db"), *map(str, arguments)])


def test_a_full_disk(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device().work(3000)
    books.learn(device)
    path = books.folder / "a.usage.gz"
    path.write_bytes(device.export())
    with books.database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    codes = set()
    for room in [0, 1, 2, 3, 5, 8, 13, 20, 25, 30, 40, 200]:
        with at_most(pages + room):
            status = settle(books, "ingest", path)
        err = capsys.readouterr().err
        codes.add(status)
        if status:
            assert err.startswith("sealpack: error[STORE_FULL]"), err
            assert not books.rows(db.logs) and not books.rows(db.rollups)
            assert reconcile(books.database, NOW).problems == ()
    assert codes == {0, 1}
    assert books.log(device).frontier == device.frontier(device.size)
    assert reconcile(books.database, NOW).ok


@pytest.fixture
def closed(books: Books) -> Path:
    """A database with a log in it, closed; its folder is open to everyone."""
    books.learn(device := Device().work(300))
    assert books.code(device.export()) == "OK"
    books.database.close()
    return books.folder / "settlement.db"


AS_NOBODY = """
import os, sys
from pathlib import Path
import sqlalchemy.dialects.sqlite.pysqlite
from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ingest, reconcile
with db.Database.open(sys.argv[2]) as database:  # everything is imported while it can be read
    reconcile.reconcile(database, 0)
if os.geteuid() == 0:  # root ignores permission bits
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with db.Database.open(sys.argv[1]) as database:
        print(reconcile.reconcile(database, 0).to_dict()["ok"])
        ingest.ingest(database, b"x", "x", 0)
except SealpackError as error:
    print(error.code)
"""


def as_nobody(path: Path, original: Path) -> list[str]:
    """What reconciling and then ingesting a copy say to a user who owns nothing."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(path), str(original)], capture_output=True, text=True
    )
    path.parent.chmod(0o755)
    assert not done.stderr
    return done.stdout.split()


def test_a_copy_that_nobody_can_write_is_read_and_not_changed(closed: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(closed, Path(folder) / "what? 100% #1.db"))
        assert as_nobody(copy, closed) == ["True", "STORE_READONLY"]
        assert list(Path(folder).iterdir()) == [copy]
        assert copy.read_bytes() == closed.read_bytes()


def test_a_copy_without_its_newest_changes_is_not_believed(closed: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(closed, folder))
        Path(f"{copy}-wal").write_bytes(b"x")
        assert as_nobody(copy, closed) == ["STORE_READONLY"]


@pytest.mark.parametrize("seed", range(4))
def test_pages_that_were_overwritten(closed: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    whole = closed.read_bytes()
    for _ in range(10):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 10])):
            at = rng.randrange(len(data) // 512) * 512
            data[at : at + 512] = rng.randbytes(512)
        closed.write_bytes(data)
        for extra in ("-wal", "-shm"):
            Path(f"{closed}{extra}").unlink(missing_ok=True)
        status = run(make_cli(), ["settle", "--db", str(closed), "reconcile"])
        err = capsys.readouterr().err
        assert status in (0, 1, 3) and "INTERNAL" not in err, err


def test_another_programs_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settlement.db"
    other = sqlite3.connect(path)
    other.executescript("CREATE TABLE about (name TEXT); CREATE TABLE files (x)")
    other.close()
    assert run(make_cli(), ["settle", "--db", str(path), "reconcile"]) == 1
    assert "Traceback" not in capsys.readouterr().err
