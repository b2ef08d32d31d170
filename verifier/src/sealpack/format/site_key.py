"""Site codes: the key of an encrypted build, locked with a code that is sent separately.

Source: specs/encryption.md, "Site key". A license may carry the input key of its builds under a code that
people read from a letter or over the phone, so that a kit opens before the device was activated. The code
is random, 90 bits; scrypt only slows down who would try codes all the same.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields

MAX_SITE_KEYS = 16  # in one license
SCRYPT_N = 1 << 16  # 64 MiB
_SCRYPT_LO, _SCRYPT_HI = 1 << 15, 1 << 17
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32
_DATA, _CHECK, _GROUP = 18, 2, 5  # characters
_CHECK_LABEL = b"sealpack/site-code/v1\0"
_LABEL = b"sealpack/site-key/v1\0"
_REMEDY = "type the code as it was sent to you: four groups of five letters and digits"


def new_code() -> str:
    """A fresh code, `XXXXX-XXXXX-XXXXX-XXXXX`."""
    return _shown("".join(secrets.choice(_ALPHABET) for _ in range(_DATA)))


def _shown(data: str) -> str:
    text = data + _check_of(data)
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def _check_of(data: str) -> str:
    digest = hashlib.sha256(_CHECK_LABEL + data.encode()).digest()
    return "".join(_ALPHABET[byte % 32] for byte in digest[:_CHECK])


def read_code(text: str) -> str:
    """A code as a person typed it, in its one true spelling; KEY_UNWRAP for a slip of the pen.

    Small letters, blanks and hyphens do not matter, O is 0, I and L are 1.

    >>> read_code(" o1234 56789abcdefgh1x ")
    Traceback (most recent call last):
    ...
    sealpack.format.errors.SealpackError: error[KEY_UNWRAP]: the site code has a slip in it
    """
    bare = "".join(text.upper().replace("-", "").split())
    bare = bare.translate(str.maketrans("OIL", "011"))
    if len(bare) != _DATA + _CHECK or not set(bare) <= set(_ALPHABET):
        raise SealpackError(
            "KEY_UNWRAP",
            f"a site code has {_DATA + _CHECK} letters and digits, this has {len(bare)} or strange ones",
            remedy=_REMEDY,
        )
    if bare[_DATA:] != _check_of(bare[:_DATA]):
        raise SealpackError("KEY_UNWRAP", "the site code has a slip in it", remedy=_REMEDY)
    return _shown(bare[:_DATA])


@dataclass(frozen=True, slots=True)
class SiteKey:
    """One build's input key under a site code: member of a license's `site_keys`. Hex, as it is written."""

    bundle_digest: str
    n: int
    salt: str
    sealed: str

    @classmethod
    def parse(cls, f: Fields) -> SiteKey:
        """Read one; what it costs to try a code is bounded here."""
        n = f.integer("n", lo=_SCRYPT_LO, hi=_SCRYPT_HI)
        if n & (n - 1):
            raise f.fail("n", "is not a power of two")
        return cls(
            f.digest("bundle_digest"),
            n,
            f.text("salt", pattern="[0-9a-f]{32}"),
            f.text("sealed", pattern="[0-9a-f]{96}"),
        )

    @classmethod
    def seal(
        cls, code: str, input_key: bytes, bundle_digest: str, license_id: str, *, n: int = SCRYPT_N
    ) -> SiteKey:
        """Lock a build's 32-byte input key with a code; other bytes every time."""
        return cls.seal_with(code, input_key, bundle_digest, license_id, secrets.token_bytes(16), n)

    @classmethod
    def seal_with(
        cls, code: str, input_key: bytes, bundle_digest: str, license_id: str, salt: bytes, n: int
    ) -> SiteKey:
        """The same with a salt that the caller chose: never the same one twice."""
        bare = cls(bundle_digest, n, salt.hex(), "")
        key, nonce = bare._stretch(code)
        sealed = AESGCM(key).encrypt(nonce, input_key, bare._bound(license_id))
        return cls(bundle_digest, n, salt.hex(), sealed.hex())

    def open(self, code: str, license_id: str) -> bytes:
        """The input key; KEY_UNWRAP for another code, license or build."""
        key, nonce = self._stretch(read_code(code))
        try:
            return AESGCM(key).decrypt(nonce, bytes.fromhex(self.sealed), self._bound(license_id))
        except InvalidTag:
            raise SealpackError(
                "KEY_UNWRAP",
                f"the site code does not open bundle {self.bundle_digest[:16]} under license {license_id}",
                remedy="check which license the code was sent for, or ask the vendor for the code",
            ) from None

    def _stretch(self, code: str) -> tuple[bytes, bytes]:
        """Key and nonce; the salt is fresh for every key, so the nonce may come with it."""
        scrypt = Scrypt(bytes.fromhex(self.salt), 44, self.n, 8, 1)
        made = scrypt.derive(code.replace("-", "").encode())
        return made[:32], made[32:]

    def _bound(self, license_id: str) -> bytes:
        return _LABEL + canonical.dumps({"bundle_digest": self.bundle_digest, "license_id": license_id})
