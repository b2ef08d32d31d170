"""`sealpack license release|transfer|renew|confirm|revoke`: what happens to a license after it was issued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.builder.cli import license_project as shared
from sealpack.builder.cli.trust_change import revoke as trust_revoke
from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.build_record import BuildRecord
    from sealpack.builder.config import Config
    from sealpack.builder.license_files import LicensedBundle
    from sealpack.builder.licensing import Issued, Issuer
    from sealpack.format.deactivation import Deactivation
    from sealpack.format.dsse import Envelope
    from sealpack.format.license import License
    from sealpack.format.registry import RegistryLine

_FILE = click.Path(dir_okay=False)
_DAY = click.DateTime(formats=["%Y-%m-%d"])


_ack_option = click.option(
    "--ack", type=_FILE, help="Settlement's acknowledgement of the closed log, up to its end."
)


@click.command(short_help="Register a closed device's proof: its seat is free.")
@click.argument("proof", type=_FILE)
@_ack_option
@shared.project_options
@support.format_option
def release(proof: str, ack: str | None, fmt: str, **options: Any) -> None:
    """Take the file that `sealpack activate close` wrote, and free the device's seat.

    Its part of a license-wide quota stays with it until its lease ends, or until settlement has its last
    usage file: give the acknowledgement with --ack, now or later. A delegate gives its own --registry and
    the licensor's --trust.
    """
    from sealpack.builder import license_files

    place = shared.place(options)
    said, line = _release(place, proof, ack, license_files.read_registry(place.registry))
    license_files.register(place.registry, line)
    lines = [_released(said), f"registry  {place.registry}"]
    support.emit(_proof_result(said, place), "\n".join(lines), fmt)


@click.command(short_help="Move a seat: free one device, activate another.")
@click.option("--from", "proof", type=_FILE, required=True, help="The closed device's proof.")
@shared.request_option(
    "The new device's activation request; as for `license issue`.",
    required=True,
)
@click.option("--existing", type=_FILE, help="License file [default: the newest one of the registry].")
@click.option("--seal", "records", type=_FILE, multiple=True, help="Build record of an encrypted bundle.")
@click.option("--seal-passphrase-file", type=_FILE, help="File whose first line opens the build records.")
@_ack_option
@click.option("--out", type=_FILE, help="Output [default: licenses/<license id>-<device>.license].")
@shared.issuer_options
def transfer(fmt: str, **options: Any) -> None:
    """Register the proof of one device and answer the request of another, both or neither."""
    from sealpack.builder import license_files, licensing
    from sealpack.builder.cli import build_records
    from sealpack.verifier.cli import codes

    now, place = support.now(), shared.place(options)
    issuer = place.issuer(options)
    known = license_files.read_registry(place.registry)
    said, freed = _release(place, options["proof"], options["ack"], known)
    if options["existing"]:
        issued = shared.existing(Path(options["existing"]), issuer.trust)
    else:
        issued = licensing.newest(known, said.license_id, issuer.trust)
    if issued.license.license_id != said.license_id:
        raise SealpackError(
            "DEVICE_MISMATCH", f"the proof is of license {said.license_id}, not {issued.license.license_id}"
        )
    records = build_records.of_licensed(
        options["records"], options["seal_passphrase_file"], issued.license, [], activates=True
    )
    request = license_files.read_request(*codes.read_document(options["requests"]))
    after = (*known, freed)
    issued = licensing.activate(issued, issuer, request, now=now, lines=after, records=records)
    out = Path(options["out"]) if options["out"] else place.default_out(issued)
    parcel, line = issued.parcel(issuer.trust), issued.line()
    license_files.deliver(out, parcel, place.registry, freed, line, overwrite=options["force"])
    result = _proof_result(said, place) | {
        "schema": "sealpack/license-transferred/v1",
        "path": str(out),
        "new_device_id": issued.device_id,
        "ceilings": _ceilings(issued),
    }
    lines = [_released(said), f"wrote     {out}", f"device    {issued.device_id} activated"]
    lines += _limits(issued)
    support.emit(result, "\n".join([*lines, f"registry  {place.registry}"]), fmt)


@click.command(short_help="Issue a license anew, with its devices.")
@click.argument("license_id", metavar="LICENSE")
@click.option("--until", "last_day", type=_DAY, help="New last local day.")
@click.option("--tz", default="UTC", show_default=True, help="The customer's time zone, for days.")
@click.option("--term-days", type=click.IntRange(min=1), help="Days from the first start, instead of an end.")
@click.option("--grace-days", type=click.IntRange(min=0), help="Days after the end.")
@click.option("--quota", "quotas", multiple=True, help="Quotas, in place of all old ones; may be repeated.")
@click.option("--allowance", "allowances", multiple=True, help="Use before the next settlement.")
@click.option("--devices", type=click.IntRange(min=1), help="Seats.")
@click.option("--plan", help="Price plan, e.g. edge-pro/1.")
@click.option("--order-ref", help="The customer's order.")
@click.option("--support", "support_contact", help="Whom the customer calls.")
@click.option("--out", type=_FILE, help="Output [default: licenses/<license id>-<number>.license].")
@shared.issuer_options
def renew(license_id: str, fmt: str, **options: Any) -> None:
    """Issue LICENSE again under the next number: what is not given stays as it was.

    The one file holds the new activation of every active device: none has to ask again, and keys of encrypted
    bundles go along.
    """
    from sealpack.builder import license_files, licensing

    now, place = support.now(), shared.place(options)
    issuer = place.issuer(options)
    known = license_files.read_registry(place.registry)
    old = licensing.newest(known, license_id, issuer.trust).license
    made = licensing.renew(_changed(old, place.config, now, options), issuer, known, now=now)
    license = made[0].license
    default = place.registry.parent / f"{license_id}-{license.seq}.license"
    out = Path(options["out"]) if options["out"] else default
    parcel = licensing.parcel_of(made, issuer.trust)
    license_files.deliver(
        out, parcel, place.registry, *(one.line() for one in made), overwrite=options["force"]
    )
    devices = [one.device_id for one in made if one.device_id]
    summary = shared.summary_of(license)
    result = summary | {"schema": "sealpack/license-renewed/v1", "path": str(out), "active_devices": devices}
    lines = [f"wrote     {out}", *shared.lines_of(summary), f"number    {license.seq}"]
    lines += [f"device    {name} goes on" for name in devices]
    support.emit(result, "\n".join([*lines, f"registry  {place.registry}"]), fmt)


def _changed(old: License, config: Config | None, now: int, options: dict[str, Any]) -> License:
    """The next document of a license: the old one with what was given in its place; USAGE if nothing was."""
    from sealpack.builder import licensing, profiles

    given: dict[str, Any] = {}
    if options["last_day"] and options["term_days"]:
        raise SealpackError("USAGE", "a license ends on a day or after a term, not both")
    if options["last_day"]:
        tz = licensing.zone(options["tz"])
        given |= {"exp": licensing.day_end(options["last_day"].date(), tz), "term_s": None}
    if options["term_days"]:
        given |= {"term_s": shared.days(options["term_days"]), "exp": None}
    if options["grace_days"] is not None:
        given["grace_s"] = shared.days(options["grace_days"])
    if options["quotas"]:
        tier = profiles.find(old.tier, profiles.known(config.license.profiles if config else {}))
        given["quota"] = tuple(licensing.parse_quota(text, tier) for text in options["quotas"])
    if options["allowances"]:
        allowance = tuple(map(licensing.parse_allowance, options["allowances"]))
        given["lease"] = replace(old.lease, allowance=allowance)
    if options["devices"]:
        given["devices"] = replace(old.devices, max=options["devices"])
    if options["plan"]:
        given["plan"] = shared.plan_of(options["plan"])
    for name, option in (("order_ref", "order_ref"), ("support", "support_contact")):
        if options[option]:
            given[name] = options[option]
    if not given:
        raise SealpackError("USAGE", "say what changes: --until, --devices, --quota or another option")
    return replace(old, seq=old.seq + 1, issued_at=now, **given)


@click.command(short_help="Say which device a confirmation code is of.")
@click.argument("license_id", metavar="LICENSE")
@click.argument("code")
@shared.project_options
@support.format_option
def confirm(license_id: str, code: str, fmt: str, **options: Any) -> None:
    """Check the CODE that `sealpack activate install` showed, and note in the registry whose it is."""
    from sealpack.builder import license_files, licensing

    now, place = support.now(), shared.place(options)
    known = license_files.read_registry(place.registry)
    seat, line = licensing.confirm(license_id, code, place.trust, known, now=now)
    if seat.confirmed is None:
        license_files.register(place.registry, line)
    result = {
        "schema": "sealpack/license-confirmed/v1",
        "license_id": license_id,
        "device_id": seat.activation.device_id,
        "device_label": seat.activation.device_label or "",
        "confirmed_before": seat.confirmed is not None,
    }
    support.emit(result, f"confirmed {seat.name} under license {license_id}", fmt)


@click.command(short_help="Withdraw a license or a device.")
@click.argument("name", metavar="LICENSE|DEVICE")
@click.option(
    "--root-key", "root_keys", type=_FILE, multiple=True, required=True, help="As for `trust revoke`."
)
@click.option("--passphrase-file", "passphrase_files", type=_FILE, multiple=True, help="Likewise.")
@click.option(
    "--trust", "path", type=_FILE, default="trust/trust.json", show_default=True, help="Trust file."
)
@support.format_option
@click.pass_context
def revoke(
    context: click.Context,
    name: str,
    root_keys: tuple[str, ...],
    passphrase_files: tuple[str, ...],
    path: str,
    fmt: str,
) -> None:
    """Withdraw a license id, or a device (`dev-...`): `sealpack trust revoke` by another name."""
    import re

    from sealpack.format.activation import DEVICE_ID

    named: dict[str, tuple[str, ...]] = dict.fromkeys(
        ("keys", "good", "bundles", "licenses", "devices", "floors"), ()
    )
    named["devices" if re.fullmatch(DEVICE_ID, name) else "licenses"] = (name,)
    context.invoke(
        trust_revoke,
        path=path,
        root_keys=root_keys,
        passphrase_files=passphrase_files,
        fmt=fmt,
        **named,
    )


def answer_batch(
    place: shared.Place,
    issuer: Issuer,
    issued: Issued,
    records: Sequence[BuildRecord],
    read: Sequence[LicensedBundle],
    options: dict[str, Any],
    fmt: str,
) -> None:
    """`license issue --batch DIR`: answer every request in a folder with one file."""
    from sealpack.builder import license_files, licensing

    if options["requests"] or options["qr_folder"]:
        raise SealpackError("USAGE", "--batch stands alone, without --request and --qr")
    folder = Path(options["batch"])
    if not folder.is_dir():
        raise SealpackError("FILE_MISSING", f"{folder} is not a folder")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    requests = [license_files.read_request(path.read_bytes(), str(path)) for path in files]
    if not requests:
        raise SealpackError("USAGE", f"{folder} holds no activation request")
    known = license_files.read_registry(place.registry)
    made = licensing.activate_all(issued, issuer, requests, now=support.now(), lines=known, records=records)
    out = Path(options["out"]) if options["out"] else place.default_out(made[0])
    facts = tuple(bundle.fact for bundle in read)
    lines = [one.line(facts) for one in made]
    parcel = licensing.parcel_of(made, issuer.trust)
    license_files.deliver(out, parcel, place.registry, *lines, overwrite=options["force"])
    summary = shared.summary_of(issued.license)
    devices = [one.device_id for one in made]
    result = summary | {
        "schema": "sealpack/license-batch/v1",
        "path": str(out),
        "registry": str(place.registry),
        "devices_activated": devices,
    }
    told = [
        f"wrote     {out}",
        *shared.lines_of(summary),
        *(f"device    {name} activated" for name in devices),
    ]
    support.emit(result, "\n".join([*told, f"registry  {place.registry}"]), fmt)


def register(group: click.Group) -> None:
    """Put these verbs below `sealpack license`."""
    for command in (release, transfer, renew, confirm, revoke):
        group.add_command(command)


def _release(
    place: shared.Place, proof: str, ack: str | None, known: Sequence[RegistryLine]
) -> tuple[Deactivation, RegistryLine]:
    from sealpack.builder import licensing, sublicensing

    envelope = _only(proof, "deactivation")
    acknowledgement = None if ack is None else _only(ack, "acknowledgement")
    now = support.now()
    return sublicensing.release(
        envelope, place.trust, known, now=now, acknowledgement=acknowledgement
    ) or licensing.release(envelope, place.trust, known, now=now, acknowledgement=acknowledgement)


def _only(path: str, kind: str) -> Envelope:
    """The one document of `kind` in a file; DOC_TYPE."""
    found = shared.parcel_of(support.existing(path)).of_kind(kind)
    if len(found) != 1:
        raise SealpackError("DOC_TYPE", f"{path} holds {len(found)} documents of kind {kind}, not one")
    return found[0]


def _proof_result(said: Deactivation, place: shared.Place) -> dict[str, Any]:
    return {
        "schema": "sealpack/license-released/v1",
        "license_id": said.license_id,
        "device_id": said.device_id,
        "epoch": said.epoch,
        "used": dict(said.used),
        "registry": str(place.registry),
    }


def _released(said: Deactivation) -> str:
    used = ", ".join(f"{count:,} {meter}" for meter, count in said.used.items()) or "nothing used"
    return f"released  {said.device_id}: log {said.epoch} of {said.license_id} is closed, {used}"


def _ceilings(issued: Issued) -> list[dict[str, Any]]:
    from sealpack.format import documents

    assert issued.lease is not None
    fields = documents.payload_fields(issued.lease, "lease")
    found: list[dict[str, Any]] = fields.raw("ceilings")
    return found


def _limits(issued: Issued) -> list[str]:
    return [f"ceiling   {c['limit']:,} {c['meter']}" for c in _ceilings(issued)]
