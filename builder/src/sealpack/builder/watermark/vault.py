"""The vault: one encrypted file with the root key and a record of every mark.

Source: specs/watermark.md section 6. The file is canonical JSON around an AES-256-GCM ciphertext; its key
comes from a passphrase by scrypt, and the whole header is authenticated. Whoever holds the file and
the passphrase can find every mark and forge new ones: it never leaves the creator.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sealpack.builder.watermark import keys
from sealpack.builder.watermark.records import Mark, ModelRecord, base64_bytes
from sealpack.format import canonical, files
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields

SCHEMA = "sealpack/vault/v1"
CONTENT_SCHEMA = "sealpack/vault-content/v1"
MAX_BYTES = 256 << 20
MIN_PASSPHRASE = 8
SCRYPT_N = 1 << 16  # 64 MiB, about a fifth of a second
_SCRYPT_LO, _SCRYPT_HI = 1 << 14, 1 << 20
_CODE = "VAULT_INVALID"


@dataclass(slots=True)
class Vault:
    """An open vault. Change it through :meth:`add`, keep it with :meth:`save`."""

    path: Path
    root: bytes = field(repr=False)
    models: dict[str, ModelRecord] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    _key: bytes = field(default=b"", repr=False)
    _kdf: dict[str, Any] = field(default_factory=dict, repr=False)
    _seen: str = field(default="", repr=False)

    @classmethod
    def create(cls, path: Path, passphrase: str, *, scrypt_n: int = SCRYPT_N) -> Vault:
        """Make a new vault file with a fresh root key, mode 0600; OUTPUT_EXISTS, KEY_UNREADABLE."""
        if len(passphrase) < MIN_PASSPHRASE:
            raise SealpackError(
                "KEY_UNREADABLE",
                f"the passphrase is shorter than {MIN_PASSPHRASE} characters",
                remedy="choose a longer passphrase",
            )
        salt = secrets.token_bytes(16).hex()
        kdf = {"name": "scrypt", "n": scrypt_n, "r": 8, "p": 1, "salt": salt}
        vault = cls(path, secrets.token_bytes(32), _key=_stretch(passphrase, kdf), _kdf=kdf)
        vault._write(replace=False)
        return vault

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Vault:
        """Decrypt and read a vault; FILE_MISSING, VAULT_INVALID (a wrong passphrase, too)."""
        data = files.read_bounded(path, MAX_BYTES)
        header, nonce, ciphertext = _read_envelope(data, path)
        key = _stretch(passphrase, header["kdf"])
        try:
            plain = AESGCM(key).decrypt(nonce, ciphertext, canonical.dumps(header))
        except InvalidTag:
            raise SealpackError(
                _CODE, f"{path} does not open: the passphrase is wrong or the file was changed"
            ) from None
        vault = cls(path, b"", _key=key, _kdf=header["kdf"], _seen=_sha256(data))
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
        header = {"schema": SCHEMA, "kdf": self._kdf, "cipher": "aes-256-gcm"}
        nonce = secrets.token_bytes(12)
        plain = canonical.dumps(self._content())
        ciphertext = AESGCM(self._key).encrypt(nonce, plain, canonical.dumps(header))
        data = canonical.dumps(
            header | {"nonce": nonce.hex(), "ciphertext": base64.b64encode(ciphertext).decode()}
        )
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


@contextlib.contextmanager
def _as_invalid(path: Path) -> Iterator[None]:
    """Any fault in the envelope is one code: it is not a vault, or a damaged one."""
    try:
        yield
    except SealpackError as error:
        raise SealpackError(_CODE, f"{path} is not a vault: {error.message}") from None


def _read_envelope(data: bytes, path: Path) -> tuple[dict[str, Any], bytes, bytes]:
    """Return (header, nonce, ciphertext); the key derivation's cost is bounded here."""
    with _as_invalid(path):
        value = canonical.loads(data, max_bytes=MAX_BYTES, max_depth=4, what="vault file")
        fields = Fields(value, "vault file", _CODE)
        fields.schema(SCHEMA)
        fields.choice("cipher", ("aes-256-gcm",))
        kdf = fields.sub("kdf")
        kdf.choice("name", ("scrypt",))
        n = kdf.integer("n", lo=_SCRYPT_LO, hi=_SCRYPT_HI)
        if n & (n - 1):
            raise kdf.fail("n", "is not a power of two")
        kdf.integer("r", lo=8, hi=8)
        kdf.integer("p", lo=1, hi=1)
        kdf.text("salt", pattern="[0-9a-f]{32}")
        nonce = bytes.fromhex(fields.text("nonce", pattern="[0-9a-f]{24}"))
        ciphertext = base64_bytes(fields, "ciphertext")
        header = {key: value[key] for key in value if key not in ("nonce", "ciphertext")}
        return header, nonce, ciphertext


def _stretch(passphrase: str, kdf: dict[str, Any]) -> bytes:
    salt = bytes.fromhex(kdf["salt"])
    return Scrypt(salt, 32, kdf["n"], kdf["r"], kdf["p"]).derive(passphrase.encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
