"""The logs of one device: which it may begin, how they follow each other, what only registers tell of.

Source: specs/settlement-ingest.md, "Epochs". A device that finds itself set back never appends to its old
log: it begins the next one, whose first record names the old one's newest known point and carries its
registers. What of the old log never arrives is then known as a difference of registers. Nothing of that is
stored: it follows from the logs as they are, so the order in which files arrive cannot matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from sealpack.format import records
from sealpack.format.activation import log_origin
from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.logcheck import LogState
from sealpack.format.records import Record
from sealpack.format.runs import QUARTER_MS
from sealpack.format.trust import Trust
from sealpack.settlement import db, leases, logs, readings, registry, rollups
from sealpack.settlement.checks import Identity
from sealpack.settlement.logs import Growth, Log
from sealpack.settlement.outcomes import Stopped

_YEAR_MS = 365 * 86_400_000
Stamp = tuple[str, int, str, bool]  # origin (of a statement: its digest), size, root, frozen


@dataclass(frozen=True, slots=True)
class Previous:
    """The newest point of an older log that a later one knows."""

    origin: str
    size: int
    root: str


@dataclass(frozen=True, slots=True)
class Succession:
    """What the first record of a later log says of those before it: `carried` is bundle -> meter -> total."""

    at_ms: int
    license: str  # digest of the license document it began under
    previous: Previous | None
    carried: dict[str, dict[str, int]]

    @classmethod
    def of(cls, genesis: Record) -> Succession | None:
        """None for a first log, which says nothing of the kind."""
        body = genesis.body
        if not body["epoch"]:
            return None
        previous = Previous(**body["previous"]) if "previous" in body else None
        return cls(genesis.time_ms, body["license"], previous, body.get("carried", {}))

    def row(self, origin: str) -> dict[str, Any]:
        """Its row of the successions table."""
        before = self.previous
        return {
            "origin": origin, "at_ms": self.at_ms, "license": self.license,
            "previous_origin": before and before.origin, "previous_size": before and before.size,
            "previous_root": before and before.root, "carried": json.dumps(self.carried, sort_keys=True),
        }  # fmt: skip


def load(connection: sa.Connection, origin: str) -> Succession | None:
    """The stored :class:`Succession` of a log; None for a first one."""
    row = connection.execute(sa.select(db.successions).where(db.successions.c.origin == origin)).first()
    if row is None:
        return None
    named = row.previous_origin is not None
    previous = Previous(row.previous_origin, row.previous_size, row.previous_root) if named else None
    return Succession(row.at_ms, row.license, previous, json.loads(row.carried))


# --- the logs of one device -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """One log of a device, with what it says of those before it."""

    origin: str
    epoch: int
    size: int
    frozen: bool
    state: LogState
    succession: Succession | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Usage that a later log carries over and no receipt that arrived tells of; counts as lost at `at_ms`."""

    origin: str  # of the later log
    at_ms: int
    license: str
    bundle_digest: str
    meter: str
    amount: int

    @property
    def quarter_ms(self) -> int:
        """The quarter of an hour it is rated in."""
        return self.at_ms - self.at_ms % QUARTER_MS


def stamps(connection: sa.Connection, license_id: str, device: str) -> tuple[Stamp, ...]:
    """What is compared before one of a device's logs is moved: each of them."""
    rows = connection.execute(
        sa.select(db.logs.c.origin, db.logs.c.size, db.logs.c.root, db.logs.c.frozen)
        .where(db.logs.c.license_id == license_id, db.logs.c.device_id == device)
        .order_by(db.logs.c.origin)
    ).all()
    stated = [
        (digest, size, root, False) for digest, size, root in readings.tips(connection, license_id, device)
    ]
    return (*((row.origin, row.size, row.root, bool(row.frozen)) for row in rows), *stated)


def family(connection: sa.Connection, license_id: str, device: str) -> list[Member]:
    """All logs of a device under a license, the oldest first."""
    rows = connection.execute(
        sa.select(db.logs.c.origin, db.logs.c.epoch, db.logs.c.size, db.logs.c.frozen, db.logs.c.state)
        .where(db.logs.c.license_id == license_id, db.logs.c.device_id == device)
        .order_by(db.logs.c.epoch)
    ).all()
    return [
        Member(
            row.origin, row.epoch, row.size, bool(row.frozen),
            readings.furthest(connection, row.origin, row.size, logs.read_state(row.origin, row.state)),
            load(connection, row.origin),
        )
        for row in rows
    ]  # fmt: skip


