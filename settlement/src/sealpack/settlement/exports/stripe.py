"""Issued lines, settled usage and payouts as parameters of Stripe's API, a JSON object per line.

Source: specs/exports.md, "Stripe"; fields and bounds are those of Stripe's published API: invoice items,
billing meter events, Connect transfers. Nothing is sent. Amounts
that Stripe cannot take are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.format.fields import Fields
from sealpack.format.license import License
from sealpack.settlement import billing, money
from sealpack.settlement.exports import refused
from sealpack.settlement.exports.documents import Stored
from sealpack.settlement.payouts import Payout
from sealpack.settlement.periods import Period, day_start
from sealpack.settlement.plan import Plan

MAP_SCHEMA = "sealpack/stripe-map/v1"
MAX_ITEMS = 250  # of an invoice
MAX_AMOUNT = 999_999_999_999  # twelve digits, the most that any currency has
EVENT_AGE_S = 35 * 86_400
EVENT_AHEAD_S = 300
# Stripe's smallest unit where it is not ISO 4217's: places of the amount, and what it must be a multiple of.
_UNITS = {
    "MGA": (0, 1), "ISK": (2, 100), "UGX": (2, 100), "BHD": (3, 10), "JOD": (3, 10), "KWD": (3, 10),
    "OMR": (3, 10), "TND": (3, 10),
}  # fmt: skip
_MOST_PLACES = 2  # of the others
_UNKNOWN = ("UYI",)  # a unit of account: no payment is made in it

Items = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Names:
    """What Stripe calls our customers (`cus_...`) and parties (`acct_...`)."""

    customers: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, data: bytes, what: str) -> Names:
        """From a map file; REGISTRY_INVALID."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        f = Fields(value, what, "REGISTRY_INVALID")
        f.schema(MAP_SCHEMA)
        return cls(_ids(f, "customers", "cus_"), _ids(f, "accounts", "acct_"))

    def customer(self, name: str) -> str:
        """EXPORT_REFUSED for one that is not mapped."""
        return _find(self.customers, name, "customers")

    def account(self, party: str) -> str:
        """EXPORT_REFUSED for one that is not mapped."""
        return _find(self.accounts, party, "accounts")


def _ids(f: Fields, name: str, prefix: str) -> dict[str, str]:
    found = f.sub(name, default=None)
    if found is None:
        return {}
    return {key: found.text(key, pattern=rf"{prefix}[A-Za-z0-9]{{1,250}}") for key in found.keys()}  # noqa: SIM118


def _find(known: dict[str, str], name: str, member: str) -> str:
    if name not in known:
        raise refused(f"{name} has no Stripe id", f"name it under `{member}` of the --map file")
    return known[name]


def units(amount: str, currency: str) -> int:
    """A decimal amount in Stripe's smallest unit; EXPORT_REFUSED when that cannot say it."""
    places = money.exponent(currency)
    asked, multiple = _UNITS.get(currency, (places, 1))
    if currency in _UNKNOWN or (asked > _MOST_PLACES and currency not in _UNITS):
        raise refused(f"Stripe has no currency {currency} of {places} places")
    sign = -1 if amount.startswith("-") else 1
    exact = sign * money.parse_decimal(amount.lstrip("-")) * 10**asked
    if exact.denominator != 1 or exact % multiple:
        raise refused(f"{amount} {currency} is no amount that Stripe takes in {currency}")
    if abs(exact) > MAX_AMOUNT:
        raise refused(f"{amount} {currency} has more than the twelve digits that Stripe takes")
    return int(exact)


