"""`sealpack settle reconcile`: do the tables say what the evidence proves?"""

from __future__ import annotations

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Check every log and roll-up against the stored evidence.")
@support.format_option
def reconcile(fmt: str) -> int:
    """Rebuild every log from the stored files and compare; list what waits and who is silent.

    Exit status 3 when tables and evidence differ.
    """
    with common.open_database() as database:
        from sealpack.settlement.reconcile import reconcile as engine

        found = engine(database, support.now())
    lines = [f"{found.logs} logs, {found.receipts} receipts: " + ("all agree" if found.ok else "DIFFERENCES")]
    lines += [f"problem  {text}" for text in found.problems]
    lines += [f"waiting  {text}" for text in found.waiting]
    lines += [f"silent   {text}" for text in found.silent]
    support.emit(found.to_dict(), "\n".join(lines), fmt)
    return 0 if found.ok else 3
