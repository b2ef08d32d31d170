"""The registry line: what `license issue` leaves for settlement, one canonical JSON object a line.

Source: specs/registry-line.md. A line carries the signed documents themselves, so importing it needs no
belief in the line: settlement opens the envelopes under its own trust. `bundles` says which builds the
license was issued for, by name, so that a first usage file never meets an unknown bundle by accident.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.limits import LIMITS
from sealpack.format.trust import NAMESPACE
from sealpack.format.values import VERSION_PATTERN, plain

SCHEMA = "sealpack/registry-line/v1"
MAX_LINE_BYTES = 4 * LIMITS.document_bytes


@dataclass(frozen=True, slots=True)
class BundleFact:
    """A build the license was issued for."""

    bundle_digest: str
    bundle_id: str
    version: str
    release_index: int
    name: str

    @classmethod
    def parse(cls, f: Fields) -> BundleFact:
        """Read one."""
        return cls(
            f.digest("bundle_digest"),
            f.text("bundle_id", pattern=NAMESPACE, max_len=200),
            f.text("version", pattern=VERSION_PATTERN),
            f.integer("release_index", lo=1),
            f.text("name", max_len=200),
        )


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A customer read out the code of an activation: its digest, and when (Unix seconds, issuer's clock)."""

    activation: str
    at: int

    @classmethod
    def parse(cls, f: Fields) -> Confirmed:
        """Read one."""
        return cls(f.digest("activation"), f.integer("at"))


@dataclass(frozen=True, slots=True)
class RegistryLine:
    """An issued license with what was issued beside it; the envelopes are not verified yet.

    `released_at` is when the issuer registered `deactivation` (Unix seconds); `acknowledgement` says that
    settlement has the closed log to its end.
    """

    license: Envelope
    activation: Envelope | None = None
    lease: Envelope | None = None
    bundles: tuple[BundleFact, ...] = ()
    deactivation: Envelope | None = None
    acknowledgement: Envelope | None = None
    released_at: int | None = None
    confirmed: Confirmed | None = None
    sublicense: Envelope | None = None  # `license` is its parent, the rest a delegate's

    def to_bytes(self) -> bytes:
        """The line without its newline."""
        members: dict[str, Any] = {"schema": SCHEMA, "license": self.license.to_dict()}
        for name in ("activation", "lease", "deactivation", "acknowledgement", "sublicense"):
            envelope = getattr(self, name)
            if envelope is not None:
                members[name] = envelope.to_dict()
        for name in ("released_at", "confirmed"):
            if getattr(self, name) is not None:
                members[name] = plain(getattr(self, name))
        if self.sublicense is not None:
            members["crit"] = ["sublicense"]
        return canonical.dumps({**members, "bundles": plain(self.bundles)})

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "registry line") -> RegistryLine:
        """Read one line strictly; REGISTRY_INVALID (or JSON_INVALID, DSSE_INVALID) names the field."""
        f = Fields(canonical.loads(data, max_bytes=MAX_LINE_BYTES, what=what), what, "REGISTRY_INVALID")
        f.schema(SCHEMA)
        f.crit(("sublicense",))
        license = _envelope(f, "license")
        if license is None:
            raise f.fail("license", "is missing")
        confirmed = f.sub("confirmed", default=None)
        line = cls(
            license,
            _envelope(f, "activation"),
            _envelope(f, "lease"),
            f.objects("bundles", BundleFact.parse, max_items=256),
            _envelope(f, "deactivation"),
            _envelope(f, "acknowledgement"),
            f.integer("released_at", default=None),
            None if confirmed is None else Confirmed.parse(confirmed),
            _envelope(f, "sublicense"),
        )
        if (line.deactivation is None) != (line.released_at is None):
            raise f.fail("released_at", "and deactivation stand together")
        return line


def _envelope(f: Fields, kind: str) -> Envelope | None:
    if kind not in f:
        return None
    envelope = Envelope.from_dict(f.raw(kind), f"{f.what}.{kind}")
    if documents.kind_of(envelope) != kind:
        raise f.fail(kind, f"is of kind {documents.kind_of(envelope)}")
    return envelope


def read_lines(data: bytes, what: str = "registry") -> Iterator[RegistryLine]:
    """The lines of a registry file, empty ones skipped; errors name the line number."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        try:
            yield RegistryLine.from_bytes(line, f"{what} line {number}")
        except SealpackError as error:
            code = "REGISTRY_INVALID" if error.code.startswith("JSON_") else error.code
            raise SealpackError(code, error.message) from None
