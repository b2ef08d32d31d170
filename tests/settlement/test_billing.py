"""From receipts to invoices: the worked examples cent for cent, and invoices that never change."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from support import world
from support.books import NOW, Books
from support.device import T0, Device, make_license, seal_license
from support.rating_plans import GRADUATED, TIERS, make_plan, per_unit, recurring

from sealpack.format import canonical, documents, records
from sealpack.format.errors import SealpackError
from sealpack.format.license import License, PlanRef
from sealpack.settlement import billing, db, registry
from sealpack.settlement.issuing import Printed

SEPTEMBER = date(2026, 9, 1)
ISSUED = date(2026, 10, 5)
PACKAGE = {
    "id": "calls", "type": "usage", "meter": "m", "model": "package",
    "package": {"size": "10000", "price": "0.85", "free": "100000"},
}  # fmt: skip
SPLIT = {
    "scope": ["tok"],
    "pool": [{"party": "platform", "bps": 2500}, {"party": "creator:acme", "rest": True}],
}


def bill(books: Books, month: date = SEPTEMBER, *, draft: bool = False, license: str = "L-1") -> Printed:
    return billing.bill(books.database, license, month, ISSUED, draft=draft)


def settled(books: Books, device: Device, plan: Any) -> dict[str, Any]:
    """Ingest all a device wrote and bill September."""
    books.learn(device, plan=plan)
    assert {o.code for o in books.ingest(device.export())} <= {"OK", "W140"}
    value: dict[str, Any] = json.loads(bill(books).json)
    return value


def tokens(amount: int) -> Device:
    """A device that produced so many tokens, in a few large calls."""
    device = Device()
    for part in (amount // 2, amount - amount // 2 - 1, 1):
        device.wait(60_000).use(tok_out=part)
    return device.tally()


@pytest.mark.parametrize(
    ("amount", "model", "total"),
    [
        (73_456_789, "graduated", "1751.85"),
        (50_000_000, "volume", "1250.00"),
        (50_000_001, "volume", "750.00"),
    ],
)
def test_tiers_as_the_design_works_them(books: Books, amount: int, model: str, total: str) -> None:
    charge = GRADUATED | {"model": model, "tiers": TIERS}
    invoice = settled(books, tokens(amount), make_plan(charge))
    assert (invoice["lines"][0]["raw"], invoice["total"]) == (str(amount), total)


@pytest.mark.parametrize(("calls", "total"), [(1_234_567, "96.90"), (1_100_000, "85.00")])
def test_packages_as_the_design_works_them(books: Books, calls: int, total: str) -> None:
    device = Device().use(calls - 7).use(7)
    plan = make_plan(PACKAGE, per=1)
    plan = type(plan).from_dict(json.loads(plan.document) | {"meters": {"m": {"field": "calls"}}})
    assert settled(books, device, plan)["total"] == total


def test_a_minimum_and_tax(books: Books) -> None:
    minimum = {"id": "min", "kind": "minimum", "scope": ["base", "tok"], "amount": "500.00", "per": "period"}
    plan = make_plan(
        recurring("99.00", when="arrears"), per_unit("0.00025185"), per=1,
        commitments=[minimum], tax={"category": "S", "percent": "20"},
    )  # fmt: skip
    invoice = settled(books, tokens(1_000_000), plan)
    assert [line["amount"] for line in invoice["lines"]] == ["99.00", "251.85", "149.15"]
    assert (invoice["net"], invoice["tax"], invoice["total"]) == ("500.00", "100.00", "600.00")


def test_a_split(books: Books) -> None:
    invoice = settled(books, tokens(100_001), make_plan(per_unit("0.01"), per=1, shares=SPLIT))
    assert invoice["net"] == "1000.01"
    shares = {share["party"]: share["amount"] for share in invoice["shares"]}
    assert shares == {"platform": "250.00", "creator:acme": "750.01"}


def test_usage_counts_in_its_own_zone(books: Books) -> None:
    """A quarter before midnight UTC at the end of September is October in Berlin."""
    edge = int(datetime.fromisoformat("2026-09-30T22:30Z").timestamp()) * 1000
    device = Device().use(tok_out=5).until(edge).use(tok_out=70)
    books.learn(device, plan=make_plan(per_unit("1"), per=1, head={"tz": "Europe/Berlin"}))
    late = T0 + 20 * 86_400
    assert books.code(device.export(), now=late) == "OK"
    totals = [json.loads(bill(books, month).json)["total"] for month in (SEPTEMBER, date(2026, 10, 1))]
    assert totals == ["5.00", "70.00"]


def test_every_status_and_lost_records_are_billed(books: Books) -> None:
    device = Device().use(tok_out=1).use(status="err", tok_out=10).use(status="aborted", tok_out=100)
    device.lose(tok_out=1000)
    assert settled(books, device, make_plan(per_unit("1"), per=1))["total"] == "1111.00"


def test_only_the_statuses_a_plan_names_are_billed_and_lost_ones_always(books: Books) -> None:
    device = Device().use(tok_out=1).use(status="err", tok_out=10).lose(tok_out=1000)
    plan = make_plan(per_unit("1"), per=1)
    meter = {"field": "tok_out", "where": {"status": ["ok", "cancel"]}}
    plan = type(plan).from_dict(json.loads(plan.document) | {"meters": {"m": meter}})
    assert settled(books, device, plan)["total"] == "1001.00"


def test_devices_of_one_license_are_rated_together(books: Books) -> None:
    one, two = tokens(6_000_000), Device(number=2).use(tok_out=6_000_000)
    books.learn(one, two)
    for device in (one, two):
        assert books.code(device.export()) == "OK"
    invoice = json.loads(bill(books).json)
    assert invoice["total"] == "450.00"  # 10,000 at 0.04 and 2,000 at 0.025: tiers once, not twice
    assert [e["origin"] for e in invoice["evidence"]] == sorted([one.origin, two.origin])


# --- numbers and forms ------------------------------------------------------------------------------


def test_asked_again_it_is_the_same_invoice(books: Books) -> None:
    device = tokens(1000)
    books.learn(device)
    books.ingest(device.export())
    first = bill(books)
    assert first.name == "INV-000001" and first.fresh
    again = billing.bill(books.database, "L-1", SEPTEMBER, date(2027, 1, 1))
    assert again == replace(first, fresh=False)
    assert set(first.files) == {"INV-000001.json", "INV-000001.csv", "INV-000001.html"}
    assert b"INV-000001" in first.html and b"INV-000001" in first.csv


def test_numbers_have_no_gaps(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    books.ingest(device.export())
    bill(books, draft=True)
    with pytest.raises(SealpackError):
        bill(books, date(2020, 1, 1))
    months = (SEPTEMBER, date(2026, 10, 1), date(2026, 11, 1))
    assert [bill(books, month).name for month in months] == [f"INV-{n:06d}" for n in (1, 2, 3)]


def test_an_invoice_that_cannot_be_printed_takes_no_number(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device().work(3)
    books.learn(device)
    books.ingest(device.export())
    with monkeypatch.context() as patch:
        patch.setattr("sealpack.settlement.invoice_html.to_html", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bill(books)
    assert not books.rows(db.invoices)
    assert bill(books).name == "INV-000001"


def test_a_draft_stores_nothing_and_has_no_number(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    books.ingest(device.export())
    draft = bill(books, draft=True)
    value = json.loads(draft.json)
    assert draft.name == "draft-L-1-2026-09"
    assert value["draft"] and "number" not in value
    assert not books.rows(db.invoices)


def test_who_bills_and_who_is_billed(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    seller = {
        "schema": "sealpack/seller/v1", "issuer": "Acme Models (test)", "legal_name": "Acme Models AG",
        "address": ["Bahnhofstrasse 1", "Zug"], "tax_id": "CHE-1", "email": "billing@acme.example",
        "payment": "IBAN CH00", "payment_days": 14, "prefix": "AM26",
    }  # fmt: skip
    assert books.take("seller.json", json.dumps(seller).encode()) == "seller Acme Models AG"
    books.ingest(device.export())
    value = json.loads(bill(books).json)
    assert (value["number"], value["date"], value["due"]) == ("AM26-000001", "2026-10-05", "2026-10-19")
    assert value["seller"] == {
        "name": "Acme Models AG", "address": ["Bahnhofstrasse 1", "Zug"], "tax_id": "CHE-1",
        "email": "billing@acme.example",
    }  # fmt: skip
    assert value["customer"] == {"name": "Hospital Nord gGmbH", "address": ["Am Kai 1", "Kiel"]}
    assert value["payment"] == "IBAN CH00"


def test_without_records_the_license_says_who(books: Books) -> None:
    device = Device(make_license(customer=make_license().customer, order_ref="PO 7")).work(3)
    books.learn(device)
    with books.database.write() as connection:
        connection.execute(db.customers.delete())
    books.ingest(device.export())
    value = json.loads(bill(books).json)
    assert value["customer"]["name"] == "Hospital Nord"
    assert value["seller"] == {"name": "Acme Models (test)", "address": [], "email": "help@acme.example"}
    assert value["purchase_order"] == "PO 7"


def test_the_customers_own_tax_rule_counts(books: Books) -> None:
    device = tokens(100_000)
    books.learn(device, plan=make_plan(per_unit("0.01"), per=1, tax={"category": "S", "percent": "20"}))
    rule = {"category": "AE", "percent": "0", "reason": "reverse charge"}
    customer = {"id": "hospital", "legal_name": "Hospital Nord", "tax": rule, "payment_days": 60}
    books.take("c.json", json.dumps({"schema": "sealpack/customers/v1", "customers": [customer]}).encode())
    books.ingest(device.export())
    value = json.loads(bill(books).json)
    assert (value["net"], value["tax"], value["due"]) == ("1000.00", "0.00", "2026-12-04")
    assert value["taxes"][0]["reason"] == "reverse charge"


# --- which licenses ---------------------------------------------------------------------------------


def refused(books: Books, month: date = SEPTEMBER, license: str = "L-1") -> str:
    with pytest.raises(SealpackError) as caught:
        bill(books, month, license=license)
    assert not books.rows(db.invoices)
    return caught.value.code


def test_a_test_license_is_never_billed(books: Books) -> None:
    device = Device(make_license(environment="test")).work(3)
    books.learn(device)
    assert books.code(device.export()) == "W150"
    assert refused(books) == "USAGE"
    assert billing.bill_all(books.database, SEPTEMBER, ISSUED) == ([], {})


def test_licenses_that_cannot_be_billed(books: Books) -> None:
    books.learn(
        Device(make_license(plan=None)), Device(make_license(license_id="L-2", plan=PlanRef("none", 1)))
    )
    assert refused(books, license="L-9") == "REGISTRY_INVALID"
    assert refused(books) == "PLAN_INVALID"
    assert refused(books, license="L-2") == "PLAN_INVALID"
    books.learn(Device(make_license(license_id="L-3", exp=T0 + 86_400), number=3))
    assert refused(books, date(2026, 8, 1), "L-3") == "USAGE"
    assert refused(books, date(2026, 10, 1), "L-3") == "USAGE"


def test_billing_all_names_what_it_leaves_out(books: Books) -> None:
    other = make_license(license_id="L-2", customer=replace(make_license().customer, id="clinic"))
    unknown = make_license(license_id="L-3", plan=PlanRef("none", 1))
    ended = make_license(license_id="L-4", exp=T0 + 86_400)
    books.learn(*(Device(license) for license in (make_license(), other, unknown, ended)))
    october = date(2026, 10, 1)
    printed, skipped = billing.bill_all(books.database, october, ISSUED)
    assert [(p.license_id, p.name) for p in printed] == [("L-1", "INV-000001"), ("L-2", "INV-000002")]
    assert skipped == {"L-3": "plan none version 1 is not known here"}
    printed, _ = billing.bill_all(books.database, october, ISSUED, customer="clinic")
    assert [(p.license_id, p.fresh) for p in printed] == [("L-2", False)]


def test_recurring_charges_run_from_the_first_activation(books: Books) -> None:
    """A machine activated again later was active from its first day on."""
    plan = make_plan(recurring("30.00", when="arrears", prorate="day"))
    device = Device()
    books.learn(device, plan=plan)

    payload = canonical.loads(device.activation.payload)
    again = {k: v for k, v in payload.items() if k != "schema"} | {"issued_at": T0 + 3 * 86_400}
    with books.database.write() as connection:
        envelope = documents.seal("activation", again, world.LICENSER)
        registry.put_activation(connection, envelope, device.trust)
    line = json.loads(bill(books).json)["lines"][0]
    assert line["service_start"] == "2026-09-21"
    assert line["amount"] == "10.00"


def test_usage_after_the_invoice_is_flagged_late(books: Books) -> None:
    device = Device().work(10)
    cut = device.size
    device.work(10)
    books.learn(device)
    books.ingest(device.export(0, cut))
    first = bill(books)
    (outcome,) = books.ingest(device.export(cut), now=NOW)
    assert outcome.code == "W130"
    assert bill(books) == replace(first, fresh=False)


OCTOBER_2 = int(datetime.fromisoformat("2026-10-02T00:00Z").timestamp())


def renew(books: Books, day: datetime, **members: Any) -> License:
    """Another document of L-1, issued on `day` and imported."""
    renewed = make_license(seq=2, issued_at=int(day.timestamp()), **members)
    with books.database.write() as connection:
        registry.put_documents(connection, [seal_license(renewed)])
    return renewed


def test_a_renewals_plan_counts_from_the_next_month_on(books: Books) -> None:
    device = Device().use(tok_out=1000).until(OCTOBER_2 * 1000).use(tok_out=1000)
    books.learn(device, plan=make_plan(per_unit("1")))
    with books.database.write() as connection:
        registry.put_plan(connection, make_plan(per_unit("2"), head={"version": 2}))
    books.ingest(device.export(), now=device.now_ms // 1000)
    renew(books, datetime.fromisoformat("2026-09-25T00:00Z"), plan=PlanRef("example", 2))
    assert json.loads(bill(books).json)["net"] == "1.00"
    assert json.loads(bill(books, date(2026, 10, 1)).json)["net"] == "2.00"


def test_a_renewal_on_the_first_instant_of_a_month_counts_in_it(books: Books) -> None:
    books.learn(Device(), plan=make_plan(recurring("1.00")))
    with books.database.write() as connection:
        registry.put_plan(connection, make_plan(recurring("2.00"), head={"version": 2}))
    renew(books, datetime.fromisoformat("2026-10-01T00:00Z"), plan=PlanRef("example", 2))
    assert json.loads(bill(books, date(2026, 10, 1)).json)["plan"]["version"] == 2


def test_usage_under_a_test_license_stays_unbilled_when_it_goes_live(books: Books) -> None:
    device = Device(make_license(environment="test")).use(tok_out=1000)
    books.learn(device, plan=make_plan(per_unit("1")))
    live = renew(books, datetime.fromtimestamp(T0 + 3600, UTC), environment="live")
    device.wait(7_200_000)
    routes = canonical.loads(device.leaves[1])["routes"]
    device.boot += 1
    device.put(
        records.BOOT,
        nonce=f"{device.boot:032x}",
        runtime={"version": "0.2.0", "digest": "ab" * 32},
        routes=routes | {"r2": routes["r1"] | {"seq": live.seq}},
    )
    device.put(records.USAGE, route="r2", status="ok", meters={"tok_out": 5000}, wait_ms=0)
    assert books.code(device.export()) == "OK"
    assert json.loads(bill(books).json)["net"] == "5.00"


def test_usage_in_days_of_grace_is_billed_in_the_month_after_the_end(books: Books) -> None:
    end = OCTOBER_2 - 86_400
    license = make_license(exp=end, grace_s=10 * 86_400)
    device = Device(license).until((OCTOBER_2 + 3600) * 1000).use(tok_out=7)
    plan = make_plan(recurring("30.00", when="arrears", prorate="day"), per_unit("1"), per=1)
    books.learn(device, plan=plan)
    assert refused(books, date(2026, 10, 1)) == "USAGE"
    assert books.code(device.export(), now=OCTOBER_2 + 86_400) == "OK"
    assert json.loads(bill(books, date(2026, 10, 1)).json)["net"] == "7.00"
    assert [p.license_id for p in billing.bill_all(books.database, date(2026, 10, 1), ISSUED)[0]] == ["L-1"]
