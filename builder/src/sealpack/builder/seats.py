"""Seats: who has one under a license, who gave it back, and what part of a license-wide quota is whose.

Source: specs/registry-line.md, "Seats", and specs/activation.md, "Closing". Everything is told by the
registry's signed documents; nothing else remembers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, Ceiling
from sealpack.format.deactivation import Deactivation
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.leasing import device_share
from sealpack.format.license import License
from sealpack.format.registry import RegistryLine
from sealpack.format.trust import Trust
from sealpack.format.values import utc_day


@dataclass(frozen=True, slots=True)
class Seat:
    """One device under a license: its newest activation, and how it ended if it did.

    `since` is its first activation, `given` the most of each license-wide quota that it was ever given since
    it last began, `settled` whether settlement has the closed log to its end, `confirmed` when its code was
    read out. `before` is what it used in logs that it closed. Times are Unix seconds.
    """

    activation: Activation
    since: int
    given: Mapping[str, int]
    closed: Deactivation | None = None
    released_at: int = 0
    settled: bool = False
    confirmed: int | None = None
    before: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The device for people."""
        label = self.activation.device_label
        return f"{self.activation.device_id} ({label})" if label else self.activation.device_id

    @property
    def next_epoch(self) -> int:
        """The log that the next activation of this device begins or goes on with."""
        return self.activation.epoch if self.closed is None else self.closed.epoch + 1

    def lease_ends(self, license: License) -> int | None:
        """When the last lease that the closed device can have ends; None: never.

        Settlement gives none after the proof was registered, and none outlives the license.
        """
        ends = [] if license.exp is None else [license.exp + license.grace_s]
        if license.lease.max_age_s is not None:
            ends.append(self.released_at + license.lease.max_age_s)
        return min(ends, default=None)

    def holds(self, meter: str, license: License, now: int) -> int:
        """How much of a license-wide quota nobody else may have."""
        given = self.given.get(meter, 0)
        if self.closed is None:
            return given
        ends = self.lease_ends(license)
        over = self.settled or (ends is not None and ends <= now)
        # What it used is used, however much it was allowed.
        return min(given, self.closed.used.get(meter, 0)) if over else given


def of_license(lines: Iterable[RegistryLine], license_id: str, trust: Trust) -> dict[str, Seat]:
    """Every device that ever had a seat under a license, by device id.

    A seat stays taken when the key that gave it was revoked: the device asks again and keeps it. Every other
    fault of a document is raised.
    """
    made: dict[str, list[Activation]] = {}
    equal: dict[str, dict[str, int]] = {}
    ended: dict[str, tuple[Deactivation, RegistryLine]] = {}
    confirmed: dict[str, int] = {}
    for line in lines:
        fields = documents.payload_fields(line.license, "license", "LIC_SCHEMA")
        if fields.text("license_id") != license_id or line.sublicense is not None:  # a delegate's own seats
            continue
        equal[line.license.digest] = {m: s for m, (_, s) in parts(License.parse(fields)).items()}
        if line.activation is not None:
            activation = seated(line.activation, trust)
            made.setdefault(activation.device_id, []).append(activation)
        if line.deactivation is not None:
            said = Deactivation.open(line.deactivation)
            known = ended.get(said.device_id)
            if known is None or (known[0].epoch, known[1].acknowledgement is not None) < (
                said.epoch,
                line.acknowledgement is not None,
            ):
                ended[said.device_id] = said, line
        if line.confirmed is not None:
            confirmed[line.confirmed.activation] = line.confirmed.at
    return {name: _seat(found, equal, ended.get(name), confirmed) for name, found in made.items()}


def _seat(
    made: list[Activation],
    equal: Mapping[str, Mapping[str, int]],
    end: tuple[Deactivation, RegistryLine] | None,
    confirmed: Mapping[str, int],
) -> Seat:
    newest = max(made, key=lambda a: (a.epoch, a.issued_at))
    given: dict[str, int] = {}
    for activation in (a for a in made if a.epoch == newest.epoch):
        own = {share.meter: share.limit for share in activation.shares}
        for meter, share in (dict(equal.get(activation.license_digest, {})) | own).items():
            given[meter] = max(share, given.get(meter, 0))
    seat = Seat(newest, min(a.issued_at for a in made), given, confirmed=confirmed.get(newest.digest))
    if end is None:
        return seat
    said, line = end
    if said.epoch < newest.epoch:
        return replace(seat, before=said.used)
    return Seat(
        newest,
        seat.since,
        given,
        said,
        line.released_at or 0,
        line.acknowledgement is not None,
        seat.confirmed,
        said.used,
    )


def seated(envelope: Envelope, trust: Trust) -> Activation:
    """An activation of the registry, also one whose key was revoked since."""
    try:
        return Activation.open(envelope, trust)
    except SealpackError as error:
        if error.code != "KEY_REVOKED":
            raise
        return Activation.read(envelope)


