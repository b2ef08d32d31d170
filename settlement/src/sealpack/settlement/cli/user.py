"""`sealpack settle user`: who may log in to the console."""

from __future__ import annotations

import sys
from typing import Any

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

ROLES = ("finance", "admin", "auditor", "creator")  # as users.py, which needs the database
_file_option = click.option(
    "--password-file", type=click.Path(dir_okay=False, allow_dash=True),
    help="File whose first line is the password; - for stdin [default: asked for].",
)  # fmt: skip


@click.group(short_help="Make, list and disable users of the console.")
def user() -> None:
    """Who may log in to the console of `settle serve`, and as what. Passwords are kept as scrypt."""


@user.command(short_help="Make a user.")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the user may do.")
@click.option("--party", help="With role creator: the party of the price plan, such as creator:acme.")
@_file_option
@common.by_option
@support.format_option
def add(name: str, role: str, party: str | None, password_file: str | None, by: str | None, fmt: str) -> None:
    """Make a user called NAME, in lower case; the password is asked for twice."""
    with common.open_database() as database:
        from sealpack.settlement import users

        password = _password(password_file)
        scope = f"party:{party}" if party else ""
        made = users.add(database, name, role, scope, password, actor=common.actor(by))
    result = {"schema": "sealpack/settle-user/v1", "name": made.name, "role": made.role, "state": "active"}
    support.emit(result, f"{made.name} can log in as {made.role}", fmt)


@user.command("list", short_help="Print every user.")
@support.format_option
def list_(fmt: str) -> None:
    """Print every user by name: role, for whom, and whether active."""
    with common.open_database() as database:
        from sealpack.settlement import users

        with database.read() as connection:
            rows = [_row(found) for found in users.listed(connection)]
    lines = ["  ".join(row[k] for k in ("name", "role", "state", "party") if k in row) for row in rows]
    result = {"schema": "sealpack/settle-users/v1", "users": rows}
    support.emit(result, "\n".join(lines) or "nothing", fmt)


@user.command(short_help="Let a user log in no more.")
@click.argument("name")
@common.by_option
@support.format_option
def disable(name: str, by: str | None, fmt: str) -> None:
    """Log the user NAME out everywhere and let it in no more; the last admin stays."""
    _change("disable", name, by, fmt)


@user.command(short_help="Let a disabled user log in again.")
@click.argument("name")
@common.by_option
@support.format_option
def enable(name: str, by: str | None, fmt: str) -> None:
    """Let the disabled user NAME log in again with the password there was."""
    _change("enable", name, by, fmt)


def _change(verb: str, name: str, by: str | None, fmt: str) -> None:
    with common.open_database() as database:
        from sealpack.settlement import users

        change = users.disable if verb == "disable" else users.enable
        change(database, name, actor=common.actor(by))
        _told(database, name, f"{name} is {verb}d", fmt)


@user.command(short_help="Give a user another password.")
@click.argument("name")
@_file_option
@common.by_option
@support.format_option
def password(name: str, password_file: str | None, by: str | None, fmt: str) -> None:
    """Give the user NAME another password, asked for twice; the user is logged out everywhere."""
    with common.open_database() as database:
        from sealpack.settlement import users

        users.set_password(database, name, _password(password_file), actor=common.actor(by))
        _told(database, name, f"{name} has a new password", fmt)


def _told(database: Any, name: str, text: str, fmt: str) -> None:
    from sealpack.settlement import users

    with database.read() as connection:
        (row,) = (_row(a) for a in users.listed(connection) if a.user.name == name.strip().lower())
    support.emit({"schema": "sealpack/settle-user/v1", **row}, text, fmt)


def _row(account: Any) -> dict[str, str]:
    found = account.user
    party = {"party": found.party} if found.party else {}
    return {"name": found.name, "role": found.role, "state": account.state, **party}


def _password(path: str | None) -> str:
    """From a file, from stdin, or asked for on a terminal; never from the command line."""
    if path == "-":
        given = sys.stdin.buffer.readline(4096).rstrip(b"\r\n")
    else:
        found = support.passphrase(path, prompt="Password", confirm=True, option="--password-file")
        assert found is not None
        given = found
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise SealpackError("USAGE", "the password is not UTF-8") from None
