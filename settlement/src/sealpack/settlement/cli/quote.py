"""`sealpack settle quote`: price a usage table under a plan, with the working of every line."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

_DAY = click.DateTime(formats=["%Y-%m-%d"])
_FILE = click.Path(path_type=Path)


@click.command("quote")
@click.option("--plan", "plan_path", type=_FILE, required=True, help="The price plan (YAML).")
@click.option("--usage", "usage_path", type=_FILE, required=True, help="The usage table (CSV).")
@click.option("--activated", type=_DAY, metavar="DATE", help="First day of the license.")
@click.option("--ended", type=_DAY, metavar="DATE", help="Last day of the license.")
@click.option(
    "--commitment-used",
    "used",
    multiple=True,
    metavar="[ID=]AMOUNT",
    help="List money that earlier periods drew from a committed spend.",
)
@click.option(
    "--commitment-carried",
    "carried",
    multiple=True,
    metavar="[ID=]AMOUNT",
    help="What rolled over from an earlier term, for a committed spend that does.",
)
@click.option(
    "--take-base",
    metavar="AMOUNT",
    help="What the license already accrued in the calendar year, for take tiers.",
)
@support.format_option
def quote(
    plan_path: Path,
    usage_path: Path,
    activated: date | None,
    ended: date | None,
    used: tuple[str, ...],
    carried: tuple[str, ...],
    take_base: str | None,
    fmt: str,
) -> None:
    """Say what a table of usage would cost under a plan, and why.

    One invoice per period from activation (else the first row) to the end (else the last row).
    Columns: time (RFC 3339, UTC), calls, tok_in, tok_out, ms, items, status.
    """
    support.require_extra("settlement", "yaml", "tzdata")
    from sealpack.settlement import quote as engine
    from sealpack.settlement.plan import load_plan
    from sealpack.settlement.usage_table import read_rows

    plan = load_plan(_read(plan_path), what=plan_path.name)
    spends = [item.id for item in plan.committed]
    rolling = [item.id for item in plan.committed if item.unused == "rollover"]
    terms = engine.Terms(
        activated=_day("--activated", activated),
        ended=_day("--ended", ended),
        commitment_used=_by_spend("--commitment-used", spends, used) if used else None,
        commitment_carried=_by_spend("--commitment-carried", rolling, carried),
        take_base=None if take_base is None else _amount("--take-base", take_base),
    )
    if terms.activated and terms.ended and terms.ended < terms.activated:
        raise SealpackError("USAGE", f"--ended {terms.ended} is before --activated")
    try:
        with usage_path.open(encoding="utf-8-sig", newline="") as stream:
            rows = read_rows(stream, what=usage_path.name)
            results = engine.quote(plan, rows, terms, what=usage_path.name)
    except OSError as error:
        raise _unreadable(usage_path, error) from None
    support.emit(engine.to_dict(plan, results), engine.to_text(plan, results), fmt)


def _read(path: Path) -> bytes:
    from sealpack.settlement.plan_yaml import MAX_BYTES

    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> SealpackError:
    if isinstance(error, FileNotFoundError):
        return SealpackError("FILE_MISSING", f"{path} does not exist")
    return SealpackError("IO_ERROR", f"{path}: {(error.strerror or 'unreadable').lower()}")


def _day(option: str, value: date | None) -> date | None:
    if value is None:
        return None
    from sealpack.settlement.periods import FIRST_YEAR, LAST_YEAR

    if not FIRST_YEAR < value.year < LAST_YEAR:
        raise SealpackError("USAGE", f"{option}: the year {value.year} cannot be billed")
    return date(value.year, value.month, value.day)


def _amount(option: str, text: str) -> Fraction:
    from sealpack.settlement.money import parse_decimal

    try:
        return parse_decimal(text)
    except ValueError as error:
        raise SealpackError("USAGE", f"{option}: {error}") from None


def _by_spend(option: str, known: list[str], given: tuple[str, ...]) -> dict[str, Fraction]:
    """`ID=AMOUNT`, or the amount alone for a plan with one committed spend that fits."""
    result: dict[str, Fraction] = {}
    for text in given:
        name, equals, amount = text.rpartition("=")
        if not equals and len(known) == 1:
            name = known[0]
        if name not in known or name in result:
            choices = ", ".join(known) or "none in this plan"
            raise SealpackError("USAGE", f"{option} {text!r} names no such committed spend once ({choices})")
        result[name] = _amount(option, amount)
    return result
