"""`sealpack license sub|delegate-key`: the delegate's side; and what `license issue --delegate` does."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.builder.cli import license_project as shared
from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.build_record import BuildRecord
    from sealpack.builder.license_files import LicensedBundle
    from sealpack.builder.sublicensing import Delegate, Given
    from sealpack.format.license import License

_FILE = click.Path(dir_okay=False)
_DAY = click.DateTime(formats=["%Y-%m-%d"])
_REGISTRY = "sublicenses.jsonl"


def register(group: click.Group) -> None:
    """Add the verbs to `sealpack license`."""
    group.add_command(sub)
    group.add_command(delegate_key)


def delegate_options(command: Any) -> Any:
    """What `license issue` needs to name a delegate."""
    for option in (
        click.option("--delegate-devices", type=click.IntRange(min=1), help="Seats the delegates may give."),
        click.option(
            "--delegate-hpke",
            type=_FILE,
            help="The delegate's public hybrid key: --seal then wraps bundle keys for it.",
        ),
        click.option(
            "--delegate",
            "delegates",
            type=_FILE,
            multiple=True,
            help="Public key of who may give out sub-licenses; may be repeated.",
        ),
    ):
        command = option(command)
    return command


def delegated(
    license: License,
    options: dict[str, Any],
    read: list[LicensedBundle],
    opened: list[BuildRecord] | None,
) -> tuple[License, list[BuildRecord] | None]:
    """The draft with the delegates that `license issue` was told of, and the build records if opened."""
    if not options["delegates"]:
        if options["delegate_hpke"] or options["delegate_devices"]:
            raise SealpackError("USAGE", "--delegate-hpke and --delegate-devices need --delegate")
        return license, opened
    from sealpack.builder import keyfiles, sublicensing
    from sealpack.builder.cli import build_records

    hybrid = None
    if options["delegate_hpke"]:
        hybrid = keyfiles.load_hybrid_public(Path(options["delegate_hpke"]))
        given = options["records"], options["seal_passphrase_file"]
        opened = opened or build_records.of_licensed(*given, license, read, activates=True)
    made = sublicensing.delegated(
        license,
        [keyfiles.load_public(ref) for ref in options["delegates"]],
        max_devices=options["delegate_devices"],
        hybrid=hybrid,
        records=(opened or ()) if hybrid is not None else (),
    )
    return made, opened


@click.command("delegate-key", short_help="Make the key that bundle keys are wrapped for.")
@click.argument("path", type=_FILE)
@support.format_option
def delegate_key(path: str, fmt: str) -> None:
    """Make a delegate's hybrid key: PATH (private, mode 0600) and PATH.pub, which goes to the licensor.

    Only needed for encrypted bundles. The key that signs sub-licenses is made by `sealpack key new`.
    """
    from sealpack.builder import keyfiles
    from sealpack.format.hybrid import HybridPrivateKey

    private, public = keyfiles.write_hybrid(Path(path), HybridPrivateKey.generate())
    result = {"schema": "sealpack/delegate-key/v1", "private": str(private), "public": str(public)}
    support.emit(result, f"private  {private}\npublic   {public}", fmt)


@click.command(short_help="Give a part of a license to a site or a machine, as its delegate.")
@click.option("--parent", "parent_path", type=_FILE, required=True, help="License file that names your key.")
@click.option("--trust", "trust_path", type=_FILE, required=True, help="The licensor's trust file.")
@click.option("--key", "key_path", type=_FILE, required=True, help="Your key, a file or pkcs11:URI.")
@support.passphrase_option
@click.option("--hpke-key", type=_FILE, help="Your hybrid key, for encrypted bundles.")
@click.option("--name", required=True, help="What the sub-license is called below its parent, e.g. ward-3.")
@click.option("--until", "last_day", type=_DAY, help="Last day [default: the parent's].")
@click.option("--tz", default="UTC", show_default=True, help="The time zone of that day.")
@click.option("--devices", type=click.IntRange(min=1), help="Seats [default: all that are yours to give].")
@click.option("--quota", "quotas", multiple=True, help="e.g. calls=1000/day,deny; may be repeated.")
@click.option("--customer", help="The end customer's name [default: the parent's].")
@click.option("--customer-id", help="The end customer's id [default: from the name].")
@click.option("--support", "support_contact", help="Whom the end customer calls.")
@click.option("--device-label", help="What people call the machine.")
@click.option("--members", type=_FILE, help="JSON file with further members of a license, each narrower.")
@shared.request_option(
    "The device's activation request, as for `license issue`.",
)
@click.option("--registry", type=_FILE, help=f"Your registry [default: {_REGISTRY} beside the parent].")
@click.option("--out", type=_FILE, help="Output [default: NAME.license beside the parent].")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@support.format_option
def sub(fmt: str, **options: Any) -> None:
    """Sign a sub-license under the license in --parent, and with --request activate the device that asks.

    A sub-license says what differs from its parent, and nothing wider. Send your registry to the licensor,
    who settles what is used below the license.
    """
    from sealpack.builder import license_files, sublicensing
    from sealpack.verifier.cli import codes

    now = support.now()
    delegate = _delegate(options)
    parent = Path(options["parent_path"])
    registry = Path(options["registry"]) if options["registry"] else parent.with_name(_REGISTRY)
    lines = license_files.read_registry(registry)
    seq = sublicensing.next_seq(lines, f"{delegate.license.license_id}.{options['name']}")
    given = sublicensing.sublicense(delegate, options["name"], _stated(options), now=now, seq=seq)
    if options["requests"]:
        request = license_files.read_request(*codes.read_document(options["requests"]))
        given = sublicensing.activate(given, delegate, request, now=now, lines=lines)
    out = (
        Path(options["out"])
        if options["out"]
        else parent.with_name(f"{given.chain.license.license_id}.license")
    )
    license_files.deliver(out, given.parcel(delegate.trust), registry, given.line, overwrite=options["force"])
    _report(given, out, registry, fmt)


def _delegate(options: dict[str, Any]) -> Delegate:
    from sealpack.builder import keyfiles, sublicensing

    path = support.existing(options["parent_path"])
    parcel = shared.parcel_of(path)
    parent = shared.license_in(parcel, path)
    passphrase = Path(options["passphrase_file"]) if options["passphrase_file"] else None
    hybrid = options["hpke_key"]
    return sublicensing.Delegate(
        keyfiles.load_signer(options["key_path"], passphrase),
        parent,
        support.load_trust(options["trust_path"]).update(parcel.documents),
        keyfiles.load_hybrid(Path(hybrid)) if hybrid else None,
    )


def _stated(options: dict[str, Any]) -> dict[str, Any]:
    """What the sub-license says: the members of the file, and the options in their place."""
    from sealpack.builder import licensing
    from sealpack.builder.presets import Preset
    from sealpack.format.values import plain, readable

    stated = _members(options["members"])
    if options["last_day"]:
        stated["exp"] = licensing.day_end(options["last_day"].date(), licensing.zone(options["tz"]))
    if options["devices"]:
        stated["devices"] = {**stated.get("devices", {}), "max": options["devices"]}
    if options["quotas"]:
        rules = Preset(allow=())
        stated["quota"] = [plain(licensing.parse_quota(text, rules)) for text in options["quotas"]]
    if options["customer"]:
        name = options["customer"]
        stated["customer"] = {"id": options["customer_id"] or readable(name), "name": name}
    for member, option in (("support", "support_contact"), ("device_label", "device_label")):
        if options[option]:
            stated[member] = options[option]
    return stated


def _members(path: str | None) -> dict[str, Any]:
    from sealpack.format import canonical
    from sealpack.format.files import read_bounded
    from sealpack.format.limits import LIMITS

    if path is None:
        return {}
    try:
        found = json.loads(read_bounded(Path(path), LIMITS.document_bytes))
        canonical.dumps(found)
    except (ValueError, RecursionError) as error:
        raise SealpackError("USAGE", f"{path} holds no members of a license: {error}") from None
    if not isinstance(found, dict):
        raise SealpackError("USAGE", f"{path} is not an object")
    return found


def _report(given: Given, out: Path, registry: Path, fmt: str) -> None:
    license, parent = given.chain.license, given.chain.parent
    device = None
    if given.activation is not None:
        device = given.chain.open_activation(given.activation).device_id
    result = {
        "schema": "sealpack/sublicense-result/v1",
        "path": str(out),
        "registry": str(registry),
        "license_id": license.license_id,
        "parent": parent.license_id,
        "seq": license.seq,
        "device_id": device,
    }
    ends = (
        "no end"
        if license.exp is None
        else dt.datetime.fromtimestamp(license.exp, dt.UTC).strftime("%Y-%m-%d")
    )
    lines = [
        f"wrote     {out}",
        f"license   {license.license_id} number {license.seq}, below {parent.license_id}",
        f"customer  {license.customer.name} ({license.customer.id})",
        f"valid     until {ends}",
        f"device    {device} activated, first lease included"
        if device
        else "device    none yet: give --request",
        f"registry  {registry}",
    ]
    support.emit(result, "\n".join(lines), fmt)
