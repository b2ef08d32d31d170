"""Where raw files lie: kept before anything is decided, given back only as they came."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa
from support.books import NOW, Books
from support.device import Device

from sealpack.settlement import db, evidence
from sealpack.settlement.reconcile import reconcile

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


def test_the_bytes_of_a_file_are_kept_once_under_the_name_it_came_with_first(books: Books) -> None:
    digest = evidence.keep(books.database, b"a", "first", NOW)
    assert evidence.keep(books.database, b"a", "second", NOW + 1) == digest
    (row,) = books.rows(db.files)
    assert (row["name"], row["received_at"], row["code"]) == ("first", NOW, None)
    with books.database.read() as connection:
        assert evidence.load(connection, digest) == b"a"
