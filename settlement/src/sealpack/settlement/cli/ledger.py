"""`sealpack settle ledger`: the trial balance, and the books as beancount text."""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

COLUMNS = ("issuer", "currency", "account", "party", "balance")


@click.command(short_help="Trial balance; export as beancount.")
@click.option("--beancount", type=click.Path(dir_okay=False), help="Write every transaction to this file.")
@support.formats("text", "json", "csv")
def ledger(beancount: str | None, fmt: str) -> None:
    """Print the balance of every account: debits above zero, credits below, in all zero."""
    with common.open_database() as database:
        from sealpack.settlement import beancount as exporter, ledger as engine, money

        with database.read() as connection:
            unbalanced = engine.unbalanced(connection)
            balances = engine.trial_balance(connection)
            text = exporter.text(engine.transactions(connection)) if beancount else ""
    if unbalanced:
        raise SealpackError("AUDIT_BROKEN", f"{unbalanced[0]} does not balance")
    if beancount:
        atomic_write(Path(beancount), text.encode())
    rows = [
        [issuer, currency, account, party, money.amount_text(amount, money.exponent(currency))]
        for (issuer, currency), accounts in balances.items()
        for (account, party), amount in accounts.items()
    ]
    common.emit_table("sealpack/settle-ledger/v1", "accounts", COLUMNS, rows, fmt)
