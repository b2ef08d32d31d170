"""Stripe-shaped exports: sums, shapes, and what Stripe cannot take."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.books import NOW, Books
from support.device import Device
from support.einvoices import STANDARD, document
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.format.errors import SealpackError
from sealpack.settlement import billing, db, money, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.currencies import EXPONENTS
from sealpack.settlement.exports import stripe
from sealpack.settlement.exports.documents import Stored
from sealpack.settlement.exports.stripe import Names
from sealpack.settlement.payouts import Payout
from sealpack.verifier.cli import support
from sealpack.verifier.cli.main import make_cli, run

SCHEMAS = Path(__file__).parents[2] / "specs" / "schemas"
ME = Actor("clerk", NOW)
MAP = {
    "schema": "sealpack/stripe-map/v1", "customers": {"hospital": "cus_1"},
    "accounts": {"creator:a": "acct_1"},
}  # fmt: skip
NAMES = Names(MAP["customers"], MAP["accounts"])  # type: ignore[arg-type]
SHARES = {"scope": ["base", "tok"], "pool": [{"party": "platform", "bps": 3000},
          {"party": "creator:a", "rest": True}]}  # fmt: skip


def fits(kind: str, item: dict[str, Any]) -> None:
    jsonschema.validate(item, json.loads((SCHEMAS / f"stripe-{kind}.json").read_bytes()))


def stored(**members: Any) -> Stored:
    return Stored("INV-7", "invoice", "Acme", "hospital", "L-1", document(**members))


def test_items_sum_to_the_invoice() -> None:
    found = stored(tax=STANDARD)
    items = stripe.invoice_items(found, NAMES)
    for item in items:
        fits("invoice-item", item)
    assert sum(item["amount"] for item in items) == int(found.value["total"].replace(".", ""))
    assert [item["metadata"]["sealpack_charge"] for item in items] == ["base", "tok", "tax"]
    assert items[0]["period"] == {"start": 1775001600, "end": 1777593599}  # 1 April to 30 April 23:59:59 UTC
    assert {item["currency"] for item in items} == {"eur"}
    assert len({item["metadata"]["sealpack_item"] for item in items}) == 3


@pytest.mark.parametrize(
    ("amount", "currency", "told"),
    [("1.01", "USD", 101), ("-1.01", "USD", -101), ("0.00", "EUR", 0), ("150", "JPY", 150),
     ("5.00", "MGA", 5), ("7", "ISK", 700), ("7", "UGX", 700), ("1.230", "KWD", 1230),
     ("9999999999.99", "USD", 999_999_999_999)],
)  # fmt: skip
def test_smallest_units(amount: str, currency: str, told: int) -> None:
    assert stripe.units(amount, currency) == told


# As Stripe publishes them: whole units; no decimals, asked for with two; three decimals, the last digit 0.
WHOLE = (
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "JPY",
    "KMF",
    "KRW",
    "MGA",
    "PYG",
    "RWF",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
)
HUNDREDTHS_OF_WHOLE = ("ISK", "UGX")
THOUSANDTHS = ("BHD", "JOD", "KWD", "OMR", "TND")


@pytest.mark.parametrize("currency", sorted(EXPONENTS))
def test_every_currency_is_asked_for_as_stripe_publishes_or_refused(currency: str) -> None:
    seven = money.amount_text(7 * 10 ** EXPONENTS[currency], EXPONENTS[currency])
    if currency in ("CLF", "IQD", "LYD", "UYI", "UYW"):
        with pytest.raises(SealpackError, match=f"Stripe has no currency {currency}"):
            stripe.units(seven, currency)
        return
    factor = 1 if currency in WHOLE else 1000 if currency in THOUSANDTHS else 100
    assert stripe.units(seven, currency) == 7 * factor
    smallest = money.amount_text(1, EXPONENTS[currency])
    if currency in THOUSANDTHS or currency == "MGA":
        with pytest.raises(SealpackError, match="no amount that Stripe takes"):
            stripe.units(smallest, currency)
    else:
        assert stripe.units(smallest, currency) == (100 if currency in HUNDREDTHS_OF_WHOLE else 1)


@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [("1.234", "KWD", "no amount that Stripe takes"), ("5.20", "MGA", "no amount that Stripe takes"),
     ("1.000", "IQD", "no currency IQD"), ("1.0000", "CLF", "no currency CLF"),
     ("10000000000.00", "USD", "twelve digits")],
)  # fmt: skip
def test_amounts_that_stripe_cannot_express(amount: str, currency: str, reason: str) -> None:
    with pytest.raises(SealpackError, match=reason) as error:
        stripe.units(amount, currency)
    assert error.value.code == "EXPORT_REFUSED"


def test_documents_that_stripe_cannot_express() -> None:
    with pytest.raises(SealpackError, match="hospital has no Stripe id"):
        stripe.invoice_items(stored(), Names())
    long = stored()
    long.value["lines"] *= 126
    with pytest.raises(SealpackError, match="252 items are more than the 250"):
        stripe.invoice_items(long, NAMES)


def test_transfers() -> None:
    due = Payout("Acme", "creator:a", "USD", 900, 700, 200)
    made = stripe.transfer(due, NAMES)
    assert made is not None
    fits("transfer", made)
    assert (made["amount"], made["destination"]) == (500, "acct_1")
    assert stripe.transfer(Payout("Acme", "creator:a", "USD", 900, 200, 200), NAMES) is None
    with pytest.raises(SealpackError, match=r"was paid 1\.00 USD too much"):
        stripe.transfer(Payout("Acme", "creator:a", "USD", 900, 100, 200), NAMES)
    with pytest.raises(SealpackError, match="creator:b has no Stripe id"):
        stripe.transfer(Payout("Acme", "creator:b", "USD", 900, 900, 200), NAMES)


BAD_ID = '{"schema":"sealpack/stripe-map/v1","customers":{"a":"b"}}'


@pytest.mark.parametrize("text", ["", "[]", "{}", BAD_ID])
def test_maps_that_are_none(text: str) -> None:
    with pytest.raises(SealpackError) as error:
        Names.read(text.encode(), "map.json")
    assert error.value.code == "REGISTRY_INVALID"


@pytest.mark.sqlite_only
def test_commands(
    books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(support, "now", lambda: NOW)
    device = Device().work(30)
    charges = recurring("100.01", when="arrears"), per_unit("0.01")
    tax = {"category": "S", "percent": "19"}
    books.learn(device, plan=make_plan(*charges, per=1, tax=tax, shares=SHARES))
    assert books.code(device.export()) == "OK"
    name = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 5), actor=ME).name
    mapped, out = tmp_path / "map.json", tmp_path / "out"
    mapped.write_text(json.dumps(MAP))

    def call(verb: str, *more: str, status: int = 0) -> list[dict[str, Any]]:
        for left in out.glob("*"):
            left.unlink()
        common = ["settle", "--db", books.address, "export", verb, "--map", str(mapped), "--out", str(out)]
        assert run(make_cli(), [*common, *more]) == status
        return [json.loads(line) for path in out.glob("*.ndjson") for line in path.read_text().splitlines()]

    items = call("stripe-items", name)
    assert len(items) == 3
    events = call("stripe-events", "--period", "2026-09")
    for event in events:
        fits("meter-event", event)
    assert sum(int(e["payload"]["value"]) for e in events) == device.registers.total("tok_out")
    assert len({e["identifier"] for e in events}) == len(events) > 1
    assert {e["event_name"] for e in events} == {"sealpack_m"}
    assert call("stripe-events", "--period", "2026-08") == []
    assert call("stripe-transfers") == []
    total = next(d["total"] for d in [json.loads(row["json"]) for row in _invoices(books)])
    receivables.pay(books.database, name, total, date(2026, 10, 9), "r1", actor=ME)
    (paid,) = call("stripe-transfers")
    fits("transfer", paid)

    oldest = min(e["timestamp"] for e in events)
    monkeypatch.setattr(support, "now", lambda: oldest + 35 * 86_400)
    capsys.readouterr()
    assert call("stripe-events", "--period", "2026-09", status=5) == []
    assert f"1 of {len(events)} events are not of the last 35 days" in capsys.readouterr().out
    monkeypatch.setattr(support, "now", lambda: oldest + 35 * 86_400 - 1)
    assert call("stripe-events", "--period", "2026-09") == events
    mapped.write_text(json.dumps({"schema": MAP["schema"]}))
    for verb in (["stripe-items", name], ["stripe-events", "--period", "2026-09"], ["stripe-transfers"]):
        assert call(*verb, status=5) == []


def _invoices(books: Books) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = books.rows(db.invoices)
    return found
