"""`sealpack settle credit`: a goodwill credit note."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Credit an invoice, in part or whole.")
@click.argument("invoice")
@click.argument("amount", required=False)
@click.option("--reason", required=True, help="Printed on the credit note.")
@common.date_option
@common.out_option
@common.forms_options
@common.by_option
@support.format_option
def credit(
    invoice: str, amount: str | None, reason: str, day: datetime | None, out: str, forms: common.Forms,
    by: str | None, fmt: str,
) -> int:  # fmt: skip
    """Issue a credit note of AMOUNT before tax for INVOICE, or of all that is left of it.

    It lowers what is open on the invoice; what was paid already the customer has on account.
    """
    with common.open_database() as database:
        from sealpack.settlement import receivables

        forms.check(database)
        made = receivables.credit(
            database, invoice, amount, reason, common.day_of(day), actor=common.actor(by)
        )
        with database.read() as connection:
            now = receivables.standing(connection, invoice)
    written = common.write_documents(Path(out), [made], forms)
    result = {
        "schema": "sealpack/settle-credit/v1", "number": made.name, "files": written.files[made.name],
        "invoice": now.to_dict(), **written.result,
    }  # fmt: skip
    lines = [f"{made.name}  credits {invoice}, which is {now.state}", *written.lines]
    support.emit(result, "\n".join(lines), fmt)
    return 5 if written.refused else 0
