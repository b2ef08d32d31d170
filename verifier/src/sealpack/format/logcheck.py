"""What must hold from one record of a log to the next.

Source: specs/receipts.md, "Rules of a log". The tree proves that records were not changed; these rules
say whether the device wrote a history that can be true. What is wrong is collected, not raised: the
records are signed all the same, and a person decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.records import Record, Registers
from sealpack.format.runs import Part, Run

MAX_FINDINGS = 20  # of one file; more say nothing new


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: an error code, a sentence, and the record's index where it has one."""

    code: str
    message: str
    position: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        at = {} if self.position is None else {"position": self.position}
        return {"code": self.code, "message": self.message, **at}


@dataclass(slots=True)
class LogState:
    """Where a log stands after `position` records, as far as it is known.

    A reader that starts in the middle of a log knows no registers (None) until the first tally, no
    routes (None) until the first boot record, and no boot counter (None) until the first record.
    """

    position: int = 0
    boot: int | None = None
    uptime_ms: int = 0
    registers: Registers | None = None
    routes: dict[str, Any] | None = None
    closed: bool = False

    @classmethod
    def fresh(cls) -> LogState:
        """The state before a log's first record: everything is known to be empty."""
        return cls(registers=Registers(), routes={})

    def copy(self) -> LogState:
        """Return a state that changes on its own."""
        registers = None if self.registers is None else self.registers.copy()
        return LogState(self.position, self.boot, self.uptime_ms, registers, self.routes, self.closed)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; what is not known is left out."""
        members: dict[str, Any] = {
            "position": self.position,
            "uptime_ms": self.uptime_ms,
            "closed": self.closed,
        }
        if self.boot is not None:
            members["boot"] = self.boot
        if self.registers is not None:
            members["registers"] = self.registers.to_tally()
        if self.routes is not None:
            members["routes"] = self.routes
        return members

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> LogState:
        """Read :meth:`to_dict`'s form, which only its own keeper writes."""
        tally = value.get("registers")
        return cls(
            value["position"],
            value.get("boot"),
            value["uptime_ms"],
            None if tally is None else Registers.from_tally(tally),
            value.get("routes"),
            value["closed"],
        )


@dataclass(slots=True)
class LogChecker:
    """Follows a log from `state`, record by record; `findings` grows.

    With `hidden`, usage between the records is not shown (specs/usage-export.md, "Tally files"): :meth:`skip`
    tells how much stands there, and a tally may be above what is known, never below.
    """

    state: LogState
    findings: list[Finding] = field(default_factory=list)
    hidden: bool = False
    _told: Registers = field(default_factory=Registers)  # the usage followed before the last tally
    # Usage since the registers were last known or, while they are not known, since the start.
    _since: Registers = field(default_factory=Registers)

    @property
    def growth(self) -> Registers:
        """The sums of the usage and lost records followed, whatever the tallies say."""
        grown = self._told.copy()
        grown.merge(self._since)
        return grown

    def skip(self, position: int) -> None:
        """Move to a position, past records that are not shown."""
        self.state.position = position

    def follow_part(self, part: Part) -> None:
        """Check a run of records, or one record, as :meth:`follow` does."""
        if isinstance(part, Record):
            self.follow(part)
        elif self._goes_on(part):
            for (route, _, status), amounts in part.amounts.items():
                self._since.charge(route, status, dict(zip(records.METER_ORDER, amounts, strict=True)))
            self.state.position += len(part.leaves)
            self.state.uptime_ms = part.end_uptime_ms
        else:
            for record in part.records():
                self.follow(record)

    def _goes_on(self, run: Run) -> bool:
        """Whether nothing can be wrong with a run: it follows the state as its records follow each other."""
        state = self.state
        return (
            not state.closed
            and 0 < state.position == run.position
            and state.boot == run.boot
            and state.uptime_ms <= run.uptime_ms
            and (state.routes is None or all(route in state.routes for route, _, _ in run.amounts))
        )

    def follow(self, record: Record) -> None:
        """Check one record against the state and move the state past it."""
        state = self.state
        kind = record.kind
        if record.position != state.position:
            self._found("RECEIPT_ORDER", f"record numbered {record.position} stands at {state.position}")
        if state.closed:
            self._found("RECEIPT_ORDER", "a record follows the end of the log")
        if (kind == records.GENESIS) != (state.position == 0):
            self._found("RECEIPT_ORDER", "a log has one genesis record, its first")
        self._follow_clock(record)
        if kind == records.USAGE:
            self._count(record, record.body["status"])
        elif kind == records.LOST:
            self._count(record, records.LOST_STATUS)
        elif kind == records.TALLY:
            self._follow_tally(record)
        elif kind == records.BOOT:
            self._follow_routes(record.body["routes"])
        elif kind == records.CLOSED:
            state.closed = True
        state.position += 1

    def _follow_clock(self, record: Record) -> None:
        state = self.state
        if record.boot == state.boot:
            if record.uptime_ms < state.uptime_ms:
                self._found("RECEIPT_ORDER", f"uptime falls within boot {record.boot}")
        elif state.boot is not None:
            if record.boot < state.boot:
                self._found("RECEIPT_ORDER", f"boot {record.boot} follows boot {state.boot}")
            elif record.kind != records.BOOT:
                self._found("RECEIPT_ORDER", f"boot {record.boot} begins without a boot record")
        state.boot, state.uptime_ms = record.boot, record.uptime_ms

    def _count(self, record: Record, status: str) -> None:
        route, meters = record.body["route"], record.body["meters"]
        self._since.charge(route, status, meters)
        if self.state.routes is not None and route not in self.state.routes:
            self._found("RECEIPT_ROUTE", f"route {route} was never declared")

    def _follow_tally(self, record: Record) -> None:
        """Compare with what was counted, then take the tally: each gap is reported once."""
        tally = Registers.from_tally(record.body["registers"])
        if self.end().registers != tally:
            self._check_tally(tally)
        self.state.registers = tally
        self._told.merge(self._since)
        self._since = Registers()

    def _check_tally(self, tally: Registers) -> None:
        """Tell a tally that is not what was counted, unless nothing is known of what there was before."""
        try:
            counted = tally.minus(self._since)
        except SealpackError as error:
            self._found("RECEIPT_TALLY", f"tally is below the receipts before it: {error.message}")
        else:
            known = self.state.registers
            if self.hidden:
                self._follow_hidden(tally, known)
            elif known is not None and counted != known:
                self._found("RECEIPT_TALLY", "tally differs from the receipts before it")

    def _follow_hidden(self, tally: Registers, known: Registers | None) -> None:
        """Take a tally for what was used since the one before it."""
        for route in sorted({route for route, _, _ in tally.totals} - (self.state.routes or {}).keys()):
            if self.state.routes is not None:
                self._found("RECEIPT_ROUTE", f"route {route} was never declared")
        if known is not None:
            try:
                self._since.merge(tally.minus(known))
            except SealpackError as error:
                self._found("RECEIPT_TALLY", f"tally is below the one before it: {error.message}")

    def _follow_routes(self, routes: dict[str, Any]) -> None:
        for route, entry in (self.state.routes or {}).items():
            if routes.get(route) != entry:
                self._found("RECEIPT_ROUTE", f"route {route} was changed or dropped")
        self.state.routes = routes

    def end(self) -> LogState:
        """Return the state after the last record followed, with registers where they are known."""
        state = self.state.copy()
        if state.registers is not None:
            state.registers.merge(self._since)
        return state

    def _found(self, code: str, message: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, message, self.state.position))
