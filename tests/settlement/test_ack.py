"""What goes back to the device: what it says, when it changes, and who will believe it."""

from __future__ import annotations

import gzip

import pytest
from support import world
from support.books import NOW, SIGNERS, Books
from support.device import Device, make_license, seal_license

from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Ceiling, Lease
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Allowance, Customer, LeaseTerms, Quota
from sealpack.format.note import open_checkpoint, open_cosignature
from sealpack.format.records import ACKNOWLEDGED
from sealpack.settlement import ack, registry
from sealpack.settlement.ack import Reply, Signers

DAY = 86_400


def opened(reply: Reply) -> Acknowledgement:
    (envelope,) = Parcel.from_bytes(reply.data, reply.name).documents
    return Acknowledgement.open(envelope, world.make_trust())


def lease_of(found: Acknowledgement) -> Lease:
    assert found.lease is not None
    return Lease.open(found.lease, world.make_trust())


def test_it_says_what_is_settled(books: Books) -> None:
    device = Device().work(40)
    books.learn(device)
    (outcome,) = books.ingest(device.export())
    reply = books.reply(device)
    assert reply.name == "hospital-ward-3-1.ack"
    found = opened(reply)
    assert (found.origin, found.license_id, found.device_id, found.epoch) == (
        device.origin, "L-1", device.id, 0,
    )  # fmt: skip
    assert (found.size, found.root) == (device.size, device.frontier(device.size).root.hex())
    assert (found.ack_seq, found.previous, found.prune_below, found.server_time) == (1, None, 0, NOW)
    assert [(o.sha256, o.code, o.accepted) for o in found.outcomes] == [(outcome.sha256, "OK", device.size)]
    assert found.held == ()
    assert found.statement == (
        f"Hospital Nord: 40 calls settled in {device.size} receipts.\nQuestions: help@acme.example"
    )
    assert [e.digest for e in found.trust] == [e.digest for e in device.trust.envelopes]


def test_the_same_bytes_again_get_the_same_reply(books: Books) -> None:
    device = Device().work(40)
    books.learn(device)
    books.ingest(device.export())
    first = books.reply(device)
    books.ingest(device.export())
    assert books.reply(device, NOW + DAY) == first
    assert opened(first).server_time == NOW


def test_replies_form_a_chain(books: Books) -> None:
    device = Device().work(40)
    books.learn(device)
    books.ingest(device.export(0, 20))
    first = opened(books.reply(device))
    books.ingest(device.export(20, 30))
    second = opened(books.reply(device, NOW + DAY))
    books.ingest(device.export(30))
    third = opened(books.reply(device, NOW + 2 * DAY))
    assert [a.ack_seq for a in (first, second, third)] == [1, 2, 3]
    assert (second.previous, third.previous) == (first.digest, second.digest)
    assert (second.prune_below, third.prune_below) == (20, 30)
    assert [lease_of(a).lease_seq for a in (first, second, third)] == [2, 3, 4]


def test_an_acknowledgement_that_comes_back_in_the_log_is_ours(books: Books) -> None:
    device = Device().work(5)
    books.learn(device)
    books.ingest(device.export())
    found = opened(books.reply(device))
    cut = device.size
    members = {"ack_seq": found.ack_seq, "size": found.size, "server_time": found.server_time}
    device.put(ACKNOWLEDGED, digest=found.digest, **members)
    assert books.code(device.work(5).export(cut)) == "OK"


def test_the_lease_is_what_was_settled_plus_the_allowance(books: Books) -> None:
    terms = LeaseTerms(True, 30 * DAY, allowance=(Allowance("calls", 100),))
    quota = (Quota("tok_out", "term", "device", 9_000, None, "deny"),)
    device = Device(make_license(lease=terms, quota=quota)).work(40)
    books.learn(device)
    books.ingest(device.export())
    lease = lease_of(opened(books.reply(device)))
    assert (lease.license_id, lease.device_id, lease.epoch) == ("L-1", device.id, 0)
    assert (lease.issued_at, lease.expires) == (NOW, NOW + 30 * DAY)
    assert lease.ceilings == (Ceiling("calls", 140), Ceiling("tok_out", 9_000))


def test_the_order_of_files_does_not_change_the_ceilings(books: Books) -> None:
    terms = LeaseTerms(True, allowance=(Allowance("tok_out", 1),))
    device = Device(make_license(lease=terms)).work(40)
    books.learn(device)
    for start, end in ((30, device.size), (0, 20), (10, 40)):
        books.ingest(device.export(start, end))
    (ceiling,) = lease_of(opened(books.reply(device))).ceilings
    assert ceiling.limit == device.registers.total("tok_out") + 1


def test_a_gap_is_asked_for_and_does_not_stop_the_lease(books: Books) -> None:
    device = Device().work(40)
    books.learn(device)
    books.ingest(device.export(0, 10))
    books.ingest(device.export(25))
    found = opened(books.reply(device))
    assert [(h.start, h.end, h.code) for h in found.held] == [(10, 25, "H201")]
    assert "receipts 10 to 25 (H201)" in found.statement
    assert found.lease is not None
    books.ingest(device.export(10, 25))
    after = opened(books.reply(device))
    assert (after.held, after.size) == ((), device.size)


def test_no_lease_while_a_fork_is_open(books: Books) -> None:
    device = Device().work(10)
    twin = device.clone().wait(1).work(5)
    device.work(5)
    books.learn(device)
    books.ingest(device.export())
    assert opened(books.reply(device)).lease is not None
    books.ingest(twin.export())
    found = opened(books.reply(device))
    assert found.lease is None
    assert (found.size, found.root) == (device.size, device.frontier(device.size).root.hex())
    assert "frozen" in found.statement


