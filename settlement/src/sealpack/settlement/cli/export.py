"""`sealpack settle export`: issued documents and settled usage as other systems read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.exports.documents import Stored
    from sealpack.settlement.exports.stripe import Names

F = TypeVar("F", bound=Callable[..., Any])
_MAX_MAP = 1 << 24
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@click.group(short_help="PDF, signed JSON, e-invoices, FOCUS, usage, Stripe.")
def export() -> None:
    """Write issued documents and settled usage in the forms that other systems read."""


def _which(command: F) -> F:
    """Arguments that name documents, and the folder to write to."""
    for option in (
        support.format_option,
        common.out_option,
        click.option("--customer", help="With --period: only this customer (id)."),
        click.option("--period", metavar="YYYY-MM", help="Instead of numbers: all of a month."),
        click.argument("numbers", nargs=-1),
    ):
        command = option(command)
    return command


def _load(numbers: tuple[str, ...], period: str | None, customer: str | None) -> list[Stored]:
    if bool(numbers) == (period is not None) or (numbers and customer):
        raise SealpackError("USAGE", "give numbers of invoices, or --period YYYY-MM and perhaps --customer")
    _check_month(period)
    with common.open_database() as database:
        from sealpack.settlement.exports import documents

        with database.read() as connection:
            return documents.load(connection, numbers, month=period or "", customer=customer)


def _check_month(period: str | None) -> None:
    if period is not None and _MONTH.fullmatch(period):
        common.month_of(period)
    elif period is not None:
        raise SealpackError("USAGE", f"period {period!r} is not like 2026-11")


def _write(out: str, files: dict[str, bytes], refused: dict[str, str], fmt: str) -> int:
    """Leave files in a folder; exit status 5 when something was refused."""
    folder = Path(out)
    common.write_files(folder, files)
    lines = [str(folder / name) for name in files]
    lines += [f"refused  {name}: {reason}" for name, reason in refused.items()]
    result = {
        "schema": "sealpack/settle-export/v1",
        "files": sorted(files),
        "refused": [{"document": name, "reason": reason} for name, reason in refused.items()],
    }
    support.emit(result, "\n".join(lines) or "nothing to export", fmt)
    return 5 if refused else 0


@export.command(short_help="Documents as PDF.")
@common.font_option
@_which
def pdf(
    numbers: tuple[str, ...], period: str | None, customer: str | None, fonts: tuple[str, ...], out: str,
    fmt: str,
) -> int:  # fmt: skip
    """Write NUMBERS, or all of a month, as PDF, one file each: the same bytes every time.

    A document with letters that no font here draws is refused; --font gives one that does. Exit status 5.
    """
    from sealpack.settlement import pdf as writer

    writer.require()
    found = _load(numbers, period, customer)
    chosen = tuple(Path(font) for font in fonts)
    files, refused = _each(found, lambda one: {f"{one.name}.pdf": writer.to_pdf(one.data, chosen)})
    return _write(out, files, refused, fmt)


@export.command(short_help="Documents signed by settlement's key.")
@click.option(
    "--key", type=click.Path(dir_okay=False), required=True, help="Settlement key (Ed25519, role settlement)."
)
@support.passphrase_option
@_which
def signed(
    numbers: tuple[str, ...], period: str | None, customer: str | None, key: str,
    passphrase_file: str | None, out: str, fmt: str,
) -> int:  # fmt: skip
    """Write NUMBERS, or all of a month, as signed JSON, one envelope each around the document's bytes.

    Whoever has the vendor's trust file checks one with `sealpack verify --trust trust.json FILE`.
    """
    forms = common.forms(False, (), key, passphrase_file)
    with common.open_database() as database:
        forms.check(database)
    files, refused = _each(_load(numbers, period, customer), lambda one: forms.of(one.name, one.data))
    return _write(out, files, refused, fmt)


def _each(
    found: list[Stored], make: Callable[[Stored], dict[str, bytes]]
) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files of every document, and why those have none that were refused."""
    files: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    for document in found:
        try:
            files |= make(document)
        except SealpackError as error:
            if error.code != "EXPORT_REFUSED":
                raise
            refused[document.name] = f"{error.message}; {error.remedy}"
    return files, refused


@export.command(short_help="EN 16931 e-invoices (UBL 2.1).")
@_which
def ubl(numbers: tuple[str, ...], period: str | None, customer: str | None, out: str, fmt: str) -> int:
    """Write NUMBERS, or all of a month, as EN 16931 electronic invoices in UBL 2.1, one XML file each.

    A document that EN 16931 cannot express is refused with the rule; exit status 5.
    """
    found = _load(numbers, period, customer)
    from sealpack.settlement.exports import ubl as writer

    files, refused = _each(found, lambda one: {f"{one.name}.xml": writer.to_xml(one.value)})
    return _write(out, files, refused, fmt)


