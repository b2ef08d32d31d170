"""What finance looks at: customers, licenses, machines, the search, and plans in words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from support import office, rating_plans, world
from support.books import CUSTOMERS, NOW, Books
from support.device import Device, make_license

from sealpack.format.errors import SealpackError
from sealpack.format.license import Customer, Devices, LeaseTerms
from sealpack.settlement import billing, db, desk, parties, plan_words, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.overview import customers, devices, licenses, machine, search
from sealpack.settlement.plan import load_plan

DAY = 86_400
CLERK = Actor("clerk", NOW)


def states(books: Books, now: int) -> dict[str, str]:
    with books.database.read() as connection:
        return {row.label: row.state for row in devices.listed(connection, now)}


# --- licenses -----------------------------------------------------------------------------------------


def test_licenses_that_end_soon_come_first(books: Books) -> None:
    ends = {"L-1": None, "L-2": NOW + 59 * DAY, "L-3": NOW + 10 * DAY, "L-4": NOW - 1, "L-5": NOW + 61 * DAY,
            "L-6": NOW - 5 * DAY}  # fmt: skip
    books.learn(
        *(Device(make_license(license_id=id, exp=end), n) for n, (id, end) in enumerate(ends.items())),
        Device(make_license(license_id="L-7", nbf=NOW + DAY), 90),
    )
    with books.database.read() as connection:
        found = licenses.listed(connection, NOW)
    assert [(row.license.license_id, row.state) for row in found] == [
        ("L-3", "expiring"), ("L-2", "expiring"), ("L-5", "active"), ("L-1", "active"), ("L-7", "not yet"),
        ("L-4", "ended"), ("L-6", "ended"),
    ]  # fmt: skip
    assert {row.devices for row in found} == {1}


def test_a_license_that_was_revoked(books: Books) -> None:
    device = Device(trust=world.make_trust(licenses=["L-1"]))
    books.take("trust.json", device.trust.to_bytes())
    with books.database.read() as connection:
        assert licenses.revoked_ids(connection) == {"L-1"}
        assert licenses.state_of(device.license, NOW, licenses.revoked_ids(connection)) == "revoked"


def test_sub_licenses_are_counted_below_their_parent(tmp_path: Any) -> None:
    found = office.make(tmp_path)
    with found.database.read() as connection:
        rows = {row.license.license_id: row for row in licenses.listed(connection, office.NOW, "lakeside")}
    found.database.close()
    assert {id: (row.below, row.devices) for id, row in rows.items()} == {
        "L-2026-007": (2, 0), "L-2026-007.east": (0, 1), "L-2026-007.west": (0, 1)
    }  # fmt: skip
    assert {row.customer for row in rows.values()} == {"lakeside"}


# --- machines -----------------------------------------------------------------------------------------


def test_what_is_the_matter_with_a_machine(books: Books) -> None:
    lease = make_license(license_id="L-2", lease=LeaseTerms(True, 30 * DAY, 5 * DAY, "warn"))
    working, leased, new = (
        Device(label="working").use(3),
        Device(lease, 2, "leased").use(3),
        Device(number=3, label="new"),
    )
    closed = Device(number=4, label="closed").use(2)
    closed.put("x", reason="deactivated")
    forked = Device(number=5, label="forked").use(2)
    other = forked.clone()
    books.learn(working, leased, new, closed, forked)
    for device in (working, leased, closed, forked.use(4)):
        assert books.code(device.export()) == "OK"
    assert books.code(other.wait(9).use(5).export()) == "H210"
    assert states(books, NOW) == {"working": "reporting", "leased": "reporting", "new": "waiting",
                                  "closed": "reporting", "forked": "frozen"}  # fmt: skip
    assert states(books, NOW + 31 * DAY)["leased"] == "overdue"
    assert states(books, NOW + 46 * DAY) == {"working": "silent", "leased": "overdue", "new": "silent",
                                             "closed": "closed", "forked": "frozen"}  # fmt: skip
    with books.database.read() as connection:
        first = devices.listed(connection, NOW + 46 * DAY)[0]
        assert (first.label, first.cases, first.receipts, first.received_at) == (
            "forked",
            1,
            forked.size,
            NOW,
        )
        leased_row = devices.find(connection, "L-2", leased.id, NOW)
        assert leased_row.due_at == NOW + 30 * DAY
        assert devices.listed(connection, NOW, customer="nobody") == []
        with pytest.raises(SealpackError, match="NOT_FOUND"):
            devices.find(connection, "L-2", working.id, NOW)


def test_all_about_one_machine(books: Books) -> None:
    device = Device(label="ward 3").use(3)
    books.learn(device)
    books.ingest(device.export(), "one.usage.gz", NOW)
    later = device.wait(60_000).restored().use(4)
    books.ingest(later.export(), "two.usage.gz", NOW + 60)
    books.reply(device)
    with books.database.read() as connection:
        found = machine.load(connection, "L-1", device.id, NOW)
    assert [(log.epoch, log.size, log.replies) for log in found.logs] == [
        (1, later.size, 0), (0, device.size, 1)
    ]  # fmt: skip
    assert [file.name for file in found.files] == ["two.usage.gz", "one.usage.gz"]
    assert found.used["calls"] == 7 and not found.more_files and found.limits == ()
    assert (found.row.logs, found.row.receipts) == (2, device.size + later.size)


# --- customers ----------------------------------------------------------------------------------------


def test_customers_with_and_without_a_record(books: Books) -> None:
    stranger = make_license(license_id="L-2", customer=Customer("clinic", "Clinic"), devices=Devices("key"))
    books.learn(Device(), Device(stranger, 2), Device(stranger, 3))
    with books.database.read() as connection:
        rows = customers.listed(connection)
        assert [(row.id, row.name, bool(row.record), row.licenses, row.devices) for row in rows] == [
            ("clinic", "Clinic", False, 1, 2), ("hospital", "Hospital Nord gGmbH", True, 1, 1)
        ]  # fmt: skip
        assert customers.find(connection, "clinic").name == "Clinic"
        with pytest.raises(SealpackError, match="NOT_FOUND"):
            customers.find(connection, "nobody")


def test_what_a_customer_owes(books: Books) -> None:
    device = Device().use(3, tok_out=1_000_000)
    books.learn(device, plan=rating_plans.make_plan(rating_plans.per_unit("0.25")))
    assert books.code(device.export()) == "OK"
    printed = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 2), actor=CLERK)
    receivables.pay(books.database, printed.name, "100.00", date(2026, 10, 9), "bank", actor=CLERK)
    with books.database.read() as connection:
        (balance,) = customers.find(connection, "hospital").balances
        assert (balance.currency, balance.open, balance.on_account) == ("USD", 15_000, 0)
        mine = db.invoices.c.customer_id == "hospital"
        (one,) = desk.newest(connection, mine)
        assert (one.document.name, one.open, one.state) == (printed.name, 15_000, "partly paid")
    receivables.pay(books.database, printed.name, "200.00", date(2026, 10, 9), "bank", actor=CLERK)
    with books.database.read() as connection:
        (balance,) = customers.find(connection, "hospital").balances
        assert (balance.open, balance.on_account) == (0, 5_000)
        assert desk.newest(connection, mine)[0].state == "paid"


def test_a_record_changed_by_a_person_is_checked_and_noted(books: Books) -> None:
    books.learn(Device())
    said: dict[str, Any] = dict(CUSTOMERS["customers"][0]) | {"country": "DE"}  # type: ignore[index]
    with books.database.write() as connection:
        assert parties.change_customer(connection, said, actor=CLERK).country == "DE"
        for wrong in ({"country": "Germany"}, {"legal_name": " "}, {"payment_days": -1}):
            with pytest.raises(SealpackError, match="REGISTRY_INVALID"):
                parties.change_customer(connection, said | wrong, actor=CLERK)
    with books.database.read() as connection:
        assert customers.find(connection, "hospital").record.country == "DE"  # type: ignore[union-attr]
        what = json.loads(connection.execute(sa.select(db.audit.c.what)).scalars().all()[-1])
    assert (what["verb"], what["customer"]) == ("customer", "hospital")


# --- search -------------------------------------------------------------------------------------------


@pytest.fixture
def known(books: Books) -> Books:
    device = Device(label="Röntgen 1").use(3)
    books.learn(device, Device(make_license(license_id="L-10"), 2, "l-1"))
    books.ingest(device.export(), "hospital-röntgen-1.usage.gz")
    billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 2), actor=CLERK)
    return books


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("hospital", [("customer", 0), ("file", 1)]), ("nord ggmbh", [("customer", 2)]),
        ("L-1", [("license", 0), ("machine", 0), ("license", 1)]),
        ("röntgen", [("machine", 1), ("file", 2)]), ("RÖNTGEN 1", [("machine", 0)]),
        ("INV-000001", [("document", 0)]), ("inv-", [("document", 1)]), ("example 1", [("plan", 0)]),
        ("100%", []), ("_-1", []), ("  ", []), ("", []), ("zzz", []),
    ],
)  # fmt: skip
def test_the_search_finds_exact_names_first(known: Books, text: str, kinds: list[tuple[str, int]]) -> None:
    with known.database.read() as connection:
        assert [(hit.kind, hit.rank) for hit in search.search(connection, text)] == kinds


def test_the_search_finds_digests_and_origins(known: Books) -> None:
    (file,), (log,) = known.rows(db.files), known.rows(db.logs)
    with known.database.read() as connection:
        for text, rank in ((file["sha256"], 0), (file["sha256"][:8].upper(), 1)):
            (hit,) = search.search(connection, text)
            assert (hit.kind, hit.key, hit.rank) == ("file", (file["sha256"],), rank)
        (hit,) = search.search(connection, log["origin"])
        assert (hit.kind, hit.key, hit.rank) == ("log", ("L-1", log["device_id"]), 0)
        assert [hit.kind for hit in search.search(connection, log["device_id"])] == ["machine"]


# --- plans in words -----------------------------------------------------------------------------------


def told(text: str) -> str:
    return "\n".join(line for part in plan_words.sections(load_plan(text.encode())) for line in part.lines)


def test_a_plan_in_words_says_every_number_of_it() -> None:
    said = told("""
