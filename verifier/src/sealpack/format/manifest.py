"""The manifest: what a bundle is and what every file in it must be.

Source: specs/manifest.md. `bundle_digest` is the SHA-256 of `manifest.json`, everywhere a document
names a bundle: the manifest binds every file's name, size and digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sealpack.format import canonical
from sealpack.format.chunks import CHUNK_SIZE, LEAF_SIZE, chunk_count
from sealpack.format.container import check_name
from sealpack.format.encryption import EncryptionHeader
from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.io import DECIMAL, ModelIo
from sealpack.format.license import PlanRef
from sealpack.format.limits import LIMITS
from sealpack.format.trust import NAMESPACE
from sealpack.format.values import FEATURE, IDENTIFIER, VERSION_PATTERN, plain

SCHEMA = "sealpack/manifest/v1"
KINDS = ("onnx", "gguf", "agent")
TIERS = ("Experimental", "Verified", "Enterprise-Ready")
ROLES = (
    "model",
    "model-data",
    "tokenizer",
    "vocabulary",
    "labels",
    "asset",
    "license-text",
    "license-terms",
    "sbom",
    "card",
    "evidence",
    "chunk-table",
)
WEIGHT_ROLES = ("model", "model-data")  # what is marked, encrypted and read by an engine
KNOWN_CRIT = ("encryption", "watermark")


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """The chunk table of one payload file."""

    table: str
    chunk_size: int
    count: int
    sha256: str

    @classmethod
    def parse(cls, f: Fields) -> ChunkRef:
        """Read one; only 1 MiB chunks exist in v1."""
        return cls(
            f.text("table", pattern=r"chunks/[0-9]{1,4}\.sha256c"),
            f.integer("chunk_size", lo=CHUNK_SIZE, hi=CHUNK_SIZE),
            f.integer("count", hi=LIMITS.chunk_table_bytes // LEAF_SIZE),
            f.digest("sha256"),
        )


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle as stored."""

    name: str
    role: str
    media_type: str
    size: int
    sha256: str
    chunks: ChunkRef | None = None

    @classmethod
    def parse(cls, f: Fields) -> FileEntry:
        """Read one; payload files carry a chunk table whose count fits their size."""
        name = f.text("name", max_len=LIMITS.entry_name_bytes)
        check_name(name)
        chunks = f.sub("chunks", default=None)
        entry = cls(
            name,
            f.choice("role", ROLES),
            f.text("media_type", pattern=r"[a-z0-9.+-]+/[a-z0-9.+-]+", max_len=100),
            f.integer("size"),
            f.digest("sha256"),
            ChunkRef.parse(chunks) if chunks else None,
        )
        if (entry.chunks is not None) != name.startswith("payload/"):
            raise f.fail("chunks", "stands exactly with payload files")
        if entry.chunks is not None and entry.chunks.count != chunk_count(entry.size):
            raise f.fail("chunks", f"counts {entry.chunks.count} leaves for {entry.size} bytes")
        return entry


@dataclass(frozen=True, slots=True)
class Watermark:
    """That the weights are marked, and for which license; never keys or positions."""

    scheme: str
    params_sha256: str
    commitment: str
    license_id: str

    @classmethod
    def parse(cls, f: Fields) -> Watermark:
        """Read one."""
        return cls(
            f.text("scheme", max_len=100),
            f.digest("params_sha256"),
            f.digest("commitment"),
            f.text("license_id", pattern=IDENTIFIER),
        )


@dataclass(frozen=True, slots=True)
class Threshold:
    """A bound the creator declares for a metric; exactly one of `min` and `max`, decimal strings."""

    metric: str
    min: str | None = None
    max: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> Threshold:
        """Read one."""
        if ("min" in f) == ("max" in f):
            raise f.fail("min", "or max: exactly one is needed")
        return cls(
            f.text("metric", pattern=r"[a-z0-9][a-z0-9_]{0,63}", max_len=64),
            f.text("min", pattern=DECIMAL, default=None),
            f.text("max", pattern=DECIMAL, default=None),
        )


