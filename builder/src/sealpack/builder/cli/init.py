"""`sealpack init`: a creator's project folder."""

from __future__ import annotations

from pathlib import Path

import click

from sealpack.verifier.cli import support


@click.command(short_help="Make a project folder with keys, trust and a commented sealpack.toml.")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--publisher", required=True, help="Your namespace: bundle ids will be PUBLISHER/...")
@click.option("--name", help="What people call you [default: PUBLISHER].")
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase and encrypt the key files.")
@support.passphrase_option
@support.format_option
def init(
    folder: str, publisher: str, name: str | None, encrypt: bool, passphrase_file: str | None, fmt: str
) -> None:
    """Make the project folder FOLDER: keys, trust file, sealpack.toml, plan and recovery sheet."""
    from sealpack.builder import project

    passphrase = support.passphrase(
        passphrase_file, prompt="Passphrase for the keys", confirm=True, required=encrypt
    )
    made = project.create(
        Path(folder), publisher=publisher, name=name, now=support.now(), passphrase=passphrase
    )
    result = {
        "schema": "sealpack/init-result/v1",
        "folder": str(made.folder),
        "publisher": made.publisher,
        "root_digest": made.trust.root_digest,
        "root_words": made.words,
        "encrypted": passphrase is not None,
        "files": list(made.files),
    }
    text = "\n".join(
        (
            f"made      {made.folder}",
            f"root      {made.words}",
            "now       print recovery-sheet.html and move keys/root.pem to offline copies",
            "then      edit sealpack.toml and run: sealpack build MODEL",
        )
    )
    support.emit(result, text, fmt)
