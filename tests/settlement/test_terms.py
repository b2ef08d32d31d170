"""Terms and plans that follow each other: what was paid ahead is drawn, carried or forfeited, to the cent."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings, strategies as st
from support.books import Books
from support.device import Device, make_license, seal_license
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.format.errors import SealpackError
from sealpack.format.license import License, PlanRef
from sealpack.settlement import (
    audit,
    billing,
    corrections,
    db,
    evidence_check,
    evidence_pack,
    ledger,
    payouts,
    receivables,
    registry,
)
from sealpack.settlement.audit import Actor
from sealpack.settlement.contract import terms_of
from sealpack.settlement.periods import Term
from sealpack.settlement.plan import Plan

SEP, OCT, NOV, DEC = (date(2026, month, 1) for month in (9, 10, 11, 12))
CLERK = Actor("clerk", 0)
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "specs/schemas/invoice.json").read_text("utf-8"))
)
POOL = {"scope": ["tok"], "pool": [{"party": "platform", "bps": 2000}, {"party": "creator:a", "rest": True}]}


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}T00:00Z").timestamp())


def spend(amount: str = "100.00", unused: str = "forfeit", billing: str = "prepaid") -> dict[str, Any]:
    item = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": amount, "per": "term",
            "billing": billing, "overage_factor": "2"}  # fmt: skip
    return item | ({"unused": unused} if billing == "prepaid" else {})


def sold(*commitments: dict[str, Any], version: int = 1, unit: str = "1", **more: Any) -> Plan:
    """A plan at `unit` per token."""
    head = {"version": version, **more.pop("head", {})}
    return make_plan(per_unit(unit), per=1, commitments=list(commitments), shares=POOL, head=head, **more)


def use(device: Device, **days: int) -> list[bytes]:
    """Tokens on days such as `oct_3=50`; the usage files, one a day."""
    files = []
    for day, tokens in days.items():
        when = datetime.strptime(f"{day} 2026 +0000", "%b_%d %Y %z")
        before = device.size if files else 0
        device.until(int(when.timestamp()) * 1000).use(tok_out=tokens)
        files.append(device.export(before))
    return files


def take(books: Books, *files: bytes, now: str = "2027-01-02") -> None:
    for data in files:
        (outcome,) = books.ingest(data, now=at(now))
        assert outcome.code in ("OK", "W130"), outcome


def bill(books: Books, *months: date) -> list[dict[str, Any]]:
    printed = [billing.bill(books.database, "L-1", month, date(2027, 1, 5), actor=CLERK) for month in months]
    return [checked(one.json) for one in printed]


def checked(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(data)
    SCHEMA.validate(value)
    return value


def correct(books: Books) -> list[dict[str, Any]]:
    made = corrections.correct(books.database, "L-1", date(2027, 1, 9), actor=CLERK)
    assert corrections.correct(books.database, "L-1", date(2027, 1, 9), actor=CLERK) == []
    return [checked(one.json) for one in made]


def renew(books: Books, *plans: Plan, **members: Any) -> License:
    """The next document of L-1, issued on its `nbf`, with the last plan given."""
    with books.database.write() as connection:
        for plan in plans:
            registry.put_plan(connection, plan)
        known = registry.load_license_versions(connection, "L-1")[0]
        ref = PlanRef(plans[-1].id, plans[-1].version) if plans else known.plan
        issued = members.pop("issued_at", members.get("nbf", known.issued_at))
        following = replace(known, seq=known.seq + 1, issued_at=issued, plan=ref, **members)
        registry.put_documents(connection, [seal_license(following)])
    return following


def balances(books: Books) -> dict[str, int]:
    """Per account; everything sums to zero, transaction by transaction, and the trail fits."""
    with books.database.read() as connection:
        assert ledger.unbalanced(connection) == []
        found = ledger.trial_balance(connection)
    audit.verify(books.database)
    total: dict[str, int] = {}
    for accounts in found.values():
        assert sum(accounts.values()) == 0
        for (account, _), amount in accounts.items():
            total[account] = total.get(account, 0) + amount
    return {account: amount for account, amount in total.items() if amount}


def lines(invoice: dict[str, Any]) -> dict[str, str]:
    return {f"{line['charge']}/{line['kind']}": line["amount"] for line in invoice["lines"]}


def breakage(invoice: dict[str, Any]) -> list[str]:
    return [line["breakage"] for line in invoice["lines"] if line["kind"] == "breakage"]


def year_from(begins: str, ends: str | None, plan: Plan, books: Books) -> Device:
    """A license of one term, and its machine, activated on its first day."""
    exp = at(ends) if ends else None
    device = Device(make_license(nbf=at(begins), exp=exp, grace_s=90 * 86_400))
    books.learn(device, plan=plan)
    return device


# --- one term ---------------------------------------------------------------------------------------


def test_what_is_not_drawn_by_the_end_of_the_term_is_forfeited(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend()), books)
    take(books, *use(device, sep_22=30, oct_3=30))
    september, october = bill(books, SEP, OCT)
    assert lines(september) == {"tok/charge": "0.00", "year/prepayment": "100.00"}
    assert lines(october) == {"tok/charge": "0.00", "year/breakage": "0.00"}
    assert (breakage(october), october["total"]) == (["40.00"], "0.00")
    assert october["shares"] == [
        {"party": "platform", "amount": "46.00"}, {"party": "creator:a", "amount": "24.00"}
    ]  # fmt: skip
    assert balances(books) == {"receivable": 10_000, "payable": -4800, "revenue": -5200}


def test_a_term_that_runs_forfeits_nothing(books: Books) -> None:
    device = year_from("2026-09-21", "2027-09-21", sold(spend()), books)
    take(books, *use(device, sep_22=30))
    assert [breakage(one) for one in bill(books, SEP, OCT, NOV)] == [[], [], []]
    assert balances(books)["deferred"] == -7000


def test_late_usage_of_an_ended_term_takes_from_what_was_forfeited(books: Books) -> None:
    """Of the last month, of an earlier one, and more than was left."""
    device = year_from("2026-09-21", "2026-11-01", sold(spend()), books)
    first, late, more, too_much = use(device, sep_22=30, oct_3=10, oct_4=30, oct_5=50)
    take(books, first)
    bill(books, SEP, OCT)
    take(books, late)
    (further,) = correct(books)
    assert (breakage(further), further["total"]) == (["-10.00"], "0.00")
    assert further["shares"] == [
        {"party": "platform", "amount": "-8.00"}, {"party": "creator:a", "amount": "8.00"}
    ]  # fmt: skip
    take(books, more)
    correct(books)
    assert "deferred" not in balances(books)
    take(books, too_much)
    (overage,) = correct(books)
    assert (breakage(overage), overage["net"]) == (["-30.00"], "40.00")  # 20 beyond what is left, times 2
    assert balances(books) == {"receivable": 14_000, "payable": -11_200, "revenue": -2800}


def test_late_usage_of_an_earlier_month_moves_what_the_last_one_forfeited(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend()), books)
    first, late = use(device, sep_22=30, sep_23=25)
    take(books, first)
    bill(books, SEP, OCT)
    take(books, late)
    september, october = correct(books)
    assert (september["net"], breakage(september)) == ("0.00", [])
    assert (october["net"], breakage(october)) == ("0.00", ["-25.00"])
    assert balances(books) == {"receivable": 10_000, "payable": -4400, "revenue": -5600}


def test_usage_in_days_of_grace_draws_what_was_forfeited(books: Books) -> None:
    device = year_from("2026-09-21", "2026-10-16", sold(spend()), books)
    take(books, *use(device, oct_3=10, oct_20=20, nov_2=30))
    _, october, november = bill(books, SEP, OCT, NOV)
    assert (breakage(october), breakage(november)) == (["70.00"], ["-30.00"])
    assert november["total"] == "0.00"
    assert balances(books) == {"receivable": 10_000, "payable": -4800, "revenue": -5200}


def test_usage_after_a_postpaid_shortfall_is_not_billed_twice(books: Books) -> None:
    device = year_from("2026-09-21", "2026-10-16", sold(spend(billing="postpaid")), books)
    take(books, *use(device, oct_3=10, nov_2=30, dec_3=70))
    _, october, november, december = bill(books, SEP, OCT, NOV, DEC)
    assert lines(october) == {"tok/charge": "10.00", "year/shortfall": "90.00"}
    assert lines(november) == {"tok/charge": "30.00", "year/shortfall": "-30.00"}
    assert (november["total"], december["total"]) == ("0.00", "20.00")
    assert lines(december)["year/overage"] == "20.00"


# --- terms that follow each other -------------------------------------------------------------------


def test_a_renewal_bills_the_next_prepayment_and_what_is_left_is_forfeited(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend()), books)
    take(books, *use(device, sep_22=30, nov_3=130))
    renew(books, nbf=at("2026-11-01"), exp=at("2027-11-01"))
    september, october, november = bill(books, SEP, OCT, NOV)
    assert (breakage(september), breakage(october)) == ([], ["70.00"])
    assert lines(november) == {"tok/charge": "0.00", "year/prepayment": "100.00", "year/overage": "60.00"}
    assert "deferred" not in balances(books)


def test_a_renewal_takes_over_what_rolls_over(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend(unused="rollover")), books)
    take(books, *use(device, sep_22=30, nov_3=130))
    renew(books, nbf=at("2026-11-01"), exp=at("2026-12-01"))
    _, october, november = bill(books, SEP, OCT, NOV)
    assert breakage(october) == []
    assert lines(november) == {"tok/charge": "0.00", "year/prepayment": "100.00", "year/breakage": "0.00"}
    assert breakage(november) == ["40.00"]  # of 100 and 70, 130 were drawn, and no term follows
    assert "deferred" not in balances(books)


def test_a_renewal_that_comes_late_takes_what_was_forfeited_back(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend(unused="rollover")), books)
    take(books, *use(device, sep_22=30, nov_3=130))
    (_, october) = bill(books, SEP, OCT)
    assert breakage(october) == ["70.00"]
    renew(books, nbf=at("2026-11-01"), exp=at("2027-11-01"), issued_at=at("2026-11-09"))
    (taken_back,) = correct(books)
    assert (breakage(taken_back), taken_back["total"]) == (["-70.00"], "0.00")
    assert balances(books)["deferred"] == -7000
    (november,) = bill(books, NOV)
    assert lines(november) == {"tok/charge": "0.00", "year/prepayment": "100.00"}
    assert balances(books)["deferred"] == -4000


def test_terms_begin_with_the_first_month_that_begins_in_them(books: Books) -> None:
    """The old term's money is drawn to the end of the month in which the new one begins."""
    device = year_from("2026-09-21", "2026-10-16", sold(spend()), books)
    take(books, *use(device, oct_3=10, oct_20=20, nov_2=30))
    renew(books, nbf=at("2026-10-16"), exp=at("2027-10-16"))
    _, october, november = bill(books, SEP, OCT, NOV)
    assert (breakage(october), "year/prepayment" in lines(october)) == (["70.00"], False)
    assert lines(november) == {"tok/charge": "0.00", "year/prepayment": "100.00"}