def parts(license: License) -> dict[str, tuple[int, int]]:
    """Of each license-wide quota of the term: the whole, and the equal part of one seat."""
    found: dict[str, tuple[int, int]] = {}
    for quota in license.quota:
        whole, share = device_share(quota, 1), device_share(quota, license.devices.max)
        if quota.scope == "license" and whole is not None and share is not None:
            found[quota.meter] = min((whole, share), found.get(quota.meter, (whole, share)))
    return found


def require_free(license: License, seats: Mapping[str, Seat], device_id: str) -> None:
    """DEVICE_LIMIT unless a seat is free for the device, or it has one."""
    taken = [seat for name, seat in sorted(seats.items()) if name != device_id and seat.closed is None]
    most = license.devices.max
    if most is None or len(taken) < most:
        return
    named = "; ".join(f"{seat.name} since {utc_day(seat.since)}" for seat in taken)
    raise SealpackError(
        "DEVICE_LIMIT",
        f"license {license.license_id} has {most} seats, all {len(taken)} are taken: {named}",
        remedy=f"run `sealpack activate close {license.license_id} --out PROOF` on one of them and "
        "`sealpack license transfer --from PROOF --request FILE` here; or "
        f"`sealpack license renew {license.license_id} --devices {most + 1}`",
        devices=[seat.activation.device_id for seat in taken],
    )


def shares_for(license: License, seats: Mapping[str, Seat], device_id: str, now: int) -> tuple[Ceiling, ...]:
    """The device's parts of license-wide quotas where they are not the equal ones.

    What other devices hold is not handed on. UNSETTLED_LIMIT when they hold all of it.
    """
    others = [seat for name, seat in seats.items() if name != device_id]
    own = seats.get(device_id)
    found = []
    for meter, (whole, equal) in sorted(parts(license).items()):
        free = max(0, whole - sum(seat.holds(meter, license, now) for seat in others))
        mine = min(equal, free)
        if own is not None and own.closed is None:  # what it was given stays good
            mine = max(mine, own.given.get(meter, 0))
        if equal and not mine:
            raise _all_held(license, others, meter, whole, now)
        if mine != equal:
            found.append(Ceiling(meter, mine))
    return tuple(found)


def _all_held(license: License, others: Iterable[Seat], meter: str, whole: int, now: int) -> SealpackError:
    waiting = [seat for seat in others if seat.closed is not None and seat.holds(meter, license, now)]
    told = []
    for seat in waiting:
        ends = seat.lease_ends(license)
        until = f"until {utc_day(ends)}" if ends is not None else "without an end"
        told.append(f"{seat.name} holds {seat.holds(meter, license, now):,} {until}")
    return SealpackError(
        "UNSETTLED_LIMIT",
        f"nothing of the {whole:,} {meter} of license {license.license_id} is free: "
        + ("; ".join(told) or "its devices hold all of it"),
        remedy="settle the closed device's last usage file and give the acknowledgement with --ack, or raise "
        f"the quota: `sealpack license renew {license.license_id} --quota ...`",
    )


def check_proof(said: Deactivation, seats: Mapping[str, Seat], lines: Iterable[RegistryLine]) -> None:
    """That a proof ends a seat of the registry: DEVICE_MISMATCH, EPOCH_MISMATCH for an older one's."""
    seat = seats.get(said.device_id)
    given = {line.activation.digest for line in lines if line.activation is not None}
    if seat is None or said.activation not in given:
        raise SealpackError(
            "DEVICE_MISMATCH",
            f"the registry has no activation {said.activation[:16]} of {said.device_id} "
            f"under license {said.license_id}",
            remedy="check which license and registry the proof belongs to",
        )
    if said.epoch < seat.activation.epoch:
        raise SealpackError(
            "EPOCH_MISMATCH",
            f"the proof ends log {said.epoch} of {said.device_id}, which was activated again for log "
            f"{seat.activation.epoch}",
            remedy=f"run `sealpack activate close {said.license_id} --out PROOF` on the device again",
        )


def check_settled(said: Deactivation, envelope: Envelope, trust: Trust, issuer: str) -> None:
    """That an acknowledgement says settlement has the closed log to its end; USAGE, ACK_FORK."""
    ack = Acknowledgement.open(envelope, trust, issuer)
    if ack.origin != said.origin or ack.size < said.size:
        raise SealpackError(
            "USAGE",
            f"the acknowledgement has {ack.origin} up to record {ack.size}, the proof ends {said.origin} "
            f"at {said.size}",
            remedy="settle the usage file that was written beside the proof, and give its acknowledgement",
        )
    if (ack.size, ack.root) != (said.size, said.root):
        raise SealpackError(
            "ACK_FORK", f"settlement has another log {said.origin} than the one that was closed"
        )
