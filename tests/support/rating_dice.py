"""Random plans, usages and dates, and how the package and the oracle answer for them in the same shape.

The dice are loaded towards what goes wrong: quantities one below, at and above every bound of the plan, rows
in the first and last millisecond of a local month, ties of the rounding, prices that are nothing.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, date, timedelta
from fractions import Fraction
from random import Random
from typing import Any

from sealpack.settlement.plan import load_plan
from sealpack.settlement.quote import Terms, quote, to_dict, to_text
from sealpack.settlement.results import PeriodResult
from sealpack.settlement.usage_table import read_rows
from support import rating_oracle as oracle

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "America/Havana",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Marquesas",
    "Pacific/Kiritimati",
    "Africa/Casablanca",
    "Africa/Cairo",
    "America/Asuncion",
    "America/Los_Angeles",
    "America/New_York",
    "America/Nuuk",
    "America/Sao_Paulo",
    "America/Santiago",
    "Antarctica/Troll",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Eucla",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Chatham",
)
PRICES = ("0", "0.005", "0.0005", "0.5", "1.5", "0.04", "0.0150", "0.333333333333", "7", "1.0005", "12.345")
AMOUNTS = ("0", "0.005", "99.00", "310", "33.335", "1000.01", "0.5", "1.5", "250")
BPS = (0, 1, 333, 1000, 2500, 3333, 5000, 10000)


class Dice:
    """One random plan with usage and options that its schema allows."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.currency = rng.choice(tuple(oracle.DIGITS))
        self.zone = rng.choice(ZONES)
        self.bounds: set[Fraction] = {Fraction(0)}  # quantities at which something changes, in base units
        self.plan = self._plan()
        self.activated, self.ended = self._dates()
        self.rows = self._rows()
        self.used, self.take_base = self._before()
        rolling = [c["id"] for c in self.plan.get("commitments", []) if c.get("unused") == "rollover"]
        self.carried = {name: Fraction(rng.choice(("0", "66.66", "250"))) for name in rolling}

    def chance(self, one_in: int) -> bool:
        return self.rng.randrange(one_in) == 0

    def some(self, items: list[str]) -> list[str]:
        return self.rng.sample(items, self.rng.randint(1, len(items)))

    def _plan(self) -> dict[str, Any]:
        rng = self.rng
        head = {"id": "p", "version": 1, "currency": self.currency, "tz": self.zone}
        if self.chance(2):
            head["rounding"] = rng.choice(("half_up", "half_even"))
        self.meters = {f"m{n}": self._meter() for n in range(rng.randint(1, 3))}
        charges = [self._charge(f"c{n}") for n in range(rng.randint(1, 5))]
        ids = [charge["id"] for charge in charges]
        plan: dict[str, Any] = {"plan": head, "meters": self.meters, "charges": charges}
        commitments = self._commitments(charges, ids)
        if commitments or self.chance(2):
            plan["commitments"] = commitments
        if self.chance(2):
            plan["discounts"] = [
                {"id": f"d{n}", "bps": rng.choice(BPS), **self._scope(ids)} for n in range(rng.randint(0, 3))
            ]
        if self.chance(2):
            plan["tax"] = rng.choice(
                ({"percent": "20"}, {"bps": 775}, {"category": "E"}, {"percent": "8.25"})
            )
        if not self.chance(3):
            plan["shares"] = {"base": "net", **self._scope(ids), "pool": self._pool()}
        return plan

    def _scope(self, ids: list[str]) -> dict[str, list[str]]:
        return {} if self.chance(3) else {"scope": self.some(ids)}

    def _meter(self) -> dict[str, Any]:
        meter: dict[str, Any] = {"field": self.rng.choice(oracle.FIELDS)}
        if self.chance(2):
            meter["per"] = self.rng.choice((1, 3, 7, 1000))
        if self.chance(3):
            meter["where"] = {"status": self.some(["ok", "err", "cancel", "aborted"])}
        return meter

    def _charge(self, name: str) -> dict[str, Any]:
        rng = self.rng
        charge: dict[str, Any] = {"id": name}
        kind = rng.choice(("one_time", "recurring", "usage", "usage", "usage"))
        charge["type"] = kind
        if kind == "usage":
            charge.update(self._usage())
        else:
            charge["amount"] = rng.choice(AMOUNTS)
        if kind == "recurring":
            charge["when"] = rng.choice(("advance", "arrears", "arrears"))
            if self.chance(2):
                charge["prorate"] = "day"
        if self.chance(6):
            charge["min"] = rng.choice(("0", "5.005", "20"))
        if self.chance(6):
            charge["max"] = rng.choice(("20", "20.5", "100.015"))
        return charge

    def _usage(self) -> dict[str, Any]:
        rng = self.rng
        meter = rng.choice(tuple(self.meters))
        per = self.meters[meter].get("per", 1)
        model = rng.choice(("per_unit", "graduated", "volume", "package"))
        charge: dict[str, Any] = {"meter": meter, "model": model}
        if model == "package":
            size, free = rng.choice(("1", "10", "0.5", "2.5")), rng.choice(("0", "100", "7.5"))
            charge["package"] = {"size": size, "price": rng.choice(PRICES), "free": free}
            self.bounds |= {(Fraction(free) + n * Fraction(size)) * per for n in (0, 1, 3)}
            return charge
        included = Fraction(rng.choice(("0", "0", "10", "2.5")))
        if included:
            charge["included"] = str(float(included))
        self.bounds.add(included * per)
        if model == "per_unit":
            return {**charge, "unit": rng.choice(PRICES)}
        ups = sorted(rng.sample(("1", "10", "12.5", "50", "400"), rng.randint(0, 3)), key=Fraction)
        self.bounds |= {(included + Fraction(up)) * per for up in ups}
        tiers: list[dict[str, Any]] = [{"up_to": up, "unit": rng.choice(PRICES)} for up in ups]
        tiers.append({"unit": rng.choice(PRICES)})
        for tier in tiers:
            if self.chance(3):
                tier["flat"] = rng.choice(AMOUNTS)
        return {**charge, "tiers": tiers}

    def _commitments(self, charges: list[dict[str, Any]], ids: list[str]) -> list[dict[str, Any]]:
        rng, found = self.rng, []
        for n in range(rng.choice((0, 0, 1, 1, 2))):
            item = {"id": f"min{n}", "kind": "minimum", "amount": rng.choice(AMOUNTS), **self._scope(ids)}
            found.append(item | ({"prorate": "day"} if self.chance(2) else {}))
        drawn = [c["id"] for c in charges if c["type"] == "usage" or c.get("when") == "arrears"]
        rng.shuffle(drawn)
        for n in range(rng.choice((0, 0, 1, 2))):
            if not drawn:
                break
            scope = [drawn.pop() for _ in range(rng.randint(1, len(drawn)))]
            item = {"id": f"cs{n}", "kind": "committed_spend", "scope": scope}
            item["amount"] = rng.choice(("0", "10", "100", "5000"))
            item["billing"] = rng.choice(("prepaid", "postpaid"))
            if item["billing"] == "prepaid" and self.chance(2):
                item["unused"] = rng.choice(("forfeit", "rollover"))
            if self.chance(2):
                item["overage_factor"] = rng.choice(("1.2", "0.333", "2", "0"))
            found.append(item)
        return found

    def _pool(self) -> list[dict[str, Any]]:
        rng = self.rng
        if self.chance(3):
            cut = rng.choice(BPS)
            return [{"party": "platform", "bps": cut}, {"party": "creator:a", "bps": 10000 - cut}]
        left, pool = 10000, []
        for n, party in enumerate(rng.sample(("platform", "creator:a", "creator:b"), rng.randint(0, 3))):
            most = rng.choice([bps for bps in BPS if bps <= left])
            left -= most
            if self.chance(2):
                pool.append({"party": party, "bps": most})
                continue
            ups = sorted(rng.sample((10, 100, 1000), n))
            take: list[dict[str, Any]] = [{"up_to": str(up), "bps": rng.randint(0, most)} for up in ups]
            pool.append({"party": party, "take": [*take, {"bps": most}]})
        pool.insert(rng.randint(0, len(pool)), {"party": "creator:rest", "rest": True})
        return pool

    def _dates(self) -> tuple[date | None, date | None]:
        rng = self.rng
        self.first = date(rng.choice((2023, 2024, 2025, 2026)), rng.randint(1, 12), 1)
        self.months = rng.randint(1, 4)
        last = self.first
        for _ in range(self.months):
            last = oracle.next_month(last)
        days = (last - self.first).days
        offsets = (0, 1, 14, 27, rng.randrange(28))
        activated = self.first + timedelta(days=rng.choice(offsets)) if self.chance(2) else None
        ended = self.first + timedelta(days=days - 1 - rng.choice(offsets)) if self.chance(2) else None
        return (activated, None if activated and ended and ended < activated else ended)

    def _rows(self) -> list[oracle.Row]:
        rng, zone = self.rng, oracle.zone_of(self.zone)
        begin = oracle.day_begins(self.activated or self.first, zone)
        after = self.first
        for _ in range(self.months):
            after = oracle.next_month(after)
        end = oracle.day_begins(self.ended + timedelta(days=1) if self.ended else after, zone)
        edges = [begin, end - timedelta(milliseconds=1)]
        month = self.first
        for _ in range(self.months):
            month = oracle.next_month(month)
            edges += [oracle.day_begins(month, zone) + timedelta(milliseconds=ms) for ms in (-1, 0)]
        edges = [edge for edge in edges if begin <= edge < end]
        rows = []
        for _ in range(rng.randint(0 if self.activated else 1, 8)):
            inside = begin + (end - begin) * rng.random()
            when = rng.choice([*edges, inside.replace(microsecond=0)])
            status = rng.choice(("ok", "ok", "err", "cancel", "aborted", "lost"))
            rows.append((max(when, begin), status, {name: self._count() for name in oracle.FIELDS}))
        return rows

    def _count(self) -> int:
        rng = self.rng
        if self.chance(5):
            return rng.choice((0, 10 ** rng.randint(0, 15) - 1))
        bound = rng.choice(sorted(self.bounds))
        return max(0, bound.__ceil__() + rng.choice((-1, 0, 0, 1, 500)))

    def _before(self) -> tuple[dict[str, Fraction] | None, Fraction | None]:
        rng = self.rng
        spends = [c["id"] for c in self.plan.get("commitments", []) if c["kind"] == "committed_spend"]
        used = {name: Fraction(rng.choice(AMOUNTS)) for name in self.some(spends)} if spends else None
        base = Fraction(rng.choice(("0", "9.995", "99", "500")))
        return (used if self.chance(3) else None, base if self.chance(3) else None)

    def table(self) -> str:
        lines = ["time,status," + ",".join(oracle.FIELDS)]
        for when, status, fields in self.rows:
            moment = when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            lines.append(",".join([moment, status, *(str(fields[name]) for name in oracle.FIELDS)]))
        return "\r\n".join(lines) + "\r\n"