def test_between_two_terms_nothing_recurs(books: Books) -> None:
    plan = make_plan(recurring("30.00", when="arrears", prorate="day"), per_unit("1"), per=1)
    device = year_from("2026-09-21", "2026-10-01", plan, books)
    take(books, *use(device, nov_2=7))
    renew(books, nbf=at("2026-12-11"), exp=at("2027-12-11"))
    with pytest.raises(SealpackError) as caught:
        bill(books, OCT)
    assert caught.value.message == "license L-1 does not run in that period"
    september, november, december = bill(books, SEP, NOV, DEC)
    assert [one["net"] for one in (september, november, december)] == ["10.00", "7.00", "20.32"]  # 21 of 31


def test_each_terms_creators_wait_for_that_terms_money(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend()), books)
    take(books, *use(device, sep_22=30, nov_3=50))
    renew(books, nbf=at("2026-11-01"), exp=at("2027-11-01"))
    bill(books, SEP, OCT, NOV)
    receivables.pay(books.database, "INV-000001", "100.00", date(2027, 1, 6), "R", actor=CLERK)
    with books.database.read() as connection:
        (creator,) = payouts.payouts(connection)
    assert (creator.earned, creator.released) == (6400, 2400)
    receivables.pay(books.database, "INV-000003", "100.00", date(2027, 1, 7), "R", actor=CLERK)
    with books.database.read() as connection:
        (creator,) = payouts.payouts(connection)
    assert (creator.earned, creator.released) == (6400, 6400)


