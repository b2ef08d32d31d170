"""`sealpack license epoch-token`: leave for a device to begin a further log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.builder.cli import license_project as shared
from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.license import License
    from sealpack.format.trust import Trust


@click.command("epoch-token", short_help="Let a device begin a further log.")
@click.option("--license-id", required=True, help="Under which license.")
@click.option("--device", "device_id", required=True, help="The device, dev-...")
@click.option("--epoch", type=click.IntRange(min=1), required=True, help="The log it may begin.")
@click.option("--reason", help="Why, for people.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="File to write.")
@shared.issuer_options
def epoch_token(fmt: str, **options: Any) -> None:
    """Write leave for a device to begin log EPOCH after its state was set back more than once.

    The device imports it with `sealpack activate install FILE`; finance imports it with `sealpack settle
    import FILE`, which sets the files free that waited for it (H215). `sealpack settle` tells both
    numbers: the file that is held names the device and its log.
    """
    from sealpack.format import documents
    from sealpack.format.documents import Parcel
    from sealpack.format.epoch_token import EpochToken
    from sealpack.format.files import atomic_write

    out = Path(options["out"])
    support.refuse_existing(str(out), options["force"])
    place = shared.place(options)
    issuer = place.issuer(options)
    license = _registered(place.registry, issuer.trust, options["license_id"], options["device_id"])
    token = EpochToken(
        license.license_id, options["device_id"], options["epoch"], support.now(), options["reason"]
    )
    envelope = documents.seal("epoch-token", token.to_dict(), *issuer.signers)
    EpochToken.open(envelope, issuer.trust, license.issuer)
    parcel = Parcel((*issuer.trust.chain, envelope))
    atomic_write(out, parcel.to_bytes(), replace=options["force"])
    result = {
        "schema": "sealpack/epoch-token-result/v1", "path": str(out), "license_id": license.license_id,
        "device_id": token.device_id, "epoch": token.epoch,
    }  # fmt: skip
    lines = [
        f"wrote     {out}",
        f"device    {token.device_id} may begin log {token.epoch} under {license.license_id}",
        "next      the customer runs `sealpack activate install` with it",
        "          finance runs `sealpack settle import` with it",
    ]
    support.emit(result, "\n".join(lines), fmt)


def _registered(registry: Path, trust: Trust, license_id: str, device_id: str) -> License:
    """The license, when it activated the device; USAGE otherwise."""
    from sealpack.builder import license_files, licensing

    for known in licensing.registered(license_files.read_registry(registry), trust):
        if known.license.license_id == license_id and device_id in known.devices:
            return known.license
    raise SealpackError("USAGE", f"{registry} knows no device {device_id} under license {license_id}")
