"""`sealpack settle import`: trust, plans, customers, registry lines, licenses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealpack.format.errors import printable
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.importing import Found


@click.command("import", short_help="Take in trust, plans, customers, licenses.")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@support.format_option
def import_(files: tuple[str, ...], fmt: str) -> None:
    """Import FILES, folders or zips: trust.json, plans (YAML), seller, customers (JSON, YAML or a CSV table),
    registry.jsonl, *.license.

    They are imported in the order in which they need each other. Of a folder or zip, what is not
    settlement's is named and left. Usage files that waited for what was imported are taken in at once.
    """
    with common.open_database() as database:
        from sealpack.settlement import importing, ingest

        brought = importing.import_all(database, _found([support.existing(name) for name in files]))
        freed = ingest.release(database, support.now())
    lines = [f"{name}: {what}" for name, what in brought.imported]
    lines += [f"{name}: left, nothing settlement imports" for name in brought.left]
    lines += [o.to_text() for o in freed]
    result = {
        "schema": "sealpack/settle-import/v1",
        "imported": [{"file": name, "what": what} for name, what in brought.imported],
        "left": list(brought.left),
        "released": [o.to_dict() for o in freed],
    }
    support.emit(result, "\n".join(lines), fmt)


def _found(paths: list[Path]) -> Iterator[Found]:
    """Every file, those in folders and zips too; links in folders are not followed."""
    from sealpack.format.files import read_bounded
    from sealpack.settlement.importing import MAX_BYTES, Found
    from sealpack.settlement.service import uploads

    for path in paths:
        inside = path.is_dir()
        for one in sorted(path.rglob("*")) if inside else [path]:
            if inside and (one.is_symlink() or not one.is_file()):
                continue
            data = read_bounded(one, MAX_BYTES)
            if data.startswith(uploads.ZIP_MARKS):
                yield from _in_zip(data, one.name)
            else:
                yield Found(printable(one.name), data, asked=not inside)


def _in_zip(data: bytes, name: str) -> Iterator[Found]:
    import io

    from sealpack.settlement.importing import Found
    from sealpack.settlement.outcomes import Outcome
    from sealpack.settlement.service import uploads
    from sealpack.settlement.service.limits import Limits

    for entry, content in uploads.entries(io.BytesIO(data), name, Limits()):
        found = b"" if isinstance(content, Outcome) else content  # it cannot be unpacked: left, and so named
        yield Found(entry, found, asked=False)
