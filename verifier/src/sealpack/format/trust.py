"""Trust documents: root, keyring, revocations, and what they let a key sign.

Source: specs/trust.md. The root names who may change the keyring and the revocations, with
thresholds; the keyring names who may sign what; the revocations name what is no longer good. All
three travel together as a trust file (`trust.json`) and inside bundles and licenses.

Pure: every function takes bytes and `now` (Unix seconds) and returns values. Pinning a root and
remembering the newest versions is the caller's business (:meth:`Trust.update` says what is newer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.keys import SCHEMES, PublicKey
from sealpack.format.limits import LIMITS

TRUST_SCHEMA = "sealpack/trust/v1"
ROLES = ("bundle", "license", "evidence", "settlement", "ack", "witness")
ROOT_ROLES = ("root", "keyring", "revocations")
NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class Root:
    """Who may sign the next root, the keyring and the revocations: keys and a threshold per role."""

    version: int
    keys: tuple[PublicKey, ...]
    roles: dict[str, tuple[int, frozenset[str]]]  # role -> (threshold, keyids)
    envelope: Envelope = field(repr=False)

    @classmethod
    def parse(cls, envelope: Envelope) -> Root:
        """Read a root and check that its own keys sign it; TRUST_INVALID, TRUST_THRESHOLD."""
        f = documents.payload_fields(envelope, "root", "TRUST_INVALID")
        f.crit(())
        keys = f.array("keys", _read_pem, max_items=64)
        by_id = {key.keyid: key for key in keys}
        if len({key.der for key in keys}) != len(keys):
            raise SealpackError("TRUST_INVALID", "root lists one key twice")
        given = f.sub("roles")
        roles = {name: _read_role(given.sub(name), by_id) for name in ROOT_ROLES}
        root = cls(f.integer("version", lo=1), keys, roles, envelope)
        root.require("root", envelope)
        return root

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the root payload: the fingerprint people compare."""
        return self.envelope.digest

    def require(self, role: str, envelope: Envelope) -> None:
        """Check that `role`'s threshold of distinct keys signed `envelope`.

        Keys are counted by their DER form, so a second spelling of one key does not count twice.
        """
        threshold, allowed = self.roles[role]
        by_id = {key.keyid: key for key in self.keys}
        good = set()
        for signature in envelope.signatures:
            key = by_id.get(signature.keyid)
            if key is None or signature.keyid not in allowed:
                continue
            try:
                key.verify(signature.sig, envelope.signed_bytes)
            except SealpackError:
                continue
            good.add(key.der)
        if len(good) < threshold:
            raise SealpackError(
                "TRUST_THRESHOLD",
                f"{documents.kind_of(envelope)} has {len(good)} valid root signatures, {threshold} needed",
            )

    def accepts_next(self, envelope: Envelope) -> Root:
        """The root in `envelope` if it is exactly version + 1 and signed by this and by its own keys."""
        self.require("root", envelope)
        following = Root.parse(envelope)
        if following.version != self.version + 1:
            raise SealpackError(
                "TRUST_ROLLBACK", f"root version {following.version} does not follow {self.version}"
            )
        return following


def _read_pem(item: Any, path: str) -> PublicKey:
    if not isinstance(item, str):
        raise SealpackError("TRUST_INVALID", f"{path} is not a PEM key")
    return PublicKey.from_pem(item)


