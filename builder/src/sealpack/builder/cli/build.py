"""`sealpack build`: one model file in, one sealed bundle out."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.format.manifest import TIERS
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.assemble import BuildOrder, Built, MarkOrder
    from sealpack.builder.config import Config
    from sealpack.format.keys import Signer
    from sealpack.format.trust import Trust
    from sealpack.verifier.completeness import Completeness

_FILE = click.Path(dir_okay=False)


@click.command(short_help="Build a sealed bundle from an ONNX or GGUF model.")
@click.argument("model", type=_FILE, required=False)
@click.option("--config", "config_path", type=_FILE, help="Configuration [default: sealpack.toml here].")
@click.option("--id", "bundle_id", help="Bundle id, e.g. acme/minilm.")
@click.option("--bundle-version", help="Version of the bundle, e.g. 1.2.0.")
@click.option("--release-index", type=click.IntRange(min=1), help="Counts releases.")
@click.option("--name", help="What people call it.")
@click.option("--spdx", help="SPDX expression or LicenseRef-... of the bundle.")
@click.option("--license-text", type=_FILE, help="File with the full legal text.")
@click.option("--card", type=_FILE, help="Model card, Markdown.")
@click.option("--evidence", type=_FILE, multiple=True, help="JSON evidence file; may be repeated.")
@click.option("--tier", type=click.Choice(TIERS), help="Quality tier [default: the highest proven].")
@click.option("--tier-policy", type=_FILE, help="Your own tier policy, on top of the published one.")
@click.option("--key", "key_path", type=_FILE, help="Private bundle key, ECDSA P-256: a file, or pkcs11:URI.")
@click.option(
    "--mldsa-key",
    "mldsa_path",
    type=_FILE,
    help="Private ML-DSA-65 key that signs too [default: NAME.mldsa.pem beside the key, if the trust file "
    "lists one].",
)
@support.passphrase_option
@click.option("--trust", "trust_path", type=_FILE, help="Trust file that rides along.")
@click.option("--embed-license", type=_FILE, multiple=True, help="License file that rides along.")
@click.option("--out", type=_FILE, help="Output [default: <name>-<version>.sealpack].")
@click.option("--signed-at", type=int, help="Unix seconds [default: SOURCE_DATE_EPOCH, or now].")
@click.option("--licensee", help="Mark this copy for one licensee.")
@click.option("--license-id", help="License of the marked copy.")
@click.option("--vault", type=_FILE, help="Watermark vault; needed with --licensee.")
@click.option("--vault-passphrase-file", type=_FILE, help="File whose first line opens the vault.")
@click.option("--encrypt", is_flag=True, help="Encrypt the weights; the key goes into a build record.")
@click.option(
    "--seal",
    "record_path",
    type=_FILE,
    help="Build record to write with --encrypt, or to read with --check [default: NAME.seal].",
)
@click.option("--seal-passphrase-file", type=_FILE, help="File whose first line opens the build record.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option(
    "--check",
    "checked",
    type=_FILE,
    help="Write nothing: is this bundle what the inputs give? A public key will do.",
)
@support.format_option
def build(
    model: str | None,
    out: str | None,
    force: bool,
    checked: str | None,
    encrypt: bool,
    record_path: str | None,
    seal_passphrase_file: str | None,
    fmt: str,
    **options: Any,
) -> int:
    """Build one sealed, signed bundle from MODEL, an ONNX or GGUF file.

    Of a GGUF model in parts give the first, NAME-00001-of-0000N.gguf: they are merged into one.

    What is not given here comes from sealpack.toml, and what is not there from the model itself. The same
    inputs and signing time give the same bytes with a key file; a key on a token (pkcs11: URI) signs with
    random nonces, so each build differs in its signature. With --encrypt the key is new each time, and kept
    in a build record under a passphrase: keep that file, no device can be activated for the build without it.
    """
    support.require_extra("builder", "cyclonedx", "jsonschema")
    from sealpack.builder import assemble
    from sealpack.builder.cli import build_records

    order = _order(model, options, signing=checked is None)
    if checked is not None:
        bundle = support.existing(checked)
        if encrypt or record_path or seal_passphrase_file:
            record = build_records.beside(record_path, bundle)
            order = dataclasses.replace(
                order, encryption=build_records.replayed(record, seal_passphrase_file)
            )
        return _check(order, bundle, fmt)
    target = Path(out) if out else _default_out(order.config)
    if encrypt:
        record = build_records.beside(record_path, target)
        order = dataclasses.replace(order, encryption=build_records.fresh(record, seal_passphrase_file))
    elif record_path or seal_passphrase_file:
        raise SealpackError("USAGE", "a build record is written with --encrypt only")
    with support.progress_bar("hashing", _total(order.model)) as bar:
        order = dataclasses.replace(order, progress=bar.update)
        built = assemble.build(order, target, overwrite=force)
    for warning in built.warnings:
        support.note(f"warning: the model {warning}, which the runtime does not have")
    _report(built, order.encryption.record if order.encryption else None, fmt)
    return 0


def _total(model: Path) -> int:
    """Bytes that the progress bar counts to."""
    from sealpack.format.gguf_split import files_of

    return sum(part.stat().st_size for part in files_of(model) if part.is_file())


def _check(order: BuildOrder, bundle: Path, fmt: str) -> int:
    from sealpack.builder import rebuild

    with support.progress_bar("hashing", _total(order.model)) as bar:
        found = rebuild.check(dataclasses.replace(order, progress=bar.update), bundle)
    result = {
        "schema": "sealpack/build-check/v1",
        "path": str(bundle),
        "same": found.same,
        "bundle_digest": found.bundle_digest,
        "signed_at": found.signed_at,
        "entries": found.entries,
        "differences": list(found.differences),
    }
    if found.same:
        text = f"same     {bundle}: all {found.entries} signed entries, and the signature holds"
    else:
        text = "\n".join(f"differs  {line}" for line in found.differences)
    support.emit(result, text, fmt)
    if not found.same:
        raise SealpackError("BUILD_DIFFERS", f"{bundle} differs in {len(found.differences)} places")
    return 0


def _order(model: str | None, options: dict[str, Any], *, signing: bool) -> BuildOrder:
    from sealpack.builder.assemble import BuildOrder

    config = _config(options)
    path = Path(model) if model else config.model
    if path is None:
        raise SealpackError("USAGE", "no model given, and project.model is not set in sealpack.toml")
    now = support.now()
    trust_path = options["trust_path"] or _if_there(config.trust)
    trust = support.load_trust(trust_path) if trust_path else None
    key, mldsa_key = (_keys if signing else _public_keys)(config, options, trust)
    return BuildOrder(
        config=config,
        model=path,
        key=key,
        mldsa_key=mldsa_key,
        signed_at=_signed_at(options["signed_at"], now),
        trust=trust,
        licenses=tuple(_license_envelopes(options["embed_license"])),
        mark=_mark(options, now),
    )


def _config(options: dict[str, Any]) -> Config:
    from sealpack.builder import config as configs

    named = options["config_path"]
    path = Path(named or configs.CONFIG_NAME)
    if named or path.exists():
        config = configs.load(path)
    else:
        missing = [
            f for f, k in (("--id", "bundle_id"), ("--bundle-version", "bundle_version")) if not options[k]
        ]
        if missing:
            raise SealpackError(
                "USAGE", f"there is no {path} here: give --config, or {' and '.join(missing)}"
            )
        config = configs.minimal(options["bundle_id"], options["bundle_version"], Path.cwd())
    return configs.override(
        config,
        bundle={
            "id": options["bundle_id"],
            "version": options["bundle_version"],
            "release_index": options["release_index"],
            "name": options["name"],
            "quality_tier": options["tier"],
        },
        license={"spdx": options["spdx"], "text": _path(options["license_text"])},
        keys={"bundle": options["key_path"]},
        evidence={
            "files": tuple(map(Path, options["evidence"])) or None,
            "tier_policy": _path(options["tier_policy"]),
        },
        top={
            "card": _path(options["card"]),
        },
    )


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _if_there(path: Path | None) -> Path | None:
    if path is not None and not path.is_file():
        raise SealpackError("FILE_MISSING", f"trust file {path} does not exist")
    return path


def _keys(config: Config, options: dict[str, Any], trust: Trust | None) -> tuple[Signer, Signer | None]:
    """The bundle key, and the ML-DSA key beside it where one is given or the keyring lists one."""
    from sealpack.builder.keyfiles import load_mldsa, load_signer

    if config.keys.bundle is None:
        raise SealpackError("USAGE", "no signing key: give --key, or keys.bundle in sealpack.toml")
    given = options["passphrase_file"] or config.keys.passphrase_file
    passphrase = _path(str(given)) if given else None
    key = load_signer(config.keys.bundle, passphrase)
    entry = trust.keyring.entries.get(key.keyid) if trust else None
    return key, load_mldsa(_path(options["mldsa_path"]), config.keys.bundle, entry, passphrase)


def _public_keys(
    config: Config, options: dict[str, Any], trust: Trust | None
) -> tuple[Signer, Signer | None]:
    """The public halves, for a build that is only compared."""
    from sealpack.builder.assemble import Blank
    from sealpack.builder.key_uri import is_uri
    from sealpack.builder.keyfiles import load_any, public_path

    if config.keys.bundle is None:
        raise SealpackError("USAGE", "no key: give --key, or keys.bundle in sealpack.toml")
    given = options["passphrase_file"] or config.keys.passphrase_file
    passphrase = _path(str(given)) if given else None
    ref = config.keys.bundle
    if not is_uri(ref) and not Path(ref).exists() and public_path(Path(ref)).exists():
        ref = public_path(Path(ref))  # a colleague has the project without its private keys
    key = load_any(ref, passphrase)
    entry = trust.keyring.entries.get(key.keyid) if trust else None
    second = load_any(options["mldsa_path"], passphrase) if options["mldsa_path"] else entry and entry.mldsa
    return Blank(key), Blank(second) if second else None


def _signed_at(given: int | None, now: int) -> int:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    value = given
    if value is None and epoch:
        if not epoch.isdigit():
            raise SealpackError("USAGE", f"SOURCE_DATE_EPOCH is {epoch!r}, not a number of seconds")
        value = int(epoch)
    value = now if value is None else value
    if not 0 <= value < 253402300800:
        raise SealpackError("USAGE", f"signing time {value} is not between 1970 and 9999")
    return value


def _license_envelopes(paths: tuple[str, ...]) -> list[Any]:
    from sealpack.format.documents import Parcel
    from sealpack.format.files import read_bounded
    from sealpack.format.limits import LIMITS

    found: list[Any] = []
    for path in paths:
        parcel = Parcel.from_bytes(read_bounded(path, LIMITS.parcel_bytes), path)
        envelopes = parcel.of_kind("license")
        if not envelopes:
            raise SealpackError("LIC_UNREADABLE", f"{path} holds no license")
        found += envelopes
    return found


def _mark(options: dict[str, Any], now: int) -> MarkOrder | None:
    given = {n: options[n] for n in ("licensee", "license_id", "vault")}
    if not any(given.values()):
        return None
    missing = ", ".join(f"--{n.replace('_', '-')}" for n, value in given.items() if not value)
    if missing:
        raise SealpackError("USAGE", f"a marked copy needs {missing} too")
    support.require_extra("builder", "numpy")
    from sealpack.builder.assemble import MarkOrder
    from sealpack.builder.watermark.vault import Vault

    support.existing(given["vault"])
    passphrase = support.passphrase(
        options["vault_passphrase_file"], prompt="Vault passphrase", option="--vault-passphrase-file"
    )
    assert passphrase is not None  # one is required here
    vault = Vault.open(Path(given["vault"]), passphrase.decode())
    return MarkOrder(vault, given["licensee"], given["license_id"], now)


def _default_out(config: Config) -> Path:
    name = config.bundle.id.rsplit("/", 1)[-1]
    folder = config.folder / "bundles"
    return (folder if folder.is_dir() else Path()) / f"{name}-{config.bundle.version}.sealpack"


def _completeness(built: Built) -> Completeness:
    """How complete the written bundle's SBOM is."""
    from sealpack.format.container import BundleReader
    from sealpack.verifier.completeness import assess

    (entry,) = built.manifest.with_role("sbom")
    with BundleReader.open(built.path) as bundle:
        return assess(json.loads(bundle.read(entry.name)), built.manifest)


