"""Files that say what was used in a log, not by which receipts: what each adds, and storing it.

Source: specs/settlement-ingest.md, "Registers without receipts". Two kinds of files: tally files, and usage
files that follow a gap which a person closed or that registers tell of. Nothing of them is believed but what
stands under the device's signature, and a file whose tree contradicts one that is known proves a fork.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.logcheck import LogChecker, LogState
from sealpack.format.merkle import leaf_hash
from sealpack.format.records import Record, Registers
from sealpack.format.runs import QUARTER_MS
from sealpack.format.tallies import TallyBlock, TallyReader, open_reader
from sealpack.format.trust import Trust
from sealpack.format.usage import SCHEMA
from sealpack.format.usage_reader import UsageReader
from sealpack.settlement import checks, db, decisions, epochs, logs, readings, rollups, seats
from sealpack.settlement.checks import Identity
from sealpack.settlement.epochs import Succession
from sealpack.settlement.logs import Growth, Log
from sealpack.settlement.outcomes import Stopped
from sealpack.settlement.readings import Beyond, Limit, Mark
from sealpack.settlement.rollups import Rollup
from sealpack.settlement.times import Times

RECEIPTS, TALLIES, READING = "receipts", "tallies", "reading"
FLAG = {RECEIPTS: "W154", TALLIES: "W152", READING: "W153"}
_KEPT = (records.GENESIS, records.ACKNOWLEDGED, records.ROTATED, records.LOST, records.CLOCK)
Routes = dict[str, Any]


@dataclass(slots=True)
class Statement:
    """What a file says beyond the receipts of a log, up to `size`.

    `growth` is the log's far end after it, `growth.rollup` what is newly counted. `reached` is false where
    the log was known farther already. `roots` are trees of the file by size.
    """

    kind: str
    first: int
    size: int
    root: str
    growth: Growth
    complete: bool = True
    first_root: str | None = None
    marks: list[Mark] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    roots: dict[int, str] = field(default_factory=dict)
    routes: dict[str, Any] = field(default_factory=dict)
    reached: bool = True
    known: bool = False  # nothing in it is new
    uncertain: bool = False  # nothing in it says what was used before it
    accepted: int = 0  # receipts that are known by it for the first time

    @property
    def registers(self) -> Registers | None:
        """The farthest registers it states."""
        farthest = max(self.marks, key=lambda mark: mark.position, default=None)
        return None if farthest is None else farthest.registers

    @property
    def detail(self) -> str:
        """What was taken, in words."""
        if self.known:
            return "nothing new"
        if self.kind == READING:
            return f"registers up to receipt {self.size}"
        if self.kind == TALLIES:
            return f"{self.accepted} receipts known by their tallies"
        return f"{self.size - self.first} receipts, kept until those before them arrive"

    @property
    def flag(self) -> str:
        """The outcome's flag for a statement of this kind."""
        return FLAG[self.kind]

    def say(self, record: Record) -> None:
        """Keep what a record says of times and keys."""
        growth = self.growth
        if record.kind in _KEPT:
            growth.said.setdefault(record.kind, []).append(record)
            growth.times.follow(record)
        else:
            growth.times.last_ms = max(growth.times.last_ms, record.time_ms)
        if record.kind == records.ACKNOWLEDGED:
            told_ms = record.body["server_time"] * 1000
            self.limits.append(Limit(record.position, record.body["size"], told_ms, told_ms))
        elif record.kind == records.CLOCK:  # where nothing before it is later, this changes nothing
            self.limits.append(Limit(record.position, record.position, record.time_ms))


