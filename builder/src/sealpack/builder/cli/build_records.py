"""The build records that the command line names: made with a build, opened to license it or make it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.assemble import Encryption
    from sealpack.builder.build_record import BuildRecord
    from sealpack.builder.license_files import LicensedBundle
    from sealpack.format.license import License
    from sealpack.format.manifest import Manifest


def fresh(record: Path, passphrase_file: str | None) -> Encryption:
    """A new build's key; the passphrase is asked for before gigabytes are read."""
    from sealpack.builder.assemble import Encryption
    from sealpack.builder.build_record import check_absent
    from sealpack.builder.encrypt import BuildKey
    from sealpack.builder.passphrase_file import check_passphrase

    check_absent(record)
    passphrase = _passphrase(passphrase_file, confirm=True)
    check_passphrase(passphrase)
    return Encryption(BuildKey.fresh(), record, passphrase)


def replayed(record: Path, passphrase_file: str | None) -> Encryption:
    """The key of a build that is made again."""
    from sealpack.builder.assemble import Encryption

    return Encryption(_opened((record,), passphrase_file)[0].key)


def beside(given: str | None, bundle: Path) -> Path:
    """The record named, else the one beside the bundle."""
    from sealpack.builder.build_record import record_path

    return Path(given) if given else record_path(bundle)


def of_licensed(
    paths: Sequence[str],
    passphrase_file: str | None,
    license: License,
    bundles: Sequence[LicensedBundle],
    *,
    activates: bool,
) -> list[BuildRecord]:
    """The records at `paths`, one for each encrypted bundle of `bundles` when a device is activated; USAGE.

    Without its record's key a device could not use the bundle, and a license that binds no device has none.
    """
    from sealpack.builder.build_record import check_binding

    encrypted = [bundle.manifest for bundle in bundles if bundle.manifest.encryption is not None]
    for manifest in encrypted:
        check_binding(license, manifest.bundle_id)
    if not activates:
        if paths:
            raise SealpackError("USAGE", "--seal wraps keys for a device: give its --request")
        return []
    records = _opened([support.existing(path) for path in paths], passphrase_file)
    held = {record.bundle_digest for record in records}
    for manifest in encrypted:
        if manifest.bundle_digest not in held:
            raise _no_record(manifest)
    return records


def _opened(paths: Sequence[Path], passphrase_file: str | None) -> list[BuildRecord]:
    from sealpack.builder.build_record import BuildRecord

    passphrase = _passphrase(passphrase_file, confirm=False) if paths else ""
    return [BuildRecord.open(path, passphrase) for path in paths]


def _no_record(manifest: Manifest) -> SealpackError:
    return SealpackError(
        "USAGE", f"{manifest.bundle_id} is encrypted: give the record of its build with --seal"
    )


def _passphrase(path: str | None, *, confirm: bool) -> str:
    option = "--seal-passphrase-file"
    found = support.passphrase(path, prompt="Build record passphrase", confirm=confirm, option=option) or b""
    return found.decode(errors="surrogateescape")
