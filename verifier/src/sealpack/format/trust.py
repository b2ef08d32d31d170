"""Trust documents: root, keyring, revocations, and what they let a key sign.

Source: specs/trust.md. The root names who may change the keyring and the revocations, with
thresholds; the keyring names who may sign what; the revocations name what is no longer good. All
three travel together as a trust file (`trust.json`) and inside bundles and licenses.

Pure: every function takes bytes and `now` (Unix seconds) and returns values. Pinning a root and
remembering the newest versions is the caller's business (:meth:`Trust.update` says what is newer).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope, Signature
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keyring import NAMESPACE, ROLES, KeyEntry, Keyring, Revocations
from sealpack.format.limits import LIMITS
from sealpack.format.root import ROOT_ROLES, Root

__all__ = [
    "NAMESPACE",
    "ROLES",
    "ROOT_ROLES",
    "TRUST_SCHEMA",
    "KeyEntry",
    "Keyring",
    "Revocations",
    "Root",
    "Trust",
]

TRUST_SCHEMA = "sealpack/trust/v1"
Versioned = TypeVar("Versioned", Keyring, Revocations)


@dataclass(frozen=True, slots=True)
class Trust:
    """A verified root, keyring and revocations: the answer to "may this key sign that?"."""

    root: Root
    keyring: Keyring
    revocations: Revocations
    older: tuple[Envelope, ...] = field(default=(), compare=False)  # the roots that led to `root`, in order

    @classmethod
    def from_envelopes(cls, root: Envelope, keyring: Envelope, revocations: Envelope) -> Trust:
        """Verify the three documents against each other."""
        parsed = Root.parse(root)
        return cls(parsed, Keyring.parse(keyring, parsed), Revocations.parse(revocations, parsed))

    @classmethod
    def load(cls, data: bytes) -> Trust:
        """Read a trust file. Whoever calls decides that its root is to be believed."""
        f = Fields(
            canonical.loads(data, max_bytes=LIMITS.parcel_bytes, what="trust file"), "trust", "TRUST_INVALID"
        )
        f.schema(TRUST_SCHEMA)
        parts = [Envelope.from_dict(f.raw(kind), kind) for kind in ROOT_ROLES]
        older = f.array("roots", Envelope.from_dict, max_items=LIMITS.older_roots) if "roots" in f else ()
        return cls.from_envelopes(*parts).after(older)

    def to_bytes(self) -> bytes:
        """The trust file."""
        older = {"roots": [e.to_dict() for e in self.older]} if self.older else {}
        newest = {documents.kind_of(e): e.to_dict() for e in self.envelopes}
        return canonical.dumps({"schema": TRUST_SCHEMA, **newest, **older})

    @property
    def envelopes(self) -> tuple[Envelope, Envelope, Envelope]:
        """Root, keyring, revocations."""
        return self.root.envelope, self.keyring.envelope, self.revocations.envelope

    @property
    def chain(self) -> tuple[Envelope, ...]:
        """What travels: every root that is at hand in order, keyring, revocations.

        Whoever trusts one of these roots can follow to the newest.
        """
        return *self.older, *self.envelopes

    def after(self, older: Iterable[Envelope]) -> Trust:
        """This trust with the roots that led to it; TRUST_INVALID unless they do, step by step.

        Only the newest `LIMITS.older_roots` are kept.
        """
        steps = tuple(older)[-LIMITS.older_roots :]
        for step, following in itertools.pairwise((*steps, self.root.envelope)):
            if step.payload_type != documents.payload_type("root"):
                raise SealpackError("TRUST_INVALID", "an older root is another kind of document")
            try:
                Root.parse(step).accepts_next(following)
            except SealpackError as error:
                raise SealpackError("TRUST_INVALID", f"older roots do not lead on: {error.message}") from None
        return replace(self, older=steps)

    @property
    def root_digest(self) -> str:
        """Fingerprint of the root."""
        return self.root.digest

    def entry(self, keyid: str, role: str, signed_digest: str) -> KeyEntry:
        """The keyring entry `keyid` if it may sign in `role`.

        `signed_digest` is the digest of the signed payload: a revoked key's documents are refused
        except those listed as still good; a key is revoked with the ML-DSA key beside it.
        SIG_KEY_UNKNOWN, SIG_KEY_ROLE, KEY_REVOKED.
        """
        entry = self.keyring.entries.get(keyid)
        if entry is None:
            raise SealpackError("SIG_KEY_UNKNOWN", f"key {keyid[:16]} is not in the keyring")
        if role not in entry.roles:
            raise SealpackError("SIG_KEY_ROLE", f"key {keyid[:16]} of {entry.issuer} has no role {role!r}")
        for key in entry.keys:
            revoked = self.revocations.keys.get(key.keyid)
            if revoked is not None and signed_digest not in revoked:
                raise SealpackError("KEY_REVOKED", f"key {key.keyid[:16]} of {entry.issuer} was revoked")
        return entry

    def verify(
        self, envelope: Envelope, role: str, names: Iterable[str] = (), *, issuer: str | None = None
    ) -> KeyEntry:
        """Check that one entry of the keyring with `role`, covering all `names`, signed, and nobody else.

        That is one signature, and the ML-DSA signature of the same entry: where the entry requires it, and
        allowed where the entry has the key. With `issuer` the key must be that issuer's: nobody speaks for
        another one's license. DSSE_INVALID, SIG_*, KEY_REVOKED.
        """
        signature, second = self._split(envelope)
        entry = self.entry(signature.keyid, role, envelope.digest)
        if issuer not in (None, entry.issuer):
            raise SealpackError("SIG_KEY_ROLE", f"key of {entry.issuer} may not speak for {issuer}")
        for name in names:
            if not entry.covers(name):
                raise SealpackError("SIG_NAMESPACE", f"key of {entry.issuer} may not sign for {name}")
        if second is not None and (entry.mldsa is None or second.keyid != entry.mldsa.keyid):
            raise SealpackError("DSSE_INVALID", "document has a signature by another entry's ML-DSA key")
        entry.key.verify(signature.sig, envelope.signed_bytes)
        entry.verify_mldsa(None if second is None else second.sig, envelope.signed_bytes)
        return entry

    def _split(self, envelope: Envelope) -> tuple[Signature, Signature | None]:
        """The one signature that names the entry, and the one by an ML-DSA key; DSSE_INVALID."""
        known = {e.mldsa.keyid for e in self.keyring.entries.values() if e.mldsa is not None}
        first = [s for s in envelope.signatures if s.keyid not in known]
        second = [s for s in envelope.signatures if s.keyid in known]
        if len(first) != 1 or len(second) > 1:
            raise SealpackError(
                "DSSE_INVALID",
                f"document has {len(first)} signatures and {len(second)} by ML-DSA keys, not one of each",
            )
        return first[0], second[0] if second else None

    def update(self, envelopes: Iterable[Envelope]) -> Trust:
        """This trust with every newer root, keyring and revocations of `envelopes` taken over.

        Roots step by exactly one and need both the old and the new threshold; one that skips a version is
        TRUST_ROLLBACK. An older keyring or revocation list is ignored when this root or an older one in
        `envelopes` vouches for it (it was good once); the same version with other content is
        TRUST_CONFLICT. Versions start again when a new root no longer vouches for what is known. Documents
        of other kinds are ignored.
        """
        chain = list(envelopes)
        root, older = self.root, self.older
        for envelope in sorted(_of(chain, "root"), key=_version):
            version = _version(envelope)
            if version == root.version + 1:
                root, older = root.accepts_next(envelope), (*older, root.envelope)
            elif version == root.version:
                if Root.parse(envelope).digest != root.digest:  # the one that is known must hold here too
                    told = f"another root with version {root.version}, perhaps another vendor's"
                    raise SealpackError("TRUST_CONFLICT", told)
            elif version > root.version:
                told = f"root version {version} does not follow {root.version}"
                raise SealpackError("TRUST_ROLLBACK", told)
        keyring, revocations = self.keyring, self.revocations
        earlier = _earlier(root, [*chain, self.root.envelope])
        for envelope in sorted(_of(chain, "keyring"), key=_version):
            keyring = _newer(keyring, envelope, root, earlier)
        for envelope in sorted(_of(chain, "revocations"), key=_version):
            revocations = _newer(revocations, envelope, root, earlier)
        return Trust(root, keyring, revocations, older[-LIMITS.older_roots :])


def _of(envelopes: Iterable[Envelope], kind: str) -> list[Envelope]:
    return [e for e in envelopes if documents.kind_of(e) == kind]


def _version(envelope: Envelope) -> int:
    kind = documents.kind_of(envelope)
    return documents.payload_fields(envelope, kind, "TRUST_INVALID").integer("version", lo=1)


def _earlier(root: Root, chain: list[Envelope]) -> list[Root]:
    """The roots in `chain` that are older than `root` and hold by themselves.

    They need not be linked to it: what they vouch for is only ever left out, never believed, and a bundle
    that carries a root from two steps ago is still a good bundle.
    """
    return [Root.parse(e) for e in _of(chain, "root") if _version(e) < root.version]


def _newer(known: Versioned, envelope: Envelope, root: Root, earlier: list[Root]) -> Versioned:
    """`known`, or what is in `envelope` if it is newer; TRUST_THRESHOLD if no root vouches for it.

    A root step resets the versions: once `root` no longer vouches for `known`, the first document it does
    vouch for takes its place, so that stolen keys cannot block the way with a very high version. One that is
    older than `root` does not: keys that stayed on once signed lists which lack what was revoked since.
    """
    try:
        new = type(known).parse(envelope, root)
    except SealpackError as error:
        if error.code != "TRUST_THRESHOLD" or not _was_good(known, envelope, earlier):
            raise
        return known
    if not _vouches(root, known.envelope):
        return new if new.issued_at >= root.issued_at else known
    if new.version == known.version and envelope.digest != known.envelope.digest:
        kind = documents.kind_of(envelope)
        raise SealpackError("TRUST_CONFLICT", f"another {kind} with version {new.version}")
    return new if new.version > known.version else known


def _was_good(known: Keyring | Revocations, envelope: Envelope, earlier: list[Root]) -> bool:
    """Whether an earlier root vouched for `envelope`, and it is the one that is known or an older one."""
    return any(
        old.version < known.version or old.envelope.digest == known.envelope.digest
        for root in earlier
        if _vouches(root, envelope)
        for old in (type(known).parse(envelope, root),)
    )


def _vouches(root: Root, envelope: Envelope) -> bool:
    try:
        root.require(documents.kind_of(envelope), envelope)
    except SealpackError:
        return False
    return True