def judge(
    connection: sa.Connection,
    identity: Identity,
    log: Log,
    reader: UsageReader,
    trust: Trust,
    now: int,
    sha256: str,
) -> Statement | None:
    """What a file says beyond the log's receipts; None for a usage file that continues them.

    :class:`Stopped` with every code of specs/settlement-ingest.md, "Algorithm".
    """
    header = reader.header
    if header.schema == SCHEMA and header.start <= log.size:
        return None
    waived = decisions.waived(connection, sha256)
    gap_ms = decisions.used_ms(connection, sha256)
    said = state(connection, log, reader, gap_ms, across="H201" in waived)
    if said.size <= log.size:
        return said
    if log.frozen:
        raise Stopped("H210", "the log is frozen until the case is decided")
    count(connection, log, said)
    checks.check_growth(connection, identity, said.growth, trust, now, waived)
    with checks.unless(waived):
        seats.check(connection, identity.license, identity.activation, trust)
    epochs.check(connection, identity, log, said.growth, trust)
    return said


def state(
    connection: sa.Connection, log: Log, reader: UsageReader, gap_ms: int | None, *, across: bool
) -> Statement:
    """What a file states, held against the trees that are known; `across` a gap if need be.

    :class:`Stopped` H201, H210, H213, and as for a file without a valid block.
    """
    far = readings.reach(connection, log)
    known = {far.size} | {size for size, _, _ in anchors(connection, log.origin)}
    said = _read(reader, log, far, gap_ms, known)
    checks.require_blocks(reader, said.growth.blocks)
    if said.first > far.size and not across:
        missing = said.first - far.size
        raise Stopped("H201", f"receipts {far.size} to {said.first - 1} are missing ({missing})")
    if said.uncertain:
        raise Stopped("H201", "no tally in it says what was used before it")
    _compare_trees(connection, log, said)
    if not across and log.size < said.first < far.size < said.size and far.size not in said.roots:
        raise Stopped(
            "H201", f"it does not show where receipt {far.size} stands, up to which the log is known"
        )
    said.known = said.size <= (log.size if said.kind == RECEIPTS else far.size)
    said.reached = said.size > far.size
    said.accepted = said.size - max(said.first, far.size) if said.reached else 0
    return said


# --- reading a file -----------------------------------------------------------------------------------


def _read(
    reader: UsageReader, log: Log, far: Log, gap_ms: int | None, known: Collection[int] = ()
) -> Statement:
    """Walk a file's valid blocks; its tree is wanted at the sizes in `known`."""
    header = reader.header
    goes_on = header.start == far.size
    state = far.state.copy() if goes_on else LogState(header.start)
    if not header.start:
        state = LogState.fresh()
    times = Times(log.floor_ms, far.last_ms if goes_on else 0)
    growth = Growth(header.frontier, LogChecker(state, hidden=header.schema != SCHEMA), b"", times=times)
    kind = RECEIPTS if header.schema == SCHEMA else TALLIES
    said = Statement(kind, header.start, header.start, "", growth, first_root=header.frontier.root.hex())
    said.roots[header.start] = header.frontier.root.hex()
    if isinstance(reader, TallyReader):
        _read_tallies(reader, said)
    else:
        _read_receipts(reader, said, gap_ms, known)
    said.size, said.root = growth.frontier.size, growth.frontier.root.hex()
    said.complete = reader.complete
    said.routes = dict(growth.checker.state.routes or {})
    return said


def _read_tallies(reader: TallyReader, said: Statement) -> None:
    """What lies between two tallies was used in the quarter of an hour of the first (specs/receipts.md)."""
    checker, since, used_ms = said.growth.checker, said.first, None
    certain = said.first if checker.state.registers is not None else -1  # up to where registers are known
    for block in reader:
        assert isinstance(block, TallyBlock)
        said.growth.blocks += 1
        said.roots |= {tree.size: tree.root.hex() for tree in block.ends}
        for record, position in zip(block.records, block.positions, strict=True):
            checker.skip(position)
            checker.follow(record)
            said.say(record)
            if record.kind == records.TALLY:
                registers = Registers.from_tally(record.body["registers"])
                used = record.time_ms if used_ms is None else used_ms
                said.marks.append(Mark(position, since, used, registers))
                since, used_ms, certain = position, record.time_ms, position
            certain += position == certain
        checker.skip(block.after.size)
        said.growth.frontier, said.growth.note = block.after, block.note
    if certain != said.growth.frontier.size:  # what is hidden behind the last tally, the next one says
        checker.state.registers = None


