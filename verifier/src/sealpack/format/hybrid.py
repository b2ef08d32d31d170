"""A device's key pair for wrapped keys: ML-KEM-768 and X25519 together (X-Wing), used with HPKE.

Source: specs/encryption.md, "Device key" and "Wrapping". The secret is X-Wing's 32-byte seed, the public key
the 1,184 bytes of ML-KEM and the 32 of X25519.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from sealpack.format.chunked import KEY_SIZE
from sealpack.format.encryption import WRAPPED_SIZE, WrappedKey
from sealpack.format.errors import SealpackError

SEED_SIZE = 32
PUBLIC_SIZE = 1184 + 32
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class HybridPublicKey:
    """What an issuer wraps a build's key for."""

    data: bytes
    _key: MLKEM768X25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> HybridPublicKey:
        """KEY_MALFORMED unless these are the two keys."""
        if len(data) != PUBLIC_SIZE:
            raise SealpackError("KEY_MALFORMED", f"a hybrid key has {PUBLIC_SIZE} bytes, not {len(data)}")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(data[:1184])
        except ValueError:
            raise SealpackError("KEY_MALFORMED", "not an ML-KEM-768 key") from None
        x25519 = X25519PublicKey.from_public_bytes(data[1184:])
        return cls(data, MLKEM768X25519PublicKey(mlkem, x25519))

    def wrap(self, input_key: bytes, bundle_digest: str, license_id: str, device_id: str) -> WrappedKey:
        """A build's input key for this device under one license; other bytes every time. KEY_MALFORMED."""
        info = WrappedKey(bundle_digest, b"").info(license_id, device_id)
        try:
            return WrappedKey(bundle_digest, _SUITE.encrypt(input_key, self._key, info=info))
        except ValueError:  # an X25519 key of small order shares nothing
            raise SealpackError("KEY_MALFORMED", "nothing can be wrapped for this hybrid key") from None


@dataclass(frozen=True, slots=True)
class HybridPrivateKey:
    """The device's half."""

    seed: bytes = field(repr=False)
    public: HybridPublicKey
    _key: MLKEM768X25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def generate(cls) -> HybridPrivateKey:
        """From the system's generator."""
        return cls.from_seed(secrets.token_bytes(SEED_SIZE))

    @classmethod
    def from_seed(cls, seed: bytes) -> HybridPrivateKey:
        """KEY_MALFORMED unless these are 32 bytes; both keys come from them as X-Wing says."""
        if len(seed) != SEED_SIZE:
            raise SealpackError("KEY_MALFORMED", f"a hybrid seed has {SEED_SIZE} bytes, not {len(seed)}")
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        data = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        return cls(seed, HybridPublicKey.from_bytes(data), MLKEM768X25519PrivateKey(mlkem, x25519))

    def unwrap(self, wrapped: WrappedKey, license_id: str, device_id: str) -> bytes:
        """The build's input key; KEY_UNWRAP when it was wrapped for anything else, or damaged."""
        try:
            key = _SUITE.decrypt(wrapped.enc_ct, self._key, info=wrapped.info(license_id, device_id))
        except InvalidTag:
            key = b""
        if len(wrapped.enc_ct) != WRAPPED_SIZE or len(key) != KEY_SIZE:
            raise SealpackError(
                "KEY_UNWRAP",
                f"the key of bundle {wrapped.bundle_digest[:16]} was not wrapped for this device and license",
            )
        return key
