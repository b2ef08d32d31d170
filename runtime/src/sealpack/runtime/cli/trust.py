"""`sealpack trust pin`: believe a root, once."""

from __future__ import annotations

import sys

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import open_state, state_option
from sealpack.verifier.cli import support


@click.command(short_help="Believe the root of a trust file from now on.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--yes", is_flag=True, help="The fingerprint was compared already.")
@state_option
@support.format_option
def pin(file: str, yes: bool, state_dir: str | None, fmt: str) -> None:
    """Show the fingerprint of the root in FILE as words, and believe it once you confirm.

    Compare the words with the vendor by phone or contract before you say yes.
    """
    from sealpack.format.words import fingerprint_words
    from sealpack.runtime import anchors

    trust = support.load_trust(file)
    words = fingerprint_words(trust.root_digest)
    if not yes:
        support.note(f"root fingerprint: {words}")
        _confirm()
    with open_state(state_dir, create=True) as state:
        anchors.pin(state, trust)
    result = {
        "schema": "sealpack/pinned/v1",
        "root_digest": trust.root_digest,
        "root_version": trust.root.version,
        "words": words,
    }
    support.emit(result, f"pinned root {trust.root_digest[:16]}: {words}", fmt)


def _confirm() -> None:
    try:
        agreed = click.confirm("Do these words match what the vendor told you?", err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # the user's interrupt
        raise SealpackError(
            "USAGE", "nobody is there to compare the words", remedy="compare them, then give --yes"
        ) from None
    if not agreed:
        raise click.Abort
