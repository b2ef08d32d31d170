"""A second rating, straight from the formulas of specs/rating.md, in plain Fractions and on plain data.

It shares no code with the settlement package: whatever both answer alike over thousands of random plans and
usages was not one person's reading of one formula. It is slow and short on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from importlib import resources
from math import floor
from typing import Any
from zoneinfo import ZoneInfo

DIGITS = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3, "CLF": 4}
FIELDS = ("calls", "tok_in", "tok_out", "ms", "items")
Row = tuple[datetime, str, dict[str, int]]  # when (UTC), status, field -> how many


# --- money (section 2) ---


def to_minor(exact: Fraction, currency: str, mode: str) -> int:
    scaled = exact * 10 ** DIGITS[currency]
    sign, size = (-1 if scaled < 0 else 1), abs(scaled)
    whole, rest = size // 1, size % 1
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (mode == "half_up" or whole % 2 == 1))
    return sign * (int(whole) + (1 if up else 0))


def split(total: int, weights: Sequence[Fraction]) -> list[int]:
    if total < 0:
        return [-part for part in split(-total, weights)]
    whole = sum(weights)
    if whole == 0:
        return [total if index == 0 else 0 for index in range(len(weights))]
    exact = [total * weight / whole for weight in weights]
    parts = [floor(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda index: (parts[index] - exact[index], index))
    for index in order[: total - sum(parts)]:
        parts[index] += 1
    return parts


# --- periods (section 3) ---


def zone_of(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file)


def day_begins(day: date, zone: ZoneInfo) -> datetime:
    """The first quarter hour whose local date has reached the day: a plain search, no arithmetic of folds."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=26)
    while moment.astimezone(zone).date() < day:
        moment += timedelta(minutes=15)
    return moment


def next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def month_holding(moment: datetime, zone: ZoneInfo) -> date:
    first = moment.astimezone(zone).date().replace(day=1)
    return first if moment < day_begins(next_month(first), zone) else next_month(first)


# --- one charge (section 4) ---


def quantity(plan: Mapping[str, Any], meter: str, rows: Iterable[Row]) -> Fraction:
    rule = plan["meters"][meter]
    counted = rule.get("where", {}).get("status")
    total = 0
    for _, status, fields in rows:
        if counted is None or status == "lost" or status in counted:
            total += fields.get(rule["field"], 0)
    return Fraction(total, rule.get("per", 1))


def tiers_of(
    tiers: Sequence[Mapping[str, Any]], value: str
) -> list[tuple[Fraction, Fraction | None, Fraction]]:
    """(lower bound, upper bound, price) of every tier."""
    out, low = [], Fraction(0)
    for tier in tiers:
        high = Fraction(str(tier["up_to"])) if "up_to" in tier else None
        out.append((low, high, Fraction(str(tier[value]))))
        low = high if high is not None else low
    return out


def graduated(q: Fraction, tiers: Sequence[Mapping[str, Any]]) -> Fraction:
    total = Fraction(0)
    for (low, high, unit), tier in zip(tiers_of(tiers, "unit"), tiers, strict=True):
        if q > low:
            total += ((q if high is None else min(q, high)) - low) * unit + Fraction(str(tier.get("flat", 0)))
    return total


def volume(q: Fraction, tiers: Sequence[Mapping[str, Any]]) -> Fraction:
    for (low, high, unit), tier in zip(tiers_of(tiers, "unit"), tiers, strict=True):
        if low < q and (high is None or q <= high):
            return q * unit + Fraction(str(tier.get("flat", 0)))
    return Fraction(0)


def packages(q: Fraction, package: Mapping[str, Any]) -> Fraction:
    over = max(Fraction(0), q - Fraction(str(package.get("free", 0))))
    return -floor(-over / Fraction(str(package["size"]))) * Fraction(str(package["price"]))


def price(
    plan: Mapping[str, Any], charge: Mapping[str, Any], rows: Iterable[Row], part: Fraction
) -> Fraction:
    """The list amount: priced, discounted, held between its own minimum and maximum."""
    if charge["type"] == "usage":
        q = quantity(plan, charge["meter"], rows)
        q = max(Fraction(0), q - Fraction(str(charge.get("included", 0))))
        if charge["model"] == "per_unit":
            amount = q * Fraction(str(charge["unit"]))
        elif charge["model"] == "package":
            amount = packages(q, charge["package"])
        else:
            amount = (graduated if charge["model"] == "graduated" else volume)(q, charge["tiers"])
    else:
        amount = Fraction(str(charge["amount"]))
        if charge["type"] == "recurring" and charge.get("prorate") == "day":
            amount *= part
    for discount in plan.get("discounts", []):
        if charge["id"] in discount.get("scope", [charge["id"]]):
            amount *= Fraction(10000 - discount["bps"], 10000)
    if "min" in charge:
        amount = max(amount, Fraction(str(charge["min"])))
    if "max" in charge:
        amount = min(amount, Fraction(str(charge["max"])))
    return amount


# --- a license's periods (sections 5 to 8) ---