def _read_receipts(reader: UsageReader, said: Statement, gap_ms: int | None, known: Collection[int]) -> None:
    """Every receipt counts in its own quarter; what the gap swallowed by `gap_ms`, else by the first one."""
    checker = said.growth.checker
    base: Registers | None = None  # of the file alone, so that the order of files cannot matter
    counted, cut, first_ms = Registers(), _Cut(said.first), None
    for block in reader:
        said.growth.blocks += 1
        for record in block.records:
            first_ms = record.time_ms if first_ms is None else first_ms
            checker.follow(record)
            said.say(record)
            if record.kind == records.TALLY and base is None:
                base = _before(Registers.from_tally(record.body["registers"]), counted)
            cut.follow(record, counted)
            counted.add(record)
        said.growth.frontier, said.growth.note = block.after, block.note
        said.roots[block.after.size] = block.after.root.hex()
        for size in known:
            if block.before.size < size < block.after.size:
                leaves = block.leaves[: size - block.before.size]
                said.roots[size] = block.before.extend(map(leaf_hash, leaves)).root.hex()
    if not said.growth.blocks:
        return
    if base is None:
        said.uncertain = True
        return
    cut.end(said.growth.frontier.size, counted)
    by_ms = first_ms or 0  # by then all of it was used
    said.marks.append(Mark(said.first, said.first, by_ms if gap_ms is None else min(gap_ms, by_ms), base))
    said.marks += [replace(mark, registers=_sum(base, mark.registers)) for mark in cut.marks]


def _before(tally: Registers, counted: Registers) -> Registers:
    try:
        return tally.minus(counted)
    except SealpackError as error:
        raise Stopped("H213", f"a tally is below the receipts before it: {error.message}") from None


def _sum(one: Registers, other: Registers) -> Registers:
    total = one.copy()
    total.merge(other)
    return total


@dataclass(slots=True)
class _Cut:
    """Cuts a file where its usage passes into another quarter of an hour, or a record speaks of times."""

    since: int
    quarter: int | None = None
    marks: list[Mark] = field(default_factory=list)

    def follow(self, record: Record, counted: Registers) -> None:
        """Before a record is counted."""
        if record.kind in (records.ACKNOWLEDGED, records.CLOCK):
            self.end(record.position, counted)
        elif record.kind in (records.USAGE, records.LOST):
            quarter = record.time_ms - record.time_ms % QUARTER_MS
            if self.quarter not in (None, quarter):
                self.end(record.position, counted)
            self.quarter = quarter

    def end(self, position: int, counted: Registers) -> None:
        """What was counted since the last mark was used in one quarter."""
        if self.quarter is not None:
            self.marks.append(Mark(position, self.since, self.quarter, counted.copy()))
        self.since, self.quarter = position, None


# --- against what is known ------------------------------------------------------------------------------


def _compare_trees(connection: sa.Connection, log: Log, said: Statement) -> None:
    """The file's tree at every size that is known here; H210."""
    known = list(anchors(connection, log.origin))
    if log.size:
        known.append((log.size, log.frontier.root.hex(), log.note))
    if said.first <= log.size:
        inside = max(size for size in said.roots if size <= log.size)
        for size in {said.first, inside} - {log.size}:
            known.append((size, logs.root_at(connection, log, size).hex(), log.note))
    for size, root, note in known:
        if said.roots.get(size, root) != root:
            raise Stopped(
                "H210",
                f"at {size} receipts this file's tree is {said.roots[size][:16]}, ours is {root[:16]}; both "
                f"signed checkpoints are kept",
                ours=note,
                theirs=said.growth.note,
            )


