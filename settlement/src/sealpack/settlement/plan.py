"""Price plans as frozen values, and the strict schema that makes them.

Source: specs/plan.md. :func:`load_plan` reads YAML bytes; :meth:`Plan.from_dict` reads data that is
already parsed (a registry record). Both raise PLAN_INVALID with the path of the first fault.
A plan is immutable under (id, version): `digest` is SHA-256 over its canonical JSON.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import money, periods, plan_yaml
from sealpack.settlement.currencies import EXPONENTS
from sealpack.settlement.money import Rounding
from sealpack.settlement.plan_reader import ID, Reader, refuse

FIELDS = ("calls", "tok_in", "tok_out", "ms", "items")
FIELD_WORDS = {
    "calls": "calls",
    "tok_in": "input tokens",
    "tok_out": "output tokens",
    "ms": "milliseconds",
    "items": "items",
}
STATUSES = ("ok", "err", "cancel", "aborted")
LOST = "lost"  # usage of lost records: counts for every meter, whatever its `where`
MODELS = ("per_unit", "graduated", "volume", "package")
PLATFORM = "platform"
MAX_ESTIMATE_MONTHS = 24
ZERO_RATED = frozenset({"Z", "E", "AE", "K", "G", "O"})
TAX_CATEGORIES = ("S", "Z", "E", "AE", "K", "G", "O", "L", "M")
_PARTY = re.compile(r"platform|[a-z][a-z0-9_]{0,31}:[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Meter:
    """Sum of one receipt field over the named statuses, divided by `per` into priced units."""

    id: str
    field: str
    per: int = 1
    statuses: tuple[str, ...] | None = None  # None: all of them

    @property
    def words(self) -> str:
        """The field in a reader's words."""
        return FIELD_WORDS[self.field]

    def counts(self, status: str) -> bool:
        return status == LOST or self.statuses is None or status in self.statuses


@dataclass(frozen=True, slots=True)
class Tier:
    """Units in (lo, up_to] cost `unit` each, plus `flat` once if the tier is used at all."""

    lo: Fraction
    up_to: Fraction | None
    unit: Fraction
    flat: Fraction


@dataclass(frozen=True, slots=True)
class Package:
    """`price` for every started `size` units beyond the first `free`."""

    size: Fraction
    price: Fraction
    free: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One charge: one line per period, rounded once. Amounts are major units."""

    id: str
    type: str  # one_time | recurring | usage
    name: str = ""
    amount: Fraction = Fraction(0)  # one_time, recurring
    when: str = "arrears"  # recurring: advance | arrears
    prorate: bool = False  # recurring: by local days
    meter: str = ""
    model: str = ""
    included: Fraction = Fraction(0)
    unit: Fraction = Fraction(0)  # per_unit
    tiers: tuple[Tier, ...] = ()
    package: Package | None = None
    min: Fraction | None = None
    max: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Minimum:
    """The charges in `scope` together bill at least `amount` per period."""

    id: str
    scope: tuple[str, ...]
    amount: Fraction
    prorate: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class CommittedSpend:
    """The charges in `scope` draw down `amount` over the license's term."""

    id: str
    scope: tuple[str, ...]
    amount: Fraction
    billing: str  # prepaid | postpaid
    overage_factor: Fraction
    unused: str  # prepaid: forfeit | rollover; postpaid: true_up
    name: str = ""


@dataclass(frozen=True, slots=True)
class Discount:
    """`bps` off the list price of every charge in `scope`; several multiply."""

    id: str
    scope: tuple[str, ...]
    bps: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tax:
    """A category of EN 16931 and its rate (1/5 = 20 percent); `reason` where an exemption has one."""

    category: str
    rate: Fraction
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TakeTier:
    up_to: Fraction | None
    bps: int


@dataclass(frozen=True, slots=True)
class Member:
    """One party of the pool with exactly one of `bps`, `take` (by calendar year) or `rest`."""

    party: str
    bps: int | None = None
    take: tuple[TakeTier, ...] = ()
    rest: bool = False


