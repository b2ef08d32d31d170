"""What only a PostgreSQL server can do: be away, refuse, give up a transaction, be killed."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from load import fleet, oracle
from support import postgres as servers
from support.books import NOW, Books
from support.device import Device

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, postgres
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run


@pytest.fixture
def at(server: servers.Server, tmp_path: Path) -> Iterator[Books]:
    """Books on the server, in a database of their own."""
    made = Books.open(tmp_path, server.fresh())
    yield made
    made.database.close()


def fail_with(books: Books, state: str, times: int, table: str = "logs") -> None:
    """Let the server fail the first `times` changes of a table with an SQLSTATE; sequences are not undone."""
    with books.database.write() as connection:
        for statement in (
            "CREATE SEQUENCE tries",
            f"CREATE FUNCTION fail() RETURNS trigger AS $$ BEGIN IF nextval('tries') <= {times} THEN RAISE "
            f"EXCEPTION 'as told' USING ERRCODE = '{state}'; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
            f"CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION fail()",
        ):
            connection.exec_driver_sql(statement)


# --- conflicts and locks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_what_the_server_gives_up_is_done_again(at: Books, state: str) -> None:
    device = Device().work(20)
    at.learn(device)
    fail_with(at, state, 9)
    assert at.code(device.export()) == "OK"
    assert at.log(device).size == device.size
    assert reconcile(at.database, NOW).ok


def test_not_for_ever(at: Books) -> None:
    device = Device().work(20)
    at.learn(device)
    fail_with(at, "40001", 10)
    with pytest.raises(SealpackError) as caught:
        at.code(device.export())
    assert caught.value.code == "STATE_LOCKED"
    assert at.code(device.export()) == "OK"


def waits(books: Books, held: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a transaction that concerns `wanted` has to wait for one that concerns `held`."""
    begun = threading.Event()

    def other() -> None:
        with books.database.write(*wanted):
            begun.set()

    thread = threading.Thread(target=other)
    with books.database.write(*held):
        thread.start()
        found = not begun.wait(0.3)
    thread.join()
    return found


def test_who_waits_for_whom(at: Books) -> None:
    assert not waits(at, ("a",), ("b",))
    assert waits(at, ("a", "b"), ("c", "b"))
    assert waits(at, (), ("a",)) and waits(at, ("a",), ()) and waits(at, (), ())


def test_a_writer_sees_what_the_one_it_waited_for_did(at: Books) -> None:
    row = {"digest": "ab" * 32, "bundle_id": "a/b", "version": "1", "name": "x"}
    seen = []

    def other() -> None:
        with at.database.write("a") as connection:
            seen.append(connection.execute(sa.select(sa.func.count()).select_from(db.bundles)).scalar_one())

    thread = threading.Thread(target=other)
    with at.database.write("a") as connection:
        thread.start()
        time.sleep(0.2)
        connection.execute(sa.insert(db.bundles).values(row))
    thread.join()
    assert seen == [1]


def test_reading_is_one_moment_and_changes_nothing(at: Books) -> None:
    at.learn(Device())
    with at.database.read() as connection:
        before = connection.execute(sa.select(sa.func.count()).select_from(db.bundles)).scalar_one()
        with at.database.write() as writer:
            writer.execute(sa.delete(db.bundles))
        assert connection.execute(sa.select(sa.func.count()).select_from(db.bundles)).scalar_one() == before
    with pytest.raises(SealpackError) as caught, at.database.read() as connection:
        connection.execute(sa.delete(db.bundles))
    assert caught.value.code == "STORE_READONLY"


def test_text_is_in_the_order_of_its_bytes(at: Books) -> None:
    names = ["b", "B", "a", "\u00e4", "_", "a-b", "ab"]
    with at.database.write() as connection:
        rows = [{"digest": name, "bundle_id": "x", "version": "1", "name": "x"} for name in names]
        connection.execute(sa.insert(db.bundles), rows)
    assert [row["digest"] for row in at.rows(db.bundles)] == sorted(names, key=str.encode)


def test_a_commit_is_durable_whatever_the_server_says(server: servers.Server) -> None:
    url = server.fresh()
    name = sa.make_url(url).database
    server.sql("postgres", f"ALTER DATABASE {name} SET synchronous_commit = off")
    with db.Database.open(url) as database, database.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "1min"


