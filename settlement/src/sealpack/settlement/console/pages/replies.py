"""Replies: the acknowledgements that go back to machines, in one zip per customer or license.

Source: specs/console.md, "Replies".
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, parties, tables
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.service import replies
from sealpack.settlement.users import User

_PER_PAGE = 25
_NAMES = {"customer": db.licenses.c.customer_id, "license": db.licenses.c.license_id}


async def get_replies(console: Console, request: Request, user: User) -> Response:
    """Every customer with machines that sent usage, and the licenses of each."""
    after = request.query_params.get("after", "")
    page = await console.query(_page, after if after.isprintable() else "")
    makes = console.service.signers is not None
    return console.render(
        request, user, "replies.html", page=page, makes=makes, may_make=makes and user.role in CLERKS
    )


def _page(connection: sa.Connection, after: str) -> dict[str, Any]:
    license, log = tables.licenses.c, tables.logs.c
    with_logs = sa.exists().where(log.license_id == license.license_id)
    query = sa.select(license.customer_id).distinct().where(with_logs, license.customer_id > after)
    found = list(connection.execute(query.order_by(license.customer_id).limit(_PER_PAGE + 1)).scalars())
    shown = found[:_PER_PAGE]
    rows = connection.execute(
        sa.select(
            license.customer_id, license.license_id, sa.func.count().label("logs"),
            sa.func.sum(log.frozen).label("frozen"),
        )
        .join(tables.logs, log.license_id == license.license_id)
        .where(license.customer_id.in_(shown))
        .group_by(license.customer_id, license.license_id)
        .order_by(license.license_id)
    ).all()  # fmt: skip
    items = []
    for customer in shown:
        record = parties.load_customer(connection, customer)
        licenses = [row for row in rows if row.customer_id == customer]
        name = record.legal_name if record else customer
        items.append({"id": customer, "name": name, "licenses": licenses})
    return {"items": items, **({"next": shown[-1]} if len(found) > len(shown) else {})}


async def get_zip(console: Console, request: Request, _user: User) -> Response:
    """The replies as they were made."""
    said = request.query_params
    kind = next((name for name in _NAMES if name in said), "")
    return await _zip(console, kind, said.get(kind, ""), make=False)


async def post_zip(console: Console, request: Request, _user: User) -> Response:
    """The replies, made now where there is something new to say."""
    form = await console.form(request)
    kind = "license" if "license" in form else "customer"
    return await _zip(console, kind, text(form, kind), make=True)


async def _zip(console: Console, kind: str, name: str, *, make: bool) -> Response:
    names = []
    if kind and name and name.isprintable():
        names = await console.query(replies.origins, _NAMES[kind] == name)
    found = await replies.replies(console.service, names, make=make)
    if not found:
        raise SealpackError(
            "NOT_FOUND", "there is no reply yet",
            remedy="drop usage files first; replies are made with settlement's key (`settle serve --key`)",
        )  # fmt: skip
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    headers = {"Content-Disposition": f'attachment; filename="replies-{plain}.zip"'}
    return Response(replies.zipped(found), media_type="application/zip", headers=headers)


PAGES = (
    Page("GET", "/console/replies", OFFICE, get_replies),
    Page("GET", "/console/replies/zip", OFFICE, get_zip),
    Page("POST", "/console/replies/zip", CLERKS, post_zip),
)
