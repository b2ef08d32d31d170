"""`sealpack settle serve`: settlement over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.settlement.ack import Signers
    from sealpack.settlement.db import Database

_FILE = click.Path(dir_okay=False)


@click.command(short_help="Take usage and give replies over HTTP.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8473, show_default=True, help="0: any free one."
)
@click.option("--tls-cert", type=_FILE, help="Certificate chain (PEM).")
@click.option("--tls-key", type=_FILE, help="Its private key (PEM, not encrypted).")
@click.option("--behind-proxy", is_flag=True, help="A proxy in front does TLS: listen on any host without.")
@click.option("--queue", is_flag=True, help="Only keep uploads; `settle work` decides them.")
@common.signer_options(required=False)
def serve(
    host: str, port: int, tls_cert: str | None, tls_key: str | None, behind_proxy: bool, queue: bool,
    key: str | None, witness: str | None, passphrase_file: str | None,
) -> None:  # fmt: skip
    """Serve the HTTP API until stopped; who may call it: `sealpack settle token`.

    With --key acknowledgements are made when they are asked for; without it those made elsewhere are given.
    """
    support.require_extra("service", "starlette", "uvicorn", "jinja2", "python_multipart")
    with common.open_database() as database:
        from sealpack.settlement.service.core import Service
        from sealpack.settlement.service.server import Address, serve as run

        address = Address(host, port, tls_cert, tls_key, behind_proxy)
        address.check()
        signers = common.signers(key, witness, passphrase_file) if key else None
        if signers is not None:
            _check(database, signers)
        run(Service(database, signers, queue=queue), address, support.note)


def _check(database: Database, signers: Signers) -> None:
    """Tell now of keys that devices would not believe. Before the first trust file nobody can say."""
    from sealpack.settlement import registry

    with database.read() as connection:
        try:
            trust = registry.load_trust(connection)
        except SealpackError as error:
            if error.code != "TRUST_UNPINNED":
                raise
            support.note("no trust file is imported yet: the keys are looked at when the first reply is made")
            return
    signers.check(trust)
