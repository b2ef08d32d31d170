"""Dropping files: whatever a mailbox or a stick brought, and what became of each.

Source: specs/console.md, "Dropping files".
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import tables
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.paging import number_of
from sealpack.settlement.service import drops
from sealpack.settlement.service.drops import USAGE, Drop
from sealpack.settlement.users import User

_PER_PAGE = 50


async def get_drop(console: Console, request: Request, user: User) -> Response:
    """The place to drop files."""
    return console.render(request, user, "drop.html", limits=console.service.limits)


async def post_drop(console: Console, request: Request, user: User) -> Response:
    """Take what was dropped; the answer is a page that stays."""
    service, limits = console.service, console.service.limits
    if service.uploading >= limits.uploads * 4:
        raise SealpackError("CONCURRENCY_LIMIT", f"{service.uploading} uploads are running")
    service.uploading += 1
    try:
        form = await console.form(request, max_bytes=limits.zip_bytes, files=limits.zip_entries)
        given = [part for part in form.getlist("files") if isinstance(part, UploadFile) and part.filename]
        if not given:
            raise SealpackError("FORM_INVALID", "no file was chosen", remedy="choose one or more files")
        sources = [(part.filename or "", part.file) for part in given]
        number = await service.write(drops.take, service.database, sources, limits, console.actor(user))
    finally:
        service.uploading -= 1
    return console.redirect(f"/console/drops/{number}")


async def get_drops(console: Console, request: Request, user: User) -> Response:
    """What was dropped, the newest first."""
    before = number_of(request.query_params.get("after"))
    found = await console.query(drops.newest, _PER_PAGE + 1, before)
    shown = found[:_PER_PAGE]
    page = {"items": shown, **({"next": str(shown[-1].id)} if len(found) > len(shown) else {})}
    return console.render(request, user, "drops.html", page=page, crumbs=[("Files", "/console/files")])


async def get_one(console: Console, request: Request, user: User) -> Response:
    """One drop, and how its files stand now."""
    number = number_of(request.path_params["number"])
    found = await console.query(_with_states, number) if number is not None else None
    if found is None:
        raise SealpackError("NOT_FOUND", "nothing was dropped under this number")
    drop, now = found
    counts = {
        letter: sum(f.code.startswith(letter) for f in drop.files if f.kind == USAGE) for letter in "OWHR"
    }
    return console.render(
        request, user, "drop_one.html", drop=drop, now=now, counts=counts,
        accepted=sum(f.accepted for f in drop.files),
        crumbs=[("Files", "/console/files"), ("Drops", "/console/drops")],
    )  # fmt: skip


def _with_states(connection: sa.Connection, number: int) -> tuple[Drop, dict[str, Any]] | None:
    drop = drops.load(connection, number)
    if drop is None:
        return None
    digests, columns = [f.sha256 for f in drop.files if f.sha256], tables.files.c
    now: dict[str, Any] = {}
    for start in range(0, len(digests), 500):
        some = columns.sha256.in_(digests[start : start + 500])
        rows = connection.execute(sa.select(columns.sha256, columns.code).where(some))
        now |= {row.sha256: row.code for row in rows}
    return drop, now


PAGES = (
    Page("GET", "/console/drop", CLERKS, get_drop),
    Page("POST", "/console/drop", CLERKS, post_drop),
    Page("GET", "/console/drops", OFFICE, get_drops),
    Page("GET", "/console/drops/{number}", OFFICE, get_one),
)
