"""Which keys have to sign: an ECDSA key alone, or with the ML-DSA key that the keyring lists beside it.

Source: specs/trust.md. Whoever writes a document or a bundle asks here first, so that nothing leaves that a
reader would refuse for a missing signature.
"""

from __future__ import annotations

from sealpack.format.errors import SealpackError
from sealpack.format.keys import ML_DSA, Signer
from sealpack.format.trust import KeyEntry


def signers(entry: KeyEntry, key: Signer, mldsa: Signer | None) -> tuple[Signer, ...]:
    """The keys that sign for `entry`: `key`, and `mldsa` where it is given.

    SIG_SCHEME when the entry requires ML-DSA and there is no key for it, SIG_KEY_UNKNOWN when `mldsa` is
    not the key the entry lists.
    """
    if mldsa is None:
        if ML_DSA in entry.schemes:
            raise SealpackError(
                "SIG_SCHEME",
                f"the keyring asks for an ML-DSA-65 signature beside key {key.keyid[:16]}",
                remedy="give the ML-DSA key with --mldsa-key FILE",
            )
        return (key,)
    if entry.mldsa is None or entry.mldsa.keyid != mldsa.keyid:
        raise SealpackError(
            "SIG_KEY_UNKNOWN",
            f"{mldsa.keyid[:16]} is not the ML-DSA key that the keyring lists beside {key.keyid[:16]}",
            remedy="`sealpack trust show` lists the key ids",
        )
    return key, mldsa
