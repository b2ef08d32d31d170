"""`sealpack key`: make and look at signing keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.keys import PublicKey


@click.group(short_help="Make and look at signing keys.")
def key() -> None:
    """Make and look at signing keys."""


@key.command(short_help="Make a key pair.")
@click.argument("path", type=click.Path(dir_okay=False))
@click.option(
    "--scheme",
    type=click.Choice(("ecdsa-p256-sha256", "ed25519")),
    default="ecdsa-p256-sha256",
    show_default=True,
    help="ecdsa-p256-sha256 for root, bundle and license keys; ed25519 for settlement and witness.",
)
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase and encrypt the key file.")
@support.passphrase_option
@support.format_option
def new(path: str, scheme: str, encrypt: bool, passphrase_file: str | None, fmt: str) -> None:
    """Make a key: PATH (private, mode 0600) and its public half beside it, NAME.pub.pem."""
    from sealpack.builder import keyfiles
    from sealpack.format.keys import PrivateKey

    passphrase = support.passphrase(
        passphrase_file, prompt="Passphrase for the key", confirm=True, required=encrypt
    )
    made = PrivateKey.generate(scheme)
    private, public = keyfiles.write_pair(Path(path), made, passphrase)
    facts = _facts(made.public) | {"private": str(private), "public": str(public)}
    support.emit(facts, f"private  {private}\npublic   {public}\n{_lines(facts)}", fmt)


@key.command(short_help="Print a public key's id and fingerprint words.")
@click.argument("path", type=click.Path(dir_okay=False))
@support.passphrase_option
@support.format_option
def show(path: str, passphrase_file: str | None, fmt: str) -> None:
    """Print scheme, key id and fingerprint words of the public or private key file PATH."""
    from sealpack.builder import keyfiles

    found = keyfiles.load_any(Path(path), Path(passphrase_file) if passphrase_file else None)
    facts = _facts(found)
    support.emit(facts | {"pem": found.pem}, _lines(facts), fmt)


def _facts(public: PublicKey) -> dict[str, Any]:
    from sealpack.format.words import fingerprint_words

    return {
        "schema": "sealpack/key-info/v1",
        "scheme": public.scheme,
        "keyid": public.keyid,
        "words": fingerprint_words(public.keyid),
    }


def _lines(facts: dict[str, Any]) -> str:
    return f"scheme   {facts['scheme']}\nkeyid    {facts['keyid']}\nwords    {facts['words']}"