@dataclass(frozen=True, slots=True)
class TierProof:
    """How the claimed tier was proven: by which policies (SHA-256 of each) and declared thresholds."""

    policies: tuple[str, ...]
    thresholds: tuple[Threshold, ...] = ()

    @classmethod
    def parse(cls, f: Fields) -> TierProof:
        """Read one."""
        policies = f.texts("policies", pattern=DIGEST, max_items=8)
        if not policies or len(set(policies)) != len(policies):
            raise f.fail("policies", "is empty or has one twice")
        return cls(policies, f.objects("thresholds", Threshold.parse, max_items=16, default=()))


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest. `engine` and `io` are carried as plain values and read by the runtime."""

    bundle_id: str
    version: str
    release_index: int
    kind: str
    name: str
    quality_tier: str
    files: tuple[FileEntry, ...]
    engine: dict[str, Any]
    io: dict[str, Any]
    intended_use: str = ""
    description: str = ""
    support: str | None = None
    plan: PlanRef | None = None
    recertify_by: str | None = None
    encryption: dict[str, Any] | None = None
    watermark: Watermark | None = None
    tier_proof: TierProof | None = None
    requires_features: tuple[str, ...] | None = None
    data: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read `manifest.json` strictly; MANIFEST_INVALID names the field."""
        value = canonical.loads(data, max_bytes=LIMITS.metadata_entry_bytes, what="manifest")
        f = Fields(value, "manifest", "MANIFEST_INVALID")
        f.schema(SCHEMA)
        f.crit(KNOWN_CRIT)
        present = [name for name in KNOWN_CRIT if name in f]
        if sorted(f.texts("crit", default=())) != present:
            raise f.fail("crit", f"is not what is present: {', '.join(present) or 'nothing'}")
        watermark, plan = f.sub("watermark", default=None), f.sub("plan", default=None)
        encryption, proof = f.sub("encryption", default=None), f.sub("tier_proof", default=None)
        made = cls(
            bundle_id=f.text("bundle_id", pattern=NAMESPACE, max_len=200),
            version=f.text("version", pattern=VERSION_PATTERN),
            release_index=f.integer("release_index", lo=1),
            kind=f.choice("kind", KINDS),
            name=f.text("name", max_len=200),
            quality_tier=f.choice("quality_tier", TIERS),
            files=f.objects("files", FileEntry.parse, max_items=LIMITS.entries),
            engine=_carried(f, "engine"),
            io=_carried(f, "io"),
            intended_use=f.text("intended_use", default=""),
            description=f.text("description", default=""),
            support=f.text("support", max_len=300, default=None),
            plan=PlanRef.parse(plan) if plan else None,
            recertify_by=_date(f, "recertify_by"),
            encryption=None if encryption is None else _carried(f, "encryption"),
            watermark=Watermark.parse(watermark) if watermark else None,
            tier_proof=TierProof.parse(proof) if proof else None,
            requires_features=f.texts("requires_features", pattern=FEATURE, max_items=64, default=None),
            data=data,
        )
        made._check()
        return made

    def _check(self) -> None:
        names = [entry.name for entry in self.files]
        if names != sorted(set(names)):
            raise SealpackError("MANIFEST_INVALID", "manifest.files is not sorted by name, or has one twice")
        tables = sorted(e.chunks.table for e in self.files if e.chunks)
        listed = sorted(e.name for e in self.files if e.role == "chunk-table")
        if tables != listed:
            raise SealpackError("MANIFEST_INVALID", "manifest.files and its chunk tables disagree")
        self._check_io({entry.name for entry in self.files})
        if sum(entry.role == "model" for entry in self.files) != 1:
            raise SealpackError("MANIFEST_INVALID", "manifest.files has not exactly one model")
        self._check_encryption()

    def _check_encryption(self) -> None:
        header = self.encryption_header
        if header is not None:
            weights = [e.name for e in self.files if e.role in WEIGHT_ROLES]
            header.check({e.name: e.size for e in self.files}, weights, "MANIFEST_INVALID")

    def _check_io(self, names: set[str]) -> None:
        pre = self.model_io.pre
        if pre is not None and pre.vocab is not None and pre.vocab not in names:
            raise SealpackError("MANIFEST_INVALID", f"manifest.io.pre.vocab: no file {pre.vocab}")

    @property
    def bundle_digest(self) -> str:
        """Hex SHA-256 of the manifest's bytes."""
        return hashlib.sha256(self.data or self.to_bytes()).hexdigest()

    @property
    def model_io(self) -> ModelIo:
        """`io`, typed; MANIFEST_INVALID names the field."""
        return ModelIo.parse(Fields(self.io, "manifest.io", "MANIFEST_INVALID"))

    @property
    def encryption_header(self) -> EncryptionHeader | None:
        """`encryption`, typed; MANIFEST_INVALID names the field."""
        if self.encryption is None:
            return None
        return EncryptionHeader.parse(Fields(self.encryption, "manifest.encryption", "MANIFEST_INVALID"))

    @property
    def model(self) -> FileEntry:
        """The model file."""
        return next(entry for entry in self.files if entry.role == "model")

    def with_role(self, role: str) -> tuple[FileEntry, ...]:
        """The files with a role, by name."""
        return tuple(entry for entry in self.files if entry.role == role)

    def to_bytes(self) -> bytes:
        """`manifest.json`: canonical, absent members left out."""
        crit = [name for name in KNOWN_CRIT if getattr(self, name) is not None]
        members: dict[str, Any] = plain(self, leave_out=("data",))
        return canonical.dumps({"schema": SCHEMA, **members, **({"crit": crit} if crit else {})})


def _date(f: Fields, key: str) -> str | None:
    """A day that the calendar has, as YYYY-MM-DD."""
    text = f.text(key, pattern=r"[0-9]{4}-[0-9]{2}-[0-9]{2}", default=None)
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError:
        raise f.fail(key, "is not a day of the calendar") from None


def _carried(f: Fields, key: str) -> dict[str, Any]:
    f.sub(key)
    value: dict[str, Any] = f.raw(key)
    return value