def grown(
    connection: sa.Connection,
    members: Sequence[Member],
    log: Log,
    growth: Growth,
    stated: records.Registers | None = None,
) -> list[Member]:
    """The logs of a device as they will be once `log` has grown, or once registers are `stated` of it."""
    genesis = next(iter(growth.records(records.GENESIS)), None)
    known = next((m.succession for m in members if m.origin == log.origin), None)
    said = Succession.of(genesis) if genesis else known
    size = growth.frontier.size
    end = growth.checker.end()
    end.registers = stated or end.registers
    if end.routes is None:  # behind a gap, and no record since named them
        end.routes = rollups.routes(connection, log.origin, log.state.routes or {})
    state = readings.furthest(connection, log.origin, size, end)
    moved = Member(log.origin, log.epoch, size, log.frozen, state, said)
    others = [m for m in members if m.origin != log.origin]
    return sorted((*others, moved), key=lambda m: m.epoch)


def differences(members: Iterable[Member]) -> list[Difference]:
    """What each log carries over beyond all that is known of the logs before it; oldest log first."""
    known: Counter[tuple[str, str]] = Counter()
    found = []
    for member in members:
        if (said := member.succession) is not None:
            for bundle, meters in sorted(said.carried.items()):
                for meter, total in sorted(meters.items()):
                    if (missing := total - known[bundle, meter]) > 0:
                        found.append(
                            Difference(member.origin, said.at_ms, said.license, bundle, meter, missing)
                        )
                        known[bundle, meter] += missing
        known.update(_by_bundle(member.state))
    return found


def totals(members: Sequence[Member]) -> Counter[str]:
    """What is settled of each meter in all logs of a device, carried differences included."""
    total: Counter[str] = Counter()
    for member in members:
        for (_, meter), amount in _by_bundle(member.state).items():
            total[meter] += amount
    for difference in differences(members):
        total[difference.meter] += difference.amount
    return total


def _by_bundle(state: LogState) -> Counter[tuple[str, str]]:
    """Registers per (bundle digest, meter): these survive a log's end, routes do not."""
    found: Counter[tuple[str, str]] = Counter()
    routes = state.routes or {}
    for (route, _, meter), amount in (state.registers or records.Registers()).totals.items():
        found[routes[route]["bundle_digest"], meter] += amount
    return found


def of_license(connection: sa.Connection, license_id: str) -> list[Difference]:
    """Every difference that is billed under a license (without what stands below it); none that began
    under a test document."""
    devices = connection.execute(
        sa.select(db.logs.c.device_id)
        .join(db.successions, db.successions.c.origin == db.logs.c.origin)
        .where(db.logs.c.license_id == license_id)
        .distinct()
        .order_by(db.logs.c.device_id)
    ).scalars()
    families = [family(connection, license_id, device) for device in devices.all()]
    return billed(connection, license_id, *families)


def billed(connection: sa.Connection, license_id: str, *families: Sequence[Member]) -> list[Difference]:
    """The differences between the logs of these devices that are billed under a license."""
    found = [difference for members in families for difference in differences(members)]
    if not found:
        return []
    versions = registry.load_license_versions(connection, license_id)
    tests = {version.digest for version in versions if version.environment == "test"}
    return [difference for difference in found if difference.license not in tests]


# --- may it begin, and does it follow -------------------------------------------------------------------


def newest_issued(
    connection: sa.Connection, license: License, device: str, activated: int, trust: Trust
) -> int:
    """The highest log there is leave for in a document: token, repair, or activation (log `activated`)."""
    found = [activated]
    for envelope in registry.load_leave(connection, license.license_id, device):
        try:
            found.append(registry.open_leave(envelope, trust, license.issuer).epoch or 0)
        except SealpackError:
            continue  # another issuer's, or its key was revoked since: no leave
    return max(found)


def is_self_started(connection: sa.Connection, identity: Identity, epoch: int, trust: Trust) -> bool:
    """Whether no document gave leave for log `epoch` of the device."""
    activation = identity.activation
    issued = newest_issued(connection, identity.license, activation.device_id, activation.epoch, trust)
    return epoch > issued


def check(connection: sa.Connection, identity: Identity, log: Log, growth: Growth, trust: Trust) -> None:
    """May this log be there, and does it agree with the device's others; :class:`Stopped` H210 to H215."""
    leave = newest_issued(connection, identity.license, log.device_id, identity.activation.epoch, trust)
    issued = log.epoch <= leave
    for genesis in growth.records(records.GENESIS):
        said = Succession.of(genesis)
        if said is not None:
            _check_previous(said, log)
            if not issued:
                _check_leave(connection, identity, log.epoch, said)
            _check_older(connection, said, growth, issued)
    if not issued:
        _check_closed(connection, log, leave)
    end = growth.frontier
    check_later(connection, log.origin, end.size, end.root.hex(), growth.note)


