"""What calls hold in the database, and what becomes of it: counters, reservations, receipts in their place.

Source: specs/runtime-state.md, "Calls". Everything here happens inside the caller's transaction. What a
process that is gone has left open is settled by whoever comes next.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.values import METERS
from sealpack.runtime import admission, log, owners
from sealpack.runtime.home import Home
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.owners import HELD
from sealpack.runtime.state import afterwards
from sealpack.runtime.timekeeper import Moment

PROGRESS_TOKENS = 64  # a stream makes its progress durable this often

Meters = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was written for a call: its index in the log, status and meters.

    `position` is None while the receipt waits to be written with others.
    """

    origin: str
    position: int | None
    status: str
    meters: Meters


@dataclass(frozen=True, slots=True)
class Held:
    id: int
    log: int
    license_id: str
    owner: str
    route: str
    periods: tuple[str, ...]
    held: Meters
    progress: int
    progress_ms: int
    streaming: bool
    ahead: int
    boot_id: str


def make(
    db: sqlite3.Connection,
    found: Log,
    owner: str,
    periods: tuple[str, ...],
    moment: Moment,
    want: Meters,
    route: str,
    *,
    streaming: bool,
    generation: int = 0,
) -> int:
    """Add a hold of `owner` to the counters; returns its number. `generation` > 0: for calls to come."""
    add(db, found.license_id, periods, reserved=want)
    # A first wall far ahead may be undone, and must not leave a term that begins in the far future.
    if found.started is None or moment.times.soft < found.started:
        log.note_start(db, found, moment.times.soft)
    cursor = db.execute(
        "INSERT INTO reservations(log, license_id, owner, route, periods, calls, tok_in, tok_out, items,"
        " progress, progress_ms, streaming, ahead, boot_id) VALUES(?,?,?,?,?,?,?,?,?,0,0,?,?,?)",
        (
            found.log,
            found.license_id,
            owner,
            route,
            json.dumps(periods),
            *(want[meter] for meter in HELD),
            int(streaming),
            generation,
            moment.boot_id,
        ),
    )
    return int(cursor.lastrowid or 0)


def read(db: sqlite3.Connection, number: int) -> Held:
    row = db.execute(
        "SELECT id, log, license_id, owner, route, periods, progress, progress_ms, streaming, ahead, boot_id,"
        " calls, tok_in, tok_out, items"
        " FROM reservations WHERE id=?",
        (number,),
    ).fetchone()
    if row is None:
        raise SealpackError("STATE_TAMPERED", f"reservation {number} is gone")
    number, log_number, license_id, owner, route, periods, progress, progress_ms, streaming = row[:9]
    return Held(
        number,
        log_number,
        license_id,
        owner,
        route,
        tuple(json.loads(periods)),
        dict(zip(HELD, row[11:], strict=True)),
        progress,
        progress_ms,
        bool(streaming),
        *row[9:11],
    )


def sweep(db: sqlite3.Connection, home: Home, key: PrivateKey, moment: Moment, own: str = "") -> None:
    """Settle what processes that are gone left open; `own` is the caller's owner name."""
    query = "SELECT owner, max(boot_id) FROM reservations WHERE owner<>? GROUP BY owner"
    for owner, boot_id in db.execute(query, (own,)).fetchall():
        # Nobody lives through a boot, whoever locks the file now.
        if boot_id in ("", moment.boot_id) and owners.alive(home, owner):
            continue
        for (number,) in db.execute("SELECT id FROM reservations WHERE owner=?", (owner,)).fetchall():
            row = read(db, number)
            try:
                if row.ahead:
                    _abort_ahead(db, home, row, key, moment)
                else:
                    abort(db, row, key, moment)
            except SealpackError as error:
                if error.code != "STATE_ROLLED_BACK":
                    raise
                # Of a backup: it goes when its license does on, and stands in no other one's way till then.
        afterwards(db, f"bury {owner}", partial(owners.bury, home, owner))


def tidy(db: sqlite3.Connection, home: Home) -> None:
    """Remove the files of owners that are gone and left nothing open."""
    owing = {name for (name,) in db.execute("SELECT DISTINCT owner FROM reservations")}
    for name in owners.names(home):
        if name not in owing:
            owners.bury(home, name)


def give_back(db: sqlite3.Connection, row: Held) -> None:
    """End a hold for which nothing was computed."""
    add(db, row.license_id, row.periods, reserved={meter: -held for meter, held in row.held.items()})
    db.execute("DELETE FROM reservations WHERE id=?", (row.id,))


