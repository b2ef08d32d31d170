"""`sealpack settle invoice`: bill a period."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Issue the invoices of a period.")
@click.option("--period", required=True, metavar="YYYY-MM", help="The month to bill.")
@click.option("--license", "license_id", help="Only this license.")
@click.option("--customer", help="Only this customer (id).")
@click.option(
    "--date", "issued", type=click.DateTime(formats=["%Y-%m-%d"]), help="Invoice date [default: today]."
)
@click.option("--draft", is_flag=True, help="Print without a number, and store nothing.")
@click.option("--out", type=click.Path(file_okay=False), default=".", help="Folder [default: here].")
@support.format_option
def invoice(
    period: str, license_id: str | None, customer: str | None, issued: datetime | None, draft: bool,
    out: str, fmt: str,
) -> None:  # fmt: skip
    """Issue one invoice per license for a month, as JSON, CSV and HTML files.

    An invoice that was issued before is written again as it was, byte for byte.
    """
    try:
        month = date.fromisoformat(f"{period}-01")
    except ValueError:
        raise SealpackError("USAGE", f"period {period!r} is not like 2026-11") from None
    day = issued.date() if issued else date.fromtimestamp(support.now())
    with common.open_database() as database:
        from sealpack.settlement import billing

        with database.read() as connection:
            ids = [license_id] if license_id else billing.billable(connection, customer)
        printed = [billing.bill(database, name, month, day, draft=draft) for name in ids]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for one in printed:
        for name, data in one.files.items():
            atomic_write(folder / name, data)
    lines = [f"{p.name}  {p.license_id}" + ("" if p.fresh else " (issued before)") for p in printed]
    result = {
        "schema": "sealpack/settle-invoice/v1",
        "invoices": [
            {"number": p.name, "license": p.license_id, "fresh": p.fresh, "files": sorted(p.files)}
            for p in printed
        ],
    }
    support.emit(result, "\n".join(lines) or "nothing to bill", fmt)
