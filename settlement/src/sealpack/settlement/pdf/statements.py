"""A payout statement or a customer statement on paper, made of its JSON and nothing else.

Source: specs/statements.md.
"""

from __future__ import annotations

from typing import Any

from sealpack.settlement.pdf import blocks
from sealpack.settlement.pdf.paper import LABEL, About, Column, Paper, Text
from sealpack.settlement.statements import sheet


def about(value: dict[str, Any], digest: str) -> About:
    """What the file says of itself."""
    name = sheet.name(value)
    return About(name, name, value["seller"]["name"], digest)


def write(paper: Paper, value: dict[str, Any]) -> None:
    """All of the statement."""
    made = sheet.sheet(value)
    blocks.head(paper, made.title, made.below, made.seller)
    blocks.parties(paper, made.label, made.receiver, made.facts)
    for n, grid in enumerate(made.grids):
        _grid(paper, grid)
        if n == 0:
            blocks.sums(paper, made.sums, made.last)
    if not made.grids:
        blocks.sums(paper, made.sums, made.last)
    paper.y += 4
    for note in made.notes:
        paper.paragraph(note, LABEL)
        paper.y += 1
    blocks.source(paper)


def _grid(paper: Paper, grid: sheet.Grid) -> None:
    paper.heading(grid.title, rule=False)
    columns = [
        Column(head, number=n in grid.numbers, open=n == grid.wide) for n, head in enumerate(grid.heads)
    ]
    paper.table(columns, [[[Text(cell)] for cell in row] for row in grid.rows])
