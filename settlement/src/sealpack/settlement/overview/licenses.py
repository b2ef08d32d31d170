"""Licenses as finance watches them: which end soon, and how many of their seats are taken.

Source: specs/console.md, "Register".
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.settlement import db, registry

EXPIRING_S = 60 * 86_400
STATES = ("expiring", "active", "not yet", "ended", "revoked")  # in the order of the list


@dataclass(frozen=True, slots=True)
class Row:
    """A license or sub-license in its newest form. `devices` have an activation under it, itself alone."""

    license: License
    customer: str  # who is billed, by id
    state: str  # of STATES
    devices: int
    below: int  # sub-licenses

    @property
    def key(self) -> tuple[int, int, str]:
        """What ends soon comes first, the soonest of it at the top; what has ended the latest first."""
        end = self.license.exp if self.license.exp is not None else 1 << 62
        return STATES.index(self.state), -end if self.state == "ended" else end, self.license.license_id


def every(connection: sa.Connection) -> dict[str, License]:
    """The newest form of every license and sub-license, by id."""
    columns, below = db.licenses.c, db.sublicenses.c
    rows = connection.execute(
        sa.select(columns.license_id, columns.envelope, below.parent_id).outerjoin_from(
            db.licenses, db.sublicenses, below.license_id == columns.license_id
        )
    ).all()
    found = {}
    for row in rows:
        one = (
            registry.load_license(connection, row.license_id)
            if row.parent_id
            else registry.stored_license(row.envelope)
        )
        if one is not None:
            found[row.license_id] = one
    return found


def state_of(license: License, now: int, revoked: frozenset[str] = frozenset()) -> str:
    """Of STATES; now in Unix seconds, `revoked` are license ids."""
    if license.license_id in revoked:
        return "revoked"
    if license.exp is not None and now >= license.exp:
        return "ended"
    if now < license.nbf:
        return "not yet"
    return "expiring" if license.exp is not None and license.exp - now <= EXPIRING_S else "active"


def revoked_ids(connection: sa.Connection) -> frozenset[str]:
    """Licenses on the revocation list; none before there is trust."""
    try:
        return frozenset(registry.load_trust(connection).revocations.licenses)
    except SealpackError as error:
        if error.code != "TRUST_UNPINNED":
            raise
        return frozenset()


def listed(connection: sa.Connection, now: int, customer: str | None = None) -> list[Row]:
    """All of them, or those of a customer, in the order of :attr:`Row.key`."""
    columns = db.activations.c
    seats = connection.execute(sa.select(columns.license_id, sa.func.count()).group_by(columns.license_id))
    devices = {license_id: count for license_id, count in seats}
    parents: dict[str, int] = {}
    for parent in connection.execute(sa.select(db.sublicenses.c.parent_id)).scalars():
        parents[parent] = parents.get(parent, 0) + 1
    owners = connection.execute(sa.select(db.licenses.c.license_id, db.licenses.c.customer_id))
    billed: dict[str, str] = {row.license_id: row.customer_id for row in owners}
    revoked = revoked_ids(connection)
    found = [
        Row(one, billed[id], state_of(one, now, revoked), devices.get(id, 0), parents.get(id, 0))
        for id, one in every(connection).items()
        if customer in (None, billed[id])
    ]
    return sorted(found, key=lambda row: row.key)
