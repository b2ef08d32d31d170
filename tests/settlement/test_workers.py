"""Several processes at the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from load import fleet, oracle
from support.books import Books

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, workers
from sealpack.settlement.outcomes import final


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], bytes, fleet.Truth]:
    folder = tmp_path_factory.mktemp("fleet")
    truth = fleet.make(fleet.Shape(customers=2, devices=24, receipts=2_400, seed=3), folder)
    return sorted((folder / "usage").iterdir()), (folder / "registry.jsonl").read_bytes(), truth


def test_two_processes_share_the_work(
    books: Books, made: tuple[list[Path], bytes, fleet.Truth], tmp_path: Path
) -> None:
    paths, registry, truth = made
    odd = tmp_path / "odd.usage.gz"
    odd.write_bytes(b"no usage")
    oracle.learn(books.database, registry)
    outcomes = final(workers.ingest_files(books.address, [*paths, odd], fleet.NOW, 2))
    assert {o.name for o in outcomes} == {odd.name, *truth.files}
    assert [o.code for o in outcomes if o.name == odd.name] == ["R301"]
    assert (
        oracle.wrong(
            books.database, fleet.Truth(**{**vars(truth), "files": truth.files | {odd.name: "R301"}})
        )
        == []
    )


def test_a_failure_of_a_worker_is_told_as_it_is(
    books: Books, made: tuple[list[Path], bytes, fleet.Truth]
) -> None:
    with pytest.raises(SealpackError) as caught:
        list(workers.ingest_files(books.address, made[0][:3], fleet.NOW, 2))
    assert (caught.value.code, caught.value.remedy) == (
        "TRUST_UNPINNED",
        "run `sealpack settle import trust.json`",
    )
    with books.database.read() as connection:  # the bytes are kept
        assert connection.execute(sa.select(sa.func.count()).select_from(db.files)).scalar_one() > 0
