"""`sealpack settle unbilled` and `held`: what was used and is not on an invoice."""

from __future__ import annotations

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="What was used and not invoiced.")
@click.option("--customer", help="Only this customer (id).")
@support.formats("text", "json", "csv")
def unbilled(customer: str | None, fmt: str) -> None:
    """Print what could be issued now: drafts of months without an invoice, and corrections.

    A draft is open while its month runs, in grace while late files are waited for. Corrections are further
    invoices (late) or credit notes (correction) for months that were invoiced.
    """
    with common.open_database() as database:
        from sealpack.settlement import unbilled as report

        rows = [one.cells() for one in report.unbilled(database, support.now(), customer)]
    common.emit_table("sealpack/settle-unbilled/v1", "unbilled", report.COLUMNS, rows, fmt)


@click.command(short_help="Usage in files that are held.")
@click.option("--customer", help="Only this customer (id).")
@support.formats("text", "json", "csv")
def held(customer: str | None, fmt: str) -> None:
    """Print every file whose usage waits for something, and how many receipts it says it holds."""
    with common.open_database() as database:
        from sealpack.settlement import unbilled as report

        now = support.now()
        with database.read() as connection:
            rows = [one.cells(now) for one in report.held(connection, customer)]
    common.emit_table("sealpack/settle-held/v1", "files", report.HELD_COLUMNS, rows, fmt)
