"""What is evaluated: a model file, a bundle file, or an installed bundle.

Source: specs/evidence.md, "Subjects". A model file is the creator's own. A bundle file is verified first,
and opened without a license only for somebody whom the vendor's trust lists as an evaluator of it. An
installed bundle is run like any other call: licensed, metered and receipted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from sealpack.format import gguf_split
from sealpack.format.container import BundleReader
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import EVALUATED_ROLES, EvaluatedFile, Subject, io_digest
from sealpack.format.fields import Fields
from sealpack.format.files import io_error
from sealpack.format.gguf_split import SplitGguf
from sealpack.format.io import ModelIo, complete
from sealpack.format.keys import PublicKey
from sealpack.format.manifest import Manifest
from sealpack.format.model_header import read_model_header
from sealpack.format.onnx_header import OnnxHeader
from sealpack.format.trust import Trust
from sealpack.runtime.engines import choose
from sealpack.runtime.engines.base import Call, Description, Options, Session, Span, VerifiedModel
from sealpack.verifier.checks import inspect_bundle

CONFIG_NAME = "sealpack.toml"
COST_CENTRE = "evaluate"
_MAX_CONFIG = 1 << 20
_BLOCK = 1 << 20
_MODEL_ENDINGS = (".onnx", ".gguf", ".sealpack")


class Model(Protocol):
    """A loaded model that answers calls, metered or not."""

    def describe(self) -> Description:
        """What is loaded."""

    def ask(self, call: Call) -> dict[str, Any]:
        """Compute one call."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A subject, ready to be asked; `metered` tells whether its calls go through a license.

    `load_us` is how long the engine took to load it; for a metered one, license checks included.
    """

    subject: Subject
    io: ModelIo
    model: Model
    metered: bool
    load_us: int


@dataclass(frozen=True, slots=True)
class _Direct:
    """A session without a license."""

    session: Session
    load_us: int

    def describe(self) -> Description:
        return self.session.describe()

    def ask(self, call: Call) -> dict[str, Any]:
        return self.session.prepare(call).run(None).value


@dataclass(frozen=True, slots=True)
class Project:
    """What an evaluation needs of a sealpack.toml; the rest is the builder's."""

    io: Mapping[str, Any]
    files: tuple[tuple[str, Path, str], ...]  # entry name, path, role
    bundle_id: str | None = None
    version: str | None = None
    trust: Path | None = None


def read_project(path: Path | None) -> Project:
    """Read sealpack.toml, named or found here; empty when there is none. CONFIG_INVALID, FILE_MISSING."""
    found = path or Path(CONFIG_NAME)
    if path is None and not found.is_file():
        return Project({}, ())
    try:
        with found.open("rb") as file:
            value = tomllib.loads(file.read(_MAX_CONFIG).decode("utf-8"))
    except OSError as error:
        raise io_error(error, found, "read") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SealpackError("CONFIG_INVALID", f"{found} is not TOML: {error}") from None
    f, folder = Fields(value, str(found), "CONFIG_INVALID"), found.resolve().parent
    empty = Fields({}, "", "CONFIG_INVALID")
    bundle, trust = f.sub("bundle", default=empty), f.sub("trust", default=empty)
    trust_file = trust.text("file", default=None)
    f.sub("io", default=empty)
    return Project(
        f.raw("io", default={}),
        f.objects("files", lambda row: _listed(row, folder), default=()),
        bundle.text("id", default=None),
        bundle.text("version", default=None),
        None if trust_file is None else folder / Path(trust_file).expanduser(),
    )


def _listed(row: Fields, folder: Path) -> tuple[str, Path, str]:
    path = folder / Path(row.text("path")).expanduser()
    name = row.text("name", default=path.name)
    return f"payload/{name}", path, row.text("role", default="asset")


