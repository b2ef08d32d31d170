"""Drops: files of any kind that somebody gives the console at one time, and what became of each.

Source: specs/console.md, "Dropping files". Documents are imported first, in the order in which they need each
other, then usage is ingested, so that a folder may be dropped as it is. What is neither is named and left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import sqlalchemy as sa

from sealpack.format.errors import SealpackError, printable
from sealpack.settlement import db, importing, ingest, stick, tables
from sealpack.settlement.audit import Actor
from sealpack.settlement.outcomes import OUTCOMES, Outcome, is_accepted
from sealpack.settlement.service import uploads
from sealpack.settlement.service.limits import Limits

USAGE, IMPORT, OTHER = "usage", "import", "other"
MAX_DOCUMENTS = 64 << 20  # bytes of all documents of one drop
_SENTENCE = 600

# What else lies on a stick or in a mailbox: by its schema, its beginning, or its name.
_SCHEMAS = {
    "sealpack/invoice/v1": "an invoice of settlement; invoices are made here, not taken in",
    "sealpack/payout-statement/v1": "a payout statement of settlement; nothing to take in",
    "sealpack/settle-usage/v1": "a usage report of settlement; nothing to take in",
    "sealpack/usage-report/v1": "a summary of usage; it bills nothing, the usage file (.usage.gz) does",
    "sealpack/tallies/v1": "a summary of usage; it bills nothing, the usage file (.usage.gz) does",
    "sealpack/receipts/v1": "a summary of usage; it bills nothing, the usage file (.usage.gz) does",
    "sealpack/status/v1": "a machine's status report; it bills nothing, the usage file (.usage.gz) does",
    "sealpack/settle-evidence/v1": "a dispute pack's index; check it with `sealpack settle check-evidence`",
}
_SUFFIXES = {
    ".sealpack": "a model bundle; it goes to machines, not to settlement",
    ".ack": "a reply to a machine; it goes back to the site",
    ".request": "a request for a license or an activation; it goes to whoever issues licenses",
    ".pem": "a key; keep it where it belongs and never send it",
    ".key": "a key; keep it where it belongs and never send it",
}
_BEGINNINGS = (
    (b"%PDF", "a PDF document; nothing to take in"),
    (b"\x89PNG", "a picture; nothing to take in"),
    (b"\xff\xd8\xff", "a picture; nothing to take in"),
    (b"<!doctype html", "a web page, perhaps a summary; it bills nothing"),
    (b"<html", "a web page, perhaps a summary; it bills nothing"),
    (b"-----BEGIN", "a key or a certificate; keep it where it belongs"),
)


@dataclass(frozen=True, slots=True)
class Dropped:
    """One file of a drop. `kind`: usage | import | other; `code`: an outcome's or an error's, or empty."""

    name: str
    kind: str
    code: str
    words: str
    sha256: str = ""
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Drop:
    """What was dropped at one time; `freed` are files of earlier ones that could be taken because of it."""

    id: int
    at: int
    who: str
    files: tuple[Dropped, ...]
    freed: tuple[Dropped, ...]


@dataclass(slots=True)
class _Taking:
    """A drop that is being taken."""

    database: db.Database
    actor: Actor
    limits: Limits
    files: list[Dropped] = field(default_factory=list)
    freed: list[Dropped] = field(default_factory=list)

    def take(self, sources: Sequence[tuple[str, BinaryIO]]) -> None:
        documents, size = [], 0
        for name, data in self._contents(sources):
            if isinstance(data, bytes) and (rank := _rank(data, name)) is not None:
                size += len(data)
                if size > MAX_DOCUMENTS:
                    raise SealpackError("REQUEST_TOO_LARGE", "the documents are too large together")
                documents.append((rank, name, data))
        for _, name, data in sorted(documents, key=lambda d: d[:2]):
            self._import(name, data)
        if documents:
            self._free()
        for name, data in self._contents(sources):
            if isinstance(data, Dropped):
                self.files.append(data)
            elif stick.is_usage(data, name):
                self._ingest(name, data)
            elif _rank(data, name) is None:
                self.files.append(Dropped(name, OTHER, "", _recognised(data, name)))

    def _contents(self, sources: Sequence[tuple[str, BinaryIO]]) -> Iterator[tuple[str, bytes | Dropped]]:
        """Every file, those in zips too, with its content, or with why there is none to be had."""
        for name, stream in sources:
            stream.seek(0)
            head = stream.read(4)
            stream.seek(0)
            if not head.startswith(uploads.ZIP_MARKS):
                data = stream.read(self.limits.file_bytes + 1)
                if len(data) > self.limits.file_bytes:
                    yield name, Dropped(name, OTHER, "R305", OUTCOMES["R305"])
                else:
                    yield name, data
                continue
            try:
                for entry, found in uploads.entries(stream, name, self.limits):
                    full = f"{name}: {entry}"[:255]
                    yield (full, _told(full, found) if isinstance(found, Outcome) else found)
            except SealpackError as error:
                yield name, Dropped(name, OTHER, error.code, _sentence(error))

    def _import(self, name: str, data: bytes) -> None:
        try:
            brought = importing.import_data(self.database, data, name, self.actor)
            self.files.append(Dropped(name, IMPORT, "OK", brought[:_SENTENCE]))
        except SealpackError as error:
            if error.spec.exit == 1:
                raise
            self.files.append(Dropped(name, IMPORT, error.code, _sentence(error)))

    def _free(self) -> None:
        try:
            freed = ingest.release(self.database, self.actor.at)
        except SealpackError as error:
            if error.code != "TRUST_UNPINNED":
                raise
            return
        self.freed += [_told(outcome.name, outcome) for outcome in freed if outcome.is_accepted]

    def _ingest(self, name: str, data: bytes) -> None:
        freed: list[Outcome] = []
        again = self._was_taken(hashlib.sha256(data).hexdigest())
        try:
            row = uploads.ingest_file(self.database, data, name, self.actor, freed)
        except SealpackError as error:
            if error.code != "TRUST_UNPINNED":
                raise
            words = "kept; it is decided when the trust file (trust.json) was dropped here"
            self.files.append(Dropped(name, USAGE, error.code, words))
            return
        if again:  # nothing came of it now
            row |= {"code": "W101", "meaning": OUTCOMES["W101"], "detail": "", "accepted": 0}
        words = " - ".join(part for part in (row.get("meaning", ""), row.get("detail", "")) if part)
        self.files.append(
            Dropped(name, USAGE, row["code"], words[:_SENTENCE], row["sha256"], row.get("accepted", 0))
        )
        mine = {file.sha256 for file in self.files}  # of these the page says how they stand now
        self.freed += [_told(one.name, one) for one in freed if one.sha256 not in mine]

    def _was_taken(self, digest: str) -> bool:
        """Whether these very bytes were accepted before."""
        with self.database.read() as connection:
            before = uploads.stored(connection, digest)
        return before is not None and is_accepted(before.get("code", "R"))


def take(database: db.Database, sources: Sequence[tuple[str, BinaryIO]], limits: Limits, actor: Actor) -> int:
    """Take files by name and open stream; the number under which what became of each is kept.

    STORE_*; what is wrong with a file is told in its row.
    """
    taking = _Taking(database, actor, limits)
    taking.take([(_called(name), stream) for name, stream in sources])
    said = {"files": [asdict(f) for f in taking.files], "freed": [asdict(f) for f in taking.freed]}
    with database.write() as connection:
        last = connection.execute(sa.select(sa.func.max(tables.drops.c.id))).scalar() or 0
        row = {"id": last + 1, "at": actor.at, "who": actor.who, "document": json.dumps(said).encode()}
        connection.execute(sa.insert(tables.drops).values(row))
    return last + 1


def _called(name: str) -> str:
    """A name without a path, fit to be shown."""
    return printable(PurePosixPath(name.replace("\\", "/")).name)[:255] or "unnamed"


def load(connection: sa.Connection, id: int) -> Drop | None:
    """A drop, with the usage files in it as they were decided then."""
    row = connection.execute(sa.select(tables.drops).where(tables.drops.c.id == id)).first()
    return _drop(row) if row else None


def newest(connection: sa.Connection, limit: int, before: int | None = None) -> list[Drop]:
    """The last drops, the newest first; `before` a number: those older than that one."""
    older = [] if before is None else [tables.drops.c.id < before]
    query = sa.select(tables.drops).where(*older).order_by(tables.drops.c.id.desc()).limit(limit)
    return [_drop(row) for row in connection.execute(query)]


def _drop(row: sa.Row[Any]) -> Drop:
    said = json.loads(row.document)
    files, freed = (tuple(Dropped(**one) for one in said[name]) for name in ("files", "freed"))
    return Drop(row.id, row.at, row.who, files, freed)


def _rank(data: bytes, name: str) -> int | None:
    """When a document is imported; None for what is none."""
    kind = "" if stick.is_usage(data, name) else importing.kind_of(data, name)
    return importing.KINDS.index(kind) if kind else None


def _recognised(data: bytes, name: str) -> str:
    """What a file is that settlement does not take."""
    if not data:
        return "an empty file"
    begins = data[:64].lstrip().lower()
    for beginning, words in _BEGINNINGS:
        if begins.startswith(beginning.lower()):
            return words
    for suffix, words in _SUFFIXES.items():
        if name.lower().endswith(suffix):
            return words
    schema = importing.schema_of(data)
    return _SCHEMAS.get(schema, f"not for settlement ({schema})" if schema else "not a file settlement knows")


def _told(name: str, outcome: Outcome) -> Dropped:
    words = " - ".join(part for part in (OUTCOMES[outcome.code], outcome.detail) if part)
    return Dropped(name, USAGE, outcome.code, words[:_SENTENCE], outcome.sha256, outcome.accepted)


def _sentence(error: SealpackError) -> str:
    return f"{error.message}; next: {error.remedy}"[:_SENTENCE]
