"""Licenses and price plans: the lists, and each one in words."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.format.license import PlanRef
from sealpack.settlement import db, desk, plan_words, registry, sublicenses
from sealpack.settlement.console import lists
from sealpack.settlement.console.app import OFFICE, Console, Page
from sealpack.settlement.console.pages.customers import today
from sealpack.settlement.overview import devices, licenses, usage
from sealpack.settlement.plan import FIELD_WORDS, FIELDS
from sealpack.settlement.users import User
from sealpack.verifier import license_words

LIST, PLANS = "/console/licenses", "/console/plans"


async def get_list(console: Console, request: Request, user: User) -> Response:
    """Every license, those that end soon first; `state` picks some."""
    rows = await console.query(licenses.listed, console.now)
    state = lists.choice(request, "state", ("", *licenses.STATES))
    some = [row for row in rows if state in ("", row.state)]
    counts = [(one, one.capitalize(), sum(row.state == one for row in rows)) for one in licenses.STATES]
    return console.render(
        request, user, "licenses.html", page=lists.page(some, lambda row: row.key, lists.after(request)),
        state=state, choices=[("", "All", len(rows)), *(one for one in counts if one[2])], now=console.now,
    )  # fmt: skip


async def get_one(console: Console, request: Request, user: User) -> Response:
    """One license in words, with its machines and documents."""
    name = request.path_params["id"]
    day = today(console)
    found = await console.query(_one, name, console.now, on=day)
    return console.render(
        request, user, "license.html", crumbs=(("Licenses", LIST),), now=console.now, fields=FIELDS,
        meter_words=FIELD_WORDS, today=day.isoformat(), **found,
    )  # fmt: skip


def _one(connection: sa.Connection, name: str, now: int, *, on: Any) -> dict[str, Any]:
    license = registry.load_license(connection, name)
    if license is None:
        raise SealpackError("NOT_FOUND", f"there is no license {name}")
    columns = db.licenses.c
    customer, digest = connection.execute(
        sa.select(columns.customer_id, columns.digest).where(columns.license_id == name)
    ).one()
    below = set(sublicenses.of_parent(connection, name))
    family = [row for row in licenses.listed(connection, now, customer) if row.license.license_id in below]
    billed = license.parent_id or name
    return {
        "license": license, "customer": customer, "digest": digest,
        "state": licenses.state_of(license, now, licenses.revoked_ids(connection)),
        "words": license_words.sections(license),
        "versions": registry.load_license_versions(connection, name),
        "machines": devices.listed(connection, now, license_id=name), "below": family,
        "months": usage.months_of(connection, name, on),
        "documents": desk.newest(connection, db.invoices.c.license_id == billed),
    }  # fmt: skip


# --- price plans --------------------------------------------------------------------------------------


async def get_plans(console: Console, request: Request, user: User) -> Response:
    """Every price plan, the newest version of each first."""
    return console.render(request, user, "plans.html", plans=await console.query(_plans))


def _plans(connection: sa.Connection) -> list[dict[str, Any]]:
    """Plans with the number of licenses that name each."""
    used: dict[tuple[str, int], int] = {}
    for license in licenses.every(connection).values():
        if license.plan is not None:
            key = license.plan.id, license.plan.version
            used[key] = used.get(key, 0) + 1
    rows = connection.execute(sa.select(db.plans).order_by(db.plans.c.id, db.plans.c.version.desc()))
    return [
        {"id": row.id, "version": row.version, "digest": row.digest,
         "licenses": used.get((row.id, row.version), 0), **json.loads(row.document)["plan"]}
        for row in rows
    ]  # fmt: skip


async def get_plan(console: Console, request: Request, user: User) -> Response:
    """One price plan in words, and as its canonical JSON."""
    name, version = request.path_params["id"], request.path_params["version"]
    if not version.isascii() or not version.isdigit():
        raise _no_plan(name, version)

    def look(connection: sa.Connection) -> dict[str, Any]:
        plan = registry.load_plan(connection, PlanRef(name, int(version[:18])))
        if plan is None:
            raise _no_plan(name, version)
        mine = [one for one in licenses.every(connection).values()
                if one.plan == PlanRef(plan.id, plan.version)]  # fmt: skip
        return {"plan": plan, "words": plan_words.sections(plan), "licenses": mine}

    found = await console.query(look)
    text = json.dumps(json.loads(found["plan"].document), indent=2, ensure_ascii=False)
    crumbs = (("Plans", PLANS),)
    return console.render(request, user, "plan.html", **found, text=text, crumbs=crumbs)


def _no_plan(name: str, version: str) -> SealpackError:
    return SealpackError("NOT_FOUND", f"there is no plan {name} version {version}")


PAGES = (
    Page("GET", LIST, OFFICE, get_list),
    Page("GET", LIST + "/{id}", OFFICE, get_one),
    Page("GET", PLANS, OFFICE, get_plans),
    Page("GET", PLANS + "/{id}/{version}", OFFICE, get_plan),
)
