"""`sealpack sync`: one stick visit."""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import open_state, state_option, trust_lines, trust_rows
from sealpack.runtime.cli.receipts import exported_row
from sealpack.runtime.words import plural
from sealpack.verifier.cli import support


@click.command(short_help="Import everything for this machine, export everything pending.")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--privacy", "private", is_flag=True, help="Running totals and proofs only, no single call.")
@state_option
@support.format_option
def sync(folder: str, private: bool, state_dir: str | None, fmt: str) -> int:
    """Take licenses, leases and acknowledgements for this machine from FOLDER; leave its usage there.

    Exit status 5 when a file was refused; the others are taken all the same.
    """
    from sealpack.runtime.sync import visit

    path = Path(folder)
    if not path.is_dir():
        raise SealpackError("FILE_MISSING", f"{folder} is not a folder")
    with open_state(state_dir, create=True) as state:
        done = visit(state, path, private=private)
    taken = done.taken
    result = {
        "schema": "sealpack/synced/v1",
        "licenses": taken.licenses,
        "activations": taken.activations,
        "leases": taken.leases,
        "acknowledgements": taken.acknowledgements,
        "statements": taken.statements,
        "further_logs": taken.tokens,
        "repaired": taken.repairs,
        "trust": trust_rows(taken),
        "known": taken.known,
        "others": taken.others,
        "refused": {name: error.to_dict() for name, error in done.refused.items()},
        "exported": [exported_row(f) for f in done.exported],
    }
    count = sum(f.end - f.start for f in done.exported)
    lines = [
        f"imported {plural(taken.count, 'document')} ({taken.known} known, {taken.others} for others,"
        f" {len(done.refused)} refused)",
        f"exported {plural(count, 'receipt')} in {plural(len(done.exported), 'file')}",
    ]
    lines += trust_lines(taken)
    lines += [f"repaired under license {name}: see `sealpack status`" for name in taken.repairs]
    if done.exported:
        lines.append(f"next: carry {folder} to the vendor; with the reply `sealpack sync {folder}` again")
    for name, error in done.refused.items():
        support.note(f"sealpack: {name}: {error}; next: {error.remedy}")
    support.emit(result, "\n".join(lines), fmt)
    return 5 if done.refused else 0