@dataclass(frozen=True, slots=True)
class Shares:
    scope: tuple[str, ...]
    pool: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole price plan. `document` is its canonical JSON; all amounts are exact major units."""

    id: str
    version: int
    currency: str
    tz: str
    grace_days: int
    late_window_months: int
    rounding: Rounding
    meters: dict[str, Meter]
    charges: tuple[Charge, ...]
    minimums: tuple[Minimum, ...] = ()
    committed: tuple[CommittedSpend, ...] = ()
    discounts: tuple[Discount, ...] = ()
    tax: Tax | None = None
    shares: Shares | None = None
    estimate: int | None = None  # months a silent device's usage is estimated from; None: it is not
    document: bytes = field(repr=False)

    @property
    def exponent(self) -> int:
        """Decimal places of the plan's currency."""
        return money.exponent(self.currency)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.document).hexdigest()

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """Validate parsed plan data; PLAN_INVALID names the path of the first fault."""
        top = Reader(data, "")
        head = top.sub("plan")
        basics = _head(head)
        head.done()
        meters = _meters(top.sub("meters")) if top.has("meters") else {}
        charges = top.many("charges", lambda r: _charge(r, meters))
        ids = _unique("charges", [charge.id for charge in charges])
        commitments = _optional(top, "commitments", lambda r: _commitment(r, ids))
        discounts = _optional(top, "discounts", lambda r: _discount(r, ids))
        _unique("commitments", [*ids, *(item.id for item in commitments)])
        _unique("discounts", [item.id for item in discounts])
        plan = cls(
            **basics,
            meters=meters,
            charges=charges,
            minimums=tuple(c for c in commitments if isinstance(c, Minimum)),
            committed=tuple(c for c in commitments if isinstance(c, CommittedSpend)),
            discounts=discounts,
            tax=_tax(top.sub("tax")) if top.has("tax") else None,
            shares=_shares(top.sub("shares"), ids) if top.has("shares") else None,
            estimate=_estimate(top.sub("estimate")) if top.has("estimate") else None,
            document=_canonical(data),
        )
        top.done()
        _check_committed(plan)
        return plan

    @classmethod
    def from_json(cls, document: bytes) -> Plan:
        """Read a plan back from its canonical JSON (`document`)."""
        return cls.from_dict(canonical.loads(document, what="plan"))


def load_plan(data: bytes, *, what: str = "plan") -> Plan:
    """Read a plan from YAML bytes; `what` names the file in errors. Raises PLAN_INVALID."""
    try:
        return Plan.from_dict(plan_yaml.load(data, what=what))
    except SealpackError as error:
        if "path" in error.facts:
            raise SealpackError("PLAN_INVALID", f"{what}: {error.message}", **error.facts) from None
        raise


def _canonical(data: Any) -> bytes:
    try:
        return canonical.dumps(data)
    except (ValueError, RecursionError) as error:
        refuse("plan", f"has no canonical form: {error}")


def _optional(top: Reader, key: str, read: Any) -> tuple[Any, ...]:
    return top.many(key, read, empty=True) if top.has(key) else ()


def _unique(path: str, ids: list[str]) -> tuple[str, ...]:
    for index, name in enumerate(ids):
        if name in ids[:index]:
            refuse(path, f"the id {name!r} is used twice")
    return tuple(ids)


def _head(head: Reader) -> dict[str, Any]:
    currency = head.text("currency", pattern=_CURRENCY)
    if currency not in EXPONENTS:
        head.refuse("currency", f"{currency!r} is not an ISO 4217 currency")
    tz = head.text("tz") if head.has("tz") else "UTC"
    if tz not in periods.zone_names():
        head.refuse("tz", f"{tz!r} is not a time zone of the pinned database")
    head.choice("period", ("month",), "month")
    head.choice("anchor", ("calendar",), "calendar")
    return {
        "id": head.text("id", pattern=ID),
        "version": head.integer("version", low=1, high=1_000_000_000),
        "currency": currency,
        "tz": tz,
        "grace_days": head.integer("grace_days", low=0, high=366, default=10),
        "late_window_months": head.integer("late_window_months", low=1, high=120, default=13),
        "rounding": Rounding(head.choice("rounding", tuple(Rounding), Rounding.HALF_UP)),
    }


def _estimate(reader: Reader) -> int:
    months = reader.integer("months", low=1, high=MAX_ESTIMATE_MONTHS)
    reader.done()
    return months


def _meters(reader: Reader) -> dict[str, Meter]:
    meters = {}
    for name in reader.keys():  # noqa: SIM118 -- a Reader is not a dict
        if not ID.fullmatch(name):
            reader.refuse(name, f"the name does not match {ID.pattern}")
        member = reader.sub(name)
        meters[name] = _meter(name, member)
        member.done()
    return meters