def test_no_lease_while_a_log_contradicts_itself(books: Books) -> None:
    device = Device().work(10)
    cut = device.size
    books.learn(device)
    books.ingest(device.export())
    device.registers.charge("r1", "ok", {"calls": 1})
    assert books.code(device.tally().export(cut)) == "H213"
    assert opened(books.reply(device)).lease is None


def test_a_damaged_copy_does_not_cost_the_lease(books: Books) -> None:
    """Anyone can spoil a copy of a genuine file; that must not stop the site."""
    device = Device().work(10)
    books.learn(device)
    books.ingest(device.export())
    spoiled = gzip.decompress(device.work(5).export()).replace(b'"ms":31', b'"ms":30', 1)
    assert books.code(spoiled) == "H212"
    assert opened(books.reply(device)).lease is not None


def test_a_renewal_is_told(books: Books) -> None:
    device = Device().work(10)
    books.learn(device)
    books.ingest(device.export())
    books.reply(device)
    renewed = make_license(seq=2, lease=LeaseTerms(True, 10 * DAY))
    with books.database.write() as connection:
        registry.put_license(connection, seal_license(renewed), device.trust)
    found = opened(books.reply(device))
    assert (found.ack_seq, lease_of(found).expires) == (2, NOW + 10 * DAY)


def test_the_checkpoint_comes_back_cosigned(books: Books) -> None:
    witness = PrivateKey.from_seed(b"sealpack-test-witness-key-000001")
    keyring = world.make_keyring(
        entries=[
            world.key_entry(world.CREATOR, ["bundle"]),
            world.key_entry(world.LICENSER, ["license"]),
            world.key_entry(world.SETTLEMENT, ["ack"]),
            world.key_entry(witness, ["witness"]),
        ]
    )
    trust = world.Trust.from_envelopes(world.make_root(), keyring, world.make_revocations())
    device = Device(trust=trust).work(10)
    books.learn(device)
    books.ingest(device.export())
    reply = books.reply(device, signers=Signers(world.SETTLEMENT, witness))
    (envelope,) = Parcel.from_bytes(reply.data, reply.name).documents
    note = Acknowledgement.open(envelope, trust).checkpoint
    assert note is not None
    assert open_checkpoint(note.encode(), device.key.public).size == device.size
    seen = open_cosignature(note.encode(), ack.WITNESS_NAME, witness.public)
    assert (seen.time, seen.checkpoint.root) == (NOW, device.frontier(device.size).root)


@pytest.mark.parametrize(
    ("signers", "code"),
    [
        (Signers(PrivateKey.from_seed(bytes(32))), "SIG_KEY_UNKNOWN"),
        (Signers(world.LICENSER), "SIG_KEY_ROLE"),
        (Signers(world.SETTLEMENT, PrivateKey.from_seed(bytes(32))), "SIG_KEY_UNKNOWN"),
    ],
)
def test_keys_that_no_device_would_believe(books: Books, signers: Signers, code: str) -> None:
    device = Device().work(3)
    books.learn(device)
    books.ingest(device.export())
    with pytest.raises(SealpackError) as caught:
        books.reply(device, signers=signers)
    assert caught.value.code == code


def test_a_log_nothing_was_accepted_of_gets_no_reply(books: Books) -> None:
    device = Device().work(30)
    books.learn(device)
    assert books.code(device.export(20)) == "H201"
    assert ack.replies(books.database, SIGNERS, [device.origin, "sealpack/usage/x"], NOW) == []


def test_file_names_never_collide(books: Books) -> None:
    one, two = Device().work(3), Device(number=2).work(3)
    third = Device(make_license(license_id="L-2"), number=3).work(3)
    books.learn(one, two, third)
    for device in (one, two, third):
        assert books.code(device.export()) == "OK"
    names = {books.reply(device).name for device in (one, two, third)}
    assert len(names) == 3
    assert all(name.startswith("hospital-ward-3-l-") for name in names)


def test_names_of_other_customers_and_licenses_never_collide(books: Books) -> None:
    twins = [
        make_license(license_id=f"L-{n}", customer=Customer(f"c{n}", name))
        for n, name in enumerate(["Hospital Nord", "HOSPITAL  NORD!", "病院", "Больница"])
    ]
    devices = [Device(license, number=n) for n, license in enumerate(twins)]
    devices += [Device(make_license(license_id=f"U-{n}"), number=9, label=None) for n in range(2)]
    books.learn(*devices)
    for device in devices:
        assert books.code(device.work(1).export()) == "OK"
    names = [books.reply(device).name for device in devices]
    assert len(set(names)) == len(names)
    assert names[2].startswith("c2-ward-3-l-2-")
    assert all(len(name.encode()) < 250 for name in names)


def test_a_device_without_a_label_is_called_by_its_id(books: Books) -> None:
    device = Device(label=None).work(1)
    books.learn(device)
    books.ingest(device.export())
    assert books.reply(device).name == f"hospital-{device.id}-1.ack"


def test_many_held_files_fit_into_a_reply(books: Books) -> None:
    device = Device().work(300)
    books.learn(device)
    books.ingest(device.export(0, 5))
    for start in range(10, 300, 3):
        assert books.code(device.export(start, start + 2)) == "H201"
    found = opened(books.reply(device))
    assert len(found.held) == ack.NAMED_FILES
    assert len(found.statement) < 8000