@export.command(short_help="FOCUS 1.0 cost and usage (CSV).")
@_which
def focus(numbers: tuple[str, ...], period: str | None, customer: str | None, out: str, fmt: str) -> int:
    """Write the lines of NUMBERS, or of all documents of a month, as one FOCUS 1.0 dataset, focus.csv."""
    found = _load(numbers, period, customer)
    with common.open_database() as database:
        from sealpack.settlement.exports import focus as writer

        with database.read() as connection:
            data = writer.to_csv(connection, found)
    return _write(out, {"focus.csv": data} if found else {}, {}, fmt)


@export.command(short_help="Settled usage by day, license, device, model.")
@click.option("--period", required=True, metavar="YYYY-MM", help="The month.")
@click.option("--customer", help="Only this customer (id).")
@click.option(
    "--by", default="day,customer,license,device,model,status,billed", show_default=True,
    help="What to tell apart; the rest is summed.",
)  # fmt: skip
@support.formats("text", "json", "csv")
def usage(period: str, customer: str | None, by: str, fmt: str) -> None:
    """Print what was used in a month, in base units, from the roll-ups that invoices are made from.

    --by may name cost_centre, too: then the stored receipts of the month are read, which takes longer.
    """
    _check_month(period)
    first = date.fromisoformat(f"{period}-01")
    with common.open_database() as database:
        from sealpack.settlement.exports import usage as writer

        names = by.split(",")
        if unknown := [name for name in names if name not in writer.KEYS]:
            raise SealpackError("USAGE", f"--by {unknown[0]!r} is none of {', '.join(writer.KEYS)}")
        last = date(first.year + first.month // 12, first.month % 12 + 1, 1) - timedelta(days=1)
        with database.read() as connection:
            found = writer.report(connection, first, last, by=names, customer=customer)
    common.emit_table("sealpack/settle-usage/v1", "usage", found.columns, found.rows, fmt)


_map_option = click.option(
    "--map", "map_file", type=click.Path(dir_okay=False), required=True,
    help="What Stripe calls customers and accounts (JSON).",
)  # fmt: skip


def _names(map_file: str) -> Names:
    from sealpack.settlement.exports import stripe

    return stripe.Names.read(read_bounded(map_file, _MAX_MAP), map_file)


@export.command("stripe-items", short_help="Stripe invoice items (NDJSON).")
@_map_option
@_which
def stripe_items(
    numbers: tuple[str, ...], period: str | None, customer: str | None, map_file: str, out: str, fmt: str
) -> int:
    """Write NUMBERS, or all of a month, as parameters of Stripe invoice items, invoice_items.ndjson.

    A document with an amount that Stripe cannot express is refused as a whole; exit status 5.
    """
    found, names = _load(numbers, period, customer), _names(map_file)
    from sealpack.settlement.exports import stripe

    items: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for document in found:
        try:
            items += stripe.invoice_items(document, names)
        except SealpackError as error:
            refused[document.name] = f"{error.message}; {error.remedy}"
    return _write(out, {"invoice_items.ndjson": stripe.ndjson(items)} if items else {}, refused, fmt)


@export.command("stripe-events", short_help="Stripe meter events of the last 35 days.")
@_map_option
@click.option("--period", required=True, metavar="YYYY-MM", help="The month.")
@common.out_option
@support.format_option
def stripe_events(map_file: str, period: str, out: str, fmt: str) -> int:
    """Write the billable usage of a month as Stripe meter events, meter_events.ndjson.

    Stripe takes none of 35 days or more ago: a license with such usage is refused as a whole, and is billed
    by invoice items. Exit status 5.
    """
    _check_month(period)
    names, now = _names(map_file), support.now()
    items: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    with common.open_database() as database:
        from sealpack.settlement import billing
        from sealpack.settlement.exports import stripe

        month = date.fromisoformat(f"{period}-01")
        with database.read() as connection:
            for license, plan, span in billing.running(connection, month):
                try:
                    events, left = stripe.meter_events(connection, license, plan, span, names, now)
                except SealpackError as error:
                    refused[license.license_id] = f"{error.message}; {error.remedy}"
                    continue
                if left:
                    total = left + len(events)
                    refused[license.license_id] = f"{left} of {total} events are not of the last 35 days"
                else:
                    items += events
    return _write(out, {"meter_events.ndjson": stripe.ndjson(items)} if items else {}, refused, fmt)


@export.command("stripe-transfers", short_help="Stripe Connect transfers of what parties are due.")
@_map_option
@common.out_option
@support.format_option
def stripe_transfers(map_file: str, out: str, fmt: str) -> int:
    """Write what parties are due now as Stripe Connect transfers, transfers.ndjson.

    Book them with `settle payouts --pay` when they were made. Exit status 5 when a party's is refused.
    """
    names = _names(map_file)
    items: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    with common.open_database() as database:
        from sealpack.settlement import payouts
        from sealpack.settlement.exports import stripe

        with database.read() as connection:
            due = payouts.payouts(connection)
    for payout in due:
        try:
            made = stripe.transfer(payout, names)
        except SealpackError as error:
            refused[f"{payout.party} {payout.currency}"] = f"{error.message}; {error.remedy}"
            continue
        items += [made] if made else []
    return _write(out, {"transfers.ndjson": stripe.ndjson(items)} if items else {}, refused, fmt)
