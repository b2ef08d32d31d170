"""What the settlement verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.format.files import atomic_write, io_error
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.ack import Signers
    from sealpack.settlement.audit import Actor
    from sealpack.settlement.db import Database
    from sealpack.settlement.issuing import Printed
    from sealpack.settlement.outcomes import Outcome

F = TypeVar("F", bound=Callable[..., Any])


def open_database() -> Database:
    """The database named by `settle --db`."""
    support.require_extra("settlement", "sqlalchemy", "yaml", "tzdata")
    from sealpack.settlement.db import Database

    return Database.open(address())


def address() -> str:
    """What `settle --db` says: a file, or the address of a database on a server."""
    said: str = click.get_current_context().meta["sealpack.settlement.db"]
    return said


def signer_options(*, required: bool) -> Callable[[F], F]:
    """`--key`, `--witness` and `--passphrase-file`."""
    file = click.Path(dir_okay=False)

    def add(command: F) -> F:
        for option in (
            support.passphrase_option,
            click.option("--witness", type=file, help="Witness key (Ed25519) that cosigns checkpoints."),
            click.option("--key", type=file, required=required, help="Settlement key (Ed25519, role ack)."),
        ):
            command = option(command)
        return command

    return add


def signers(key: str, witness: str | None, passphrase_file: str | None) -> Signers:
    """The keys of a command line."""
    from sealpack.format.keys import PrivateKey
    from sealpack.settlement.ack import Signers

    secret = support.passphrase(passphrase_file, prompt="Passphrase", required=False)
    return Signers(PrivateKey.load(key, secret), PrivateKey.load(witness, secret) if witness else None)


def exit_status(outcomes: Iterable[Outcome]) -> int:
    """0 when everything was accepted, 5 when something was held or refused."""
    return 0 if all(o.is_accepted for o in outcomes) else 5


by_option = click.option("--by", metavar="NAME", help="Who does this, for the audit trail [default: login].")


def actor(by: str | None) -> Actor:
    """Who does something now."""
    from sealpack.settlement.audit import Actor

    return Actor(by or getuser(), support.now())


def day_option(name: str, param: str, text: str) -> Callable[[F], F]:
    """An optional day, passed as `param`."""
    return click.option(
        name, param, type=click.DateTime(formats=["%Y-%m-%d"]), metavar="YYYY-MM-DD", help=text
    )


date_option = day_option("--date", "day", "The day it counts for [default: today].")
out_option = click.option(
    "--out", type=click.Path(file_okay=False), default=".", help="Folder [default: here]."
)


def day_of(value: datetime | None) -> date:
    """A day of the command line, today where none was given."""
    return value.date() if value else datetime.fromtimestamp(support.now(), UTC).date()


def write_files(folder: Path, printed: Iterable[Printed]) -> None:
    """Leave documents in a folder, which is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io_error(error, folder, "write") from None
    for one in printed:
        for name, data in one.files.items():
            atomic_write(folder / name, data)


def emit_table(
    schema: str, member: str, columns: Sequence[str], rows: Sequence[Sequence[str]], fmt: str, **more: object
) -> None:
    """Print a table as text, as CSV, or as JSON objects whose members are the columns."""
    from sealpack.settlement import reports

    if fmt == "csv":
        click.echo(reports.as_csv(columns, rows), nl=False)
        return
    names = [column.replace(" ", "_").replace("-", "_") for column in columns]
    items = [dict(zip(names, row, strict=True)) for row in rows]
    text = reports.as_text(columns, rows) if rows else "nothing"
    support.emit({"schema": schema, **more, member: items}, text, fmt)
