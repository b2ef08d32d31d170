"""A dispute pack: everything an invoice, a log or a case rests on, in one file that proves itself.

Source: specs/evidence-pack.md. Nothing is made up for it: usage files are those that came in, documents those
that were signed, invoices those that were issued. :mod:`sealpack.settlement.evidence_check` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import cases, db, decisions, evidence, issuing, readings, registry, sublicenses
from sealpack.settlement.contract import Contract
from sealpack.settlement.corrections import RATED
from sealpack.settlement.issuing import Document
from sealpack.settlement.plan import Plan

SCHEMA = "sealpack/evidence-pack/v1"
MANIFEST = "evidence.json"
README = b"""This is a Sealpack dispute pack. It is checked with

    sealpack verify --trust trust.json FILE

where trust.json is your own copy of the vendor's trust file, not the one in here.
"""
MAX_BYTES = 1 << 30
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    LookupError,
)
_DATE = (1980, 1, 1, 0, 0, 0)

Files = dict[str, bytes]
Log = dict[str, Any]  # {origin, size, root, stated: digests of files that speak of it beyond its receipts}


# --- the container ----------------------------------------------------------------------------------


def write(files: Files) -> bytes:
    """The zip of these files: the manifest first, stored, without times, so one form only."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def read(data: bytes) -> tuple[dict[str, Any], Files]:
    """Manifest and files. PACK_INVALID unless these are the very bytes :func:`write` makes of them, and every
    file has the digest that the manifest gives it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise SealpackError("PACK_INVALID", "a file in it is compressed")
            files = {name: archive.read(name) for name in names}
    except _DAMAGE as error:
        raise SealpackError("PACK_INVALID", f"not a whole zip file: {error}") from None
    if MANIFEST not in files or write(files) != data:
        raise SealpackError("PACK_INVALID", "it is not as it was written: something around its files changed")
    manifest = canonical.loads(files[MANIFEST], max_bytes=MAX_BYTES, what=MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise SealpackError("PACK_INVALID", f"{MANIFEST} is not of schema {SCHEMA}")
    _check_digests(manifest, files)
    return manifest, files


def _check_digests(manifest: dict[str, Any], files: Files) -> None:
    said = manifest.get("files")
    if not isinstance(said, dict) or said.keys() != files.keys() - {MANIFEST}:
        raise SealpackError("PACK_INVALID", "its files are not those that its manifest lists")
    for name, digest in said.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise SealpackError("PACK_INVALID", f"{name} was changed")


def _pack(manifest: dict[str, Any], files: Files) -> bytes:
    files = {**files, "README.txt": README}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return write({**files, MANIFEST: canonical.dumps({"schema": SCHEMA, **manifest, "files": digests})})


# --- what goes in -----------------------------------------------------------------------------------


def for_invoice(connection: sa.Connection, name: str) -> bytes:
    """The pack of a document: with it everything issued for its period before. INVOICE_UNKNOWN."""
    document = issuing.find(connection, name)
    columns = db.invoices.c
    rows = connection.execute(
        sa.select(columns.name, columns.kind, columns.json)
        .where(
            columns.issuer == document.issuer, columns.license_id == document.license_id,
            columns.period == document.period, columns.kind.in_(RATED) | (columns.name == name),
            columns.number <= sa.select(columns.number).where(columns.name == name).scalar_subquery(),
        )
        .order_by(columns.number)
    ).all()  # fmt: skip
    files = {f"invoices/{row.name}.json": row.json for row in rows}
    held = json.loads(files[f"invoices/{name}.json"])["evidence"]
    logs: list[Log] = [
        {"origin": e["origin"], "size": e["end"], "root": e["root"], "stated": e.get("stated", [])}
        for e in held
    ]
    _, version, _ = document.issued.plan
    plan = sa.select(db.plans.c.document).where(
        db.plans.c.id == document.issued.plan[0], db.plans.c.version == version
    )
    files["plan.json"] = connection.execute(plan).scalar_one()
    others = _other_plans(connection, document)
    files |= {f"plans/{plan.digest}.json": plan.document for plan in others.values()}
    plans = [{"month": f"{month:%Y-%m}", "digest": plan.digest} for month, plan in others.items()]
    manifest = {
        "about": {"kind": "invoice", "name": name},
        "documents": [{"name": row.name, "kind": row.kind} for row in rows],
        **({"plans": plans} if plans else {}),
    }
    return _assembled(connection, document.license_id, logs, manifest, files)


def _other_plans(connection: sa.Connection, document: Document) -> dict[date, Plan]:
    """The plans of the months that count for a document, where they are others than its own."""
    license = registry.load_license(connection, document.license_id)
    if license is None:
        raise SealpackError("REGISTRY_INVALID", f"license {document.license_id} is not known here")
    sold = Contract(connection, license)
    found = {month: sold.plan_for(month) for month in sold.months(date.fromisoformat(document.period))}
    return {month: plan for month, plan in found.items() if plan.digest != document.issued.plan[2]}


def for_log(connection: sa.Connection, origin: str) -> bytes:
    """The pack of a log as far as it is settled; LOG_UNKNOWN."""
    row = _log(connection, origin)
    if row is None:
        raise SealpackError("LOG_UNKNOWN", f"no log {origin} is settled here")
    about = {"about": {"kind": "log", "name": origin}}
    return _assembled(connection, row["license_id"], [row["log"]], about, {})


def for_case(database: db.Database, number: int) -> bytes:
    """The pack of a case: the held file, its log, and checkpoints that contradict. CASE_INVALID."""
    case = cases.find(database, number)
    with database.read() as connection:
        files = {"case/held.usage.gz": evidence.load(connection, case.sha256)}
        for name, note in (("ours", case.ours), ("theirs", case.theirs)):
            if note:
                files[f"case/{name}.note"] = note
        row = _log(connection, case.origin)
        license_id = row["license_id"] if row else None
        manifest = {
            "about": {"kind": "case", "name": str(number)},
            "case": {"code": case.code, "detail": case.detail, "opened_at": case.opened_at},
        }
        return _assembled(connection, license_id, [row["log"]] if row else [], manifest, files)


def _log(connection: sa.Connection, origin: str) -> dict[str, Any] | None:
    row = connection.execute(sa.select(db.logs).where(db.logs.c.origin == origin)).first()
    if row is None:
        return None
    stated = readings.files(connection, db.logs.c.origin == origin).get(origin, ())
    log = {"origin": origin, "size": row.size, "root": row.root, "stated": list(stated)}
    return {"license_id": row.license_id, "log": log}


def _assembled(
    connection: sa.Connection, license_id: str | None, logs: list[Log], manifest: dict[str, Any], files: Files
) -> bytes:
    """Add trust, signed documents, usage files and acknowledgements, and pack it all."""
    files = {**files, "trust.json": registry.load_trust(connection).to_bytes()}
    ids = _licenses(connection, license_id) if license_id else []
    files |= _documents(connection, ids)
    usage, stated = [], []
    for log in logs:
        for digest in _by_position(connection, log.pop("stated")):
            name = f"usage/{digest}.usage.gz"
            files[name] = evidence.load(connection, digest)
            used_ms = decisions.used_ms(connection, digest)
            stated.append(
                {"origin": log["origin"], "file": name, **({"used_ms": used_ms} if used_ms else {})}
            )
        for digest, data in _usage(connection, log):
            name = f"usage/{digest}.usage.gz"
            files[name] = data
            usage.append({"origin": log["origin"], "file": name})
        files |= _acknowledgements(connection, log)
    activated = db.activations.c
    first = connection.execute(
        sa.select(activated.license_id, activated.device_id, activated.first_at)
        .where(activated.license_id.in_(ids))
        .order_by(activated.license_id, activated.device_id)
    )
    return _pack(
        {
            **manifest,
            **({"license": license_id} if license_id else {}),
            "logs": logs,
            "usage": usage,
            **({"stated": stated} if stated else {}),
            "activated": [
                {"license": row.license_id, "device": row.device_id, "first_at": row.first_at}
                for row in first
            ],
        },
        files,
    )


def _licenses(connection: sa.Connection, license_id: str) -> list[str]:
    """The license, the one above it, and all that are billed together."""
    below = sublicenses.load(connection, license_id)
    top = license_id if below is None else below.parent.license_id
    return sublicenses.billed_with(connection, top)


def _documents(connection: sa.Connection, ids: list[str]) -> Files:
    found: Files = {}
    for table, folder in ((db.license_versions, "licenses"), (db.activations, "activations")):
        columns = table.c
        query = sa.select(columns.digest, columns.envelope).where(columns.license_id.in_(ids))
        found |= {f"{folder}/{row.digest}.json": row.envelope for row in connection.execute(query)}
    return found


def _by_position(connection: sa.Connection, digests: list[str]) -> list[str]:
    """Files that speak of a log beyond its receipts, in the order of what they cover."""
    said = db.stated.c
    query = sa.select(said.sha256).where(said.sha256.in_(digests))
    return list(connection.execute(query.order_by(said.first, said.size, said.sha256)).scalars())


def _usage(connection: sa.Connection, log: Log) -> list[tuple[str, bytes]]:
    """(digest, bytes) of the files that brought a log up to its size, in the order of their receipts."""
    digests = connection.execute(
        sa.select(db.segments.c.sha256)
        .where(db.segments.c.origin == log["origin"], db.segments.c.last <= log["size"])
        .order_by(db.segments.c.first)
    ).scalars()
    return [(digest, evidence.load(connection, digest)) for digest in digests.all()]


def _acknowledgements(connection: sa.Connection, log: Log) -> Files:
    """Every acknowledgement of a log."""
    columns = db.acks.c
    rows = connection.execute(
        sa.select(columns.ack_seq, columns.digest, columns.envelope)
        .where(columns.origin == log["origin"])
        .order_by(columns.ack_seq)
    )
    return {f"acknowledgements/{row.digest}.json": row.envelope for row in rows}
