"""`sealpack verify`: is this bundle authentic and intact?"""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.keys import PublicKey
from sealpack.verifier.cli import support


@click.command(short_help="Check that a bundle is authentic and intact.")
@click.argument("bundle", type=click.Path(dir_okay=False))
@click.option("--trust", "trust_file", type=click.Path(dir_okay=False), help="Trust file (trust.json).")
@click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False),
    help="The creator's public key (PEM), instead of a trust file.",
)
@click.option("--leaves", is_flag=True, help="Hash payload by chunk leaves only, on all cores.")
@support.format_option
def verify(bundle: str, trust_file: str | None, key_file: str | None, leaves: bool, fmt: str) -> int:
    """Check that BUNDLE is authentic and intact, and print every check.

    Exit status: 0 pass, 3 not authentic or not intact, 4 withdrawn or revoked.
    """
    from sealpack.verifier.checks import verify_bundle

    if (trust_file is None) == (key_file is None):
        raise SealpackError("USAGE", "give one of --trust FILE or --key FILE")
    trust = support.load_trust(trust_file) if trust_file else None
    key = PublicKey.from_pem(read_bounded(key_file, 4096).decode("ascii", "replace")) if key_file else None
    size = support.existing(bundle).stat().st_size
    with support.progress_bar("hashing", size) as bar:
        report = verify_bundle(Path(bundle), trust, key=key, leaves_only=leaves, progress=bar.update)
    support.emit(report.to_dict(), report.to_text(), fmt)
    if not report.ok:
        first = report.failures[0]
        support.note(f"sealpack: error[{first.code}]: {bundle}: {first.detail}")
    return report.exit_status
