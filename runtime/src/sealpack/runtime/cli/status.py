"""`sealpack status`: what runs here, what is left, what is due."""

from __future__ import annotations

import click

from sealpack.runtime.cli.common import open_state, state_option
from sealpack.verifier.cli import support


@click.command(short_help="Say what may run, what is left and what is due.")
@state_option
@support.format_option
def status(state_dir: str | None, fmt: str) -> None:
    """Print device, clock, bundles, licenses, quota left, lease and receipts to carry out."""
    from sealpack.runtime import overview

    with open_state(state_dir) as state:
        found = overview.gather(state)
    support.emit(found, overview.to_text(found), fmt)
