"""`sealpack settle sync`: one verb per stick."""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@click.command(short_help="Take everything on a stick, leave every reply on it.")
@click.argument("folder", type=click.Path(file_okay=False))
@common.signer_options(required=True)
@support.format_option
def sync(folder: str, key: str, witness: str | None, passphrase_file: str | None, fmt: str) -> int:
    """Ingest every usage file in FOLDER, import licenses found there, and leave signed acknowledgements."""
    if not Path(folder).is_dir():
        raise SealpackError("FILE_MISSING", f"{folder} is not a folder")
    with common.open_database() as database:
        from sealpack.settlement import stick

        signers = common.signers(key, witness, passphrase_file)
        visit = stick.sync(database, Path(folder), signers, support.now())
    taken = sum(o.accepted for o in visit.outcomes)
    attention = [o for o in visit.outcomes if not o.is_accepted]
    lines = [
        f"taken: {_count(taken, 'receipt')} from {_count(len(visit.outcomes), 'file')},"
        f" {len(attention)} need{'s' if len(attention) == 1 else ''} attention",
        f"left: {_count(len(visit.replies), 'acknowledgement')}"
        + "".join(f" {r.name}" for r in visit.replies),
        *(o.to_text() for o in attention),
        *(f"passed over: {text}" for text in visit.passed_over),
    ]
    result = {
        "schema": "sealpack/settle-sync/v1",
        "outcomes": [o.to_dict() for o in visit.outcomes],
        "imported": list(visit.imported),
        "passed_over": list(visit.passed_over),
        "replies": [r.name for r in visit.replies],
    }
    support.emit(result, "\n".join(lines), fmt)
    return common.exit_status(visit.outcomes)
