"""Receipt records: the leaves of a device's log.

Source: specs/receipts.md, "Records". A record is one line of canonical JSON of integers, strings and
objects, hashed as stored and never written again. Its members are the head that every kind has and the
members of its kind:

    v  format version, 1                  t  when it ended, UTC ms by the accepted clock
    k  kind, one letter                   w  wall clock minus accepted clock, ms
    n  index in the log, from 0           u  ms since the machine started (never runs backwards)
    b  boot counter

Never in a record: a prompt, an answer, a user, an address, or a hash of content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from sealpack.format.activation import ORIGIN
from sealpack.format.canonical import MAX_INT
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.format.values import IDENTIFIER, METERS, STATUSES

VERSION = 1

GENESIS = "g"  # first record of a log: whose it is
BOOT = "b"  # a runtime started, or its route table grew
USAGE = "u"  # one call
TALLY = "t"  # cumulative registers so far
LOST = "l"  # reserved usage whose record an unclean stop destroyed
DENIED = "d"  # calls refused with one code in one minute, uncounted
CLOCK = "c"  # the clock did something that a person may want to see
ACKNOWLEDGED = "a"  # an acknowledgement was imported
EXPORTED = "e"  # a usage file was written
ROTATED = "r"  # the next checkpoint is signed by the old and the new key, later ones by the new
CLOSED = "x"  # last record of a log

LOST_STATUS = "lost"
TALLY_EVERY = 256  # a writer puts a tally at least this often
MAX_ROUTES = 64  # of one log

METER_ORDER = tuple(sorted(METERS))  # as canonical JSON has them
Meters = Mapping[str, int]
Key = tuple[str, str, str]  # of a register: route, status, meter


class Record(NamedTuple):
    """One receipt. `body` holds the members of its kind by the names in specs/receipts.md.

    A named tuple, not a dataclass: one is made for each of millions of receipts.
    """

    kind: str
    position: int
    boot: int
    time_ms: int
    skew_ms: int
    uptime_ms: int
    body: dict[str, Any]


def make(
    kind: str, *, position: int, boot: int, time_ms: int, skew_ms: int, uptime_ms: int, **members: Any
) -> Record:
    """Return a record of `kind`; members that are None and meters that are 0 are left out.

    >>> r = make("l", position=9, boot=2, time_ms=1000, skew_ms=0, uptime_ms=5, route="r1", meters={"ms": 3})
    >>> encode(r)
    b'{"b":2,"k":"l","meters":{"ms":3},"n":9,"route":"r1","t":1000,"u":5,"v":1,"w":0}'
    """
    body = {name: value for name, value in members.items() if value is not None}
    if "meters" in body:
        body["meters"] = {meter: count for meter, count in body["meters"].items() if count != 0}
    return Record(kind, position, boot, time_ms, skew_ms, uptime_ms, body)


def encode(record: Record) -> bytes:
    """Return the record's one canonical line, without the newline.

    Raises RECEIPT_INVALID for a record that :func:`parse_record` would refuse.
    """
    value = {
        **record.body,
        "v": VERSION,
        "k": record.kind,
        "n": record.position,
        "b": record.boot,
        "t": record.time_ms,
        "w": record.skew_ms,
        "u": record.uptime_ms,
    }
    _check(value)
    return _canonical(value)


def parse_record(line: bytes) -> Record:
    """Read one line (without its newline). Raises RECEIPT_INVALID unless it is a canonical record."""
    if (plain := _plain_usage(line)) is not None:
        return Record(*plain)
    if len(line) > LIMITS.usage_line_bytes:
        raise SealpackError("RECEIPT_INVALID", f"record is {len(line)} bytes long")
    if (plain := _plain_tally(line)) is not None:
        return Record(*plain)
    try:
        value = _decode(line.decode("utf-8"))
        canonical = _canonical(value)
    except (ValueError, RecursionError) as error:
        raise SealpackError("RECEIPT_INVALID", f"record is not JSON of integers: {error}") from None
    if canonical != line:
        raise SealpackError("RECEIPT_INVALID", "record is not canonical JSON (RFC 8785)")
    _check(value)
    del value["v"]
    take = value.pop
    return Record(take("k"), take("n"), take("b"), take("t"), take("w"), take("u"), value)


_COUNT, _POSITIVE, _SIGNED = "0|[1-9][0-9]{0,14}", "[1-9][0-9]{0,14}", "0|-?[1-9][0-9]{0,14}"


def _usage_pattern() -> re.Pattern[bytes]:
    """What nearly every line of a log looks like: a canonical usage record without a cost centre.

    A line that matches is one that the long way accepts, with the same values (tested): members and meters
    in order, and of numbers only those of at most 15 digits, which are all below 2^53.
    """
    count, positive, signed = _COUNT, _POSITIVE, _SIGNED
    # After a meter: the next one's name or the end.
    meters = "".join(rf'(?:"{meter}":({positive})(?:,(?=")|(?=\}})))?' for meter in METER_ORDER)
    return re.compile(
        rf'\{{"b":({positive}),"k":"u","meters":\{{{meters}\}},"n":({count}),"route":"({ROUTE})",'
        rf'"status":"({"|".join(sorted(STATUSES))})","t":({count}),"u":({count}),"v":1,"w":({signed}),'
        rf'"wait_ms":({count})\}}'.encode()
    )


def _plain_usage(line: bytes) -> tuple[str, int, int, int, int, int, dict[str, Any]] | None:
    """The members of a :class:`Record` for a line of :func:`_usage_pattern`; None for every other one."""
    found = match_usage(line)
    if found is None:
        return None
    boot, *counts, position, route, status, time_ms, uptime_ms, skew_ms, wait_ms = found.groups()
    meters = {
        meter: int(count) for meter, count in zip(METER_ORDER, counts, strict=True) if count is not None
    }
    body = {"meters": meters, "route": route.decode(), "status": status.decode(), "wait_ms": int(wait_ms)}
    return USAGE, int(position), int(boot), int(time_ms), int(skew_ms), int(uptime_ms), body


def _tally_pattern() -> re.Pattern[bytes]:
    """A tally in canonical form but for its registers, of which nothing is said yet."""
    return re.compile(
        rf'\{{"b":({_POSITIVE}),"k":"t","n":({_COUNT}),"registers":(\{{.*\}}),"t":({_COUNT}),'
        rf'"u":({_COUNT}),"v":1,"w":({_SIGNED})\}}'.encode()
    )


def _plain_tally(line: bytes) -> tuple[str, int, int, int, int, int, dict[str, Any]] | None:
    """The members of a :class:`Record` for a tally like those before it; None for every other line.

    The tallies of a log differ in their numbers only. Whether the registers are canonical and allowed does
    not depend on an amount of at most 15 digits, so that is asked once for all that look the same.
    """
    found = _match_tally(line)
    if found is None:
        return None
    boot, position, registers, time_ms, uptime_ms, skew_ms = found.groups()
    pieces = _AMOUNT.split(registers)  # every other one is an amount
    amounts = pieces[1::2]
    keys = _register_keys(b"1".join(pieces[::2]))
    if keys is None or len(keys) != len(amounts):
        return None
    tally: dict[str, dict[str, dict[str, int]]] = {}
    for (route, status, meter), amount in zip(keys, amounts, strict=True):
        tally.setdefault(route, {}).setdefault(status, {})[meter] = int(amount)
    body = {"registers": tally}
    return TALLY, int(position), int(boot), int(time_ms), int(skew_ms), int(uptime_ms), body


@lru_cache(maxsize=64)
def _register_keys(text: bytes) -> tuple[Key, ...] | None:
    """What the `registers` of a tally tell of, in their order; None when they are not allowed there."""
    try:
        value = _decode(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if _canonical(value) != text or not _registers(value):
        return None
    return tuple((route, status, meter) for route, status, meter, _ in _flatten(value))


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not an integer")


_decode = json.JSONDecoder(parse_float=_refuse_number, parse_constant=_refuse_number).decode
# Equal to canonical.dumps for every value a record can hold (tested) and five times faster: member
# names are ASCII, numbers are integers, and both escape the same characters.
_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)


def _canonical(value: Any) -> bytes:
    return _encoder.encode(value).encode("utf-8")


# --- what a record may hold -------------------------------------------------------------------------

Check = Callable[[Any], bool]


def _integer(low: int = 0, high: int = MAX_INT) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _text(pattern: str) -> Check:
    matches = re.compile(pattern).fullmatch
    return lambda value: type(value) is str and matches(value) is not None


def _object(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    known = {**required, **(optional or {})}

    def check(value: Any) -> bool:
        return (
            type(value) is dict
            and required.keys() <= value.keys()
            and all(name in known and known[name](member) for name, member in value.items())
        )

    return check


def _map(key: Check, member: Check, *, low: int = 0, high: int = 4096) -> Check:
    """An object used as a table: between `low` and `high` members, any names that fit `key`."""
    return lambda value: (
        type(value) is dict
        and low <= len(value) <= high
        and all(key(name) and member(entry) for name, entry in value.items())
    )


COST_CENTRE = r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,63}"
ROUTE = r"[a-z0-9][a-z0-9._-]{0,31}"

_count = _integer()
_signed = _integer(low=-MAX_INT)
_positive = _integer(low=1)
_digest = _text(r"[0-9a-f]{64}")
_identifier = _text(IDENTIFIER)
_origin = _text(ORIGIN)
_pem = _text(r"-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]{1,400}-----END PUBLIC KEY-----\n")
_token = _text(r"[a-z][a-z0-9-]{0,31}")
_version = _text(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
_route = _text(ROUTE)
_meters = _map(METERS.__contains__, _positive)
_by_status = _map((*STATUSES, LOST_STATUS).__contains__, _map(METERS.__contains__, _positive, low=1), low=1)
_registers = _map(_route, _by_status, high=MAX_ROUTES)
_route_entry = _object(
    {"license_id": _identifier, "seq": _count, "bundle_digest": _digest, "model_digest": _digest},
    {"tokenizer_digest": _digest, "terms": _digest, "plan": _object({"id": _identifier, "version": _count})},
)

_HEAD: dict[str, Check] = {
    "v": lambda value: type(value) is int and value == VERSION,
    "k": lambda value: type(value) is str,
    "n": _count,
    "b": _positive,
    "t": _count,
    "w": _signed,
    "u": _count,
}

# kind -> (required members, optional members)
_KINDS: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    GENESIS: (
        {"origin": _origin, "device": _pem, "license": _digest, "root": _digest, "epoch": _count},
        {
            "activation": _digest,
            "previous": _object({"origin": _origin, "size": _count, "root": _digest}),
            "carried": _map(_digest, _map(METERS.__contains__, _positive, low=1), low=1),
        },
    ),
    BOOT: (
        {
            "nonce": _text(r"[0-9a-f]{32}"),
            "runtime": _object({"version": _version, "digest": _digest}),
            "routes": _map(_route, _route_entry, high=MAX_ROUTES),
        },
        {},
    ),
    USAGE: (
        {"route": _route, "status": STATUSES.__contains__, "meters": _meters, "wait_ms": _count},
        {"cost_centre": _text(COST_CENTRE)},
    ),
    TALLY: ({"registers": _registers}, {}),
    LOST: ({"route": _route, "meters": _meters}, {}),
    DENIED: ({"code": _text(r"[A-Z][A-Z0-9_]{1,31}"), "minute": _count}, {}),
    CLOCK: ({"event": _token, "delta_ms": _signed}, {}),
    ACKNOWLEDGED: ({"digest": _digest, "ack_seq": _positive, "size": _count, "server_time": _count}, {}),
    EXPORTED: ({"file_seq": _positive, "from": _count, "to": _positive, "reason": _token}, {}),
    ROTATED: ({"device": _pem, "reason": _token}, {}),
    CLOSED: ({"reason": _token}, {}),
}
match_usage = _usage_pattern().fullmatch  # what is plain of a line, or None
_match_tally = _tally_pattern().fullmatch
_AMOUNT = re.compile(rf"(?<=:)({_POSITIVE})(?=[,}}])".encode())
_MEMBERS = {kind: _HEAD | required | optional for kind, (required, optional) in _KINDS.items()}
_REQUIRED = {kind: _HEAD.keys() | required.keys() for kind, (required, _) in _KINDS.items()}


def _check(value: Any) -> None:
    """Require the members of the record's kind, those and no others."""
    kind = value.get("k") if type(value) is dict else None
    if type(kind) is not str or kind not in _MEMBERS:
        raise SealpackError("RECEIPT_INVALID", f"record is of unknown kind {str(kind)[:20]!r}")
    members = _MEMBERS[kind]
    for name, member in value.items():
        if name not in members or not members[name](member):
            raise SealpackError(
                "RECEIPT_INVALID", f"record {kind}: member {name[:40]!r} is unknown or not allowed"
            )
    if not _REQUIRED[kind] <= value.keys():
        missing = sorted(_REQUIRED[kind] - value.keys())
        raise SealpackError("RECEIPT_INVALID", f"record {kind}: {', '.join(missing)} missing")


