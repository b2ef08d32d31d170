"""`sealpack settle payouts`: what parties earned, and what can be paid out to them."""

from __future__ import annotations

from datetime import datetime

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

COLUMNS = ("party", "issuer", "currency", "earned", "released", "paid", "due")


@click.command(short_help="What parties are due of what customers paid.")
@click.option("--pay", is_flag=True, help="Record that all that is due was paid out.")
@click.option("--party", help="Only this party.")
@click.option("--minimum", metavar="AMOUNT", help="With --pay: less than this waits for the next time.")
@common.date_option
@click.option("--ref", "reference", help="With --pay: of the bank.")
@common.by_option
@support.formats("text", "json", "csv")
def payouts(
    pay: bool, party: str | None, minimum: str | None, day: datetime | None, reference: str | None,
    by: str | None, fmt: str,
) -> None:  # fmt: skip
    """Print what each party earned, what of it customers have paid for, and what is due.

    With --pay the payouts are booked, and printed as they stood before.
    """
    if pay != bool(reference) or (minimum and not pay):
        raise SealpackError("USAGE", "--pay and --ref go together, --minimum goes with them")
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