def _read_role(f: Fields, by_id: dict[str, PublicKey]) -> tuple[int, frozenset[str]]:
    keyids = f.texts("keyids", pattern=DIGEST, max_items=64)
    if len(set(keyids)) != len(keyids) or not set(keyids) <= set(by_id):
        raise SealpackError("TRUST_INVALID", f"{f.what}.keyids names an unknown key or one twice")
    return f.integer("threshold", lo=1, hi=max(1, len(keyids))), frozenset(keyids)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key of the keyring: what it may sign, for whom, and for which names."""

    key: PublicKey
    issuer: str
    roles: frozenset[str]
    namespaces: tuple[str, ...]
    status: str  # active | retired
    revoked_from: int | None

    @classmethod
    def parse(cls, f: Fields) -> KeyEntry:
        """Read an entry; the stated keyid and scheme must be the key's own."""
        key = PublicKey.from_pem(f.text("pem"))
        if f.digest("keyid") != key.keyid or f.choice("scheme", SCHEMES) != key.scheme:
            raise SealpackError("TRUST_INVALID", f"{f.what} states another keyid or scheme than its key")
        roles = frozenset(f.texts("roles", max_items=len(ROLES)))
        if not roles <= set(ROLES):
            raise SealpackError("TRUST_INVALID", f"{f.what}.roles has an unknown role")
        return cls(
            key,
            f.text("issuer", max_len=200),
            roles,
            f.texts("namespaces", pattern=NAMESPACE, max_items=256),
            f.choice("status", ("active", "retired")),
            f.integer("revoked_from", default=None),
        )

    def covers(self, name: str) -> bool:
        """Whether a namespace of this key is `name` or a leading path of whole segments of it."""
        return any(name == space or name.startswith(space + "/") for space in self.namespaces)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys the root currently vouches for."""

    version: int
    issued_at: int
    entries: dict[str, KeyEntry]
    envelope: Envelope = field(repr=False)

    @classmethod
    def parse(cls, envelope: Envelope, root: Root) -> Keyring:
        """Verify against `root`, then read."""
        root.require("keyring", envelope)
        f = documents.payload_fields(envelope, "keyring", "TRUST_INVALID")
        f.crit(())
        entries = f.objects("keys", KeyEntry.parse, max_items=1024)
        if len({e.key.der for e in entries}) != len(entries):
            raise SealpackError("TRUST_INVALID", "keyring lists one key twice")
        return cls(
            f.integer("version", lo=1), f.integer("issued_at"), {e.key.keyid: e for e in entries}, envelope
        )


@dataclass(frozen=True, slots=True)
class Revocations:
    """What is withdrawn: keys (with payload digests that stay good), bundles, licenses, devices."""

    version: int
    issued_at: int
    keys: dict[str, frozenset[str]]  # keyid -> digests that stay good
    bundles: frozenset[str]
    licenses: frozenset[str]
    devices: frozenset[str]
    floors: dict[str, int]  # bundle_id -> lowest release_index allowed
    envelope: Envelope = field(repr=False)

    @classmethod
    def parse(cls, envelope: Envelope, root: Root) -> Revocations:
        """Verify against `root`, then read."""
        root.require("revocations", envelope)
        f = documents.payload_fields(envelope, "revocations", "TRUST_INVALID")
        f.crit(())
        keys = f.objects("keys", lambda k: (k.digest("keyid"), frozenset(k.texts("good", pattern=DIGEST))))
        floors = f.objects("floors", lambda k: (k.text("bundle_id", pattern=NAMESPACE), k.integer("floor")))
        if len(dict(keys)) != len(keys) or len(dict(floors)) != len(floors):
            raise SealpackError("TRUST_INVALID", "revocations name a key or a bundle twice")
        return cls(
            f.integer("version", lo=1),
            f.integer("issued_at"),
            dict(keys),
            frozenset(f.texts("bundles", pattern=DIGEST)),
            frozenset(f.texts("licenses")),
            frozenset(f.texts("devices")),
            dict(floors),
            envelope,
        )


Versioned = TypeVar("Versioned", Keyring, Revocations)


@dataclass(frozen=True, slots=True)
class Trust:
    """A verified root, keyring and revocations: the answer to "may this key sign that?"."""

    root: Root
    keyring: Keyring
    revocations: Revocations

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
        return cls.from_envelopes(*parts)

    def to_bytes(self) -> bytes:
        """The trust file."""
        return canonical.dumps(
            {"schema": TRUST_SCHEMA, **{documents.kind_of(e): e.to_dict() for e in self.envelopes}}
        )

    @property
    def envelopes(self) -> tuple[Envelope, Envelope, Envelope]:
        """Root, keyring, revocations."""
        return self.root.envelope, self.keyring.envelope, self.revocations.envelope

    @property
    def root_digest(self) -> str:
        """Fingerprint of the root."""
        return self.root.digest

    def entry(self, keyid: str, role: str, signed_digest: str) -> KeyEntry:
        """The keyring entry `keyid` if it may sign in `role`.

        `signed_digest` is the digest of the signed payload: a revoked key's documents are refused
        except those listed as still good. SIG_KEY_UNKNOWN, SIG_KEY_ROLE, KEY_REVOKED.
        """
        entry = self.keyring.entries.get(keyid)
        if entry is None:
            raise SealpackError("SIG_KEY_UNKNOWN", f"key {keyid[:16]} is not in the keyring")
        if role not in entry.roles:
            raise SealpackError("SIG_KEY_ROLE", f"key {keyid[:16]} of {entry.issuer} has no role {role!r}")
        revoked = self.revocations.keys.get(keyid)
        if revoked is not None and signed_digest not in revoked:
            raise SealpackError("KEY_REVOKED", f"key {keyid[:16]} of {entry.issuer} was revoked")
        return entry

    def verify(
        self, envelope: Envelope, role: str, names: Iterable[str] = (), *, issuer: str | None = None
    ) -> KeyEntry:
        """Check that exactly one signature, by a keyring key with `role` covering all `names`, holds.

        With `issuer` the key must be that issuer's: nobody speaks for another one's license.
        """
        if len(envelope.signatures) != 1:
            raise SealpackError("DSSE_INVALID", f"document has {len(envelope.signatures)} signatures, not 1")
        signature = envelope.signatures[0]
        entry = self.entry(signature.keyid, role, envelope.digest)
        if issuer not in (None, entry.issuer):
            raise SealpackError("SIG_KEY_ROLE", f"key of {entry.issuer} may not speak for {issuer}")
        for name in names:
            if not entry.covers(name):
                raise SealpackError("SIG_NAMESPACE", f"key of {entry.issuer} may not sign for {name}")
        entry.key.verify(signature.sig, envelope.signed_bytes)
        return entry

    def update(self, envelopes: Iterable[Envelope]) -> Trust:
        """This trust with every newer root, keyring and revocations of `envelopes` taken over.

        Roots step by exactly one and need both the old and the new threshold; one that skips a version is
        TRUST_ROLLBACK. An older keyring or revocation list is ignored when this root or an older one in
        `envelopes` vouches for it (it was good once); the same version with other content is
        TRUST_CONFLICT. Versions start again when a new root no longer vouches for what is known. Documents
        of other kinds are ignored.
        """
        chain = list(envelopes)
        root = self.root
        for envelope in sorted(_of(chain, "root"), key=_version):
            if _version(envelope) == root.version + 1:
                root = root.accepts_next(envelope)
            elif _version(envelope) == root.version:
                if Root.parse(envelope).digest != root.digest:  # the one that is known must hold here too
                    raise SealpackError("TRUST_CONFLICT", f"another root with version {root.version}")
            elif _version(envelope) > root.version:
                raise SealpackError(
                    "TRUST_ROLLBACK", f"root version {_version(envelope)} does not follow {root.version}"
                )
        keyring, revocations = self.keyring, self.revocations
        earlier = _earlier(root, [*chain, self.root.envelope])
        for envelope in sorted(_of(chain, "keyring"), key=_version):
            keyring = _newer(keyring, envelope, root, earlier)
        for envelope in sorted(_of(chain, "revocations"), key=_version):
            revocations = _newer(revocations, envelope, root, earlier)
        return Trust(root, keyring, revocations)


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
    vouch for takes its place, so that stolen keys cannot block the way with a very high version.
    """
    try:
        new = type(known).parse(envelope, root)
    except SealpackError as error:
        if error.code != "TRUST_THRESHOLD" or not _was_good(known, envelope, earlier):
            raise
        return known
    if not _vouches(root, known.envelope):
        return new
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
