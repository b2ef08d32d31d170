"""The vectors of the builder's own formats, their schemas, and that the generators still make them."""

from __future__ import annotations

import hashlib
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sealpack.format.errors import CODES, SealpackError
from sealpack.format.registry import RegistryLine
from sealpack.format.terms import Terms

SPECS = Path(__file__).parents[2] / "specs"
INPUTS = {"terms": "terms.json", "registry-line": "line.json"}
READERS: dict[str, Callable[[bytes], Terms | RegistryLine]] = {
    "terms": Terms.from_bytes,
    "registry-line": RegistryLine.from_bytes,
}
CASES = [
    pytest.param(path.parent, id=f"{name}-{path.parent.name}")
    for name in INPUTS
    for path in sorted((SPECS / "vectors" / name).glob("*/case.json"))
]


@pytest.mark.parametrize("folder", CASES)
def test_vector(folder: Path) -> None:
    name = folder.parent.name
    case: dict[str, Any] = json.loads((folder / "case.json").read_text())
    data = (folder / INPUTS[name]).read_bytes()
    if case["expect"] != "ok":
        assert case["expect"] in CODES
        with pytest.raises(SealpackError) as caught:
            READERS[name](data)
        assert caught.value.code == case["expect"]
        return
    read: Any = READERS[name](data)
    digest = hashlib.sha256(data).hexdigest()
    if isinstance(read, Terms):
        assert read.digest == case["terms_digest"] == digest
    else:
        assert case["sha256"] == digest
        assert json.loads(read.license.payload)["license_id"] == case["license_id"]
    if folder.name in ("good", "activated", "license-only"):  # every member written
        assert type(read).to_bytes(read) == data


@pytest.mark.parametrize("folder", CASES)
def test_schema_agrees_with_the_reader(folder: Path) -> None:
    """The schema refuses what the reader refuses for a member's sake; bytes are the reader's alone."""
    name = folder.parent.name
    expect = json.loads((folder / "case.json").read_text())["expect"]
    if expect.startswith("JSON_"):
        return
    schema = json.loads((SPECS / "schemas" / f"{name}.json").read_text())
    checker = jsonschema.Draft202012Validator(schema)
    assert checker.is_valid(json.loads((folder / INPUTS[name]).read_bytes())) == (expect == "ok")


@pytest.mark.parametrize("name", INPUTS)
def test_generator_still_makes_them(name: str, tmp_path: Path) -> None:
    home = SPECS / "vectors" / name
    runpy.run_path(str(home / "generate.py"))["main"](tmp_path)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    kept = {p.relative_to(home): p.read_bytes() for p in home.glob("*/*") if p.suffix == ".json"}
    assert made == kept


def test_the_specification_shows_the_good_terms() -> None:
    example = (SPECS / "vectors/terms/good/terms.json").read_text()
    assert f"    {example}\n" in (SPECS / "terms.md").read_text()
