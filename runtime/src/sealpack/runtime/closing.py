"""Ending a license on this device: the log's last record, and the signed proof that frees the seat.

Source: specs/activation.md, "Closing". One transaction settles what dead processes left, ends the log, signs
the proof and lets go of activation and lease, which hold the wrapped keys. The proof stays, so it can be
written again; files are written afterwards, and writing them again changes nothing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sealpack.format import documents, records
from sealpack.format.activation import Activation
from sealpack.format.deactivation import Deactivation
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.values import METERS
from sealpack.runtime import anchors, device, epochs, holds, log, receipts, rights, timekeeper
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.receipts import Exported
from sealpack.runtime.state import State
from sealpack.runtime.timekeeper import Moment
from sealpack.runtime.words import day, plural

REASON = "deactivated"


@dataclass(frozen=True, slots=True)
class Closed:
    """A license that ended here: the signed proof, and whether it had ended before."""

    proof: Envelope
    said: Deactivation
    before: bool


def choose(state: State, license_id: str | None) -> str:
    """The license to close: the one named, else the only one with an activation or a proof; USAGE."""
    if license_id is not None:
        return license_id
    with state.read() as db:
        rows = db.execute(
            "SELECT DISTINCT license_id FROM documents WHERE kind IN ('activation', 'deactivation')"
            " ORDER BY license_id"
        ).fetchall()
    if len(rows) != 1:
        names = ", ".join(row[0] for row in rows) or "none"
        raise SealpackError("USAGE", f"say which license to close; activated here: {names}")
    return str(rows[0][0])


def close(state: State, license_id: str) -> Closed:
    """End `license_id` on this device, or give the proof again of one that ended here.

    LIC_MISSING, NOT_ACTIVATED for a license that binds no device, STATE_LOCKED while a call runs.
    """
    signer = device.key(state.home)
    with state.write() as db:
        found = rights.read(db, license_id, anchors.current(db))
        if found.activation is None:
            proof = rights.stored(db, "deactivation", license_id)
            if proof is None:
                raise SealpackError(
                    "NOT_ACTIVATED",
                    f"license {license_id} has no activation here, so there is no seat to free",
                    remedy="delete the license file if nobody shall use it any more",
                )
            return Closed(proof, Deactivation.open(proof), before=True)
        moment = timekeeper.observe(db)
        epochs.catch_up(db, signer, found, moment)
        holds.sweep(db, state.home, signer, moment)
        _require_idle(db, license_id)
        ended = log.find(db, license_id)
        assert ended is not None, "an activation and its log are made in one transaction"
        ended = _end(db, ended, signer, moment)
        proof = _prove(db, ended, found.activation, signer, moment.times.soft // 1000)
        db.execute("PRAGMA secure_delete=ON")  # the wrapped keys are overwritten, not just let go
        for kind in ("activation", "lease"):
            rights.forget(db, kind, license_id)
        rights.keep(db, "deactivation", license_id, proof)
    return Closed(proof, Deactivation.open(proof), before=False)


def _require_idle(db: sqlite3.Connection, license_id: str) -> None:
    """What is left after the sweep belongs to processes that live."""
    (running,) = db.execute("SELECT count(*) FROM reservations WHERE license_id=?", (license_id,)).fetchone()
    if running:
        raise SealpackError(
            "STATE_LOCKED",
            f"{plural(running, 'call')} running under license {license_id}",
            remedy="wait until they have ended, or stop the programs that use it, then close again",
        )


def _end(db: sqlite3.Connection, found: Log, signer: PrivateKey, moment: Moment) -> Log:
    """Tally, export and closing record: the usage file that goes with the proof needs no further one."""
    writer = Writer(db, found, signer, moment)
    writer.tally()
    found.file_seq += 1
    writer.exported(
        file_seq=found.file_seq,
        reason=REASON,
        **{"from": found.acked_size, "to": writer.position + 2},
    )
    writer.add(records.CLOSED, reason=REASON)
    found = writer.finish()
    found.exported_size = found.size
    log.store_exported(db, found)
    return found


def _prove(
    db: sqlite3.Connection, ended: Log, activation: Activation, signer: PrivateKey, now: int
) -> Envelope:
    totals = db.execute(
        "SELECT meter, sum(total) FROM (SELECT meter, total FROM registers JOIN logs USING(log) WHERE"
        " license_id=?1 UNION ALL SELECT meter, total FROM carried WHERE license_id=?1) GROUP BY meter",
        (ended.license_id,),
    ).fetchall()
    used = {meter: int(total) for meter, total in totals if meter in METERS and total}
    said = Deactivation(
        ended.license_id,
        signer.public,
        ended.epoch,
        ended.origin,
        ended.size,
        ended.frontier.root.hex(),
        activation.digest,
        activation.nonce,
        now,
        used,
    )
    return documents.seal("deactivation", said.to_dict(), signer)


def export(state: State, folder: Path, license_id: str) -> list[Exported]:
    """Write the usage files that settlement has not acknowledged yet."""
    return receipts.export(state, folder, license_id=license_id, reason=REASON)


def refusal(db: sqlite3.Connection, license_id: str) -> SealpackError | None:
    """DEVICE_CLOSED for a license that ended here and was not activated again."""
    proof = rights.stored(db, "deactivation", license_id)
    if proof is None or rights.stored(db, "activation", license_id) is not None:
        return None
    when = day(Deactivation.open(proof).closed_at)
    return SealpackError(
        "DEVICE_CLOSED",
        f"license {license_id} was closed on this device on {when}",
        remedy=f"to use it here again, run `sealpack activate request --license {license_id} --out FILE`",
    )


def require_newer(db: sqlite3.Connection, made: Activation) -> None:
    """DEVICE_CLOSED for an activation of a log that ended: only a new request's answer begins another."""
    proof = rights.stored(db, "deactivation", made.license_id)
    if proof is None or made.epoch > Deactivation.open(proof).epoch:
        return
    raise SealpackError(
        "DEVICE_CLOSED",
        f"the activation is for log {made.epoch} of license {made.license_id}, which was closed here",
        remedy=f"run `sealpack activate request --license {made.license_id} --out FILE` for a new one",
    )
