"""Where raw files lie: kept before anything is decided, given back only as they came."""

from __future__ import annotations

import base64
import errno
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support import s3
from support.books import NOW, Books
from support.device import Device

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db, evidence, evidence_move, evidence_s3, evidence_store
from sealpack.settlement.audit import Actor
from sealpack.settlement.evidence_store import Directory
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

CLERK = Actor("clerk", NOW)


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The address of object storage."""
    with s3.running() as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def outside(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The location of an empty place outside the database."""
    if request.param == "folder":
        return evidence_move.location_of(str(tmp_path / "raw/files"))
    address: str = request.getfixturevalue("storage")
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{abs(hash(tmp_path)) % 10**12}"
    where = {"LocationConstraint": "eu-central-1"}
    s3.client(address).create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    return evidence_move.location_of(f"s3://{bucket}/raw/", address)


def held(location: str) -> dict[str, bytes]:
    """Every file of a place, by its path there."""
    if not location.startswith("s3://"):
        root = Path(location)
        found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if name != "sealpack-evidence"}
    store = evidence_store.open_store(location)
    assert isinstance(store, evidence_s3.S3)
    objects = store.client.list_objects_v2(Bucket=store.bucket).get("Contents", [])
    return {
        one["Key"].removeprefix("raw/"): store.client.get_object(Bucket=store.bucket, Key=one["Key"])[
            "Body"
        ].read()
        for one in objects
    }


def spoil(location: str, digest: str, data: bytes | None) -> None:
    """Put other bytes in the place of a file, or remove it."""
    name = f"{digest[:2]}/{digest[2:]}"
    if not location.startswith("s3://"):
        path = Path(location) / name
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        return
    store = evidence_store.open_store(location)
    assert isinstance(store, evidence_s3.S3)
    if data is None:
        store.client.delete_object(Bucket=store.bucket, Key=f"raw/{name}")
    else:
        store.client.put_object(Bucket=store.bucket, Key=f"raw/{name}", Body=data)


def digests(books: Books) -> list[str]:
    return [row["sha256"] for row in books.rows(db.files)]


# --- a database of version 3 ------------------------------------------------------------------------

COLUMNS = "sha256, name, received_at, data, code, detail, accepted, origin, license_id, first, last"
SQLITE_3 = f"""
PRAGMA foreign_keys = off;
CREATE TABLE old (sha256 TEXT NOT NULL, name TEXT NOT NULL, received_at INTEGER CHECK ("received_at" >= 0) NOT NULL,
  data BLOB NOT NULL, code TEXT, detail TEXT, accepted INTEGER CHECK ("accepted" >= 0), origin TEXT,
  license_id TEXT, first INTEGER CHECK ("first" >= 0), last INTEGER CHECK ("last" >= 0), PRIMARY KEY (sha256)) STRICT;
INSERT INTO old ({COLUMNS}) SELECT {COLUMNS.replace("sha256", "f.sha256", 1)} FROM files f NATURAL JOIN evidence;
DROP TABLE evidence; DROP TABLE files; DROP TABLE stores; ALTER TABLE old RENAME TO files;
CREATE INDEX ix_files_origin ON files (origin);
UPDATE about SET schema_version = 3;
"""  # noqa: E501
POSTGRESQL_3 = """
ALTER TABLE files ADD COLUMN data BYTEA;
UPDATE files SET data = evidence.data FROM evidence WHERE evidence.sha256 = files.sha256;
ALTER TABLE files ALTER COLUMN data SET NOT NULL;
DROP TABLE evidence; ALTER TABLE files DROP COLUMN store; DROP TABLE stores;
UPDATE about SET schema_version = 3
"""


def test_a_database_of_version_3_parts_with_its_bytes(books: Books) -> None:
    device = Device().work(30)
    books.learn(device)
    assert books.code(device.export(0, 10)) == "OK" and books.code(b"no usage") == "R301"
    files, kept = books.rows(db.files), books.rows(db.evidence)
    if books.url is None:
        books.database.close()
        connection = sqlite3.connect(books.folder / "settlement.db")
        connection.executescript(SQLITE_3)
        connection.close()
    else:
        with books.database.write() as server:
            for statement in POSTGRESQL_3.split(";"):
                server.exec_driver_sql(statement)
        books.database.close()
    again = Books.open(books.folder, books.url)
    assert again.rows(db.files) == files and again.rows(db.evidence) == kept
    assert again.code(device.export()) == "W102"
    assert reconcile(again.database, NOW).ok
    with pytest.raises(sa.exc.IntegrityError), again.database._engine.begin() as connected:
        connected.execute(sa.update(db.files).values(store=7))
    again.database.close()


