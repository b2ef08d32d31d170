"""The attack corpus, specs/vectors/bundle, unpacked for tests that hand whole bundles to a program."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "specs" / "vectors" / "bundle"
GROUPS = ("container", "signature", "json", "consistency", "trust", "model", "evidence")


@dataclass(frozen=True)
class Attack:
    """One case: `said` is its case.json."""

    folder: Path
    said: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def data(self) -> bytes:
        """The bundle."""
        return gzip.decompress((self.folder / "bundle.sealpack.gz").read_bytes())

    @property
    def trust(self) -> Path:
        """The trust file the case is checked with."""
        own = self.folder / "trust.json"
        return own if own.exists() else FOLDER / "trust.json"


def attacks(group: str | None = None) -> list[Attack]:
    """The cases of a group, or all."""
    cases = [Attack(p.parent, json.loads(p.read_text())) for p in sorted(FOLDER.glob("*/case.json"))]
    return [case for case in cases if group in (None, case.said["group"])]
