"""What the customer verbs share: the state directory option and a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sealpack.runtime.admission import Warning
    from sealpack.runtime.imports import Taken
    from sealpack.runtime.state import State

F = TypeVar("F", bound=Callable[..., Any])


def state_option(command: F) -> F:
    """`--state DIR`, passed as `state_dir`."""
    return click.option(
        "--state",
        "state_dir",
        type=click.Path(file_okay=False),
        help="State directory [default: SEALPACK_STATE, else your data directory].",
    )(command)


def license_option(command: F) -> F:
    """`--license ID`, passed as `license_id`."""
    return click.option("--license", "license_id", help="License id, where several cover the bundle.")(
        command
    )


def open_state(state_dir: str | None, *, create: bool = False) -> State:
    """The state database of the directory."""
    from sealpack.runtime.home import open_home
    from sealpack.runtime.state import State

    return State(open_home(state_dir, create=create))


def warn(warnings: tuple[Warning, ...]) -> None:
    """Tell warnings on stderr."""
    for warning in warnings:
        click.echo(f"sealpack: warning[{warning.code}]: {warning.message}", err=True)


def trust_rows(taken: Taken) -> list[dict[str, Any]]:
    """The trust documents that became newer, for JSON."""
    return [{"kind": kind, "version": version} for kind, version in taken.trust]


def trust_lines(taken: Taken) -> list[str]:
    """The same for people: one line, or none."""
    newer = ", ".join(f"{kind} version {version}" for kind, version in taken.trust)
    return [f"trust is newer now: {newer}"] if newer else []
