"""`sealpack settle invoice`: bill a period."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

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
@click.option("--approved", is_flag=True, help="Only what was approved, and is still what was approved.")
@common.out_option
@common.forms_options
@common.by_option
@support.format_option
def invoice(
    period: str, license_id: str | None, customer: str | None, issued: datetime | None, draft: bool,
    approved: bool, out: str, forms: common.Forms, by: str | None, fmt: str,
) -> int:  # fmt: skip
    """Issue one invoice per license for a month, as JSON, CSV and HTML files, with --pdf as PDF too.

    With --approved those alone that `settle approve` approved; a seller file with `"approval": true` makes it
    so always. An invoice that was issued before is written again as it was, byte for byte. Exit status 5
    when a license could not be billed, for instance because its plan is unknown.
    """
    month, now = common.month_of(period), support.now()
    today = datetime.fromtimestamp(now, UTC).date()
    with common.open_database() as database:
        from sealpack.settlement import billing

        forms.check(database)
        day = common.day_of(issued)
        actor = common.actor(by)
        skipped: dict[str, str] = {}
        if license_id:
            one = billing.bill(database, license_id, month, day, draft=draft, approved=approved, actor=actor)
            printed = [one]
        else:
            printed, skipped = billing.bill_all(
                database, month, day, customer=customer, draft=draft, approved=approved, actor=actor
            )
        below = {p.name: billing.used_below(database, p.license_id, month) for p in printed}
    if not draft and (today.year, today.month) <= (month.year, month.month):
        support.note(f"{period} is not over: usage that comes later needs `sealpack settle correct`")
    written = common.write_documents(Path(out), printed, forms)
    lines = []
    for p in printed:
        lines.append(f"{p.name}  {p.license_id}" + ("" if p.fresh else " (issued before)"))
        lines += [f"  {name}: {_amounts(used)}" for name, used in below[p.name].items()]
    lines += [f"skipped  {name}: {reason}" for name, reason in skipped.items()] + written.lines
    result = {
        "schema": "sealpack/settle-invoice/v1",
        "invoices": [
            {
                "number": p.name,
                "license": p.license_id,
                "fresh": p.fresh,
                "files": written.files[p.name],
                **({"sublicenses": below[p.name]} if below[p.name] else {}),
            }
            for p in printed
        ],
        "skipped": [{"license": name, "reason": reason} for name, reason in skipped.items()],
        **written.result,
    }
    support.emit(result, "\n".join(lines) or "nothing to bill", fmt)
    return 5 if skipped or written.refused else 0


def _amounts(used: dict[str, int]) -> str:
    return ", ".join(f"{amount:,} {meter}" for meter, amount in used.items()) or "nothing used"