def invoice_items(document: Stored, names: Names) -> Items:
    """An item per line and tax; they sum to the document's total, below zero for a credit note.

    EXPORT_REFUSED for a customer without an id, too many lines, and amounts.
    """
    value = document.value
    customer, currency, tz = names.customer(document.customer), value["currency"], value["tz"]
    whole = _period(value["period_start"], value["period_end"], tz)
    rows = [
        (line["amount"], line["description"], line["charge"], _service(line, tz)) for line in value["lines"]
    ]
    rows += [
        (tax["amount"], f"Tax {tax['percent']} % ({tax['category']})", "tax", whole) for tax in value["taxes"]
    ]
    if len(rows) > MAX_ITEMS:
        raise refused(f"{len(rows)} items are more than the {MAX_ITEMS} of a Stripe invoice")
    return [
        {
            "customer": customer, "amount": units(amount, currency), "currency": currency.lower(),
            "description": text[:5000], "period": period, "discountable": False,
            "metadata": {"sealpack_document": document.name, "sealpack_item": f"{document.name}:{number}",
                         "sealpack_license": value["license"], "sealpack_charge": charge},
        }
        for number, (amount, text, charge, period) in enumerate(rows, 1)
    ]  # fmt: skip


def _service(line: dict[str, Any], tz: str) -> dict[str, int]:
    return _period(line["service_start"], line["service_end"], tz)


def _period(first: str, last: str, tz: str) -> dict[str, int]:
    """Both ends included, Unix seconds."""
    after = date.fromordinal(date.fromisoformat(last).toordinal() + 1)
    start = day_start(date.fromisoformat(first), tz)
    return {"start": start // 1000, "end": day_start(after, tz) // 1000 - 1}


def meter_events(
    connection: sa.Connection, license: License, plan: Plan, period: Period, names: Names, now: int
) -> tuple[Items, int]:
    """An event per quarter hour and meter of the plan, in base units; and how many Stripe would not take.

    Those are of usage that is not under 35 days old (or more than 5 minutes ahead). EXPORT_REFUSED for a
    customer without an id.
    """
    customer = names.customer(license.customer.id)
    used: Counter[tuple[int, str]] = Counter()
    for (quarter, status, meter_field), amount in billing.usage_of(connection, license.license_id).items():
        if period.start_ms <= quarter < period.end_ms:
            for meter in plan.meters.values():
                if meter.field == meter_field and meter.counts(status):
                    used[quarter // 1000, meter.id] += amount
    taken = [(at, meter) for at, meter in sorted(used) if now - EVENT_AGE_S < at <= now + EVENT_AHEAD_S]
    events = [
        {
            "event_name": f"sealpack_{meter}", "timestamp": at,
            "identifier": _identifier(license.license_id, meter, at),
            "payload": {"stripe_customer_id": customer, "value": str(used[at, meter])},
        }
        for at, meter in taken
    ]  # fmt: skip
    return events, len(used) - len(taken)


def _identifier(license_id: str, meter: str, at: int) -> str:
    """The same for the same quarter, so that Stripe drops an event that is sent again within a day."""
    return hashlib.sha256(f"{license_id}\n{meter}\n{at}".encode()).hexdigest()


def transfer(payout: Payout, names: Names) -> dict[str, Any] | None:
    """What is due to a party now, as a Connect transfer; None when nothing is. EXPORT_REFUSED below zero."""
    shown = money.amount_text(payout.due, money.exponent(payout.currency))
    if payout.due < 0:
        raise refused(
            f"{payout.party} was paid {shown.lstrip('-')} {payout.currency} too much: no transfer says so",
            "it is kept from later payouts, or reversed by hand",
        )
    if not payout.due:
        return None
    return {
        "amount": units(shown, payout.currency), "currency": payout.currency.lower(),
        "destination": names.account(payout.party), "description": f"Shares of {payout.party}",
        "metadata": {"sealpack_party": payout.party, "sealpack_issuer": payout.issuer[:500]},
    }  # fmt: skip


def ndjson(items: Iterable[dict[str, Any]]) -> bytes:
    """A JSON object per line."""
    return b"".join(_lines(items))


def _lines(items: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    for item in items:
        yield json.dumps(item, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode() + b"\n"
