"""Approvals: a person says of one very draft that it may be issued.

Source: specs/settlement-ledger.md, "Before issue". What is approved is what the draft says, not when it is
printed: its digest leaves out the days, and the evidence, which grows with every file of later months.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db, invoice
from sealpack.settlement.audit import Actor
from sealpack.settlement.invoice import Invoice

_LEFT_OUT = ("number", "date", "due", "draft", "evidence")


@dataclass(frozen=True, slots=True)
class Approval:
    """What was approved: `draft` is its JSON, `digest` of what it says; `at` Unix seconds."""

    license_id: str
    period: date
    digest: str
    draft: bytes
    who: str
    at: int


def digest(value: dict[str, Any]) -> str:
    """SHA-256 (hex) of what a draft or invoice says, from its JSON: the same before and after issue."""
    return audit.sha256(canonical.dumps({key: said for key, said in value.items() if key not in _LEFT_OUT}))


def load(connection: sa.Connection, license_id: str, period: date) -> Approval | None:
    """What was approved for the period that begins on that day, whether it still fits or not."""
    row = connection.execute(sa.select(db.approvals).where(*_key(license_id, period))).first()
    return None if row is None else _approval(row)


def of_month(connection: sa.Connection, month: date) -> dict[str, Approval]:
    """Every approval for that month, by license."""
    period = month.replace(day=1).isoformat()
    query = sa.select(db.approvals).where(db.approvals.c.period == period)
    return {row.license_id: _approval(row) for row in connection.execute(query)}


def _approval(row: sa.Row[Any]) -> Approval:
    period = date.fromisoformat(row.period)
    return Approval(row.license_id, period, row.digest, row.draft, row.who, row.at)


def put(connection: sa.Connection, document: Invoice, actor: Actor) -> Approval:
    """Approve a draft, instead of what was approved for its license and period before."""
    data = invoice.to_json(document)
    license_id, said = document.header.license_id, digest(json.loads(data))
    approval = Approval(license_id, document.first.replace(day=1), said, data, actor.who, actor.at)
    row = {"license_id": license_id, "period": approval.period.isoformat(), "digest": said, "draft": data,
           "who": actor.who, "at": actor.at}  # fmt: skip
    statement = db.put(connection, db.approvals).values(row)
    keys = ["license_id", "period"]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=row))
    audit.note(
        connection, actor, "approve", license=license_id, period=row["period"], draft=said,
        amount=f"{document.text(document.total)} {document.plan.currency}",
    )  # fmt: skip
    return approval


def withdraw(database: db.Database, license_id: str, month: date, reason: str, *, actor: Actor) -> None:
    """Take an approval back. APPROVAL_MISSING when there is none, USAGE without a reason."""
    if not reason.strip():
        raise SealpackError("USAGE", "taking an approval back needs a reason")
    period = month.replace(day=1)
    with database.write() as connection:
        gone = connection.execute(sa.delete(db.approvals).where(*_key(license_id, period)))
        if not gone.rowcount:
            raise missing(license_id, period)
        audit.note(
            connection, actor, "withdraw-approval", license=license_id, period=period.isoformat(),
            reason=reason,
        )  # fmt: skip


def check(connection: sa.Connection, document: Invoice, *, approved: bool, expect: str | None) -> None:
    """Whether a draft may be issued: `approved`, if so it must be; `expect`, the digest it must have.

    APPROVAL_MISSING; CHANGED_MEANWHILE when it is not what was approved or expected.
    """
    license_id, period = document.header.license_id, document.first.replace(day=1)
    held = load(connection, license_id, period) if approved else None
    if approved and held is None:
        raise missing(license_id, period)
    wanted = {one for one in (held and held.digest, expect) if one}
    if wanted - {digest(invoice.to_dict(document))}:
        raise changed(license_id, period)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a draft says otherwise than another; empty text for what is not there."""

    what: str
    before: str
    now: str


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """What of two drafts (JSON) of a period differs, in words: amounts, lines, and who bills whom."""
    old, new = _said(before), _said(now)
    return [
        Change(what, old.get(what, ""), new.get(what, ""))
        for what in dict.fromkeys([*new, *old])
        if old.get(what) != new.get(what)
    ]


def _said(draft: dict[str, Any]) -> dict[str, str]:
    said = {name: f"{draft[name]} {draft['currency']}" for name in ("total", "net", "tax")}
    for line in draft["lines"]:
        what = f"{line['charge']} ({line['kind']}, from {line['service_start']})"
        said[what] = f"{line['description']} = {line['amount']}"
    for share in draft["shares"]:
        said[f"share of {share['party']}"] = share["amount"]
    for side in ("seller", "customer"):
        said[side] = ", ".join([draft[side]["name"], *draft[side]["address"], draft[side].get("tax_id", "")])
    for name in ("purchase_order", "payment"):
        said[name.replace("_", " ")] = draft.get(name, "")
    return said | {"plan": f"{draft['plan']['id']} {draft['plan']['version']}"}


def missing(license_id: str, period: date) -> SealpackError:
    """Nobody approved the draft."""
    return SealpackError("APPROVAL_MISSING", f"{license_id} is not approved for {period:%Y-%m}")


def changed(license_id: str, period: date) -> SealpackError:
    """The draft is another one by now."""
    return SealpackError(
        "CHANGED_MEANWHILE", f"the draft of {license_id} for {period:%Y-%m} is not what was approved or seen"
    )


def _key(license_id: str, period: date) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    columns = db.approvals.c
    return columns.license_id == license_id, columns.period == period.isoformat()
