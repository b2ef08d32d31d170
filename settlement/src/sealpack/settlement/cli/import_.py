"""`sealpack settle import`: trust, plans, customers, registry lines, licenses."""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command("import", short_help="Take in trust, plans, customers, licenses.")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@support.format_option
def import_(files: tuple[str, ...], fmt: str) -> None:
    """Import FILES: trust.json (first of all), plans (YAML), customers (JSON), registry.jsonl, *.license.

    Usage files that waited for what was imported are taken in at once.
    """
    with common.open_database() as database:
        from sealpack.settlement import importing, ingest

        done = [(name, importing.import_file(database, support.existing(name))) for name in files]
        freed = ingest.release(database, support.now())
    lines = [f"{Path(name).name}: {what}" for name, what in done] + [o.to_text() for o in freed]
    result = {
        "schema": "sealpack/settle-import/v1",
        "imported": [{"file": name, "what": what} for name, what in done],
        "released": [o.to_dict() for o in freed],
    }
    support.emit(result, "\n".join(lines), fmt)
