"""First steps: whom to believe, who bills, and what else settlement has to know before files come.

Source: specs/console.md, "Set-up".
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import importing, parties, registry, tables
from sealpack.settlement.console.app import CLERKS, OFFICE, Console, Page, count
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.paging import number_of
from sealpack.settlement.parties import Seller
from sealpack.settlement.users import User

START = "/console/start"


@dataclass(frozen=True, slots=True)
class Known:
    """What settlement knows so far; `issuers` are those that the trust file names."""

    trust: bool
    issuers: tuple[str, ...]
    sellers: tuple[Seller, ...]
    customers: int
    plans: int
    licenses: int
    devices: int
    files: bool

    @property
    def ready(self) -> bool:
        """Whether usage can be billed, as far as that can be told beforehand."""
        return bool(self.trust and self.sellers and self.plans and self.licenses)


def known(connection: sa.Connection) -> Known:
    """Count what is there."""
    issuers = _issuers(connection)
    names = connection.execute(sa.select(tables.sellers.c.issuer).order_by(tables.sellers.c.issuer)).scalars()
    return Known(
        trust=issuers is not None,
        issuers=issuers or (),
        sellers=tuple(parties.load_seller(connection, name) for name in names),
        customers=count(connection, tables.customers),
        plans=count(connection, tables.plans),
        licenses=count(connection, tables.licenses),
        devices=count(connection, tables.activations),
        files=connection.execute(sa.select(tables.files.c.sha256).limit(1)).first() is not None,
    )


def _issuers(connection: sa.Connection) -> tuple[str, ...] | None:
    """Those that may issue licenses; None before a trust file was imported."""
    try:
        keyring = registry.load_trust(connection).keyring
    except SealpackError as error:
        if error.code != "TRUST_UNPINNED":
            raise
        return None
    return tuple(sorted({e.issuer for e in keyring.entries.values() if "license" in e.roles}))


async def get_start(console: Console, request: Request, user: User) -> Response:
    """What is there and what is missing."""
    found = await console.query(known)
    chosen = request.query_params.get("seller", "")
    seller = next((s for s in found.sellers if s.issuer == chosen), next(iter(found.sellers), None))
    return console.render(
        request, user, "start.html", known=found, seller=seller or Seller(next(iter(found.issuers), ""), ""),
        may_change=user.role in CLERKS,
    )  # fmt: skip


async def post_seller(console: Console, request: Request, user: User) -> Response:
    """Keep the seller's record, as `settle import` of a seller file does."""
    form = await console.form(request)
    data = json.dumps(_document(form), indent=1).encode()
    told = await console.work(
        importing.import_data, console.service.database, data, "seller.json", console.actor(user)
    )
    return console.redirect(START, f"Kept: {told}.")


def _document(form: FormData) -> dict[str, object]:
    names = ("issuer", "legal_name", "tax_id", "email", "payment", "prefix", "country")
    said = {name: text(form, name, most=500, needed=name in ("issuer", "legal_name")) for name in names}
    address = [line.strip() for line in text(form, "address", most=1000, needed=False).splitlines()]
    days = text(form, "payment_days", most=6, needed=False)
    if days and number_of(days) is None:
        raise SealpackError("FORM_INVALID", "days to pay are a whole number")
    return {
        "schema": parties.SELLER_SCHEMA, **{name: value for name, value in said.items() if value},
        "address": [line for line in address if line], **({"payment_days": int(days)} if days else {}),
    }  # fmt: skip


PAGES = (
    Page("GET", START, OFFICE, get_start),
    Page("POST", f"{START}/seller", CLERKS, post_seller),
)
