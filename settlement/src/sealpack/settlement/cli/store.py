"""`sealpack settle store`: where raw files lie."""

from __future__ import annotations

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Say where raw files lie, or move them.")
@click.argument("place", required=False)
@click.option(
    "--endpoint", metavar="URL", help="With s3://: the server [default: by environment, or Amazon]."
)
@common.by_option
@support.format_option
def store(place: str | None, endpoint: str | None, by: str | None, fmt: str) -> None:
    """Say where raw usage files lie; with PLACE let them lie there from now on, and move those that are kept.

    PLACE is a folder, s3://BUCKET/PREFIX (credentials from the environment, never recorded), or `database`.
    A move that was interrupted goes on when it is given again; the service may run meanwhile. A folder or a
    bucket that is left keeps its files: remove them when `settle reconcile` finds nothing wrong.
    """
    if place is None and endpoint is not None:
        raise SealpackError("USAGE", "--endpoint goes with s3://BUCKET/PREFIX")
    with common.open_database() as database:
        from sealpack.settlement import evidence_move

        moved = 0
        if place is not None:
            location = evidence_move.location_of(place, endpoint)
            moved = evidence_move.move(database, location, actor=common.actor(by))
        with database.read() as connection:
            found = evidence_move.lying(connection)
    places = [{"place": one.location, "files": one.files, "current": one.current} for one in found]
    result = {"schema": "sealpack/settle-store/v1", "moved": moved, "places": places}
    lines = [f"{one.files} files  {one.location}{'  (new files)' if one.current else ''}" for one in found]
    support.emit(result, "\n".join(lines if place is None else [f"{moved} files moved", *lines]), fmt)
