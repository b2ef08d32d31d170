"""Usage that comes after its month was invoiced: documents add up to what the months rate to now."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings, strategies as st
from support.books import Books
from support.device import T0, Device, make_license, seal_license
from support.rating_plans import GRADUATED, make_plan, per_unit, plan_data, recurring

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, billing, corrections, db, ledger, registry
from sealpack.settlement.audit import Actor
from sealpack.settlement.plan import Plan
from sealpack.settlement.reconcile import reconcile

MONTHS = (date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1))
LATER = T0 + 80 * 86_400
CLERK = Actor("clerk", LATER)


def starts(month: date) -> int:
    return int(datetime.fromisoformat(f"{month}T00:00Z").timestamp()) * 1000


def bill(books: Books, month: date = MONTHS[0]) -> dict[str, Any]:
    printed = billing.bill(books.database, "L-1", month, date(2026, 12, 1), actor=CLERK)
    value: dict[str, Any] = json.loads(printed.json)
    return value


def correct(books: Books, *, draft: bool = False) -> list[dict[str, Any]]:
    made = corrections.correct(books.database, "L-1", date(2026, 12, 5), draft=draft, actor=CLERK)
    return [json.loads(one.json) for one in made]


def late(books: Books, plan: Plan, before: int, after: int) -> list[dict[str, Any]]:
    """September invoiced with `before` tokens; `after` more come later. The corrections."""
    device = Device().use(tok_out=before)
    cut = device.size
    device.use(tok_out=after)
    books.learn(device, plan=plan)
    assert books.code(device.export(0, cut), now=LATER) == "OK"
    bill(books)
    assert correct(books) == []
    assert books.code(device.export(cut), now=LATER) == "W130"
    made = correct(books)
    assert correct(books) == []
    assert audit.verify(books.database)[0] == 1 + len(made)
    return made


def test_late_usage_is_a_further_invoice(books: Books) -> None:
    plan = make_plan(GRADUATED, tax={"category": "S", "percent": "20"})
    (further,) = late(books, plan, 10_000_000, 2_000_000)
    assert (further["kind"], further["corrects"]) == ("invoice", "INV-000001")
    assert further["reason"] == "late usage for September 2026"
    assert [line["amount"] for line in further["lines"]] == ["50.00"]  # the second tier, not the first again
    assert (further["net"], further["tax"], further["total"]) == ("50.00", "10.00", "60.00")
    assert (further["period_start"], further["date"]) == ("2026-09-01", "2026-12-05")


def test_late_usage_that_lowers_the_price_is_a_credit_note(books: Books) -> None:
    plan = make_plan(GRADUATED | {"model": "volume"}, tax={"category": "S", "percent": "20"})
    (note,) = late(books, plan, 50_000_000, 1)
    assert (note["kind"], note["corrects"]) == ("credit_note", "INV-000001")
    assert (note["net"], note["tax"], note["total"]) == ("-500.00", "-100.00", "-600.00")
    assert "due" not in note and "payment" not in note


def test_late_usage_that_costs_nothing_needs_no_document(books: Books) -> None:
    assert late(books, make_plan(per_unit("1", included="1000"), per=1), 5, 7) == []


def test_late_usage_drawn_from_what_was_prepaid(books: Books) -> None:
    """The customer owes nothing more, the creator earned more."""
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "100.00", "per": "term",
             "billing": "prepaid", "overage_factor": "1", "unused": "forfeit"}  # fmt: skip
    shares = {"scope": ["tok"], "pool": [{"party": "creator:a", "rest": True}]}
    plan = make_plan(per_unit("1"), per=1, commitments=[spend], shares=shares)
    (further,) = late(books, plan, 30, 20)
    assert (further["kind"], further["total"]) == ("invoice", "0.00")
    assert further["shares"] == [{"party": "creator:a", "amount": "20.00"}]
    assert [line["raw"] for line in further["lines"]] == ["50"]
    with books.database.read() as connection:
        (balances,) = ledger.trial_balance(connection).values()
    assert balances == {
        ("receivable", "hospital"): 10_000, ("deferred", "hospital"): -5_000,
        ("payable", "creator:a"): -5_000,
    }  # fmt: skip


def test_a_minimum_takes_late_usage_in(books: Books) -> None:
    """More usage and less true-up: a document that says so, with nothing to pay."""
    minimum = {"id": "min", "kind": "minimum", "scope": ["tok"], "amount": "100.00", "per": "period"}
    (further,) = late(books, make_plan(per_unit("1"), per=1, commitments=[minimum]), 30, 20)
    assert [(line["kind"], line["amount"]) for line in further["lines"]] == [
        ("charge", "20.00"), ("true_up", "-20.00"),
    ]  # fmt: skip
    assert further["total"] == "0.00"


def test_an_advance_charge_of_two_months_on_one_invoice_is_not_mixed_up(books: Books) -> None:
    plan = make_plan(recurring("30.00", when="advance", prorate="day"), per_unit("1"), per=1)
    (further,) = late(books, plan, 5, 7)
    assert [(line["charge"], line["amount"]) for line in further["lines"]] == [("tok", "7.00")]


def test_an_activation_that_comes_to_light_later(books: Books) -> None:
    """The license ran from the 11th, not from the 21st: the month costs more."""
    earlier = T0 - 10 * 86_400
    books.learn(
        Device(make_license(nbf=earlier)), plan=make_plan(recurring("30.00", when="arrears", prorate="day"))
    )
    assert bill(books)["total"] == "10.00"
    with books.database.write() as connection:
        connection.execute(sa.update(db.activations).values(first_at=earlier))
    (further,) = correct(books)
    assert further["total"] == "10.00"


def test_a_renewal_does_not_move_the_beginning(books: Books) -> None:
    device = Device()
    books.learn(device, plan=make_plan(recurring("30.00", when="arrears", prorate="day")))
    bill(books)
    with books.database.write() as connection:
        renewed = make_license(seq=2, issued_at=T0 + 9, nbf=T0 + 60 * 86_400)
        registry.put_documents(connection, [seal_license(renewed)])
    assert correct(books) == []
    assert bill(books, MONTHS[1])["total"] == "30.00"


def test_the_customers_new_tax_is_not_for_old_months(books: Books) -> None:
    device = Device().use(tok_out=100)
    cut = device.size
    device.use(tok_out=100)
    books.learn(device, plan=make_plan(per_unit("1"), per=1, tax={"category": "S", "percent": "20"}))
    books.ingest(device.export(0, cut), now=LATER)
    bill(books)
    moved = {"id": "hospital", "legal_name": "H", "tax": {"category": "Z", "percent": "0"}}
    books.take("c.json", json.dumps({"schema": "sealpack/customers/v1", "customers": [moved]}).encode())
    assert correct(books) == []
    books.ingest(device.export(cut), now=LATER)
    assert [(one["net"], one["tax"]) for one in correct(books)] == [("100.00", "20.00")]


def test_a_draft_correction_stores_nothing(books: Books) -> None:
    device = Device().use(tok_out=100)
    cut = device.size
    device.use(tok_out=100)
    books.learn(device, plan=make_plan(per_unit("1"), per=1))
    books.ingest(device.export(0, cut), now=LATER)
    bill(books)
    books.ingest(device.export(cut), now=LATER)
    (draft,) = correct(books, draft=True)
    assert draft["draft"] and "number" not in draft and draft["total"] == "100.00"
    assert len(books.rows(db.invoices)) == 1
    assert [one["number"] for one in correct(books)] == ["INV-000002"]


def test_licenses_that_cannot_be_rated_again_are_named(books: Books) -> None:
    device = Device().use(tok_out=100)
    books.learn(device, plan=make_plan(per_unit("1"), per=1))
    books.ingest(device.export(), now=LATER)
    bill(books)
    with books.database.write() as connection:
        connection.execute(sa.delete(db.plans))
    made, skipped = corrections.correct_all(books.database, None)
    assert (made, skipped) == ([], {"L-1": "the plan of INV-000001, example version 1, is not known here"})
    assert corrections.correct_all(books.database, None, customer="nobody") == ([], {})
    with pytest.raises(SealpackError) as caught:
        corrections.correct(books.database, "L-9", None)
    assert caught.value.code == "REGISTRY_INVALID"


def test_parts_that_moved_and_nothing_else_have_a_document_of_nothing(books: Books) -> None:
    """October was invoiced before September's usage came, and gave the platform the year's first tier."""
    take = [{"up_to": "100", "bps": 5000}, {"bps": 1000}]
    pool = [{"party": "platform", "take": take}, {"party": "creator:a", "rest": True}]
    early, late = Device(number=2).use(tok_out=80), Device()
    late.until(starts(MONTHS[1]) + 86_400_000).use(tok_out=100)
    plan = make_plan(per_unit("1"), per=1, shares={"scope": ["tok"], "pool": pool})
    books.learn(early, late, plan=plan)
    assert books.code(late.export(), now=LATER) == "OK"
    assert parts(bill(books, MONTHS[1])) == {"platform": "50.00", "creator:a": "50.00"}
    assert books.code(early.export(), now=LATER) == "OK"
    assert parts(bill(books, MONTHS[0])) == {"platform": "40.00", "creator:a": "40.00"}
    (moved,) = correct(books)
    assert parts(moved) == {"platform": "-32.00", "creator:a": "32.00"}
    assert (moved["total"], moved["period_start"], moved["corrects"]) == ("0.00", "2026-10-01", "INV-000001")
    assert moved["reason"] == "parts of the parties for October 2026"
    assert correct(books) == []
    with books.database.read() as connection:
        (balances,) = ledger.trial_balance(connection).values()
    assert balances["payable", "creator:a"] == -12_200  # of 180: less 50 of the first 100 and 8 of the rest


def parts(document: dict[str, Any]) -> dict[str, str]:
    return {share["party"]: share["amount"] for share in document["shares"]}


# --- whatever order files arrive in -----------------------------------------------------------------


def everything() -> Plan:
    """Tiers, an advance charge, a commitment, a minimum, tax, and a platform's part with yearly tiers."""
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "300.00", "per": "term",
             "billing": "prepaid", "overage_factor": "1.2", "unused": "forfeit"}  # fmt: skip
    minimum = {"id": "min", "kind": "minimum", "scope": ["calls"], "amount": "20.01", "per": "period"}
    calls = {"id": "calls", "type": "usage", "meter": "n", "model": "volume",
             "tiers": [{"up_to": "40", "unit": "0.77"}, {"unit": "0.33"}]}  # fmt: skip
    pool = [
        {"party": "platform", "take": [{"up_to": "100", "bps": 3333}, {"bps": 1111}]},
        {"party": "creator:a", "bps": 4001}, {"party": "creator:b", "rest": True},
    ]  # fmt: skip
    data = plan_data(
        recurring("30.01", when="advance", prorate="day"), GRADUATED, calls, per=1,
        commitments=[spend, minimum], shares={"scope": ["tok", "calls"], "pool": pool},
        tax={"category": "S", "percent": "19"},
    )  # fmt: skip
    meters = {"m": {"field": "tok_out", "per": 1000}, "n": {"field": "calls"}}
    return Plan.from_dict(data | {"meters": meters})


