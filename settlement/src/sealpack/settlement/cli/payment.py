"""`sealpack settle payment`, `apply`, `refund` and `write-off`: what happens to what is owed."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.receivables import Standing


def _emit(now: Standing, fmt: str) -> None:
    value = now.to_dict()
    text = f"{value['number']}  {now.state}, {value['open']} {value['currency']} open"
    support.emit({"schema": "sealpack/settle-payment/v1", "invoice": value}, text, fmt)


@click.command(short_help="Record a payment for an invoice.")
@click.argument("invoice")
@click.argument("amount")
@common.date_option
@click.option("--ref", "reference", required=True, help="Of the bank: tells payments apart.")
@common.by_option
@support.format_option
def payment(
    invoice: str, amount: str, day: datetime | None, reference: str, by: str | None, fmt: str
) -> None:
    """Record that AMOUNT was paid for INVOICE; more than is open on it stays on the customer's account."""
    with common.open_database() as database:
        from sealpack.settlement import receivables

        actor = common.actor(by)
        now = receivables.pay(database, invoice, amount, common.day_of(day), reference, actor=actor)
    _emit(now, fmt)


@click.command(short_help="Pay an invoice from what the customer has on account.")
@click.argument("invoice")
@click.argument("amount", required=False)
@common.date_option
@common.by_option
@support.format_option
def apply(invoice: str, amount: str | None, day: datetime | None, by: str | None, fmt: str) -> None:
    """Use AMOUNT of what the customer has on account for INVOICE, or as much as can be used."""
    with common.open_database() as database:
        from sealpack.settlement import receivables

        now = receivables.apply(database, invoice, amount, common.day_of(day), actor=common.actor(by))
    _emit(now, fmt)


@click.command(short_help="Pay back what a customer has on account.")
@click.argument("invoice")
@click.argument("amount", required=False)
@common.date_option
@click.option("--ref", "reference", required=True, help="Of the bank: tells refunds apart.")
@common.by_option
@support.format_option
def refund(
    invoice: str, amount: str | None, day: datetime | None, reference: str, by: str | None, fmt: str
) -> None:
    """Record that AMOUNT, or all that is on account, was paid back to the customer of INVOICE."""
    with common.open_database() as database:
        from sealpack.settlement import receivables

        actor = common.actor(by)
        paid = receivables.refund(database, invoice, amount, common.day_of(day), reference, actor=actor)
        with database.read() as connection:
            now = receivables.standing(connection, invoice)
    shown, currency, customer = now.text(paid), now.document.issued.currency, now.document.customer
    result = {
        "schema": "sealpack/settle-refund/v1", "customer": customer, "currency": currency, "refunded": shown,
    }  # fmt: skip
    support.emit(result, f"{shown} {currency} paid back to {customer}", fmt)


@click.command("write-off", short_help="Give up what is open on an invoice.")
@click.argument("invoice")
@click.option("--reason", required=True, help="For the audit trail.")
@common.date_option
@common.by_option
@support.format_option
def write_off(invoice: str, reason: str, day: datetime | None, by: str | None, fmt: str) -> None:
    """Write off what is open on INVOICE; parties get their share of what was paid, and no more."""
    with common.open_database() as database:
        from sealpack.settlement import receivables

        actor = common.actor(by)
        now = receivables.write_off(database, invoice, reason, common.day_of(day), actor=actor)
    _emit(now, fmt)
