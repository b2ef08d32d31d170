"""Cases: what waits for a person, what a person may decide, and what follows from it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.books import NOW, Books
from support.device import T0, Device, make_license
from support.rating_plans import make_plan, per_unit

from sealpack.format import records
from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, billing, cases, db
from sealpack.settlement.audit import Actor
from sealpack.settlement.cases import ACCEPT, REFUSE, Case
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

ME = Actor("eva", NOW)


def over(books: Books) -> tuple[Device, bytes]:
    """A device that was used after its license had ended; what it wrote is held (H230)."""
    device = Device(make_license(exp=T0 + 3600, grace_s=0)).use(tok_out=100)
    books.learn(device, plan=make_plan(per_unit("1"), per=1))
    data = device.wait(4 * 3_600_000).use(tok_out=30).export()
    assert books.code(data) == "H230"
    return device, data


def only(books: Books) -> Case:
    (found,) = cases.cases(books.database)
    return found


def refused(books: Books, number: int, verdict: str, reason: str = "so") -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        cases.decide(books.database, number, verdict, reason, actor=ME)
    return caught.value


def test_what_is_accepted_is_taken_and_billed(books: Books) -> None:
    device, _ = over(books)
    case = only(books)
    assert (case.number, case.code, case.state, case.can) == (1, "H230", "open", [ACCEPT, REFUSE])
    after, freed = cases.decide(books.database, 1, ACCEPT, "the renewal was on its way", actor=ME)
    assert [outcome.code for outcome in freed] == ["OK"]
    assert (after.state, after.who, after.reason) == ("accepted", "eva", "the renewal was on its way")
    assert after.closed_at is not None and after.can == []
    assert books.log(device).size == device.size and reconcile(books.database, NOW).ok
    bill = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 10, 1))
    assert json.loads(bill.json)["net"] == "130.00"
    with books.database.read() as connection:
        first = next(audit.entries(connection))
    assert (first.who, first.what["verb"], first.what["case"], first.what["code"]) == (
        "eva", "accept", 1, "H230",
    )  # fmt: skip
    assert audit.verify(books.database)[0] == 2


def test_what_is_refused_stays_out_and_is_not_asked_about_again(books: Books) -> None:
    device, data = over(books)
    after, freed = cases.decide(books.database, 1, REFUSE, "not ours to bill", actor=ME)
    assert (after.state, freed, after.can) == ("refused", [], [ACCEPT])
    books.take("registry.jsonl", device.line())  # whatever is imported
    assert books.code(data) == "H230"  # and brought again
    assert only(books).state == "refused" and only(books).closed_at is not None
    after, freed = cases.decide(books.database, 1, ACCEPT, "asked again", actor=ME)
    assert (after.state, len(freed)) == ("accepted", 1)


def test_a_decision_is_for_one_file(books: Books) -> None:
    device, _ = over(books)
    cases.decide(books.database, 1, ACCEPT, "once", actor=ME)
    cut = device.size
    assert books.code(device.use(tok_out=1).export(cut)) == "H230"
    assert [(c.number, c.state) for c in cases.cases(books.database)] == [(1, "accepted"), (2, "open")]


def test_late_usage_may_be_accepted(books: Books) -> None:
    device = Device().use(tok_out=5)
    books.learn(device, plan=make_plan(per_unit("1"), per=1))
    late = T0 + 500 * 86_400
    assert books.code(device.export(), now=late) == "H231"
    _, freed = cases.decide(books.database, 1, ACCEPT, "agreed", actor=Actor("eva", late))
    assert len(freed) == 1 and books.log(device).size == device.size


def test_a_contradiction_of_the_registry_may_be_accepted(books: Books) -> None:
    """An acknowledgement that settlement lost with its own disk."""
    device = Device().use(tok_out=5)
    device.put(records.ACKNOWLEDGED, ack_seq=1, digest="ab" * 32, size=1, server_time=T0)
    books.learn(device, plan=make_plan(per_unit("1"), per=1))
    assert books.code(device.export()) == "H214"
    _, freed = cases.decide(books.database, 1, ACCEPT, "our backup was older", actor=ME)
    assert len(freed) == 1 and reconcile(books.database, NOW).ok


def test_decisions_that_cannot_be_made(books: Books) -> None:
    error = refused(books, 7, ACCEPT)
    assert (error.code, error.message) == ("CASE_INVALID", "there is no case 7")
    device = Device().work(20)
    books.learn(device)
    assert books.code(device.export(10)) == "H201"
    error = refused(books, 1, REFUSE)
    assert error.code == "CASE_INVALID" and "missing range" in error.remedy
    assert refused(books, 1, ACCEPT, " ").code == "USAGE"
    books.ingest(device.export())
    assert only(books).state == "settled" and only(books).can == []
    assert "is settled" in refused(books, 1, REFUSE).message
    assert not books.rows(db.audit)


def test_a_case_is_decided_once(books: Books) -> None:
    over(books)
    cases.decide(books.database, 1, ACCEPT, "so", actor=ME)
    assert "is accepted" in refused(books, 1, REFUSE).message
    assert "is accepted" in refused(books, 1, ACCEPT).message


def test_a_case_decided_meanwhile(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    over(books)
    before = only(books)
    cases.decide(books.database, 1, REFUSE, "so", actor=ME)
    monkeypatch.setattr(cases, "find", lambda *_: before)
    assert "meanwhile" in refused(books, 1, ACCEPT).message


@pytest.mark.sqlite_only
def test_as_a_clerk_types_it(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    over(books)

    def settle(*arguments: str | Path, status: int = 0) -> str:
        database = str(books.folder / "settlement.db")
        assert run(make_cli(), ["settle", "--db", database, *map(str, arguments)]) == status
        return capsys.readouterr().out

    def parsed(*arguments: str) -> Any:
        return json.loads(settle(*arguments, "--format", "json"))

    assert settle("cases").startswith("1  H230  open  a.usage.gz: used after the license had ended")
    assert [case["can"] for case in parsed("cases")["cases"]] == [["accept", "refuse"]]
    shown = settle("case", "show", "1")
    assert "accept, refuse" in shown and "L-1" in shown
    settle("case", "decide", "1", "--reason", "x", status=2)
    settle("case", "decide", "1", "--accept", "--refuse", "--reason", "x", status=2)
    done = settle("case", "decide", "1", "--accept", "--reason", "ok", "--by", "eva")
    assert "accepted" in done and "eva" in done and "OK " in done
    assert settle("cases") == "nothing waits\n"
    (case,) = parsed("cases", "--all")["cases"]
    assert (case["state"], case["who"], case["verdict"]) == ("accepted", "eva", "accept")
    assert parsed("case", "show", "1")["schema"] == "sealpack/settle-case/v1"


def test_a_fork_shows_both_signed_checkpoints(books: Books) -> None:
    device = Device().work(10)
    books.learn(device)
    twin = Device().work(4)
    assert books.code(device.export()) == "OK"
    assert books.code(twin.use(tok_out=9).work(9).export()) == "H210"
    value = only(books).to_dict()
    assert value["ours"] != value["theirs"] and device.origin in value["ours"]
    assert "epoch token" in value["next"] and value["can"] == []
