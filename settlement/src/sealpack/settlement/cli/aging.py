"""`sealpack settle aging`: who owes how much, for how long."""

from __future__ import annotations

from datetime import datetime

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="What customers owe, by days overdue.")
@common.day_option("--on", "on", "As of this day [default: today].")
@support.formats("text", "json", "csv")
def aging(on: datetime | None, fmt: str) -> None:
    """Print what each customer owes: not due, up to 30, 60, 90 days overdue, and longer."""
    with common.open_database() as database:
        from sealpack.settlement import reports

        day = common.day_of(on)
        with database.read() as connection:
            rows = [one.cells() for one in reports.aging(connection, day)]
    common.emit_table(
        "sealpack/settle-aging/v1", "customers", reports.AGING_COLUMNS, rows, fmt, on=day.isoformat()
    )
