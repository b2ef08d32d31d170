"""Sites that let no single call out: tally files and meter readings of a real runtime, settled."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from runtime.test_cli import Shell
from support import rating_plans
from support.acts import call
from support.clocks import Clocks
from support.site import Site, make_license, seal_license

pytest.importorskip("sqlalchemy")
pytest.importorskip("zxingcpp")

from support.books import SIGNERS, Books

from sealpack.format import records, tallies
from sealpack.format.documents import Parcel
from sealpack.format.license import PlanRef
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.format.usage_reader import UsageReader
from sealpack.runtime import imports, receipts, rights
from sealpack.settlement import ack, db, ingest, registry
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

QUARTER_MS = 900_000


@pytest.fixture
def shell(site: Site, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(site, capsys)


@pytest.fixture
def books(site: Site, clocks: Clocks, tmp_path: Path) -> Books:
    """Settlement that knows the site, which is ready to be used."""
    site.pin()
    build = site.install()
    drafted = make_license(plan=PlanRef("example", 1))
    site.activate(drafted, {"calls": 1000})
    made = Books.open(tmp_path)
    made.take("trust.json", site.trust.to_bytes())
    with made.database.write() as connection:
        registry.put_plan(connection, rating_plans.make_plan())
    fact = BundleFact(build.bundle_digest, "acme/tiny", build.version, 1, "Tiny")
    with site.state() as state, state.read() as connection:
        activation = rights.stored(connection, "activation", "L-1")
    line = RegistryLine(seal_license(drafted), activation, bundles=(fact,))
    made.take("registry.jsonl", line.to_bytes() + b"\n")
    return made


def busy(site: Site, clocks: Clocks) -> None:
    """Calls in several quarters of an hour, and pauses after which the runtime starts again."""
    for pause in (10, 300, 1000, 20, 5000, 890):
        clocks.run(pause)
        call(site, 2)


def exported(site: Site, name: str, **how: Any) -> bytes:
    folder = site.folder / name
    folder.mkdir()
    with site.state() as state:
        (made,) = receipts.export(state, folder, **how)
    return made.path.read_bytes()


def now(clocks: Clocks) -> int:
    return int(clocks.wall or 0)


def taken(books: Books, data: bytes, clocks: Clocks) -> list[str]:
    return [o.code for o in ingest.ingest(books.database, data, "a", now(clocks))]


def answer(site: Site, books: Books, clocks: Clocks) -> None:
    """Bring the newest acknowledgement home."""
    origins = [row["origin"] for row in books.rows(db.logs)]
    for reply in ack.replies(books.database, SIGNERS, origins, now(clocks)):
        with site.state() as state:
            imports.take(state, [Parcel.from_bytes(reply.data)])


def test_all_usage_between_two_tallies_lies_in_the_quarter_of_the_first(site: Site, clocks: Clocks) -> None:
    """And the first usage after an export has one of its own (specs/receipts.md)."""
    site.pin()
    site.install()
    site.activate(make_license(), {"calls": 1000})
    busy(site, clocks)
    exported(site, "first")
    call(site)
    data = exported(site, "second")
    tally: records.Record | None = None
    calls = 0
    for block in UsageReader(data):
        for record in block.records:
            if record.kind == records.TALLY:
                tally = record
            elif record.kind == records.EXPORTED:
                tally = None
            elif record.kind == records.USAGE:
                assert tally is not None and tally.time_ms // QUARTER_MS == record.time_ms // QUARTER_MS
                calls += 1
    assert calls == 13


def test_a_tally_file_bills_what_the_receipts_would(site: Site, books: Books, clocks: Clocks) -> None:
    """Every quarter of an hour and status the same; then the receipts take its place without a trace."""
    busy(site, clocks)
    private = exported(site, "private", private=True)
    assert taken(books, private, clocks) == ["W152"]
    before = books.rows(db.rollups)
    assert sum(row["calls"] for row in before) == 12
    assert taken(books, exported(site, "full"), clocks) == ["OK"]
    assert books.rows(db.rollups) == before and reconcile(books.database, now(clocks)).ok


def test_a_site_that_only_ever_sends_tallies(site: Site, books: Books, clocks: Clocks) -> None:
    for visit in range(3):
        busy(site, clocks)
        data = exported(site, f"visit-{visit}", private=True)
        assert taken(books, data, clocks) == ["W152"]
        answer(site, books, clocks)
    with site.state() as state:
        (entry,) = receipts.pending(state)
    assert entry.log.acked_size > 0 and entry.news == 0
    assert sum(row["calls"] for row in books.rows(db.rollups)) == 36
    assert reconcile(books.database, now(clocks)).ok


def test_no_single_call_is_in_a_tally_file(site: Site, books: Books, clocks: Clocks) -> None:
    busy(site, clocks)
    reader = tallies.TallyReader(exported(site, "private", private=True))
    kinds = {record.kind for block in reader for record in block.records}
    assert reader.complete and kinds == {"g", "b", "t", "e"}
    for block in tallies.TallyReader(exported(site, "again", private=True)):
        assert not any(b'"meters"' in line for line in block.leaves)


def test_privacy_on_the_command_line(shell: Shell, books: Books, clocks: Clocks) -> None:
    busy(shell.site, clocks)
    out = shell.site.folder / "stick"
    (row,) = shell.json("receipts", "export", "--privacy", "--out", out)["files"]
    told = shell.json("receipts", "verify", row["path"])
    assert told["ok"] and told["tallies"] and told["growth"]["r1"]["ok"]["calls"] == 12
    assert "no single call in it" in shell("receipts", "verify", row["path"])
    (page,) = out.glob("*.summary.html")
    assert "no single call" in page.read_text()
    synced = shell.site.folder / "synced"
    synced.mkdir()
    (row,) = shell.json("sync", synced, "--privacy")["exported"]
    assert taken(books, Path(row["path"]).read_bytes(), clocks) == ["W152"]


def settle(books: Books, *arguments: str | Path, status: int = 0) -> None:
    got = run(make_cli(), ["settle", "--db", books.address, *map(str, arguments)])
    assert got == status


def test_a_reading_from_screen_to_bill(shell: Shell, books: Books, clocks: Clocks) -> None:
    busy(shell.site, clocks)
    picture = shell.site.folder / "meter.png"
    (row,) = shell.json("receipts", "export", "--reading", "--qr", picture)["readings"]
    assert row["registers"]["r1"]["ok"]["calls"] == 12 and len(row["frames"]) == 1
    assert row["pictures"] == [str(picture)]
    settle(books, "reading", picture)
    assert books.codes() == ["W153"]
    assert sum(r["calls"] for r in books.rows(db.rollups)) == 12
    answer(shell.site, books, clocks)  # a lease that counts it, and nothing acknowledged
    with shell.site.state() as state:
        (entry,) = receipts.pending(state)
    assert entry.log.acked_size == 0 and entry.log.ack_seq == 1
    call(shell.site)
    assert taken(books, exported(shell.site, "later"), clocks) == ["OK"]
    assert sum(r["calls"] for r in books.rows(db.rollups)) == 13
    assert reconcile(books.database, now(clocks)).ok


def test_a_reading_that_is_typed(shell: Shell, books: Books, clocks: Clocks) -> None:
    busy(shell.site, clocks)
    shown = shell("receipts", "export", "--reading")
    lines = re.findall(r"^(?:SEALPACK1|[0-9A-V]{1,5})(?: [0-9A-V]{1,5})*$", shown, re.MULTILINE)
    assert lines[0].startswith("SEALPACK1 ") and len(lines) > 5
    typed = shell.site.folder / "typed.txt"
    typed.write_text("\n".join(lines).lower() + "\n")
    settle(books, "reading", typed)
    assert books.codes() == ["W153"]
    typed.write_text("\n".join(lines).replace(lines[3][:5], "00000") + "\n")
    settle(books, "reading", typed, status=2)
    document = shell.site.folder / "not-one.json"
    document.write_text(json.dumps({"schema": "sealpack/parcel/v1", "documents": []}))
    settle(books, "reading", document, status=2)


def test_what_does_not_go_together(shell: Shell, books: Books, tmp_path: Path) -> None:
    shell("receipts", "export", "--qr", tmp_path / "a.png", status=2)
    shell("receipts", "export", "--reading", "--privacy", status=2)
    shell("receipts", "export", "--reading", "--qr", tmp_path / "a.gif", status=2)
