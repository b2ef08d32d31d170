"""All of settlement in one file: of one moment, whole, and good for either kind of database."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import office, outputs, s3
from support.books import NOW, Books
from support.device import Device

from sealpack.format import canonical, documents, records
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, backup, billing, db, evidence_move, restore
from sealpack.settlement.audit import Actor
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

CLERK = Actor("clerk", office.NOW)
NEW = ("audit", "restores")  # tables that restoring adds to
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vendor's database after two months of business."""
    folder = tmp_path_factory.mktemp("office")
    office.make(folder).database.close()
    (found,) = [path for path in folder.iterdir() if path.suffix == ".db"]
    return found


@pytest.fixture
def old(worked: Path, tmp_path: Path) -> Iterator[Books]:
    """A copy of it."""
    (tmp_path / "old").mkdir()
    path = shutil.copy(worked, tmp_path / "old/settlement.db")
    with db.Database.open(path) as database:
        yield Books(path.parent, database)


def rows(books: Books) -> Rows:
    return {name: books.rows(table) for name, table in db.metadata.tables.items()}


def same(one: Rows, other: Rows, *but: str) -> bool:
    return {n: r for n, r in one.items() if n not in but} == {n: r for n, r in other.items() if n not in but}


def saved(books: Books, name: str = "a.backup", **more: Any) -> Path:
    path = books.folder / name
    backup.write(books.database, path, now=office.NOW, **more)
    return path


def is_empty(books: Books) -> bool:
    return all(not found for name, found in rows(books).items() if name != "about")


# --- there and back ---------------------------------------------------------------------------------


def test_everything_comes_back_in_either_kind_of_database(old: Books, books: Books) -> None:
    """Also the way from SQLite to PostgreSQL, and back."""
    before = rows(old)
    done = restore.restore(books.database, saved(old), actor=CLERK)
    assert same(rows(books), before, *NEW)
    assert done.files == len(before["files"]) and done.named == 0
    trail = rows(books)["audit"]
    assert trail[:-1] == before["audit"] and json.loads(trail[-1]["what"])["verb"] == "restore"
    assert audit.verify(books.database, done.head) == (len(trail), done.head)
    assert reconcile(books.database, office.NOW).problems == ()
    again = saved(books, "b.backup")
    with db.Database.open(books.folder / "third.db") as database:
        third = Books(books.folder, database)
        restore.restore(database, again, actor=CLERK)
        assert same(rows(third), rows(books), *NEW)


def test_the_same_moment_gives_the_same_bytes(old: Books) -> None:
    assert saved(old, "a.backup").read_bytes() == saved(old, "b.backup").read_bytes()


def test_books_go_on_where_they_stood(old: Books, books: Books) -> None:
    """Numbers of documents and of cases go on without a gap."""
    restore.restore(books.database, saved(old), actor=CLERK)
    for one in (old, books):
        with one.database.write() as connection:
            audit.note(connection, CLERK, "look")
    drafts = [[p.json for p in billing.bill_all(one.database, *office_month())[0]] for one in (old, books)]
    assert drafts[0] == drafts[1]


def office_month() -> tuple[Any, Any]:
    from datetime import date

    return date(2026, 10, 1), date(2026, 11, 1)


def test_a_backup_is_of_one_moment_while_others_write(books: Books) -> None:
    device = Device().work(400)
    books.learn(device)
    began, stop = threading.Event(), threading.Event()

    def write() -> None:
        for start in range(0, 400, 4):
            books.ingest(device.export(start, start + 4), f"{start}.usage.gz")
            began.set()
            if stop.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    began.wait()
    paths = [saved(books, f"{number}.backup") for number in range(3)]
    stop.set()
    thread.join()
    for number, path in enumerate(paths):
        with db.Database.open(books.folder / f"{number}.db") as database:
            restore.restore(database, path, actor=CLERK)
            found = Books(books.folder, database)
            assert reconcile(database, NOW).ok
            decided = [row for row in found.rows(db.files) if row["code"] is not None]
            assert found.log(device).size == 4 * len(decided) > 0
            assert len(found.rows(db.files)) - len(decided) in (0, 1)  # the one that was just kept


# --- raw files outside ------------------------------------------------------------------------------


def test_raw_files_of_a_folder_are_in_it(old: Books, books: Books, tmp_path: Path) -> None:
    evidence = rows(old)["evidence"]
    evidence_move.move(old.database, str(tmp_path / "raw"), actor=CLERK)
    path = saved(old)
    shutil.rmtree(tmp_path / "raw")
    restore.restore(books.database, path, actor=CLERK)
    assert books.rows(db.evidence) == evidence
    assert reconcile(books.database, office.NOW).problems == ()
    with books.database.read() as connection:
        assert [(p.location, p.current) for p in evidence_move.lying(connection)] == [("database", True)]


