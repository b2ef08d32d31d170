"""Settlement lost everything since a backup: machines that go on as ever bring it back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import rating_plans, world
from support.site import INPUT, Site, make_license, seal_license

pytest.importorskip("sqlalchemy")

from support.books import SIGNERS, Books

import sealpack.runtime
from sealpack.format.documents import Parcel
from sealpack.format.license import PlanRef
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.runtime import imports, receipts
from sealpack.settlement import ack, backup, db, ingest, registry, restore
from sealpack.settlement.audit import Actor
from sealpack.settlement.reconcile import reconcile


def use(site: Site, calls: int) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        for _ in range(calls):
            runtime.infer(INPUT)


def visit(site: Site, books: Books) -> list[str]:
    """Carry usage to settlement and the reply home; what became of the files."""
    stick = site.folder / f"stick-{time.monotonic_ns()}"
    stick.mkdir()
    now = int(time.time())
    with site.state() as state:
        files = [file.path for file in receipts.export(state, stick)]
    outcomes = [o for path in files for o in ingest.ingest_file(books.database, path, now)]
    for reply in ack.replies(books.database, SIGNERS, [o.origin for o in outcomes if o.origin], now):
        with site.state() as state:
            imports.take(state, [Parcel.from_bytes(reply.data, reply.name)])
    return [o.code for o in outcomes]


def calls(books: Books) -> int:
    return sum(row["calls"] for row in books.rows(db.rollups))


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_restored_settlement_is_refilled(
    tmp_path: Path, tiny_models: dict[str, Path], acknowledged: bool
) -> None:
    now = int(time.time())
    site = Site(tmp_path, tiny_models, world.make_trust()).pin()
    build = site.install()
    drafted = make_license(plan=PlanRef("example", 1), issued_at=now - 3600)
    site.activate(drafted, {"calls": 1000})
    books = Books.open(tmp_path)
    books.take("trust.json", site.trust.to_bytes())
    with books.database.write() as connection:
        registry.put_plan(connection, rating_plans.make_plan())
    fact = BundleFact(build.bundle_digest, "acme/tiny", build.version, 1, "Tiny")
    books.take("registry.jsonl", RegistryLine(seal_license(drafted), bundles=(fact,)).to_bytes() + b"\n")

    use(site, 5)
    assert visit(site, books) == ["OK"]
    backup.write(books.database, tmp_path / "monday.backup", now=int(time.time()))
    if acknowledged:  # two replies that the backup knows nothing of
        for count in (3, 2):
            use(site, count)
            assert visit(site, books) == ["OK"]
        assert calls(books) == 10
    books.database.close()

    (tmp_path / "new").mkdir()
    again = Books.open(tmp_path / "new")
    actor = Actor("clerk", int(time.time()))
    restore.restore(again.database, tmp_path / "monday.backup", actor=actor)
    assert calls(again) == 5
    use(site, 4)
    if acknowledged:
        assert visit(site, again) == ["H201"]  # what it forgot; the reply says where it stands
        use(site, 1)
        assert "OK" in visit(site, again)
        assert calls(again) == 5 + 3 + 2 + 4 + 1
    else:
        assert visit(site, again) == ["OK"]
        assert calls(again) == 5 + 4
    use(site, 1)
    assert visit(site, again) == ["OK"]
    assert calls(again) == (16 if acknowledged else 10)
    assert reconcile(again.database, int(time.time())).ok
    assert not [row for row in again.rows(db.cases) if row["closed_at"] is None]
    again.database.close()