# --- registers --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Registers:
    """Running totals per (route, status, meter), as an electricity meter has: they only grow.

    Kept by the runtime for its tallies and by whoever checks them. A total of 0 is not stored, so two
    registers are equal when every total is.
    """

    totals: dict[Key, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Count one record; only usage and lost records change anything."""
        if record.kind == USAGE:
            self.charge(record.body["route"], record.body["status"], record.body["meters"])
        elif record.kind == LOST:
            self.charge(record.body["route"], LOST_STATUS, record.body["meters"])

    def charge(self, route: str, status: str, meters: Meters) -> None:
        """Count `meters` of one route and status."""
        totals = self.totals
        for meter, count in meters.items():
            if count:
                key = (route, status, meter)
                totals[key] = totals.get(key, 0) + count

    def merge(self, other: Registers) -> None:
        """Count everything that other registers did."""
        for key, count in other.totals.items():
            self.totals[key] = self.totals.get(key, 0) + count

    def total(self, meter: str, *, route: str | None = None) -> int:
        """Return what was counted of `meter` in every status, on one route or on all."""
        return sum(
            count
            for (on, _, name), count in self.totals.items()
            if name == meter and (route is None or on == route)
        )

    def copy(self) -> Registers:
        """Return registers that change on their own."""
        return Registers(dict(self.totals))

    def minus(self, earlier: Registers) -> Registers:
        """Return the growth since `earlier`. Raises RECEIPT_TALLY when a register fell."""
        grown = {
            key: self.totals.get(key, 0) - earlier.totals.get(key, 0)
            for key in self.totals.keys() | earlier.totals.keys()
        }
        for key, count in grown.items():
            if count < 0:
                raise SealpackError("RECEIPT_TALLY", f"register {'/'.join(key)} fell by {-count}")
        return Registers({key: count for key, count in grown.items() if count})

    def to_tally(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the `registers` member of a tally record: route -> status -> meter -> total."""
        tally: dict[str, dict[str, dict[str, int]]] = {}
        for route, status, meter in sorted(self.totals):
            by_status = tally.setdefault(route, {}).setdefault(status, {})
            by_status[meter] = self.totals[route, status, meter]
        return tally

    @classmethod
    def from_tally(cls, tally: Mapping[str, Mapping[str, Meters]]) -> Registers:
        """Read :meth:`to_tally`'s form (of a record that was parsed)."""
        return cls(
            {(route, status, meter): count for route, status, meter, count in _flatten(tally) if count}
        )


def _flatten(tally: Mapping[str, Mapping[str, Meters]]) -> Iterator[tuple[str, str, str, int]]:
    for route, by_status in tally.items():
        for status, meters in by_status.items():
            for meter, count in meters.items():
                yield route, status, meter, count
