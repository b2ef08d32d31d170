"""Who signed a bundle, with what, and whether that is enough.

Source: specs/signature.md, "Algorithm". A bundle has one ECDSA P-256 signature in `META/model.sig`, and may
have an ML-DSA-65 signature over the same bytes in `META/model.mldsa65.sig`. Which schemes are required is
the union of what the signer's keyring entry and the signed statement say; a signature that is there and
cannot be checked fails too, since nothing unverified may ride along.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealpack.format import statement
from sealpack.format.container import BundleReader
from sealpack.format.dsse import Envelope, Signature
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ML_DSA, PublicKey
from sealpack.format.limits import LIMITS
from sealpack.format.statement import MLDSA_NAME, SIG_NAME, Statement
from sealpack.format.trust import KeyEntry, Trust

SUPPORTED_SCHEMES = frozenset({ECDSA, ML_DSA})
_SCHEME_NAMES = {ECDSA: "ECDSA P-256", ML_DSA: "ML-DSA-65"}


@dataclass(frozen=True, slots=True)
class GivenKeys:
    """The creator's public key, and the ML-DSA key beside it, of somebody who has no trust file."""

    key: PublicKey
    mldsa: PublicKey | None = None

    def __post_init__(self) -> None:
        if self.mldsa is not None and self.mldsa.scheme != ML_DSA:
            raise SealpackError("USAGE", f"the ML-DSA key is of scheme {self.mldsa.scheme}")

    def entry(self, keyid: str) -> KeyEntry:
        """The given keys as a keyring would list them; SIG_KEY_UNKNOWN when `keyid` is another's.

        Whoever gives an ML-DSA key wants it used: it is required.
        """
        if self.key.keyid != keyid:
            told = f"signed by {keyid[:16]}, not the given key"
            raise SealpackError("SIG_KEY_UNKNOWN", told, expected=self.key.keyid, found=keyid)
        second = frozenset() if self.mldsa is None else frozenset({ML_DSA})
        schemes = frozenset({self.key.scheme}) | second
        roles = frozenset({"bundle"})
        return KeyEntry(self.key, "the given public key", roles, (), "active", None, self.mldsa, schemes)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that holds: what it says, whose it is, and the schemes it was made with."""

    statement: Statement
    entry: KeyEntry
    schemes: tuple[str, ...]

    @property
    def post_quantum(self) -> bool:
        """Whether an ML-DSA signature was verified."""
        return ML_DSA in self.schemes

    def __str__(self) -> str:
        names = " and ".join(_SCHEME_NAMES[scheme] for scheme in self.schemes)
        return f"{names} by {self.entry.issuer}, key {self.entry.key.keyid[:16]}"


def check_signature(bundle: BundleReader, whom: Trust | GivenKeys) -> Signed:
    """Verify the signatures of an open bundle; its content is not looked at.

    SIG_MISSING, SIG_MALFORMED, SIG_KEY_UNKNOWN, SIG_KEY_ROLE, KEY_REVOKED, SIG_SCHEME, SIG_INVALID,
    SIG_STATEMENT, SIG_SUBJECT, SIG_RESOURCES, SIG_NAMESPACE, TRUST_ROLLBACK.
    """
    if SIG_NAME not in bundle.entries:
        raise SealpackError("SIG_MISSING", f"there is no {SIG_NAME}")
    envelope = statement.read_signature(bundle.read(SIG_NAME, LIMITS.signature_bytes))
    signature = envelope.signatures[0]
    entry = _entry(whom, signature, envelope)
    if entry.key.scheme != ECDSA:
        raise SealpackError("SIG_SCHEME", f"a bundle is not signed with {entry.key.scheme}")
    entry.key.verify(signature.sig, envelope.signed_bytes)
    said = Statement.from_bytes(envelope.payload)
    _check_required(said)
    second = bundle.read(MLDSA_NAME, LIMITS.signature_bytes) if MLDSA_NAME in bundle.entries else None
    if second is not None and entry.mldsa is None and isinstance(whom, GivenKeys):
        raise SealpackError(
            "SIG_SCHEME",
            f"{MLDSA_NAME} cannot be checked without the creator's ML-DSA key",
            remedy="give that key with --mldsa-key FILE, or a trust file with --trust FILE",
        )
    entry.verify_mldsa(second, envelope.signed_bytes, said.required_schemes)
    if isinstance(whom, Trust):
        _check_policy(whom, entry, said)
    return Signed(said, entry, (ECDSA,) if second is None else (ECDSA, ML_DSA))


def _entry(whom: Trust | GivenKeys, signature: Signature, envelope: Envelope) -> KeyEntry:
    if isinstance(whom, Trust):
        return whom.entry(signature.keyid, "bundle", envelope.digest)
    return whom.entry(signature.keyid)


def _check_required(said: Statement) -> None:
    required = set(said.required_schemes)
    if ECDSA not in required or not required <= SUPPORTED_SCHEMES:
        raise SealpackError("SIG_SCHEME", f"requires {', '.join(said.required_schemes)}")


def _check_policy(trust: Trust, entry: KeyEntry, said: Statement) -> None:
    if not entry.covers(said.bundle_id):
        raise SealpackError("SIG_NAMESPACE", f"the key's namespaces do not cover {said.bundle_id}")
    if trust.keyring.version < said.min_keyring:
        raise SealpackError("TRUST_ROLLBACK", f"needs keyring v{said.min_keyring} or newer")
    if trust.revocations.version < said.min_revocations:
        raise SealpackError("TRUST_ROLLBACK", f"needs revocations v{said.min_revocations} or newer")
