"""Taking an upload: to disk within limits, then every usage file in it as `settle ingest` does.

Source: specs/service.md, "Uploads". Nothing is unpacked to a path: names in a zip are words for people, their
bytes go to the database by digest. The answer is made of what is stored: the same bytes, the same answer.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import sqlalchemy as sa

from sealpack.format.errors import SealpackError, printable
from sealpack.settlement import audit, db, evidence, ingest, replays, stick, work_queue
from sealpack.settlement.audit import Actor
from sealpack.settlement.outcomes import OUTCOMES, Outcome, is_accepted
from sealpack.settlement.service.limits import Limits
from sealpack.settlement.service.tokens import Caller

SCHEMA = "sealpack/uploaded/v1"
_END_MARK = b"PK\x05\x06"
ZIP_MARKS = (b"PK\x03\x04", _END_MARK)
_END = struct.Struct("<4s4H2LH")  # end of central directory
_ENTRY_BYTES = 46 + 1024  # of a central directory, per entry
_PIECE = 1 << 16
_NAMED = 100  # files left aside that are named


@dataclass(slots=True)
class Taken:
    """What became of an upload: one row per usage file, and what was no usage file."""

    files: list[dict[str, Any]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def decided(self) -> bool:
        """Whether no file waits for a worker."""
        return not any(row.get("state") == "waiting" for row in self.files)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"schema": SCHEMA, "files": self.files, "left": self.left[:_NAMED]}


def max_bytes(head: bytes, limits: Limits) -> int:
    """How long a body with this beginning may be."""
    return limits.zip_bytes if head.startswith(ZIP_MARKS) else limits.file_bytes


Keep = Callable[[db.Database, bytes, str, Actor], dict[str, Any]]


def take(
    database: db.Database, path: Path, name: str, caller: Caller, limits: Limits, now: int, *,
    later: bool = False,
) -> Taken:  # fmt: skip
    """Ingest the uploaded file, or every usage file of the uploaded zip; `later`: keep and queue them.

    UPLOAD_INVALID when it is neither, REQUEST_TOO_LARGE for a zip over the limits; STORE_*, TRUST_UNPINNED.
    """
    actor, keep = Actor(f"token {caller.name}", now), _queue if later else ingest_file
    with path.open("rb") as stream:
        head = stream.read(4)
        stream.seek(0)
        if not head.startswith(ZIP_MARKS):
            data = stream.read()
            if not stick.is_usage(data, name):
                raise SealpackError("UPLOAD_INVALID", f"{name} is neither a usage file nor a zip")
            return Taken([_taken(database, data, name, caller, actor, keep)])
        return _take_zip(database, stream, name, caller, actor, limits, keep)


def _taken(
    database: db.Database, data: bytes, name: str, caller: Caller, actor: Actor, keep: Keep
) -> dict[str, Any]:
    """Keep a file; one that does not concern its sender stands for itself."""
    with database.read() as connection:
        foreign = replays.is_replay(connection, data, caller.may_know)
    if foreign:
        return replays.hold(database, data, printable(name)[:255], actor)
    return keep(database, data, name, actor)


def _take_zip(
    database: db.Database, stream: BinaryIO, name: str, caller: Caller, actor: Actor, limits: Limits,
    keep: Keep,
) -> Taken:  # fmt: skip
    taken = Taken()
    for entry, data in entries(stream, name, limits):
        if isinstance(data, Outcome):
            taken.files.append(data.to_dict())
        elif stick.is_usage(data, entry):
            taken.files.append(_taken(database, data, entry, caller, actor, keep))
        else:
            taken.left.append(entry)
    return taken


def entries(stream: BinaryIO, name: str, limits: Limits) -> Iterator[tuple[str, bytes | Outcome]]:
    """Name and content of every file in a zip, by name; an outcome where there is no content to be had."""
    _check_directory(stream, name, limits)
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
        raise SealpackError("UPLOAD_INVALID", f"{name} is a damaged zip: {error}") from None
    with archive:
        found = [entry for entry in archive.infolist() if not entry.is_dir()]
        unpacked = sum(entry.file_size for entry in found)
        if len(found) > limits.zip_entries or unpacked > limits.zip_unpacked_bytes:
            raise _too_large(
                f"{name} holds {len(found)} files of {unpacked >> 20} MiB together;"
                f" {limits.zip_entries} files of {limits.zip_unpacked_bytes >> 20} MiB are allowed"
            )
        for entry in sorted(found, key=lambda e: e.filename):
            called = printable(PurePosixPath(entry.filename.replace("\\", "/")).name)[:255] or "unnamed"
            yield called, _read(archive, entry, called, limits)


def _check_directory(stream: BinaryIO, name: str, limits: Limits) -> None:
    """Look at the size of a zip's directory before it is read: that is all held in memory."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 65_557))
    tail = stream.read()
    stream.seek(0)
    plain = tail[-_END.size :]
    at = (
        len(tail) - _END.size
        if plain[:4] == b"PK\x05\x06" and plain[-2:] == b"\0\0"
        else tail.rfind(b"PK\x05\x06")
    )
    if at < 0 or len(tail) < at + _END.size:
        raise SealpackError("UPLOAD_INVALID", f"{name} is a damaged zip: it has no end")
    if tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise SealpackError("UPLOAD_INVALID", f"{name} is a zip of the 64-bit kind, which no usage needs")
    directory = _END.unpack_from(tail, at)[5]
    if directory > limits.zip_entries * _ENTRY_BYTES:
        raise _too_large(f"the directory of {name} is {directory:,} bytes long")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, called: str, limits: Limits) -> bytes | Outcome:
    """The content of an entry; never more than it says, and no other packing than the usual one."""
    if entry.file_size > limits.file_bytes:
        return Outcome("", called, "R305", f"more than {limits.file_bytes >> 20} MiB")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Outcome("", called, "R301", "it is encrypted, or packed in an unusual way")
    try:
        with archive.open(entry) as packed:  # in pieces: at once, it would unpack more than the entry says
            return b"".join(iter(lambda: packed.read(_PIECE), b""))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        return Outcome("", called, "R301", f"damaged in the zip: {error}"[:300])


