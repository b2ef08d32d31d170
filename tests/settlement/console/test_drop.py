"""Dropping files on the console: what becomes of each, said on a page that stays."""

from __future__ import annotations

import hashlib
import html
import io
import json
import zipfile
from collections.abc import Callable

import pytest
from support.books import SIGNERS, Books
from support.clerk import Clerk, add_user, console_on, words
from support.device import Device, make_license, registry
from support.rating_plans import make_plan

from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.documents import Parcel
from sealpack.settlement import db, registry as registry_of
from sealpack.settlement.service.limits import Limits

LoggedIn = Callable[[str], Clerk]


def zipped(**files: bytes) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return body.getvalue()


def test_everything_at_once_in_any_order(books: Books, logged_in: LoggedIn) -> None:
    one, two = Device(number=1).use(3), Device(number=2).use(4)
    with books.database.write() as connection:
        registry_of.put_plan(connection, make_plan())
    clerk = logged_in("finance")
    inner = zipped(**{"deep/two.usage.gz": two.export(), "registry.jsonl": registry(one, two)})
    told = clerk.drop(
        ("one.usage.gz", one.export()), ("all.zip", inner), ("photo.png", b"\x89PNG..."), ("note.txt", b"hi"),
        ("trust.json", one.trust.to_bytes()), ("torn.usage.gz", one.export()[:40]), ("empty", b""),
    )  # fmt: skip
    for words_of in ("trust.json imported", "all.zip: registry.jsonl imported 2 registry lines",
                     "one.usage.gz OK accepted", "all.zip: two.usage.gz OK accepted",
                     "photo.png left aside a picture", "note.txt left aside not a file settlement knows",
                     "torn.usage.gz R301 no usage in this file can be read",
                     "empty left aside an empty file"):  # fmt: skip
        assert words_of in told, told
    assert f"{one.size + two.size} receipts taken" in told
    assert books.log(one).size == one.size and books.log(two).size == two.size
    again = clerk.drop(("one.usage.gz", one.export()))
    assert "W101 this very file was accepted before" in again and books.log(one).size == one.size


def test_what_waited_is_told_when_it_could_be_taken(books: Books, logged_in: LoggedIn) -> None:
    device, clerk = Device().use(3), logged_in("finance")
    cut = device.size
    device.use(4)
    assert "TRUST_UNPINNED" in clerk.drop(("late.usage.gz", device.export(cut)))  # kept all the same
    assert [row["code"] for row in books.rows(db.files)] == [None]
    assert "not decided" in words(clerk.get("files"))
    books.learn(device)
    assert "H201" in clerk.drop(("late.usage.gz", device.export(cut)))
    assert "Case 1 H201 An earlier file is missing" in words(clerk.get("cases"))
    clerk.drop(("early.usage.gz", device.export(0, cut)))
    assert "Now: OK accepted" in words(clerk.get("drops/2"))
    assert "No case is open" in words(clerk.get("cases"))
    assert "the case closed by itself" in words(clerk.get("cases/1"))
    listed = words(clerk.get("drops"))
    assert listed.index("Drop 3") < listed.index("Drop 2") < listed.index("Drop 1")


def test_a_file_that_frees_others(books: Books, logged_in: LoggedIn) -> None:
    known, unknown = Device(number=1).use(3), Device(make_license(license_id="L-2")).use(4)
    books.learn(known)
    clerk = logged_in("finance")
    assert "H250" in clerk.drop(("a.usage.gz", unknown.export()))
    told = clerk.drop(("registry.jsonl", registry(unknown)))
    assert "Taken from what waited" in told and f"{unknown.size} receipts accepted" in told


@pytest.mark.parametrize("name", [
    "<img src=x onerror=alert(1)>.usage.gz", "../../../etc/passwd", "C:\\Users\\x\\a.txt",
    "a\r\nSet-Cookie: x",    "\u202egpj.exe", "x" * 1000, '"; filename="b', "a\x00b",
])  # fmt: skip
def test_names_are_words_for_people(logged_in: LoggedIn, name: str) -> None:
    clerk = logged_in("finance")
    clerk.drop((name, b"hello"), ("z.zip", zipped(**{name.replace("\x00", ""): b"hello"})))
    for path in ("drops/1", "drops", "files"):
        page = clerk.get(path)
        assert "<img" not in page.text.partition("<main")[2] and "onerror" not in html.unescape(
            page.text.partition("<main")[2]
        ).replace("<img src=x onerror=alert(1)>", "")
        assert "\u202e" not in page.text and "etc/passwd" not in page.text and "Users" not in page.text
        assert len(page.text) < 20_000