# --- plans that follow each other -------------------------------------------------------------------


def test_a_new_version_that_asks_for_more_bills_the_difference(books: Books) -> None:
    device = year_from("2026-09-21", None, sold(spend("100.00")), books)
    take(books, *use(device, sep_22=30, oct_3=130))
    renew(books, sold(spend("250.00"), version=2), nbf=at("2026-09-30"))
    september, october = bill(books, SEP, OCT)
    assert lines(september)["year/prepayment"] == "100.00"
    assert lines(october) == {"tok/charge": "0.00", "year/prepayment": "150.00"}
    assert balances(books)["deferred"] == -9000


def test_a_new_version_that_asks_for_less_lets_what_was_paid_be_drawn(books: Books) -> None:
    device = year_from("2026-09-21", None, sold(spend("100.00")), books)
    take(books, *use(device, sep_22=30, oct_3=80))
    renew(books, sold(spend("50.00"), version=2), nbf=at("2026-09-30"))
    _, october = bill(books, SEP, OCT)
    assert lines(october) == {"tok/charge": "0.00", "year/overage": "20.00"}
    assert "deferred" not in balances(books)


def test_a_new_version_without_the_commitment_forfeits_it(books: Books) -> None:
    device = year_from("2026-09-21", None, sold(spend("100.00", "rollover")), books)
    take(books, *use(device, sep_22=30, oct_3=80))
    renew(books, sold(version=2), nbf=at("2026-09-30"))
    september, october = bill(books, SEP, OCT)
    assert breakage(september) == ["70.00"]
    assert lines(october) == {"tok/charge": "80.00"}
    assert "deferred" not in balances(books)