def rate(
    plan: Mapping[str, Any],
    rows: Sequence[Row],
    activated: date | None = None,
    ended: date | None = None,
    used: Mapping[str, Fraction] | None = None,
    take_base: Fraction | None = None,
    carried: Mapping[str, Fraction] | None = None,
) -> list[dict[str, Any]]:
    """Every period: `lines` as (charge, kind, minor units), `net`, `tax`, `total`, `shares` without zeros."""
    head = plan["plan"]
    currency, mode, zone = head["currency"], head.get("rounding", "half_up"), zone_of(head.get("tz", "UTC"))
    ids = [charge["id"] for charge in plan["charges"]]
    commitments = plan.get("commitments", [])
    spends = [item for item in commitments if item["kind"] == "committed_spend"]
    listed = {item["id"]: (used or {}).get(item["id"], Fraction(0)) for item in spends}
    base_of_year: dict[int, Fraction] = {}

    def cents(exact: Fraction) -> int:
        return to_minor(exact, currency, mode)

    def major(minor: int) -> Fraction:
        return Fraction(minor, 10 ** DIGITS[currency])

    first = activated.replace(day=1) if activated else month_holding(min(row[0] for row in rows), zone)
    last = ended.replace(day=1) if ended else max([first, *(month_holding(row[0], zone) for row in rows)])
    starts_here = activated is not None or (used is None and take_base is None)
    base_of_year[first.year] = take_base or Fraction(0)
    answer = []
    month = first
    while month <= last:
        begin, end = day_begins(month, zone), day_begins(next_month(month), zone)
        inside = [row for row in rows if begin <= row[0] < end]
        days = (next_month(month) - month).days
        from_day = activated if activated and month == first else month
        to_day = ended if ended and month == last else next_month(month) - timedelta(days=1)
        part = Fraction((to_day - from_day).days + 1, days)
        lines: list[tuple[str, str, int]] = []
        accrued = dict.fromkeys(ids, 0)
        due = [c for c in plan["charges"] if c["type"] != "one_time" or (month == first and starts_here)]
        lists = {c["id"]: price(plan, c, inside, part) for c in due}

        committed: set[str] = set()
        for commitment in spends:
            scope = [charge for charge in ids if charge in commitment.get("scope", ids)]
            committed.update(scope)
            fee, factor = (Fraction(str(commitment.get(key, 1))) for key in ("amount", "overage_factor"))
            c = fee + (carried or {}).get(commitment["id"], Fraction(0))
            before, weights = listed[commitment["id"]], [lists.get(charge, Fraction(0)) for charge in scope]
            now = before + sum(weights)
            listed[commitment["id"]] = now
            drawn = cents(min(now, c)) - cents(min(before, c))
            over = cents(factor * max(Fraction(0), now - c)) - cents(factor * max(Fraction(0), before - c))
            prepaid = commitment["billing"] == "prepaid"
            for charge, piece in zip(scope, split(drawn, weights), strict=True):
                accrued[charge] += piece
                lines.append((charge, "charge", 0 if prepaid else piece))
            if prepaid and month == first and starts_here and commitment["id"] not in (used or {}):
                lines.append((commitment["id"], "prepayment", cents(fee)))
            lines.append((commitment["id"], "overage", over))
            for charge, piece in zip(scope, split(over, weights), strict=True):
                accrued[charge] += piece
            if not prepaid and ended and month == last:
                short = cents(c) - cents(min(now, c))
                lines.append((commitment["id"], "shortfall", short))
                for charge, piece in zip(scope, split(short, weights), strict=True):
                    accrued[charge] += piece
        for charge in due:
            if charge["id"] not in committed:
                amount = cents(lists[charge["id"]])
                lines.append((charge["id"], "charge", amount))
                accrued[charge["id"]] += amount
        for commitment in commitments:
            if commitment["kind"] == "minimum":
                scope = [charge for charge in ids if charge in commitment.get("scope", ids)]
                least = Fraction(str(commitment["amount"])) * (
                    part if commitment.get("prorate") == "day" else 1
                )
                up = max(0, cents(least) - sum(accrued[charge] for charge in scope))
                lines.append((commitment["id"], "true_up", up))
                weights = [Fraction(accrued[charge]) for charge in scope]
                for charge, piece in zip(scope, split(up, weights), strict=True):
                    accrued[charge] += piece

        net = sum(amount for _, _, amount in lines)
        tax_rule = plan.get("tax", {})
        rate_of_tax = Fraction(str(tax_rule.get("percent", 0))) / 100 + Fraction(
            tax_rule.get("bps", 0), 10000
        )
        tax = cents(major(net) * rate_of_tax)

        shares: dict[str, int] = {}
        rule = plan.get("shares", {"scope": [], "pool": []})
        scope = rule.get("scope", ids)
        b = sum(accrued[charge] for charge in scope)
        shares["platform"] = sum(accrued.values()) - b
        year, left, unspoken = base_of_year.get(month.year, Fraction(0)), b, Fraction(b)
        for member in rule["pool"]:
            if "take" in member:
                tiers = [{**tier, "unit": Fraction(tier["bps"], 10000)} for tier in member["take"]]
                upper, lower = graduated(year + major(b), tiers), graduated(year, tiers)
                took = cents(upper) - cents(lower)
                unspoken -= (upper - lower) * 10 ** DIGITS[currency]
                shares[member["party"]] = shares.get(member["party"], 0) + took
                left -= took
        base_of_year[month.year] = year + major(b)
        others = [member for member in rule["pool"] if "take" not in member]
        parts = [Fraction(b * member.get("bps", 0), 10000) for member in others]
        unspoken -= sum(parts)
        parts = [unspoken if "rest" in member else part for member, part in zip(others, parts, strict=True)]
        for member, piece in zip(others, split(left, parts), strict=True):
            shares[member["party"]] = shares.get(member["party"], 0) + piece
        answer.append(
            {
                "period": month,
                "lines": sorted(line for line in lines if line[2] or line[1] in ("charge", "prepayment")),
                "net": net,
                "tax": tax,
                "total": net + tax,
                "shares": {party: amount for party, amount in shares.items() if amount},
            }
        )
        month = next_month(month)
    return answer