# --- keeping and reading ----------------------------------------------------------------------------


def test_the_bytes_of_a_file_are_kept_once_under_the_name_it_came_with_first(books: Books) -> None:
    digest = evidence.keep(books.database, b"a", "first", NOW)
    assert evidence.keep(books.database, b"a", "second", NOW + 1) == digest
    (row,) = books.rows(db.files)
    assert (row["name"], row["received_at"], row["code"]) == ("first", NOW, None)
    with books.database.read() as connection:
        assert evidence.load(connection, digest) == b"a"


def test_files_lie_outside_the_database(books: Books, outside: str) -> None:
    """Every verb that reads evidence does so from there: held files, forks, roll-ups, reconciliation."""
    assert evidence_move.move(books.database, outside, actor=CLERK) == 0
    device = Device().work(300)
    books.learn(device)
    assert books.code(device.export(100)) == "H201"
    assert [o.code for o in books.ingest(device.export(0, 120))] == ["OK", "W102"]
    assert books.code(device.export(0, 50)) == "W103"
    assert not books.rows(db.evidence)
    names = {f"{digest[:2]}/{digest[2:]}" for digest in digests(books)}
    assert held(outside).keys() == names and len(names) == 3
    assert reconcile(books.database, NOW).ok
    assert [e.what["verb"] for e in trail(books)] == ["store"]


def trail(books: Books) -> list[audit.Entry]:
    with books.database.read() as connection:
        return list(audit.entries(connection))


def test_damaged_and_missing_files_are_never_believed(books: Books, outside: str) -> None:
    evidence_move.move(books.database, outside, actor=CLERK)
    device = Device().work(60)
    books.learn(device)
    books.ingest(device.export(0, 30)), books.ingest(device.export(30))
    (held_log,) = books.rows(db.logs)
    first = next(row["sha256"] for row in books.rows(db.segments) if row["first"] == 0)
    for data, words in ((b"other", "was changed"), (None, "is gone from")):
        spoil(outside, first, data)
        with pytest.raises(SealpackError, match=words) as caught:
            books.ingest(device.export(0, 20), "older.usage.gz")
        assert caught.value.code == "STORE_CORRUPT"
        problems = reconcile(books.database, NOW).problems
        assert len(problems) == 2 and words in problems[0]
    assert books.rows(db.logs) == [held_log]


def test_a_place_that_cannot_be_reached_keeps_nothing_and_says_so(
    books: Books, outside: str, storage: str, tmp_path: Path
) -> None:
    device = Device().work(60)
    books.learn(device)
    evidence_move.move(books.database, outside, actor=CLERK)
    gone = tmp_path / "gone"
    if outside.startswith("s3://"):
        with books.database.write() as connection:
            away = outside.replace(storage, "http://127.0.0.1:9")
            connection.execute(sa.update(db.stores).values(location=away))
    else:
        Path(outside).rename(gone)
    with pytest.raises(SealpackError) as caught:
        books.ingest(device.export())
    assert caught.value.code == "STORE_IO"
    assert not books.rows(db.files) and not books.rows(db.logs)
    if outside.startswith("s3://"):
        with books.database.write() as connection:
            connection.execute(sa.update(db.stores).values(location=outside))
    else:
        gone.rename(outside)
    assert books.code(device.export()) == "OK"


# --- moving -----------------------------------------------------------------------------------------


def test_files_are_moved_there_and_back(books: Books, outside: str) -> None:
    device = Device().work(300)
    books.learn(device)
    for start in range(0, 300, 3):
        books.ingest(device.export(start, start + 3), f"{start}.usage.gz")
    files, kept = books.rows(db.files), books.rows(db.evidence)
    assert evidence_move.move(books.database, outside, actor=CLERK) == 100
    assert not books.rows(db.evidence) and reconcile(books.database, NOW).ok
    assert {name.replace("/", ""): data for name, data in held(outside).items()} == {
        row["sha256"]: row["data"] for row in kept
    }
    assert evidence_move.move(books.database, outside, actor=CLERK) == 0
    assert evidence_move.move(books.database, "database", actor=CLERK) == 100
    assert (books.rows(db.files), books.rows(db.evidence)) == (files, kept)
    assert reconcile(books.database, NOW).ok
    assert len(held(outside)) == 100  # what is left behind is for a person to remove
    assert [e.what["location"] for e in trail(books)] == [outside, "database"]


