"""`sealpack install`: verify a bundle and keep a copy in the runtime's own store."""

from __future__ import annotations

from dataclasses import asdict

import click

from sealpack.runtime.cli.common import open_state, state_option
from sealpack.verifier.cli import support


@click.command(short_help="Verify a bundle and keep a copy for running.")
@click.argument("bundle", type=click.Path(dir_okay=False))
@click.option("--trust", "trust_file", type=click.Path(dir_okay=False), help="Pin this trust file first.")
@state_option
@support.format_option
def install(bundle: str, trust_file: str | None, state_dir: str | None, fmt: str) -> None:
    """Verify BUNDLE and copy it into the runtime's own store, where it is used in place.

    The copy is what gets verified, so later starts need not hash it again.
    """
    from sealpack.runtime import anchors, store

    size = support.existing(bundle).stat().st_size
    with open_state(state_dir, create=True) as state:
        if trust_file:
            anchors.pin(state, support.load_trust(trust_file))
        with support.progress_bar("copying", size) as bar:
            made = store.install(state, bundle, support.now(), bar.update)
        path = made.path(state.home)
    result = {"schema": "sealpack/installed/v1", **asdict(made), "path": str(path)}
    text = f"installed {made.bundle_id} {made.version} ({made.bundle_digest[:16]}), {made.size:,} bytes"
    support.emit(result, text, fmt)
