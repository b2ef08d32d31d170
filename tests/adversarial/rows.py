"""Reading table.toml, and finding what a test id names without running pytest."""

from __future__ import annotations

import importlib.util
import math
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Row:
    """One attack. `owner` is who owes the tests of an open row; `codes` are what the attacker is told."""

    attack: str
    expected: str
    codes: tuple[str, ...]
    tests: tuple[str, ...]
    owner: str = ""


def read() -> list[Row]:
    """The table."""
    rows = tomllib.loads((HERE / "table.toml").read_text())["row"]
    return [Row(**row | {"codes": tuple(row["codes"]), "tests": tuple(row["tests"])}) for row in rows]


@cache
def module(path: str) -> ModuleType:
    """A test file as a module."""
    name = "table_" + path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


def function(test: str) -> FunctionType:
    """The function that a test id names; AttributeError, FileNotFoundError."""
    path, _, name = test.partition("::")
    found = getattr(module(path), name)
    assert callable(found)
    return found  # type: ignore[no-any-return]


def cases(test: str) -> int:
    """How many cases a test has by its `parametrize` marks."""
    marks = getattr(function(test), "pytestmark", [])
    return math.prod(len(list(mark.args[1])) for mark in marks if mark.name == "parametrize")


def is_slow(test: str) -> bool:
    """Whether it runs in campaigns only."""
    return any(mark.name == "slow" for mark in getattr(function(test), "pytestmark", []))
