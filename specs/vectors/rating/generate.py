"""Write every case of this folder: `python specs/vectors/rating/generate.py`. Deterministic.

Each case is a plan, a usage table and what `settle quote` must answer. Amounts were worked out by
hand from the rules in specs/rating.md; this file only writes them down and never calls the engine.
"""

from __future__ import annotations

import json
from calendar import monthrange
from pathlib import Path

HERE = Path(__file__).parent
TIERS = '[{up_to: "10000", unit: "0.0400"}, {up_to: "50000", unit: "0.0250"}, {unit: "0.0150"}]'
APRIL = "2026-04-15T12:00:00Z"


def plan(*charges: str, rest: str = "", head: str = "", per: int = 1000, field: str = "tok_out") -> str:
    head = head or "currency: USD, tz: UTC"
    rows = "".join(f" - {charge}\n" for charge in charges)
    return (
        f"plan: {{id: example, version: 1, {head}}}\n"
        f"meters: {{m: {{field: {field}, agg: sum, per: {per}}}}}\n"
        f"charges:\n{rows}{rest}"
    )


def usage(*rows: str, columns: str = "time,tok_out") -> str:
    return "".join(f"{row}\n" for row in (columns, *rows))


def graduated(charge: str = "tok") -> str:
    return f"{{id: {charge}, type: usage, meter: m, model: graduated, tiers: {TIERS}}}"


def period(net: str, *lines: tuple[str, str], start: str = "2026-04-01", **more: object) -> dict:
    year, month, _ = map(int, start.split("-"))
    return {
        "period_start": start,
        "period_end": f"{start[:8]}{monthrange(year, month)[1]}",
        "lines": [{"charge": charge, "amount": amount} for charge, amount in lines],
        "net": net,
        "tax": "0.00",
        "total": net,
        **more,
    }


def write(
    name: str,
    description: str,
    plan_text: str,
    usage_text: str,
    *invoices: dict,
    expect: str = "ok",
    mentions: str = "",
    **options: object,
) -> None:
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    case: dict[str, object] = {"description": description, "expect": expect}
    if mentions:
        case["mentions"] = mentions
    if options:
        case["options"] = options
    (folder / "plan.yaml").write_text(plan_text, encoding="utf-8")
    (folder / "usage.csv").write_text(usage_text, encoding="utf-8")
    _json(folder / "case.json", case)
    if expect == "ok":
        _json(folder / "expect.json", {"invoices": list(invoices)})


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def worked_examples() -> None:
    write(
        "graduated",
        "73,456,789 tokens over three tiers",
        plan(graduated()),
        usage(f"{APRIL},73456789"),
        period("1751.85", ("tok", "1751.85")),
    )
    volume = f"{{id: tok, type: usage, meter: m, model: volume, tiers: {TIERS}}}"
    write(
        "volume-at-bound",
        "exactly 50,000 units belong to the second tier",
        plan(volume),
        usage(f"{APRIL},50000000"),
        period("1250.00", ("tok", "1250.00")),
    )
    write(
        "volume-above-bound",
        "one token more takes all of it to the third tier",
        plan(volume),
        usage(f"{APRIL},50000001"),
        period("750.00", ("tok", "750.00")),
    )
    package = (
        "{id: calls, type: usage, meter: m, model: package, "
        'package: {size: "10000", price: "0.85", free: "100000"}}'
    )
    calls = {"field": "calls", "per": 1}
    write(
        "package-started",
        "113.4567 packages count as 114",
        plan(package, **calls),
        usage(f"{APRIL},1234567", columns="time,calls"),
        period("96.90", ("calls", "96.90")),
    )
    write(
        "package-whole",
        "exactly 100 packages",
        plan(package, **calls),
        usage(f"{APRIL},1100000", columns="time,calls"),
        period("85.00", ("calls", "85.00")),
    )
    write(
        "minimum-and-tax",
        "99.00 + 251.85 is lifted to 500, then 20 percent tax",
        plan(
            '{id: base, type: recurring, amount: "99.00", when: advance, prorate: day}',
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "0.025185"}',
            rest='commitments: [{id: min, kind: minimum, scope: [base, tok], amount: "500.00", '
            'per: period, prorate: day}]\ntax: {category: S, percent: "20"}\n',
        ),
        usage(f"{APRIL},10000000"),
        period(
            "500.00",
            ("base", "99.00"),
            ("tok", "251.85"),
            ("min", "149.15"),
            tax="100.00",
            total="600.00",
        ),
    )
    write(
        "committed-overage",
        "11,400 of 12,000 was used before; 1,500 of list: 600 drawn, 900 × 1.2 over",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "0.0150"}',
            rest='commitments: [{id: year, kind: committed_spend, scope: [tok], amount: "12000.00", '
            'per: term, billing: prepaid, overage_factor: "1.2", unused: forfeit}]\n',
        ),
        usage(f"{APRIL},100000000"),
        period("1080.00", ("tok", "0.00"), ("year", "1080.00")),
        commitment_used="11400",
    )
    write(
        "split-25-75",
        "a cent that does not divide goes to the larger remainder",
        plan(
            '{id: base, type: recurring, amount: "1000.01"}',
            rest="shares: {base: net, scope: [base], pool: "
            "[{party: platform, bps: 2500}, {party: creator:acme, bps: 7500}]}\n",
        ),
        usage(f"{APRIL},0"),
        period(
            "1000.01",
            ("base", "1000.01"),
            shares=[
                {"party": "platform", "amount": "250.00"},
                {"party": "creator:acme", "amount": "750.01"},
            ],
        ),
    )
    for name, tokens, net, tax, total in (
        ("credit-before", 73456789, "1751.85", "350.37", "2102.22"),
        ("credit-after", 63456789, "1601.85", "320.37", "1922.22"),
    ):
        write(
            name,
            "the credit note is the difference of the two ratings: -150.00 - 30.00 = -180.00",
            plan(graduated(), rest="tax: {category: S, bps: 2000}\n"),
            usage(f"{APRIL},{tokens}"),
            period(net, ("tok", net), tax=tax, total=total),
        )
    write(
        "time-zone",
        "22:30 UTC on 31 March is April in Berlin",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "1"}',
            head="currency: EUR, tz: Europe/Berlin",
        ),
        usage("2026-03-31T22:30:00Z,2000"),
        period("2.00", ("tok", "2.00")),
    )


