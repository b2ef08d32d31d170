"""The files around issuing: bundles that are licensed, requests that came in, the registry.

Source: specs/registry-line.md. The registry is appended to under a lock and replaced whole, so that a
crash leaves either the old or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealpack.format.activation import ActivationRequest
from sealpack.format.container import BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, atomic_writer, io_error, read_bounded
from sealpack.format.license import BundleGrant
from sealpack.format.manifest import Manifest
from sealpack.format.registry import BundleFact, RegistryLine, read_lines
from sealpack.format.terms import ENTRY_NAME, Terms
from sealpack.format.trust import Trust
from sealpack.verifier.signature import check_signature

_MAX_REGISTRY = 1 << 30


@dataclass(frozen=True, slots=True)
class LicensedBundle:
    """A signed bundle that a license is to cover."""

    manifest: Manifest
    terms: Terms

    @property
    def fact(self) -> BundleFact:
        """How the registry line names it."""
        m = self.manifest
        return BundleFact(m.bundle_digest, m.bundle_id, m.version, m.release_index, m.name)

    def grant(self, *, exact: bool) -> BundleGrant:
        """The grant: this build alone (always for marked or encrypted ones), or the whole name."""
        m = self.manifest
        digest = m.bundle_digest if exact or m.watermark or m.encryption else None
        return BundleGrant(m.bundle_id, bundle_digest=digest)


def read_bundle(path: Path, trust: Trust) -> LicensedBundle:
    """Check a bundle's signature under `trust` and read manifest and terms; content is not hashed."""
    with BundleReader.open(path) as bundle:
        if "manifest.json" not in bundle.entries:
            raise SealpackError("SIG_MISSING", f"{path} is not signed")
        said = check_signature(bundle, trust).statement
        manifest = Manifest.from_bytes(bundle.read("manifest.json"))
        if said.manifest_sha256 != manifest.bundle_digest:
            raise SealpackError("MANIFEST_MISMATCH", f"{path}: manifest.json is not the signed one")
        if ENTRY_NAME not in bundle.entries:
            raise SealpackError("TERMS_MISMATCH", f"{path} has no {ENTRY_NAME}")
        terms = Terms.from_bytes(bundle.read(ENTRY_NAME))
    listed = {file.name: file.sha256 for file in manifest.files}
    if listed.get(ENTRY_NAME) != terms.digest:
        raise SealpackError("TERMS_MISMATCH", f"{path}: {ENTRY_NAME} is not the signed one")
    return LicensedBundle(manifest, terms)


def read_request(data: bytes, what: str) -> ActivationRequest:
    """The one activation request in the bytes of a parcel that came from `what`."""
    requests = Parcel.from_bytes(data, what).of_kind("activation-request")
    if len(requests) != 1:
        raise SealpackError("DOC_TYPE", f"{what} holds {len(requests)} activation requests, not one")
    return ActivationRequest.open(requests[0])


def read_registry(path: Path) -> tuple[RegistryLine, ...]:
    """Every line of a registry file; an absent file has none."""
    if not path.exists():
        return ()
    return tuple(read_lines(read_bounded(path, _MAX_REGISTRY), str(path)))


def deliver(out: Path, parcel: Parcel, registry: Path, *lines: RegistryLine, overwrite: bool) -> None:
    """Append the registry lines, then let the license file appear: none is out that is not registered."""
    with _locked(registry), atomic_writer(out, replace=overwrite) as file:
        file.write(parcel.to_bytes())
        _append(registry, lines)


def register(registry: Path, *lines: RegistryLine) -> None:
    """Append registry lines that no license file goes with."""
    with _locked(registry):
        _append(registry, lines)


def _append(registry: Path, lines: Sequence[RegistryLine]) -> None:
    before = read_bounded(registry, _MAX_REGISTRY) if registry.exists() else b""
    atomic_write(registry, before + b"".join(line.to_bytes() + b"\n" for line in lines))


@contextlib.contextmanager
def _locked(registry: Path) -> Iterator[None]:
    """Hold the registry's folder: two people issuing at once must not lose a line."""
    try:
        folder = os.open(registry.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise io_error(error, registry.parent, "write") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
