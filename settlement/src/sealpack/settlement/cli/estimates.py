"""`sealpack settle estimates`: what of a month is billed without evidence."""

from __future__ import annotations

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="What of a month is estimated.")
@click.option("--period", metavar="YYYY-MM", required=True, help="The month.")
@click.option("--customer", help="Only this customer (id).")
@support.formats("text", "json", "csv")
def estimates(period: str, customer: str | None, fmt: str) -> None:
    """Print how much is estimated for which device, from the mean of which months.

    Only price plans with `estimate` do so, for devices that sent nothing up to the month's end, once the
    days of grace are over. Of an invoiced month this is what its newest document says: `settle correct`
    takes estimates back when usage comes.
    """
    month = common.month_of(period)
    with common.open_database() as database:
        from sealpack.settlement import estimate_report as report

        rows = [one.cells() for one in report.rows(database, month, support.now(), customer)]
    common.emit_table("sealpack/settle-estimates/v1", "estimates", report.COLUMNS, rows, fmt)