def test_a_move_that_was_interrupted_goes_on(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device().work(200)
    books.learn(device)
    for start in range(0, 200, 2):
        books.ingest(device.export(start, start + 2), f"{start}.usage.gz")
    put, left = Directory.put, 70

    def fail(self: Directory, digest: str, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise SealpackError("STORE_FULL", "no room")
        put(self, digest, data)

    monkeypatch.setattr(Directory, "put", fail)
    location = str(tmp_path / "raw")
    with pytest.raises(SealpackError, match="STORE_FULL"):
        evidence_move.move(books.database, location, actor=CLERK)
    assert 0 < len(books.rows(db.evidence)) < 100
    assert reconcile(books.database, NOW).ok  # of both places
    left = 1000
    assert evidence_move.move(books.database, location, actor=CLERK) == len(digests(books)) - 64
    assert not books.rows(db.evidence) and reconcile(books.database, NOW).ok


def test_a_folder_that_was_copied_elsewhere_is_taken_on(books: Books, tmp_path: Path) -> None:
    device = Device().work(20)
    books.learn(device)
    books.ingest(device.export())
    old, new = tmp_path / "old", tmp_path / "new"
    evidence_move.move(books.database, str(old), actor=CLERK)
    old.rename(new)
    assert evidence_move.move(books.database, str(new), actor=CLERK) == 1
    assert reconcile(books.database, NOW).ok and not old.exists()


def test_another_place_named_meanwhile(books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device().work(20)
    books.learn(device)
    books.ingest(device.export())
    put, one, two = Directory.put, str(tmp_path / "one"), str(tmp_path / "two")

    def late(self: Directory, digest: str, data: bytes) -> None:
        put(self, digest, data)
        if str(self.root) == one:
            evidence_move.move(books.database, two, actor=CLERK)

    monkeypatch.setattr(Directory, "put", late)
    with pytest.raises(SealpackError) as caught:
        evidence_move.move(books.database, one, actor=CLERK)
    assert caught.value.code == "STATE_LOCKED"
    with books.database.read() as connection:
        assert [(p.location, p.files) for p in evidence_move.lying(connection)] == [(two, 1)]


def test_a_place_named_while_a_file_comes_in(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, one, two = Directory.put, str(tmp_path / "one"), str(tmp_path / "two")
    evidence_move.move(books.database, one, actor=CLERK)

    def late(self: Directory, digest: str, data: bytes) -> None:
        if str(self.root) == one:
            evidence_move.move(books.database, two, actor=CLERK)
        put(self, digest, data)

    monkeypatch.setattr(Directory, "put", late)
    digest = evidence.keep(books.database, b"a", "a", NOW)
    with books.database.read() as connection:
        assert [(p.location, p.files) for p in evidence_move.lying(connection)] == [(two, 1)]
        assert evidence.load(connection, digest) == b"a"


# --- the folder, the bucket, the verb ---------------------------------------------------------------

A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of b"a"


def folder(path: Path) -> Directory:
    made = Directory(path)
    made.prepare()
    return made


def test_damaged_bytes_in_a_folder_are_replaced_when_they_come_again(tmp_path: Path) -> None:
    store = folder(tmp_path)
    store.put(A, b"a")
    store.path(A).chmod(0o644)
    store.path(A).write_bytes(b"b")
    with pytest.raises(SealpackError, match="was changed"):
        store.get(A)
    store.put(A, b"a")
    assert store.get(A) == b"a" and store.path(A).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "STORE_FULL"), (errno.EROFS, "STORE_READONLY"), (errno.EIO, "STORE_IO")],
)
def test_what_a_disk_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    store = folder(tmp_path)

    def fail(_descriptor: int) -> None:
        raise OSError(number, "as told")

    monkeypatch.setattr("sealpack.format.files.os.fsync", fail)
    with pytest.raises(SealpackError) as caught:
        store.put(A, b"a")
    assert caught.value.code == code
    assert not [path for path in (tmp_path / A[:2]).iterdir() if path.is_file()]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SealpackError) as caught:
        Directory(tmp_path / "file/raw").prepare()
    assert caught.value.code == "STORE_IO"
    store = folder(tmp_path)
    (tmp_path / A[:2]).write_bytes(b"")
    with pytest.raises(SealpackError, match="STORE_IO"):
        store.put(A, b"a")
    with pytest.raises(SealpackError, match="STORE_IO"):
        store.get(A)