def _too_large(message: str) -> SealpackError:
    return SealpackError("REQUEST_TOO_LARGE", message, remedy="send the files in several uploads")


def ingest_file(
    database: db.Database, data: bytes, name: str, actor: Actor, freed: list[Outcome] | None = None
) -> dict[str, Any]:
    """Keep a file with its entry in the audit trail, ingest it, and say how it stands.

    Files that waited for it and could be taken are added to `freed`.
    """
    name = printable(name)[:255]
    _keep(database, data, name, actor, None)
    _, *released = ingest.ingest(database, data, name, actor.at)
    if freed is not None:
        freed += [outcome for outcome in released if outcome.is_accepted]
    return _standing(database, data)


def _queue(database: db.Database, data: bytes, name: str, actor: Actor) -> dict[str, Any]:
    """Keep a file with its entry in the audit trail, leave it to a worker, and say how it stands."""

    def queue(connection: sa.Connection, digest: str) -> None:
        work_queue.add(connection, digest, data, actor.at)

    if not _keep(database, data, printable(name)[:255], actor, queue):
        known = _standing(database, data)
        if not is_accepted(known.get("code", "H")) and "state" not in known:  # judged again
            with database.write(known["sha256"]) as connection:
                queue(connection, known["sha256"])
    return _standing(database, data)


def _keep(
    database: db.Database, data: bytes, name: str, actor: Actor,
    also: Callable[[sa.Connection, str], None] | None,
) -> bool:  # fmt: skip
    """Keep the bytes, with what else belongs to it; False when they were known."""
    digest = hashlib.sha256(data).hexdigest()

    def note(connection: sa.Connection, digest: str) -> None:
        audit.note(connection, actor, "upload", file=digest, name=name)
        if also is not None:
            also(connection, digest)

    with database.read() as connection:
        if stored(connection, digest) is not None:
            return False
    evidence.keep(database, data, name, actor.at, also=note)
    return True


def _standing(database: db.Database, data: bytes) -> dict[str, Any]:
    """How a kept file stands."""
    with database.read() as connection:
        found = stored(connection, hashlib.sha256(data).hexdigest())
    assert found is not None  # files are never removed
    return found


def stored(connection: sa.Connection, digest: str) -> dict[str, Any] | None:
    """How a file stands; None when its bytes were never kept.

    `code` is missing while nothing was decided; `state` is there while it is in the queue.
    """
    files = db.files.c
    columns = (files.sha256, files.name, files.received_at, files.code, files.detail, files.accepted,
               files.origin, files.first, files.last)  # fmt: skip
    row = connection.execute(sa.select(*columns).where(files.sha256 == digest)).first()
    if row is None:
        return None
    said = {
        "file": row.name, "sha256": row.sha256, "received_at": row.received_at, "code": row.code,
        "meaning": OUTCOMES.get(row.code or ""), "detail": row.detail, "accepted": row.accepted,
        "origin": row.origin, "from": row.first, "to": row.last,
    }  # fmt: skip
    for job in work_queue.jobs(connection, digest):
        said |= {
            "state": "failed" if job.state == "failed" else "waiting",
            "origin": row.origin or job.origin,
        }
    return {name: value for name, value in said.items() if value is not None}