def abort(
    db: sqlite3.Connection, row: Held, key: PrivateKey, moment: Moment, begun: Meters | None = None
) -> None:
    """Settle a call that ended without a receipt, at its hold or at what is known to have `begun`."""
    held = dict(begun or row.held)
    if row.streaming:
        held["tok_out"] = min(held["tok_out"], row.progress + PROGRESS_TOKENS)
        held["ms"] = row.progress_ms
    close(db, row, key, moment, "aborted", held, 0, None)


def _abort_ahead(db: sqlite3.Connection, home: Home, row: Held, key: PrivateKey, moment: Moment) -> None:
    """Settle a hold for calls to come. What its owner had begun is billed; if nobody can say, all of it.

    A process that is killed leaves its word in its file. After a power cut, the file may be older than
    what it should tell.
    """
    begun = owners.begun(home, row.owner, row.ahead) if row.boot_id == moment.boot_id else None
    if begun is not None and begun["calls"] == 0:
        give_back(db, row)
    elif begun is not None and row.held["calls"] == 1:
        abort(db, row, key, moment, begun)
    else:
        close(db, row, key, moment, records.LOST_STATUS, begun or row.held, 0, None)


def close(
    db: sqlite3.Connection,
    row: Held,
    key: PrivateKey,
    moment: Moment,
    status: str,
    meters: Meters,
    wait_ms: int,
    cost_centre: str | None,
) -> Receipt:
    found = log.by_id(db, row.log)
    writer = Writer(db, found, key, moment)
    if status == records.LOST_STATUS:
        position = writer.lost(row.route, meters)
    else:
        position = writer.usage(row.route, status, meters, wait_ms, cost_centre)
    let_go = {meter: -held for meter, held in row.held.items()}
    add(db, row.license_id, row.periods, reserved=let_go, used=meters)
    db.execute("DELETE FROM reservations WHERE id=?", (row.id,))
    writer.finish()
    return Receipt(found.origin, position, status, meters)


def check(db: sqlite3.Connection, found: Log, key: PublicKey) -> None:
    """STATE_TAMPERED unless log, registers and counters agree with each other and with what was signed.

    Each kind of period (day, month, build, term) counts every call once, so all have the registers' sums
    and what was carried over from logs that were lost.
    """
    log.check(db, found, key)
    totals = db.execute(
        "SELECT meter, sum(total) FROM (SELECT meter, total FROM registers JOIN logs USING(log) WHERE"
        " license_id=?1 UNION ALL SELECT meter, total FROM carried WHERE license_id=?1) GROUP BY meter",
        (found.license_id,),
    )
    expected = {meter: [used, 0] for meter, used in totals}
    for meter in HELD:
        query = f"SELECT total({meter}) FROM reservations WHERE license_id=?"
        (held,) = db.execute(query, (found.license_id,)).fetchone()
        expected.setdefault(meter, [0, 0])[1] = int(held)
    counted = db.execute(
        "SELECT substr(period, 1, instr(period || ':', ':') - 1) AS kind, meter, sum(used), sum(reserved)"
        " FROM counters WHERE license_id=? GROUP BY kind, meter",
        (found.license_id,),
    )
    sums = {(kind, meter): [used, held] for kind, meter, used, held in counted if used or held}
    kinds = admission.PERIOD_KINDS
    if sums != {(k, meter): both for meter, both in expected.items() if any(both) for k in kinds}:
        raise SealpackError("STATE_TAMPERED", f"the counters of {found.license_id} differ from its receipts")


def add(
    db: sqlite3.Connection,
    license_id: str,
    periods: tuple[str, ...],
    *,
    reserved: Meters,
    used: Meters | None = None,
) -> None:
    """Change the counters of every period; a CHECK stops what would fall below zero."""
    for meter in METERS:
        hold, use = reserved.get(meter, 0), (used or {}).get(meter, 0)
        if not hold and not use:
            continue
        for period in periods:
            changed = db.execute(
                "UPDATE counters SET used=used+?, reserved=reserved+?"
                " WHERE license_id=? AND period=? AND meter=?",
                (use, hold, license_id, period, meter),
            )
            if changed.rowcount == 0:
                row = (license_id, period, meter, use, hold)
                db.execute("INSERT INTO counters VALUES(?,?,?,?,?)", row)
