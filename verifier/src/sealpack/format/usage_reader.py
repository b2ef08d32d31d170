"""Reading a usage file: every bound enforced, every block proved, whatever else is wrong collected.

Source: specs/usage-export.md, "Reading". Iterate a :class:`UsageReader` for the blocks (settlement, a
block in memory at a time), or call :func:`verify_usage` for the verdict (`sealpack receipts verify`).
What cannot be read at all raises; what is wrong behind a usable prefix becomes a :class:`Finding`.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PublicKey
from sealpack.format.limits import LIMITS
from sealpack.format.logcheck import MAX_FINDINGS, Finding, LogChecker, LogState
from sealpack.format.merkle import Frontier, leaf_hashes
from sealpack.format.note import Checkpoint, open_checkpoint
from sealpack.format.records import Record, Registers
from sealpack.format.runs import Part, parse_leaves, records_of
from sealpack.format.usage import (
    BLOCK_LEAVES,
    CHECKPOINT_PREFIX,
    SCHEMA,
    TALLIES_SCHEMA,
    TRAILER_PREFIX,
    UsageHeader,
    parse_checkpoint_line,
    parse_trailer_line,
)

_GZIP_MAGIC = b"\x1f\x8b"
_READ_BYTES = 1 << 14
_INFLATE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class VerifiedBlock:
    """Receipts under a valid checkpoint.

    `before` is the tree in front of the first leaf, so a reader that knows some of the leaves already
    can compare trees at any size inside the block; `after` the one behind the last leaf.
    """

    before: Frontier
    after: Frontier
    leaves: tuple[bytes, ...]
    parts: tuple[Part, ...]  # the records, runs of plain ones together
    checkpoint: Checkpoint
    note: bytes

    @property
    def records(self) -> tuple[Record, ...]:
        """Every record, read anew where it is part of a run."""
        return records_of(self.parts)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The verdict on one usage file.

    `size` and `root` (hex) are the newest valid checkpoint, absent when not one block is valid.
    `growth` sums the accepted receipts; `state` is where the log stands after them. `torn` says that the
    file ends early; `complete` that it held all it announced. `findings` is empty when all is well.
    """

    header: UsageHeader | None
    accepted: int
    size: int | None
    root: str | None
    growth: Registers
    state: LogState | None
    torn: bool
    complete: bool
    findings: tuple[Finding, ...]
    tallies: bool = False  # a tally file: single calls are not in it

    @property
    def ok(self) -> bool:
        """True when the file is whole and nothing is wrong with it."""
        return self.complete and not self.findings

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema sealpack/usage-report/v1."""
        members: dict[str, Any] = {
            "schema": "sealpack/usage-report/v1",
            "ok": self.ok,
            "accepted": self.accepted,
            "torn": self.torn,
            "complete": self.complete,
            "growth": self.growth.to_tally(),
            "findings": [finding.to_dict() for finding in self.findings],
        }
        if self.header is not None:
            members |= {"origin": self.header.origin, "from": self.header.start, "to": self.header.end}
        if self.size is not None:
            members |= {"size": self.size, "root": self.root}
        if self.tallies:
            members["tallies"] = True
        return members


def read_header(data: bytes) -> UsageHeader:
    """Return the header, a hint by which to look up the device; nothing of it is proved yet.

    Raises USAGE_LIMIT, USAGE_TORN or USAGE_HEADER.
    """
    _check_size(data)
    return UsageHeader.from_line(_first_line(iter(_Lines(data))))


def _check_size(data: bytes) -> None:
    if len(data) > LIMITS.usage_file_bytes:
        raise SealpackError("USAGE_LIMIT", f"usage file is {len(data)} bytes")


def _first_line(lines: Iterator[bytes]) -> bytes:
    first = next(lines, None)
    if first is None:
        raise SealpackError("USAGE_TORN", "usage file ends before its header does")
    return first


def verify_usage(
    data: bytes,
    device_key: PublicKey | None = None,
    *,
    state: LogState | None = None,
    form: type[UsageReader] | None = None,
) -> UsageReport:
    """Check a usage file from its first byte to its last; never raises for what the file holds.

    With `device_key` the file must be that device's; without, the one it names (which then only proves
    that the file is of one piece). `state` as for :class:`UsageReader`, which is
    the reader where no other `form` is given.
    """
    try:
        reader = (form or UsageReader)(data, device_key, state=state)
    except SealpackError as error:
        finding = Finding(error.code, error.message)
        torn = error.code == "USAGE_TORN"
        return UsageReport(None, 0, None, None, Registers(), None, torn, False, (finding,))
    for _ in reader:
        pass
    return reader.report()


class UsageReader:
    """One pass over the blocks of a usage file.

    `state` is what the reader knows of the log where the file begins; it is used when its position is
    the header's `from`, and is left unchanged. Without it the tree starts from the header's frontier,
    a hint that the first checkpoint proves, and registers are unknown up to the first tally. With `follow`
    false the blocks are proved but not held against the rules of a log: for who does that itself.

    Raises USAGE_LIMIT, USAGE_TORN or USAGE_HEADER when there is no usable header, and USAGE_KEY when the
    file is not of `device_key`.
    """

    schema = SCHEMA

    def __init__(
        self,
        data: bytes,
        device_key: PublicKey | None = None,
        *,
        state: LogState | None = None,
        follow: bool = True,
    ) -> None:
        _check_size(data)
        self._source = _Lines(data)
        self._lines = iter(self._source)
        first = _first_line(self._lines)
        self.header = UsageHeader.from_line(first)
        if self.header.schema != self.schema:
            raise SealpackError("USAGE_HEADER", f"usage file is of the form {self.header.schema}")
        if device_key is not None and device_key.der != self.header.device_key.der:
            raise SealpackError("USAGE_KEY", f"usage file is of device key {self._key_name()}")
        self._digest = hashlib.sha256(first + b"\n")
        self._key = self.header.device_key
        self._checker = LogChecker(self._begin(state), hidden=self.schema == TALLIES_SCHEMA)
        self._follows = follow
        self._findings: list[Finding] = []
        self.frontier = self.header.frontier
        self.torn = False
        self.complete = False
        self.last_checkpoint: Checkpoint | None = None

    def _key_name(self) -> str:
        return self.header.device_key.keyid[:16]

    def _begin(self, state: LogState | None) -> LogState:
        if state is not None and state.position == self.header.start:
            return state.copy()
        return LogState.fresh() if self.header.start == 0 else LogState(self.header.start)

    def __iter__(self) -> Iterator[VerifiedBlock]:
        """Yield every valid block in order; afterwards the attributes and :meth:`report` are final."""
        leaves: list[bytes] = []
        try:
            for line in self._lines:
                if line.startswith(TRAILER_PREFIX):
                    self._finish(line, leaves)
                    return
                if not line.startswith(CHECKPOINT_PREFIX):
                    leaves.append(line)
                    if len(leaves) > BLOCK_LEAVES:
                        raise SealpackError("USAGE_LIMIT", f"more than {BLOCK_LEAVES} receipts in a block")
                    continue
                self._digest.update(b"\n".join((*leaves, line, b"")))
                yield self._prove(leaves, line)
                leaves = []
            self.torn = True
            self._found("USAGE_TORN", self._source.problem or "usage file ends before its trailer")
        except SealpackError as error:
            self._found(error.code, error.message, error.facts.get("position"))

    def _prove(self, leaves: list[bytes], line: bytes) -> VerifiedBlock:
        """Check the leaves against the checkpoint line that closes them; move past the block."""
        before = self.frontier
        note = parse_checkpoint_line(line)
        checkpoint = open_checkpoint(note, self._key)
        after = before.extend(leaf_hashes(leaves))
        self._compare(checkpoint, after, empty=not leaves)
        parts = parse_leaves(leaves, before.size)
        self._rotate(note, parts)
        self._check_genesis(parts[0])
        if self._follows:
            for part in parts:
                self._checker.follow_part(part)
        self.frontier, self.last_checkpoint = after, checkpoint
        return VerifiedBlock(before, after, tuple(leaves), parts, checkpoint, note)

    def _compare(self, checkpoint: Checkpoint, tree: Frontier, *, empty: bool) -> None:
        if empty:
            raise SealpackError("RECEIPT_TREE", f"checkpoint {checkpoint.size} closes an empty block")
        if checkpoint.origin != self.header.origin:
            raise SealpackError("RECEIPT_TREE", f"checkpoint is of log {checkpoint.origin}")
        if checkpoint.size != tree.size or checkpoint.root != tree.root:
            raise SealpackError(
                "RECEIPT_TREE", f"receipts up to {tree.size} do not give checkpoint {checkpoint.size}"
            )

    def _rotate(self, note: bytes, parts: tuple[Part, ...]) -> None:
        """Require the new key's signature too where a block hands the log over to it."""
        for part in parts:
            if isinstance(part, Record) and part.kind == records.ROTATED:
                self._key = PublicKey.from_pem(part.body["device"])
                open_checkpoint(note, self._key)

    def _check_genesis(self, record: Part) -> None:
        if not isinstance(record, Record) or record.kind != records.GENESIS:
            return
        if record.body["origin"] != self.header.origin:
            self._found("USAGE_HEADER", "header and genesis name different logs", 0)
        if record.body["device"] != self.header.device_key.pem:
            self._found("USAGE_KEY", "header and genesis name different device keys", 0)

    def _finish(self, line: bytes, leaves: list[bytes]) -> None:
        if leaves:
            raise SealpackError("RECEIPT_TREE", f"{len(leaves)} receipts stand under no checkpoint")
        accepted = self.frontier.size - self.header.start
        if parse_trailer_line(line) != (accepted, self._digest.hexdigest()):
            raise SealpackError("USAGE_MISMATCH", "trailer does not fit the lines before it")
        if accepted != self.header.count:
            raise SealpackError(
                "USAGE_MISMATCH", f"header announces {self.header.count} receipts, file holds {accepted}"
            )
        if next(self._lines, None) is not None or self._source.rest():
            raise SealpackError("USAGE_TRAILING", "usage file goes on after its trailer")
        if self._source.problem:
            self.torn = True
            raise SealpackError("USAGE_TORN", self._source.problem)
        self.complete = True

    def _found(self, code: str, message: str, position: int | None = None) -> None:
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Finding(code, message, position))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, the log's own contradictions first."""
        return (*self._checker.findings, *self._findings)

    @property
    def state(self) -> LogState:
        """Where the log stands after the blocks yielded so far."""
        return self._checker.end()

    def report(self) -> UsageReport:
        """Return the verdict; complete once the reader has been iterated to its end."""
        newest = self.last_checkpoint
        return UsageReport(
            header=self.header,
            accepted=self.frontier.size - self.header.start,
            size=None if newest is None else newest.size,
            root=None if newest is None else newest.root.hex(),
            growth=self._checker.growth,
            state=self.state,
            torn=self.torn,
            complete=self.complete,
            findings=self.findings,
            tallies=self.schema == TALLIES_SCHEMA,
        )


