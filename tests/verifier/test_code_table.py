"""packaging/codes.toml: every code is explained, and shown by a test or a vector that is there."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from sealpack.format.errors import CODES

ROOT = Path(__file__).parents[2]
TABLE: dict[str, dict[str, str]] = tomllib.loads((ROOT / "packaging" / "codes.toml").read_text())


@cache
def functions(path: str) -> frozenset[str]:
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))


@cache
def vectors(code: str) -> tuple[str, ...]:
    """Names of the cases that expect a code."""
    cases = (ROOT / "specs/vectors").glob("*/*/case.json")
    return tuple(c.parent.name for c in cases if json.loads(c.read_text()).get("expect") == code)


def test_every_code_has_a_row_and_no_other() -> None:
    assert sorted(TABLE) == sorted(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_shown_by_a_test_that_names_it(code: str) -> None:
    """The test's file names the code, or its parameter is a vector that expects it."""
    path, _, rest = TABLE[code]["test"].partition("::")
    name, _, parameter = rest.rstrip("]").partition("[")
    assert name in functions(path), f"no test {TABLE[code]['test']}"
    if re.search(rf"\b{code}\b", (ROOT / path).read_text()) is None:
        assert parameter.endswith(vectors(code)), f"{TABLE[code]['test']} does not show {code}"


@pytest.mark.parametrize("code", CODES)
def test_a_row_is_words_for_people_and_a_message_of_a_run(code: str) -> None:
    row = TABLE[code]
    assert set(row) == {"when", "test", "example"}
    assert row["when"].endswith(".") and "  " not in row["when"]
    example = row["example"]
    assert example.startswith(f"error[{code}]: ") and "; next: " in example
    assert example.isprintable()
    assert not re.search(r"(?<![\w.])/(tmp|root|home)/|pytest-of", example), "a path of somebody's machine"
