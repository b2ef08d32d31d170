"""Who changed what: every change of the books, each entry chained to the one before by its digest.

Source: specs/settlement-ledger.md, "Audit trail". An entry names the digest of what was issued or booked, so
a document or a posting that was changed afterwards no longer fits. Entries cut off at the end leave a chain
that is whole: the newest digest, written down elsewhere, shows that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import tables

FIRST = "0" * 64  # what the first entry is chained to


class Readable(Protocol):
    """A database (:class:`sealpack.settlement.db.Database`) as far as it is read here."""

    def read(self) -> AbstractContextManager[sa.Connection]:
        """One consistent snapshot."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, and when (Unix seconds)."""

    who: str
    at: int


NOBODY = Actor("settlement", 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change; `what` begins with the verb."""

    seq: int
    at: int
    who: str
    what: dict[str, Any]
    previous: str
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "seq": self.seq, "at": self.at, "who": self.who, "what": self.what, "previous": self.previous,
            "digest": self.digest,
        }  # fmt: skip


def sha256(data: bytes) -> str:
    """The digest of a document's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def _digest(seq: int, at: int, who: str, what: dict[str, Any], previous: str) -> str:
    return sha256(canonical.dumps({"at": at, "previous": previous, "seq": seq, "what": what, "who": who}))


def note(connection: sa.Connection, actor: Actor, verb: str, **facts: Any) -> str:
    """Append an entry in the running transaction; its digest."""
    last = connection.execute(
        sa.select(tables.audit.c.seq, tables.audit.c.digest).order_by(tables.audit.c.seq.desc()).limit(1)
    ).first()
    seq, previous = (last.seq + 1, last.digest) if last else (1, FIRST)
    what = {"verb": verb, **{key: value for key, value in facts.items() if value not in (None, "")}}
    digest = _digest(seq, actor.at, actor.who, what, previous)
    row = {"seq": seq, "at": actor.at, "who": actor.who, "what": canonical.dumps(what).decode(),
           "previous": previous, "digest": digest}  # fmt: skip
    connection.execute(sa.insert(tables.audit).values(row))
    return digest


def entries(connection: sa.Connection) -> Iterator[Entry]:
    """All of them, the oldest first."""
    for row in connection.execute(sa.select(tables.audit).order_by(tables.audit.c.seq)):
        yield Entry(row.seq, row.at, row.who, json.loads(row.what), row.previous, row.digest)


def verify(database: Readable, head: str | None = None) -> tuple[int, str]:
    """Follow the chain from its beginning and compare what it names with the tables.

    Returns the number of entries and the newest digest. AUDIT_BROKEN names the first entry, document or
    transaction that does not fit, or `head`, a digest noted earlier, when no entry has it.
    """
    with database.read() as connection:
        return check(connection, head)


def check(connection: sa.Connection, head: str | None = None) -> tuple[int, str]:
    """:func:`verify` in a running transaction."""
    previous, count, known = FIRST, 0, {FIRST}
    named: dict[str, str] = {}
    for entry in entries(connection):
        count += 1
        right = _digest(entry.seq, entry.at, entry.who, entry.what, entry.previous)
        if (entry.seq, entry.previous, entry.digest) != (count, previous, right):
            raise _broken(f"entry {count} of the audit trail was changed, or one before it removed")
        previous = entry.digest
        known.add(previous)
        named |= _named(entry.what)
    found = dict(_found(connection))
    for what in sorted(named.keys() | found.keys()):
        if named.get(what) != found.get(what):
            raise _broken(f"{what} is not what the audit trail says of it")
    if head is not None and head not in known:
        raise _broken(f"no entry has the digest {head[:16]}: the end of the audit trail was removed")
    return count, previous


def _named(what: dict[str, Any]) -> dict[str, str]:
    """What an entry vouches for: document or transaction -> digest."""
    document = {f"document {what['number']}": what["document"]} if "document" in what else {}
    booked = {f"transaction {id}": digest for id, digest in what.get("booked", {}).items()}
    return document | booked


def _found(connection: sa.Connection) -> Iterator[tuple[str, str]]:
    for row in connection.execute(sa.select(tables.invoices.c.name, tables.invoices.c.json)):
        yield f"document {row.name}", sha256(row.json)
    for row in connection.execute(sa.select(tables.transactions)).all():
        yield f"transaction {row.id}", transaction_digest(connection, row)


def transaction_digest(connection: sa.Connection, row: Any) -> str:
    """The digest of a stored transaction with its postings."""
    columns = tables.postings.c
    lines = connection.execute(
        sa.select(columns.account, columns.party, columns.document, columns.amount)
        .where(columns.seq == row.seq)
        .order_by(columns.n)
    )
    head = [row.id, row.issuer, row.day, row.kind, row.document, row.reference, row.narration, row.currency]
    return sha256(canonical.dumps([head, [[*line[:3], str(line.amount)] for line in lines]]))


def _broken(message: str) -> SealpackError:
    return SealpackError("AUDIT_BROKEN", message)
