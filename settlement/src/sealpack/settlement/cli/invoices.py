"""`sealpack settle invoices`: every document and where it stands."""

from __future__ import annotations

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

COLUMNS = (
    "number", "kind", "customer", "license", "period", "date", "due", "corrects", "currency", "total",
    "credited", "paid", "open", "state",
)  # fmt: skip


@click.command(short_help="List invoices and credit notes with what is open.")
@click.option("--customer", help="Only this customer (id).")
@click.option("--open", "only_open", is_flag=True, help="Only those that are not paid.")
@support.formats("text", "json", "csv")
def invoices(customer: str | None, only_open: bool, fmt: str) -> None:
    """List every document: issued, partly paid, paid, credited or written off."""
    with common.open_database() as database:
        from sealpack.settlement import db, receivables

        where = () if customer is None else (db.invoices.c.customer_id == customer,)
        with database.read() as connection:
            found = receivables.standings(connection, *where)
    values = [one.to_dict() for one in found if one.open > 0 or not only_open]
    rows = [[str(value.get(column, "")) for column in COLUMNS] for value in values]
    common.emit_table("sealpack/settle-invoices/v1", "invoices", COLUMNS, rows, fmt)
