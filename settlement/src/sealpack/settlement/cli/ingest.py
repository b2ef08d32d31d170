"""`sealpack settle ingest`: take in usage files, each exactly once."""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Take in usage files, each exactly once.")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True,
    help="So many processes; the files of one device stay together.",
)  # fmt: skip
@click.option("--acks", type=click.Path(file_okay=False), help="Leave acknowledgements here; needs --key.")
@common.signer_options(required=False)
@support.format_option
def ingest(
    files: tuple[str, ...],
    workers: int,
    acks: str | None,
    key: str | None,
    witness: str | None,
    passphrase_file: str | None,
    fmt: str,
) -> int:
    """Ingest usage FILES in any order; say what became of each.

    Exit status 0 when everything was accepted, 5 when something was held or refused (its bytes are kept).
    """
    if bool(acks) != bool(key):
        raise SealpackError("USAGE", "--acks and --key go together")
    paths = [support.existing(name) for name in files]
    with common.open_database() as database:
        from sealpack.settlement import ack
        from sealpack.settlement.outcomes import final
        from sealpack.settlement.workers import ingest_files

        signers = common.signers(key, witness, passphrase_file) if key else None
        now = support.now()
        outcomes = final(ingest_files(common.address(), paths, now, workers))
        origins = [o.origin for o in outcomes if o.origin]
        replies = ack.replies(database, signers, origins, now) if signers else []
    if acks:
        Path(acks).mkdir(parents=True, exist_ok=True)
        for reply in replies:
            atomic_write(Path(acks) / reply.name, reply.data)
    result = {
        "schema": "sealpack/settle-ingest/v1",
        "outcomes": [o.to_dict() for o in outcomes],
        "replies": [reply.name for reply in replies],
    }
    lines = [o.to_text() for o in outcomes] + [f"left  {reply.name}" for reply in replies]
    support.emit(result, "\n".join(lines), fmt)
    return common.exit_status(outcomes)
