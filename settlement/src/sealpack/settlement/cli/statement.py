"""`sealpack settle statement`: everything that happened with a customer."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="A customer's documents and payments with a running balance.")
@click.argument("customer")
@common.day_option("--from", "first", "First day.")
@common.day_option("--to", "last", "Last day.")
@click.option(
    "--out", type=click.Path(file_okay=False), help="Write the statement of account to this folder instead."
)
@common.forms_options
@support.formats("text", "json", "csv")
def statement(
    customer: str, first: datetime | None, last: datetime | None, out: str | None, forms: common.Forms,
    fmt: str,
) -> None:  # fmt: skip
    """Print what happened with CUSTOMER (id): above zero the customer owes.

    With --out a statement of account to be sent is written as JSON, CSV and HTML, one per currency: balance
    before, what happened, what is open and since when.
    """
    if out is None and forms != common.Forms():
        raise SealpackError("USAGE", "--pdf and --key go with --out")
    with common.open_database() as database:
        from sealpack.settlement import reports

        days = [day.date() if day else None for day in (first, last)]
        with database.read() as connection:
            if out is None:
                rows = [item.cells() for item in reports.statement(connection, customer, *days)]
            else:
                from sealpack.settlement.statements import customer as engine

                made = engine.statements(connection, customer, days[0], common.day_of(last))
        if out is not None:
            forms.check(database)
    if out is not None:
        common.write_statements(Path(out), made, forms, fmt)
        return
    common.emit_table(
        "sealpack/settle-statement/v1", "items", reports.STATEMENT_COLUMNS, rows, fmt, customer=customer
    )
