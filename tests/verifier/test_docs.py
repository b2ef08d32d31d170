"""The generated pages are what the code says, and every specification the code cites is there."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sealpack.builder.presets import PRESETS
from sealpack.format.errors import CODES
from sealpack.format.limits import LIMITS

ROOT = Path(__file__).parents[2]
PLAIN_ROWS = (
    "allow",
    "deny",
    "binding",
    "devices",
    "grace, days",
    "settle every, days",
    "watermark",
    "billing",
    "receipts",
)


@pytest.mark.parametrize("columns", ["40", "200"])
def test_generated_pages_are_current(columns: str, tmp_path: Path) -> None:
    # A process of its own: click keeps a command's help option as it was when first asked for.
    command = [sys.executable, str(ROOT / "packaging" / "gen_docs.py"), str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"COLUMNS": columns})
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
    """Outside code spans, an upper-case word that begins like a code is a code of the table."""
    heads = {code.split("_")[0] for code in CODES}
    for page in (ROOT / "specs").glob("*.md"):
        prose = re.sub(r"^    .*$|`[^`]*`", "", page.read_text(), flags=re.MULTILINE)
        for word in set(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b(?!\*)", prose)):
            assert word in CODES or word.split("_")[0] not in heads, f"{page.name}: {word}"


def test_limits_page_has_every_limit() -> None:
    page = (ROOT / "specs/limits.md").read_text().split("## Cost")[0]
    units = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "": 1}
    rows = re.findall(r"^\| `([a-z_]+)` \| ([0-9,]+) ?([KMG]iB)? \|", page, re.MULTILINE)
    said = {name: int(number.replace(",", "")) * units[unit] for name, number, unit in rows}
    assert said == dataclasses.asdict(LIMITS)


def test_presets_page_has_every_preset() -> None:
    rows = {
        cells[0]: cells[1:]
        for line in (ROOT / "specs/license.md").read_text().splitlines()
        if line.startswith("| ") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 7
    }
    assert rows[""] == list(PRESETS)
    for name, *said in zip(PRESETS, *(rows[r] for r in PLAIN_ROWS), strict=True):
        p = PRESETS[name]
        days = "–" if p.lease.max_age_s is None else str(p.lease.max_age_s // 86400)
        assert said == [
            ", ".join(p.allow) or "–",
            ", ".join(p.deny) or "–",
            p.binding,
            "–" if p.devices is None else str(p.devices),
            str(p.grace_s // 86400),
            days,
            p.watermark,
            p.billing,
            p.receipts,
        ]