def test_drops_that_are_no_good(books: Books, logged_in: LoggedIn) -> None:
    clerk = logged_in("finance")
    assert "No file was chosen" in clerk.post("drop", 400).text
    assert "UPLOAD_INVALID" in clerk.drop(("a.zip", b"PK\x03\x04rubbish"))
    assert "REGISTRY_INVALID" in clerk.drop(
        ("c.json", b'{"schema": "sealpack/customers/v1", "customers": 3}')
    )
    assert "left aside not for settlement (sealpack/other/v1)" in clerk.drop(
        ("c.json", b'{"schema": "sealpack/other/v1"}')
    )
    assert "PLAN_INVALID" in clerk.drop(("p.yaml", b"plan: 1"))
    assert "a key or a certificate" in clerk.drop(("k", b"-----BEGIN PRIVATE KEY-----"))
    assert books.rows(db.files) == []


def test_drops_within_limits(books: Books) -> None:
    add_user(books.database, "finance")
    console = console_on(books.database)
    console.service.limits = Limits(file_bytes=20_000, zip_bytes=100_000, zip_entries=5)
    clerk = Clerk(console)
    clerk.login("finance")
    assert "REQUEST_TOO_LARGE" in clerk.post("drop", 413, files=[("a", b"x" * 200_000)]).text
    assert "R305" in clerk.drop(("a", b"x" * 30_000))
    assert "FORM_INVALID" in clerk.post("drop", 400, files=[(f"{n}", b"x") for n in range(6)]).text
    console.service.uploading = 99
    assert "CONCURRENCY_LIMIT" in clerk.post("drop", 429, files=[("a", b"x")]).text
    assert console.service.uploading == 99


def test_an_auditor_drops_nothing_but_reads(books: Books, logged_in: LoggedIn) -> None:
    logged_in("finance").drop(("a", b"x"))
    auditor = logged_in("auditor")
    auditor.post("drop", 403, files=[("a", b"x")])
    assert "left aside" in words(auditor.get("drops/1")) and len(books.rows(db.drops)) == 1


def test_who_dropped_what_stands_in_the_trail(books: Books, logged_in: LoggedIn) -> None:
    device = Device().use(3)
    books.learn(device)
    data = device.export()
    logged_in("finance").drop(("a.usage.gz", data))
    (entry,) = [row for row in books.rows(db.audit) if json.loads(row["what"])["verb"] == "upload"]
    assert entry["who"] == "user finance"
    assert json.loads(entry["what"])["file"] == hashlib.sha256(data).hexdigest()


def test_files_by_outcome_page_by_page(books: Books, logged_in: LoggedIn) -> None:
    clerk = logged_in("finance")
    for n in range(3):
        clerk.drop(*((f"{n}-{m}.usage.gz", b"%d-%d" % (n, m)) for m in range(20)))
    first = clerk.get("files?outcome=refused")
    assert first.text.count('class="badge bad"') == 50
    link = html.unescape(first.text.partition('rel="next" href="')[2].partition('"')[0])
    second = clerk.http.get(link)
    assert second.text.count('class="badge bad"') == 10 and 'rel="next"' not in second.text
    assert "No file has this outcome" in words(clerk.get("files?outcome=accepted"))
    assert clerk.get("files?outcome=R301").text.count('class="badge bad"') == 50


# --- replies -----------------------------------------------------------------------------------------


def test_replies_as_a_zip(books: Books, logged_in: LoggedIn) -> None:
    one, two = Device(number=1).use(3), Device(number=2).use(4)
    books.learn(one, two)
    clerk, auditor = logged_in("finance"), logged_in("auditor")
    assert "nothing to reply to" in words(clerk.get("replies"))
    clerk.drop(("1.usage.gz", one.export()), ("2.usage.gz", two.export()))
    assert "Hospital Nord gGmbH" in words(clerk.get("replies"))
    auditor.get("replies/zip?customer=hospital", 404)  # none was made, and an auditor makes none
    answer = clerk.post("replies/zip", 200, customer="hospital")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="replies-hospital.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        parcels = [Parcel.from_bytes(archive.read(name), name) for name in archive.namelist()]
    sizes = {Acknowledgement.open(parcel.documents[0], one.trust).size for parcel in parcels}
    assert sizes == {one.size, two.size}
    assert auditor.get("replies/zip?customer=hospital").content == answer.content
    assert clerk.post("replies/zip", 200, license="L-1").content == answer.content
    for bad in ("replies/zip", "replies/zip?customer=x", "replies/zip?license=%0A", "replies/zip?customer="):
        clerk.get(bad, 404)
    auditor.post("replies/zip", 403, customer="hospital")


def test_without_a_key_replies_are_those_made_elsewhere(books: Books) -> None:
    device = Device().use(3)
    books.learn(device)
    books.ingest(device.export())
    add_user(books.database, "finance")
    clerk = Clerk(console_on(books.database))
    clerk.login("finance")
    assert "no settlement key" in words(clerk.get("replies"))
    clerk.get("replies/zip?customer=hospital", 404)
    books.reply(device, signers=SIGNERS)
    clerk.get("replies/zip?customer=hospital")
