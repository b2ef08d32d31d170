"""Machines: who sent usage and who should have; and all about one of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sealpack.settlement.console import lists
from sealpack.settlement.console.app import OFFICE, Console, Page
from sealpack.settlement.overview import customers, devices, machine
from sealpack.settlement.plan import FIELD_WORDS
from sealpack.settlement.users import User

LIST = "/console/devices"


async def get_list(console: Console, request: Request, user: User) -> Response:
    """Every machine, those that need somebody first; `state` and `customer` pick some."""
    customer = request.query_params.get("customer") or None
    rows = await console.query(devices.listed, console.now, customer=customer)
    names = await console.query(customers.names)
    state = lists.choice(request, "state", ("", *devices.STATES))
    some = [row for row in rows if state in ("", row.state)]
    counts = [(one, one.capitalize(), sum(row.state == one for row in rows)) for one in devices.STATES]
    return console.render(
        request, user, "devices.html", page=lists.page(some, lambda row: row.key, lists.after(request)),
        state=state, customer=customer, names=names,
        choices=[("", "All", len(rows)), *(one for one in counts if one[2])],
    )  # fmt: skip


async def get_one(console: Console, request: Request, user: User) -> Response:
    """One machine under one license."""
    said = request.path_params
    found = await console.query(machine.load, said["license_id"], said["device_id"], console.now)
    names = await console.query(customers.names)
    crumbs = (("Machines", LIST), (found.row.license_id, f"/console/licenses/{found.row.license_id}"))
    return console.render(
        request, user, "device.html", machine=found, row=found.row, crumbs=crumbs, meter_words=FIELD_WORDS,
        customer_name=names.get(found.row.customer),
        limits={one.meter: one.limit for one in found.limits},
    )  # fmt: skip


PAGES = (
    Page("GET", LIST, OFFICE, get_list),
    Page("GET", LIST + "/{license_id}/{device_id}", OFFICE, get_one),
)