def test_a_new_version_with_a_commitment_bills_it(books: Books) -> None:
    device = year_from("2026-09-21", None, sold(), books)
    take(books, *use(device, sep_22=30, oct_3=80))
    renew(books, sold(spend(), version=2), nbf=at("2026-09-30"))
    september, october = bill(books, SEP, OCT)
    assert lines(september) == {"tok/charge": "30.00"}
    assert lines(october) == {"tok/charge": "0.00", "year/prepayment": "100.00"}
    assert balances(books)["deferred"] == -2000


def test_the_month_before_a_new_version_bills_its_advance_charge(books: Books) -> None:
    old = make_plan(recurring("30.00", when="advance"))
    new = make_plan(recurring("45.00", when="advance"), head={"version": 2})
    year_from("2026-09-21", None, old, books)
    renew(books, new, nbf=at("2026-09-30"))
    assert [one["net"] for one in bill(books, SEP, OCT)] == ["75.00", "45.00"]


def test_a_plan_in_another_currency_starts_anew(books: Books) -> None:
    """Nothing of dollars goes into yen: advance charges, prepayments and yearly tiers begin again."""
    base = recurring("30", when="advance")
    old = make_plan(base, per_unit("1"), per=1, commitments=[spend("100", "rollover")])
    new = make_plan(
        base, per_unit("7"), per=1, commitments=[spend("900", "rollover")],
        head={"version": 2, "currency": "JPY"},
    )  # fmt: skip
    device = year_from("2026-09-21", None, old, books)
    take(books, *use(device, sep_22=30, oct_3=80))
    renew(books, new, nbf=at("2026-09-30"))
    september, october = bill(books, SEP, OCT)
    assert (september["currency"], september["net"], breakage(september)) == ("USD", "130.00", ["70.00"])
    assert (october["currency"], october["net"]) == ("JPY", "960")  # two months of the advance charge
    assert lines(october)["year/prepayment"] == "900"
    with books.database.read() as connection:
        found = ledger.trial_balance(connection)
    deferred = {currency: ledger.total(accounts, "deferred") for (_, currency), accounts in found.items()}
    assert deferred == {"USD": 0, "JPY": -340}