def test_raw_files_may_go_to_another_place(old: Books, books: Books, tmp_path: Path) -> None:
    location = str(tmp_path / "new")
    restore.restore(books.database, saved(old), actor=CLERK, location=location)
    assert not books.rows(db.evidence)
    with books.database.read() as connection:
        (place,) = evidence_move.lying(connection)
    assert (place.location, place.files, place.current) == (location, len(old.rows(db.files)), True)
    assert reconcile(books.database, office.NOW).problems == ()


@pytest.mark.parametrize("everything", [False, True])
def test_raw_files_in_object_storage(
    old: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    count = len(old.rows(db.files))
    with s3.running() as address, db.Database.open(tmp_path / "new.db") as database:
        where = {"LocationConstraint": "eu-central-1"}
        s3.client(address).create_bucket(Bucket="raw", CreateBucketConfiguration=where)
        location = evidence_move.location_of("s3://raw/x", address)
        evidence_move.move(old.database, location, actor=CLERK)
        path = saved(old, everything=everything)
        with zipfile.ZipFile(path) as archive:
            assert sum(n.startswith("evidence/") for n in archive.namelist()) == (count if everything else 0)
        done = restore.restore(database, path, actor=CLERK)
        assert (done.files, done.named) == ((count, 0) if everything else (0, count))
        assert reconcile(database, office.NOW).problems == ()
        with database.read() as connection:
            places = {p.location: (p.files, p.current) for p in evidence_move.lying(connection)}
        assert places == (
            {"database": (count, False), location: (0, True)} if everything else {location: (count, True)}
        )


# --- refused ----------------------------------------------------------------------------------------


def refused(books: Books, path: Path) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        restore.restore(books.database, path, actor=CLERK)
    return caught.value


def test_only_an_empty_database_is_filled(old: Books, books: Books) -> None:
    path = saved(old)
    books.learn(Device())
    before = rows(books)
    assert refused(books, path).code == "OUTPUT_EXISTS"
    assert rows(books) == before


def rewritten(path: Path, change: Any) -> Path:
    """The backup with `change(name, data)` in the place of each file; None leaves one out."""
    other = path.with_name("other.backup")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)
    return other


def manifest(**members: Any) -> Any:
    def change(name: str, data: bytes) -> bytes:
        return canonical.dumps(json.loads(data) | members) if name == "backup.json" else data

    return change


