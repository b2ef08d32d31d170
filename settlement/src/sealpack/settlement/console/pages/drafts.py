"""Months before they are invoiced: what each license comes to, what is wrong or missing, approve, issue.

Source: specs/console.md, "Billing".
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from starlette.background import BackgroundTask
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import approvals, billing, db, desk, drafts, issuing, parties, unbilled
from sealpack.settlement.audit import Entry as Trail
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.inputs import day_of, file, month_of, today
from sealpack.settlement.console.pages.invoices import converted, stored
from sealpack.settlement.drafts import APPROVED, DRAFT, FAULTY, Entry
from sealpack.settlement.periods import Period
from sealpack.settlement.users import User

LIST = "/console/drafts"
_CRUMBS = [("Drafts", LIST)]
_AT_ONCE = 200  # that are approved or issued by one form
_SECONDS = 0.1  # that a list may spend on rating; the rest is rated after it is sent


def path(license_id: str, month: date) -> str:
    """Where a draft is."""
    return f"{LIST}/{quote(license_id, safe='')}/{month:%Y-%m}"


# --- the month ----------------------------------------------------------------------------------------


async def get_list(console: Console, request: Request, user: User) -> Response:
    """A month's licenses, as far as they are rated."""
    said, base = request.query_params, console.service.database
    known = await console.service.read(unbilled.months, base, console.now)
    month = month_of(said["month"]) if said.get("month") else _usual(known, console.now)
    customer, state = said.get("customer", "").strip(), said.get("state", "")
    look = partial(_look, month=month, now=console.now, customer=customer, after=said.get("after", ""))
    page = await console.query(look)
    left: list[str] = []
    if page["unrated"]:
        left = await console.service.read(
            drafts.refresh, base, page["unrated"], month, now=console.now, seconds=_SECONDS
        )
        page = await console.query(look)
    shown = [entry for entry in page["items"] if state in ("", entry.state)]
    response = console.render(
        request, user, "drafts.html", page={**page, "items": shown}, month=month, months=known[::-1],
        customer=customer, state=state, states=drafts.STATES, place=path, left=left,
        may_change=user.role in CLERKS,
    )  # fmt: skip
    if left:
        name = f"{LIST} {month:%Y-%m} {left[0]}"
        response.background = BackgroundTask(
            console.behind, name, drafts.refresh, base, left, month, now=console.now
        )
    return response


def _usual(known: Sequence[date], now: int) -> date:
    """The month that finance works on: the newest one that is over."""
    running = today(now).replace(day=1)
    over = [month for month in known if month < running]
    return over[-1] if over else running


def _look(connection: sa.Connection, *, month: date, now: int, customer: str, after: str) -> dict[str, Any]:
    found = drafts.listed(connection, month, now, customer=customer or None, after=after)
    names = [entry.license_id for entry in found.entries]
    end_ms = Period.containing(month, "UTC").end_ms
    missing = desk.missing(connection, names, end_ms) if now * 1000 >= end_ms else Counter()
    return {
        "items": found.entries, **({"next": found.next} if found.next else {}), "unrated": found.unrated,
        "cases": desk.open_cases(connection), "missing": missing,
        "approval": _approval_needed(connection),
    }  # fmt: skip


def _approval_needed(connection: sa.Connection) -> bool:
    """Whether a seller lets only approved drafts be issued."""
    issuers = connection.execute(sa.select(db.sellers.c.issuer)).scalars().all()
    return any(parties.load_seller(connection, issuer).approval for issuer in issuers)


# --- many at once -------------------------------------------------------------------------------------


async def get_approve_all(console: Console, request: Request, user: User) -> Response:
    """What would be approved."""
    month = month_of(request.query_params.get("month", ""))
    found = await _of_state(console, month, DRAFT, FAULTY)
    ready = [entry for entry in found if entry.state == DRAFT]
    return console.render(
        request, user, "drafts_all.html", month=month, ready=ready, crumbs=_CRUMBS, place=path, act="approve",
        most=_AT_ONCE,
        faulty=[entry for entry in found if entry.state == FAULTY], totals=_totals(ready),
    )  # fmt: skip


async def get_issue_all(console: Console, request: Request, user: User) -> Response:
    """What would be issued."""
    month = month_of(request.query_params.get("month", ""))
    ready = await _of_state(console, month, APPROVED)
    return console.render(
        request, user, "drafts_all.html", month=month, ready=ready, crumbs=_CRUMBS, place=path, act="issue",
        most=_AT_ONCE,
        faulty=[], totals=_totals(ready), today=today(console.now),
    )  # fmt: skip


