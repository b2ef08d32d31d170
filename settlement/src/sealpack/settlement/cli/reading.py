"""`sealpack settle reading`: a meter reading that was scanned, photographed or typed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.limits import LIMITS
from sealpack.settlement.cli import common
from sealpack.verifier.cli import codes, support


@click.command(short_help="Take a meter reading from its code, a picture or typed text.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default=codes.STDIO)
@support.format_option
def reading(file: str, fmt: str) -> int:
    """Take what a machine shows with `sealpack receipts export --reading`.

    FILE is a picture of the code, its scanned or typed text, or the document; `-` is standard input, where
    typed text ends with Ctrl-D. Exit status 0 when it was accepted, 5 when it was held or refused.
    """
    document = _read(file)
    with common.open_database() as database:
        from sealpack.settlement import ingest, meter_readings
        from sealpack.settlement.outcomes import final

        if not meter_readings.is_reading(document):
            raise SealpackError(
                "USAGE", "this is no meter reading, or a character of it is wrong",
                remedy="compare it with what the machine shows, group by group",
            )  # fmt: skip
        outcomes = final(ingest.ingest(database, document, "meter-reading", support.now()))
    result = {
        "schema": "sealpack/settle-ingest/v1",
        "outcomes": [o.to_dict() for o in outcomes],
        "replies": [],
    }
    support.emit(result, "\n".join(outcome.to_text() for outcome in outcomes), fmt)
    return common.exit_status(outcomes)


def _read(name: str) -> bytes:
    """The bytes of a file; of a picture, those of the document in its code."""
    if name == codes.STDIO:
        return sys.stdin.buffer.read(LIMITS.parcel_bytes)
    if Path(name).suffix.lower() in codes.PICTURES or Path(name).suffix.lower() in (".jpg", ".jpeg"):
        return codes.read_document([name])[0]
    return read_bounded(support.existing(name), LIMITS.parcel_bytes)
