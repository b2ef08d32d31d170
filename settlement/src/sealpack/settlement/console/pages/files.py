"""Usage files that came in, however they came, and how each stands now.

Source: specs/console.md, "Files".
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, tables
from sealpack.settlement.console.app import OFFICE, Console, Page
from sealpack.settlement.console.paging import split_key
from sealpack.settlement.outcomes import OUTCOMES
from sealpack.settlement.users import User

_PER_PAGE = 50
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What a filter of the list picks, by the first letter of the code.
GROUPS = {"accepted": "O", "flagged": "W", "held": "H", "refused": "R"}


async def get_files(console: Console, request: Request, user: User) -> Response:
    """The newest first; `outcome` is a group or a code."""
    wanted = request.query_params.get("outcome", "")
    if wanted and wanted not in GROUPS and wanted not in OUTCOMES and wanted != "undecided":
        raise SealpackError("NOT_FOUND", "there is no such outcome")
    page = await console.query(_page, wanted, split_key(request.query_params.get("after")))
    return console.render(
        request, user, "files.html", page=page, wanted=wanted, groups=GROUPS, codes=OUTCOMES
    )


def _page(connection: sa.Connection, wanted: str, after: tuple[int, str] | None) -> dict[str, Any]:
    columns = tables.files.c
    query = sa.select(
        columns.sha256, columns.name, columns.received_at, columns.code, columns.detail, columns.accepted,
        columns.license_id, columns.origin, db.licenses.c.customer_id,
    ).outerjoin(db.licenses, db.licenses.c.license_id == columns.license_id)  # fmt: skip
    if wanted == "undecided":
        query = query.where(columns.code.is_(None))
    elif wanted in GROUPS:
        letter = GROUPS[wanted]
        query = query.where(columns.code >= letter, columns.code < chr(ord(letter) + 1))
    elif wanted:
        query = query.where(columns.code == wanted)
    if after is not None:
        query = query.where(
            sa.tuple_(columns.received_at, columns.sha256) < sa.tuple_(*map(sa.literal, after))
        )
    order = columns.received_at.desc(), columns.sha256.desc()
    rows = connection.execute(query.order_by(*order).limit(_PER_PAGE + 1)).all()
    shown = rows[:_PER_PAGE]
    more = {"next": f"{shown[-1].received_at}.{shown[-1].sha256}"} if len(rows) > len(shown) else {}
    return {"items": shown, **more}


async def get_file(console: Console, request: Request, user: User) -> Response:
    """One file: how it stands, what it belongs to, and its cases."""
    digest = request.path_params["digest"]
    found = await console.query(_one, digest) if _DIGEST.fullmatch(digest) else None
    if found is None:
        raise SealpackError("NOT_FOUND", "no such file came in")
    file, cases = found
    return console.render(
        request, user, "file.html", file=file, cases=cases, crumbs=[("Files", "/console/files")]
    )


def _one(connection: sa.Connection, digest: str) -> tuple[Any, list[Any]] | None:
    columns, case, said = tables.files.c, tables.cases.c, tables.decisions.c
    query = sa.select(
        columns.sha256, columns.name, columns.received_at, columns.code, columns.detail, columns.accepted,
        columns.origin, columns.license_id, columns.first, columns.last,
        db.licenses.c.customer_id,
    ).outerjoin(db.licenses, db.licenses.c.license_id == columns.license_id)  # fmt: skip
    file = connection.execute(query.where(columns.sha256 == digest)).first()
    if file is None:
        return None
    cases = connection.execute(
        sa.select(said.number, case.code, case.opened_at, case.closed_at, said.verdict)
        .outerjoin(tables.decisions, (said.code == case.code) & (said.sha256 == case.sha256))
        .where(case.sha256 == digest)
        .order_by(case.opened_at, case.code)
    )
    return file, list(cases)


PAGES = (
    Page("GET", "/console/files", OFFICE, get_files),
    Page("GET", "/console/files/{digest}", OFFICE, get_file),
)
