"""Two clerks at once, and databases that are not what they should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable
from support.books import NOW, Books
from support.device import Device

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, epochs, ingest
from sealpack.settlement.reconcile import reconcile


def yesterday() -> int:
    return (int(time.time()) - 86_400) * 1000


def files_of(device: Device, folder: Path, pieces: int) -> list[str]:
    """Usage files of equal length, the odd ones first: half of them wait for another."""
    folder.mkdir()
    names = []
    for number in [*range(1, pieces, 2), *range(0, pieces, 2)]:
        start, end = (device.size * n // pieces for n in (number, number + 1))
        path = folder / f"{number:03}.usage.gz"
        path.write_bytes(device.export(start, end))
        names.append(str(path))
    return names


def command(books: Books, names: list[str]) -> list[str]:
    return [sys.executable, "-m", "sealpack.verifier", "settle", "--db", books.address, "ingest", *names]


def is_whole(books: Books, device: Device) -> bool:
    log = books.log(device)
    same = log.frontier == device.frontier(device.size) and log.state.registers == device.registers
    return same and reconcile(books.database, NOW).ok


def stored(books: Books) -> int:
    with books.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count(db.files.c.sha256))).scalar_one())


def test_the_command_killed_while_files_come_in(books: Books) -> None:
    device = Device(now_ms=yesterday()).work(600)
    books.learn(device)
    names = files_of(device, books.folder / "stick", 40)
    for some in (1, 9, 25, 38):
        process = subprocess.Popen(command(books, names), stdout=subprocess.DEVNULL)
        while process.poll() is None and stored(books) < some:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert reconcile(books.database, NOW).ok
    done = subprocess.run(command(books, names), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert is_whole(books, device)


def test_two_processes_take_the_same_files(books: Books) -> None:
    device = Device(now_ms=yesterday()).work(400)
    books.learn(device)
    names = files_of(device, books.folder / "stick", 24)
    orders = (names, names[::-1])
    running = [subprocess.Popen(command(books, order), stdout=subprocess.DEVNULL) for order in orders]
    assert {process.wait(timeout=120) for process in running} <= {0, 5}
    assert is_whole(books, device)


def test_a_log_that_moved_meanwhile_is_judged_again(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and writing another process takes the first half: compare-and-set must see it."""
    device = Device().work(100)
    books.learn(device)
    judge, calls = ingest._judge, list[str]()

    def late(connection: Any, row: Any, data: bytes, now: int) -> Any:
        judged = judge(connection, row, data, now)
        calls.append(judged.outcome.code)
        if len(calls) == 1:
            books.ingest(device.export(0, 40), "other.usage.gz")
        return judged

    monkeypatch.setattr(ingest, "_judge", late)
    outcome = books.ingest(device.export())[0]
    # Ours, the other's, then the two halves of looking again: the other one set ours free already.
    assert calls[:2] == ["OK", "OK"] and "W102" in calls
    assert outcome.code in ("W101", "W102")
    assert is_whole(books, device)


def test_what_is_compared(books: Books) -> None:
    device = Device().work(20)
    books.learn(device)
    books.ingest(device.export())
    log = books.log(device)
    with books.database.read() as connection:
        (found,) = epochs.stamps(connection, "L-1", device.id)
        assert found == (device.origin, *log.stamp)
        assert found[1:] != replace(log, frozen=True).stamp
        assert epochs.stamps(connection, "L-2", device.id) == ()


def test_reading_does_not_wait_for_a_writer(books: Books) -> None:
    books.learn(Device())
    with books.database.write() as writer:
        writer.execute(sa.delete(db.bundles))
        assert len(books.rows(db.bundles)) == 1
    assert not books.rows(db.bundles)


def test_a_transaction_that_fails_leaves_nothing(books: Books) -> None:
    row = {"digest": "ab" * 32, "bundle_id": "a/b", "version": "1", "name": "x"}
    with pytest.raises(KeyError), books.database.write() as connection:
        connection.execute(sa.insert(db.bundles).values(row))
        raise KeyError("stop")
    assert not books.rows(db.bundles)


def test_the_tables_refuse_nonsense(books: Books) -> None:
    with pytest.raises(SealpackError), books.database.write() as connection:
        connection.execute(sa.insert(db.about).values(schema_version=-1))
    with pytest.raises(SealpackError), books.database.write() as connection:
        connection.exec_driver_sql("INSERT INTO about VALUES ('many')")
    orphan = {"origin": "none", "first": 0, "last": 1, "sha256": "ab" * 32}
    with pytest.raises(SealpackError), books.database.write() as connection:
        connection.execute(sa.insert(db.segments).values(orphan))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path, content = tmp_path / "settlement.db", b"not a database, but long enough to be one " * 50
    path.write_bytes(content)
    with pytest.raises(SealpackError) as caught:
        db.Database.open(path)
    assert caught.value.code == "STORE_CORRUPT"
    assert path.read_bytes() == content


def test_a_database_of_a_newer_version(books: Books) -> None:
    with books.database.write() as connection:
        connection.execute(sa.update(db.about).values(schema_version=db.SCHEMA_VERSION + 1))
    with pytest.raises(SealpackError) as caught:
        db.Database.open(books.address)
    assert caught.value.code == "STATE_NEWER"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SealpackError) as caught:
        db.Database.open(tmp_path / "none" / "settlement.db")
    assert caught.value.code == "FILE_MISSING"


def test_a_name_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "what? 100% #1.db"
    db.Database.open(path).close()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_tables_can_be_made_on_another_database() -> None:
    tables = db.metadata.sorted_tables
    text = "".join(str(CreateTable(table).compile(dialect=postgresql.dialect())) for table in tables)
    assert "amount BIGINT NOT NULL" in text and "envelope BYTEA NOT NULL" in text
    assert "STRICT" not in text
