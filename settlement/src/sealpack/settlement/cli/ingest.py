"""`sealpack settle ingest`: take in usage files, each exactly once."""

from __future__ import annotations

import click

from sealpack.format.files import read_bounded
from sealpack.format.limits import LIMITS
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Take in usage files, each exactly once.")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@support.format_option
def ingest(files: tuple[str, ...], fmt: str) -> int:
    """Ingest usage FILES in any order; say what became of each.

    Exit status 0 when everything was accepted, 5 when something was held or refused (its bytes are kept).
    """
    with common.open_database() as database:
        from sealpack.settlement import ingest as engine

        outcomes = []
        for name in files:
            data = read_bounded(support.existing(name), LIMITS.usage_file_bytes)
            outcomes += engine.ingest(database, data, support.existing(name).name, support.now())
    result = {"schema": "sealpack/settle-ingest/v1", "outcomes": [o.to_dict() for o in outcomes]}
    support.emit(result, "\n".join(o.to_text() for o in outcomes), fmt)
    return common.exit_status(outcomes)
