"""`sealpack license repair`, and what `license issue` does so that a site can begin today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.builder.cli import license_project as shared
from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.build_record import BuildRecord
    from sealpack.builder.license_files import LicensedBundle
    from sealpack.format.activation import ActivationRequest
    from sealpack.format.license import License
    from sealpack.format.trust import Trust


def issue_options(command: Any) -> Any:
    """The options of `license issue` that :func:`finish` reads."""
    for option in (
        click.option(
            "--site-code",
            is_flag=True,
            help="Make a code that opens the encrypted builds of --seal before the activation.",
        ),
        click.option(
            "--on-back",
            type=click.Choice(("continue", "deny")),
            help="What a clock set back by more than a day does [default: continue].",
        ),
        click.option(
            "--provisional-calls", type=click.IntRange(min=0), help="Calls before the activation, once."
        ),
        click.option(
            "--provisional-hours", type=click.IntRange(min=0), help="Hours before the activation, once."
        ),
    ):
        command = option(command)
    return command


def finish(
    drafted: License, options: dict[str, Any], read: Sequence[LicensedBundle]
) -> tuple[License, str | None, list[BuildRecord] | None]:
    """The draft with what helps a site begin; its site code, and the build records if they were opened."""
    from sealpack.builder import repairs
    from sealpack.builder.cli import build_records
    from sealpack.format.license import ClockRules, Provisional

    hours, calls = options["provisional_hours"], options["provisional_calls"]
    if (hours is None) != (calls is None):
        raise SealpackError(
            "USAGE", "provisional use has both ends: --provisional-hours, --provisional-calls"
        )
    if hours is not None and drafted.devices.binding == "none":
        raise SealpackError("USAGE", "a license that binds no device needs no provisional use")
    if hours is not None:
        drafted = replace(drafted, provisional=Provisional(hours * 3600, calls))
    if options["on_back"] is not None:
        drafted = replace(drafted, clock=ClockRules(options["on_back"]))
    if not options["site_code"]:
        return drafted, None, None
    given = options["records"], options["seal_passphrase_file"]
    records = build_records.of_licensed(*given, drafted, read, activates=True)
    drafted, code = repairs.with_site_keys(drafted, records)
    return drafted, code, records


@click.command(short_help="Help a device after an accident: clock, hardware, log.")
@shared.request_option(
    "The device's new activation request: its file, scanned texts or pictures of its codes.",
    required=True,
)
@click.option("--license-id", help="Under which license [default: the one the request names].")
@click.option("--now", "clock", is_flag=True, help="Tell the device that it is now: its clock was ahead.")
@click.option("--fingerprint", is_flag=True, help="Accept the hardware that the request tells.")
@click.option("--epoch", type=click.IntRange(min=0), help="Let the device open this log.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="File to write.")
@shared.issuer_options
def repair(fmt: str, **options: Any) -> None:
    """Write a repair for the device that made the request: it counts there, once.

    The device imports it like a license file: `sealpack activate install FILE`. The request is used up
    by it.
    """
    from sealpack.builder import license_files, repairs
    from sealpack.format.documents import Parcel
    from sealpack.format.files import atomic_write
    from sealpack.verifier.cli import codes

    now, out = support.now(), Path(options["out"])
    support.refuse_existing(str(out), options["force"])
    place = shared.place(options)
    issuer = place.issuer(options)
    request = license_files.read_request(*codes.read_document(options["requests"]))
    license = _registered(place.registry, issuer.trust, request, options["license_id"])
    envelope = repairs.repair(
        license,
        issuer,
        request,
        now,
        now=now if options["clock"] else None,
        epoch=options["epoch"],
        fingerprint=options["fingerprint"],
    )
    parcel = Parcel((*issuer.trust.chain, envelope))
    atomic_write(out, parcel.to_bytes(), replace=options["force"])
    result = {
        "schema": "sealpack/repair-result/v1",
        "path": str(out),
        "license_id": license.license_id,
        "device_id": request.device_id,
    }
    lines = [f"wrote     {out}", f"device    {request.device_id} under {license.license_id}"]
    lines.append("next      the customer runs `sealpack activate install` with it")
    support.emit(result, "\n".join(lines), fmt)


def _registered(registry: Path, trust: Trust, request: ActivationRequest, wanted: str | None) -> License:
    """The license to repair under: named, asked for, or the only one that activated the device."""
    from sealpack.builder import license_files, licensing

    known = licensing.registered(license_files.read_registry(registry), trust)
    name = wanted or request.license_id
    fitting = [
        one for one in known if (one.license.license_id == name if name else request.device_id in one.devices)
    ]
    if len(fitting) != 1:
        who = f"license {name}" if name else f"device {request.device_id}"
        raise SealpackError(
            "USAGE", f"{who} stands under {len(fitting)} licenses of {registry}: give --license-id"
        )
    if fitting[0].revoked is not None:
        raise SealpackError("LIC_REVOKED", f"license {fitting[0].license.license_id} was revoked")
    return fitting[0].license