def _meter(name: str, reader: Reader) -> Meter:
    source = reader.choice("field", FIELDS)
    reader.choice("agg", ("sum",), "sum")
    per = reader.integer("per", low=1, high=10**15, default=1)
    statuses = None
    if reader.has("where"):
        where = reader.sub("where")
        statuses = where.strings("status")
        for status in statuses:
            if status not in STATUSES:
                where.refuse("status", f"{status!r} is not one of {', '.join(STATUSES)}")
        where.done()
    return Meter(name, source, per, statuses)


def _name(reader: Reader) -> str:
    return reader.text("name") if reader.has("name") else ""


def _charge(reader: Reader, meters: dict[str, Meter]) -> Charge:
    kind = reader.choice("type", ("one_time", "recurring", "usage"))
    common: dict[str, Any] = {
        "id": reader.text("id", pattern=ID),
        "type": kind,
        "name": _name(reader),
        "min": reader.optional_decimal("min"),
        "max": reader.optional_decimal("max"),
    }
    low, high = common["min"], common["max"]
    if low is not None and high is not None and low > high:
        reader.refuse("max", "is less than min")
    if kind == "usage":
        return Charge(**common, **_usage(reader, meters))
    if kind == "recurring":
        return Charge(
            **common,
            amount=reader.decimal("amount"),
            when=reader.choice("when", ("advance", "arrears"), "arrears"),
            prorate=_prorate(reader),
        )
    reader.choice("at", ("activation",), "activation")
    return Charge(**common, amount=reader.decimal("amount"))


def _prorate(reader: Reader) -> bool:
    return reader.has("prorate") and reader.choice("prorate", ("day",)) == "day"


def _usage(reader: Reader, meters: dict[str, Meter]) -> dict[str, Any]:
    meter = reader.text("meter")
    if meter not in meters:
        reader.refuse("meter", f"there is no meter {meter!r}")
    model = reader.choice("model", MODELS)
    result: dict[str, Any] = {"meter": meter, "model": model}
    if model == "package":
        if reader.has("included"):
            reader.refuse("included", "does not go with packages; use package.free")
        result["package"] = _package(reader.sub("package"))
        return result
    result["included"] = reader.decimal("included", "0")
    if model == "per_unit":
        result["unit"] = reader.decimal("unit")
    else:
        result["tiers"] = _tiers(reader)
    return result


def _package(reader: Reader) -> Package:
    size = reader.decimal("size")
    if size == 0:
        reader.refuse("size", "must be greater than 0")
    package = Package(size, reader.decimal("price"), reader.decimal("free", "0"))
    reader.done()
    return package


def _tiers(reader: Reader) -> tuple[Tier, ...]:
    rows = reader.many(
        "tiers",
        lambda r: (r.optional_decimal("up_to"), r.decimal("unit"), r.decimal("flat", "0")),
    )
    bounds = _bounds(reader.at("tiers"), [row[0] for row in rows])
    return tuple(Tier(lo, up_to, unit, flat) for lo, (up_to, unit, flat) in zip(bounds, rows, strict=True))


def _bounds(path: str, ups: list[Fraction | None]) -> list[Fraction]:
    """Lower bound of every tier; tiers rise, leave no gap, and only the last is open."""
    bounds, lo = [], Fraction(0)
    for index, up_to in enumerate(ups):
        last = index == len(ups) - 1
        here = f"{path}[{index}].up_to"
        bounds.append(lo)
        if up_to is None:
            if not last:
                refuse(here, "is missing: only the last tier may be open")
            break
        if last:
            refuse(here, "leaves a gap: usage above it has no price; leave up_to out of the last")
        if up_to <= lo:
            refuse(here, f"must be greater than {money.exact_text(lo)}")
        lo = up_to
    return bounds