def boundaries() -> None:
    unit = '{id: tok, type: usage, meter: m, model: per_unit, unit: "0.0050"}'
    write(
        "half-up",
        "0.005 rounds away from zero",
        plan(unit),
        usage(f"{APRIL},1000"),
        period("0.01", ("tok", "0.01")),
    )
    write(
        "half-even",
        "0.005 rounds to the even cent",
        plan(unit, head="currency: USD, tz: UTC, rounding: half_even"),
        usage(f"{APRIL},1000"),
        period("0.00", ("tok", "0.00")),
    )
    write(
        "rounded-once",
        "three rows of 0.004 make 0.012, one cent; never three zeros",
        plan('{id: tok, type: usage, meter: m, model: per_unit, unit: "0.0040"}'),
        usage(f"{APRIL},1000", "2026-04-16T12:00:00Z,1000", "2026-04-17T12:00:00Z,1000"),
        period("0.01", ("tok", "0.01")),
    )
    write(
        "yen",
        "JPY has no minor unit",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "1.5"}',
            head="currency: JPY, tz: Asia/Tokyo",
        ),
        usage(f"{APRIL},1000"),
        period("2", ("tok", "2"), tax="0"),
    )
    write(
        "dinar",
        "KWD has three places",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "1.0005"}',
            head="currency: KWD, tz: Asia/Kuwait",
        ),
        usage(f"{APRIL},1000"),
        period("1.001", ("tok", "1.001"), tax="0.000"),
    )
    base = '{id: base, type: recurring, amount: "99.00", when: arrears, prorate: day}'
    write(
        "prorated",
        "activated on 16 April (15 of 30 days), ended on 1 May (1 of 31)",
        plan(base),
        usage("2026-04-20T00:00:00Z,0"),
        period("49.50", ("base", "49.50")),
        period("3.19", ("base", "3.19"), start="2026-05-01"),
        activated="2026-04-16",
        ended="2026-05-01",
    )
    write(
        "empty-period",
        "the month between two rows is billed too",
        plan(base),
        usage("2026-03-20T00:00:00Z,0", "2026-05-20T00:00:00Z,0"),
        period("99.00", ("base", "99.00"), start="2026-03-01"),
        period("99.00", ("base", "99.00")),
        period("99.00", ("base", "99.00"), start="2026-05-01"),
    )
    write(
        "leap-day",
        "activated and ended on 29 February: one day of 29",
        plan('{id: base, type: recurring, amount: "58.00", prorate: day}'),
        usage(),
        period("2.00", ("base", "2.00"), start="2028-02-01"),
        activated="2028-02-29",
        ended="2028-02-29",
    )
    write(
        "minimums-overlap",
        "the wider minimum counts the true-up of the one before it: 600 in all, not 1,100",
        plan(
            '{id: base, type: recurring, amount: "100.00"}',
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "1"}',
            rest='commitments: [{id: inner, kind: minimum, scope: [base], amount: "500"}, '
            '{id: outer, kind: minimum, amount: "600"}]\n',
        ),
        usage(f"{APRIL},20000"),
        period("600.00", ("base", "100.00"), ("tok", "20.00"), ("inner", "400.00"), ("outer", "80.00")),
    )
    write(
        "rolled-over",
        "30 rolled over and 100 are paid: 150 of list draw 130, 20 go over",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "1"}',
            rest='commitments: [{id: year, kind: committed_spend, amount: "100", billing: prepaid, '
            'unused: rollover, overage_factor: "1.5"}]\n',
        ),
        usage(f"{APRIL},150000"),
        period("130.00", ("tok", "0.00"), ("year", "100.00"), ("year", "30.00")),
        activated="2026-04-01",
        commitment_carried="30",
    )
    write(
        "take-new-year",
        "the take's tiers start again on 1 January of the plan's zone",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "1"}',
            head="currency: EUR, tz: Europe/Berlin",
            rest='shares: {base: net, pool: [{party: platform, take: [{up_to: "10", bps: 5000}, '
            "{bps: 1000}], per: calendar_year}, {party: creator:acme, rest: true}]}\n",
        ),
        usage("2026-12-31T22:59:59Z,20000", "2026-12-31T23:00:00Z,20000"),
        *(
            period(
                "20.00",
                ("tok", "20.00"),
                start=start,
                shares=[
                    {"party": "platform", "amount": "6.00"},
                    {"party": "creator:acme", "amount": "14.00"},
                ],
            )
            for start in ("2026-12-01", "2027-01-01")
        ),
    )
    write(
        "where-status",
        "only ok and cancel count for this meter; lost records always",
        "plan: {id: example, version: 1, currency: USD, tz: UTC}\n"
        "meters: {m: {field: tok_out, per: 1, where: {status: [ok, cancel]}}}\n"
        'charges: [{id: tok, type: usage, meter: m, model: per_unit, unit: "1"}]\n',
        usage(
            *(
                f"{APRIL},{n},{status}"
                for n, status in ((1, "ok"), (10, "err"), (100, "cancel"), (1000, "aborted"), (10000, "lost"))
            ),
            columns="time,tok_out,status",
        ),
        period("10101.00", ("tok", "10101.00")),
    )
    write(
        "discount-then-cap",
        "two discounts multiply, then the charge's maximum clamps, then one rounding",
        plan(
            '{id: tok, type: usage, meter: m, model: per_unit, unit: "0.1", max: "72.005"}',
            rest="discounts: [{id: a, scope: [tok], bps: 1000}, {id: b, scope: [tok], bps: 1000}]\n",
        ),
        usage(f"{APRIL},1000000"),
        period("72.01", ("tok", "72.01")),
    )
    write(
        "take-tiers",
        "9,500 was accrued this year: 500 at 30 percent, 500 at 20 percent",
        plan(
            '{id: base, type: recurring, amount: "1000.00"}',
            rest='shares: {base: net, pool: [{party: platform, take: [{up_to: "10000", bps: 3000}, '
            "{bps: 2000}], per: calendar_year}, {party: creator:acme, rest: true}]}\n",
        ),
        usage(f"{APRIL},0"),
        period(
            "1000.00",
            ("base", "1000.00"),
            shares=[
                {"party": "platform", "amount": "250.00"},
                {"party": "creator:acme", "amount": "750.00"},
            ],
        ),
        take_base="9500",
    )


