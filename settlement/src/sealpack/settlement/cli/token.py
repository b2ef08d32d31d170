"""`sealpack settle token`: who may call the service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

ROLES = ("finance", "admin", "creator", "auditor", "device")  # as service/tokens.py, which needs the database


@click.group(short_help="Make, list and revoke tokens of the service.")
def token() -> None:
    """Who may call `settle serve`, and as what. Only digests of tokens are kept."""


@token.command(short_help="Make a token; it is printed once.")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@click.option("--customer", help="With role device: a customer (id), all licenses of it.")
@click.option("--license", "license_id", help="With role device: one license (id).")
@click.option("--party", help="With role creator: the party of the price plan, such as creator:acme.")
@click.option("--days", type=click.IntRange(1, 36_500), help="How long it is good [default: until revoked].")
@common.by_option
@support.format_option
def new(
    name: str, role: str, customer: str | None, license_id: str | None, party: str | None, days: int | None,
    by: str | None, fmt: str,
) -> None:  # fmt: skip
    """Make a token called NAME and print it: it cannot be shown again."""
    said = {"customer": customer, "license": license_id, "party": party}
    scopes = [f"{kind}:{whom}" for kind, whom in said.items() if whom is not None]
    if len(scopes) > 1:
        raise SealpackError("USAGE", "give one of --customer, --license and --party")
    with common.open_database() as database:
        from sealpack.settlement.service import tokens

        scope = scopes[0] if scopes else ""
        made = tokens.new(database, name, role, scope, days, actor=common.actor(by))
    result = {"schema": "sealpack/settle-token/v1", "name": name, "role": role, "token": made}
    support.emit(result, made, fmt)


@token.command("list", short_help="Print every token that was made, without the secrets.")
@support.format_option
def list_(fmt: str) -> None:
    """Print every token by name: role, whom it speaks for, and whether it is valid."""
    now = support.now()
    with common.open_database() as database:
        from sealpack.settlement.service import tokens

        with database.read() as connection:
            rows = [_row(found, now) for found in tokens.listed(connection)]
    lines = [
        "  ".join(str(row.get(k, "")) for k in ("name", "role", "scope", "state", "expires")) for row in rows
    ]
    result = {"schema": "sealpack/settle-tokens/v1", "tokens": rows}
    support.emit(result, "\n".join(lines) or "nothing", fmt)


@token.command(short_help="End a token.")
@click.argument("name")
@common.by_option
@support.format_option
def revoke(name: str, by: str | None, fmt: str) -> None:
    """End the token called NAME, from the next call on."""
    now = support.now()
    with common.open_database() as database:
        from sealpack.settlement.service import tokens

        row = _row(tokens.revoke(database, name, actor=common.actor(by)), now)
    support.emit({"schema": "sealpack/settle-token-revoked/v1", **row}, f"{name} is revoked", fmt)


def _row(found: Any, now: int) -> dict[str, Any]:
    caller = found.caller
    expires = (
        None if found.expires_at is None else f"{datetime.fromtimestamp(found.expires_at, UTC):%Y-%m-%d}"
    )
    return {
        "name": caller.name, "role": caller.role, "scope": caller.scope, "state": found.state(now),
        **({"expires": expires} if expires else {}),
    }  # fmt: skip