@contextlib.contextmanager
def open_model(path: Path, project: Project, options: Options) -> Iterator[Loaded]:
    """Load a model file with the io of its project. MODEL_*, CONFIG_INVALID, IO_ERROR, ENGINE_FAILED."""
    gguf_split.require_first(path)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open(path))
        header = read_model_header(file, what=path.name)
        merged: BinaryIO | None = None
        kind = "onnx" if isinstance(header, OnnxHeader) else "gguf"
        files = {f"payload/model.{kind}": (path, "model")}
        if isinstance(header, OnnxHeader):
            for name in header.external_files:
                files[f"payload/{name}"] = (path.parent / name, "model-data")
            outputs, architecture = [output.name for output in header.outputs], None
        else:
            outputs, architecture = [], header.architecture
            split = gguf_split.read_split(path, header)
            if split is not None:
                merged = stack.enter_context(_merged(split, path))
        files |= {name: (at, role) for name, at, role in project.files if role in EVALUATED_ROLES}
        io = complete(project.io, kind, architecture, outputs)
        main = f"payload/model.{kind}"
        held = {
            name: stack.enter_context(_Held(at, role, merged if name == main else None))
            for name, (at, role) in sorted(files.items())
        }
        subject = Subject(
            kind,
            tuple(EvaluatedFile(name, one.sha256) for name, one in held.items()),
            io_digest(io),
            project.bundle_id,
            project.version,
        )
        typed = ModelIo.parse(Fields(io, "io", "CONFIG_INVALID"))
        spans = {name: one.span for name, one in held.items()}
        if typed.pre is not None and typed.pre.vocab not in (None, *spans):
            raise SealpackError("CONFIG_INVALID", f"io.pre.vocab: {typed.pre.vocab} is not under [[files]]")
        verified = VerifiedModel(spans[main].fd or 0, kind, main, spans, typed, path.name)
        session = stack.enter_context(_session(verified, options))
        yield Loaded(subject, typed, session, False, session.load_us)
        for one in held.values():
            one.check_unchanged()


@contextlib.contextmanager
def _session(model: VerifiedModel, options: Options) -> Iterator[_Direct]:
    began = time.perf_counter_ns()
    session = choose.load(model, options)
    try:
        yield _Direct(session, _since(began))
    finally:
        session.close()


def _since(began: int) -> int:
    return (time.perf_counter_ns() - began) // 1000


def _open(path: Path) -> BinaryIO:
    if not path.is_file():
        raise SealpackError("MODEL_MISSING", f"{path} does not exist, or is no file")
    try:
        return path.open("rb")
    except OSError as error:
        raise io_error(error, path, "read") from None


@contextlib.contextmanager
def _merged(split: SplitGguf, path: Path) -> Iterator[BinaryIO]:
    """The one model that the parts are, as a file without a name: nothing is left of it afterwards."""
    with _nameless(path.parent) as merged:
        try:
            with split.open() as parts:
                shutil.copyfileobj(parts, merged, _BLOCK)
            merged.seek(0)
        except OSError as error:
            raise io_error(error, path.parent, "write") from None
        yield merged


def _nameless(folder: Path) -> BinaryIO:
    """A file as large as models are: beside the model where one can write, else with temporary files."""
    try:
        return tempfile.TemporaryFile(dir=folder if os.access(folder, os.W_OK) else None)
    except OSError as error:
        raise io_error(error, folder, "write") from None