def plan_faults() -> None:
    good = plan(graduated())
    faults = {
        "duplicate-key": (good + "charges: []\n", "twice"),
        "unquoted-decimal": (good.replace('"0.0400"', "0.0400"), "unquoted decimal"),
        "key-not-string": (good + "on: {}\n", "not a string"),
        "anchor": (good.replace("meters: {m:", "meters: {m: &x"), "anchor"),
        "tag": (good.replace("version: 1", "version: !!int 1"), "tag"),
        "tier-gap": (good.replace('{unit: "0.0150"}', '{up_to: "90000", unit: "0.0150"}'), "tiers[2]"),
        "tier-order": (good.replace('up_to: "50000"', 'up_to: "10000"'), "tiers[1]"),
        "tier-open-early": (good.replace('up_to: "10000", ', ""), "tiers[0]"),
        "unknown-member": (good.replace("agg: sum", "aggregate: sum"), "meters.m.aggregate"),
        "unknown-meter": (good.replace("meter: m", "meter: n"), "charges[0].meter"),
        "unknown-currency": (good.replace("USD", "XYZ"), "plan.currency"),
        "unknown-zone": (good.replace("tz: UTC", "tz: Mars/Base"), "plan.tz"),
        "too-many-places": (good.replace("0.0400", "0.0400000000001"), "tiers[0].unit"),
        "negative-price": (good.replace('"0.0400"', '"-0.0400"'), "tiers[0].unit"),
        "unknown-scope": (
            good + 'commitments: [{id: x, kind: minimum, scope: [nope], amount: "1"}]\n',
            "commitments[0].scope",
        ),
        "pool-not-whole": (
            good + "shares: {base: net, scope: [tok], pool: [{party: platform, bps: 2500}]}\n",
            "shares.pool",
        ),
        "member-two-kinds": (
            good + "shares: {base: net, pool: [{party: platform, bps: 2500, rest: true}]}\n",
            "shares.pool[0].party",
        ),
        "package-included": (
            plan(
                '{id: c, type: usage, meter: m, model: package, included: "5", '
                'package: {size: "1", price: "1"}}'
            ),
            "charges[0].included",
        ),
        "exempt-with-rate": (good + 'tax: {category: E, percent: "20"}\n', "tax.percent"),
    }
    for name, (text, mentions) in faults.items():
        write(
            f"plan-{name}",
            f"fault: {name.replace('-', ' ')}",
            text,
            usage(f"{APRIL},1"),
            expect="PLAN_INVALID",
            mentions=mentions,
        )