def _scope(reader: Reader, charge_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Named charges in the plan's order; no scope means every charge."""
    if not reader.has("scope"):
        return charge_ids
    named = reader.strings("scope")
    for item in named:
        if item not in charge_ids:
            reader.refuse("scope", f"there is no charge {item!r}")
    return tuple(item for item in charge_ids if item in named)


def _commitment(reader: Reader, charge_ids: tuple[str, ...]) -> Minimum | CommittedSpend:
    kind = reader.choice("kind", ("minimum", "committed_spend"))
    name, identity = _name(reader), reader.text("id", pattern=ID)
    scope, amount = _scope(reader, charge_ids), reader.decimal("amount")
    if kind == "minimum":
        reader.choice("per", ("period",), "period")
        return Minimum(identity, scope, amount, _prorate(reader), name)
    reader.choice("per", ("term",), "term")
    billing = reader.choice("billing", ("prepaid", "postpaid"))
    unused = (
        reader.choice("unused", ("forfeit", "rollover"), "forfeit")
        if billing == "prepaid"
        else reader.choice("unused", ("true_up",), "true_up")
    )
    factor = reader.decimal("overage_factor", "1")
    return CommittedSpend(identity, scope, amount, billing, factor, unused, name)


def _check_committed(plan: Plan) -> None:
    charges = {charge.id: charge for charge in plan.charges}
    owner: dict[str, str] = {}
    for item in plan.committed:
        path = f"commitments.{item.id}"
        if (item.amount * 10**plan.exponent).denominator != 1:
            refuse(f"{path}.amount", f"has more places than {plan.currency} has")
        for charge_id in item.scope:
            charge = charges[charge_id]
            if charge.type == "one_time" or (charge.type == "recurring" and charge.when != "arrears"):
                refuse(f"{path}.scope", f"{charge_id!r} is not usage or recurring in arrears")
            if charge_id in owner:
                refuse(f"{path}.scope", f"{charge_id!r} already draws from {owner[charge_id]!r}")
            owner[charge_id] = item.id


def _discount(reader: Reader, charge_ids: tuple[str, ...]) -> Discount:
    return Discount(
        reader.text("id", pattern=ID),
        _scope(reader, charge_ids),
        reader.integer("bps", low=0, high=10_000),
        _name(reader),
    )


def _tax(reader: Reader) -> Tax:
    category = reader.choice("category", TAX_CATEGORIES, "S")
    if reader.has("percent") and reader.has("bps"):
        reader.refuse("bps", "stands beside percent; give one of them")
    if reader.has("bps"):
        rate = Fraction(reader.integer("bps", low=0, high=10_000), 10_000)
    else:
        rate = reader.decimal("percent", "0" if category in ZERO_RATED else None) / 100
    if rate > 1 or (category in ZERO_RATED and rate != 0):
        reader.refuse("percent", f"does not go with category {category}")
    tax = Tax(category, rate, reader.text("reason") if reader.has("reason") else "")
    reader.done()
    return tax


def _shares(reader: Reader, charge_ids: tuple[str, ...]) -> Shares:
    reader.choice("base", ("net",), "net")
    shares = Shares(_scope(reader, charge_ids), reader.many("pool", _member))
    reader.done()
    _check_pool(reader.at("pool"), shares.pool)
    return shares


def _member(reader: Reader) -> Member:
    party = reader.text("party", pattern=_PARTY)
    given = [key for key in ("bps", "take", "rest") if reader.has(key)]
    if len(given) != 1:
        reader.refuse("party", f"{party!r} needs exactly one of bps, take or rest")
    if given == ["bps"]:
        return Member(party, bps=reader.integer("bps", low=0, high=10_000))
    if given == ["rest"]:
        if reader.raw("rest") is not True:
            reader.refuse("rest", "must be true")
        return Member(party, rest=True)
    reader.choice("per", ("calendar_year",), "calendar_year")
    rows = reader.many(
        "take", lambda r: TakeTier(r.optional_decimal("up_to"), r.integer("bps", low=0, high=10_000))
    )
    _bounds(reader.at("take"), [row.up_to for row in rows])
    return Member(party, take=rows)


def _check_pool(path: str, pool: tuple[Member, ...]) -> None:
    _unique(path, [member.party for member in pool])
    rests = sum(member.rest for member in pool)
    most = sum(
        member.bps if member.bps is not None else max((t.bps for t in member.take), default=0)
        for member in pool
    )
    if rests > 1:
        refuse(path, "has more than one member with rest")
    if most > 10_000:
        refuse(path, f"gives away up to {most} bps of 10000")
    if not rests and (most != 10_000 or any(member.take for member in pool)):
        refuse(path, "does not add up to 10000 bps; give one member rest: true")