def _check_previous(said: Succession, log: Log) -> None:
    """What a log follows is an older log of the same device under the same license."""
    if said.previous is None:
        return
    family_name, _, epoch = said.previous.origin.rpartition("/")
    same = log_origin(log.license_id, log.device_id, log.epoch).rpartition("/")[0] == family_name
    if not same or not epoch.isdecimal() or int(epoch) >= log.epoch:
        raise Stopped("H214", f"the log says it follows {said.previous.origin}, which is no log before it")


def _check_leave(connection: sa.Connection, identity: Identity, epoch: int, said: Succession) -> None:
    """A log beyond the issued ones: one for each lease or year, and it must say what it follows; H215."""
    before = log_origin(identity.license.license_id, identity.activation.device_id, epoch - 1)
    if said.previous is not None and _may_follow(connection, identity, before, epoch, said.at_ms):
        return
    raise Stopped(
        "H215",
        f"log {epoch} of the device began without leave: one further log for each lease, and a log names "
        f"the one before it; an epoch token sets this file free",
    )


def closed_since(connection: sa.Connection, log: Log, leave: int) -> int | None:
    """The device's log from `leave` on and before this one that is known as closed; None: none is.

    By its last record, or by the device's proof. The issuer's leave for `leave` decided about those before.
    """
    proofs = db.deactivations.c
    proven = connection.execute(
        sa.select(proofs.epoch).where(proofs.license_id == log.license_id, proofs.device_id == log.device_id)
    ).scalars()
    members = family(connection, log.license_id, log.device_id)
    closed = {*proven, *(member.epoch for member in members if member.state.closed)}
    return next((epoch for epoch in sorted(closed) if leave <= epoch < log.epoch), None)


def _check_closed(connection: sa.Connection, log: Log, leave: int) -> None:
    """A device that was deactivated needs a new activation; H215, also for what follows in such a log."""
    closed = closed_since(connection, log, leave)
    if closed is not None:
        raise Stopped(
            "H215",
            f"log {closed} of the device was closed: log {log.epoch} needs an activation or an epoch token",
        )


def _may_follow(connection: sa.Connection, identity: Identity, before: str, epoch: int, at_ms: int) -> bool:
    """Whether log `epoch` may begin by itself at `at_ms`, after the log named `before`."""
    if epoch == identity.activation.epoch + 1:  # the issuer's first lease
        return True
    leased = leases.first_given(connection, before)
    if leased is not None and leased * 1000 <= at_ms:
        return True
    older = load(connection, before)
    return older is not None and older.at_ms + _YEAR_MS <= at_ms


def _check_older(connection: sa.Connection, said: Succession, growth: Growth, issued: bool) -> None:
    """The older log, where it is held, must have been where this one says it was, and no further.

    After a fork only one of its histories is held: the issuer who let this log begin decided about that.
    """
    named = said.previous
    older = None if named is None else logs.load(connection, named.origin)
    if named is None or older is None or (issued and older.frozen):
        return
    size, root, note = readings.farthest(connection, older)
    fork = _Fork(note, growth.note, older.origin)
    if size > named.size:
        raise fork.stop(
            "H211",
            f"this log says log {older.epoch} ended after {named.size} receipts, {size} of it are known here",
        )
    if size == named.size and root != named.root:
        raise fork.stop(
            "H210",
            f"this log says log {older.epoch} had root {named.root[:16]} at {named.size} receipts, ours has "
            f"{root[:16]}",
        )


def check_later(connection: sa.Connection, origin: str, size: int, root: str, note: bytes) -> None:
    """A log that another one followed may fill up to there, and no further. `note` is the signed end."""
    successions = db.successions.c
    later = connection.execute(
        sa.select(successions.origin, successions.previous_size, successions.previous_root, db.logs.c.note)
        .join(db.logs, db.logs.c.origin == successions.origin)
        .where(successions.previous_origin == origin)
        .order_by(successions.origin)
    )
    for row in later.all():
        fork = _Fork(row.note, note, row.origin)
        epoch = row.origin.rpartition("/")[2]
        if size > row.previous_size:
            raise fork.stop(
                "H211",
                f"the device began log {epoch} after {row.previous_size} receipts of this one, the file goes "
                f"on to {size}",
            )
        if size == row.previous_size and root != row.previous_root:
            raise fork.stop(
                "H210",
                f"the device began log {epoch} after root {row.previous_root[:16]} of this one, the file has "
                f"{root[:16]} at {size} receipts",
            )


@dataclass(frozen=True, slots=True)
class _Fork:
    """Two signed checkpoints that cannot both be true, and the other log they concern."""

    ours: bytes
    theirs: bytes
    other: str

    def stop(self, code: str, detail: str) -> Stopped:
        """The outcome that keeps both."""
        return Stopped(code, detail, ours=self.ours, theirs=self.theirs, also=(self.other,))
