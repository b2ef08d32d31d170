"""`sealpack license`: issue, list and show licenses."""

from __future__ import annotations

import datetime as dt
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.builder.cli import (
    license_epoch,
    license_help,
    license_project as shared,
    license_seats,
    license_sub,
    license_words,
)
from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.config import Config
    from sealpack.builder.license_files import LicensedBundle
    from sealpack.builder.licensing import Issued, Offer

_FILE = click.Path(dir_okay=False)
_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group(short_help="Issue, list and show licenses.")
def license() -> None:
    """Issue, list and show licenses."""


@license.command(short_help="Issue a license, or activate a device under one.")
@shared.project_options
@click.option(
    "--preset", help="open_source, free_dev, academic, pro, commercial, enterprise, or a profile of yours."
)
@click.option("--bundle", "bundles", type=_FILE, multiple=True, help="Bundle to license; may be repeated.")
@click.option("--bundle-id", multiple=True, help="Bundle id to license without its file.")
@click.option("--exact", is_flag=True, help="License these very builds, not later versions.")
@click.option("--customer", help="The customer's name.")
@click.option("--customer-id", help="The customer's id, e.g. hospital-nord [default: from the name].")
@click.option("--license-id", help="License id [default: made from customer and date].")
@click.option("--from", "first_day", type=_DAY, help="First local day [default: now].")
@click.option("--until", "last_day", type=_DAY, help="Last local day [default: the preset's year].")
@click.option("--tz", default="UTC", show_default=True, help="The customer's time zone, for days.")
@click.option(
    "--term-days", type=click.IntRange(min=1), help="Days from the first start, instead of --until."
)
@click.option("--grace-days", type=click.IntRange(min=0), help="Days after the end [default: the preset's].")
@click.option("--quota", "quotas", multiple=True, help="e.g. calls=1000/day,deny; may be repeated.")
@click.option("--binding", type=click.Choice(("none", "key", "key+fp", "tpm")), help="How devices are bound.")
@click.option("--devices", type=click.IntRange(min=1), help="Seats.")
@click.option("--vm/--no-vm", default=None, help="Whether virtual machines may be used.")
@click.option("--container/--no-container", default=None, help="Whether containers may be used.")
@click.option("--qps", type=click.IntRange(min=0), help="Calls per second.")
@click.option("--burst", type=click.IntRange(min=0), help="Calls at once after a pause.")
@click.option("--inflight", type=click.IntRange(min=0), help="Calls running at the same time.")
@click.option("--processes", type=click.IntRange(min=0), help="Programs that have the model loaded.")
@click.option("--lease-days", type=click.IntRange(min=0), help="Settle at least every N days; 0: never.")
@click.option(
    "--on-stale",
    type=click.Choice(("deny", "throttle", "warn")),
    help="What happens when usage was not settled in time.",
)
@click.option("--feature", "features", multiple=True, help="A word for what it covers beyond the base.")
@click.option("--plan", help="Price plan, e.g. edge-pro/1.")
@click.option("--order-ref", help="The customer's order.")
@license_help.issue_options
@click.option("--support", "support_contact", help="Whom the customer calls.")
@click.option("--device-label", help="What people call the machine.")
@click.option("--test", "test", is_flag=True, help="A test license: recorded, never billed.")
@click.option("--advisory", is_flag=True, help="Log and bill, but never deny.")
@click.option("--existing", type=_FILE, help="License file to activate a device under, instead of a new one.")
@shared.request_option(
    "The device's activation request: its file; or scanned texts or pictures of its QR codes, may be "
    "repeated; - is standard input.",
)
@click.option(
    "--batch",
    "batch",
    type=click.Path(file_okay=False),
    help="Folder of activation requests, instead of --request: one file answers them all.",
)
@click.option(
    "--seal",
    "records",
    type=_FILE,
    multiple=True,
    help="Build record of an encrypted bundle; with --request.",
)
@click.option("--seal-passphrase-file", type=_FILE, help="File whose first line opens the build records.")
@click.option(
    "--allowance", "allowances", multiple=True, help="Use before the next settlement, e.g. calls=100000."
)
@click.option(
    "--key", "key_path", type=_FILE, help="License key, a file or pkcs11:URI [default: the project's]."
)
@click.option(
    "--mldsa-key",
    "mldsa_path",
    type=_FILE,
    help="ML-DSA-65 key that signs too [default: NAME.mldsa.pem beside the key, if the keyring lists one].",
)
@support.passphrase_option
@click.option("--out", type=_FILE, help="Output [default: licenses/<license id>.license].")
@click.option(
    "--qr",
    "qr_folder",
    type=click.Path(file_okay=False),
    help="Folder for the file as QR codes too.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@license_sub.delegate_options
@support.format_option
def issue(fmt: str, **options: Any) -> None:
    """Issue a license file for a customer; with --request also activate the device that asks.

    The file carries license, activation, first lease and the trust documents. Its registry line goes to
    the project's registry, which `sealpack settle import` takes. An encrypted bundle opens on a device only
    when its build record was given with --seal: give all that the device is to open, each time it asks.
    """
    from sealpack.builder import license_files, licensing
    from sealpack.builder.cli import build_records
    from sealpack.verifier.cli import codes

    now = support.now()
    place = shared.place(options)
    issuer = place.issuer(options)
    read = [license_files.read_bundle(support.existing(p), issuer.trust) for p in options["bundles"]]
    lines = license_files.read_registry(place.registry)
    site_code, opened = None, None
    if options["existing"]:
        issued = shared.existing(Path(options["existing"]), issuer.trust)
    else:
        offer = _offer(options, place.config, read, now)
        _check_new(offer.license_id, lines)
        drafted = licensing.draft(offer, issuer.name, now)
        drafted, site_code, opened = license_help.finish(drafted, options, read)
        drafted, opened = license_sub.delegated(drafted, options, read, opened)
        issued = licensing.issue(drafted, issuer)
    records = opened or build_records.of_licensed(
        options["records"],
        options["seal_passphrase_file"],
        issued.license,
        read,
        activates=bool(options["requests"] or options["batch"]),
    )
    if options["batch"]:
        license_seats.answer_batch(place, issuer, issued, records, read, options, fmt)
        return
    if options["requests"]:
        request = license_files.read_request(*codes.read_document(options["requests"]))
        issued = licensing.activate(issued, issuer, request, now=now, lines=lines, records=records)
    elif options["existing"]:
        raise SealpackError("USAGE", "--existing needs the device's --request")
    out = Path(options["out"]) if options["out"] else place.default_out(issued)
    line = issued.line(tuple(bundle.fact for bundle in read))
    parcel = issued.parcel(issuer.trust)
    pictures = shared.Pictures.of(parcel, options["qr_folder"], out, options["force"])
    license_files.deliver(out, parcel, place.registry, line, overwrite=options["force"])
    _report(issued, out, place.registry, pictures.write(), site_code, bool(records), fmt)


def _offer(options: dict[str, Any], config: Config | None, read: list[LicensedBundle], now: int) -> Offer:
    from sealpack.builder import licensing, profiles
    from sealpack.format.license import Customer, Rate
    from sealpack.format.values import readable

    missing = [f"--{name}" for name in ("preset", "customer") if not options[name]]
    if missing:
        raise SealpackError("USAGE", f"a new license needs {', '.join(missing)}")
    options["customer_id"] = options["customer_id"] or readable(options["customer"])
    base = profiles.find(options["preset"], profiles.known(config.license.profiles if config else {}))
    tz = licensing.zone(options["tz"])
    first, last = options["first_day"], options["last_day"]
    ends = licensing.day_end(last.date(), tz) if last else None
    if ends is None and base.term == "year" and not options["term_days"]:
        ends = licensing.day_end(licensing.year_later(now, tz), tz)
    return licensing.Offer(
        preset=options["preset"],
        license_id=_license_id(options, read, now),
        customer=Customer(options["customer_id"], options["customer"]),
        grants=_grants(options, read),
        terms=_terms(config, read),
        starts=licensing.day_start(first.date(), tz) if first else None,
        ends=ends,
        term_s=shared.days(options["term_days"]),
        grace_s=shared.days(options["grace_days"]),
        quota=tuple(licensing.parse_quota(text, base) for text in options["quotas"]),
        allowance=tuple(map(licensing.parse_allowance, options["allowances"])),
        binding=options["binding"],
        devices=options["devices"],
        plan=shared.plan_of(options["plan"]),
        environment="test" if options["test"] else "live",
        enforcement="advisory" if options["advisory"] else "enforce",
        support=options["support_contact"] or (config.bundle.support if config else None),
        order_ref=options["order_ref"],
        device_label=options["device_label"],
        features=options["features"],
        profile=base,
        limits=Rate(*(options[name] for name in ("qps", "burst", "inflight", "processes"))),
        vm=options["vm"],
        container=options["container"],
        settle_s=shared.days(options["lease_days"]),
        on_stale=options["on_stale"],
    )


def _license_id(options: dict[str, Any], read: list[LicensedBundle], now: int) -> str:
    """A marked build names its license; otherwise the caller's, or one made from customer and day."""
    marks = {b.manifest.watermark.license_id for b in read if b.manifest.watermark is not None}
    given: str | None = options["license_id"]
    if len(marks | ({given} if given else set())) > 1:
        raise SealpackError(
            "BUNDLE_MISMATCH", f"the marked bundle is for license {', '.join(sorted(marks))} alone"
        )
    day = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%d")
    return given or next(iter(marks), None) or f"{options['customer_id']}-{day}-{secrets.token_hex(2)}"


def _check_new(license_id: str, lines: Any) -> None:
    """Two different licenses under one id could never be told apart later.

    An id stays taken when the key that signed it was revoked, so signatures are not asked for here.
    """
    from sealpack.format.documents import payload_fields
    from sealpack.format.license import License

    issued = (
        License.parse(payload_fields(x.license, "license", "LIC_SCHEMA"), x.license.digest) for x in lines
    )
    if any(license.license_id == license_id for license in issued):
        raise SealpackError(
            "LIC_CONFLICT",
            f"license {license_id} was issued before",
            remedy="choose another --license-id, or activate a device with --existing",
        )


def _grants(options: dict[str, Any], read: list[LicensedBundle]) -> Any:
    from sealpack.format.license import BundleGrant

    grants = [bundle.grant(exact=options["exact"]) for bundle in read]
    grants += [BundleGrant(name) for name in options["bundle_id"]]
    if not grants:
        raise SealpackError("USAGE", "say what is licensed: --bundle FILE or --bundle-id ID")
    return tuple(grants)


def _terms(config: Config | None, read: list[LicensedBundle]) -> Any:
    terms = {bundle.terms.digest: bundle.terms for bundle in read}
    if len(terms) > 1:
        raise SealpackError("USAGE", "the bundles have different terms: issue one license for each")
    if terms:
        return next(iter(terms.values()))
    if config is None:
        raise SealpackError("USAGE", "the terms are unknown: give --bundle, or run this in a project folder")
    from sealpack.builder.enclosures import terms as configured

    return configured(config)


def _report(
    issued: Issued,
    out: Path,
    registry: Path,
    pictures: list[Path],
    site_code: str | None,
    opens_builds: bool,
    fmt: str,
) -> None:
    summary = shared.summary_of(issued.license)
    result = summary | {
        "schema": "sealpack/license-result/v1",
        "path": str(out),
        "registry": str(registry),
        "device_id": issued.device_id,
        "holds_hardware": issued.holds_hardware,
        "pictures": [str(path) for path in pictures],
    }
    lines = [*(f"wrote     {path}" for path in (out, *pictures)), *shared.lines_of(summary)]
    if issued.device_id:
        lines.append(f"device    {issued.device_id} activated, first lease included")
        if not issued.holds_hardware:
            lines.append("warning   the request told too little hardware, it is held to its key alone")
        if issued.license.site_keys and not opens_builds:
            lines.append("warning   no build key went along (--seal): the site code alone opens the bundle")
        lines.append(f"next      send the file; `sealpack license confirm {issued.license.license_id} CODE`")
    elif issued.license.devices.binding != "none":
        lines.append("next      the customer runs `sealpack activate request`; answer with --existing")
    lines.append(f"registry  {registry}")
    if site_code is not None:
        result["site_code"] = site_code
        lines.append(f"site code {site_code}  (send it apart from the file; it is kept nowhere)")
    support.emit(result, "\n".join(lines), fmt)


@license.command("list", short_help="List the licenses of the registry.")
@shared.project_options
@support.format_option
def list_(fmt: str, **options: Any) -> None:
    """List every license in the project's registry, checked against the trust file.

    Revoked ones, and those that a revoked key signed, are listed as such.
    """
    from sealpack.builder import license_files, licensing

    place = shared.place(options)
    rows = [
        shared.summary_of(one.license) | {"active_devices": list(one.devices), "revoked": one.revoked}
        for one in licensing.registered(license_files.read_registry(place.registry), place.trust)
    ]
    text = [f"{'license':<32} {'customer':<24} {'preset':<12} {'ends':<22} devices"]
    text += [_row(row) for row in rows]
    result = {"schema": "sealpack/license-list/v1", "licenses": rows}
    support.emit(result, "\n".join(text) if rows else "no license was issued yet", fmt)


def _row(row: dict[str, Any]) -> str:
    ends = shared.day(row["exp"]) if "exp" in row else ("by first start" if "term_s" in row else "never")
    seats = f"{len(row['active_devices'])}/{row['devices'].get('max', 'any')}"
    note = {None: "", "key": "  its key was revoked", "license": "  revoked"}[row["revoked"]]
    start = f"{row['license_id']:<32} {row['customer']['name']:<24.24} {row['tier']:<12} {ends:<22}"
    return f"{start} {seats}{note}"


@license.command(short_help="Print a license file.")
@click.argument("path", type=_FILE)
@shared.project_options
@support.format_option
def show(path: str, fmt: str, **options: Any) -> None:
    """Print what the license file PATH says, after checking it against the trust file."""
    from sealpack.format.license import open_license

    place = shared.place(options)
    summary = shared.summary_of(open_license(shared.envelope_of(support.existing(path)), place.trust))
    support.emit(summary, "\n".join(shared.lines_of(summary)), fmt)


license_words.register(license, shared.project_options)
license_sub.register(license)
license.add_command(license_help.repair)
license.add_command(license_epoch.epoch_token)
license_seats.register(license)