def test_a_bucket_that_is_not_there(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    store = evidence_store.open_store(evidence_s3.location_of("s3://nowhere/x", storage))
    assert store is not None
    for call in (store.prepare, lambda: store.put(A, b"a"), lambda: store.get(A)):
        with pytest.raises(SealpackError) as caught:
            call()
        assert caught.value.code == "STORE_IO"


def test_the_server_is_told_the_digest_that_it_compares(
    storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    where = {"LocationConstraint": "eu-central-1"}
    s3.client(storage).create_bucket(Bucket="checked", CreateBucketConfiguration=where)
    store = evidence_store.open_store(evidence_s3.location_of("s3://checked", storage))
    assert isinstance(store, evidence_s3.S3)
    sent: list[Any] = []
    store.client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request))
    store.put(A, b"a")
    (request,) = sent
    assert base64.b64decode(request.headers["x-amz-checksum-sha256"]) == bytes.fromhex(A)
    assert request.url == f"{storage}/checked/{A[:2]}/{A[2:]}"  # the bucket in the path, not in the host
    assert store.get(A) == b"a"


@pytest.mark.parametrize(
    ("code", "ours"), [("AccessDenied", "STORE_READONLY"), ("InternalError", "STORE_IO")]
)
def test_what_object_storage_says(code: str, ours: str) -> None:
    import botocore.exceptions

    class Client:
        def put_object(self, **_: Any) -> None:
            raise botocore.exceptions.ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")

        def get_object(self, **_: Any) -> None:
            raise botocore.exceptions.NoCredentialsError

    store = evidence_s3.S3("bucket", "", Client(), botocore.exceptions)
    with pytest.raises(SealpackError) as caught:
        store.put(A, b"a")
    assert caught.value.code == ours
    with pytest.raises(SealpackError, match="credentials") as caught:
        store.get(A)
    assert caught.value.code == "STORE_IO"


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SealpackError) as caught:
        evidence_store.open_store("s3://never-opened/x")
    assert (caught.value.code, caught.value.remedy) == ("EXTRA_MISSING", "pip install 'sealpack[s3]'")


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [("s3://", None), ("s3://me@bucket", None), ("s3://bucket?x=1", None), ("s3://bucket#x", None),
     ("s3://bucket", "storage:9000"), ("s3://bucket", "https://me:secret@storage"), ("raw", "https://storage")],
)  # fmt: skip
def test_places_that_are_none(target: str, endpoint: str | None) -> None:
    with pytest.raises(SealpackError) as caught:
        evidence_move.location_of(target, endpoint)
    assert caught.value.code == "USAGE"


def test_names_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert evidence_move.location_of("raw") == str(tmp_path / "raw")
    assert evidence_move.location_of("database") == "database"
    assert evidence_move.location_of("s3://bucket/a/b/") == "s3://bucket/a/b"
    assert evidence_move.location_of("s3://bucket", "http://[::1]:9000/").endswith(
        "?endpoint=http://%5B::1%5D:9000"
    )


def test_the_verb(books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device().work(20)
    books.learn(device)
    books.ingest(device.export())

    def settle(*arguments: str) -> tuple[int, str]:
        status = run(make_cli(), ["settle", "--db", books.address, "store", *arguments])
        said = capsys.readouterr()
        return status, said.out or said.err

    raw = str(tmp_path / "raw")
    assert settle() == (0, "1 files  database  (new files)\n")
    assert settle(raw) == (0, f"1 files moved\n1 files  {raw}  (new files)\n")
    status, said = settle("--format", "json")
    assert status == 0
    assert json.loads(said) == {
        "schema": "sealpack/settle-store/v1", "moved": 0,
        "places": [{"place": raw, "files": 1, "current": True}],
    }  # fmt: skip
    status, said = settle("--endpoint", "http://localhost")
    assert status == 2 and "error[USAGE]" in said
