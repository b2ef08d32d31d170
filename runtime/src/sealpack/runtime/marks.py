"""The high-water mark: how far a log had come, kept away from the database.

Source: specs/runtime-state.md, "High-water mark". After every commit that moved a log, its signed
checkpoint goes into a file in another directory, with the counters and the clock as they then stood, so that
a database that is restored from an older copy is noticed. A mark behind the database says nothing: a power
cut may have taken the last ones. Whoever can write the state can also delete a mark; nothing here claims
otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import sqlite3
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from sealpack.format import canonical, records
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.files import read_bounded
from sealpack.format.keys import PublicKey
from sealpack.format.merkle import Frontier
from sealpack.format.note import Checkpoint, open_checkpoint
from sealpack.runtime.home import Home, marks_path
from sealpack.runtime.state import Connection, afterwards

SCHEMA = "sealpack/mark/v1"
_PURPOSE = b"sealpack/mark/v1\0"
_SLOTS = (0, 1)  # written in turn: a write that a crash tears leaves the other
_MAX_BYTES = 1 << 20

Counters = dict[str, dict[str, int]]


class Log(Protocol):
    """What a mark tells of a log (:class:`sealpack.runtime.log.Log`)."""

    log: int  # its number in the database
    origin: str
    license_id: str
    epoch: int
    size: int
    frontier: Frontier
    checkpoint: bytes
    started: int | None
    restarted: int | None


@dataclass(frozen=True, slots=True)
class Lapse:
    """What was spent of provisional use or of a broken glass, ms, when the accepted time was `seen`."""

    kind: str
    per: str
    began: int
    spent: int
    seen: int

    @classmethod
    def parse(cls, f: Fields) -> Lapse:
        """Read one."""
        return cls(
            f.text("kind"),
            f.text("per", default=""),
            f.integer("began"),
            f.integer("spent"),
            f.integer("seen"),
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a log stood, with what its license had used: {period: {meter: total}}, and the clock, ms.

    `closed` when the log had its last record.
    """

    epoch: int
    checkpoint: Checkpoint
    counters: Counters
    hard: int
    soft: int
    started: int | None
    restarted: int | None
    closed: bool = False
    lapses: tuple[Lapse, ...] = ()

    @property
    def registers(self) -> Counters:
        """Totals per build and meter."""
        kind = "bundle:"
        return {p.removeprefix(kind): dict(m) for p, m in self.counters.items() if p.startswith(kind)}


def kept() -> bool:
    """Whether there is a place for marks."""
    return marks_path() is not None


def is_written(origin: str) -> bool:
    """Whether a mark of the license stands there."""
    return any(path is not None and path.exists() for path in (_path(origin, slot) for slot in _SLOTS))


def raise_to(db: sqlite3.Connection, log: Log) -> None:
    """Raise the log's mark to where it stands, once the transaction is durable."""
    assert isinstance(db, Connection)
    path = _path(log.origin, log.size % len(_SLOTS))
    if path is None:
        return
    home = db.home

    def write() -> None:
        # Read after the commit: what else the transaction changed stands in the mark too.
        body = _body(db, log)
        with contextlib.suppress(OSError):  # a place that cannot be written keeps no mark, and stops nobody
            _write(path, f"{_mac(home, body)}\n".encode() + body + b"\n")

    afterwards(db, f"mark {log.origin}", write)


def _path(origin: str, slot: int) -> Path | None:
    """The file of a license's marks on a device: all epochs share it."""
    base = marks_path()
    _, _, license_id, device_id, _ = origin.split("/")
    return None if base is None else base / device_id / f"{license_id}.{slot}"