def test_yearly_tiers_of_the_platform_go_on_under_a_new_version(books: Books) -> None:
    pool = [{"party": "platform", "take": [{"up_to": "100", "bps": 5000}, {"bps": 0}]},
            {"party": "creator:a", "rest": True}]  # fmt: skip
    old, new = (
        make_plan(per_unit(unit), per=1, shares={"pool": pool}, head={"version": version})
        for version, unit in ((1, "1"), (2, "10"))
    )
    device = year_from("2026-09-21", None, old, books)
    take(books, *use(device, sep_22=60, oct_3=8))
    renew(books, new, nbf=at("2026-09-30"))
    assert [one["shares"][0]["amount"] for one in bill(books, SEP, OCT)] == ["30.00", "20.00"]


def test_a_plan_of_another_zone_counts_every_quarter_hour_once(books: Books) -> None:
    """Tokyo's October began nine hours before, New York's four hours after UTC's."""
    for zone in ("Asia/Tokyo", "America/New_York"):
        with tempfile.TemporaryDirectory() as folder:
            own = Books.open(Path(folder))
            device = year_from("2026-09-21", None, sold(), own)
            for hour in range(-12, 13):
                device.until((at("2026-10-01") + hour * 3600) * 1000).use(tok_out=1)
            take(own, device.export(), now="2026-12-01")
            renew(own, sold(version=2, head={"tz": zone}), nbf=at("2026-09-25"))
            assert [one["net"] for one in bill(own, SEP, OCT)] == ["12.00", "13.00"]
            own.database.close()


def test_an_issued_month_keeps_its_plan(books: Books) -> None:
    """A document that says it was issued before the month, but came after the month was invoiced."""
    device = year_from("2026-09-21", None, sold(), books)
    first, late = use(device, oct_3=80, oct_4=10)
    take(books, first)
    bill(books, SEP, OCT)
    renew(books, sold(version=2, unit="3"), nbf=at("2026-09-25"))
    assert correct(books) == []
    take(books, late)
    assert [one["net"] for one in correct(books)] == ["10.00"]
    assert lines(bill(books, NOV)[0]) == {"tok/charge": "0.00"}


def test_a_plan_counts_when_its_document_is_valid(books: Books) -> None:
    year_from("2026-09-21", None, make_plan(recurring("1.00")), books)
    new = make_plan(recurring("2.00"), head={"version": 2})
    renew(books, new, nbf=at("2026-11-01"), issued_at=at("2026-09-22"))
    assert [one["net"] for one in bill(books, OCT, NOV)] == ["1.00", "2.00"]


def test_a_pack_of_a_license_that_changed_its_plan_proves_itself(books: Books) -> None:
    device = year_from("2026-09-21", "2026-11-01", sold(spend()), books)
    take(books, *use(device, sep_22=30, oct_3=130, nov_3=30))
    renew(books, sold(spend("200", "rollover"), version=2), nbf=at("2026-10-30"), exp=at("2026-12-01"))
    for month in (SEP, OCT, NOV):
        bill(books, month)
    for name in ("INV-000001", "INV-000002", "INV-000003"):
        with books.database.read() as connection:
            data = evidence_pack.for_invoice(connection, name)
        report = evidence_check.check(data, device.trust)
        assert report.ok, report
    _, files = evidence_pack.read(data)
    assert sum(name.startswith("plans/") for name in files) == 1


# --- what documents make of terms -------------------------------------------------------------------


def documents(*ends: str | None, nbf: dict[int, str] | None = None) -> list[License]:
    return [
        make_license(seq=n, nbf=at((nbf or {}).get(n, "2026-01-01")), exp=at(end) if end else None)
        for n, end in enumerate(ends)
    ]