plan: {id: big, version: 7, currency: KWD, tz: Asia/Kuwait, grace_days: 12, late_window_months: 9,
       rounding: half_even}
meters: {out: {field: tok_out, per: 1000, where: {status: [ok, cancel]}}, n: {field: calls}}
charges:
 - {id: setup, type: one_time, amount: "250.5", name: Set-up}
 - {id: base, type: recurring, amount: "99", when: advance, prorate: day}
 - {id: tok, type: usage, meter: out, model: graduated, included: "33",
    tiers: [{up_to: "10001", unit: "0.0400", flat: "3"}, {unit: "0.0150"}], min: "5", max: "1234567"}
 - {id: pack, type: usage, meter: n, model: package, package: {size: "44", price: "0.85", free: "77"}}
 - {id: one, type: usage, meter: n, model: per_unit, unit: "0.000000000001"}
 - {id: vol, type: usage, meter: n, model: volume, tiers: [{up_to: "88", unit: "2"}, {unit: "1"}]}
commitments:
 - {id: min, kind: minimum, scope: [base, tok], amount: "500.00", per: period}
 - {id: year, kind: committed_spend, scope: [tok], amount: "12000", per: term, billing: prepaid,
    overage_factor: "1.2", unused: rollover}
discounts: [{id: partner, scope: [tok], bps: 1250}]
tax: {category: S, percent: "7.7"}
shares: {base: net, scope: [tok], pool: [
  {party: platform, take: [{up_to: "10002", bps: 3000}, {bps: 1100}], per: calendar_year},
  {party: "creator:acme", bps: 200}, {party: "creator:b", rest: true}]}
