"""What the verbs of `sealpack license` share: their project, and how a license is told in short."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.config import Config
    from sealpack.builder.licensing import Issued, Issuer
    from sealpack.format.documents import Parcel
    from sealpack.format.dsse import Envelope
    from sealpack.format.license import License
    from sealpack.format.trust import Trust

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(dir_okay=False)
REGISTRY = "licenses/registry.jsonl"


def project_options(command: Any) -> Any:
    for option in (
        click.option("--trust", "trust_path", type=FILE, help="Trust file [default: the project's]."),
        click.option("--registry", type=FILE, help=f"Registry [default: {REGISTRY} of the project]."),
        click.option(
            "--project",
            "folder",
            type=click.Path(file_okay=False),
            default=".",
            help="Project folder [default: here].",
        ),
    ):
        command = option(command)
    return command


def issuer_options(command: Any) -> Any:
    """The project, and the keys that sign."""
    for option in (
        support.format_option,
        click.option("--force", is_flag=True, help="Replace an existing output."),
        support.passphrase_option,
        click.option("--mldsa-key", "mldsa_path", type=FILE, help="ML-DSA-65 key that signs too."),
        click.option("--key", "key_path", type=FILE, help="License key [default: the project's]."),
        project_options,
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Pictures:
    """The codes of a license file: made before the license is out, written after it."""

    path: Path
    texts: tuple[str, ...]
    force: bool

    @classmethod
    def of(cls, parcel: Parcel, folder: str | None, out: Path, force: bool) -> Pictures:
        """None without a folder; else everything that can be known to fail fails here."""
        from sealpack.format import qr
        from sealpack.verifier.cli import codes

        if folder is None:
            return cls(out, (), force)
        codes.require_segno("builder")
        made = cls(Path(folder) / f"{out.stem}.png", qr.frames(parcel.to_bytes()), force)
        codes.targets(made.path, len(made.texts), force=force)
        return made

    def write(self) -> list[Path]:
        """The files written."""
        from sealpack.verifier.cli import codes

        if not self.texts:
            return []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise io_error(error, self.path.parent, "write") from None
        return codes.save(self.path, self.texts, force=self.force)


@dataclass(frozen=True, slots=True)
class Place:
    """Where things stand: the project's folder, its configuration if it has one, its registry."""

    folder: Path
    config: Config | None
    registry: Path
    trust: Trust

    def issuer(self, options: dict[str, Any]) -> Issuer:
        """The license key with its trust."""
        from sealpack.builder.keyfiles import load_mldsa, load_signer
        from sealpack.builder.licensing import Issuer

        own = self.config.keys if self.config else None
        key = options["key_path"] or (own.license if own else None)
        if key is None:
            raise SealpackError("USAGE", "no license key: give --key, or keys.license in sealpack.toml")
        given = options["passphrase_file"] or (own.passphrase_file if own else None)
        passphrase = Path(given) if given else None
        signer = load_signer(key, passphrase)
        second = Path(options["mldsa_path"]) if options["mldsa_path"] else None
        entry = self.trust.keyring.entries.get(signer.keyid)
        return Issuer(signer, self.trust, load_mldsa(second, key, entry, passphrase))

    def default_out(self, issued: Issued) -> Path:
        """Beside the registry, named after the license and, for a further device, the device."""
        name = issued.license.license_id
        if issued.device_id and (self.registry.parent / f"{name}.license").exists():
            name = f"{name}-{issued.device_id}"
        return self.registry.parent / f"{name}.license"


def place(options: dict[str, Any]) -> Place:
    from sealpack.builder import config as configs

    folder = Path(options["folder"])
    path = folder / configs.CONFIG_NAME
    config = configs.load(path) if path.exists() else None
    trust = options["trust_path"] or (config.trust if config else None)
    if trust is None:
        raise SealpackError("USAGE", f"no trust file: give --trust, or run this in a project folder ({path})")
    registry = Path(options["registry"]) if options["registry"] else folder / REGISTRY
    return Place(folder, config, registry, support.load_trust(trust))


def existing(path: Path, trust: Trust) -> Issued:
    from sealpack.builder.licensing import Issued
    from sealpack.format.license import open_license

    envelope = envelope_of(path)
    return Issued(open_license(envelope, trust), envelope)


def envelope_of(path: Path) -> Envelope:
    """The license in a file; LIC_UNREADABLE when it holds none, or several."""
    return license_in(parcel_of(path), path)


def parcel_of(path: Path) -> Parcel:
    """What a license file, a proof or a reply holds."""
    from sealpack.format.documents import Parcel
    from sealpack.format.files import read_bounded
    from sealpack.format.limits import LIMITS

    return Parcel.from_bytes(read_bounded(path, LIMITS.parcel_bytes), str(path))


def license_in(parcel: Parcel, path: Path) -> Envelope:
    """The one license of the parcel in `path`; LIC_UNREADABLE."""
    found = parcel.of_kind("license")
    if len(found) != 1:
        raise SealpackError("LIC_UNREADABLE", f"{path} holds {len(found)} licenses, not one")
    return found[0]


def request_option(text: str, *, required: bool = False) -> Callable[[F], F]:
    """`--request`, under `requests`: files, scanned texts, pictures or standard input."""
    kind = click.Path(dir_okay=False, allow_dash=True)
    return click.option("--request", "requests", type=kind, multiple=True, required=required, help=text)


def summary_of(license: License) -> dict[str, Any]:
    return {"schema": "sealpack/license-summary/v1", "digest": license.digest, **license.to_dict()}


def lines_of(summary: dict[str, Any]) -> list[str]:
    customer, devices = summary["customer"], summary["devices"]
    bundles = ", ".join(
        b["id"] + (f"@{b['bundle_digest'][:16]}" if "bundle_digest" in b else "") for b in summary["bundles"]
    )
    quotas = ", ".join(
        f"{q['meter']} {q['cap']}/{q['window']} {q['on_exceed']} per {q['scope']}" for q in summary["quota"]
    )
    mode = "" if summary["environment"] == "live" else ", test"
    return [
        f"license   {summary['license_id']} ({summary['tier']}{mode})",
        f"customer  {customer['name']} ({customer['id']})",
        f"bundles   {bundles}",
        f"valid     {_term(summary)}",
        f"devices   {devices.get('max', 'any number')}, bound by {devices['binding']}",
        f"quota     {quotas or 'none'}",
        *_unpriced(summary),
    ]


def _unpriced(summary: dict[str, Any]) -> list[str]:
    """Said once, before the first invoice is empty."""
    free = summary["billing"] == "one_time" or summary["environment"] == "test" or "plan" in summary
    return [] if free else ["plan      none: usage is settled, and nothing is invoiced (--plan NAME/VERSION)"]


def _term(summary: dict[str, Any]) -> str:
    start = day(summary["nbf"])
    if "term_s" in summary:
        return f"from {start}, {summary['term_s'] // 86400} days from the first start"
    return f"from {start} until {day(summary['exp'])}" if "exp" in summary else f"from {start}, no end"


def day(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def days(days: int | None) -> int | None:
    return None if days is None else days * 86400


def plan_of(text: str | None) -> Any:
    from sealpack.format.license import PlanRef

    if text is None:
        return None
    name, _, version = text.rpartition("/")
    if not name or not version.isdigit() or int(version) < 1:
        raise SealpackError("USAGE", f"plan {text!r} is not like edge-pro/1")
    return PlanRef(name, int(version))
