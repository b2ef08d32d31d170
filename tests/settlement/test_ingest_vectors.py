"""The ingestion vectors: every file, in the order given, comes to what its case states."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.books import Books

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ingest, logs
from sealpack.settlement.outcomes import FLAGS, OUTCOMES
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
    """R305 would need a file of 64 MiB, H240 a sender, W121 and W130 more than a file; tests have them."""
    stated = {
        outcome[1]
        for name in CASES
        for step in json.loads((VECTORS / name / "case.json").read_bytes())["steps"]
        for outcome in step["outcomes"]
    }
    assert set(OUTCOMES) - stated == {"R305", "H240", "W121", "W130"}


def test_the_generator_still_writes_them(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(VECTORS / "generate.py"), str(tmp_path)], check=True)
    assert contents(tmp_path) == contents(VECTORS)


def contents(folder: Path) -> dict[Path, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    return {path.relative_to(folder): path.read_bytes() for path in files}


SPEC = (VECTORS.parents[1] / "settlement-ingest.md").read_text()


def test_the_spec_lists_every_outcome_and_the_order_of_flags() -> None:
    table = SPEC.split("## Outcomes")[1].split("\n## ")[0]
    assert re.findall(r"^\| ([A-Z0-9]+) \|", table, re.MULTILINE) == list(OUTCOMES)
    assert ", ".join(FLAGS) in table


def test_the_example_of_the_spec_is_what_happens(books: Books) -> None:
    for known in ("trust.json", "plan.yaml", "registry.jsonl"):
        books.take(known, (VECTORS / known).read_bytes())
    case = json.loads((VECTORS / "gap/case.json").read_bytes())
    said = [
        f"{o.name}   {o.code:<4}  {o.detail}"
        for step in case["steps"]
        for o in ingest.ingest_file(books.database, VECTORS / "gap" / step["file"], case["now"])
    ]
    assert re.findall(r"^    (\S+ +[HO]\S+ .*)$", SPEC, re.MULTILINE) == said


SCHEMA = jsonschema.Draft202012Validator(
    json.loads((VECTORS.parents[1] / "schemas/customers.json").read_text())
)
FULL = {
    "id": "hospital", "legal_name": "Hospital Nord gGmbH", "address": ["Am Kai 1", "24103 Kiel"],
    "tax_id": "DE123456789", "email": "ap@hospital.example", "purchase_order": "PO-7",
    "tax": {"category": "AE", "percent": "0", "reason": "reverse charge"}, "payment_days": 14, "more": 1,
}  # fmt: skip


def customers(**members: Any) -> dict[str, Any]:
    record = {k: v for k, v in {**FULL, **members}.items() if v is not None}
    return {"schema": "sealpack/customers/v1", "customers": [record]}


@pytest.mark.parametrize("gone", ["address", "tax_id", "email", "purchase_order", "tax", "payment_days"])
def test_schema_and_reader_take_the_same_customers(books: Books, gone: str) -> None:
    value = customers(**{gone: None})
    SCHEMA.validate(value)
    books.learn()
    assert books.take("c.json", json.dumps(value, indent=2).encode()) == "1 customer"


@pytest.mark.parametrize(
    "members",
    [
        {"id": "a b"}, {"id": None}, {"legal_name": None}, {"legal_name": ""}, {"legal_name": "x" * 301},
        {"address": ["x"] * 9}, {"address": "x"}, {"tax": {"category": "AE"}}, {"payment_days": 3651},
        {"tax": {"category": "X", "percent": "0"}}, {"tax": {"category": "S", "percent": "-1"}},
        {"tax": {"category": "S", "percent": 20}}, {"payment_days": "14"}, {"tax_id": 5},
    ],
)  # fmt: skip
def test_schema_and_reader_refuse_the_same_customers(books: Books, members: dict[str, Any]) -> None:
    value = customers(**members)
    assert not SCHEMA.is_valid(value)
    books.learn()
    with pytest.raises(SealpackError, match="REGISTRY_INVALID"):
        books.take("c.json", json.dumps(value).encode())
