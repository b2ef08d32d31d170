"""Rating: tiers at their bounds, proration, commitments, minimums, credits, shares, corrections."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.rating_plans import (
    APRIL,
    GRADUATED,
    MID_APRIL,
    QUARTER,
    TIERS,
    make_plan,
    per_unit,
    recurring,
    tokens,
)

from sealpack.settlement.commitments import next_term
from sealpack.settlement.money import Rounding, round_half
from sealpack.settlement.plan import Plan, Tax
from sealpack.settlement.printing import as_printed, correction
from sealpack.settlement.rating import Credit, Span, rate
from sealpack.settlement.results import Line, PeriodResult, State

SPRING = Span(date(2026, 4, 1), date(2026, 6, 30))
MAY = int(MID_APRIL + 30 * 86_400_000)
JUNE = int(MID_APRIL + 61 * 86_400_000)


def one(plan: Plan, usage: Any, span: Span = APRIL, **more: Any) -> PeriodResult:
    (result,) = rate(plan, usage, span, **more)
    return result


def line(result: PeriodResult, charge: str, kind: str = "charge") -> Line:
    (found,) = [item for item in result.lines if (item.charge, item.kind) == (charge, kind)]
    return found


def amounts(result: PeriodResult) -> dict[str, str]:
    return {f"{item.charge}/{item.kind}": result.text(item.amount) for item in result.lines}


def shares(result: PeriodResult) -> dict[str, int]:
    return {share.party: share.amount for share in result.shares}


# --- tiers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "graduated", "volume"),
    [
        (0, 0, 0),
        (1, 4, 4),
        (10_000, 400_00, 400_00),
        (10_001, 400_03, 250_03),  # 400.025 and 250.025
        (50_000, 1400_00, 1250_00),
        (50_001, 1400_02, 750_02),  # 1400.015 and 750.015
    ],
)
def test_tiers_are_closed_above(units: int, graduated: int, volume: int) -> None:
    usage = tokens(units * 1000)
    assert one(make_plan(), usage).net == graduated
    assert one(make_plan({**GRADUATED, "model": "volume"}), usage).net == volume


@pytest.mark.parametrize(("units", "due"), [(0, 0), (1, 501), (10, 510), (11, 511 + 700)])
def test_a_flat_fee_is_due_once_its_tier_is_entered(units: int, due: int) -> None:
    tiers = [{"up_to": "10", "unit": "0.01", "flat": "5"}, {"unit": "0.01", "flat": "7"}]
    assert one(make_plan({**GRADUATED, "tiers": tiers}), tokens(units * 1000)).net == due


def test_included_units_come_off_before_the_first_tier() -> None:
    plan = make_plan({**GRADUATED, "included": "10000"})
    assert one(plan, tokens(9_999_000)).net == 0
    assert one(plan, tokens(20_000_000)).net == 400_00


@pytest.mark.parametrize(("calls", "packages"), [(0, 0), (100, 0), (101, 1), (110, 1), (111, 2)])
def test_a_started_package_counts_whole(calls: int, packages: int) -> None:
    package = {"size": "10", "price": "2.00", "free": "100"}
    plan = make_plan(
        {"id": "p", "type": "usage", "meter": "m", "model": "package", "package": package}, per=1
    )
    assert one(plan, tokens(calls)).net == packages * 200


@given(st.integers(0, 10**11), st.integers(0, 10**9))
def test_graduated_price_never_falls_with_more_usage(amount: int, more: int) -> None:
    plan = make_plan()
    assert one(plan, tokens(amount)).net <= one(plan, tokens(amount + more)).net


@given(st.integers(0, 10**9))
def test_graduated_price_is_the_sum_over_every_unit_price(amount: int) -> None:
    units = Fraction(amount, 1000)
    exact = (
        min(units, 10_000) * Fraction("0.04")
        + min(max(units - 10_000, 0), 40_000) * Fraction("0.025")
        + max(units - 50_000, 0) * Fraction("0.015")
    )
    assert one(make_plan(), tokens(amount)).net == round_half(exact * 100, Rounding.HALF_UP)


# --- one line, rounded once; order does not matter ------------------------------------------------

ROWS = st.lists(
    st.tuples(
        st.integers(0, 90 * 96 - 1),
        st.sampled_from(["ok", "err", "cancel", "aborted", "lost"]),
        st.integers(0, 10**7),
    ),
    max_size=30,
)


def as_usage(rows: list[tuple[int, str, int]]) -> dict[tuple[int, str, str], int]:
    usage: dict[tuple[int, str, str], int] = {}
    start = MID_APRIL - 14 * 86_400_000 - 43_200_000
    for quarter, status, amount in rows:
        key = (start + quarter * QUARTER, status, "tok_out")
        usage[key] = usage.get(key, 0) + amount
    return usage


def full_plan() -> Plan:
    return make_plan(
        recurring("99.00", when="advance", prorate="day"),
        {**GRADUATED, "max": "5000"},
        {"id": "setup", "type": "one_time", "amount": "250"},
        per_unit("0.00033", "extra"),
        commitments=[
            {"id": "min", "kind": "minimum", "scope": ["base", "tok"], "amount": "500", "prorate": "day"},
            {
                "id": "c",
                "kind": "committed_spend",
                "scope": ["tok"],
                "amount": "900",
                "billing": "prepaid",
                "overage_factor": "1.2",
            },
        ],
        discounts=[{"id": "d", "scope": ["tok"], "bps": 333}],
        tax={"percent": "19"},
        shares={
            "scope": ["tok", "base"],
            "pool": [
                {"party": "platform", "take": [{"up_to": "300", "bps": 3333}, {"bps": 1777}]},
                {"party": "creator:b", "bps": 1250},
                {"party": "creator:acme", "rest": True},
            ],
        },
    )


@given(ROWS, st.randoms())
def test_the_order_of_usage_changes_nothing(rows: list[tuple[int, str, int]], random: Any) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)
    plan = full_plan()
    assert rate(plan, as_usage(rows), SPRING) == rate(plan, as_usage(shuffled), SPRING)


@given(ROWS)
def test_every_printed_sum_adds_up(rows: list[tuple[int, str, int]]) -> None:
    span = Span(SPRING.first, SPRING.last, activated=date(2026, 4, 7), ended=date(2026, 6, 20))
    for result in rate(full_plan(), as_usage(rows), span):
        assert result.net == sum(item.amount for item in result.lines)
        assert result.total == result.net + result.tax
        assert result.tax == round_half(result.net * Fraction(19, 100), Rounding.HALF_UP)
        prepaid = sum(item.amount for item in result.lines if item.kind == "prepayment")
        drawn = sum(item.drawn for item in result.drawdowns)
        assert result.accrued == result.net - prepaid + drawn
        keys = [(item.charge, item.kind) for item in result.lines]
        assert len(keys) == len(set(keys))


@given(ROWS)
def test_takes_of_a_year_telescope(rows: list[tuple[int, str, int]]) -> None:
    results = rate(full_plan(), as_usage(rows), SPRING)
    base = results[-1].state.taken[2026]
    take = min(base, 30_000) * Fraction(3333, 10_000) + max(base - 30_000, 0) * Fraction(1777, 10_000)
    outside = sum(line(result, "extra").amount for result in results)
    paid = sum(shares(result)["platform"] for result in results) - outside
    assert paid == round_half(take, Rounding.HALF_UP)


def test_usage_of_other_periods_is_not_looked_at() -> None:
    assert one(make_plan(), {**tokens(1000), **tokens(10**9, at=MAY)}).net == 4


@pytest.mark.parametrize("key", [(MID_APRIL, "failed", "tok_out"), (MID_APRIL, "ok", "words")])
def test_unknown_usage_is_a_fault_of_the_caller(key: tuple[int, str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be rated"):
        rate(make_plan(), {key: 1}, APRIL)


def test_a_state_carries_one_span_into_the_next() -> None:
    usage = {**tokens(30_000_000), **tokens(40_000_000, at=MAY), **tokens(50_000_000, at=JUNE)}
    plan = full_plan()
    whole = rate(plan, usage, SPRING)
    parts = rate(plan, usage, APRIL)
    parts += rate(plan, usage, Span(date(2026, 5, 1), SPRING.last), state=parts[-1].state)
    assert parts == whole


# --- fixed charges and proration ------------------------------------------------------------------


def test_proration_counts_the_first_and_the_last_day() -> None:
    plan = make_plan(recurring("310.00", prorate="day"))
    span = Span(date(2026, 5, 2), date(2026, 5, 30), date(2026, 5, 2), date(2026, 5, 30))
    result = one(plan, {}, span)
    assert result.net == 290_00
    assert (result.lines[0].first, result.lines[0].last) == (date(2026, 5, 2), date(2026, 5, 30))


def test_only_a_prorated_charge_is_prorated() -> None:
    plan = make_plan(recurring("310.00"))
    assert one(plan, {}, Span(date(2026, 5, 31), date(2026, 5, 31), date(2026, 5, 31))).net == 310_00


def test_included_and_tiers_do_not_prorate() -> None:
    plan = make_plan({**GRADUATED, "included": "1000"})
    span = Span(date(2026, 4, 15), date(2026, 4, 30), date(2026, 4, 15))
    assert one(plan, tokens(11_000_000), span).net == 400_00


def test_a_one_time_charge_falls_on_the_activation_only() -> None:
    plan = make_plan({"id": "setup", "type": "one_time", "amount": "250"})
    span = Span(SPRING.first, SPRING.last, activated=date(2026, 5, 31))
    assert [result.net for result in rate(plan, {}, span)] == [0, 250_00, 0]
    assert [result.net for result in rate(plan, {}, SPRING)] == [0, 0, 0]


def test_nothing_recurs_after_the_end_but_late_usage_is_rated() -> None:
    plan = make_plan(recurring("10"), per_unit("1"))
    span = Span(SPRING.first, SPRING.last, ended=date(2026, 4, 30))
    assert [r.net for r in rate(plan, tokens(5000, at=MAY), span)] == [1000, 500, 0]


def test_charge_min_and_max_clamp_after_the_discount() -> None:
    discount = [{"id": "d", "bps": 5000}]
    low = make_plan(per_unit("1", min="10.005"), discounts=discount)
    assert one(low, tokens(12_000)).net == 10_01
    high = make_plan(per_unit("1", max="100"), discounts=discount)
    assert one(high, tokens(150_000)).net == 75_00
    assert one(high, tokens(250_000)).net == 100_00


# --- minimums ---------------------------------------------------------------------------------


def minimum(**more: Any) -> dict[str, Any]:
    return {"id": "min", "kind": "minimum", "amount": "100", **more}


@pytest.mark.parametrize(("units", "true_up"), [(0, 10000), (99, 100), (100, None), (101, None)])
def test_a_minimum_is_reached_exactly(units: int, true_up: int | None) -> None:
    result = one(make_plan(per_unit(), commitments=[minimum()]), tokens(units * 1000))
    found = [item.amount for item in result.lines if item.kind == "true_up"]
    assert found == ([] if true_up is None else [true_up])


def test_a_minimum_prorates_and_looks_only_at_its_scope() -> None:
    plan = make_plan(
        per_unit("1"), per_unit("1", "other"), commitments=[minimum(scope=["tok"], prorate="day")]
    )
    span = Span(date(2026, 4, 1), date(2026, 4, 15), date(2026, 4, 1), date(2026, 4, 15))
    assert amounts(one(plan, tokens(10_000), span)) == {
        "tok/charge": "10.00",
        "other/charge": "10.00",
        "min/true_up": "40.00",
    }


def test_a_minimum_counts_the_true_up_of_one_before_it() -> None:
    both = [minimum(id="some", scope=["tok"]), minimum(id="all", amount="120")]
    plan = make_plan(per_unit("1"), per_unit("1", "other"), commitments=both)
    expected = {
        "tok/charge": "0.00",
        "other/charge": "0.00",
        "some/true_up": "100.00",
        "all/true_up": "20.00",
    }
    assert amounts(one(plan, {})) == expected  # 120 in all, never 220
    plan = make_plan(per_unit("1"), per_unit("1", "other"), commitments=both[::-1])
    expected = {"tok/charge": "0.00", "other/charge": "0.00", "all/true_up": "120.00"}
    assert amounts(one(plan, {})) == expected


def test_a_true_up_is_shared_like_the_charges_it_lifts() -> None:
    plan = make_plan(
        per_unit("1"),
        per_unit("3", "own"),
        commitments=[minimum()],
        shares={"scope": ["tok"], "pool": [{"party": "creator:a", "bps": 10000}]},
    )
    assert shares(one(plan, tokens(1000))) == {"creator:a": 2500, "platform": 7500}
    assert shares(one(plan, {})) == {"creator:a": 10000}  # all are zero: the first charge


# --- committed spend ------------------------------------------------------------------------------


def committed(billing: str = "prepaid", **more: Any) -> Plan:
    item = {
        "id": "year",
        "kind": "committed_spend",
        "scope": ["tok"],
        "amount": "100",
        "billing": billing,
        "overage_factor": "1.5",
        **more,
    }
    pool = [{"party": "platform", "bps": 2000}, {"party": "creator:a", "rest": True}]
    return make_plan(per_unit("1"), commitments=[item], tax={"percent": "20"}, shares={"pool": pool})


THREE_MONTHS = {**tokens(60_000), **tokens(60_000, at=MAY), **tokens(10_000, at=JUNE)}


def test_prepaid_bills_ahead_then_only_what_goes_over() -> None:
    span = Span(SPRING.first, SPRING.last, date(2026, 4, 1), date(2026, 6, 30))
    april, may, june = rate(committed(), THREE_MONTHS, span)
    assert amounts(april) == {"tok/charge": "0.00", "year/prepayment": "100.00"}
    assert amounts(may) == {"tok/charge": "0.00", "year/overage": "30.00"}
    assert amounts(june) == {"tok/charge": "0.00", "year/overage": "15.00"}
    assert [r.tax for r in (april, may, june)] == [2000, 600, 300]
    assert [r.drawdowns[0].remaining for r in (april, may, june)] == [4000, 0, 0]


def test_creators_accrue_when_the_money_is_drawn() -> None:
    span = Span(SPRING.first, SPRING.last, date(2026, 4, 1))
    assert [shares(r)["creator:a"] for r in rate(committed(), THREE_MONTHS, span)] == [4800, 5600, 1200]


def test_postpaid_bills_what_is_drawn_and_what_goes_over() -> None:
    april, may, june = rate(committed("postpaid"), THREE_MONTHS, SPRING)
    assert amounts(april) == {"tok/charge": "60.00"}
    assert amounts(may) == {"tok/charge": "40.00", "year/overage": "30.00"}
    assert amounts(june) == {"tok/charge": "0.00", "year/overage": "15.00"}


def test_a_postpaid_shortfall_is_due_at_the_end_of_the_term() -> None:
    span = Span(SPRING.first, SPRING.last, date(2026, 4, 1), date(2026, 6, 30))
    results = rate(committed("postpaid"), tokens(60_000), span)
    assert [r.net for r in results] == [6000, 0, 4000]
    assert amounts(results[2])["year/shortfall"] == "40.00"
    assert shares(results[2]) == {"platform": 800, "creator:a": 3200}


def test_what_was_rolled_over_is_drawn_but_not_billed() -> None:
    span = Span(APRIL.first, APRIL.last, date(2026, 4, 1))
    state = State(carried={"year": Fraction(50)})
    result = one(committed(unused="rollover"), tokens(160_000), span, state=state)
    assert amounts(result) == {"tok/charge": "0.00", "year/prepayment": "100.00", "year/overage": "15.00"}


@pytest.mark.parametrize(("unused", "left"), [("rollover", {"year": Fraction("66.66")}), ("forfeit", {})])
def test_what_is_left_at_the_end_of_a_term_rolls_over_or_is_forfeited(unused: str, left: Any) -> None:
    # 33.335 is drawn as 33.34, so 66.66 of the money paid is left: what rolls over was printed, to the cent.
    plan = committed(unused=unused)
    last = one(plan, tokens(33_335), Span(APRIL.first, APRIL.last, date(2026, 4, 1), date(2026, 4, 30)))
    state = next_term(plan, last.state)
    assert (state.carried, state.used, state.taken) == (left, {}, last.state.taken)
    again = one(plan, tokens(200_000), Span(APRIL.first, APRIL.last, date(2026, 4, 1)), state=state)
    drawn = 10_000 + (6666 if left else 0)
    assert amounts(again)["year/prepayment"] == "100.00"
    assert (again.drawdowns[0].drawn, again.drawdowns[0].remaining) == (drawn, 0)


def test_nothing_of_a_postpaid_spend_rolls_over() -> None:
    plan = committed("postpaid")
    assert next_term(plan, one(plan, {}).state).carried == {}


def test_the_working_of_a_commitment_can_be_followed() -> None:
    span = Span(SPRING.first, SPRING.last, date(2026, 4, 1), date(2026, 6, 30))
    _, may, june = rate(committed(), THREE_MONTHS, span)
    assert line(may, "tok").steps[-1].text == "40.00 of 60 drawn from year, paid ahead"
    assert [step.text for step in line(may, "year", "overage").steps] == [
        "list money 60 + 60 = 120 of 100 committed, 20 beyond it",
        "20 × 1.5 = 30",
    ]
    assert [step.text for step in line(june, "year", "overage").steps] == [
        "list money 120 + 10 = 130 of 100 committed, 30 beyond it",
        "30 × 1.5 = 45, of which 30.00 was billed before = 15.00",
    ]
    last = rate(committed("postpaid"), tokens(60_000), span)[-1]
    assert line(last, "year", "shortfall").steps[0].text == "committed 100.00 less 60.00 drawn = 40.00"


def test_drawn_money_counts_toward_a_minimum() -> None:
    item = {"id": "y", "kind": "committed_spend", "amount": "1000", "billing": "prepaid"}
    plan = make_plan(per_unit("1"), commitments=[minimum(), item])
    used = State(used={"y": Fraction(0)})
    assert one(plan, tokens(100_000), state=used).net == 0
    assert amounts(one(plan, tokens(99_000), state=used))["min/true_up"] == "1.00"


@given(st.lists(st.integers(0, 80_000), min_size=3, max_size=3), st.sampled_from(["prepaid", "postpaid"]))
def test_a_terms_parts_add_up_to_the_term(used: list[int], billing: str) -> None:
    # 0.333 per token: no period's list total is a whole cent.
    plan = make_plan(
        per_unit("0.333"),
        per=100,
        commitments=[
            {
                "id": "y",
                "kind": "committed_spend",
                "amount": "100",
                "billing": billing,
                "overage_factor": "1.25",
            }
        ],
    )
    usage = {}
    for amount, at in zip(used, (MID_APRIL, MAY, JUNE), strict=True):
        usage.update(tokens(amount, at=at))
    results = rate(plan, usage, SPRING)
    total = Fraction(sum(used), 100) * Fraction("0.333")
    drawn, over = min(total, 100), Fraction("1.25") * max(total - 100, 0)
    assert sum(r.drawdowns[0].drawn for r in results) == round_half(drawn * 100, Rounding.HALF_UP)
    assert sum(r.drawdowns[0].overage for r in results) == round_half(over * 100, Rounding.HALF_UP)


# --- tax, credits, shares ---------------------------------------------------------------------


def test_the_customers_own_tax_replaces_the_plans_default() -> None:
    plan = make_plan(per_unit("1"), tax={"percent": "20"})
    exempt = one(plan, tokens(5000), tax=Tax("AE", Fraction(0), "reverse charge"))
    assert (exempt.tax, exempt.taxes[0].reason) == (0, "reverse charge")
    assert one(plan, tokens(5000)).tax == 100


def test_a_credit_comes_off_before_tax_and_never_goes_below_zero() -> None:
    plan = make_plan(per_unit("1"), tax={"percent": "20"})
    some = one(plan, tokens(10_000), credits=[Credit("g", 400, date(2026, 4, 9))])
    assert (some.net, some.tax, some.total) == (600, 120, 720)
    more = one(plan, tokens(10_000), credits=[Credit("g", 4000, date(2026, 4, 9))])
    assert (more.net, more.total) == (0, 0)
    assert sum(share.amount for share in more.shares) == 0
    other = one(plan, tokens(10_000), credits=[Credit("g", 400, date(2026, 5, 1))])
    assert other.net == 1000


def test_a_credit_is_borne_in_proportion_to_what_is_printed() -> None:
    plan = make_plan(
        per_unit("1"),
        per_unit("3", "own"),
        shares={"scope": ["tok"], "pool": [{"party": "creator:a", "bps": 10000}]},
    )
    result = one(plan, tokens(10_000), credits=[Credit("g", 400, date(2026, 4, 9))])
    assert shares(result) == {"creator:a": 900, "platform": 2700}
    scoped = one(plan, tokens(10_000), credits=[Credit("g", 5000, date(2026, 4, 9), scope=("tok",))])
    assert shares(scoped) == {"creator:a": 0, "platform": 3000}


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=5), st.integers(0, 10**7))
def test_shares_always_sum_to_the_base(bps: list[int], base: int) -> None:
    members = [{"party": f"creator:c{n}", "bps": part} for n, part in enumerate(bps[:3])]
    pool = [*members, {"party": "platform", "rest": True}]
    plan = make_plan(per_unit("0.01"), per=1, shares={"pool": pool})
    result = one(plan, tokens(base))
    assert sum(share.amount for share in result.shares) == result.net == base
    for member, share in zip(members, result.shares, strict=False):
        assert abs(share.amount - Fraction(base * member["bps"], 10_000)) < 1


def test_without_shares_everything_is_the_platforms() -> None:
    assert shares(one(make_plan(per_unit("1")), tokens(1000))) == {"platform": 100}


def test_a_take_starts_again_with_the_calendar_year() -> None:
    pool = [
        {"party": "platform", "take": [{"up_to": "100", "bps": 5000}, {"bps": 0}]},
        {"party": "creator:a", "rest": True},
    ]
    plan = make_plan(recurring("100"), shares={"pool": pool})
    results = rate(plan, {}, Span(date(2026, 11, 1), date(2027, 1, 31)))
    assert [shares(result)["platform"] for result in results] == [5000, 0, 5000]


# --- what is printed when, and corrections --------------------------------------------------------


def test_advance_lines_are_printed_one_invoice_early() -> None:
    plan = make_plan(recurring("90", when="advance", prorate="day"), per_unit("1"), tax={"percent": "10"})
    span = Span(SPRING.first, SPRING.last, date(2026, 4, 16), date(2026, 6, 30))
    rated = rate(plan, {**tokens(1000), **tokens(2000, at=MAY)}, span)
    assert [result.net for result in rated] == [4600, 9200, 9000]
    printed = as_printed(rated)
    assert [result.net for result in printed] == [4600 + 9000, 200 + 9000, 0]
    assert [result.tax for result in printed] == [1360, 920, 0]
    assert printed[0].lines[-1].first == date(2026, 5, 1)
    assert sum(result.accrued for result in printed) == sum(result.accrued for result in rated)


def test_a_take_follows_the_year_that_an_advance_line_serves() -> None:
    pool = [
        {"party": "platform", "take": [{"up_to": "100", "bps": 5000}, {"bps": 0}]},
        {"party": "creator:a", "rest": True},
    ]
    plan = make_plan(recurring("100", when="advance"), shares={"pool": pool})
    rated = rate(plan, {}, Span(date(2026, 11, 1), date(2027, 2, 28)))
    assert [shares(result)["platform"] for result in as_printed(rated)] == [5000, 5000, 0, 0]


def test_the_worked_credit_note() -> None:
    plan = make_plan(tax={"percent": "20"})
    change = correction(one(plan, tokens(73_456_789)), one(plan, tokens(63_456_789)))
    assert change is not None
    assert (change.net, change.tax, change.total, change.is_credit) == (-15000, -3000, -18000, True)
    assert [item.amount for item in change.lines] == [-15000]


def test_no_difference_is_no_correction() -> None:
    assert correction(one(make_plan(), tokens(5)), one(make_plan(), tokens(5))) is None


@given(ROWS, ROWS)
def test_issued_plus_correction_is_the_re_rated_truth(
    before: list[tuple[int, str, int]], late: list[tuple[int, str, int]]
) -> None:
    plan = full_plan()
    for old, new in zip(
        rate(plan, as_usage(before), SPRING), rate(plan, as_usage(before + late), SPRING), strict=True
    ):
        change = correction(old, new)
        if change is None:
            assert (old.net, old.tax, old.shares) == (new.net, new.tax, new.shares)
            continue
        assert old.net + change.net == new.net
        assert old.tax + change.tax == new.tax
        assert sum(item.amount for item in change.lines) == change.net
        merged = shares(old)
        for share in change.shares:
            merged[share.party] = merged.get(share.party, 0) + share.amount
        assert {k: v for k, v in merged.items() if v} == {k: v for k, v in shares(new).items() if v}


def test_a_correction_compares_one_period_under_one_plan() -> None:
    other = make_plan({**GRADUATED, "tiers": TIERS[2:]})
    with pytest.raises(ValueError, match="one period"):
        correction(one(make_plan(), {}), one(other, {}))
