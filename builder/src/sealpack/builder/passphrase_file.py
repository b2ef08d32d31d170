"""A file under a passphrase: canonical JSON around an AES-256-GCM ciphertext.

Source: specs/watermark.md section 6 and specs/build-record.md. The key comes from the passphrase by scrypt,
and the whole header is authenticated. What is inside is the caller's.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sealpack.format import canonical
from sealpack.format.dsse import b64decode, b64encode
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields

MIN_PASSPHRASE = 8  # characters
SCRYPT_N = 1 << 16  # 64 MiB, about a fifth of a second
_SCRYPT_LO, _SCRYPT_HI = 1 << 14, 1 << 20


def check_passphrase(passphrase: str) -> None:
    """KEY_UNREADABLE for a new passphrase that is too short."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise SealpackError(
            "KEY_UNREADABLE",
            f"the passphrase is shorter than {MIN_PASSPHRASE} characters",
            remedy="choose a longer passphrase",
        )


@dataclass(frozen=True, slots=True)
class Lock:
    """A stretched passphrase and how it was stretched."""

    kdf: dict[str, Any]
    _key: bytes = field(repr=False)

    @classmethod
    def new(cls, passphrase: str, scrypt_n: int = SCRYPT_N) -> Lock:
        """With a fresh salt; KEY_UNREADABLE for a passphrase that is too short."""
        check_passphrase(passphrase)
        return cls.stretch(
            passphrase, {"name": "scrypt", "n": scrypt_n, "r": 8, "p": 1, "salt": secrets.token_hex(16)}
        )

    @classmethod
    def stretch(cls, passphrase: str, kdf: dict[str, Any]) -> Lock:
        """The lock of a file that says `kdf`."""
        key = Scrypt(bytes.fromhex(kdf["salt"]), 32, kdf["n"], kdf["r"], kdf["p"])
        return cls(kdf, key.derive(passphrase.encode(errors="surrogateescape")))

    def seal(self, schema: str, plain: bytes) -> bytes:
        """The file; other bytes every time."""
        header = {"schema": schema, "kdf": self.kdf, "cipher": "aes-256-gcm"}
        nonce = secrets.token_bytes(12)
        ciphertext = AESGCM(self._key).encrypt(nonce, plain, canonical.dumps(header))
        return canonical.dumps(header | {"nonce": nonce.hex(), "ciphertext": b64encode(ciphertext)})


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of file: its schema, its bound in bytes, what it is called, and the code of any fault."""

    schema: str
    max_bytes: int
    what: str
    code: str

    def open(self, data: bytes, passphrase: str, name: str) -> tuple[bytes, Lock]:
        """What is inside, and the lock; the kind's code for a wrong passphrase and any other fault."""
        try:
            header, nonce, ciphertext = self._read(data)
        except SealpackError as error:
            raise SealpackError(self.code, f"{name} is not a {self.what}: {error.message}") from None
        lock = Lock.stretch(passphrase, header["kdf"])
        try:
            plain = AESGCM(lock._key).decrypt(nonce, ciphertext, canonical.dumps(header))
        except InvalidTag:
            raise SealpackError(
                self.code, f"{name} does not open: the passphrase is wrong or the file was changed"
            ) from None
        return plain, lock

    def _read(self, data: bytes) -> tuple[dict[str, Any], bytes, bytes]:
        """Return (header, nonce, ciphertext); the key derivation's cost is bounded here."""
        value = canonical.loads(data, max_bytes=self.max_bytes, max_depth=4, what=f"{self.what} file")
        fields = Fields(value, f"{self.what} file", self.code)
        fields.schema(self.schema)
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
        text = fields.text("ciphertext", max_len=self.max_bytes)
        ciphertext = b64decode(text, f"{fields.what}.ciphertext", self.code)
        return {key: value[key] for key in value if key not in ("nonce", "ciphertext")}, nonce, ciphertext