async def _of_state(console: Console, month: date, *states: str) -> list[Entry]:
    def look() -> list[Entry]:
        found = drafts.everything(console.service.database, month, console.now)
        return list(islice((entry for entry in found if entry.state in states), _AT_ONCE))

    return await console.slow(look)


def _totals(entries: Sequence[Entry]) -> dict[str, int]:
    """Minor units per currency."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.draft:
            currency = entry.draft["currency"]
            found[currency] = found.get(currency, 0) + int(entry.draft["total"].replace(".", ""))
    return found


def _ticked(form: FormData) -> list[tuple[str, str]]:
    """Licenses and the digests of the drafts that were shown; FORM_INVALID."""
    found = [str(value).partition(" ") for value in form.getlist("draft")]
    if len(found) > _AT_ONCE or not all(digest for *_, digest in found):
        raise SealpackError("FORM_INVALID", f"the form is not whole, or of more than {_AT_ONCE} drafts")
    return [(license_id, digest) for license_id, _, digest in found]


async def post_approve_all(console: Console, request: Request, user: User) -> Response:
    """Approve those that were shown, each as it was shown."""
    form = await console.form(request)
    month = month_of(text(form, "month", most=7))
    wanted = _ticked(form)

    def run() -> tuple[int, list[str]]:
        done, failed = 0, []
        for license_id, digest in wanted:
            try:
                drafts.approve(console.service.database, license_id, month, expect=digest,
                               actor=console.actor(user))  # fmt: skip
                done += 1
            except SealpackError as error:
                if error.spec.exit == 1:
                    raise
                failed.append(f"{license_id}: {error.message}")
        return done, failed

    done, failed = await console.slow(run)
    return console.redirect(f"{LIST}?month={month:%Y-%m}", _told("approved", done, failed))


async def post_issue_all(console: Console, request: Request, user: User) -> Response:
    """Issue those that were shown, as far as they are still approved."""
    form = await console.form(request)
    month, day = month_of(text(form, "month", most=7)), day_of(text(form, "date", most=10))
    wanted = _ticked(form)

    def run() -> tuple[int, list[str]]:
        done, failed = 0, []
        for license_id, digest in wanted:
            try:
                made = billing.bill(console.service.database, license_id, month, day, approved=True,
                                    expect=digest, actor=console.actor(user))  # fmt: skip
                done += made.fresh
            except SealpackError as error:
                if error.spec.exit == 1:
                    raise
                failed.append(f"{license_id}: {error.message}")
        return done, failed

    done, failed = await console.slow(run)
    return console.redirect(f"{LIST}?month={month:%Y-%m}", _told("issued", done, failed))


def _told(verb: str, done: int, failed: list[str]) -> str:
    said = f"{done} {verb}." if done else f"Nothing was {verb}."
    return said + (f" {len(failed)} not: " + "; ".join(failed[:5]) if failed else "")


# --- one draft ----------------------------------------------------------------------------------------


async def get_one(console: Console, request: Request, user: User) -> Response:
    """The whole invoice as it would be issued now, and what can be done with it."""
    return await _show(console, request, user)


async def _show(
    console: Console, request: Request, user: User, error: SealpackError | None = None
) -> Response:
    """The page, with what went wrong above it: then the draft is the one that there is now."""
    license_id, month = _named(request)
    if error is not None and error.spec.exit == 1:
        raise error
    said = await console.query(_one, license_id, month, console.now)
    if isinstance(said, str):
        return console.redirect(f"/console/invoices/{quote(said, safe='')}")
    return console.render(
        request, user, "draft.html", error.spec.http if error else 200, month=month, crumbs=_above(month),
        today=today(console.now), may_change=user.role in CLERKS, here=path(license_id, month), error=error,
        **said,
    )  # fmt: skip


def _one(connection: sa.Connection, license_id: str, month: date, now: int) -> dict[str, Any] | str:
    """What the page shows; the number of the invoice when it is issued."""
    if number := drafts.issued_as(connection, license_id, month):
        return number
    found = drafts.draft(connection, license_id, month, now)
    approval = approvals.load(connection, license_id, month)
    entry, value = found.entry(now, approval), found.value
    changes = approvals.changes(json.loads(approval.draft), value) if approval and entry.lapsed else []
    end = found.end_ms
    seller = parties.load_seller(connection, found.license.issuer)
    return {
        "entry": entry, "doc": value, "approval": approval, "changes": changes,
        "needs_approval": seller.approval, "end_at": end // 1000, "grace_at": found.grace_ms // 1000,
        "cases": desk.open_cases(connection)[license_id],
        "missing": desk.missing(connection, [license_id], end)[license_id] if now * 1000 >= end else 0,
        "trail": _trail(connection, license_id, month),
    }  # fmt: skip


def _trail(connection: sa.Connection, license_id: str, month: date) -> list[Trail]:
    period = f"{month:%Y-%m-01}"
    found = desk.history(connection, license_id)
    return [one for one in found if (one.what.get("license"), one.what.get("period")) == (license_id, period)]


async def get_file(console: Console, request: Request, user: User) -> Response:
    """The draft as a customer would see it, without a number."""
    license_id, month = _named(request)
    form = request.path_params["form"]
    if form not in ("html", "pdf", "json", "csv"):
        raise SealpackError("NOT_FOUND", f"drafts have no form {form}")
    data = await console.query(_file, license_id, month, "json" if form == "pdf" else form, console.now)
    name = f"draft-{license_id}-{month:%Y-%m}.{form}"
    return file(await console.paper(converted, data, form), name)


def _file(connection: sa.Connection, license_id: str, month: date, form: str, now: int) -> bytes:
    """The draft in a form; once there is an invoice, that."""
    if number := drafts.issued_as(connection, license_id, month):
        return stored(connection, number, form)
    license = billing.license_of(connection, license_id)
    document = billing.draft_of(connection, license, month, drafts.day_of(now))
    return issuing.as_files(document, "draft").files[f"draft.{form}"]


async def post_approve(console: Console, request: Request, user: User) -> Response:
    """Approve the draft that was looked at."""
    license_id, month = _named(request)
    form = await console.form(request)
    expect, early = text(form, "draft", most=64), text(form, "early", needed=False) == "yes"
    try:
        await console.work(
            drafts.approve, console.service.database, license_id, month, expect=expect, early=early,
            actor=console.actor(user),
        )  # fmt: skip
    except SealpackError as error:
        return await _show(console, request, user, error)
    return console.redirect(path(license_id, month), f"{license_id} is approved for {month:%B %Y}.")


async def post_withdraw(console: Console, request: Request, user: User) -> Response:
    """Take an approval back."""
    license_id, month = _named(request)
    form = await console.form(request)
    try:
        await console.work(
            approvals.withdraw, console.service.database, license_id, month, text(form, "reason"),
            actor=console.actor(user),
        )  # fmt: skip
    except SealpackError as error:
        return await _show(console, request, user, error)
    return console.redirect(path(license_id, month), f"{license_id} is not approved any more.")


async def post_issue(console: Console, request: Request, user: User) -> Response:
    """Issue the draft that was looked at. Sent twice, the second time leads to the same invoice."""
    license_id, month = _named(request)
    form = await console.form(request)
    expect = text(form, "draft", most=64)
    try:
        day = day_of(text(form, "date", most=10))
        made = await console.work(
            billing.bill, console.service.database, license_id, month, day, expect=expect,
            actor=console.actor(user),
        )  # fmt: skip
    except SealpackError as error:
        return await _show(console, request, user, error)
    told = f"{made.name} is issued." if made.fresh else f"{made.name} was issued before."
    return console.redirect(f"/console/invoices/{quote(made.name, safe='')}", told)


def _named(request: Request) -> tuple[str, date]:
    """License and month of an address; NOT_FOUND."""
    try:
        return request.path_params["license"], month_of(request.path_params["month"])
    except SealpackError:
        raise SealpackError("NOT_FOUND", "there is no such month") from None


def _above(month: date) -> list[tuple[str, str]]:
    return [*_CRUMBS, (f"{month:%B %Y}", f"{LIST}?month={month:%Y-%m}")]


PAGES = (
    Page("GET", LIST, OFFICE, get_list),
    Page("GET", f"{LIST}/approve", CLERKS, get_approve_all),
    Page("POST", f"{LIST}/approve", CLERKS, post_approve_all),
    Page("GET", f"{LIST}/issue", CLERKS, get_issue_all),
    Page("POST", f"{LIST}/issue", CLERKS, post_issue_all),
    Page("GET", LIST + "/{license}/{month}", OFFICE, get_one),
    Page("GET", LIST + "/{license}/{month}/file/{form}", OFFICE, get_file),
    Page("POST", LIST + "/{license}/{month}/approve", CLERKS, post_approve),
    Page("POST", LIST + "/{license}/{month}/withdraw", CLERKS, post_withdraw),
    Page("POST", LIST + "/{license}/{month}/issue", CLERKS, post_issue),
)
