"""Every error code that the formats or the verifier can raise is expected by a vector or a test."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from sealpack.format.errors import CODES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "verifier/src/sealpack"


def raised() -> dict[str, set[str]]:
    """Code -> modules that hold it as a string literal, the table itself left out."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        if path.name == "errors.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in CODES and isinstance(node.value, str):
                found.setdefault(node.value, set()).add(path.relative_to(SOURCE).as_posix())
    return found


def expected() -> set[str]:
    """Codes that vectors expect, and codes that tests name."""
    named: set[str] = set()
    for path in (ROOT / "specs/vectors").glob("*/*/case.json"):
        named.add(json.loads(path.read_text())["expect"])
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path != Path(__file__):
            named |= set(re.findall(r"[\"'/\[]([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)*)", path.read_text()))
    return named & set(CODES)


def test_every_raised_code_is_expected_somewhere() -> None:
    codes = raised()
    assert len(codes) > 50
    missing = {code: sorted(codes[code]) for code in sorted(set(codes) - expected())}
    assert missing == {}


def test_every_container_and_signature_code_has_a_vector() -> None:
    """The faults anybody can put into a file: a second implementation must be able to test for each."""
    vectors = {json.loads(p.read_text())["expect"] for p in (ROOT / "specs/vectors").glob("*/*/case.json")}
    families = ("CONTAINER_", "SIG_", "JSON_", "DSSE_", "TRUST_", "MANIFEST_", "CHUNK_", "DIGEST_", "DOC_")
    wanted = {code for code in raised() if code.startswith(families)} - {"TRUST_UNPINNED"}
    assert sorted(wanted - vectors) == []
