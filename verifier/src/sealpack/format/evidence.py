"""Evidence: a signed statement of how well a model did on named data, measured where and how.

Source: specs/evidence.md. Evidence names the payload files it is about by digest, so it can be made
before the bundle exists and still fits the bundle that carries those files. Numbers that are not
integers are decimal strings: signed JSON has no floats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sealpack.format import canonical, documents
from sealpack.format.container import check_name
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.io import DECIMAL, TASKS
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import FileEntry
from sealpack.format.statement import LAST_SECOND
from sealpack.format.trust import NAMESPACE, KeyEntry, Trust
from sealpack.format.values import VERSION_PATTERN, plain

KIND = "evidence"
MODEL_KINDS = ("onnx", "gguf")
DATA_FORMATS = ("jsonl", "csv", "npz")
EVALUATED_ROLES = ("model", "model-data", "tokenizer", "vocabulary", "labels")
METRIC_NAME = r"[a-z0-9][a-z0-9_]{0,63}"
_IO_MEMBERS = ("task", "pre", "post", "samples")


@dataclass(frozen=True, slots=True)
class EvaluatedFile:
    """One payload file as it was loaded: entry name and SHA-256 of its bytes."""

    name: str
    sha256: str

    @classmethod
    def parse(cls, f: Fields) -> EvaluatedFile:
        """Read one."""
        name = f.text("name", pattern=r"payload/.+", max_len=LIMITS.entry_name_bytes)
        check_name(name)
        return cls(name, f.digest("sha256"))


@dataclass(frozen=True, slots=True)
class Subject:
    """What was evaluated. `io_sha256` binds labels, pre- and post-processing and samples."""

    kind: str
    files: tuple[EvaluatedFile, ...]
    io_sha256: str
    bundle_id: str | None = None
    version: str | None = None
    bundle_digest: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> Subject:
        """Read one; files are sorted by name, each name once."""
        files = f.objects("files", EvaluatedFile.parse, max_items=LIMITS.entries)
        names = [file.name for file in files]
        if not names or names != sorted(set(names)):
            raise f.fail("files", "is empty, not sorted by name, or names a file twice")
        return cls(
            f.choice("kind", MODEL_KINDS),
            files,
            f.digest("io_sha256"),
            f.text("bundle_id", pattern=NAMESPACE, max_len=200, default=None),
            f.text("version", pattern=VERSION_PATTERN, default=None),
            f.digest("bundle_digest", default=None),
        )


@dataclass(frozen=True, slots=True)
class DataSet:
    """The labelled data: `digest` is the SHA-256 of the file, `rows` how many it holds."""

    name: str
    digest: str
    format: str
    rows: int
    fields: tuple[str, ...] = ()
    license: str | None = None
    source: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> DataSet:
        """Read one."""
        return cls(
            f.text("name", max_len=200),
            f.digest("digest"),
            f.choice("format", DATA_FORMATS),
            f.integer("rows", lo=1),
            f.texts("fields", max_items=64, default=()),
            f.text("license", max_len=200, default=None),
            f.text("source", max_len=1000, default=None),
        )


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure. `value` is a decimal string, `n` how many cases (rows, tokens) it was taken over.

    `baseline` is the figure of an answer that knows no input, on the same rows: decimal.
    """

    name: str
    value: str
    n: int
    higher_is_better: bool
    unit: str | None = None
    baseline: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> Metric:
        """Read one."""
        return cls(
            f.text("name", pattern=METRIC_NAME, max_len=64),
            f.text("value", pattern=DECIMAL),
            f.integer("n", lo=1),
            f.boolean("higher_is_better"),
            f.text("unit", max_len=32, default=None),
            f.text("baseline", pattern=DECIMAL, default=None),
        )

    @property
    def number(self) -> Decimal:
        """The value, exact."""
        return Decimal(self.value)


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of one call, percentiles by nearest rank, microseconds."""

    p50: int
    p90: int
    p99: int

    @classmethod
    def parse(cls, f: Fields) -> Latency:
        """Read one; percentiles do not fall."""
        made = cls(f.integer("p50"), f.integer("p90"), f.integer("p99"))
        if not made.p50 <= made.p90 <= made.p99:
            raise f.fail("p90", "percentiles fall")
        return made


@dataclass(frozen=True, slots=True)
class Performance:
    """`throughput` is items per second, decimal; memory is the process's peak resident size."""

    calls: int
    latency_us: Latency
    throughput: str
    peak_memory_bytes: int | None = None
    load_us: int | None = None

    @classmethod
    def parse(cls, f: Fields) -> Performance:
        """Read one."""
        return cls(
            f.integer("calls", lo=1),
            Latency.parse(f.sub("latency_us")),
            f.text("throughput", pattern=DECIMAL),
            f.integer("peak_memory_bytes", lo=1, default=None),
            f.integer("load_us", default=None),
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """Where it ran."""

    engine: str
    engine_version: str
    sealpack: str
    os: str
    arch: str
    threads: int
    cpu: str | None = None
    cores: int | None = None

    @classmethod
    def parse(cls, f: Fields) -> Environment:
        """Read one."""
        return cls(
            f.text("engine", max_len=100),
            f.text("engine_version", max_len=100),
            f.text("sealpack", max_len=100),
            f.text("os", max_len=200),
            f.text("arch", max_len=100),
            f.integer("threads", lo=1),
            f.text("cpu", max_len=200, default=None),
            f.integer("cores", lo=1, default=None),
        )


@dataclass(frozen=True, slots=True)
class Method:
    """How it was measured: which rows (`evaluated` of the data's, drawn by `seed`), batch, warm-up."""

    evaluated: int
    seed: int
    batch: int
    warmup: int
    metered: bool = False
    context: int | None = None

    @classmethod
    def parse(cls, f: Fields) -> Method:
        """Read one."""
        return cls(
            f.integer("evaluated", lo=1),
            f.integer("seed"),
            f.integer("batch", lo=1),
            f.integer("warmup"),
            f.boolean("metered", default=False),
            f.integer("context", lo=1, default=None),
        )


@dataclass(frozen=True, slots=True)
class SampleCount:
    """How many of the bundle's own samples were run and answered as expected."""

    passed: int
    total: int

    @classmethod
    def parse(cls, f: Fields) -> SampleCount:
        """Read one."""
        total = f.integer("total")
        return cls(f.integer("passed", hi=total), total)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One evidence document. Times are Unix seconds; it holds in [issued_at, valid_until)."""

    evaluator: str
    issued_at: int
    valid_until: int
    subject: Subject
    task: str
    data: DataSet
    metrics: tuple[Metric, ...]
    performance: Performance
    environment: Environment
    method: Method
    samples: SampleCount
    notes: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> Evidence:
        """Read the payload's members; DOC_SCHEMA names the one that is wrong."""
        f.crit(())
        made = cls(
            f.text("evaluator", max_len=200),
            f.integer("issued_at", hi=LAST_SECOND),
            f.integer("valid_until", hi=LAST_SECOND),
            Subject.parse(f.sub("subject")),
            f.choice("task", TASKS),
            DataSet.parse(f.sub("data")),
            f.objects("metrics", Metric.parse, max_items=64),
            Performance.parse(f.sub("performance")),
            Environment.parse(f.sub("environment")),
            Method.parse(f.sub("method")),
            SampleCount.parse(f.sub("samples")),
            f.text("notes", default=None),
        )
        made._check(f)
        return made

    def _check(self, f: Fields) -> None:
        if self.valid_until <= self.issued_at:
            raise f.fail("valid_until", "is not after issued_at")
        names = [metric.name for metric in self.metrics]
        if not names or len(set(names)) != len(names):
            raise f.fail("metrics", "is empty or has a name twice")
        if self.method.evaluated > self.data.rows:
            raise f.fail("method.evaluated", "is more than the data's rows")

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`; absent members are left out."""
        members: dict[str, Any] = plain(self)
        return members

    def metric(self, name: str) -> Metric | None:
        """The figure called `name`."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def check_subject(self, kind: str, files: Iterable[FileEntry], io: Mapping[str, Any]) -> None:
        """EVIDENCE_MISMATCH unless this is about exactly these files, read in exactly this way."""
        said = {file.name: file.sha256 for file in self.subject.files}
        held = {entry.name: entry.sha256 for entry in files if entry.role in EVALUATED_ROLES}
        for name in sorted(said.keys() | held.keys()):
            if said.get(name) != held.get(name):
                raise SealpackError("EVIDENCE_MISMATCH", f"it is about another {name}")
        if self.subject.kind != kind:
            raise SealpackError("EVIDENCE_MISMATCH", f"it is about an {self.subject.kind} model")
        if self.subject.io_sha256 != io_digest(io):
            raise SealpackError("EVIDENCE_MISMATCH", "it was made with other processing, labels or samples")


def io_digest(io: Mapping[str, Any]) -> str:
    """Hex SHA-256 of the canonical `task`, `pre`, `post` and `samples` of a manifest's `io`."""
    return hashlib.sha256(canonical.dumps({k: io[k] for k in _IO_MEMBERS if k in io})).hexdigest()


def is_document(data: bytes) -> bool:
    """Whether an evidence file means to be a signed document: an object with `payloadType`.

    Anything else is evidence as the creator states it, which nobody vouches for.
    """
    if len(data) > 2 * LIMITS.document_bytes:
        return False
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "payloadType" in value


def open_evidence(
    envelope: Envelope, trust: Trust, bundle_id: str | None = None
) -> tuple[Evidence, KeyEntry]:
    """Verify and read: signed by a key with role `evidence` whose owner is the evaluator.

    The key's namespaces must cover the bundle the evidence names and `bundle_id`, where given. DOC_TYPE,
    DOC_SCHEMA, SIG_KEY_UNKNOWN, SIG_KEY_ROLE, SIG_NAMESPACE, SIG_INVALID, KEY_REVOKED.
    """
    if documents.kind_of(envelope) != KIND:
        raise SealpackError(
            "DOC_TYPE", f"this is a {documents.kind_of(envelope)} document, expected evidence"
        )
    names = () if bundle_id is None else (bundle_id,)
    entry = trust.verify(envelope, KIND, names)
    evidence = Evidence.parse(documents.payload_fields(envelope, KIND))
    named = evidence.subject.bundle_id
    if named is not None and not entry.covers(named):
        raise SealpackError("SIG_NAMESPACE", f"key of {entry.issuer} may not sign for {named}")
    if entry.issuer != evidence.evaluator:
        raise SealpackError("SIG_KEY_ROLE", f"key of {entry.issuer} may not speak for {evidence.evaluator}")
    return evidence, entry
