"""Statements as HTML, in the look of invoices.

Source: specs/statements.md.
"""

from __future__ import annotations

from html import escape
from typing import Any

from sealpack.settlement import html_page
from sealpack.settlement.statements import sheet


def to_html(value: dict[str, Any]) -> str:
    """The page of a payout statement or a customer statement."""
    made = sheet.sheet(value)
    grids = [_grid(grid) for grid in made.grids]
    parts = [
        html_page.head(made.title, made.below, made.seller),
        html_page.parties(made.label, made.receiver, made.facts),
        *grids[:1],
        html_page.totals(
            [(escape(label), text) for label, text in made.sums], (escape(made.last[0]), made.last[1])
        ),
        *grids[1:],
        *(f'<p class="muted small">{escape(note)}</p>' for note in made.notes),
    ]
    return html_page.page(sheet.name(value), parts)


def _grid(grid: sheet.Grid) -> str:
    rows = [[escape(cell) for cell in row] for row in grid.rows]
    return f"<h2>{escape(grid.title)}</h2>{html_page.table(grid.heads, rows, numbers=grid.numbers)}"