class _Held:
    """A file that is hashed, then used from the same descriptor, and must not change meanwhile.

    `file` is what stands at `path` when it is open already, or is merged from more than that.
    """

    def __init__(self, path: Path, role: str, file: BinaryIO | None = None) -> None:
        self._path, self._role = path, role
        self._file = _open(path) if file is None else file
        self._before = self._state()
        self.sha256 = self._digest()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        try:
            while block := self._file.read(_BLOCK):
                digest.update(block)
        except OSError as error:
            raise io_error(error, self._path, "read") from None
        return digest.hexdigest()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    @property
    def span(self) -> Span:
        return Span(0, self._before[0], self._role, self._file.fileno())

    def check_unchanged(self) -> None:
        if self._state() != self._before:
            raise SealpackError("IO_ERROR", f"{self._path} was changed while it was evaluated")

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def open_bundle(path: Path, trust: Trust | None, key: PublicKey, options: Options) -> Iterator[Loaded]:
    """Verify a bundle file and load it, for an evaluator whom its vendor's trust lists.

    USAGE without a trust file; the first failed check's code; SIG_KEY_ROLE, SIG_NAMESPACE for anybody else.
    """
    if trust is None:
        raise SealpackError("USAGE", "a bundle file is verified before it is evaluated: give --trust")
    report, verified = inspect_bundle(path, trust)
    if verified is None:
        first = report.failures[0]
        raise SealpackError(first.code or "BUNDLE_INVALID", f"{path}: {first.detail}")
    _check_evaluator(verified.trust or trust, key, verified.manifest.bundle_id)
    with BundleReader.open(path) as bundle:
        if hashlib.sha256(bundle.read("manifest.json")).hexdigest() != verified.manifest.bundle_digest:
            raise SealpackError("IO_ERROR", f"{path} was changed while it was evaluated")
        before = os.fstat(bundle.file.fileno())
        with _session(_verified(bundle, verified.manifest), options) as session:
            yield Loaded(
                _subject(verified.manifest), verified.manifest.model_io, session, False, session.load_us
            )
        after = os.fstat(bundle.file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise SealpackError("IO_ERROR", f"{path} was changed while it was evaluated")


def _check_evaluator(trust: Trust, key: PublicKey, bundle_id: str) -> None:
    """Without a license, a bundle is run only for a key that may sign evidence about it."""
    try:
        entry = trust.entry(key.keyid, "evidence", "")
        if not entry.covers(bundle_id):
            raise SealpackError("SIG_NAMESPACE", f"key of {entry.issuer} may not sign for {bundle_id}")
    except SealpackError as error:
        raise SealpackError(
            error.code,
            f"{error.message}: only an evaluator whom the vendor lists may run a bundle without a license",
            remedy="install the bundle and evaluate it by its id, under your license",
        ) from None


def _verified(bundle: BundleReader, manifest: Manifest) -> VerifiedModel:
    if manifest.encryption is not None:
        raise SealpackError(
            "DOC_CRIT", "an encrypted bundle file cannot be evaluated",
            remedy="evaluate the model file before it is encrypted",
        )  # fmt: skip
    spans = {e.name: Span(bundle.entries[e.name].data_at, e.size, e.role) for e in manifest.files}
    return VerifiedModel(
        bundle.file.fileno(), manifest.kind, manifest.model.name, spans, manifest.model_io, manifest.bundle_id
    )


def _subject(manifest: Manifest) -> Subject:
    files = [EvaluatedFile(e.name, e.sha256) for e in manifest.files if e.role in EVALUATED_ROLES]
    return Subject(
        manifest.kind,
        tuple(files),
        io_digest(manifest.io),
        manifest.bundle_id,
        manifest.version,
        manifest.bundle_digest,
    )


@contextlib.contextmanager
def open_installed(
    bundle_id: str, *, state: str | None, license: str | None, options: Options
) -> Iterator[Loaded]:
    """Open an installed bundle under its license; every call is admitted, metered and receipted."""
    from sealpack.runtime import api

    began = time.perf_counter_ns()
    with api.open(
        bundle_id, state=state, license=license, threads=options.threads, context=options.context
    ) as runtime:
        yield Loaded(_subject(runtime.manifest), runtime.io, _Metered(runtime), True, _since(began))


class _Metered:
    """A licensed runtime; every call carries the cost centre `evaluate`."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def describe(self) -> Description:
        found: Description = self._runtime.describe()
        return found

    def ask(self, call: Call) -> dict[str, Any]:
        value: dict[str, Any] = self._runtime.run(call, cost_centre=COST_CENTRE).value
        return value


def kind_of(name: str) -> str:
    """Whether `name` is a `bundle` file, a `model` file or the id of something `installed`."""
    path = Path(name)
    if path.is_file():
        with _open(path) as file:
            return "bundle" if file.read(4) == b"PK\3\4" else "model"
    if path.exists() or name.lower().endswith(_MODEL_ENDINGS):
        raise SealpackError("MODEL_MISSING", f"{name} does not exist, or is no file")
    return "installed"
