"""The trust file of a creator, and beside it the parcel that carries its changes to devices.

Source: specs/trust.md. A device that pinned an older root needs every step from there on: the trust file
keeps them, bundles and licenses carry them, and `update-N.parcel` (N the root's version) holds them with
the newest keyring and revocations, for a visit that brings nothing else. Every change writes both files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealpack.format import canonical, documents, statement
from sealpack.format.container import BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_writer, io_error, read_bounded
from sealpack.format.keys import PublicKey
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.trust import Trust

_ZIP = b"PK"


@dataclass(frozen=True, slots=True)
class TrustFile:
    """A trust file as it was read, with every root that leads to it as far as they are at hand."""

    path: Path
    trust: Trust

    @property
    def follows_from(self) -> int:
        """The oldest root version from which a device can follow; it has that root itself."""
        oldest = self.trust.root.version - len(self.trust.older)
        return max(1, oldest - 1)

    @property
    def parcel_path(self) -> Path:
        """Where the parcel for devices stands."""
        return parcel_path(self.path, self.trust.root.version)


def parcel_path(trust_path: Path, root_version: int) -> Path:
    """The parcel beside a trust file with that root version."""
    return trust_path.with_name(f"update-{root_version}.parcel")


def read(path: Path) -> TrustFile:
    """The trust file and the root steps in the parcel beside it.

    TRUST_ROLLBACK when the parcel holds something newer than the trust file, TRUST_CONFLICT when it holds
    the same version with other content: a change made now would contradict one that may be out already.
    """
    trust = Trust.load(read_bounded(path, LIMITS.parcel_bytes))
    known = _parcel_documents(path, trust.root.version)
    if trust.update(known) != trust:
        raise SealpackError(
            "TRUST_ROLLBACK",
            f"{path} is older than the parcel beside it",
            remedy="put the newest trust file back before you change it",
        )
    return TrustFile(path, trust if trust.older else _with_steps(trust, known))


def _with_steps(trust: Trust, known: tuple[Envelope, ...]) -> Trust:
    """A trust file of an earlier version, which did not keep the steps, with those of its parcel."""
    roots = {_version(e): e for e in known if documents.kind_of(e) == "root"}
    first = trust.root.version
    while first - 1 in roots:
        first -= 1
    return trust.after(roots[v] for v in range(first, trust.root.version))


def _parcel_documents(path: Path, version: int) -> tuple[Envelope, ...]:
    """The newest parcel up to root `version`: an older one still has the steps to the root before."""
    for number in range(version, 0, -1):
        parcel = parcel_path(path, number)
        if parcel.exists():
            data = read_bounded(parcel, LIMITS.parcel_bytes)
            return Parcel.from_bytes(data, str(parcel)).documents
    return ()


def _version(root: Envelope) -> int:
    return documents.payload_fields(root, "root", "TRUST_INVALID").integer("version", lo=1)


def write(before: TrustFile, trust: Trust) -> TrustFile:
    """Replace the trust file by `trust` and write its parcel; both are on the disk before either shows."""
    after = TrustFile(before.path, trust)
    parcel = Parcel(trust.chain)
    with atomic_writer(after.parcel_path) as carried:
        carried.write(parcel.to_bytes())
        carried.flush()
        os.fsync(carried.fileno())
        with atomic_writer(after.path) as file:
            file.write(trust.to_bytes())
    return after


def bundle_digest(path: Path) -> str:
    """The digest by which the bundle at `path` is withdrawn; its content is not checked."""
    with BundleReader.open(path) as bundle:
        if "manifest.json" not in bundle.entries:
            raise SealpackError("MANIFEST_INVALID", f"{path} has no manifest.json")
        return Manifest.from_bytes(bundle.read("manifest.json")).bundle_digest


def signed_by(path: Path, key: PublicKey) -> frozenset[str]:
    """Payload digests of everything `key` signed in a bundle, license or reply file; USAGE if nothing.

    These are what a revocation lists as still good. Documents inside documents count too.
    """
    digests = set()
    for envelope in _envelopes(path):
        for signature in envelope.signatures:
            if signature.keyid == key.keyid:
                key.verify(signature.sig, envelope.signed_bytes)
                digests.add(envelope.digest)
    if not digests:
        raise SealpackError("USAGE", f"{path} holds nothing signed by key {key.keyid[:16]}")
    return frozenset(digests)


def _envelopes(path: Path) -> Iterator[Envelope]:
    try:
        with path.open("rb") as file:
            is_bundle = file.read(2) == _ZIP
    except OSError as error:
        raise io_error(error, path, "read") from None
    if is_bundle:
        yield from _bundle_envelopes(path)
        return
    value = canonical.loads(
        read_bounded(path, LIMITS.parcel_bytes), max_bytes=LIMITS.parcel_bytes, what=str(path)
    )
    yield from _inside(value, str(path))


def _bundle_envelopes(path: Path) -> Iterator[Envelope]:
    with BundleReader.open(path) as bundle:
        if "META/model.sig" in bundle.entries:
            yield statement.read_signature(bundle.read("META/model.sig", LIMITS.signature_bytes))
        for name in bundle.entries:
            if name.startswith("META/license/"):
                yield Envelope.from_bytes(bundle.read(name, 2 * LIMITS.document_bytes), name)


def _inside(value: Any, what: str) -> Iterator[Envelope]:
    """Every envelope in a JSON value, those inside payloads of envelopes too (an ack carries a lease)."""
    if isinstance(value, list):
        for item in value:
            yield from _inside(item, what)
    elif isinstance(value, dict) and "payloadType" in value:
        envelope = Envelope.from_dict(value, what)
        yield envelope
        yield from _inside(canonical.loads(envelope.payload, what=what), what)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _inside(item, what)
