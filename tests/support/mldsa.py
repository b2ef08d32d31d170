"""ML-DSA-65 test keys that sign deterministically, by an implementation that is not the program's.

The program's signatures are hedged, so they differ each time; vectors have to be the same bytes every time.
What is signed here with dilithium-py the program verifies with cryptography: each vector is also a test of
the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from dilithium_py.ml_dsa import ML_DSA_44, ML_DSA_65

from sealpack.format.keys import ML_DSA, PrivateKey, PublicKey


@dataclass(frozen=True)
class MldsaKey:
    """A Signer made from 32 seed bytes."""

    seed: bytes

    @property
    def public(self) -> PublicKey:
        """The verification key."""
        return PrivateKey.from_seed(self.seed, ML_DSA).public

    @property
    def keyid(self) -> str:
        """The keyid of the public half."""
        return self.public.keyid

    @property
    def scheme(self) -> str:
        """Always ml-dsa-65."""
        return ML_DSA

    def sign(self, message: bytes, context: bytes = b"") -> bytes:
        """The deterministic variant of FIPS 204: no random bytes enter."""
        _, secret = ML_DSA_65.key_derive(self.seed)
        signature: bytes = ML_DSA_65.sign(secret, message, ctx=context, deterministic=True)
        return signature

    def sign_44(self, message: bytes) -> bytes:
        """A signature with the smaller parameter set, by a key of the same seed."""
        _, secret = ML_DSA_44.key_derive(self.seed)
        signature: bytes = ML_DSA_44.sign(secret, message, deterministic=True)
        return signature

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the other implementation accepts `signature`."""
        public, _ = ML_DSA_65.key_derive(self.seed)
        return bool(ML_DSA_65.verify(public, message, signature))


ROOT_MLDSA = MldsaKey(b"sealpack-test-mldsa-key-root-001")
CREATOR_MLDSA = MldsaKey(b"sealpack-test-mldsa-key-create-1")
LICENSER_MLDSA = MldsaKey(b"sealpack-test-mldsa-key-license1")
STRANGER_MLDSA = MldsaKey(b"sealpack-test-mldsa-key-strange1")
