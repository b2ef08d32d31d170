"""The audit trail: who changed what, and whether the chain is whole."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, tables
from sealpack.settlement.console import lists
from sealpack.settlement.console.app import Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.service.views import Span, cursor
from sealpack.settlement.users import User

PATH = "/console/audit"
READERS = ("admin", "auditor")  # as of the API
_FIRST = ("number", "invoice", "amount", "kind", "name", "user", "case", "customer", "license")
_LAST = ("document", "file", "record", "digest")  # digests
_SUGGESTED = 2000  # newest entries whose names and verbs are suggested
_VERB = re.compile(r"[a-z-]{1,40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


async def get_audit(console: Console, request: Request, user: User) -> Response:
    """The newest entries first; `who`, `verb` and `day` pick some."""
    return await _show(console, request, user)


async def _show(console: Console, request: Request, user: User, **more: Any) -> Response:
    said = {name: request.query_params.get(name, "").strip()[:200] for name in ("who", "verb", "day")}
    found = await console.query(_page, said, lists.after(request))
    status = more["error"].spec.http if more.get("error") else 200
    return console.render(request, user, "audit.html", status, **found, said=said,
                          **{"error": None, "verified": None, **more})  # fmt: skip


def _page(connection: sa.Connection, said: dict[str, str], after: str | None) -> dict[str, Any]:
    columns = tables.audit.c
    span = Span.parse(str(lists.ITEMS), after, int)
    query = sa.select(tables.audit).where(*_wanted(said)).order_by(columns.seq.desc())
    if span.after is not None:
        query = query.where(columns.seq < span.after[0])
    rows = connection.execute(query.limit(span.limit + 1)).all()
    shown = rows[: span.limit]
    head = connection.execute(sa.select(tables.audit).order_by(columns.seq.desc()).limit(1)).first()
    next_ = {"next": cursor([shown[-1].seq])} if len(rows) > len(shown) else {}
    return {
        "page": {"items": [_entry(row) for row in shown], **next_},
        "head": head,
        **_suggested(connection),
    }


def _wanted(said: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    """What picks the entries; USAGE."""
    columns, found = tables.audit.c, []
    if said["who"]:
        found.append(columns.who == said["who"])
    if said["verb"]:
        if not _VERB.fullmatch(said["verb"]):
            raise SealpackError("USAGE", f"{said['verb'][:40]!r} is no verb of the audit trail")
        found.append(columns.what.contains(f'"verb":"{said["verb"]}"', autoescape=True))
    if said["day"]:
        start = _seconds(said["day"])
        found += [columns.at >= start, columns.at < start + 86_400]
    return found


def _seconds(day: str) -> int:
    try:
        return int(datetime.combine(date.fromisoformat(day), time(), UTC).timestamp())
    except ValueError:
        raise SealpackError("USAGE", f"{day[:40]!r} is not a day such as 2026-11-21") from None


def _entry(row: sa.Row[Any]) -> dict[str, Any]:
    """An entry with its verb and what else it says, what it is about first."""
    what = json.loads(row.what)
    names = sorted(
        what.keys() - {"verb", "booked"}, key=lambda name: (name not in _FIRST, name in _LAST, name)
    )
    facts = {name: _shown(what[name]) for name in names}
    return {"seq": row.seq, "at": row.at, "who": row.who, "verb": what["verb"], "facts": facts}


def _shown(value: Any) -> str:
    """What an entry says, digests by their first characters."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value[:12]}…" if _DIGEST.fullmatch(value) else value


def _suggested(connection: sa.Connection) -> dict[str, Any]:
    columns = tables.audit.c
    newest = sa.select(columns.who, columns.what).order_by(columns.seq.desc()).limit(_SUGGESTED)
    rows = connection.execute(newest).all()
    return {
        "names": sorted({row.who for row in rows}),
        "verbs": sorted({json.loads(row.what)["verb"] for row in rows}),
    }


async def post_verify(console: Console, request: Request, user: User) -> Response:
    """Follow the chain from its beginning, and compare what it names with the books."""
    form = await console.form(request)
    noted = text(form, "head", needed=False).lower()
    if noted and not _DIGEST.fullmatch(noted):
        error = SealpackError("FORM_INVALID", "the digest must be 64 characters of 0-9 and a-f")
        return await _show(console, request, user, error=error)
    try:
        verified = await console.slow(audit.verify, console.service.database, noted or None)
    except SealpackError as error:
        if error.code != "AUDIT_BROKEN":
            raise
        return await _show(console, request, user, error=error)
    return await _show(console, request, user, verified=verified)


PAGES = (
    Page("GET", PATH, READERS, get_audit),
    Page("POST", f"{PATH}/verify", READERS, post_verify),
)
