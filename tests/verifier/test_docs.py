"""The generated pages are what the code says, and every specification the code cites is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from sealpack.format.errors import CODES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("columns", ["40", "200"])
def test_generated_pages_are_current(columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    runpy.run_path(str(ROOT / "packaging/gen_docs.py"))["main"](tmp_path)
    made = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert set(made) == {"errors.md", "cli.md"}
    for name, text in made.items():
        assert text == (ROOT / "docs" / name).read_text(), f"run packaging/gen_docs.py: {name} is old"


def test_every_code_stands_once_in_the_table() -> None:
    listed = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(CODES)


def test_cited_specifications_exist() -> None:
    """`specs/NAME.md` in the shared formats, the verifier or another page names a page that is there."""
    texts = [p.read_text() for p in [*(ROOT / "verifier").rglob("*.py"), *(ROOT / "specs").glob("*.md")]]
    cited = {name for text in texts for name in re.findall(r"specs/([a-z-]+\.md)", text)}
    assert len(cited) > 20
    assert sorted(name for name in cited if not (ROOT / "specs" / name).is_file()) == []


def test_every_specification_states_its_status() -> None:
    for page in (ROOT / "specs").glob("*.md"):
        assert page.read_text().splitlines()[2] == "Status: v1-draft", page.name


def test_codes_named_in_specifications_exist() -> None:
    """A code-like word of two or more parts with a known first part is a code of the table."""
    heads = {code.split("_")[0] for code in CODES}
    for page in (ROOT / "specs").glob("*.md"):
        for word in set(re.findall(r"(?<![\w`-])[A-Z]{2,}(?:_[A-Z]+)+(?![\w*])", page.read_text())):
            assert word in CODES or word.split("_")[0] not in heads, f"{page.name}: {word}"