def _body(db: sqlite3.Connection, log: Log) -> bytes:
    counters: Counters = {}
    rows = db.execute(
        "SELECT period, meter, used FROM counters WHERE license_id=? AND used>0 AND (period='term' OR"
        " period>='bundle:' AND period<'bundle;' OR period=(SELECT max(period) FROM counters WHERE"
        " license_id=?1 AND period>='month:' AND period<'month;') OR period=(SELECT 'day:' ||"
        " max(CAST(substr(period, 5) AS INTEGER)) FROM counters WHERE license_id=?1 AND period>='day:'"
        " AND period<'day;'))",
        (log.license_id,),
    )
    for period, meter, used in rows:
        counters.setdefault(period, {})[meter] = used
    hard, soft = db.execute("SELECT hard, soft FROM clock").fetchone()
    last = db.execute("SELECT kind FROM leaves WHERE log=? AND n=?", (log.log, log.size - 1)).fetchone()
    spent = db.execute(
        "SELECT kind, per, began, spent, seen FROM lapses WHERE license_id=? ORDER BY began",
        (log.license_id,),
    ).fetchall()
    names = ("kind", "per", "began", "spent", "seen")
    mark = {
        "schema": SCHEMA,
        "epoch": log.epoch,
        "checkpoint": log.checkpoint.decode(),
        "counters": counters,
        "hard": hard,
        "soft": soft,
        **({} if log.started is None else {"started": log.started}),
        **({} if log.restarted is None else {"restarted": log.restarted}),
        **({"closed": True} if last == (records.CLOSED,) else {}),
        **({"lapses": [dict(zip(names, row, strict=True)) for row in spent]} if spent else {}),
    }
    return json.dumps(mark, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


@cache
def _secret(home: Home) -> bytes:
    return home.secret()


def _mac(home: Home, body: bytes) -> str:
    return hmac.new(_secret(home), _PURPOSE + body, hashlib.sha256).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """In place and without syncing: only the newest matters, and an older one is no harm."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def read(home: Home, origin: str, key: PublicKey) -> Mark | None:
    """The highest mark of a license on this device, whatever its epoch; None when none is left.

    One that this device's key or this state's secret did not make does not count.
    """
    found = [_read(home, path, key) for path in (_path(origin, slot) for slot in _SLOTS) if path]
    marks = [mark for mark in found if mark is not None]
    return max(marks, key=lambda mark: (mark.epoch, mark.checkpoint.size), default=None)


def _read(home: Home, path: Path, key: PublicKey) -> Mark | None:
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        data = read_bounded(path, _MAX_BYTES)
        mac, _, rest = data.partition(b"\n")
        body = rest.partition(b"\n")[0]
        if not hmac.compare_digest(mac, _mac(home, body).encode()):
            return None
        f = Fields(canonical.loads(body, what="mark"), "mark")
        f.schema(SCHEMA)
        return Mark(
            f.integer("epoch"),
            open_checkpoint(f.text("checkpoint", max_len=10_000).encode(), key),
            f.raw("counters"),
            f.integer("hard"),
            f.integer("soft"),
            f.integer("started", default=None),
            f.integer("restarted", default=None),
            f.boolean("closed", default=False),
            tuple(f.objects("lapses", Lapse.parse, default=[])),
        )
    except (SealpackError, OSError):
        return None


def is_ahead(mark: Mark, log: Log) -> bool:
    """Whether a mark shows receipts that the database does not have."""
    at = mark.checkpoint
    if (mark.epoch, at.size) == (log.epoch, log.size):
        return at.root != log.frontier.root
    return (mark.epoch, at.size) > (log.epoch, log.size)


def guard(db: sqlite3.Connection, log: Log, key: PublicKey) -> None:
    """STATE_ROLLED_BACK for a log that is behind its mark: whoever appends to it forks it.

    Looks once for each log and connection; what opens a state begins the next log where that is allowed.
    """
    assert isinstance(db, Connection)
    if log.origin in db.guarded:
        return
    mark = read(db.home, log.origin, key)
    if mark is not None and is_ahead(mark, log):
        raise SealpackError(
            "STATE_ROLLED_BACK",
            f"log {log.origin} ends at receipt {log.size} here, but had {mark.checkpoint.size} before",
        )
    db.guarded.add(log.origin)
