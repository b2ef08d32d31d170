"""A device that was set back: its next log, the registers it carries over, and what forks look like then."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from support import world
from support.books import NOW, Books
from support.device import T0, Device, make_license

from sealpack.format import documents, records
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Ceiling, Lease
from sealpack.format.documents import Parcel
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Allowance, LeaseTerms
from sealpack.format.note import open_checkpoint
from sealpack.format.repair import Repair
from sealpack.settlement import billing, db, epochs, ingest
from sealpack.settlement.reconcile import reconcile

DAY_MS = 86_400_000
QUARTER_MS = 900_000


def agrees(books: Books) -> bool:
    return reconcile(books.database, NOW).ok


def differences(books: Books) -> dict[tuple[int, str], int]:
    """(quarter, meter) -> what is billed of carried registers."""
    with books.database.read() as connection:
        found = epochs.of_license(connection, "L-1")
    return {(d.quarter_ms, d.meter): d.amount for d in found}


def billed(books: Books, meter: str = "tok_out") -> int:
    """All of a meter that is ever billed."""
    with books.database.read() as connection:
        usage = billing.usage_of(connection, "L-1")
    return sum(amount for (_, _, name), amount in usage.items() if name == meter)


def opened(books: Books, device: Device, now: int = NOW) -> Acknowledgement:
    (envelope,) = Parcel.from_bytes(books.reply(device, now).data).documents
    return Acknowledgement.open(envelope, device.trust)


def lease_of(found: Acknowledgement) -> Lease:
    assert found.lease is not None
    return Lease.open(found.lease, world.make_trust())


def token(device: Device, key: PrivateKey = world.LICENSER, **members: Any) -> bytes:
    made = EpochToken(
        **({"license_id": "L-1", "device_id": device.id, "epoch": device.epoch, "issued_at": T0} | members)
    )
    return Parcel((documents.seal("epoch-token", made.to_dict(), key),)).to_bytes()


def released(books: Books) -> list[str]:
    return [o.code for o in ingest.release(books.database, NOW)]


# --- differences ------------------------------------------------------------------------------------


def test_what_never_came_is_billed_when_the_next_log_begins(books: Books) -> None:
    old = Device().work(60)
    new = old.wait(DAY_MS // 2).restored().work(10)
    books.learn(old)
    assert books.code(old.export(0, 40)) == "OK"
    known = books.log(old).state.registers
    (outcome,) = books.ingest(new.export())
    assert (outcome.code, outcome.accepted, outcome.flags) == ("W151", new.size, ("W151",))
    assert known is not None
    began = old.now_ms - old.now_ms % QUARTER_MS
    assert differences(books) == {
        (began, meter): old.registers.total(meter) - known.total(meter)
        for meter in ("calls", "ms", "tok_in", "tok_out")
    }
    assert billed(books) == old.registers.total("tok_out") + new.registers.total("tok_out")
    with books.database.read() as connection:
        usage = billing.usage_of(connection, "L-1")
    assert usage[began, "lost", "calls"] == old.registers.total("calls") - known.total("calls")
    assert agrees(books)
    assert reconcile(books.database, NOW).waiting == (
        f"W151 {old.origin}: receipts 40 to {old.size - 1} never came; what a later log carries over of them "
        "is billed",
    )


def test_what_comes_after_all_is_not_billed_twice(books: Books) -> None:
    old = Device().work(60)
    new = old.wait(DAY_MS).restored().work(10)
    books.learn(old)
    total = old.registers.total("tok_out") + new.registers.total("tok_out")
    assert books.code(new.export()) == "W151"
    assert billed(books) == total
    for start, end in ((0, 10), (10, 40), (40, old.size)):
        assert differences(books)
        assert books.code(old.export(start, end)) == "OK"
        assert billed(books) == total
    assert not differences(books)
    assert agrees(books) and not reconcile(books.database, NOW).waiting


def test_registers_that_carry_nothing_bill_nothing(books: Books) -> None:
    old = Device()
    new = old.restored().work(3)
    books.learn(old)
    assert books.code(new.export()) == "W151"
    assert not differences(books)
    assert billed(books) == new.registers.total("tok_out")
    assert agrees(books)


def test_three_logs_carry_on(books: Books) -> None:
    first = Device().work(20)
    second = first.wait(DAY_MS).restored().work(20)
    third = second.wait(DAY_MS).restored().work(20)
    books.learn(first)
    books.take("leave.license", token(third))
    total = sum(d.registers.total("tok_out") for d in (first, second, third))
    assert books.code(third.export()) == "OK"
    assert billed(books) == total
    assert books.code(first.export()) == "OK"
    assert books.code(second.export(0, 9)) == "OK"
    assert billed(books) == total
    began = (T0 * 1000 + 2 * DAY_MS + 40 * 60_000) // QUARTER_MS * QUARTER_MS
    assert {quarter for quarter, _ in differences(books)} == {began}
    assert books.code(second.export(9)) == "OK"
    assert not differences(books) and billed(books) == total
    assert agrees(books)


def test_a_difference_under_a_test_license_is_not_billed(books: Books) -> None:
    old = Device(make_license(environment="test")).work(20)
    new = old.restored().work(2)
    books.learn(old)
    (outcome,) = books.ingest(new.export())
    assert outcome.flags == ("W150", "W151")
    assert not differences(books) and not billed(books)


def test_an_invoice_holds_the_difference(books: Books) -> None:
    old = Device().work(60)
    new = old.wait(DAY_MS).restored().work(10)
    books.learn(old)
    books.ingest(new.export())
    part = billing.bill(books.database, "L-1", date(2026, 9, 1), None, draft=True)
    books.ingest(old.export())
    whole = billing.bill(books.database, "L-1", date(2026, 9, 1), None, draft=True)
    total = old.registers.total("tok_out") + new.registers.total("tok_out")
    assert f"{total:,} output tokens".encode() in part.csv
    assert part.csv == whole.csv


def test_a_difference_that_changes_an_invoiced_month_is_late(books: Books) -> None:
    old = Device().work(20)
    new = old.until((T0 + 20 * 86_400) * 1000).restored()
    later = T0 + 21 * 86_400
    books.learn(old)
    assert books.code(new.export(), now=later) == "W151"
    billing.bill(books.database, "L-1", date(2026, 10, 1), date(2026, 11, 1))
    assert {row["period"] for row in books.rows(db.invoices)} == {"2026-10-01"}
    (outcome,) = books.ingest(old.export(), now=later)
    assert outcome.flags == ("W130",)


# --- leave ------------------------------------------------------------------------------------------


def test_a_further_log_waits_for_its_token(books: Books) -> None:
    first = Device().work(5)
    second = first.restored().work(5)
    third = second.restored().work(5)
    books.learn(first)
    assert books.code(second.export()) == "W151"
    (outcome,) = books.ingest(third.export())
    assert outcome.code == "H215" and "without leave" in outcome.detail
    assert books.take("leave.license", token(third)) == "1 epoch token"
    assert released(books) == ["OK"]
    assert books.take("leave.license", token(third)) == "1 epoch token"
    assert agrees(books)


def test_a_token_from_settlement_itself(books: Books) -> None:
    first = Device().work(5)
    third = first.restored().restored()
    books.learn(first)
    assert books.code(third.export()) == "H215"
    books.take("leave.license", token(third, world.SETTLEMENT, reason="disk replaced"))
    assert released(books) == ["OK"]


@pytest.mark.parametrize("members", [{"epoch": 1}, {"license_id": "L-2"}, {"device_id": "dev-" + "0" * 32}])
def test_a_token_for_something_else(books: Books, members: dict[str, Any]) -> None:
    first = Device().work(5)
    third = first.restored().restored()
    books.learn(first)
    books.take("leave.license", token(third, **members))
    assert books.code(third.export()) == "H215"


def test_a_token_of_another_issuer_gives_no_leave(books: Books) -> None:
    stranger = PrivateKey.from_seed(b"sealpack-test-other-settlement-1")
    entries = [
        world.key_entry(world.LICENSER, ["license"]),
        world.key_entry(stranger, ["ack"]) | {"issuer": "Other Models (test)"},
    ]
    trust = world.Trust.from_envelopes(
        world.make_root(), world.make_keyring(entries=entries), world.make_revocations()
    )
    first = Device(trust=trust).work(5)
    third = first.restored().restored()
    books.learn(first)
    books.take("leave.license", token(third, stranger))
    assert books.code(third.export()) == "H215"


def test_a_repair_that_names_a_log_gives_leave(books: Books) -> None:
    first = Device().work(5)
    third = first.restored().restored()
    books.learn(first)
    assert books.code(third.export()) == "H215"
    for members, codes in ({"now": T0}, []), ({"epoch": 2}, ["OK"]):
        made = Repair("L-1", first.id, "22" * 32, "33" * 16, T0, **members)
        envelope = documents.seal("repair", made.to_dict(), world.LICENSER)
        assert books.take("repair.license", Parcel((envelope,)).to_bytes()) == "1 repair"
        assert released(books) == codes


def test_a_device_that_was_deactivated_begins_no_log_by_itself(books: Books) -> None:
    first = Device().work(5)
    first.put(records.CLOSED, reason="deactivated")
    second = first.restored().work(5)
    books.learn(first)
    assert books.code(first.export()) == "OK"
    assert books.code(second.export()) == "H215"
    books.take("leave.license", token(second))
    assert released(books) == ["OK"]


def test_a_log_that_names_nothing_before_it_has_no_leave(books: Books) -> None:
    first = Device().work(5)
    second = first.restored(previous=None, carried=None).work(5)
    books.learn(first)
    assert books.code(second.export()) == "H215"
    books.take("leave.license", token(second))
    assert released(books) == ["OK"]
    assert agrees(books)


def test_a_lease_for_a_log_lets_one_more_follow(books: Books) -> None:
    first = Device().work(5)
    second = first.restored().work(5)
    books.learn(first)
    books.ingest(second.export())
    lease = lease_of(opened(books, second))
    assert lease.epoch == 1
    early = second.restored().work(1)
    assert books.code(early.export()) == "H215"
    third = second.until(NOW * 1000).restored().work(1)
    assert books.code(third.export()) == "W151"


def test_a_year_later_one_more_may_follow(books: Books) -> None:
    first = Device().work(5)
    second = first.restored()
    began = second.now_ms
    books.learn(first)
    late = T0 + 366 * 86_400
    third = second.until(began + 365 * DAY_MS - 1).restored()
    assert books.code(third.export(), now=late) == "H215"
    third = second.until(began + 365 * DAY_MS).restored()
    assert books.code(third.export(), now=late) == "H215"
    outcomes = books.ingest(second.export(), now=late)
    assert [o.code for o in outcomes] == ["W151", "W151"]


def test_late_files_of_a_log_before_the_activation_that_counts(books: Books) -> None:
    old = Device().work(5)
    new = Device(epoch=1).wait(1).work(5)
    books.learn(old)
    books.take("registry.jsonl", new.line())
    assert books.code(old.export()) == "OK"
    assert books.code(new.export()) == "OK"
    assert agrees(books)


@pytest.mark.parametrize("epoch", ["01", "x", "-1", "9" * 17, "9" * 16, ""])
def test_an_epoch_that_is_no_number(books: Books, epoch: str) -> None:
    device = Device().work(2)
    books.learn(device)
    origin = device.origin.rpartition("/")[0] + "/" + epoch
    assert books.code(device.export(origin=origin)) in ("R301", "R302")
    assert not books.rows(db.logs)


@pytest.mark.parametrize("origin", ["L-2/{}/0", "L-1/dev-0/0", "L-1/{}/1", "L-1/{}/2", "L-1/{}/x"])
def test_a_log_that_follows_no_log_of_its_device(books: Books, origin: str) -> None:
    device = Device().work(2)
    before = {"origin": "sealpack/usage/" + origin.format(device.id), "size": 4, "root": "ab" * 32}
    books.learn(device)
    assert books.code(device.restored(previous=before).export()) == "H214"


# --- forks ------------------------------------------------------------------------------------------


def frozen(books: Books) -> set[str]:
    return {row["origin"] for row in books.rows(db.logs) if row["frozen"]}


def test_an_old_log_that_goes_on(books: Books) -> None:
    old = Device().work(20)
    new = old.restored().work(5)
    size = old.size
    books.learn(old)
    assert books.code(new.export()) == "W151"
    assert books.code(old.export(0, 10)) == "OK"
    (outcome,) = books.ingest(old.clone().work(1).export())
    assert outcome.code == "H211" and f"after {size} receipts" in outcome.detail
    assert frozen(books) == {old.origin, new.origin}
    (case,) = books.rows(db.cases)
    assert open_checkpoint(case["ours"], old.key.public).origin == new.origin
    assert open_checkpoint(case["theirs"], old.key.public).size == size + 1
    assert books.code(old.export()) == "H210"
    assert agrees(books)


def test_a_log_that_follows_an_older_point_than_was_settled(books: Books) -> None:
    old = Device().work(20)
    new = old.restored().work(5)
    old.work(3)
    books.learn(old)
    assert books.code(old.export()) == "OK"
    (outcome,) = books.ingest(new.export())
    assert outcome.code == "H211"
    assert frozen(books) == {old.origin}
    assert [row["origin"] for row in books.rows(db.logs)] == [old.origin]
    found = opened(books, new)
    assert (found.origin, found.frozen, found.lease) == (old.origin, True, None)


def test_a_log_that_follows_another_history(books: Books) -> None:
    old = Device().work(20)
    twin = old.clone().wait(1).use()
    new = twin.restored().work(5)
    old.use()
    books.learn(old)
    assert books.code(old.export()) == "OK"
    assert books.code(new.export()) == "H210"
    assert frozen(books) == {old.origin}


def test_another_history_up_to_where_the_log_ended(books: Books) -> None:
    old = Device().work(20)
    twin = old.clone().wait(1).use()
    new = twin.restored().work(5)
    old.use()
    books.learn(old)
    assert books.code(new.export()) == "W151"
    assert books.code(old.export()) == "H210"
    assert frozen(books) == {new.origin}
    assert agrees(books)


def test_two_logs_of_one_number(books: Books) -> None:
    old = Device().work(20)
    one, two = old.restored().work(2), old.wait(1).restored().work(3)
    books.learn(old)
    assert books.code(one.export()) == "W151"
    assert books.code(two.export()) == "H210"
    assert frozen(books) == {one.origin}


# --- replies ----------------------------------------------------------------------------------------

ALLOWANCE = make_license(lease=LeaseTerms(True, allowance=(Allowance("calls", 100),)))


def test_the_lease_counts_all_logs_and_is_for_the_newest(books: Books) -> None:
    old = Device(ALLOWANCE).work(40)
    new = old.restored().work(5)
    books.learn(old)
    books.ingest(old.export(0, 20))
    assert lease_of(opened(books, old)).ceilings == (Ceiling("calls", 118),)
    books.ingest(new.export())
    found = opened(books, new)
    lease = lease_of(found)
    assert (lease.epoch, lease.lease_seq, lease.ceilings) == (1, 2, (Ceiling("calls", 145),))
    assert found.statement.splitlines()[:2] == [
        f"Hospital Nord: 45 calls settled in {20 + new.size} receipts.",
        "22 of them are known from registers alone: their receipts never came.",
    ]
    books.ingest(old.export())
    assert opened(books, new).digest == found.digest
    late = opened(books, old)
    assert (late.ack_seq, late.size, late.lease, late.frozen) == (2, old.size, None, None)


def test_a_fork_is_stated_and_ends_the_leases_of_all_logs(books: Books) -> None:
    old = Device(ALLOWANCE).work(20)
    new = old.restored().work(5)
    books.learn(old)
    books.ingest(new.export())
    assert opened(books, new).frozen is None
    books.ingest(old.clone().work(1).export())
    found = opened(books, new)
    assert (found.ack_seq, found.frozen, found.lease) == (2, True, None)
    assert "frozen" in found.statement


def test_the_issuers_word_after_a_fork(books: Books) -> None:
    """A token for the next log decides the case: leases go on, for that log."""
    old = Device(ALLOWANCE).work(20)
    twin = old.clone().wait(1).work(5)
    books.learn(old)
    books.ingest(old.work(1).export())
    assert books.code(twin.export()) == "H210"
    assert opened(books, old).frozen
    new = old.restored().work(2)
    assert books.code(new.export()) == "W151"
    assert (opened(books, new).frozen, opened(books, new).lease) == (True, None)
    books.take("leave.license", token(new))
    found = opened(books, new)
    assert found.frozen is None and lease_of(found).epoch == 1
    assert opened(books, old).frozen


def test_a_log_that_was_issued_after_a_fork_may_follow_either_history(books: Books) -> None:
    old = Device(ALLOWANCE).work(20)
    twin = old.clone().wait(1).use()
    books.learn(old)
    books.ingest(old.work(5).export())
    assert books.code(twin.export()) == "H210"
    new = twin.restored().work(2)
    assert books.code(new.export()) == "H211"
    books.take("leave.license", token(new))
    assert released(books) == ["OK"]
    assert books.code(twin.export()) == "H210"
    found = opened(books, new)
    assert found.frozen is None and lease_of(found).epoch == 1
    assert agrees(books)


def test_more_than_the_lease_allowed(books: Books) -> None:
    device = Device(ALLOWANCE).work(100)
    books.learn(device)
    assert books.code(device.export()) == "OK"
    cut = device.size
    assert books.code(device.work(1).export(cut)) == "W110"
    assert lease_of(opened(books, device)).ceilings == (Ceiling("calls", 201),)
    cut = device.size
    assert books.code(device.work(100).export(cut)) == "OK"
    cut = device.size
    new = device.restored().use()
    assert books.ingest(new.export())[0].flags == ("W151", "W110")
    opened(books, new)
    assert books.ingest(new.use().export(3))[0].flags == ()


# --- the database -----------------------------------------------------------------------------------


def test_a_database_of_version_1_gets_the_new_tables(books: Books) -> None:
    device = Device().work(5)
    books.learn(device)
    books.ingest(device.export())
    with books.database.write() as connection:
        db.successions.drop(connection)
        db.epoch_tokens.drop(connection)
        connection.execute(sa.update(db.about).values(schema_version=1))
    books.database.close()
    again = Books.open(books.folder, books.url)
    assert again.code(device.restored().work(1).export()) == "W151"
    assert again.rows(db.about) == [{"schema_version": db.SCHEMA_VERSION}]
    assert agrees(again)
    again.database.close()


def test_a_changed_succession_is_found(books: Books) -> None:
    device = Device().work(5)
    books.learn(device)
    books.ingest(device.restored().export())
    with books.database.write() as connection:
        connection.execute(sa.update(db.successions).values(carried="{}"))
    assert reconcile(books.database, NOW).problems == (
        f"{device.restored().origin}: what it carries over differs from the evidence",
    )


def test_an_activation_that_is_gone(books: Books) -> None:
    device = Device().work(5)
    books.learn(device)
    books.ingest(device.export())
    with books.database.write() as connection:
        connection.execute(sa.delete(db.activations))
    with pytest.raises(SealpackError, match="STORE_CORRUPT"):
        books.reply(device)