def anchors(connection: sa.Connection, origin: str) -> Iterable[tuple[int, str, bytes]]:
    """(size, root, signed checkpoint) of every statement's beginning and end."""
    for row in connection.execute(sa.select(db.stated).where(db.stated.c.origin == origin)):
        yield row.size, row.root, row.note
        if row.first_root is not None:
            yield row.first, row.first_root, row.note


def count(connection: sa.Connection, log: Log, said: Statement) -> None:
    """Fill `growth.rollup` with what is newly counted; H213 for registers that fall, H201 without a route."""
    known = readings.load(connection, log.origin, log.size)
    both = Beyond((*known.marks, *said.marks), (*known.limits, *said.limits))
    _check_rising(log, both.marks)
    routes = rollups.routes(connection, log.origin, (log.state.routes or {}) | said.routes)
    for mark in said.marks:
        if unknown := {route for route, _, _ in mark.registers.totals} - routes.keys():
            raise Stopped("H201", f"the record that says what route {min(unknown)} is has not arrived")
    before, after = known.rollup(log), both.rollup(log)
    said.growth.rollup = {
        cell: [max(0, a - b) for a, b in zip(amounts, before.get(cell, [0] * len(amounts)), strict=True)]
        for cell, amounts in after.items()
        if before.get(cell) != amounts
    }
    changed = (cell for cell in before.keys() | after.keys() if before.get(cell) != after.get(cell))
    said.growth.moved = frozenset(quarter for _, quarter, _ in changed)


def _check_rising(log: Log, marks: Iterable[Mark]) -> None:
    """Registers never fall from one position to a later one."""
    known, at = log.state.registers or Registers(), log.size
    for mark in sorted((m for m in marks if m.position > log.size), key=lambda m: m.position):
        try:
            grown = mark.registers.minus(known)
        except SealpackError as error:
            raise Stopped("H213", f"between receipts {at} and {mark.position}: {error.message}") from None
        if mark.position == at and grown.totals:
            raise Stopped("H213", f"at receipt {at} two different registers are stated")
        known, at = mark.registers, mark.position


def check_receipts(connection: sa.Connection, log: Log, growth: Growth, data: bytes) -> None:
    """Receipts that arrive after statements about them must be what those said; H210, H213."""
    within = range(log.size + 1, growth.frontier.size + 1)
    roots = [anchor for anchor in anchors(connection, log.origin) if anchor[0] in within]
    marks = {
        m.position: m for m in readings.load(connection, log.origin, log.size).marks if m.position in within
    }
    if not roots and not marks:
        return
    sums = (log.state.registers or Registers()).copy()
    for block in UsageReader(data, follow=False):
        for size, root, note in roots:
            if block.before.size <= size <= block.checkpoint.size:
                leaves = block.leaves[: size - block.before.size]
                if block.before.extend(map(leaf_hash, leaves)).root.hex() != root:
                    raise Stopped(
                        "H210", f"at {size} receipts this file's tree is not the one that was stated before",
                        ours=note, theirs=block.note,
                    )  # fmt: skip
        for offset, record in enumerate(block.records, block.before.size):
            if offset >= log.size:
                _check_sums(marks.get(offset), sums)
                sums.add(record)
        _check_sums(marks.get(block.after.size), sums)


def _check_sums(mark: Mark | None, sums: Registers) -> None:
    if mark is not None and mark.registers != sums:
        raise Stopped("H213", f"the registers stated at receipt {mark.position} are not the sums before it")


# --- storing --------------------------------------------------------------------------------------------


