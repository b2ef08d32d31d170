"""`sealpack settle statement`: everything that happened with a customer."""

from __future__ import annotations

from datetime import datetime

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="A customer's documents and payments with a running balance.")
@click.argument("customer")
@common.day_option("--from", "first", "First day.")
@common.day_option("--to", "last", "Last day.")
@support.formats("text", "json", "csv")
def statement(customer: str, first: datetime | None, last: datetime | None, fmt: str) -> None:
    """Print what happened with CUSTOMER (id): above zero the customer owes."""
    with common.open_database() as database:
        from sealpack.settlement import reports

        days = [day.date() if day else None for day in (first, last)]
        with database.read() as connection:
            rows = [item.cells() for item in reports.statement(connection, customer, *days)]
    common.emit_table(
        "sealpack/settle-statement/v1", "items", reports.STATEMENT_COLUMNS, rows, fmt, customer=customer
    )
