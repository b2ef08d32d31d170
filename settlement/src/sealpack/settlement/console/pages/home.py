"""The overview: what needs doing."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.settlement import tables
from sealpack.settlement.console.app import HOME, Console, Page, count
from sealpack.settlement.users import ROLES, User


async def get_home(console: Console, request: Request, user: User) -> Response:
    """What needs doing, and the way there."""
    return console.render(request, user, "home.html", todo=await console.query(_todo))


def _todo(connection: sa.Connection) -> dict[str, Any]:
    return {"cases": count(connection, tables.cases, tables.cases.c.closed_at.is_(None))}


PAGES = (Page("GET", HOME, ROLES, get_home),)
