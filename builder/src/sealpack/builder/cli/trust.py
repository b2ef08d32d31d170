"""`sealpack trust init`: the first trust file of a creator who has keys already."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

_FILE = click.Path(dir_okay=False)


@click.command(short_help="Write the first trust file for existing keys.")
@click.argument("out", type=_FILE)
@click.option("--publisher", required=True, help="Issuer and namespace of the keys.")
@click.option("--namespace", multiple=True, help="Further namespace; may be repeated.")
@click.option(
    "--root",
    type=_FILE,
    multiple=True,
    required=True,
    help="Private root key, a file or pkcs11:URI; may be repeated.",
)
@click.option(
    "--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="Root signatures needed."
)
@click.option("--bundle", type=_FILE, multiple=True, help="Public key that signs bundles.")
@click.option("--license", type=_FILE, multiple=True, help="Public key that signs licenses.")
@click.option("--settlement", type=_FILE, multiple=True, help="Public key that signs acknowledgements.")
@click.option("--witness", type=_FILE, multiple=True, help="Public key that cosigns logs.")
@click.option(
    "--mldsa",
    is_flag=True,
    help="Root, bundle and license keys sign with the ML-DSA key beside them too (NAME.mldsa.pem).",
)
@support.passphrase_option
@support.format_option
def init(
    out: str,
    publisher: str,
    namespace: tuple[str, ...],
    root: tuple[str, ...],
    threshold: int,
    mldsa: bool,
    passphrase_file: str | None,
    fmt: str,
    **purposes: tuple[str, ...],
) -> None:
    """Write OUT: root, keyring and an empty revocation list, version 1, signed by every root key."""
    from sealpack.builder import keyfiles, trust_author
    from sealpack.format.files import atomic_write
    from sealpack.format.keys import ECDSA
    from sealpack.verifier.cli.trust import describe

    passphrase = Path(passphrase_file) if passphrase_file else None
    grants = [
        trust_author.KeyGrant(
            keyfiles.load_public(path),
            purpose,
            keyfiles.load_public_mldsa(path) if mldsa and scheme == ECDSA else None,
        )
        for purpose, (scheme, _) in trust_author.PURPOSES.items()
        for path in purposes[purpose]
    ]
    if os.path.lexists(out):
        raise SealpackError(
            "OUTPUT_EXISTS",
            f"{out} already exists",
            remedy="choose another name; `sealpack trust add`, `rotate` and `revoke` change what is there",
        )
    roots = {path: keyfiles.load_signer(path, passphrase) for path in root}
    beside = {
        key.keyid: keyfiles.load_private(keyfiles.mldsa_beside(path), passphrase)
        for path, key in (roots.items() if mldsa else ())
    }
    trust = trust_author.first_trust(
        trust_author.RootSigners(list(roots.values()), beside),
        grants,
        issuer=publisher,
        namespaces=[publisher, *namespace],
        now=support.now(),
        threshold=threshold,
    )
    atomic_write(out, trust.to_bytes(), replace=False)
    summary = describe(trust)
    text = f"wrote    {out}\nroot     {summary['root']['words']}\nkeys     {len(grants)} in the keyring"
    support.emit(summary, text, fmt)
