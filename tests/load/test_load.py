"""A small fleet in every trouble, on both databases, against its own truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from load import fleet, oracle
from sealpack.settlement import db, ingest
from sealpack.settlement.reconcile import reconcile


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, fleet.Truth]:
    folder = tmp_path_factory.mktemp("fleet")
    return folder, fleet.make(fleet.Shape(customers=3, devices=40, receipts=24_000), folder)


def settle(database: db.Database, folder: Path) -> None:
    oracle.learn(database, (folder / "registry.jsonl").read_bytes())
    for path in sorted((folder / "usage").iterdir()):
        ingest.ingest_file(database, path, fleet.NOW)


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    shape = fleet.Shape(customers=2, devices=12, receipts=600, seed=7)
    truths = [fleet.make(shape, tmp_path / name, processes) for name, processes in (("a", 1), ("b", 2))]
    assert truths[0] == truths[1] == fleet.Truth.from_json((tmp_path / "a/truth.json").read_text())
    for path in (tmp_path / "a").rglob("*.gz"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_fleet_is_settled_as_it_worked(
    made: tuple[Path, fleet.Truth], kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, truth = made
    assert {name.split("-")[-1].split(".")[0] for name in truth.files} == set(fleet.TROUBLES)
    address = request.getfixturevalue("server").fresh() if kind == "postgresql" else tmp_path / "s.db"
    with db.Database.open(address) as database:
        settle(database, folder)
        assert oracle.wrong(database, truth) == []
        assert oracle.wrong_invoices(database, truth) == []
        assert reconcile(database, fleet.NOW).ok
        settle(database, folder)  # once more: nothing changes
        assert oracle.wrong(database, truth) == []


def test_the_oracle_notices(made: tuple[Path, fleet.Truth], tmp_path: Path) -> None:
    folder, truth = made
    with db.Database.open(tmp_path / "s.db") as database:
        settle(database, folder)
        with database.write() as connection:
            connection.exec_driver_sql(
                "UPDATE rollups SET calls = calls + 1 WHERE origin = (SELECT min(origin) FROM rollups)"
            )
            unused = (
                "sha256 NOT IN (SELECT sha256 FROM segments) AND sha256 NOT IN (SELECT sha256 FROM cases)"
            )
            for table in ("evidence", "files"):
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE {unused}")
            connection.exec_driver_sql("UPDATE logs SET size = size + 1 WHERE license_id = 'L-2'")
        problems = oracle.wrong(database, truth)
        assert any(p.startswith("L-0") or p.startswith("L-1") or p.startswith("L-2") for p in problems)
        assert sum("/usage/L-2/" in p for p in problems) == sum("/L-2/" in origin for origin in truth.logs)