class _Lines:
    """The lines of a usage file, gzipped or already unpacked, without their newlines.

    Damage ends the iteration and is told in `problem`; exceeding a bound raises USAGE_LIMIT.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._after = 0  # bytes behind the end of the gzip member
        self.problem = ""
        self.partial = False  # the last line has no newline

    def __iter__(self) -> Iterator[bytes]:
        limit = LIMITS.usage_line_bytes
        tail = b""
        for chunk in self._chunks():
            lines = (tail + chunk).split(b"\n")
            tail = lines.pop()
            if len(tail) > limit or max(map(len, lines), default=0) > limit:
                raise SealpackError("USAGE_LIMIT", f"usage file has a line over {limit} bytes")
            yield from lines
        self.partial = bool(tail)
        if tail and not self.problem:
            self.problem = "usage file ends inside a line"

    def rest(self) -> bool:
        """True when bytes follow the last whole line or the end of the compressed data."""
        return self._after > 0 or self.partial

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        source = self._inflate() if self._data.startswith(_GZIP_MAGIC) else self._slices()
        for chunk in source:
            total += len(chunk)
            if total > LIMITS.usage_plain_bytes:
                raise SealpackError("USAGE_LIMIT", "usage file is too large when unpacked")
            yield chunk

    def _slices(self) -> Iterator[bytes]:
        for at in range(0, len(self._data), _READ_BYTES):
            yield self._data[at : at + _READ_BYTES]

    def _inflate(self) -> Iterator[bytes]:
        inflater = zlib.decompressobj(wbits=31)
        used = 0
        for piece in self._slices():
            used += len(piece)
            while piece and not inflater.eof:
                before = inflater.copy()
                try:
                    plain = inflater.decompress(piece, _INFLATE_BYTES)
                except zlib.error:
                    self.problem = "compressed data is damaged"
                    yield from _up_to_damage(before, piece)
                    return
                yield plain
                piece = inflater.unconsumed_tail
            if inflater.eof:
                self._after = len(self._data) - used + len(inflater.unused_data)
                return
        yield inflater.flush()  # at most one deflate match is still inside
        self.problem = "compressed data ends early"


def _up_to_damage(inflater: Any, piece: bytes) -> Iterator[bytes]:
    """Yield what `piece` holds in front of the damage: a failing call gives nothing of its own."""
    try:
        for at in range(len(piece)):  # pragma: no branch - the damage is in `piece`
            yield inflater.decompress(piece[at : at + 1])
    except zlib.error:
        return
