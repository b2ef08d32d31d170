"""`sealpack settle correct`: bill what came after its month was invoiced."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Issue what invoiced months rate to beyond, or below, their invoices.")
@click.option("--license", "license_id", help="Only this license.")
@click.option("--customer", help="Only this customer (id).")
@common.date_option
@click.option("--draft", is_flag=True, help="Print without numbers, and store nothing.")
@common.out_option
@common.forms_options
@common.by_option
@support.format_option
def correct(
    license_id: str | None, customer: str | None, day: datetime | None, draft: bool, out: str,
    forms: common.Forms, by: str | None, fmt: str,
) -> int:  # fmt: skip
    """Rate every invoiced month again from what is settled now; issue the differences.

    More is a further invoice ("late usage for ..."), less a credit note; what was issued never changes.
    Exit status 5 when a license could not be rated again.
    """
    with common.open_database() as database:
        from sealpack.settlement import corrections

        forms.check(database)
        issued, actor = common.day_of(day), common.actor(by)
        skipped: dict[str, str] = {}
        if license_id:
            printed = corrections.correct(database, license_id, issued, draft=draft, actor=actor)
        else:
            printed, skipped = corrections.correct_all(
                database, issued, customer=customer, draft=draft, actor=actor
            )
    written = common.write_documents(Path(out), printed, forms)
    lines = [f"{p.name}  {p.license_id}" for p in printed]
    lines += [f"skipped  {name}: {reason}" for name, reason in skipped.items()] + written.lines
    result = {
        "schema": "sealpack/settle-correct/v1",
        "documents": [
            {"number": p.name, "license": p.license_id, "files": written.files[p.name]} for p in printed
        ],
        "skipped": [{"license": name, "reason": reason} for name, reason in skipped.items()],
        **written.result,
    }
    support.emit(result, "\n".join(lines) or "nothing to correct", fmt)
    return 5 if skipped or written.refused else 0