def store(connection: sa.Connection, sha256: str, log: Log, said: Statement) -> None:
    """Keep a statement and count what it adds."""
    if said.size <= log.size:
        return
    newer = {"last_ms": max(log.last_ms, said.growth.last_ms)}
    statement = db.put(connection, db.logs).values({**log.row(), **newer})
    connection.execute(statement.on_conflict_do_update(index_elements=["origin"], set_=newer))
    before = readings.load(connection, log.origin, log.size).rollup(log)
    values = {
        "sha256": sha256, "origin": log.origin, "kind": said.kind, "first": said.first, "size": said.size,
        "first_root": said.first_root, "root": said.root, "note": said.growth.note,
        "routes": json.dumps(said.routes, sort_keys=True),
    }  # fmt: skip
    connection.execute(sa.insert(db.stated).values(values))
    for table, rows in ((db.readings, said.marks), (db.reading_bounds, said.limits)):
        if rows:
            connection.execute(sa.insert(table), [{"sha256": sha256, **one.row()} for one in rows])
    if said.reached and said.kind != READING:
        _reach(connection, log, said)
    note_records(connection, log.origin, said.growth)
    _rebuild(connection, log, before)


def _reach(connection: sa.Connection, log: Log, said: Statement) -> None:
    far, end = readings.reach(connection, log), said.growth.checker.end()
    end.routes = end.routes if end.routes is not None else far.state.routes
    moved = replace(
        log, frontier=said.growth.frontier, state=end, note=said.growth.note, last_ms=said.growth.last_ms
    )
    row = {name: value for name, value in moved.row().items() if name in db.reaches.c}
    statement = db.put(connection, db.reaches).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["origin"], set_=row))


def note_records(connection: sa.Connection, origin: str, growth: Growth) -> None:
    """Keep what a log's records say of its beginning and its keys; once, whichever file brings them first."""
    for genesis in growth.records(records.GENESIS):
        if (begun := Succession.of(genesis)) is not None:
            row = begun.row(origin)
            connection.execute(db.put(connection, db.successions).values(row).on_conflict_do_nothing())
    for record in growth.records(records.ROTATED):
        row = {"origin": origin, "position": record.position, "device_key": record.body["device"]}
        connection.execute(db.put(connection, db.rotations).values(row).on_conflict_do_nothing())


def _rebuild(connection: sa.Connection, log: Log, before: Rollup) -> None:
    """The roll-up anew: what the receipts give, and what statements say beyond them."""
    after = readings.load(connection, log.origin, log.size).rollup(log)
    exact = rollups.without(rollups.stored(connection, log.origin), before)
    routes = rollups.routes(connection, log.origin, log.state.routes or {})
    rollups.store(connection, log.origin, log.license_id, routes, {}, rollups.joined(exact, after))


def grown(connection: sa.Connection, log: Log, moved: Log, growth: Growth) -> Rollup | None:
    """The whole roll-up of a log that grew by receipts, where statements speak of it; else None."""
    before = readings.load(connection, log.origin, log.size)
    if not before.marks:
        return None
    exact = growth.held
    if exact is None:
        exact = rollups.without(rollups.stored(connection, log.origin), before.rollup(log))
    after = readings.load(connection, log.origin, moved.size).rollup(moved)
    return rollups.joined(rollups.joined(exact, growth.rollup), after)


def reread(connection: sa.Connection, row: Any, data: bytes) -> tuple[list[Mark], list[Limit]]:
    """Marks and limits as the stored file of a row of `stated` gives them."""
    reader = open_reader(data, follow=False)
    nowhere = Log(row.origin, "", "", 0)
    said = _read(reader, nowhere, nowhere, decisions.used_ms(connection, row.sha256))
    return said.marks, said.limits


def is_due(connection: sa.Connection, sha256: str) -> bool:
    """Whether an accepted file that stood behind a gap can now be taken as receipts."""
    return connection.execute(sa.select(due(sa.literal(sha256)))).scalar_one()


def due(sha256: sa.ColumnElement[str]) -> sa.Exists:
    """:func:`is_due` in a query."""
    said = db.stated
    return sa.exists().where(
        said.c.sha256 == sha256, said.c.kind == RECEIPTS, db.logs.c.origin == said.c.origin,
        said.c.first <= db.logs.c.size, said.c.size > db.logs.c.size,
    )  # fmt: skip
