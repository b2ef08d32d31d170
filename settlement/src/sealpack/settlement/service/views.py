"""What the service shows, page by page: cases, invoices, customers, licenses, devices, statements, audit.

Source: specs/service.md, "Pages". A page begins after the key of the last item of the one before, so that
items which come meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, cases as cases_of, db, money, payouts, registry
from sealpack.settlement.service.tokens import Caller

MAX_ITEMS = 500
ITEMS = 100
_MAX_CURSOR = 1024

Row = sa.Row[Any]


@dataclass(frozen=True, slots=True)
class Span:
    """Which page: so many items after a key."""

    limit: int
    after: tuple[str | int, ...] | None

    @classmethod
    def parse(cls, limit: str | None, after: str | None, *types: type) -> Span:
        """Read what a caller says; `types` are those of the key's members. USAGE."""
        if limit is not None and not (
            limit.isascii() and limit.isdigit() and len(limit) <= 9 and 0 < int(limit) <= MAX_ITEMS
        ):
            raise SealpackError("USAGE", f"limit must be 1 to {MAX_ITEMS}")
        count = ITEMS if limit is None else int(limit)
        if not after:
            return cls(count, None)
        try:
            key = json.loads(base64.b64decode(after[:_MAX_CURSOR].encode(), b"-_", validate=True))
        except (binascii.Error, ValueError, RecursionError):
            key = None
        if not isinstance(key, list) or [type(part) for part in key] != list(types):
            raise SealpackError("USAGE", "after must be the `next` of the page before")
        if not all(part.isprintable() if isinstance(part, str) else abs(part) < 1 << 63 for part in key):
            raise SealpackError("USAGE", "after must be the `next` of the page before")
        return cls(count, tuple(key))


def cursor(key: Sequence[str | int]) -> str:
    """The `next` of a page whose last item has this key."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode()


def _page(
    connection: sa.Connection, query: sa.Select[Any], keys: Sequence[sa.ColumnElement[Any]],
    limit: str | None, after: str | None, show: Callable[[Row], dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """One page of a query in the order of its keys, whose values stand in each row as `key0`, `key1`."""
    span = Span.parse(limit, after, *(key.type.python_type for key in keys))
    query = query.add_columns(*(key.label(f"key{n}") for n, key in enumerate(keys)))
    if span.after is not None:
        query = query.where(sa.tuple_(*keys) > sa.tuple_(*(sa.literal(part) for part in span.after)))
    rows = connection.execute(query.order_by(*keys).limit(span.limit + 1)).all()
    shown = rows[: span.limit]
    more = len(rows) > len(shown)
    next_ = cursor([getattr(shown[-1], f"key{n}") for n in range(len(keys))]) if more else None
    return {"items": [show(row) for row in shown], **({"next": next_} if next_ else {})}


def customers(connection: sa.Connection, limit: str | None, after: str | None) -> dict[str, Any]:
    """Customer records, by id."""
    columns = db.customers.c
    return _page(
        connection,
        sa.select(columns.document),
        (columns.id,),
        limit,
        after,
        lambda row: json.loads(row.document),
    )


def licenses(connection: sa.Connection, limit: str | None, after: str | None) -> dict[str, Any]:
    """The newest document of every license, by id."""

    def show(row: Row) -> dict[str, Any]:
        found = registry.load_license(connection, row.license_id)
        assert found is not None
        plan = found.plan
        said = {
            "license_id": found.license_id, "seq": found.seq, "customer": found.customer.id,
            "customer_name": found.customer.name, "issuer": found.issuer, "tier": found.tier,
            "billing": found.billing, "environment": found.environment, "parent": row.parent_id,
            "nbf": found.nbf, "exp": found.exp, "devices_max": found.devices.max,
            "plan": f"{plan.id} {plan.version}" if plan else None, "digest": row.digest,
        }  # fmt: skip
        return {name: value for name, value in said.items() if value is not None}

    columns, below = db.licenses.c, db.sublicenses.c
    query = sa.select(columns.license_id, columns.digest, below.parent_id).outerjoin_from(
        db.licenses, db.sublicenses, below.license_id == columns.license_id
    )
    return _page(connection, query, (columns.license_id,), limit, after, show)


def devices(connection: sa.Connection, limit: str | None, after: str | None) -> dict[str, Any]:
    """Every activated device, by license and id, with its newest log."""

    def show(row: Row) -> dict[str, Any]:
        logs = db.logs.c
        newest = connection.execute(
            sa.select(logs.origin, logs.size, logs.last_ms, logs.frozen)
            .where(logs.license_id == row.license_id, logs.device_id == row.device_id)
            .order_by(logs.epoch.desc())
        ).first()
        log = {} if newest is None else {
            "origin": newest.origin, "size": newest.size, "last_ms": newest.last_ms,
            "frozen": bool(newest.frozen),
        }  # fmt: skip
        return {
            "license_id": row.license_id, "device_id": row.device_id, "label": row.device_label,
            "first_at": row.first_at, "issued_at": row.issued_at, **({"log": log} if log else {}),
        }  # fmt: skip

    columns = db.activations.c
    query = sa.select(
        columns.license_id, columns.device_id, columns.device_label, columns.first_at, columns.issued_at
    )
    return _page(connection, query, (columns.license_id, columns.device_id), limit, after, show)


def invoices(connection: sa.Connection, limit: str | None, after: str | None) -> dict[str, Any]:
    """Every document of the number series, by issuer and number; amounts as decimal strings."""

    def show(row: Row) -> dict[str, Any]:
        places = money.exponent(row.currency)
        said = {
            "number": row.name, "kind": row.kind, "corrects": row.corrects, "issuer": row.issuer,
            "customer": row.customer_id, "license_id": row.license_id, "period": row.period,
            "currency": row.currency, "issued": row.issued, "due": row.due,
            "net": money.amount_text(row.net, places), "total": money.amount_text(row.total, places),
        }  # fmt: skip
        return {name: value for name, value in said.items() if value is not None}

    columns = db.invoices.c
    bodies = ("json", "csv", "html")
    query = sa.select(*(column for column in columns if column.name not in bodies))
    return _page(connection, query, (columns.issuer, columns.number), limit, after, show)


def trail(connection: sa.Connection, limit: str | None, after: str | None) -> dict[str, Any]:
    """The audit trail, the oldest entry first."""
    columns = db.audit.c

    def show(row: Row) -> dict[str, Any]:
        return audit.Entry(row.seq, row.at, row.who, json.loads(row.what), row.previous, row.digest).to_dict()

    return _page(connection, sa.select(db.audit), (columns.seq,), limit, after, show)


def cases(database: db.Database, limit: str | None, after: str | None, state: str | None) -> dict[str, Any]:
    """Cases by number; `state` open leaves out those that are over."""
    if state not in (None, "open", "accepted", "refused", "settled"):
        raise SealpackError("USAGE", "state must be open, accepted, refused or settled")
    span = Span.parse(limit, after, int)
    first = span.after[0] if span.after else -1
    found = [c for c in cases_of.cases(database) if c.number > int(first) and state in (None, c.state)]
    shown = found[: span.limit]
    next_ = {"next": cursor([shown[-1].number])} if len(found) > len(shown) else {}
    return {"items": [case.to_dict() for case in shown], **next_}


def statements(connection: sa.Connection, caller: Caller) -> dict[str, Any]:
    """What parties earned, and what is due of it; a creator sees its own."""
    mine = caller.speaks_for("party")
    found = [one for one in payouts.payouts(connection) if not caller.scope or one.party == mine]
    return {"items": [one.to_dict() for one in found]}
