"""`sealpack status`: what runs here, what is left, what is due."""

from __future__ import annotations

import click

from sealpack.runtime.cli.common import license_option, open_state, state_option
from sealpack.verifier.cli import support


@click.command(short_help="Say what may run, what is left and what is due.")
@click.option(
    "--break-glass",
    "reason",
    metavar="REASON",
    help="Go on for 7 days although the license or its lease has run out, once per lease.",
)
@license_option
@state_option
@support.format_option
def status(reason: str | None, license_id: str | None, state_dir: str | None, fmt: str) -> None:
    """Print device, clock, bundles, licenses, quota left, lease and receipts to carry out.

    With --break-glass a license goes on for 7 days, counted from now, although its end, its lease or a
    lease's ceiling has passed. The vendor sees that and what runs is billed; the reason stays here.
    """
    from sealpack.runtime import lapses, overview
    from sealpack.runtime.words import duration

    with open_state(state_dir) as state:
        if reason is not None:
            name, left = lapses.break_glass(state, reason, license_id)
            support.note(f"license {name} goes on for {duration(left // 1000)}: settle or renew meanwhile")
        found = overview.gather(state)
    support.emit(found, support.for_screen(overview.to_text(found)), fmt)
