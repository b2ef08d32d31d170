"""A statement as files: its JSON, and CSV and HTML made from that.

Source: specs/statements.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical
from sealpack.settlement.statements import table
from sealpack.settlement.statements.page import to_html


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: the `name` of its files and what it says."""

    name: str
    value: dict[str, Any]

    @property
    def json(self) -> bytes:
        """Canonical JSON: the bytes that are signed."""
        return canonical.dumps(self.value)

    @property
    def files(self) -> dict[str, bytes]:
        """File names with their bytes."""
        return {
            f"{self.name}.json": self.json,
            f"{self.name}.csv": table.to_csv(self.value),
            f"{self.name}.html": to_html(self.value).encode(),
        }


def named(found: list[tuple[str, dict[str, Any]]]) -> list[Statement]:
    """Statements under names of their own: those that would be called the same are numbered."""
    names = [name for name, _ in found]
    return [
        Statement(name if names.count(name) == 1 else f"{name}-{names[: n + 1].count(name)}", value)
        for n, (name, value) in enumerate(found)
    ]
