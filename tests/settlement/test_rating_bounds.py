"""Every formula of specs/rating.md at its bounds: one below, at and one above."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support import rating_oracle as oracle
from support.rating_dice import ZONES
from support.rating_plans import GRADUATED, make_plan, per_unit, recurring, tokens

from sealpack.settlement.money import Rounding
from sealpack.settlement.periods import Period, day_start, find_period, periods_between, zone_names
from sealpack.settlement.plan import Plan
from sealpack.settlement.rating import Credit, Span, rate
from sealpack.settlement.results import PeriodResult, State

APRIL = Span(date(2026, 4, 1), date(2026, 4, 30), date(2026, 4, 1), date(2026, 4, 30))
CURRENCIES = ("JPY", "USD", "KWD", "CLF")
cents = st.integers(0, 10**6)
bounds = st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True).map(sorted)


def april(plan: Plan, usage: Any = (), **more: Any) -> PeriodResult:
    (result,) = rate(plan, dict(usage), APRIL, **more)
    return result


def exact(plan: Plan, amount: int) -> Fraction:
    """What `amount` tokens cost before the one rounding: the last amount of the working but that one."""
    (line,) = april(plan, tokens(amount)).lines
    amounts = [step.amount for step in line.steps if step.amount is not None and step.step != "round"]
    return amounts[-1] if amounts else Fraction(0)


def stairs(ups: list[int], model: str, flats: list[int]) -> Plan:
    """Tiers whose n-th unit price is n + 1 hundredths, with these flat fees."""
    tiers: list[dict[str, Any]] = [{"up_to": str(up)} for up in ups] + [{}]
    for index, tier in enumerate(tiers):
        tier["unit"] = f"0.{index + 1:02}"
        tier["flat"] = str(flats[index % len(flats)])
    return make_plan({**GRADUATED, "model": model, "tiers": tiers}, per=1000)


# --- clamps and discounts ---


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_charge_is_held_between_its_minimum_and_its_maximum(used: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    limits = {"min": f"{low // 100}.{low % 100:02}", "max": f"{high // 100}.{high % 100:02}"}
    result = april(make_plan(per_unit("0.01", **limits), per=1), tokens(used))
    assert result.net == min(max(used, low), high)
    for at in (low, high):  # at the bound itself nothing is raised or cut
        (line,) = april(make_plan(per_unit("0.01", **limits), per=1), tokens(at)).lines
        assert line.amount == at and not {"min", "max"} & {step.step for step in line.steps}


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=4), st.integers(0, 10**6), st.randoms())
def test_discounts_multiply_in_any_order_and_are_rounded_once(bps: list[int], used: int, random: Any) -> None:
    named = [{"id": f"d{n}", "scope": ["tok"], "bps": part} for n, part in enumerate(bps)]
    other = random.sample(named, len(named))
    left = Fraction(used, 100)
    for part in bps:
        left *= Fraction(10_000 - part, 10_000)
    for discounts in (named, other):
        result = april(make_plan(per_unit("0.01"), per=1, discounts=discounts), tokens(used))
        assert result.net == oracle.to_minor(left, "USD", "half_up")


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_usage_after_the_end_takes_off_the_shortfall_what_it_draws(before: int, after: int) -> None:
    """Whatever is used when, a postpaid commitment bills its amount and what goes beyond it, once."""
    item = {"id": "year", "kind": "committed_spend", "amount": "100", "billing": "postpaid"}
    plan = make_plan(per_unit("0.01"), per=1, commitments=[item])
    ended = Span(date(2026, 4, 1), date(2026, 5, 31), date(2026, 4, 1), date(2026, 4, 20))
    may = int(datetime(2026, 5, 7, tzinfo=UTC).timestamp()) * 1000
    results = rate(plan, {**tokens(before), **tokens(after, at=may)}, ended)
    assert sum(result.net for result in results) == max(10_000, before + after)


# --- tiers, packages, included ---


@given(bounds, st.lists(st.integers(0, 9), min_size=1, max_size=5), st.data())
def test_a_graduated_price_goes_on_from_the_bound_with_the_next_tiers_price(
    ups: list[int], flats: list[int], data: st.DataObject
) -> None:
    plan = stairs(ups, "graduated", flats)
    index = data.draw(st.integers(0, len(ups) - 1))
    at = exact(plan, ups[index] * 1000)
    below, above = exact(plan, ups[index] * 1000 - 1), exact(plan, ups[index] * 1000 + 1)
    assert at - below == Fraction(index + 1, 100_000)
    assert above - at == Fraction(index + 2, 100_000) + flats[(index + 1) % len(flats)]


@given(bounds, st.data())
def test_a_volume_price_belongs_to_the_tier_that_the_bound_closes(
    ups: list[int], data: st.DataObject
) -> None:
    plan = stairs(ups, "volume", [3, 5])
    index = data.draw(st.integers(0, len(ups) - 1))
    up = ups[index]
    assert exact(plan, up * 1000) == up * Fraction(index + 1, 100) + (3, 5)[index % 2]
    one_more = Fraction(up * 1000 + 1, 1000)
    assert exact(plan, up * 1000 + 1) == one_more * Fraction(index + 2, 100) + (5, 3)[index % 2]


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_a_package_is_full_at_its_size_and_one_unit_starts_the_next(size: int, free: int, count: int) -> None:
    package = {"size": str(size), "free": str(free), "price": "0.85"}
    plan = make_plan({"id": "p", "type": "usage", "meter": "m", "model": "package", "package": package})
    full = (free + count * size) * 1000
    assert april(plan, tokens(full)).net == count * 85
    assert april(plan, tokens(full + 1)).net == (count + 1) * 85


@given(st.sampled_from(["per_unit", "graduated", "volume"]), st.integers(0, 10**5))
def test_included_units_cost_nothing_and_the_next_one_starts_at_zero(model: str, included: int) -> None:
    price = {"unit": "2"} if model == "per_unit" else {"tiers": [{"up_to": "1", "unit": "2"}, {"unit": "1"}]}
    charge = {"id": "t", "type": "usage", "meter": "m", "model": model, "included": str(included), **price}
    plan = make_plan(charge)
    assert april(plan, tokens(included * 1000)).net == 0
    assert exact(plan, included * 1000 + 1) == Fraction(2, 1000)
    assert april(plan, tokens((included + 1) * 1000)).net == 200


@pytest.mark.parametrize("model", ["per_unit", "graduated", "volume", "package"])
def test_no_usage_costs_nothing_even_where_the_first_tier_has_a_flat_fee(model: str) -> None:
    more: dict[str, Any] = {"tiers": [{"unit": "1", "flat": "9"}]}
    if model == "per_unit":
        more = {"unit": "1"}
    if model == "package":
        more = {"package": {"size": "10", "price": "9"}}
    result = april(make_plan({"id": "t", "type": "usage", "meter": "m", "model": model, **more}))
    assert [(line.charge, line.amount) for line in result.lines] == [("t", 0)]


# --- rounding, once, in every currency ---


@given(st.sampled_from(CURRENCIES), st.sampled_from(list(Rounding)), st.integers(0, 10**6))
def test_a_tie_is_settled_by_the_contract_and_nothing_else_is(
    currency: str, mode: Rounding, whole: int
) -> None:
    places = oracle.DIGITS[currency]
    head = {"currency": currency, "rounding": str(mode)}

    def net(units: int) -> int:  # one priced unit is a millionth of a minor unit
        unit = "0." + "1".zfill(places + 6)
        return april(make_plan(per_unit(unit), per=1, head=head), tokens(units)).net

    tie = whole * 10**6 + 500_000
    up = whole + 1 if mode is Rounding.HALF_UP or whole % 2 else whole
    assert (net(tie - 1), net(tie), net(tie + 1)) == (whole, up, whole + 1)


@given(st.lists(cents, min_size=1, max_size=5), st.integers(0, 10_000))
def test_tax_is_on_the_sum_of_the_printed_lines_not_the_sum_of_taxes(parts: list[int], bps: int) -> None:
    charges = [recurring(f"{part // 100}.{part % 100:02}", f"c{n}") for n, part in enumerate(parts)]
    result = april(make_plan(*charges, tax={"bps": bps}))
    assert result.net == sum(parts)
    assert result.tax == oracle.to_minor(Fraction(sum(parts) * bps, 10**6), "USD", "half_up")


# --- proration ---


@given(st.dates(date(2023, 1, 1), date(2028, 12, 31)), st.sampled_from(ZONES), st.data())
def test_two_licenses_that_share_a_month_pay_for_every_day_once(
    day: date, tz: str, data: st.DataObject
) -> None:
    """One ends on a day and the next starts on the day after: together they are active all month."""
    period = Period.containing(day, tz)
    cut = data.draw(st.dates(period.first, period.last - timedelta(days=1)))
    plan = make_plan(recurring(f"{period.days * 3}", prorate="day"), head={"tz": tz})
    (first,) = rate(plan, {}, Span(period.first, period.last, period.first, cut))
    (second,) = rate(plan, {}, Span(period.first, period.last, cut + timedelta(days=1), period.last))
    assert first.net == ((cut - period.first).days + 1) * 300
    assert first.net + second.net == period.days * 300


@pytest.mark.parametrize(
    ("day", "net"), [(date(2024, 2, 29), 100), (date(2023, 2, 28), 104), (date(2026, 1, 31), 94)]
)
def test_the_last_day_of_a_month_alone_is_one_day(day: date, net: int) -> None:
    plan = make_plan(recurring("29", prorate="day"))  # 29/29 on the leap day, 29/28, 29/31
    (result,) = rate(plan, {}, Span(day, day, day, day))
    assert result.net == net


# --- commitments ---


def spend(billing: str, amount: str = "100") -> Plan:
    item = {
        "id": "y",
        "kind": "committed_spend",
        "amount": amount,
        "billing": billing,
        "overage_factor": "1.5",
    }
    return make_plan(per_unit("0.01"), per=1, commitments=[item])


@pytest.mark.parametrize("billing", ["prepaid", "postpaid"])
@pytest.mark.parametrize(
    ("used", "drawn", "overage"), [(0, 0, 0), (9_999, 9_999, 0), (10_000, 10_000, 0), (10_001, 10_000, 2)]
)
def test_exactly_the_commitment_is_no_overage(billing: str, used: int, drawn: int, overage: int) -> None:
    result = april(spend(billing), tokens(used))
    found = {line.kind: line.amount for line in result.lines}
    ahead = billing == "prepaid"
    assert found == {
        "charge": 0 if ahead else drawn,
        **({"prepayment": 10_000} if ahead else {}),
        **({"overage": overage} if overage else {}),
        **({"shortfall": 10_000 - drawn} if drawn < 10_000 and not ahead else {}),
    }
    assert result.accrued == drawn + overage + found.get("shortfall", 0)


@given(cents, cents, st.sampled_from(["prepaid", "postpaid"]))
def test_what_was_used_before_and_now_is_what_one_period_would_have_used(
    before: int, now: int, billing: str
) -> None:
    """Split anywhere, the sums of drawn and overage are those of the whole."""
    plan = spend(billing, "2500")
    first = april(plan, tokens(before))
    second = april(plan, tokens(now), state=first.state)
    whole = april(plan, tokens(before + now))
    for key in ("drawn", "overage"):
        parts = [getattr(result.drawdowns[0], key) for result in (first, second)]
        assert sum(parts) == getattr(whole.drawdowns[0], key)
    assert second.drawdowns[0].remaining == whole.drawdowns[0].remaining


@given(cents, cents, st.integers(1, 30))
def test_a_minimum_is_never_undercut_and_never_exceeded(least: int, used: int, days: int) -> None:
    item = {"id": "min", "kind": "minimum", "amount": f"{least // 100}.{least % 100:02}", "prorate": "day"}
    plan = make_plan(per_unit("0.01"), per=1, commitments=[item])
    span = Span(APRIL.first, APRIL.last, date(2026, 4, 1), date(2026, 4, days))
    (result,) = rate(plan, tokens(used, at=day_start(date(2026, 4, 1), "UTC")), span)
    required = oracle.to_minor(Fraction(least * days, 3000), "USD", "half_up")
    assert result.net == max(used, required)


# --- credits ---


@given(
    st.lists(st.integers(0, 3000), min_size=3, max_size=3),
    st.lists(
        st.tuples(st.integers(1, 6000), st.sampled_from([(), ("a",), ("b", "c"), ("c",)])),
        min_size=1,
        max_size=4,
    ),
)
def test_credits_take_what_is_there_and_no_more(
    parts: list[int], wanted: list[tuple[int, tuple[str, ...]]]
) -> None:
    charges = [
        recurring(f"{part // 100}.{part % 100:02}", name) for part, name in zip(parts, "abc", strict=True)
    ]
    plan = make_plan(*charges, shares={"scope": ["a"], "pool": [{"party": "creator:a", "bps": 10000}]})
    credits = [Credit(f"g{n}", amount, APRIL.first, "", scope) for n, (amount, scope) in enumerate(wanted)]
    result = april(plan, credits=credits)
    left = dict(zip("abc", parts, strict=True))
    given_back = {line.charge: line for line in result.lines if line.kind == "credit"}
    for credit in credits:
        fits = min(credit.amount, sum(left[name] for name in credit.scope or left))
        line = given_back.pop(credit.id, None)
        assert -fits == (line.amount if line else 0)
        for name, part in line.accrues if line else ():
            assert part <= 0
            left[name] = left.get(name, 0) + part
    assert not given_back
    assert min(left.values()) >= 0
    assert result.net == sum(left.values())
    assert sum(share.amount for share in result.shares if share.party == "creator:a") == left["a"]


# --- shares ---


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_takes_start_again_on_the_first_of_january_of_the_plans_zone(old: int, new: int) -> None:
    take = [{"up_to": "1000", "bps": 3000}, {"up_to": "2000", "bps": 2000}, {"bps": 1000}]
    pool = [{"party": "platform", "take": take}, {"party": "creator:a", "rest": True}]
    plan = make_plan(per_unit("0.01"), per=1, shares={"pool": pool}, head={"tz": "Asia/Kathmandu"})
    year = day_start(date(2027, 1, 1), "Asia/Kathmandu")
    usage = {(year - 900_000, "ok", "tok_out"): old, (year, "ok", "tok_out"): new}
    results = rate(plan, usage, Span(date(2026, 12, 1), date(2027, 1, 31)))
    for result, base in zip(results, (old, new), strict=True):
        most = oracle.graduated(Fraction(base, 100), [{**t, "unit": Fraction(t["bps"], 10**4)} for t in take])
        assert {s.party: s.amount for s in result.shares} == {
            "platform": (took := oracle.to_minor(most, "USD", "half_up")),
            "creator:a": base - took,
        }


@pytest.mark.parametrize(("before", "took"), [(99_999, 0), (100_000, 0), (99_900, 30), (100_001, 1)])
def test_a_take_at_the_bound_of_a_tier(before: int, took: int) -> None:
    """From 1,000.00 on the take is 20 percent: what straddles the bound is split there, not before."""
    take = [{"up_to": "1000", "bps": 3000}, {"bps": 2000}]
    pool = [{"party": "platform", "take": take}, {"party": "creator:a", "rest": True}]
    plan = make_plan(per_unit("0.01"), per=1, shares={"pool": pool})
    state = State(taken={2026: Fraction(before)})
    base = {99_999: 1, 100_000: 2, 99_900: 100, 100_001: 3}[before]
    result = april(plan, tokens(base), state=state)
    assert result.shares[0].amount == took
    assert result.accrued == base


def test_two_takes_that_round_up_leave_the_rest_a_cent_less_than_nothing_and_give_it_back() -> None:
    half = [{"bps": 5000}]
    pool = [{"party": "platform", "take": half}, {"party": "reseller:r", "take": half}]
    plan = make_plan(per_unit("0.01"), per=1, shares={"pool": [*pool, {"party": "creator:a", "rest": True}]})
    first = april(plan, tokens(1))
    assert [share.amount for share in first.shares] == [1, 1, -1]
    second = april(plan, tokens(1), state=first.state)
    assert [share.amount for share in second.shares] == [0, 0, 1]


# --- period edges in every zone ---


def test_every_zone_starts_its_months_where_a_plain_search_finds_them() -> None:
    for name in sorted(zone_names())[::5]:
        zone = oracle.zone_of(name)
        for period in periods_between(date(2026, 1, 1), date(2027, 1, 31), name):
            begin = oracle.day_begins(period.first, zone)
            assert period.start_ms == int(begin.timestamp()) * 1000, (name, period)


@pytest.mark.parametrize("name", ["Europe/Berlin", "Asia/Beirut", "America/Havana", "Australia/Lord_Howe"])
def test_the_last_instant_of_a_month_and_the_next_ones_first(name: str) -> None:
    year = periods_between(date(2026, 1, 1), date(2026, 12, 31), name)
    for index, period in enumerate(year[1:], 1):
        assert find_period(year, period.start_ms - 1) == index - 1
        assert find_period(year, period.start_ms) == index
        moment = datetime.fromtimestamp(period.start_ms / 1000, UTC)
        assert oracle.month_holding(moment, oracle.zone_of(name)) == period.first
