"""The vault: one encrypted file with the root key and a record of every mark.

Source: specs/watermark.md section 6. A file under a passphrase (:mod:`sealpack.builder.passphrase_file`).
Whoever holds the file and the passphrase can find every mark and forge new ones: it never leaves the creator.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealpack.builder.passphrase_file import SCRYPT_N, Kind, Lock
from sealpack.builder.watermark import keys
from sealpack.builder.watermark.records import Mark, ModelRecord
from sealpack.format import canonical, files
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields

SCHEMA = "sealpack/vault/v1"
CONTENT_SCHEMA = "sealpack/vault-content/v1"
MAX_BYTES = 256 << 20
_CODE = "VAULT_INVALID"
_KIND = Kind(SCHEMA, MAX_BYTES, "vault", _CODE)


@dataclass(slots=True)
class Vault:
    """An open vault. Change it through :meth:`add`, keep it with :meth:`save`."""

    path: Path
    root: bytes = field(repr=False)
    _lock: Lock = field(repr=False)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    _seen: str = field(default="", repr=False)

    @classmethod
    def create(cls, path: Path, passphrase: str, *, scrypt_n: int = SCRYPT_N) -> Vault:
        """Make a new vault file with a fresh root key, mode 0600; OUTPUT_EXISTS, KEY_UNREADABLE."""
        vault = cls(path, secrets.token_bytes(32), Lock.new(passphrase, scrypt_n))
        vault._write(replace=False)
        return vault

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Vault:
        """Decrypt and read a vault; FILE_MISSING, VAULT_INVALID (a wrong passphrase, too)."""
        data = files.read_bounded(path, MAX_BYTES)
        plain, lock = _KIND.open(data, passphrase, str(path))
        vault = cls(path, b"", lock, _seen=_sha256(data))
        vault._read_content(plain)
        return vault

    def find(self, *, model: str, licensee: str, bundle_id: str, license_id: str) -> Mark | None:
        """The sealed record of this copy, if it was made before."""
        wanted = (model, licensee, bundle_id, license_id)
        for mark in self.marks:
            if (mark.model, mark.licensee, mark.bundle_id, mark.license_id) == wanted:
                return mark
        return None

    def add(self, model: ModelRecord, mark: Mark) -> None:
        """Record a mark in memory; :meth:`save` makes it last."""
        self.models.setdefault(model.digest, model)
        self.marks.append(mark)

    def save(self) -> None:
        """Write the vault in place of the file it was read from.

        STATE_LOCKED when the file changed since: another build added marks that must not be lost.
        """
        if _sha256(files.read_bounded(self.path, MAX_BYTES)) != self._seen:
            raise SealpackError(
                "STATE_LOCKED", f"{self.path} was changed by another process; nothing was written"
            )
        self._write(replace=True)

    def licensee_key(self, model: str, licensee: str, bundle_id: str) -> bytes:
        """K_lic of one licensee of one clean model (hex digest)."""
        return keys.licensee_key(keys.model_key(self.root, model), licensee, bundle_id)

    def _write(self, *, replace: bool) -> None:
        data = self._lock.seal(SCHEMA, canonical.dumps(self._content()))
        files.atomic_write(self.path, data, mode=0o600, replace=replace)
        self._seen = _sha256(data)

    def _content(self) -> dict[str, Any]:
        return {
            "schema": CONTENT_SCHEMA,
            "root": self.root.hex(),
            "models": [self.models[digest].to_dict() for digest in sorted(self.models)],
            "marks": [mark.to_dict() for mark in self.marks],
        }

    def _read_content(self, plain: bytes) -> None:
        value = canonical.loads(plain, max_bytes=MAX_BYTES, what="vault content")
        fields = Fields(value, "vault", _CODE)
        fields.schema(CONTENT_SCHEMA)
        self.root = bytes.fromhex(fields.digest("root"))
        models = fields.objects("models", ModelRecord.from_fields, max_items=1 << 16)
        self.models = {model.digest: model for model in models}
        self.marks = list(fields.objects("marks", Mark.from_fields, max_items=1 << 20))
        for mark in self.marks:
            if mark.model not in self.models:
                raise SealpackError(_CODE, f"vault names model {mark.model}, which it does not hold")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
