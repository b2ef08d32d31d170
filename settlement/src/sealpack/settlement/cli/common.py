"""What the settlement verbs share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, io_error
from sealpack.settlement.periods import FIRST_YEAR, LAST_YEAR
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.keys import PrivateKey
    from sealpack.settlement.ack import Signers
    from sealpack.settlement.audit import Actor
    from sealpack.settlement.db import Database
    from sealpack.settlement.issuing import Printed
    from sealpack.settlement.outcomes import Outcome
    from sealpack.settlement.statements.files import Statement

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
    """A day of the command line, today where none was given; USAGE for one that no period has."""
    if value and not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise SealpackError(
            "USAGE", f"{value:%Y-%m-%d} is not a day of the years {FIRST_YEAR} to {LAST_YEAR}"
        )
    return value.date() if value else datetime.fromtimestamp(support.now(), UTC).date()


def month_of(text: str) -> date:
    """The first day of a month such as 2026-11; USAGE."""
    try:
        month = date.fromisoformat(f"{text}-01")
    except ValueError:
        month = date.min
    if not FIRST_YEAR <= month.year <= LAST_YEAR:
        raise SealpackError("USAGE", f"period {text!r} is not like 2026-11")
    return month


@dataclass(frozen=True, slots=True)
class Forms:
    """Which forms of a document are written beside JSON, CSV and HTML."""

    pdf: bool = False
    fonts: tuple[Path, ...] = ()
    key: PrivateKey | None = None

    def check(self, database: Database) -> None:
        """Told before anything is issued: EXTRA_MISSING, SIG_KEY_UNKNOWN, SIG_KEY_ROLE."""
        if self.pdf:
            from sealpack.settlement import pdf

            pdf.require()
        if self.key is not None:
            from sealpack.settlement import signing

            with database.read() as connection:
                signing.check(connection, self.key)

    def of(self, name: str, json: bytes, *, draft: bool = False) -> dict[str, bytes]:
        """File names with their bytes. Nobody signs a draft."""
        files = {}
        if self.pdf:
            from sealpack.settlement import pdf

            files[f"{name}.pdf"] = pdf.to_pdf(json, self.fonts)
        if self.key is not None and not draft:
            from sealpack.settlement import signing

            files[f"{name}.signed.json"] = signing.sign(json, self.key)
        return files


def forms_options(command: F) -> F:
    """`--pdf`, `--font`, `--key` and `--passphrase-file`, passed as `forms`."""

    @functools.wraps(command)
    def run(
        *args: Any, pdf: bool, fonts: tuple[str, ...], sign_key: str | None, passphrase_file: str | None,
        **options: Any,
    ) -> Any:  # fmt: skip
        return command(*args, forms=forms(pdf, fonts, sign_key, passphrase_file), **options)

    file = click.Path(dir_okay=False)
    for option in (
        support.passphrase_option,
        click.option("--key", "sign_key", type=file, help="Sign the JSON too (Ed25519, role settlement)."),
        font_option,
        click.option("--pdf", is_flag=True, help="Write a PDF too."),
    ):
        run = option(run)
    return run  # type: ignore[return-value]


def forms(pdf: bool, fonts: Sequence[str], key: str | None, passphrase_file: str | None) -> Forms:
    """The forms that a command line asks for."""
    from sealpack.format.keys import PrivateKey

    signer = None
    if key is not None:
        secret = support.passphrase(passphrase_file, prompt="Passphrase", required=False)
        signer = PrivateKey.load(key, secret)
    return Forms(pdf, tuple(Path(font) for font in fonts), signer)


font_option = click.option(
    "--font", "fonts", multiple=True, type=click.Path(dir_okay=False), metavar="FILE",
    help="For PDF: a font for letters that the usual ones lack; may be repeated.",
)  # fmt: skip


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Leave files in a folder, which is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise io_error(error, folder, "write") from None
    for name, data in files.items():
        atomic_write(folder / name, data)


@dataclass(frozen=True, slots=True)
class Written:
    """What was left in a folder: the files of each document, and further forms that were refused."""

    files: dict[str, list[str]]
    refused: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """The refusals for people."""
        return [f"refused  {name}: {reason}" for name, reason in self.refused.items()]

    @property
    def result(self) -> dict[str, Any]:
        """The refusals for JSON; nothing where there are none."""
        found = [{"document": name, "reason": reason} for name, reason in self.refused.items()]
        return {"refused": found} if found else {}


def write_documents(folder: Path, printed: Iterable[Printed], forms: Forms) -> Written:
    """Leave documents in a folder, in all forms; one that cannot be printed keeps nothing else back."""
    written = Written({}, {})
    for one in printed:
        files = dict(one.files)
        try:
            files |= forms.of(one.name, one.json, draft=one.name.startswith("draft-"))
        except SealpackError as error:
            if error.code != "EXPORT_REFUSED":
                raise
            written.refused[one.name] = f"{error.message}; {error.remedy}"
        write_files(folder, files)
        written.files[one.name] = sorted(files)
    return written


def write_statements(folder: Path, made: Sequence[Statement], forms: Forms, fmt: str) -> None:
    """Leave statements in a folder and print their names."""
    if fmt == "csv":
        raise SealpackError("USAGE", "the CSV of a statement is one of its files: give --format text or json")
    files = {name: data for one in made for name, data in (one.files | forms.of(one.name, one.json)).items()}
    write_files(folder, files)
    result = {
        "schema": "sealpack/settle-statements/v1", "statements": [one.name for one in made],
        "files": sorted(files),
    }  # fmt: skip
    support.emit(result, "\n".join(str(folder / name) for name in files), fmt)


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
