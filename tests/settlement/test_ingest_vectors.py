"""The ingestion vectors: every file, in the order given, comes to what its case states."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.books import Books

from sealpack.settlement import db, ingest, logs
from sealpack.settlement.outcomes import OUTCOMES
from sealpack.settlement.reconcile import reconcile

VECTORS = Path(__file__).parents[2] / "specs/vectors/ingest"
CASES = sorted(path.parent.name for path in VECTORS.glob("*/case.json"))


@pytest.mark.parametrize("name", CASES)
def test_case(books: Books, name: str) -> None:
    folder = VECTORS / name
    case = json.loads((folder / "case.json").read_bytes())
    for known in ("trust.json", "plan.yaml", "registry.jsonl"):
        own = folder / known
        books.take(known, (own if own.exists() else VECTORS / known).read_bytes())
    for step in case["steps"]:
        outcomes = ingest.ingest_file(books.database, folder / step["file"], case["now"])
        assert [[o.name, o.code, o.accepted] for o in outcomes] == step["outcomes"]
    with books.database.read() as connection:
        found = [logs.load(connection, row["origin"]) for row in books.rows(db.logs)]
    assert [
        {"origin": log.origin, "size": log.size, "root": log.frontier.root.hex(),
         "registers": log.state.registers.to_tally()}
        for log in found if log and log.state.registers
    ] == case["logs"]  # fmt: skip
    assert reconcile(books.database, case["now"]).problems == ()


def test_outcomes_of_one_file_are_covered() -> None:
    """R305 would need a file of 64 MiB, W121 and W130 more than a file; tests have them."""
    stated = {
        outcome[1]
        for name in CASES
        for step in json.loads((VECTORS / name / "case.json").read_bytes())["steps"]
        for outcome in step["outcomes"]
    }
    assert set(OUTCOMES) - stated == {"R305", "W121", "W130"}


def test_the_generator_still_writes_them(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(VECTORS / "generate.py"), str(tmp_path)], check=True)
    assert contents(tmp_path) == contents(VECTORS)


def contents(folder: Path) -> dict[Path, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    return {path.relative_to(folder): path.read_bytes() for path in files}
