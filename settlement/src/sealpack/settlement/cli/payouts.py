"""`sealpack settle payouts`: what parties earned, what can be paid out to them, and their statements."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

COLUMNS = ("party", "issuer", "currency", "earned", "released", "paid", "due")


@click.command(short_help="What parties are due of what customers paid; their statements.")
@click.option("--pay", is_flag=True, help="Record that all that is due was paid out.")
@click.option("--party", help="Only this party.")
@click.option("--minimum", metavar="AMOUNT", help="With --pay: less than this waits for the next time.")
@common.date_option
@click.option("--ref", "reference", help="With --pay: of the bank. With --statement: of the payout.")
@click.option("--statement", metavar="PARTY", help="Write the statement of a party instead.")
@common.day_option("--from", "first", "With --statement: first day.")
@common.day_option("--to", "last", "With --statement: last day.")
@common.out_option
@common.forms_options
@common.by_option
@support.formats("text", "json", "csv")
def payouts(
    pay: bool, party: str | None, minimum: str | None, day: datetime | None, reference: str | None,
    statement: str | None, first: datetime | None, last: datetime | None, out: str, forms: common.Forms,
    by: str | None, fmt: str,
) -> None:  # fmt: skip
    """Print what each party earned, what of it customers have paid for, and what is due.

    With --pay the payouts are booked, and printed as they stood before.

    With --statement what PARTY earned, what was released and paid out, and what is carried forward is
    written as JSON, CSV and HTML: of the payout that --ref names, of the days --from to --to, or of all that
    happened since the last payout.
    """
    if statement is not None:
        if pay or party or minimum or day or (reference and (first or last)):
            raise SealpackError("USAGE", "--statement goes with --ref, or with --from and --to")
        _statement(statement, reference, first, last, out, forms, fmt)
        return
    if pay != bool(reference) or (minimum and not pay):
        raise SealpackError("USAGE", "--pay and --ref go together, --minimum goes with them")
    if first or last or forms != common.Forms():
        raise SealpackError("USAGE", "--from, --to, --pdf and --key go with --statement")
    with common.open_database() as database:
        from sealpack.settlement import payouts as engine

        if pay and reference:
            made = engine.pay_out(
                database, common.day_of(day), reference, party=party, minimum=minimum, actor=common.actor(by)
            )
        else:
            with database.read() as connection:
                made = [one for one in engine.payouts(connection) if party in (None, one.party)]
    rows = [[one.to_dict()[column] for column in COLUMNS] for one in made]
    common.emit_table("sealpack/settle-payouts/v1", "payouts", COLUMNS, rows, fmt, booked=pay)


def _statement(
    party: str, reference: str | None, first: datetime | None, last: datetime | None, out: str,
    forms: common.Forms, fmt: str,
) -> None:  # fmt: skip
    with common.open_database() as database:
        from sealpack.settlement.statements import payout

        forms.check(database)
        with database.read() as connection:
            if reference is not None:
                made = payout.of_payout(connection, party, reference)
            elif first or last:
                made = payout.of_days(connection, party, first and first.date(), common.day_of(last))
            else:
                made = payout.since_last(connection, party, common.day_of(None))
    common.write_statements(Path(out), made, forms, fmt)
