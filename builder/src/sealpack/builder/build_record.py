"""The build record: the one file that can open an encrypted build, under a passphrase.

Source: specs/build-record.md. A build writes it beside the bundle and never over another one; issuing wraps
its key for a device; `build --check` makes the same build again from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealpack.builder.encrypt import BuildKey
from sealpack.builder.passphrase_file import Kind, Lock
from sealpack.format import canonical, files
from sealpack.format.chunked import KEY_SIZE, SALT_SIZE
from sealpack.format.dsse import b64decode, b64encode
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.license import License
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.trust import NAMESPACE
from sealpack.format.values import VERSION_PATTERN

SCHEMA = "sealpack/build-record/v1"
CONTENT_SCHEMA = "sealpack/build-record-content/v1"
_CODE = "RECORD_INVALID"
_KIND = Kind(SCHEMA, 4 << 20, "build record", _CODE)


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """An encrypted build and its key."""

    bundle_digest: str
    bundle_id: str
    version: str
    release_index: int
    key: BuildKey

    @classmethod
    def of(cls, manifest: Manifest, key: BuildKey) -> BuildRecord:
        """The record of a build that was just made."""
        m = manifest
        return cls(m.bundle_digest, m.bundle_id, m.version, m.release_index, key)

    @classmethod
    def open(cls, path: Path, passphrase: str) -> BuildRecord:
        """Read a record; FILE_MISSING, RECORD_INVALID (a wrong passphrase, too)."""
        try:
            data = files.read_bounded(path, _KIND.max_bytes)
            plain, _ = _KIND.open(data, passphrase, str(path))
            return cls._parse(Fields(canonical.loads(plain, what=_KIND.what), _KIND.what, _CODE))
        except SealpackError as error:
            if not error.code.startswith("JSON_"):
                raise
            raise SealpackError(_CODE, f"{path} is not a build record: {error.message}") from None

    @classmethod
    def _parse(cls, f: Fields) -> BuildRecord:
        f.schema(CONTENT_SCHEMA)
        salts = f.objects("files", _salt, max_items=LIMITS.entries)
        key = b64decode(f.text("input_key", max_len=100), "build record.input_key", _CODE)
        if len(key) != KEY_SIZE:
            raise f.fail("input_key", f"has {len(key)} bytes, not {KEY_SIZE}")
        return cls(
            f.digest("bundle_digest"),
            f.text("bundle_id", pattern=NAMESPACE, max_len=200),
            f.text("version", pattern=VERSION_PATTERN),
            f.integer("release_index", lo=1),
            BuildKey(key, dict(salts)),
        )

    def write(self, path: Path, passphrase: str) -> None:
        """Write it, 0600; OUTPUT_EXISTS, KEY_UNREADABLE for a passphrase that is too short."""
        check_absent(path)
        data = Lock.new(passphrase).seal(SCHEMA, canonical.dumps(self._to_dict()))
        files.atomic_write(path, data, mode=0o600, replace=False)

    def _to_dict(self) -> dict[str, Any]:
        salts = sorted(self.key.salts.items())
        return {
            "schema": CONTENT_SCHEMA,
            "bundle_digest": self.bundle_digest,
            "bundle_id": self.bundle_id,
            "version": self.version,
            "release_index": self.release_index,
            "input_key": b64encode(self.key.input_key),
            "files": [{"name": name, "salt": salt.hex()} for name, salt in salts],
        }

    def check_license(self, license: License) -> None:
        """BUNDLE_MISMATCH for a license of other builds; USAGE for one that binds no device."""
        check_binding(license, self.bundle_id)
        if not license.covers(self.bundle_id, self.version, self.bundle_digest):
            raise SealpackError(
                "BUNDLE_MISMATCH",
                f"license {license.license_id} does not cover {self.bundle_id} {self.version}, "
                f"build {self.bundle_digest[:16]}",
                remedy="give the record of a licensed build, or license this build too",
            )


def check_absent(path: Path) -> None:
    """OUTPUT_EXISTS when there is a record: it may be the only key to another build."""
    if path.exists():
        raise SealpackError(
            "OUTPUT_EXISTS",
            f"{path} already exists; build records are never replaced",
            remedy="move it where it is safe: without it no device can be activated for its build",
        )


def check_binding(license: License, bundle_id: str) -> None:
    """An encrypted bundle's key is wrapped for devices, so its license must bind them; USAGE."""
    if license.devices.binding == "none":
        raise SealpackError(
            "USAGE",
            f"{bundle_id} is encrypted, and license {license.license_id} binds no device",
            remedy="choose a preset or a --binding that binds devices",
        )


def record_path(bundle: Path) -> Path:
    """Where the record of a bundle is written: NAME.seal beside NAME.sealpack."""
    return bundle.with_name(bundle.name.removesuffix(".sealpack") + ".seal")


def _salt(f: Fields) -> tuple[str, bytes]:
    salt = f.text("salt", pattern=f"[0-9a-f]{{{2 * SALT_SIZE}}}")
    return f.text("name", pattern="payload/.+", max_len=LIMITS.entry_name_bytes), bytes.fromhex(salt)
