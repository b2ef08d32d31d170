"""The runtime's own bundle copies: verified once at install, used in place ever after.

Source: specs/runtime-state.md, "Store". A bundle that someone else can still write to cannot be mapped:
another process may change its bytes behind an unchanged name, size and time. So install copies it to a
new file of its own (0400, in a 0700 folder), verifies *the copy*, and records it under the install's
secret. No defence is claimed against the same user or root.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sealpack.format import canonical
from sealpack.format.container import BundleReader
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.files import io_error
from sealpack.format.io import ModelIo
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.parts import whole_blocks
from sealpack.format.statement import read_signature
from sealpack.format.trust import Trust
from sealpack.runtime import anchors, unlock
from sealpack.runtime.engines.base import Span, VerifiedModel
from sealpack.runtime.home import Home
from sealpack.runtime.state import State
from sealpack.verifier.checks import Verified, inspect_bundle

_LABEL = b"sealpack/store-record/v1\0"
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """What install recorded of a bundle: enough to refuse it cheaply, and to find its copy."""

    bundle_digest: str
    bundle_id: str
    version: str
    release_index: int
    name: str
    kind: str
    size: int  # of the file, bytes
    sha256: str  # of the file
    signer: str  # keyid that signed the bundle
    signed_digest: str  # digest of the signed statement
    signed_at: int
    installed_at: int
    marked_for: str  # license id of a marked build, else ""
    needs: str = ""  # the features it requires, with spaces between

    def to_bytes(self) -> bytes:
        """The record as it is authenticated."""
        return canonical.dumps(asdict(self))

    def path(self, home: Home) -> Path:
        """Where the copy is."""
        return home.store / f"{self.bundle_digest}.sealpack"


@dataclass(slots=True)
class OpenBundle:
    """An installed bundle, open: manifest, licenses that ride along, and the model to load."""

    installed: Installed
    manifest: Manifest
    reader: BundleReader

    @property
    def io(self) -> ModelIo:
        """How the model is fed and read."""
        return ModelIo.parse(Fields(self.manifest.io, "manifest.io", "MANIFEST_INVALID"))

    def model(self, input_key: bytes | None = None) -> VerifiedModel:
        """The verified weights for an engine; the bundle must stay open while it is used.

        `input_key` opens those of an encrypted bundle; see :func:`sealpack.runtime.unlock.decrypted`.
        """
        spans = {
            entry.name: Span(self.reader.entries[entry.name].data_at, entry.size, entry.role)
            for entry in self.manifest.files
        }
        return VerifiedModel(
            self.reader.file.fileno(),
            self.manifest.kind,
            self.manifest.model.name,
            spans,
            self.io,
            self.manifest.bundle_id,
            unlock.decrypted(self.reader, self.manifest, input_key),
        )

    def role_digest(self, *roles: str) -> str | None:
        """The digest of the first file with one of these roles."""
        for role in roles:
            for entry in self.manifest.with_role(role):
                return entry.sha256
        return None

    def licenses(self) -> tuple[Envelope, ...]:
        """Licenses that ride along in META, not verified here."""
        return tuple(
            Envelope.from_bytes(self.reader.read(name, 2 * LIMITS.document_bytes), name)
            for name in self.reader.names
            if name.startswith("META/license/")
        )

    def close(self) -> None:
        """Close the file."""
        self.reader.close()


def install(
    state: State,
    source: str | os.PathLike[str],
    now: int,
    progress: Progress = lambda _: None,
) -> Installed:
    """Copy, verify and record the bundle at `source`, or the parts it lists; `now` is Unix seconds.

    The copy is what gets verified, so nobody can change it in between. Raises the first failed check's
    code, or STORE_FULL, STORE_READONLY; nothing is left behind then. Installing again is harmless.
    """
    trusts = anchors.load(state)
    with BundleReader.open(source) as bundle:  # structure first: junk is refused before it is copied
        size = bundle.size  # and no more than that is copied, whatever becomes of the source meanwhile
    _remove_leftovers(state.home.store)
    part = state.home.store / f".{os.getpid()}.install"
    try:
        digest = _copy(Path(source), part, size, progress)
        found = _verify(part, trusts, source)
        made = _describe(found, part, size, digest, now)
        carried = _carried_trust(part)
        part.chmod(0o400)
        target = made.path(state.home)
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise io_error(error, state.home.store, "write") from None
    finally:
        part.unlink(missing_ok=True)
    record = made.to_bytes()
    mac = _mac(state.home, record)
    with state.write() as db:
        anchors.ratchet(db, carried)
        db.execute(
            "INSERT INTO bundles VALUES(?,?,?,?) ON CONFLICT(bundle_digest) DO UPDATE"
            " SET record=excluded.record, mac=excluded.mac",
            (made.bundle_digest, made.bundle_id, record, mac),
        )
    return made


def _remove_leftovers(folder: Path) -> None:
    """Delete the unfinished copies of installs that were killed."""
    for path in folder.glob(".*.install"):
        try:
            os.kill(int(path.name.split(".")[1]), 0)
        except (ProcessLookupError, ValueError):
            path.unlink(missing_ok=True)
        except PermissionError:  # somebody's process has that number now: wait for another time
            continue


def _copy(source: Path, part: Path, size: int, progress: Progress) -> str:
    """Copy `size` bytes and return their SHA-256; IO_ERROR when the source has another size by now."""
    digest, left = hashlib.sha256(), size
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for block in whole_blocks(source):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            out.write(block)
            progress(len(block))
        if left:
            raise SealpackError("IO_ERROR", f"{source} changed while it was copied")
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _verify(part: Path, trusts: list[Trust], source: str | os.PathLike[str]) -> Verified:
    def check(trust: Trust) -> Verified:
        report, verified = inspect_bundle(part, trust)
        if verified is None:
            first = report.failures[0]
            raise SealpackError(first.code or "BUNDLE_INVALID", f"{os.fspath(source)}: {first.detail}")
        return verified

    return anchors.under_any(trusts, check)


def _describe(found: Verified, part: Path, size: int, digest: str, now: int) -> Installed:
    with BundleReader.open(part) as bundle:
        envelope = read_signature(bundle.read("META/model.sig", LIMITS.signature_bytes))
    m = found.manifest
    return Installed(
        m.bundle_digest,
        m.bundle_id,
        m.version,
        m.release_index,
        m.name,
        m.kind,
        size,
        digest,
        envelope.signatures[0].keyid,
        envelope.digest,
        found.statement.signed_at,
        now,
        m.watermark.license_id if m.watermark else "",
        " ".join(m.requires_features or ()),
    )


def _carried_trust(part: Path) -> list[Envelope]:
    with BundleReader.open(part) as bundle:
        names = [n for n in bundle.names if n.startswith("META/trust/")]
        return [Envelope.from_bytes(bundle.read(n, 2 * LIMITS.document_bytes), n) for n in names]


def _mac(home: Home, record: bytes) -> bytes:
    return hmac.new(home.secret(), _LABEL + record, hashlib.sha256).digest()


def installed(state: State) -> list[Installed]:
    """Every installed bundle, newest release last; STATE_TAMPERED when a record was changed."""
    with state.read() as db:
        rows = db.execute("SELECT record, mac FROM bundles").fetchall()
    found = [_authentic(state.home, record, mac) for record, mac in rows]
    return sorted(found, key=lambda i: (i.bundle_id, i.release_index, i.installed_at))


def _authentic(home: Home, record: bytes, mac: bytes) -> Installed:
    if not hmac.compare_digest(_mac(home, record), mac):
        raise SealpackError("STATE_TAMPERED", "the record of an installed bundle was changed")
    members: dict[str, Any] = canonical.loads(record, what="store record")
    return Installed(**members)


def find(state: State, name: str) -> Installed:
    """The newest installed release of bundle id `name`, or the one with digest `name`."""
    everything = installed(state)
    match = [i for i in everything if name in (i.bundle_id, i.bundle_digest, f"{i.bundle_id}@{i.version}")]
    if match:
        return match[-1]
    known = ", ".join(sorted({i.bundle_id for i in everything})) or "none"
    raise SealpackError("NOT_INSTALLED", f"{name} is not installed here; installed: {known}")


def open_installed(state: State, found: Installed) -> OpenBundle:
    """Open the store's copy; BUNDLE_INVALID when it is not the file that install wrote."""
    path = found.path(state.home)
    try:
        reader = BundleReader.open(path)
    except SealpackError as error:
        raise SealpackError("BUNDLE_INVALID", f"the copy of {found.bundle_id}: {error.message}") from None
    try:
        facts = os.fstat(reader.file.fileno())
        own = facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) == 0o400 and facts.st_nlink == 1
        if not own or facts.st_size != found.size:
            raise SealpackError("BUNDLE_INVALID", f"the copy of {found.bundle_id} was touched from outside")
        data = reader.read("manifest.json")
        if hashlib.sha256(data).hexdigest() != found.bundle_digest:
            raise SealpackError("BUNDLE_INVALID", f"the copy of {found.bundle_id} holds another manifest")
        return OpenBundle(found, Manifest.from_bytes(data), reader)
    except BaseException:
        reader.close()
        raise