""")
    for part in (
        "big, version 7, in KWD", "Asia/Kuwait", "12 days", "9 months", "even neighbour", "of 1,000",
        "went well and were cancelled", "Set-up: 250.500 KWD once", "base: 99.000 KWD a month, billed in",
        "the first 33 times 1,000 output tokens", "up to 10,001: 0.040 KWD each, and 3.000 KWD once",
        "above 10,001: 0.015 KWD", "at least 5.000 KWD and at most 1,234,567.000 KWD a month",
        "0.850 KWD for every 44 calls beyond the first 77", "0.000000000001 KWD for each call",
        "all of the month's units cost what the last one does", "up to 88: 2.000 KWD",
        "base and tok come together to at least 500.000 KWD", "12,000.000 KWD of tok", "billed at its start",
        "1.2 times", "into the next one", "12.5 % off tok", "Category S, 7.7 %", "30 % up to 10,002",
        "11 % above 10,002", "creator:acme earns 2 %.", "creator:b earns what is left.",
    ):  # fmt: skip
        assert part in said, said


def test_a_small_plan_says_little() -> None:
    plan = rating_plans.make_plan(rating_plans.recurring("99.00"))
    titles = [section.title for section in plan_words.sections(plan)]
    assert titles == ["The plan", "What is counted", "What it costs"]
    assert plan_words.sections(plan) == plan_words.sections(replace(plan))