def rated(dice: Dice) -> list[PeriodResult]:
    """The package's own results, from the bytes a person would hand over."""
    plan = load_plan(json.dumps(dice.plan).encode())
    terms = Terms(dice.activated, dice.ended, dice.used, dice.take_base, dice.carried)
    rows = read_rows(io.StringIO(dice.table(), newline=""), what="usage.csv")
    return quote(plan, rows, terms, what="usage.csv")


def by_package(dice: Dice) -> dict[str, Any]:
    """The package's answer as it is printed."""
    results = rated(dice)
    assert to_text(results[0].plan, results)
    return to_dict(results[0].plan, results)


def in_minor(dice: Dice, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The package's answer in the oracle's shape; every amount must be written with the currency's digits."""
    digits = oracle.DIGITS[dice.currency]

    def minor(text: str) -> int:
        assert len(text.partition(".")[2]) == digits and text == text.strip("+ ")
        return int(text.replace(".", ""))

    return [
        {
            "period": date.fromisoformat(invoice["period_start"]),
            "lines": sorted(
                (line["charge"], line["kind"], minor(line["amount"])) for line in invoice["lines"]
            ),
            **{key: minor(invoice[key]) for key in ("net", "tax", "total")},
            "shares": {s["party"]: minor(s["amount"]) for s in invoice["shares"] if minor(s["amount"])},
        }
        for invoice in answer["invoices"]
    ]


def by_oracle(dice: Dice) -> list[dict[str, Any]]:
    """The oracle's answer."""
    before = (dice.used, dice.take_base, dice.carried)
    return oracle.rate(dice.plan, dice.rows, dice.activated, dice.ended, *before)