FAULTS: dict[str, tuple[Any, str]] = {
    "a row less": (lambda n, d: d.split(b"\n", 1)[1] if n == "tables/logs.jsonl" else d, "BACKUP_INVALID"),
    "a row changed": (lambda n, d: d.replace(b"hospital", b"hospitol") if n.startswith("tables/") else d,
                      "BACKUP_INVALID"),
    "a row that is none": (lambda n, d: b"{}\n" + d if n == "tables/files.jsonl" else d, "BACKUP_INVALID"),
    "no JSON": (lambda n, d: b"\xff" + d if n == "tables/files.jsonl" else d, "BACKUP_INVALID"),
    "a table left out": (lambda n, d: None if n == "tables/audit.jsonl" else d, "BACKUP_INVALID"),
    "no manifest": (lambda n, d: None if n == "backup.json" else d, "BACKUP_INVALID"),
    "a manifest that is none": (lambda n, d: b"[]" if n == "backup.json" else d, "BACKUP_INVALID"),
    "raw files left out": (lambda n, d: None if n.startswith("evidence/") else d, "BACKUP_INVALID"),
    "raw files changed": (lambda n, d: d + b"x" if n.startswith("evidence/") else d, "BACKUP_INVALID"),
    "counts of raw files": (manifest(evidence={"files": 1, "bytes": 1, "named": 0}), "BACKUP_INVALID"),
    "another trail": (manifest(audit={"entries": 1, "head": "0" * 64}), "AUDIT_BROKEN"),
    "a newer schema": (manifest(schema_version=db.SCHEMA_VERSION + 1), "STATE_NEWER"),
    "an older schema": (manifest(schema_version=db.SCHEMA_VERSION - 1), "BACKUP_INVALID"),
    "other tables": (manifest(tables={}), "BACKUP_INVALID"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_backup_that_is_not_whole_changes_nothing(old: Books, books: Books, fault: str) -> None:
    change, code = FAULTS[fault]
    path = rewritten(saved(old), change)
    assert refused(books, path).code == code
    assert is_empty(books)


def test_a_document_changed_with_its_digests_is_found_by_the_trail(old: Books, books: Books) -> None:
    path, digest = saved(old), ""

    def forge(name: str, data: bytes) -> bytes:
        nonlocal digest
        if name == "tables/transactions.jsonl":
            data = data.replace(b"payment", b"paymant")
            digest = hashlib.sha256(data).hexdigest()
        if name == "backup.json":
            said = json.loads(data)
            said["tables"]["transactions"]["sha256"] = digest
            data = canonical.dumps(said)
        return data

    assert refused(books, rewritten(path, forge)).code == "AUDIT_BROKEN"
    assert is_empty(books)


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_backup_that_was_cut_or_changed_anywhere(old: Books, tmp_path: Path, at: int) -> None:
    data = saved(old).read_bytes()
    point = len(data) * at // 100
    flipped = data[:point] + bytes([data[point] ^ 0x41]) + data[point + 1 :]
    for broken in (data[:point], flipped):
        path = tmp_path / "broken.backup"
        path.write_bytes(broken)
        with db.Database.open(tmp_path / "new.db") as database:
            new = Books(tmp_path, database)
            try:
                restore.restore(database, path, actor=CLERK)
            except SealpackError as error:
                assert error.code in ("BACKUP_INVALID", "AUDIT_BROKEN")
                assert is_empty(new)
            else:  # a bit that says nothing, such as a date in the archive
                assert same(rows(new), rows(old), *NEW)
        (tmp_path / "new.db").unlink()


def test_a_file_that_is_no_archive(books: Books, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert refused(books, tmp_path / "x").code == "BACKUP_INVALID"
    assert refused(books, tmp_path / "nowhere").code == "FILE_MISSING"


# --- the verbs --------------------------------------------------------------------------------------


def test_the_verbs(old: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, new = str(tmp_path / "a.backup"), str(tmp_path / "new.db")
    assert run(make_cli(), ["settle", "--db", old.address, "backup", path]) == 0
    assert "keys are not in it" in capsys.readouterr().out
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert run(make_cli(), ["settle", "--db", old.address, "backup", path]) == 2
    assert "error[OUTPUT_EXISTS]" in capsys.readouterr().err
    assert run(make_cli(), ["settle", "--db", new, "restore", path, "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert outputs.check(said) == "settle-restore"
    assert said["files"] == len(old.rows(db.files)) and said["created_at"] > 0
    assert run(make_cli(), ["settle", "--db", new, "audit", "verify", "--head", said["audit_head"]]) == 0
    assert run(make_cli(), ["settle", "--db", new, "restore", path]) == 2
    capsys.readouterr()
    assert run(make_cli(), ["settle", "--db", new, "backup", path + "2", "--format", "json"]) == 0
    assert outputs.check(json.loads(capsys.readouterr().out)) == "settle-backup"


# Of an acknowledgement made after the backup, what a device may say of it: seconds after the backup.
@pytest.mark.parametrize(
    ("lied", "code"),
    [({}, "OK"), ({"server_time": office.NOW - 1}, "H214"), ({"server_time": office.NOW + 61}, "H214"),
     ({"ack_seq": restore.MARGIN + 1}, "H214"), ({"ack_seq": 1}, "H214")],
)  # fmt: skip
def test_what_was_acknowledged_since_is_no_lie_of_the_device(
    books: Books, lied: dict[str, int], code: str
) -> None:
    """Only between the backup and its restoration, and never instead of one that is known."""
    device = Device().use(3)
    books.learn(device)
    assert books.code(device.export()) == "OK"
    books.reply(device, now=office.NOW - 60)
    path, size = saved(books), device.size
    assert books.code(device.use().export(), now=office.NOW) in ("OK", "W102")
    reply = books.reply(device, now=office.NOW + 30)
    (sealed,) = Parcel.from_bytes(reply.data).documents
    said = documents.payload_fields(sealed, "acknowledgement")
    names = {name: said.integer(name) for name in ("ack_seq", "size", "server_time")}
    device.until((office.NOW + 31) * 1000)
    device.put(records.ACKNOWLEDGED, digest=sealed.digest, **(names | lied))
    with db.Database.open(books.folder / "new.db") as database:
        new = Books(books.folder, database)
        restore.restore(database, path, actor=Actor("clerk", office.NOW + 60))
        (row,) = new.rows(db.restores)
        assert (row["made_at"], row["at"], row["next_ack"]) == (office.NOW, office.NOW + 60, 1001)
        assert new.code(device.export(size), now=office.NOW + 70) == code
        assert new.reply(device, now=office.NOW + 71).ack_seq == 1001 > reply.ack_seq == 2
