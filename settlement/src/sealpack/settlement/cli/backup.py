"""`sealpack settle backup` and `restore`: all of settlement as one file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

_KEYS = "settlement's keys are not in it: keep copies of them elsewhere"


@click.command(short_help="Write all of settlement to one file.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--everything", is_flag=True, help="Copy raw files out of object storage, too.")
@support.format_option
def backup(file: str, everything: bool, fmt: str) -> None:
    """Write the whole database, raw usage files included, to FILE, which must not exist.

    It is of one moment, and the service runs meanwhile. Raw files in object storage are named, not copied.
    Settlement's keys are in no database, so in no backup. Note the digest: it stands for everything in FILE.
    """
    with common.open_database() as database:
        from sealpack.settlement import backup as backups

        made = backups.write(database, Path(file), now=support.now(), everything=everything)
    rows, raw = sum(t["rows"] for t in made.manifest["tables"].values()), made.manifest["evidence"]
    result = {
        "schema": "sealpack/settle-backup/v1", "file": file, "digest": made.digest, "rows": rows,
        "evidence": raw, "audit": made.manifest["audit"],
    }  # fmt: skip
    named = f", {raw['named']} more named" if raw["named"] else ""
    text = f"{file}: {rows} rows, {raw['files']} raw files{named}; digest {made.digest}\n{_KEYS}"
    support.emit(result, text, fmt)


@click.command(short_help="Fill an empty database from a backup.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--store", metavar="PLACE", help="Where raw files go, as `settle store` names it [default: the database]."
)
@click.option("--endpoint", metavar="URL", help="With --store s3://: the server.")
@common.by_option
@support.format_option
def restore(file: str, store: str | None, endpoint: str | None, by: str | None, fmt: str) -> None:
    """Fill the database of --db, which must be empty or not there yet, from the backup FILE.

    Either kind of database takes a backup of either kind. Everything is checked before anything counts. What
    came after the backup has to come again: import what was imported since; machines send what they have with
    their next visits. Documents issued since are not known: their numbers would be given again.
    """
    source = support.existing(file)
    with common.open_database() as database:
        from sealpack.settlement import evidence_move, restore as restoring

        location = None if store is None else evidence_move.location_of(store, endpoint)
        done = restoring.restore(database, source, actor=common.actor(by), location=location)
    result = {
        "schema": "sealpack/settle-restore/v1", "created_at": done.created_at, "digest": done.digest,
        "rows": done.rows, "files": done.files, "named": done.named, "audit_head": done.head,
    }  # fmt: skip
    made = f"{datetime.fromtimestamp(done.created_at, UTC):%Y-%m-%d %H:%M} UTC"
    named = f"; {done.named} more are in object storage: `settle reconcile` reads them" if done.named else ""
    text = f"restored as of {made}: {done.rows} rows, {done.files} raw files{named}\n{_KEYS}"
    support.emit(result, text, fmt)