@pytest.mark.parametrize(
    ("ends", "nbf", "terms"),
    [
        ([None], {}, [("2026-09-21", None)]),
        (["2027-01-01"], {}, [("2026-09-21", "2026-12-31")]),
        (["2027-01-01", "2027-01-01"], {}, [("2026-09-21", "2026-12-31")]),
        (["2027-01-01", "2028-01-01"], {}, [("2026-09-21", "2026-12-31"), ("2027-01-01", "2027-12-31")]),
        (
            ["2027-01-01", "2028-01-01"], {1: "2027-03-01"},
            [("2026-09-21", "2026-12-31"), ("2027-03-01", "2027-12-31")],
        ),
        (["2027-01-01", None], {}, [("2026-09-21", "2026-12-31"), ("2027-01-01", None)]),
        (
            ["2027-01-01", None, "2027-06-01"], {},
            [("2026-09-21", "2026-12-31"), ("2027-01-01", "2027-05-31")],
        ),
        ([None, "2027-01-01"], {}, [("2026-09-21", "2026-12-31")]),
        (["2027-01-01", "2028-01-01", "2026-12-01"], {}, [("2026-09-21", "2026-11-30")]),
    ],
)  # fmt: skip
def test_terms(ends: list[str | None], nbf: dict[int, str], terms: list[tuple[str, str | None]]) -> None:
    found = terms_of(documents(*ends, nbf=nbf), date(2026, 9, 21), "UTC")
    day = date.fromisoformat
    assert found == tuple(Term(day(first), day(last) if last else None) for first, last in terms)


# --- whatever happens -------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Plan], list[tuple[str, Any]]]:
    """Up to three plans in two terms, usage over four months, and when what becomes known."""
    plans = []
    for version in range(1, 4):
        amount = draw(st.sampled_from(["0", "50.00", "100.00", "170.01"]))
        item = spend(amount, draw(st.sampled_from(["forfeit", "rollover"])))
        chosen = [item] if draw(st.integers(0, 4)) else []
        unit = draw(st.sampled_from(["1", "0.335", "2.005"]))
        plans.append(sold(*chosen, version=version, unit=unit, tax={"percent": "19"}))
    days = draw(st.lists(st.integers(22, 120), min_size=1, max_size=6, unique=True))
    tokens = [(("file", (day, draw(st.integers(1, 90))))) for day in sorted(days)]
    acts = [*tokens, ("renew", draw(st.sampled_from([(2, "2026-10-20"), (3, "2026-11-01")])))]
    acts += [("bill", month) for month in (SEP, OCT, NOV, DEC)] + [("correct", None)] * 2
    return plans, draw(st.permutations(acts))


@settings(max_examples=40, deadline=None)
@given(histories())
def test_deferred_ends_at_zero(history: tuple[list[Plan], list[tuple[str, Any]]]) -> None:
    """All terms are over in December: whatever came in whatever order, nothing is left deferred."""
    plans, acts = history
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder))
        device = year_from("2026-09-21", "2026-10-20", plans[0], books)
        files: dict[int, bytes] = {}
        for day, tokens in sorted(what for verb, what in acts if verb == "file"):
            start = device.size if files else 0
            device.until((at("2026-09-01") + day * 86_400) * 1000).use(tok_out=tokens)
            files[day] = device.export(start)
        for verb, what in [*acts, *(("bill", month) for month in (SEP, OCT, NOV, DEC)), ("correct", None)]:
            if verb == "file":
                books.ingest(files[what[0]], now=at("2027-01-02"))
            elif verb == "renew":
                version, begins = what
                renew(books, *plans[1:version], nbf=at(begins), exp=at("2026-12-20"))
            elif verb == "bill":
                try:
                    bill(books, what)
                except SealpackError as error:
                    assert error.code == "USAGE", error
            else:
                correct(books)
        assert balances(books).get("deferred", 0) == 0
        rows = books.rows(db.invoices)
        total = sum(row["total"] for row in rows)
        assert balances(books).get("receivable", 0) + balances(books).get("credit", 0) == total
        books.database.close()
