"""`sealpack settle audit`: who changed what, and whether that trail is whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.group(short_help="Who changed what, in a chain that shows changes.")
def audit() -> None:
    """The audit trail: every entry names the digest of the one before it."""


@audit.command("list", short_help="Print every entry.")
@support.format_option
def list_(fmt: str) -> None:
    """Print every entry, the oldest first."""
    with common.open_database() as database:
        from sealpack.settlement import audit as trail

        with database.read() as connection:
            found = list(trail.entries(connection))
    lines = [
        f"{e.seq}  {datetime.fromtimestamp(e.at, UTC):%Y-%m-%d %H:%M}  {e.who}  "
        + json.dumps({k: v for k, v in e.what.items() if k not in ("booked", "document")}, ensure_ascii=False)
        for e in found
    ]
    result = {"schema": "sealpack/settle-audit/v1", "entries": [entry.to_dict() for entry in found]}
    support.emit(result, "\n".join(lines) or "nothing", fmt)


@audit.command(short_help="Check the chain, and the books against it.")
@click.option("--head", metavar="DIGEST", help="A digest noted earlier, which must be in the chain.")
@support.format_option
def verify(head: str | None, fmt: str) -> None:
    """Follow the chain; compare every document and transaction with the digest it names.

    Prints the newest digest: noted elsewhere, --head shows later that nothing was cut off.
    """
    with common.open_database() as database:
        from sealpack.settlement import audit as trail

        count, digest = trail.verify(database, head)
    result = {"schema": "sealpack/settle-audit-verify/v1", "entries": count, "head": digest}
    support.emit(result, f"{count} entries, whole; newest {digest}", fmt)
