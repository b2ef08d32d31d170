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
@click.option("--period", metavar="YYYY-MM", help="Only this month, with what is not issued for it yet.")
@support.formats("text", "json", "csv")
def invoices(customer: str | None, only_open: bool, period: str | None, fmt: str) -> None:
    """List every document: issued, partly paid, paid, credited or written off.

    With --period also the licenses that have no invoice for that month yet: open while it runs, grace while
    late files are waited for, then draft or approved; faulty when it cannot be rated.
    """
    month = None if period is None else common.month_of(period)
    with common.open_database() as database:
        from sealpack.settlement import db, drafts, receivables

        where = [] if customer is None else [db.invoices.c.customer_id == customer]
        if month is not None:
            where.append(db.invoices.c.period == month.isoformat())
        with database.read() as connection:
            found = receivables.standings(connection, *where)
        waiting = drafts.everything(database, month, support.now(), customer) if month else ()
        before = [one.to_dict() for one in waiting if one.state != drafts.ISSUED]
    values = [one.to_dict() for one in found if one.open > 0 or not only_open]
    values += [] if only_open else before
    rows = [[str(value.get(column, "")) for column in COLUMNS] for value in values]
    common.emit_table("sealpack/settle-invoices/v1", "invoices", COLUMNS, rows, fmt)
