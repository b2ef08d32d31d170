"""Estimates for devices that run and sent nothing: what they say, and that none is left in the end."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pypdf
import pytest
from hypothesis import given, settings, strategies as st
from support import world
from support.acts import refused
from support.books import Books
from support.device import T0, Device, make_license, seal_license
from support.rating_plans import GRADUATED, make_plan, per_unit, plan_data, recurring

from sealpack.format import canonical, documents, records
from sealpack.format.activation import Activation
from sealpack.format.deactivation import Deactivation
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Delegation, Devices
from sealpack.format.registry import RegistryLine
from sealpack.settlement import (
    billing,
    corrections,
    db,
    drafts,
    estimate_report,
    evidence_check,
    evidence_pack,
    pdf,
    unbilled,
)
from sealpack.settlement.audit import Actor
from sealpack.settlement.plan import Plan
from sealpack.settlement.plan_words import sections
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

SEP, OCT, NOV, DEC, JAN = (date(2026 + m // 12, m % 12 + 1, 1) for m in range(8, 13))
READY, GRACE = date(2026, 12, 11), date(2026, 12, 10)  # November's 10 days of grace are over, or not
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parents[2] / "specs/schemas/invoice.json").read_text("utf-8"))
)
POOL = [{"party": "platform", "bps": 3000}, {"party": "creator:a", "rest": True}]
SHARES = {"scope": ["tok"], "pool": POOL}
DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-estimated")


def ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def seconds(day: date) -> int:
    return ms(day) // 1000


ME = Actor("clerk", seconds(READY))


def proof(one: Device) -> Envelope:
    """The device closes: the last record, and what it signs about it."""
    one.tally()
    one.put(records.CLOSED, reason="deactivated")
    activation = Activation.read(one.activation)
    said = Deactivation(
        "L-1", one.key.public, one.epoch, one.origin, one.size, one.frontier(one.size).root.hex(),
        activation.digest, activation.nonce, T0, {"calls": one.registers.total("calls")},
    )  # fmt: skip
    return documents.seal("deactivation", said.to_dict(), one.key)


def released(one: Device, sealed: Envelope) -> bytes:
    """The registry line that the issuer writes about it."""
    return RegistryLine(one.license_envelope, deactivation=sealed, released_at=ME.at).to_bytes() + b"\n"


ABOVE = make_license(devices=Devices("key", 10), delegation=Delegation((DELEGATE.public.pem,)))


class Below(Device):
    """A device under sub-license L-1.ward of `ABOVE`."""

    @property
    def license_envelope(self) -> Envelope:
        named = {"license_id": "L-1", "seq": ABOVE.seq, "digest": seal_license(ABOVE).digest}
        own = {"license_id": "L-1.ward", "seq": 1, "issued_at": T0, "parent": named}
        return documents.seal("sublicense", own, DELEGATE)

    @property
    def activation(self) -> Envelope:
        return documents.seal("activation", Activation.read(super().activation).to_dict(), DELEGATE)

    def line(self, *bundles: Any) -> bytes:
        made = RegistryLine(seal_license(ABOVE), self.activation, sublicense=self.license_envelope)
        return made.to_bytes() + b"\n"


def plan(months: int | None = 2, **more: Any) -> Plan:
    estimate = {} if months is None else {"estimate": {"months": months}}
    tax = {"category": "S", "percent": "19"}
    made: Plan = make_plan(per_unit("0.01"), per=1, shares=SHARES, tax=tax, **estimate, **more)
    return made


def device(used: dict[date, int], kind: type[Device] = Device, **members: Any) -> Device:
    """One that used so many tokens on the first days of months (of September, when it was activated), and
    wrote its totals down after each."""
    made = kind(**members)
    for day, tokens in used.items():
        made.until(ms(day) + 3_600_000).use(tok_out=tokens).tally()
    return made


def two_months(**members: Any) -> Device:
    """September 100, October 301, and known to the end of October."""
    return device({SEP: 100, OCT: 301, NOV: 0}, **members)


def ingested(books: Books, *devices: Device, months: int | None = 2) -> Books:
    books.learn(*devices, plan=plan(months))
    for one in devices:
        assert books.code(one.export(), now=ME.at) == "OK"
    return books


def bill(books: Books, month: date = NOV, day: date = READY, *, draft: bool = True) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(
        billing.bill(books.database, "L-1", month, day, draft=draft, actor=ME).json
    )
    SCHEMA.validate(value)
    return value


def correct(books: Books, day: date = READY) -> list[dict[str, Any]]:
    made = [json.loads(one.json) for one in corrections.correct(books.database, "L-1", day, actor=ME)]
    for value in made:
        SCHEMA.validate(value)
    return made


def guessed(value: dict[str, Any]) -> dict[str, int]:
    """Device -> base units that a document estimates of its one meter."""
    return {one["device"]: int(one["amounts"].get("m", "0")) for one in value.get("estimates", ())}


# --- who and how much ---------------------------------------------------------------------------------


def test_a_silent_device_is_billed_the_mean_of_what_is_known(books: Books) -> None:
    one = two_months()
    ingested(books, one)
    printed = billing.bill(books.database, "L-1", NOV, READY, actor=ME)
    value = json.loads(printed.json)
    SCHEMA.validate(value)
    assert value["estimates"] == [
        {"license": "L-1", "device": one.id, "known_to": "2026-11-01T01:00:00Z",
         "months": ["2026-09", "2026-10"], "amounts": {"m": "200"}}
    ]  # fmt: skip
    (line,) = value["lines"]
    assert (line["raw"], line["estimated"], line["amount"]) == ("200", "200", "2.00")
    assert line["description"] == "tok: 200 output tokens, 200 of them estimated"
    assert line["working"][1] == {
        "step": "estimated",
        "text": f"of which 200 output tokens estimated for device {one.id} of L-1: "
        "the mean of September 2026, October 2026",
    }
    assert (value["net"], value["tax"]) == ("2.00", "0.38")
    assert b"200 of them estimated" in printed.csv
    pages = pypdf.PdfReader(io.BytesIO(pdf.to_pdf(printed.json))).pages
    paper = " ".join("".join(page.extract_text() for page in pages).split())
    assert "200 of them estimated" in paper and "the difference is billed or credited" in paper
    assert (
        b"200 of them estimated" in printed.html and b"the difference is billed or credited" in printed.html
    )


@pytest.mark.parametrize(("months", "expected"), [(1, 301), (2, 200), (24, 200)])
def test_as_many_months_as_the_plan_says_and_are_known(books: Books, months: int, expected: int) -> None:
    ingested(books, one := two_months(), months=months)
    assert guessed(bill(books)) == {one.id: expected}


def test_what_is_known_of_the_month_counts_against_it(books: Books) -> None:
    ingested(
        books, few := device({SEP: 100, OCT: 301, NOV: 50}), many := device({OCT: 10, NOV: 11}, number=2)
    )
    value = bill(books)
    assert guessed(value) == {few.id: 150}, "more than the mean is known of the other"
    assert value["lines"][0]["raw"] == str(50 + 150 + many.registers.total("tok_out") - 10)


def test_a_month_that_is_not_wholly_known_is_no_base(books: Books) -> None:
    ingested(books, one := device({SEP: 100, OCT: 301}))
    assert guessed(bill(books)) == {one.id: 100}
    assert guessed(bill(books, OCT)) == {}, "301 are known, more than the mean"


def test_nothing_is_estimated_while_usage_is_waited_for(books: Books) -> None:
    ingested(books, two_months())
    assert guessed(bill(books, day=GRACE)) == {}
    assert not any(guessed(bill(books, DEC)).values()), "it runs"
    entry = next(iter(drafts.everything(books.database, NOV, seconds(GRACE))))
    assert (entry.state, entry.estimated) == ("grace", 0)
    entry = next(iter(drafts.everything(books.database, NOV, seconds(READY))))
    assert (entry.state, entry.estimated) == ("draft", 1), "what lists keep is of before"


@pytest.mark.parametrize("used", [{SEP: 100}, {}])
def test_without_a_month_that_is_known_there_is_none(books: Books, used: dict[date, int]) -> None:
    ingested(books, device(used))
    assert "estimates" not in bill(books)


def test_a_device_that_never_sent_anything_has_none(books: Books) -> None:
    books.learn(two_months(), two_months(number=2), plan=plan())
    assert books.code(two_months().export(), now=ME.at) == "OK"
    assert len(guessed(bill(books))) == 1


def test_plans_without_it_say_nothing_of_it(books: Books) -> None:
    ingested(books, two_months(), months=None)
    value = bill(books)
    assert "estimates" not in value and "estimated" not in value["lines"][0]
    assert value["net"] == "0.00"


def test_a_device_that_is_known_has_none(books: Books) -> None:
    ingested(books, device({SEP: 100, OCT: 301, NOV: 7, DEC: 0}))
    assert "estimates" not in bill(books)


def test_a_closed_log_has_none(books: Books) -> None:
    one = two_months()
    proof(one)
    ingested(books, one)
    assert "estimates" not in bill(books)


def test_a_released_device_has_none_and_the_list_sees_it(books: Books) -> None:
    one = two_months()
    size = one.size
    sealed = proof(one)
    books.learn(one, plan=plan())
    assert books.code(one.export(0, size), now=ME.at) == "OK"
    assert [e.estimated for e in drafts.everything(books.database, NOV, ME.at)] == [1]
    books.take("released.jsonl", released(one, sealed))
    assert "estimates" not in bill(books)
    assert [e.estimated for e in drafts.everything(books.database, NOV, ME.at)] == [0]


def test_a_license_that_ends_has_a_part(books: Books) -> None:
    license = make_license(exp=seconds(date(2026, 11, 16)))
    ingested(books, one := two_months(license=license))
    assert guessed(bill(books)) == {one.id: 401 * 15 // (2 * 30)}


def test_logs_of_one_device_count_together(books: Books) -> None:
    old = device({SEP: 100, OCT: 200})
    new = old.wait(3_600_000).restored()
    new.use(tok_out=101).tally().until(ms(NOV)).tally()
    books.learn(old, plan=plan())
    for one in (old, new):
        books.ingest(one.export(), now=ME.at)
    assert guessed(bill(books)) == {old.id: 200}


def test_what_a_later_log_carries_over_is_known(books: Books) -> None:
    old = device({SEP: 100, OCT: 200})
    cut = old.size
    old.until(ms(NOV) + 1000).use(tok_out=40)
    new = old.wait(3_600_000).restored()
    books.learn(old, plan=plan(months=1))
    assert books.code(old.export(0, cut), now=ME.at) == "OK"
    books.ingest(new.export(), now=ME.at)
    assert guessed(bill(books)) == {old.id: 160}


def test_tally_files_and_readings_are_known(books: Books) -> None:
    one = two_months()
    books.learn(one, plan=plan())
    assert books.code(one.tallies(), now=ME.at) == "W152"
    assert guessed(bill(books)) == {one.id: 200}
    one.until(ms(DEC) + 1000).use(tok_out=5).tally()
    assert books.code(one.reading(), now=ME.at) == "W153"
    assert "estimates" not in bill(books)


def test_devices_of_sub_licenses_count_with_the_license_above(books: Books) -> None:
    own = device({SEP: 1, DEC: 1}, license=ABOVE)
    below = two_months(kind=Below, license=make_license(license_id="L-1.ward"), number=2)
    books.learn(own, plan=plan())
    books.take("delegate.jsonl", below.line())
    for one in (own, below):
        assert books.code(one.export(), now=ME.at) == "OK"
    (one,) = bill(books)["estimates"]
    assert (one["license"], one["device"], one["amounts"]) == ("L-1.ward", below.id, {"m": "200"})


def test_usage_under_a_test_document_is_no_base(books: Books) -> None:
    test = make_license(environment="test")
    books.learn(device({SEP: 100, OCT: 301, NOV: 0}, license=test), plan=plan())
    refused("USAGE", lambda: bill(books))


# --- trued up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("truth", "kind"), [(20, "credit_note"), (350, "invoice")])
def test_what_comes_later_takes_the_estimate_back(books: Books, truth: int, kind: str) -> None:
    one = two_months()
    size = one.size
    ingested(books, one)
    assert bill(books, draft=False)["net"] == "2.00"
    assert correct(books) == []
    one.until(ms(NOV) + 7_200_000).use(tok_out=truth).until(ms(DEC)).tally()
    assert books.code(one.export(size), now=ME.at) in ("OK", "W130")
    (found,) = unbilled.late(books.database, now=ME.at)
    (made,) = correct(books)
    assert (made["kind"], made["net"]) == (kind, f"{(truth - 200) / 100:.2f}") and "estimates" not in made
    assert found.net == made["net"]
    assert correct(books) == [] and unbilled.late(books.database, now=ME.at) == []
    assert reconcile(books.database, ME.at).ok


def test_an_invoice_of_before_is_estimated_by_a_further_one(books: Books) -> None:
    ingested(books, one := two_months())
    assert bill(books, day=GRACE, draft=False)["net"] == "0.00"
    assert correct(books, GRACE) == []
    (made,) = correct(books)
    assert (made["net"], guessed(made)) == ("2.00", {one.id: 200})


def test_the_report_says_what_stands(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    one = two_months()
    size = one.size
    ingested(books, one)
    cells = ["hospital", "L-1", one.id, "2026-11", "m", "200", "2026-11-01T01:00:00Z", "2026-09 2026-10"]
    assert [r.cells() for r in estimate_report.rows(books.database, NOV, ME.at)] == [[*cells, ""]]
    number = bill(books, draft=False)["number"]
    assert [r.cells() for r in estimate_report.rows(books.database, NOV, ME.at)] == [[*cells, number]]
    assert estimate_report.rows(books.database, NOV, ME.at, "nobody") == []
    verb = ["settle", "--db", books.address, "estimates", "--period", "2026-11", "--format", "json"]
    capsys.readouterr()
    assert run(make_cli(), verb) == 0
    (row,) = json.loads(capsys.readouterr().out)["estimates"]
    assert (row["device"], row["amount"]) == (one.id, "200")
    one.until(ms(DEC)).tally()
    assert books.code(one.export(size), now=ME.at) in ("OK", "W130")
    correct(books)
    assert estimate_report.rows(books.database, NOV, ME.at) == []


# --- packs --------------------------------------------------------------------------------------------


def packed(books: Books, name: str) -> bytes:
    with books.database.read() as connection:
        return evidence_pack.for_invoice(connection, name)


def test_a_pack_says_what_has_no_evidence(books: Books) -> None:
    one, other = two_months(), device({SEP: 40, OCT: 5, NOV: 9, DEC: 0}, number=2)
    size, gone = one.size, two_months(number=3)
    sealed, kept = proof(gone), gone.size - 2
    books.learn(one, other, gone, plan=plan())
    for each, end in ((one, size), (other, other.size), (gone, kept)):
        assert books.code(each.export(0, end), now=ME.at) == "OK"
    books.take("released.jsonl", released(gone, sealed))
    number = bill(books, draft=False)["number"]
    one.until(ms(DEC)).tally()
    assert books.code(one.export(size), now=ME.at) in ("OK", "W130")
    report = evidence_check.check(packed(books, number), world.make_trust())
    assert report.ok, report
    told = {check.name: check.detail for check in report.checks}
    assert told["quantities"] == "tok: 209 (200 of them estimated, no evidence)"
    (note,) = correct(books)
    report = evidence_check.check(packed(books, note["number"]), world.make_trust())
    assert report.ok, report


def test_a_document_names_devices_of_which_an_earlier_month_was_estimated(books: Books) -> None:
    """What was drawn in it depends on them, although its own month has no estimate."""
    books.learn(one := device({SEP: 9000, OCT: 0}), plan=rich(1))
    assert books.code(one.export(), now=ME.at) == "OK"
    day = date(2026, 11, 12)
    assert bill(books, OCT, day, draft=False)["estimates"][0]["amounts"] == {"m": "9000"}
    value = bill(books, NOV, day, draft=False)
    assert [(said["device"], said["amounts"]) for said in value["estimates"]] == [(one.id, {})]
    report = evidence_check.check(packed(books, value["number"]), world.make_trust())
    assert report.ok, report


@pytest.mark.parametrize("amounts", [{"m": "201"}, {}])
def test_a_pack_with_another_estimate_is_refused(books: Books, amounts: dict[str, str]) -> None:
    ingested(books, two_months())
    number = bill(books, draft=False)["number"]
    manifest, files = evidence_pack.read(packed(books, number))
    name = f"invoices/{number}.json"
    value = json.loads(files[name])
    value["estimates"][0]["amounts"] = amounts
    files[name] = canonical.dumps(value)
    del files[evidence_pack.MANIFEST]
    members = {key: said for key, said in manifest.items() if key not in ("schema", "files")}
    report = evidence_check.check(evidence_pack._pack(members, files), world.make_trust())
    assert [check.name for check in report.checks if not check.ok] == ["quantities"]


# --- plans --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"months": 0}, {"months": 25}, {"months": 3, "days": 1}, 3])
def test_plans_that_estimate_otherwise_are_refused(given: Any) -> None:
    refused("PLAN_INVALID", lambda: make_plan(estimate=given))


def test_the_words_of_a_plan_say_it() -> None:
    head = sections(plan(3))[0].lines
    assert any("the mean of its last 3 months that are known" in line for line in head)
    assert not any("mean" in line for line in sections(plan(None))[0].lines)


# --- any order ----------------------------------------------------------------------------------------

MONTHS = (SEP, OCT, NOV, DEC)
LAST = date(2027, 2, 1)


def rich(months: int | None) -> Plan:
    """Tiers, a prepayment, a minimum, tax and yearly tiers of a part."""
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "60.00", "per": "term",
             "billing": "prepaid", "overage_factor": "1.2", "unused": "forfeit"}  # fmt: skip
    pool = [{"party": "platform", "take": [{"up_to": "20", "bps": 3333}, {"bps": 1111}]},
            {"party": "creator:a", "rest": True}]  # fmt: skip
    data = plan_data(
        recurring("30.01", when="advance", prorate="day"), GRADUATED, per_unit("0.13", "also"), per=1000,
        commitments=[spend, {"id": "min", "kind": "minimum", "scope": ["also"], "amount": "3.01",
                             "per": "period"}],
        shares={"scope": ["tok", "also"], "pool": pool}, tax={"category": "S", "percent": "19"},
        head={"tz": "Europe/Berlin"},
        **({} if months is None else {"estimate": {"months": months}}),
    )  # fmt: skip
    return Plan.from_dict(data)


@cache
def fleet() -> tuple[Device, ...]:
    """Three devices over four months, one with a second log; all known to the end of December."""
    made, dice = [], Random(7)
    for number in (1, 2, 3):
        one = Device(number=number)
        for _ in range(60):
            one.wait(dice.randrange(41 * 3_600_000)).use(tok_out=dice.randrange(90_000)).tally()
        if number == 2:
            made.append(one)
            one = one.wait(3_600_000).restored()
            for _ in range(20):
                one.wait(dice.randrange(41 * 3_600_000)).use(tok_out=dice.randrange(90_000)).tally()
        one.until(ms(JAN) + 3_600_000).tally()
        made.append(one)
    return tuple(made)


@cache
def pieces() -> tuple[bytes, ...]:
    found = []
    for one in fleet():
        cuts = [0, *range(15, one.size - 10, 30), one.size]
        found += [one.export(a, b) for a, b in pairwise(cuts)]
    return tuple(found)


def money(books: Books) -> Counter[tuple[str, ...]]:
    """Minor units by what they are for, all documents together."""
    total: Counter[tuple[str, ...]] = Counter()
    for row in books.rows(db.invoices):
        value = json.loads(row["json"])
        SCHEMA.validate(value)
        for name in ("net", "tax"):
            total[row["period"], name] += int(value[name].replace(".", ""))
        for line in value["lines"]:
            key = row["period"], line["charge"], line["kind"], line["service_start"]
            total[key] += int(line["amount"].replace(".", ""))
        for share in value["shares"]:
            total["party", share["party"]] += int(share["amount"].replace(".", ""))
    return Counter({key: amount for key, amount in total.items() if amount})


def settle(books: Books, order: Sequence[int], dice: Random, *, months: int | None, between: bool) -> int:
    """Take files in this order, with documents issued in between; then all that is due. How many devices
    were estimated in a document."""
    books.learn(*fleet(), plan=rich(months))
    at = ms(LAST) // 1000
    for n in order:
        books.ingest(pieces()[n], f"{n}.usage.gz", at)
        if between and dice.random() < 0.3:
            month, day = dice.choice(MONTHS), dice.choice((date(2026, 11, 20), LAST))
            try:
                billing.bill(books.database, "L-1", month, day, actor=ME)
            except Exception as error:
                assert getattr(error, "code", "") == "USAGE", error
            if dice.random() < 0.5:
                corrections.correct(books.database, "L-1", day, actor=ME)
    for month in MONTHS:
        billing.bill(books.database, "L-1", month, LAST, actor=ME)
    corrections.correct(books.database, "L-1", LAST, actor=ME)
    assert corrections.correct(books.database, "L-1", LAST, actor=ME) == []
    return sum(len(json.loads(row["json"]).get("estimates", ())) for row in books.rows(db.invoices))


@cache
def truth() -> Counter[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder))
        assert not settle(books, range(len(pieces())), Random(0), months=None, between=False)
        return money(books)


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_in_any_order_documents_come_to_the_truth(dice: Random, months: int) -> None:
    order = list(range(len(pieces())))
    dice.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        books = Books.open(Path(folder))
        settle(books, order, dice, months=months, between=True)
        assert money(books) == truth()
        assert reconcile(books.database, ms(LAST) // 1000).ok


def test_documents_in_between_come_to_the_truth(books: Books) -> None:
    dice = Random(3)
    order = list(range(len(pieces())))
    dice.shuffle(order)
    assert settle(books, order, dice, months=2, between=True), "this order estimates"
    assert money(books) == truth()
    for row in books.rows(db.invoices):
        report = evidence_check.check(packed(books, row["name"]), world.make_trust())
        assert report.ok, (row["name"], report.checks[-1])


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_drafts_are_the_same_in_any_order(dice: Random, count: int) -> None:
    """Of the same files."""
    some = sorted(dice.sample(range(len(pieces())), count))
    shuffled = dice.sample(some, count)
    said = []
    for order in (some, shuffled):
        with tempfile.TemporaryDirectory() as folder:
            books = Books.open(Path(folder)).learn(*fleet(), plan=rich(2))
            for n in order:
                books.ingest(pieces()[n], f"{n}.usage.gz", ms(LAST) // 1000)
            made = [
                json.loads(billing.bill(books.database, "L-1", month, LAST, draft=True).json)
                for month in MONTHS
            ]
            said.append([{k: v for k, v in one.items() if k != "evidence"} for one in made])
    assert said[0] == said[1]