def table_faults() -> None:
    good = plan(graduated())
    faults: dict[str, tuple[str, str]] = {
        "no-time": (usage("1", columns="tok_out"), "row 1"),
        "unknown-column": (usage(f"{APRIL},1", columns="time,tokens"), "row 1"),
        "column-twice": (usage(f"{APRIL},1,1", columns="time,calls,calls"), "row 1"),
        "fraction": (usage(f"{APRIL},1", f"{APRIL},1.5"), "row 3"),
        "negative": (usage(f"{APRIL},-1"), "row 2"),
        "local-time": (usage("2026-04-15T12:00:00+02:00,1"), "row 2"),
        "no-such-day": (usage("2026-02-30T12:00:00Z,1"), "row 2"),
        "status": (usage(f"{APRIL},1,failed", columns="time,tok_out,status"), "row 2"),
        "semicolons": (usage(f"{APRIL};1", columns="time;tok_out"), "row 1"),
        "short-row": (usage(f"{APRIL},1", APRIL), "row 3"),
        "empty": (usage(), "no rows"),
    }
    for name, (text, mentions) in faults.items():
        write(
            f"table-{name}",
            f"fault: {name.replace('-', ' ')}",
            good,
            text,
            expect="USAGE_TABLE_INVALID",
            mentions=mentions,
        )
    write(
        "table-before-activation",
        "fault: a row before the activation day",
        good,
        usage(f"{APRIL},1"),
        expect="USAGE_TABLE_INVALID",
        mentions="row 2",
        activated="2026-04-16",
    )


if __name__ == "__main__":
    worked_examples()
    boundaries()
    plan_faults()
    table_faults()