# --- codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "code"),
    [("53100", "STORE_FULL"), ("25006", "STORE_READONLY"), ("55P03", "STATE_LOCKED"),
     ("53300", "STATE_LOCKED"), ("XX001", "STORE_CORRUPT"), ("58030", "STORE_IO"), ("57P01", "STORE_IO")],
)  # fmt: skip
def test_what_the_server_says_has_a_code_and_leaves_nothing_half_done(
    at: Books, state: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device().work(20)
    at.learn(device)
    fail_with(at, state, 1)
    path = at.folder / "a.usage.gz"
    path.write_bytes(device.export())
    settle = ["settle", "--db", at.address, "ingest", str(path)]
    assert run(make_cli(), settle) == 1
    assert capsys.readouterr().err.startswith(f"sealpack: error[{code}]: settlement database: as told")
    assert not at.rows(db.logs) and not at.rows(db.rollups) and not at.rows(db.segments)
    assert at.rows(db.files)[0]["code"] is None
    assert at.code(device.export()) == "OK"


def test_who_may_only_read_reads(at: Books) -> None:
    device = Device().work(20)
    at.learn(device)
    assert at.code(device.export()) == "OK"
    with at.database.write() as connection:
        connection.exec_driver_sql("CREATE ROLE auditor LOGIN")
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO auditor")
    with db.Database.open(at.address.replace(servers.USER, "auditor", 1)) as database:
        again = Books(at.folder, database)
        assert reconcile(database, NOW).ok
        with pytest.raises(SealpackError) as caught:
            again.code(b"x")
    assert caught.value.code == "STORE_READONLY"


def code_of(address: str) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        db.Database.open(address)
    return caught.value


def test_addresses_that_lead_nowhere(tmp_path: Path, server: servers.Server) -> None:
    away = code_of(f"postgresql://somebody:secret@/x?host={tmp_path}")
    assert away.code == "STORE_IO" and "see that the database server runs" in away.remedy
    assert "secret" not in str(away)
    assert code_of(server.url("nowhere")).code == "STORE_IO"
    wrong = code_of("postgresql://somebody:secret@host:port/x")
    assert (wrong.code, wrong.message) == ("USAGE", "the address of the database is none")


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    missing = code_of("postgresql://a@/b")
    assert (missing.code, missing.remedy) == ("EXTRA_MISSING", "pip install 'sealpack[postgres]'")


def test_only_addresses_of_postgresql_are_urls() -> None:
    assert postgres.is_url("postgresql://a/b") and postgres.is_url("postgres://a/b")
    assert not postgres.is_url("settlement.db") and not postgres.is_url(Path("postgresql://a"))


# --- kill -9 ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own() -> Iterator[servers.Server]:
    """A server that may be killed."""
    programs = servers.binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    made = servers.Server.make(programs)
    yield made
    made.remove()


def test_a_restarted_server_is_used_again(own: servers.Server, tmp_path: Path) -> None:
    device = Device().work(60)
    books = Books.open(tmp_path, own.fresh()).learn(device)
    assert books.code(device.export(0, 30)) == "OK"
    own.kill()
    with pytest.raises(SealpackError) as caught:
        books.code(device.export(30))
    assert caught.value.code == "STORE_IO"
    own.start()
    assert books.code(device.export(30)) == "OK"
    assert reconcile(books.database, NOW).ok
    books.database.close()


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
@pytest.mark.parametrize("victim", ["server", "worker"])
def test_killed_while_files_come_in(own: servers.Server, tmp_path: Path, victim: str, kills: int) -> None:
    """Workers or the server die at any moment, again and again; nothing is lost, nothing is counted twice."""
    shape = fleet.Shape(customers=2, devices=3 * kills, receipts=120 * kills, seed=kills)
    truth = fleet.make(shape, tmp_path / "fleet")
    url, rng = own.fresh(), random.Random(kills)
    with db.Database.open(url) as database:
        oracle.learn(database, (tmp_path / "fleet/registry.jsonl").read_bytes())
    paths = sorted((tmp_path / "fleet/usage").iterdir())
    died = 0
    for attempt in range(kills):
        process = _ingesting(url, paths)
        _wait_for_files(process, url, (attempt + 1) * len(truth.files) * 9 // (kills * 10))
        time.sleep(rng.random() * 0.03)
        if victim == "server":
            own.kill()
            own.start()
        else:
            process.kill()
        died += process.wait(120) != 0
    assert died > kills // 2
    assert _ingesting(url, paths).wait(300) == 0
    with db.Database.open(url) as database:
        assert oracle.wrong(database, truth) == []
        assert reconcile(database, fleet.NOW).ok


INGEST = """
import sys
from pathlib import Path
from sealpack.settlement import db, ingest
with db.Database.open(sys.argv[1]) as database:
    for name in sys.stdin.read().split("\\n"):
        ingest.ingest_file(database, Path(name), int(sys.argv[2]))
"""


def _ingesting(url: str, paths: list[Path]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, url, str(fleet.NOW)],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("\n".join(map(str, paths)))
    process.stdin.close()
    return process


def _wait_for_files(process: subprocess.Popen[Any], url: str, count: int) -> None:
    """Until so many files are stored, or the process ended."""
    with db.Database.open(url) as database:
        while process.poll() is None:
            with database.read() as connection:
                if connection.execute(sa.select(sa.func.count(db.files.c.sha256))).scalar_one() >= count:
                    return
            time.sleep(0.002)
