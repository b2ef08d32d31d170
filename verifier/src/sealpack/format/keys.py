"""Signing keys: ECDSA P-256 and ML-DSA-65 (bundles, licenses, trust), Ed25519 (devices, settlement).

Source: specs/keys.md. A public key is its PEM SubjectPublicKeyInfo text; `keyid` is the hex SHA-256
of that text (the rule model_signing uses). One key has many PEM spellings, so a PEM is accepted only
when writing the parsed key again gives the same text.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sealpack.format.errors import SealpackError

ECDSA = "ecdsa-p256-sha256"
ED25519 = "ed25519"
ML_DSA = "ml-dsa-65"
SCHEMES = (ECDSA, ED25519, ML_DSA)
ML_DSA_SIGNATURE_BYTES = 3309

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_MAX_PEM = 4096


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A verification key. `der` is its SubjectPublicKeyInfo, the identity used for thresholds."""

    scheme: str
    pem: str
    der: bytes = field(repr=False)
    _key: Any = field(repr=False, compare=False)

    @classmethod
    def from_pem(cls, pem: str) -> PublicKey:
        """Parse PEM text; KEY_MALFORMED unless it is the one spelling of a supported key."""
        if len(pem) > _MAX_PEM:
            raise SealpackError("KEY_MALFORMED", "public key is too long")
        try:
            key = serialization.load_pem_public_key(pem.encode("ascii"))
        except (ValueError, UnicodeEncodeError) as error:
            raise SealpackError("KEY_MALFORMED", f"not a PEM public key: {error}") from None
        except Exception as error:  # cryptography raises its own type for unknown curves
            raise SealpackError("KEY_MALFORMED", f"unsupported key: {error}") from None
        made = cls._wrap(key)
        if made.pem != pem:
            raise SealpackError("KEY_MALFORMED", "public key is not in its canonical PEM form")
        return made

    @classmethod
    def _wrap(cls, key: Any) -> PublicKey:
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            scheme = ECDSA
        elif isinstance(key, ed25519.Ed25519PublicKey):
            scheme = ED25519
        elif isinstance(key, mldsa.MLDSA65PublicKey):
            scheme = ML_DSA
        else:
            raise SealpackError("KEY_MALFORMED", "only ECDSA P-256, Ed25519 and ML-DSA-65 keys are supported")
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = key.public_bytes(serialization.Encoding.PEM, info).decode("ascii")
        return cls(scheme, pem, key.public_bytes(serialization.Encoding.DER, info), key)

    @property
    def keyid(self) -> str:
        """Hex SHA-256 of the PEM text."""
        return hashlib.sha256(self.pem.encode("ascii")).hexdigest()

    def raw(self) -> bytes:
        """The 32 key bytes of an Ed25519 key."""
        if self.scheme != ED25519:
            raise SealpackError("KEY_MALFORMED", "not an Ed25519 key")
        data: bytes = self._key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return data

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return when `signature` is right; SIG_MALFORMED or SIG_INVALID otherwise.

        ML-DSA is pure, with the empty context.
        """
        try:
            if self.scheme == ECDSA:
                _check_ecdsa_form(signature)
                self._key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            else:
                if self.scheme == ML_DSA:
                    _check_mldsa_form(signature)
                self._key.verify(signature, message)
        except InvalidSignature:
            raise SealpackError(
                "SIG_INVALID", f"signature by key {self.keyid[:16]} does not verify"
            ) from None


def _check_ecdsa_form(signature: bytes) -> None:
    try:
        r, s = decode_dss_signature(signature)
    except ValueError:
        raise SealpackError("SIG_MALFORMED", "ECDSA signature is not strict DER") from None
    if not (0 < r < _P256_ORDER and 0 < s < _P256_ORDER):
        raise SealpackError("SIG_MALFORMED", "ECDSA signature has r or s out of range")


def _check_mldsa_form(signature: bytes) -> None:
    if len(signature) != ML_DSA_SIGNATURE_BYTES:
        raise SealpackError(
            "SIG_MALFORMED", f"ML-DSA-65 signature has {len(signature)} bytes, not {ML_DSA_SIGNATURE_BYTES}"
        )


class Signer(Protocol):
    """Whatever signs: a :class:`PrivateKey` in memory, or a key that never leaves its device.

    `sign` returns the scheme's signature bytes as `public` verifies them.
    """

    @property
    def public(self) -> PublicKey:
        """The verification key."""
        ...

    @property
    def keyid(self) -> str:
        """The keyid of the public half."""
        ...

    @property
    def scheme(self) -> str:
        """One of :data:`SCHEMES`."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature over `message`, which is not hashed before."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A signing key. ECDSA and Ed25519 signatures are deterministic, ML-DSA ones are hedged (FIPS 204)."""

    public: PublicKey
    _key: Any = field(repr=False, compare=False)

    @classmethod
    def generate(cls, scheme: str) -> PrivateKey:
        """A fresh key of one of :data:`SCHEMES`."""
        if scheme == ECDSA:
            return cls._wrap(ec.generate_private_key(ec.SECP256R1()))
        if scheme == ED25519:
            return cls._wrap(ed25519.Ed25519PrivateKey.generate())
        if scheme == ML_DSA:
            try:
                return cls._wrap(mldsa.MLDSA65PrivateKey.generate())
            except UnsupportedAlgorithm:  # built against an OpenSSL older than 3.5
                raise SealpackError(
                    "EXTRA_MISSING",
                    "the installed cryptography has no ML-DSA-65",
                    remedy="install cryptography 48 or newer from its own wheels",
                ) from None
        raise SealpackError("USAGE", f"unknown key scheme {scheme!r}")

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
        """Parse a PKCS#8 PEM; KEY_UNREADABLE when it is none or the passphrase is wrong."""
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except TypeError:
            problem = (
                "key is encrypted: a passphrase is needed"
                if passphrase is None
                else ("key is not encrypted, but a passphrase was given")
            )
            raise SealpackError("KEY_UNREADABLE", problem) from None
        except Exception:
            raise SealpackError(
                "KEY_UNREADABLE", "not a PEM private key, or the passphrase is wrong"
            ) from None
        return cls._wrap(key)

    @classmethod
    def load(cls, path: str | os.PathLike[str], passphrase: bytes | None = None) -> PrivateKey:
        """Read a key file."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            reason = (error.strerror or "unreadable").lower()
            raise SealpackError("KEY_UNREADABLE", f"cannot read key {os.fspath(path)}: {reason}") from None
        try:
            return cls.from_pem(data, passphrase)
        except SealpackError as error:
            raise SealpackError(error.code, f"{os.fspath(path)}: {error.message}") from None

    @classmethod
    def from_seed(cls, seed: bytes, scheme: str = ED25519) -> PrivateKey:
        """An Ed25519 or ML-DSA-65 key from its 32 seed bytes (device keys, test vectors)."""
        if scheme == ML_DSA:
            return cls._wrap(mldsa.MLDSA65PrivateKey.from_seed_bytes(seed))
        return cls._wrap(ed25519.Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_scalar(cls, scalar: int) -> PrivateKey:
        """An ECDSA P-256 key from its secret scalar (test vectors)."""
        return cls._wrap(ec.derive_private_key(scalar, ec.SECP256R1()))

    @classmethod
    def _wrap(cls, key: Any) -> PrivateKey:
        return cls(PublicKey._wrap(key.public_key()), key)

    @property
    def scheme(self) -> str:
        """The scheme of the key, one of :data:`SCHEMES`."""
        return self.public.scheme

    @property
    def keyid(self) -> str:
        """The keyid of the public half."""
        return self.public.keyid

    def sign(self, message: bytes) -> bytes:
        """The signature bytes: DER for ECDSA (RFC 6979), 64 for Ed25519, 3309 for ML-DSA-65."""
        if self.scheme == ECDSA:
            signature: bytes = self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        else:
            signature = self._key.sign(message)
        return signature

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS#8 PEM, encrypted when a passphrase is given."""
        protection: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        )
        data: bytes = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )
        return data
