"""Plans: strict reading, the schema's paths, defaults, the digest."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from support.rating_plans import GRADUATED, make_plan, per_unit, plan_data

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.settlement import plan_yaml
from sealpack.settlement.money import Rounding
from sealpack.settlement.plan import Plan, load_plan

FULL = """
plan: {id: edge-pro, version: 3, currency: USD, tz: Europe/Berlin, period: month, anchor: calendar,
       grace_days: 10, late_window_months: 13, rounding: half_up}
meters:
  out: {field: tok_out, agg: sum, per: 1000, where: {status: [ok, cancel]}}
  secs: {field: ms, agg: sum, per: 1000}  # a comment
charges:
 - {id: setup, type: one_time, amount: "250.00", at: activation}
 - {id: base, type: recurring, amount: "99.00", when: advance, prorate: day}
 - {id: tok, type: usage, meter: out, model: graduated, included: "0",
    tiers: [{up_to: "10000", unit: "0.0400"}, {up_to: "50000", unit: "0.0250"}, {unit: "0.0150"}]}
commitments:
 - {id: min, kind: minimum, scope: [base, tok], amount: "500.00", per: period, prorate: day}
 - {id: year, kind: committed_spend, scope: [tok], amount: "12000.00", per: term,
    billing: prepaid, overage_factor: "1.2", unused: forfeit}
discounts: [{id: partner, scope: [tok], bps: 1000}]
tax: {category: S, percent: "20"}
shares: {base: net, scope: [tok, base], pool: [
  {party: platform, take: [{up_to: "10000", bps: 3000}, {bps: 1000}], per: calendar_year},
  {party: creator:acme, rest: true}]}
