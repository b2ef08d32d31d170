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
@click.option(
    "--mldsa-key",
    "mldsa_file",
    type=click.Path(dir_okay=False),
    help="With --key: the creator's public ML-DSA-65 key, required to have signed too.",
)
@click.option("--leaves", is_flag=True, help="Hash payload by chunk leaves only, on all cores.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Hash only N chunks of each payload file, chosen at random: quick, and not complete.",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(dir_okay=False),
    help="Policy file (TOML): what a good bundle must be to be let in.",
)
@support.format_option
def verify(
    bundle: str,
    trust_file: str | None,
    key_file: str | None,
    mldsa_file: str | None,
    leaves: bool,
    sample: int | None,
    policy_file: str | None,
    fmt: str,
) -> int:
    """Check that BUNDLE is authentic and intact, and print every check.

    Exit status: 0 pass, 3 not authentic or not intact, 4 withdrawn, revoked or against the policy.
    """
    from sealpack.verifier import policy
    from sealpack.verifier.checks import verify_bundle

    if (trust_file is None) == (key_file is None):
        raise SealpackError("USAGE", "give one of --trust FILE or --key FILE")
    if mldsa_file and key_file is None:
        raise SealpackError("USAGE", "--mldsa-key belongs to --key; a trust file names both keys")
    trust = support.load_trust(trust_file) if trust_file else None
    key, mldsa_key = _public(key_file), _public(mldsa_file)
    rules = policy.load(policy_file) if policy_file else None
    size = support.existing(bundle).stat().st_size
    with support.progress_bar("hashing", 0 if sample else size) as bar:
        report = verify_bundle(
            Path(bundle),
            trust,
            key=key,
            mldsa_key=mldsa_key,
            leaves_only=leaves,
            sample=sample,
            progress=bar.update,
        )
    if rules is not None:
        policy.apply(report, rules, support.now())
    support.emit(report.to_dict(), report.to_text(), fmt)
    if not report.ok:
        first = report.failures[0]
        support.note(f"sealpack: error[{first.code}]: {bundle}: {first.detail}")
    return report.exit_status


def _public(path: str | None) -> PublicKey | None:
    return PublicKey.from_pem(read_bounded(path, 4096).decode("ascii", "replace")) if path else None
