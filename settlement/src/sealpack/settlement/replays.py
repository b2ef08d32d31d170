"""Files that come from somebody for whom their license is not: whose usage it is their content decides.

Source: specs/settlement-ingest.md, "Replays". A file proves whose device wrote it, so whoever brings it
changes nothing about whom it is billed to. But that somebody has another customer's file a person must know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.usage_reader import read_header
from sealpack.settlement import audit, checks, db, evidence, meter_readings, registry
from sealpack.settlement.audit import Actor
from sealpack.settlement.checks import Claim
from sealpack.settlement.outcomes import OUTCOMES, REPLAY

_DETAIL = "it was sent in by somebody for whom license {} is not; content decides, the sender is never billed"
MayKnow = Callable[[sa.Connection, str], bool]


def is_replay(connection: sa.Connection, data: bytes, may_know: MayKnow) -> bool:
    """Whether a file says it is of a license that is known here and does not concern its sender."""
    found = _claim(data)
    license_id = checks.license_id_of(found.origin) if found else None
    if license_id is None or registry.load_license(connection, license_id) is None:
        return False
    return not may_know(connection, license_id)


def _claim(data: bytes) -> Claim | None:
    """Whose a file says it is; None for what cannot be read."""
    try:
        if meter_readings.is_reading(data):
            return meter_readings.claim(meter_readings.read(data))
        header = read_header(data)
    except SealpackError:
        return None
    return Claim(header.origin, header.start, header.device_key, header.activation)


def hold(database: db.Database, data: bytes, name: str, actor: Actor) -> dict[str, Any]:
    """Keep a replayed file as a case, unless it is known already; what its sender is told, no more."""
    digest, found = hashlib.sha256(data).hexdigest(), _claim(data)
    assert found is not None  # else it is no replay

    def note(connection: sa.Connection, digest: str) -> None:
        audit.note(connection, actor, "replay", file=digest, name=name, origin=found.origin)

    evidence.keep(database, data, name, actor.at, also=note)
    license_id = checks.license_id_of(found.origin) or ""
    detail = _DETAIL.format(license_id)
    with database.write(digest) as connection:
        files = db.files.c
        fate = {"code": REPLAY, "detail": detail, "accepted": 0, "origin": found.origin,
                "license_id": license_id, "first": found.start, "last": found.start}  # fmt: skip
        new = sa.update(db.files).where(files.sha256 == digest, files.code.is_(None)).values(fate)
        if connection.execute(new).rowcount:
            case = {"code": REPLAY, "sha256": digest, "origin": found.origin, "opened_at": actor.at,
                    "closed_at": None, "detail": detail, "ours": None, "theirs": None}  # fmt: skip
            connection.execute(db.put(connection, db.cases).values(case).on_conflict_do_nothing())
    return {"file": name, "sha256": digest, "code": REPLAY, "meaning": OUTCOMES[REPLAY]}
