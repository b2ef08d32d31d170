"""Invoices before they are issued: states, approvals, what is not billed, on both databases."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
import sqlalchemy as sa
from support import world
from support.acts import refused
from support.books import CUSTOMERS, Books
from support.device import T0, Device, make_license
from support.rating_plans import make_plan, per_unit

from sealpack.settlement import approvals, audit, billing, corrections, db, drafts, ratings, unbilled
from sealpack.settlement.audit import Actor
from sealpack.settlement.drafts import Entry

SEPTEMBER, OCTOBER = date(2026, 9, 1), date(2026, 10, 1)
DAY_S = 86_400
END = 1790812800  # 2026-10-01T00:00Z
CALM = END + 10 * DAY_S  # days of grace are over
ME = Actor("clerk", CALM + 1)
DAY = date(2026, 10, 15)


def opened(books: Books, **plan: object) -> Device:
    """One device with 100.00 of September."""
    device = Device().use(tok_out=100)
    books.learn(device, plan=make_plan(per_unit("1"), per=1, **plan))
    assert books.code(device.export()) == "OK"
    return device


def entries(books: Books, now: int, month: date = SEPTEMBER) -> list[Entry]:
    return list(drafts.everything(books.database, month, now))


def only(books: Books, now: int = ME.at) -> Entry:
    (entry,) = entries(books, now)
    return entry


@pytest.mark.parametrize(
    ("now", "state"),
    [(END - 1, "open"), (END, "grace"), (CALM - 1, "grace"), (CALM, "draft")],
)
def test_states_by_the_clock(books: Books, now: int, state: str) -> None:
    opened(books)
    entry = only(books, now)
    assert (entry.state, entry.draft and entry.draft["total"]) == (state, "100.00")


def test_days_of_grace_are_the_plans_in_its_zone(books: Books) -> None:
    opened(books, head={"tz": "Europe/Berlin", "grace_days": 3})
    berlin = END - 2 * 3600
    assert [only(books, berlin + at).state for at in (-1, 0, 3 * DAY_S - 1, 3 * DAY_S)] == [
        "open", "grace", "grace", "draft"
    ]  # fmt: skip


def test_approved_then_issued(books: Books) -> None:
    opened(books)
    made = drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    assert (made.who, made.at, len(made.digest)) == ("clerk", ME.at, 64)
    assert only(books).state == "approved"
    printed = billing.bill(books.database, "L-1", SEPTEMBER, DAY, approved=True, actor=ME)
    assert approvals.digest(json.loads(printed.json)) == made.digest, "the digest is of what is said"
    entry = only(books)
    assert (entry.state, entry.number, entry.lapsed) == ("issued", "INV-000001", False)
    refused("USAGE", lambda: drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME))
    with books.database.read() as connection:
        verbs = [entry.what["verb"] for entry in audit.entries(connection)]
    assert verbs[-2:] == ["approve", "issue"]
    audit.verify(books.database)


def test_approved_again_changes_nothing(books: Books) -> None:
    opened(books)
    first = drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    again = drafts.approve(books.database, "L-1", SEPTEMBER, actor=Actor("other", ME.at + 9))
    assert again == first
    assert len([row for row in books.rows(db.audit) if '"approve"' in row["what"]]) == 1


def test_new_usage_takes_the_approval_away(books: Books) -> None:
    device = opened(books)
    drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    start = device.size
    books.ingest(device.use(tok_out=7).export(start))
    entry = only(books)
    assert (entry.state, entry.lapsed) == ("draft", True)
    assert entry.draft is not None and entry.draft["total"] == "107.00"
    refused(
        "CHANGED_MEANWHILE", lambda: billing.bill(books.database, "L-1", SEPTEMBER, DAY, approved=True)
    )  # fmt: skip
    printed, skipped = billing.bill_all(books.database, SEPTEMBER, DAY, approved=True, actor=ME)
    assert printed == [] and list(skipped) == ["L-1"]
    drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    printed, skipped = billing.bill_all(books.database, SEPTEMBER, DAY, approved=True, actor=ME)
    assert [p.name for p in printed] == ["INV-000001"] and not skipped


def test_usage_of_a_later_month_leaves_the_approval(books: Books) -> None:
    device = opened(books)
    drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    start = device.size
    books.ingest(device.until((END + DAY_S) * 1000).use(tok_out=7).export(start), now=ME.at)
    assert only(books).state == "approved"
    assert [e.state for e in entries(books, ME.at, OCTOBER)] == ["open"]


def test_another_address_takes_the_approval_away(books: Books) -> None:
    opened(books)
    drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    moved = json.loads(json.dumps(CUSTOMERS))
    moved["customers"][0]["address"] = ["Hafenstraße 9", "Kiel"]
    books.take("customers.json", json.dumps(moved).encode())
    assert only(books).lapsed


def test_only_the_draft_that_was_looked_at_is_approved(books: Books) -> None:
    device = opened(books)
    seen = only(books).digest
    start = device.size
    books.ingest(device.use(tok_out=7).export(start))
    refused(
        "CHANGED_MEANWHILE",
        lambda: drafts.approve(books.database, "L-1", SEPTEMBER, expect=seen, actor=ME),
    )
    assert books.rows(db.approvals) == []


def test_early_only_when_it_is_said(books: Books) -> None:
    opened(books)
    early = Actor("clerk", CALM - 1)
    error = refused("USAGE", lambda: drafts.approve(books.database, "L-1", SEPTEMBER, actor=early))
    assert "until 2026-10-10" in error.message
    made = drafts.approve(books.database, "L-1", SEPTEMBER, early=True, actor=early)
    assert made.at == early.at and only(books, early.at).state == "approved"


def test_an_approval_taken_back(books: Books) -> None:
    opened(books)
    drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    refused("USAGE", lambda: approvals.withdraw(books.database, "L-1", SEPTEMBER, " ", actor=ME))
    approvals.withdraw(books.database, "L-1", SEPTEMBER, "wrong order number", actor=ME)
    assert only(books).state == "draft"
    refused("APPROVAL_MISSING", lambda: approvals.withdraw(books.database, "L-1", SEPTEMBER, "x", actor=ME))


def test_a_seller_may_require_approval(books: Books) -> None:
    opened(books)
    seller = {"schema": "sealpack/seller/v1", "issuer": world.ISSUER, "legal_name": "Acme", "approval": True}
    books.take("seller.json", json.dumps(seller).encode())
    refused("APPROVAL_MISSING", lambda: billing.bill(books.database, "L-1", SEPTEMBER, DAY))
    assert billing.bill(books.database, "L-1", SEPTEMBER, DAY, draft=True).name == "draft-L-1-2026-09"
    drafts.approve(books.database, "L-1", SEPTEMBER, actor=ME)
    assert billing.bill(books.database, "L-1", SEPTEMBER, DAY).name == "INV-000001"


def test_without_approvals_everything_is_as_it_was(books: Books) -> None:
    opened(books)
    assert billing.bill(books.database, "L-1", SEPTEMBER, DAY).name == "INV-000001"


# --- lists --------------------------------------------------------------------------------------------


def several(books: Books, count: int = 5) -> list[Device]:
    devices = [
        Device(make_license(license_id=f"L-{n}"), n).use(tok_out=n) for n in range(1, count + 1)
    ]  # fmt: skip
    books.learn(*devices, plan=make_plan(per_unit("1"), per=1))
    for device in devices:
        assert books.code(device.export()) == "OK"
    return devices


def test_pages_go_on_where_the_last_one_ended(books: Books) -> None:
    several(books)
    drafts.refresh(books.database, [f"L-{n}" for n in range(1, 6)], SEPTEMBER)
    found, after = [], ""
    while True:
        with books.database.read() as connection:
            page = drafts.listed(connection, SEPTEMBER, ME.at, after=after, limit=2)
        assert not page.unrated
        found += [entry.draft["total"] for entry in page.entries if entry.draft]
        if page.next is None:
            break
        after = page.next
    assert found == ["1.00", "2.00", "3.00", "4.00", "5.00"]


def test_lists_say_what_is_not_rated_yet(books: Books) -> None:
    (device,) = several(books, 1)
    with books.database.read() as connection:
        page = drafts.listed(connection, SEPTEMBER, ME.at)
    assert (page.entries, page.unrated) == ([], ["L-1"])
    assert only(books).draft
    start = device.size
    books.ingest(device.use(tok_out=5).export(start))
    with books.database.read() as connection:
        assert drafts.listed(connection, SEPTEMBER, ME.at).unrated == ["L-1"], "new usage makes it stale"


def test_what_is_kept_equals_what_is_rated(books: Books) -> None:
    """The list of a month after every kind of change that moves money."""
    device = opened(books)

    def same() -> None:
        entry = only(books)
        with books.database.read() as connection:
            fresh = drafts.draft(connection, "L-1", SEPTEMBER)
        assert (entry.digest, entry.draft) == (fresh.digest, fresh.value)

    same()
    start = device.size
    books.ingest(device.use(tok_out=11).export(start))
    same()
    other = Device(number=2).use(tok_out=3)
    books.take("registry.jsonl", other.line())
    books.ingest(other.export())
    same()
    taxed = json.loads(json.dumps(CUSTOMERS))
    taxed["customers"][0]["tax"] = {"category": "S", "percent": "19"}
    books.take("customers.json", json.dumps(taxed).encode())
    same()
    entry = only(books)
    assert entry.draft is not None and entry.draft["total"] == "135.66"  # 114.00 and 19 %
    seller = {"schema": "sealpack/seller/v1", "issuer": world.ISSUER, "legal_name": "Acme Ltd"}
    books.take("seller.json", json.dumps(seller).encode())
    same()


def test_a_license_whose_plan_is_unknown_is_told(books: Books) -> None:
    from sealpack.format.license import PlanRef

    device = Device(make_license(license_id="L-9", plan=PlanRef("nowhere", 1)))
    books.learn(device)
    entry = only(books)
    assert entry.state == "faulty" and "nowhere" in entry.problem
    approved, failed = drafts.approve_all(books.database, SEPTEMBER, actor=ME)
    assert approved == [] and list(failed) == ["L-9"]


def test_a_month_before_the_first_day_has_no_entry(books: Books) -> None:
    opened(books)
    assert entries(books, ME.at, date(2026, 8, 1)) == []


@pytest.mark.sqlite_only
def test_a_database_nobody_can_write_is_listed_all_the_same(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealpack.format.errors import SealpackError

    opened(books)
    with books.database.read() as connection:
        basis = ratings.bases(connection, ["L-1"], "draft:2026-09")

    def fail(*_: str) -> None:
        raise SealpackError("STORE_READONLY", "on a disc")

    monkeypatch.setattr(books.database, "write", fail)
    ratings.keep(books.database, "draft:2026-09", {"L-1": (basis["L-1"], {})})
    assert books.rows(db.rated) == []


# --- what is not billed -------------------------------------------------------------------------------


def test_unbilled(books: Books) -> None:
    device = opened(books)
    start = device.size
    books.ingest(device.until((END + DAY_S) * 1000).use(tok_out=7).export(start), now=ME.at)

    def rows() -> list[tuple[str, str, str, str]]:
        found = unbilled.unbilled(books.database, ME.at)
        return [(f"{one.period:%Y-%m}", one.kind, one.state, one.total) for one in found]

    assert rows() == [("2026-09", "draft", "draft", "100.00"), ("2026-10", "draft", "open", "7.00")]
    billing.bill(books.database, "L-1", SEPTEMBER, DAY, actor=ME)
    assert rows() == [("2026-10", "draft", "open", "7.00")]
    other = Device(number=2).use(tok_out=30)
    books.take("registry.jsonl", other.line())
    books.ingest(other.export())
    assert rows() == [("2026-09", "late", "draft", "30.00"), ("2026-10", "draft", "open", "7.00")]
    assert rows() == rows(), "from what is kept"
    corrections.correct(books.database, "L-1", DAY, actor=ME)
    assert rows() == [("2026-10", "draft", "open", "7.00")]


def test_corrections_only_of_what_was_looked_at(books: Books) -> None:
    opened(books)
    billing.bill(books.database, "L-1", SEPTEMBER, DAY, actor=ME)
    other = Device(number=2).use(tok_out=30)
    books.take("registry.jsonl", other.line())
    books.ingest(other.export())
    with books.database.read() as connection:
        seen = corrections.digest(corrections.drafts(connection, "L-1"))
    start = other.size
    books.ingest(other.use(tok_out=1).export(start))
    refused(
        "CHANGED_MEANWHILE", lambda: corrections.correct(books.database, "L-1", DAY, expect=seen, actor=ME)
    )  # fmt: skip
    with books.database.read() as connection:
        documents = corrections.drafts(connection, "L-1")
    assert [document.total for document in documents] == [3100]
    made = corrections.correct(
        books.database, "L-1", DAY, expect=corrections.digest(documents), actor=ME
    )  # fmt: skip
    assert [one.name for one in made] == ["INV-000002"]


def test_held_usage_is_told_with_whose_it_is(books: Books) -> None:
    device = opened(books)
    device.use(tok_out=1)
    start = device.size
    device.use(tok_out=1)
    assert books.code(device.export(start), now=T0 + DAY_S) == "H201"
    with books.database.read() as connection:
        (found,) = unbilled.held(connection)
        assert unbilled.held(connection, "nobody") == []
    assert (found.customer, found.license_id, found.device_id) == ("hospital", "L-1", device.id)
    assert (found.code, found.receipts) == ("H201", device.size - start)
    came = datetime.fromtimestamp(T0 + DAY_S, UTC).date().isoformat()
    assert found.cells(T0 + 4 * DAY_S)[3:6] == [came, "3", "H201"]


def test_the_cache_may_be_emptied(books: Books) -> None:
    opened(books)
    before = only(books)
    with books.database.write() as connection:
        connection.execute(sa.delete(db.rated))
    assert only(books) == before


def test_late_usage_is_compared_piece_by_piece(books: Books) -> None:
    devices = several(books, 3)
    for device in devices:
        billing.bill(books.database, device.license.license_id, SEPTEMBER, DAY, actor=ME)
        start = device.size
        books.ingest(device.use(tok_out=1).export(start))
    before = unbilled.late_known(books.database)
    assert (before.found, len(before.waiting)) == ([], 3)
    assert unbilled.compare(books.database, before.waiting, seconds=-1) == before.waiting
    assert unbilled.compare(books.database, before.waiting) == []
    after = unbilled.late_known(books.database)
    assert ([one.total for one in after.found], after.waiting) == (["1.00"] * 3, [])
    assert unbilled.late_known(books.database, "nobody").found == []


def test_months_without_an_invoice(books: Books) -> None:
    several(books, 3)
    billing.bill(books.database, "L-2", SEPTEMBER, DAY, actor=ME)
    months = unbilled.months(books.database, ME.at)
    with books.database.read() as connection:
        counts = {one.first.month: (one.issued, one.without) for one in unbilled.by_month(connection, months)}
    assert counts[9] == (1, 2) and counts[10] == (0, 3)
    assert {one.month for one in months} == {9, 10}
    unbilled.catch_up(books.database, ME.at, seconds=60)
    assert len(books.rows(db.rated)) == 3, "September of two licenses, and what one was invoiced for"
