"""`sealpack demo`: the main job in one command, on two real models."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

NEEDS = ("numpy", "onnx", "onnxruntime", "llama_cpp", "cyclonedx", "sqlalchemy", "yaml")


@click.command(short_help="The main job in one command, on real models.")
@click.option(
    "--keep", "keep_in", type=click.Path(file_okay=False), help="Keep what was made in this new folder."
)
def demo(keep_in: str | None) -> None:
    """Build, verify, activate, run, meter, settle and invoice two real models on this machine.

    Keys are made for the occasion and thrown away. Without --keep everything is removed at the end.
    """
    support.require_extra("all", *NEEDS)
    from sealpack.builder.demo import story

    folder = Path(keep_in) if keep_in else None
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise SealpackError("OUTPUT_EXISTS", f"{folder} is not empty", remedy="choose a new folder")
    with tempfile.TemporaryDirectory(prefix="sealpack-demo-") as work:
        places = story.Places(Path(work))
        story.tell(places, click.echo)
        if folder is None:
            click.echo("Everything was made in a temporary folder and is gone; keep it with --keep DIR.")
            return
        kept = story.keep(places, folder)
    click.echo("Where everything lies:")
    for path in kept:
        click.echo(f"  {path}")
