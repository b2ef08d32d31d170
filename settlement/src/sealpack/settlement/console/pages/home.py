"""The overview: what needs doing, and the way there.

Source: specs/console.md, "Overview".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.settlement import desk, drafts, ledger, tables
from sealpack.settlement.console import case_words
from sealpack.settlement.console.app import HOME, Console, Page
from sealpack.settlement.console.pages import start
from sealpack.settlement.overview import devices
from sealpack.settlement.users import ROLES, User

_SHOWN = 6
_DRAFTS = 500  # licenses whose drafts are counted; more are shown as "500 and more"
_WAITING = (drafts.DRAFT, drafts.APPROVED, drafts.FAULTY)


@dataclass(frozen=True, slots=True)
class Overdue:
    """An invoice that is not paid although its day has passed; minor units."""

    name: str
    customer_id: str
    due: str
    currency: str
    open: int


@dataclass(frozen=True, slots=True)
class Drafts:
    """Where the licenses of a month stand that is over: state -> how many; `more`: not all were counted."""

    month: date
    states: dict[str, int]
    unrated: int
    more: bool

    @property
    def waiting(self) -> int:
        """Those that a person has to look at."""
        return self.unrated + sum(self.states.get(state, 0) for state in _WAITING)


async def get_home(console: Console, request: Request, user: User) -> Response:
    """What needs doing."""
    if user.role == "creator":
        return console.render(request, user, "home_creator.html")
    known = await console.query(start.known)
    if not (known.ready and known.files):
        return console.render(request, user, "home_new.html", known=known)
    found = await console.query(_look, console.now)
    return console.render(request, user, "home.html", **found, words=case_words.WORDS)


def _look(connection: sa.Connection, now: int) -> dict[str, Any]:
    today = datetime.fromtimestamp(now, UTC).date()
    overdue = _overdue(connection, today)
    sums: Counter[str] = Counter()
    for one in overdue:
        sums[one.currency] += one.open
    machines = [
        row for row in devices.listed(connection, now) if row.state in ("frozen", "overdue", "silent")
    ]
    whose = [one.customer_id for one in overdue[:_SHOWN]] + [row.customer for row in machines[:_SHOWN]]
    return {
        "names": desk.names(connection, whose),
        "overdue": overdue[:_SHOWN], "overdue_count": len(overdue), "overdue_sums": sorted(sums.items()),
        "machines": machines[:_SHOWN], "machine_states": Counter(row.state for row in machines),
        "drafts": _drafts(connection, today, now), "files": _files(connection),
        **_cases(connection),
    }  # fmt: skip


def _cases(connection: sa.Connection) -> dict[str, Any]:
    """How many are open, and the newest; `number` is missing until the list of cases was looked at."""
    case, said = tables.cases.c, tables.decisions.c
    query = (
        sa.select(said.number, case.code, case.opened_at, sa.func.count().over().label("total"))
        .select_from(tables.cases)
        .outerjoin(tables.decisions, (said.code == case.code) & (said.sha256 == case.sha256))
        .where(case.closed_at.is_(None), said.verdict.is_(None))
        .order_by(case.opened_at.desc(), case.sha256.desc())
    )
    found = connection.execute(query.limit(_SHOWN)).all()
    return {"cases": found, "open_cases": found[0].total if found else 0}


def _overdue(connection: sa.Connection, today: date) -> list[Overdue]:
    """The longest overdue first."""
    leg, document = tables.postings.c, tables.invoices.c
    open_ = sa.func.sum(leg.amount)
    owed = (
        sa.select(leg.document, open_.label("open"))
        .where(leg.account == ledger.RECEIVABLE)
        .group_by(leg.document)
        .having(open_ > 0)
        .subquery()
    )
    rows = connection.execute(
        sa.select(document.name, document.customer_id, document.due, document.currency, owed.c.open)
        .join(owed, owed.c.document == document.name)
        .where(document.due < today.isoformat(), document.due != "")
        .order_by(document.due, document.name)
    )
    return [Overdue(r.name, r.customer_id, r.due, r.currency, int(r.open)) for r in rows]


def _drafts(connection: sa.Connection, today: date, now: int) -> Drafts:
    month = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    found = drafts.listed(connection, month, now, limit=_DRAFTS)
    states = Counter(entry.state for entry in found.entries)
    return Drafts(month, dict(states), len(found.unrated), found.next is not None)


def _files(connection: sa.Connection) -> list[Any]:
    columns = tables.files.c
    query = sa.select(columns.sha256, columns.name, columns.received_at, columns.code, columns.accepted)
    order = columns.received_at.desc(), columns.sha256.desc()
    return list(connection.execute(query.order_by(*order).limit(_SHOWN)))


PAGES = (Page("GET", HOME, ROLES, get_home),)