@cache
def machine() -> tuple[Device, list[bytes]]:
    """A device that worked in three months, and its usage in eight files."""
    device = Device()
    for month in MONTHS:
        device.until(max(device.now_ms, starts(month) + 86_400_000))
        for _ in range(9):
            device.use(tok_out=950_000).wait(7_200_000).use(calls=5)
    bounds = [device.size * n // 8 for n in range(9)]
    return device, [device.export(*span) for span in pairwise(bounds)]


def sums(rows: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Minor units by what they are for: per period net, tax and lines, and per party over all."""
    total: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if row["kind"] not in kinds:
            continue
        value = json.loads(row["json"])
        period = row["period"]
        total[period, "net"] += minor(value["net"])
        total[period, "tax"] += minor(value["tax"])
        for line in value["lines"]:
            total[period, line["charge"], line["kind"], line["service_start"]] += minor(line["amount"])
        for share in value["shares"]:
            total[("party", share["party"])] += minor(share["amount"])
    return Counter({key: amount for key, amount in total.items() if amount})


def minor(text: str) -> int:
    return int(Fraction(text) * 100)


@cache
def truth() -> Counter[tuple[str, ...]]:
    """What is billed when everything had arrived before the first invoice."""
    device, files = machine()
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder)).learn(device, plan=everything())
        for data in files:
            books.ingest(data, now=LATER)
        for month in MONTHS:
            bill(books, month)
        found = sums(books.rows(db.invoices), ("invoice",))
        books.database.close()
    return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("file"), st.integers(0, 7)),
        st.tuples(st.just("bill"), st.integers(0, 2)),
        st.tuples(st.just("correct"), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=15, deadline=None)
@given(STEPS, st.permutations(range(8)))
def test_documents_add_up_to_the_truth_in_any_order(steps: list[tuple[str, int]], rest: list[int]) -> None:
    device, files = machine()
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder)).learn(device, plan=everything())
        stored: dict[str, Any] = {}
        end = [("file", n) for n in rest] + [("bill", n) for n in range(3)] + [("correct", 0)]
        for what, which in [*steps, *end]:
            if what == "file":
                books.ingest(files[which], now=LATER)
            elif what == "bill":
                bill(books, MONTHS[which])
            else:
                correct(books)
            now = {row["name"]: row for row in books.rows(db.invoices)}
            assert {name: now[name] for name in stored} == stored, "an issued document changed"
            stored = now
        rows = books.rows(db.invoices)
        assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        assert sums(rows, corrections.RATED) == truth()
        assert correct(books) == []
        with books.database.read() as connection:
            assert not ledger.unbalanced(connection)
            for balances in ledger.trial_balance(connection).values():
                assert sum(balances.values()) == 0
                assert ledger.total(balances, "receivable") + ledger.total(balances, "credit") == sum(
                    row["total"] for row in rows
                )
        audit.verify(books.database)
        assert reconcile(books.database, LATER).ok
        books.database.close()


# --- numbers without gaps ---------------------------------------------------------------------------

ISSUE = """
import sys
from datetime import date
from sealpack.settlement import billing, corrections, db
with db.Database.open(sys.argv[1]) as database:
    for month in range(9, 13):
        for number in range(1, 9):
            billing.bill(database, f"L-{number}", date(2026, month, 1), date(2026, 12, 1))
            corrections.correct(database, f"L-{number}", date(2026, 12, 1))
print("done")
"""


def many(books: Books) -> list[str]:
    """Eight licenses; the command that invoices four months of each."""
    devices = [Device(make_license(license_id=f"L-{n}"), number=n).use(tok_out=n) for n in range(1, 9)]
    books.learn(*devices, plan=make_plan(recurring("1.00"), per_unit("1"), per=1))
    for device in devices:
        books.ingest(device.export(), now=LATER)
    return [sys.executable, "-c", ISSUE, str(books.folder / "settlement.db")]


def whole(books: Books) -> bool:
    rows = books.rows(db.invoices)
    each = Counter((row["license_id"], row["period"]) for row in rows)
    booked = {row["document"] for row in books.rows(db.transactions)}
    return (
        [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        and set(each.values()) <= {1}
        and booked == {row["name"] for row in rows}
        and audit.verify(books.database)[0] == len(rows)
    )


@pytest.mark.sqlite_only
def test_two_processes_issue_at_once(books: Books) -> None:
    command = many(books)
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert len(books.rows(db.invoices)) == 32
    assert whole(books)


@pytest.mark.sqlite_only
def test_a_process_killed_while_it_issues(books: Books) -> None:
    command = many(books)
    for some in (1, 7, 20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(books.rows(db.invoices)) < some:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert whole(books)
    assert subprocess.run(command, capture_output=True, text=True).stdout == "done\n"
    assert len(books.rows(db.invoices)) == 32 and whole(books)
