"""`sealpack settle cases` and `case`: what waits for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.cases import Case


@click.command(short_help="List held files that wait for a person or another file.")
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@support.format_option
def cases(everything: bool, fmt: str) -> None:
    """List cases with their numbers, in a clerk's words."""
    with common.open_database() as database:
        from sealpack.settlement import cases as engine

        found = [case for case in engine.cases(database) if everything or case.state == "open"]
    lines = [
        f"{c.number}  {c.code}  {c.state}  {c.file}: {c.to_dict()['meaning']} ({c.detail})" for c in found
    ]
    result = {"schema": "sealpack/settle-cases/v1", "cases": [case.to_dict() for case in found]}
    support.emit(result, "\n".join(lines) or "nothing waits", fmt)


@click.group(short_help="Show or decide one case.")
def case() -> None:
    """One held file and what can be decided about it."""


@case.command(short_help="Show a case.")
@click.argument("number", type=int)
@support.format_option
def show(number: int, fmt: str) -> None:
    """Print everything known about case NUMBER, signed checkpoints that prove a fork included."""
    with common.open_database() as database:
        from sealpack.settlement import cases as engine

        found = engine.find(database, number)
    support.emit(found.to_dict() | {"schema": "sealpack/settle-case/v1"}, _text(found), fmt)


@case.command(short_help="Accept or refuse what is held.")
@click.argument("number", type=int)
@click.option("--accept", is_flag=True, help="Take the file in spite of it; its usage is billed.")
@click.option("--refuse", is_flag=True, help="Leave the file out; it is not looked at again.")
@click.option("--reason", required=True, help="For the audit trail.")
@click.option(
    "--used",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DAY",
    help="Of a gap that is closed: when what is missing was used, if the site knows.",
)
@common.by_option
@support.format_option
def decide(
    number: int, accept: bool, refuse: bool, reason: str, used: datetime | None, by: str | None, fmt: str
) -> None:
    """Decide case NUMBER. What was refused can be accepted later; what was taken is never taken back.

    To accept an H201 closes the gap: what is missing is billed as the difference of the registers, by default
    on the day of the first receipt after it. If the missing file comes after all, it takes its place.
    """
    if accept == refuse:
        raise SealpackError("USAGE", "give --accept or --refuse")
    with common.open_database() as database:
        from sealpack.settlement import cases as engine

        verdict = engine.ACCEPT if accept else engine.REFUSE
        noon = None if used is None else int(used.replace(hour=12, tzinfo=UTC).timestamp()) * 1000
        found, freed = engine.decide(database, number, verdict, reason, used_ms=noon, actor=common.actor(by))
    result = {
        "schema": "sealpack/settle-case/v1", **found.to_dict(),
        "outcomes": [outcome.to_dict() for outcome in freed],
    }  # fmt: skip
    support.emit(result, "\n".join([_text(found), *(outcome.to_text() for outcome in freed)]), fmt)


def _text(case: Case) -> str:
    """Label and value, a line each."""
    lines = []
    for name, value in case.to_dict().items():
        shown = ", ".join(value) or "nothing" if isinstance(value, list) else value
        if name.endswith("_at"):
            shown = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M}" if value is not None else "-"
        lines.append(f"{name.replace('_', ' '):<11} {shown}")
    return "\n".join(lines)