"""


def refused(text: str) -> str:
    with pytest.raises(SealpackError) as caught:
        load_plan(text.encode())
    assert caught.value.code == "PLAN_INVALID"
    return caught.value.message


def test_the_whole_schema_is_read() -> None:
    plan = load_plan(FULL.encode())
    assert (plan.id, plan.version, plan.currency, plan.exponent) == ("edge-pro", 3, "USD", 2)
    assert (plan.tz, plan.grace_days, plan.late_window_months) == ("Europe/Berlin", 10, 13)
    assert plan.rounding is Rounding.HALF_UP
    assert [charge.id for charge in plan.charges] == ["setup", "base", "tok"]
    assert [(tier.lo, tier.up_to) for tier in plan.charges[2].tiers] == [
        (0, 10000),
        (10000, 50000),
        (50000, None),
    ]
    assert plan.meters["out"].counts("cancel")
    assert not plan.meters["out"].counts("err")
    assert plan.meters["out"].counts("lost")
    assert plan.minimums[0].scope == ("base", "tok")
    assert plan.committed[0].overage_factor == Fraction(6, 5)
    assert plan.tax is not None
    assert plan.tax.rate == Fraction(1, 5)
    assert plan.shares is not None
    assert [member.rest for member in plan.shares.pool] == [False, True]


def test_the_digest_is_over_canonical_json_not_over_the_text() -> None:
    plan = load_plan(FULL.encode())
    again = load_plan(("# other spacing\n" + FULL.replace(" {id: setup", "    {id: setup")).encode())
    assert (
        plan.digest
        == again.digest
        == hashlib.sha256(canonical.dumps(plan_yaml.load(FULL.encode()))).hexdigest()
    )
    assert load_plan(FULL.replace("0.0150", "0.0151").encode()).digest != plan.digest


def test_a_plan_comes_back_from_its_document() -> None:
    plan = load_plan(FULL.encode())
    assert Plan.from_json(plan.document) == plan


def test_defaults() -> None:
    plan = make_plan(per_unit())
    assert (plan.tz, plan.grace_days, plan.late_window_months, plan.rounding) == ("UTC", 10, 13, "half_up")
    assert (plan.tax, plan.shares, plan.minimums, plan.committed, plan.discounts) == (None, None, (), (), ())


def test_no_scope_means_every_charge() -> None:
    plan = make_plan(per_unit(), per_unit("2", "b"), discounts=[{"id": "d", "bps": 1}])
    assert plan.discounts[0].scope == ("tok", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a: [", "not YAML"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: 1\na: 2", "twice"),
        ("a: {b: 1, b: 2}", "twice"),
        ("a: 1.5", "unquoted decimal"),
        ("a: 1e3\nb: .inf", "unquoted decimal"),
        ("a: 2026-01-01", "a date"),
        ("a: yes", "unquoted value"),
        ("a: 0x10", "unquoted value"),
        ("a: 010", "unquoted value"),
        ("a: 1_000", "unquoted value"),
        ("a: 1:30", "unquoted value"),
        ("a: ~", "empty value"),
        ("a:", "empty value"),
        ("1: a", "not a string"),
        ("on: a", "not a string"),
        ("? [a]\n: b", "not a string"),
        ("a: &x 1\nb: *x", "anchor"),
        ("a: *x", "anchor"),
        ("a: &x {b: 1}\nc: {<<: {b: 2}}", "anchor"),
        ("c: {<<: {b: 2}}", "not a string"),
        ("a: !!str 1", "tag"),
        ("a: !!python/object/apply:os.system ['x']", "tag"),
        ("a: " + "[" * 40 + "]" * 40, "deeper"),
        ("a: \x00", "not YAML"),
        ("[1, 2]", "must be a mapping"),
        ("plan: edge", "must be a mapping"),
    ],
)
def test_yaml_that_could_be_misread_is_refused(text: str, words: str) -> None:
    assert words in refused(text)


def test_a_fault_names_line_and_column() -> None:
    assert "line 2, column 4" in refused("a: 1\nb: 0.5")


def test_not_text_and_too_large() -> None:
    for data, words in ((b"\xff\xfe", "UTF-8"), (b"#" * (plan_yaml.MAX_BYTES + 1), "limit")):
        with pytest.raises(SealpackError, match=words):
            load_plan(data)


def test_the_file_is_named() -> None:
    with pytest.raises(SealpackError, match=r"edge\.yaml: plan\.currency: is missing"):
        load_plan(b"plan: {version: 1}", what="edge.yaml")


Edit = Callable[[dict[str, Any]], Any]


def _set(*path: Any) -> Edit:
    """An edit that sets the value at path[:-1] to path[-1]."""

    def edit(data: dict[str, Any]) -> None:
        *parents, key, value = path
        for parent in parents:
            data = data[parent]
        data[key] = value

    return edit


COMMITTED = {"id": "y", "kind": "committed_spend", "amount": "10", "billing": "prepaid"}
PARTS = {"party": "platform", "bps": 4000}
EDITS: list[tuple[str, Edit]] = [
    ("plan.version", _set("plan", "version", 0)),
    ("plan.version", _set("plan", "version", "1")),
    ("plan.version", _set("plan", "version", True)),
    ("plan.id", _set("plan", "id", "../x")),
    ("plan.currency", _set("plan", "currency", "usd")),
    ("plan.period", _set("plan", "period", "week")),
    ("plan.anchor", _set("plan", "anchor", "activation")),
    ("plan.rounding", _set("plan", "rounding", "down")),
    ("plan.colour", _set("plan", "colour", "red")),
    ("extra", _set("extra", {})),
    ("charges", _set("charges", [])),
    ("charges", _set("charges", [GRADUATED, GRADUATED])),
    ("charges[0].type", _set("charges", 0, "type", "weird")),
    ("charges[0].model", _set("charges", 0, "model", "stairs")),
    ("charges[0].unit", _set("charges", 0, "unit", "1")),  # graduated has no unit
    ("charges[0].tiers", _set("charges", 0, "tiers", [])),
    ("charges[0].tiers[0].unit", _set("charges", 0, "tiers", [{"unit": 0.5}])),
    ("charges[0].max", lambda d: d["charges"][0].update(min="2", max="1")),
    ("charges[0].included", _set("charges", 0, "included", "lots")),
    ("meters.m.field", _set("meters", "m", "field", "words")),
    ("meters.m.per", _set("meters", "m", "per", 0)),
    ("meters.m.agg", _set("meters", "m", "agg", "max")),
    ("meters.m.where.status", _set("meters", "m", "where", {"status": ["good"]})),
    ("meters.m.where.status", _set("meters", "m", "where", {"status": []})),
    ("commitments[0].billing", _set("commitments", [{**COMMITTED, "billing": "never"}])),
    ("commitments[0].unused", _set("commitments", [{**COMMITTED, "unused": "true_up"}])),
    ("commitments[0].per", _set("commitments", [{**COMMITTED, "per": "period"}])),
    ("commitments.y.amount", _set("commitments", [{**COMMITTED, "amount": "10.001"}])),
    ("commitments.z.scope", _set("commitments", [COMMITTED, {**COMMITTED, "id": "z"}])),
    ("commitments", _set("commitments", [{**COMMITTED, "id": "tok"}])),
    ("discounts[0].bps", _set("discounts", [{"id": "d", "bps": 10_001}])),
    ("discounts", _set("discounts", [{"id": "d", "bps": 1}, {"id": "d", "bps": 2}])),
    ("tax.bps", _set("tax", {"bps": 1, "percent": "1"})),
    ("tax.percent", _set("tax", {"percent": "101"})),
    ("tax.percent", _set("tax", {"category": "S"})),
    ("tax.category", _set("tax", {"category": "Q", "percent": "1"})),
    ("shares.base", _set("shares", {"base": "gross", "pool": [PARTS]})),
    ("shares.pool", _set("shares", {"pool": [PARTS, {**PARTS, "party": "creator:a"}]})),
    ("shares.pool", _set("shares", {"pool": [PARTS, {"party": "platform", "rest": True}]})),
    ("shares.pool", _set("shares", {"pool": [{"party": "platform", "bps": 10001 - 1}, PARTS]})),
    ("shares.pool[0].party", _set("shares", {"pool": [{"party": "Platform", "rest": True}]})),
    ("shares.pool[0].party", _set("shares", {"pool": [{"party": "platform"}]})),
    ("shares.pool[0].rest", _set("shares", {"pool": [{"party": "platform", "rest": False}]})),
]


@pytest.mark.parametrize(("path", "edit"), EDITS)
def test_a_fault_names_its_place(path: str, edit: Edit) -> None:
    data = copy.deepcopy(plan_data())
    edit(data)
    with pytest.raises(SealpackError) as caught:
        Plan.from_dict(data)
    assert caught.value.code == "PLAN_INVALID"
    assert caught.value.facts["path"] == path


def test_a_commitment_does_not_draw_advance_or_one_time_charges() -> None:
    for charge in (
        {"id": "a", "type": "recurring", "amount": "1", "when": "advance"},
        {"id": "a", "type": "one_time", "amount": "1"},
    ):
        with pytest.raises(SealpackError, match="not usage or recurring in arrears"):
            make_plan(charge, commitments=[COMMITTED])


def test_the_specifications_example_has_the_digest_it_says() -> None:
    text = (Path(__file__).parents[2] / "specs" / "plan.md").read_text(encoding="utf-8")
    example = text.split("## 6. Example")[1]
    yaml_text, digest = example.split("Digest: `")
    assert load_plan(dedent(yaml_text).encode()).digest == digest.strip().rstrip("`")
