"""Are there more devices than seats: what the registry says of the devices of a license.

Source: specs/settlement-ingest.md, "Seats". The issuer counts when it activates, a delegate when it gives
out; settlement sees both, and those who lie. Who came last is over, so that nobody loses a seat to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format import documents
from sealpack.format.activation import Activation
from sealpack.format.license import License
from sealpack.format.sublicense import grant
from sealpack.format.trust import Trust
from sealpack.settlement import db, registry, sublicenses
from sealpack.settlement.outcomes import Stopped

SKEW_S = 86_400  # a device dates its proof of closing by its own clock


@dataclass(frozen=True, slots=True)
class _Seat:
    """A device with a seat since `since`, and when its own proof ended that; Unix seconds."""

    device_id: str
    since: int
    ended: int | None = None

    @property
    def rank(self) -> tuple[int, str]:
        """The lower one was there first."""
        return self.since, self.device_id


def check(connection: sa.Connection, license: License, activation: Activation, trust: Trust) -> None:
    """That the device has one of the seats; :class:`Stopped` H214 when others had them all before."""
    versions = registry.load_license_forms(connection, digest=activation.license_digest)
    most = [form.devices.max for form in (*versions, license)]
    _check(connection, [license.license_id], activation, most, trust, f"license {license.license_id}")
    below = sublicenses.load(connection, license.license_id)
    if below is not None:
        all_below = sublicenses.of_parent(connection, below.parent.license_id)
        given = [grant(below.parent).devices.max]
        what = f"the delegates of license {below.parent.license_id}"
        _check(connection, all_below, activation, given, trust, what)


def _check(
    connection: sa.Connection,
    names: Sequence[str],
    activation: Activation,
    most: Iterable[int | None],
    trust: Trust,
    what: str,
) -> None:
    """Of several numbers of seats the largest counts; None is without a limit."""
    limits = tuple(most)
    numbers = [number for number in limits if number is not None]
    if len(numbers) < len(limits):
        return
    active = db.activations.c
    devices = sa.func.count(active.device_id.distinct())
    known = connection.execute(sa.select(devices).where(active.license_id.in_(names))).scalar_one()
    if known < max(numbers):
        return
    seats = _seats(connection, names)
    mine = seats.get(activation.device_id) or _Seat(activation.device_id, activation.issued_at)
    before = [
        seat
        for seat in seats.values()
        if seat.rank < mine.rank
        and (seat.ended is None or seat.ended > mine.since + SKEW_S)
        and seat.device_id not in trust.revocations.devices
    ]
    if len(before) >= max(numbers):
        raise Stopped(
            "H214",
            f"device count: {len(before)} devices had the {max(numbers)} seats of {what} before "
            f"{mine.device_id}; import the proof of one that was closed, or a license with more seats",
        )


def _seats(connection: sa.Connection, names: Sequence[str]) -> dict[str, _Seat]:
    """Every activated device, with its first seat where it has several."""
    proofs = db.deactivations.c
    ends: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in connection.execute(
        sa.select(proofs.license_id, proofs.device_id, proofs.epoch, proofs.closed_at).where(
            proofs.license_id.in_(names)
        )
    ):
        ends.setdefault((row.license_id, row.device_id), []).append((row.epoch, row.closed_at))
    found: dict[str, _Seat] = {}
    for row in connection.execute(sa.select(db.activations).where(db.activations.c.license_id.in_(names))):
        seat = _Seat(row.device_id, row.first_at)
        if ended := ends.get((row.license_id, row.device_id)):
            envelope = sublicenses.read(row.envelope)
            epoch = documents.payload_fields(envelope, "activation").integer("epoch", default=0)
            over = [at for log, at in ended if log >= epoch]
            if len(over) < len(ended):  # it came back, with a new activation
                seat = _Seat(row.device_id, row.issued_at)
            seat = _Seat(seat.device_id, seat.since, min(over, default=None))
        known = found.get(row.device_id)
        if known is None or known.ended is not None or (seat.ended is None and seat.rank < known.rank):
            found[row.device_id] = seat
    return found
