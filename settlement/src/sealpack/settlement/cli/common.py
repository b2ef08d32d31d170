"""What the settlement verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.ack import Signers
    from sealpack.settlement.db import Database
    from sealpack.settlement.outcomes import Outcome

F = TypeVar("F", bound=Callable[..., Any])


def open_database() -> Database:
    """The database named by `settle --db`."""
    support.require_extra("settlement", "sqlalchemy", "yaml", "tzdata")
    from sealpack.settlement.db import Database

    return Database.open(click.get_current_context().meta["sealpack.settlement.db"])


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
