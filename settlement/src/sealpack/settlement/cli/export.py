"""`sealpack settle export`: issued documents and settled usage as other systems read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, io_error
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.exports.documents import Stored

F = TypeVar("F", bound=Callable[..., Any])
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@click.group(short_help="E-invoices, FOCUS, usage reports, Stripe.")
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
    if period is not None and not _MONTH.fullmatch(period):
        raise SealpackError("USAGE", f"period {period!r} is not like 2026-11")


def _write(out: str, files: dict[str, bytes], refused: dict[str, str], fmt: str) -> int:
    """Leave files in a folder; exit status 5 when something was refused."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io_error(error, folder, "write") from None
    for name, data in files.items():
        atomic_write(folder / name, data)
    lines = [str(folder / name) for name in files]
    lines += [f"refused  {name}: {reason}" for name, reason in refused.items()]
    result = {
        "schema": "sealpack/settle-export/v1",
        "files": sorted(files),
        "refused": [{"document": name, "reason": reason} for name, reason in refused.items()],
    }
    support.emit(result, "\n".join(lines) or "nothing to export", fmt)
    return 5 if refused else 0


@export.command(short_help="EN 16931 e-invoices (UBL 2.1).")
@_which
def ubl(numbers: tuple[str, ...], period: str | None, customer: str | None, out: str, fmt: str) -> int:
    """Write NUMBERS, or all of a month, as EN 16931 electronic invoices in UBL 2.1, one XML file each.

    A document that EN 16931 cannot express is refused with the rule; exit status 5.
    """
    found = _load(numbers, period, customer)
    from sealpack.settlement.exports import ubl as writer

    files: dict[str, bytes] = {}
    refused: dict[str, str] = {}
    for document in found:
        try:
            files[f"{document.name}.xml"] = writer.to_xml(document.value)
        except SealpackError as error:
            refused[document.name] = f"{error.message}; {error.remedy}"
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
    """Print what was used in a month, in base units, from the roll-ups that invoices are made from."""
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