def _report(built: Built, record: Path | None, fmt: str) -> None:
    m = built.manifest
    completeness = _completeness(built)
    result: dict[str, Any] = {
        "schema": "sealpack/build-result/v1",
        "path": str(built.path),
        "bundle_id": m.bundle_id,
        "version": m.version,
        "release_index": m.release_index,
        "kind": m.kind,
        "quality_tier": m.quality_tier,
        "bundle_digest": built.bundle_digest,
        "bytes": built.size,
        "files": len(m.files),
        "keyid": built.keyid,
        "completeness": {"present": completeness.present, "applicable": completeness.applicable},
        "warnings": list(built.warnings),
    }
    if m.watermark is not None:
        result["license_id"] = m.watermark.license_id
    lines = [
        f"built    {built.path}",
        f"bundle   {m.bundle_id} {m.version} (release {m.release_index}), {m.kind}, {m.quality_tier}",
        f"digest   {built.bundle_digest}",
        f"size     {built.size} bytes, {len(m.files)} files, all signed by key {built.keyid[:16]}",
        f"sbom     {completeness.present} of {completeness.applicable} minimum elements; "
        f"what is missing: sealpack inspect {built.path}",
    ]
    if record is not None:
        result["seal"] = str(record)
        lines.append(
            f"sealed   the key is in {record}: keep it and its passphrase, they cannot be made again"
        )
    if m.watermark is not None:
        lines.append(f"marked   for license {m.watermark.license_id}")
    support.emit(result, "\n".join(lines), fmt)
