"""What settlement makes of a registry in which devices gave their seats back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from support import world
from support.books import NOW, Books
from support.device import T0, Device, make_license

from sealpack.format import documents, records
from sealpack.format.activation import Activation, Ceiling, Lease
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.license import Quota
from sealpack.format.registry import RegistryLine
from sealpack.settlement import ingest, registry


def proof(device: Device) -> Envelope:
    """The device closes: the last record, and what it signs about it."""
    device.tally()
    device.put(records.CLOSED, reason="deactivated")
    activation = Activation.read(device.activation)
    said = Deactivation(
        "L-1",
        device.key.public,
        device.epoch,
        device.origin,
        device.size,
        device.frontier(device.size).root.hex(),
        activation.digest,
        activation.nonce,
        T0,
        {"calls": device.registers.total("calls")},
    )
    return documents.seal("deactivation", said.to_dict(), device.key)


def released(device: Device, sealed: Envelope) -> bytes:
    """The registry line that the issuer writes about it."""
    line = RegistryLine(device.license_envelope, deactivation=sealed, released_at=NOW)
    return line.to_bytes() + b"\n"


def lease_in(reply: bytes) -> Lease | None:
    (sealed,) = Parcel.from_bytes(reply).documents
    said: dict[str, Any] = json.loads(sealed.payload)
    if "lease" not in said:
        return None
    return Lease.open(Envelope.from_dict(said["lease"], "lease"), world.make_trust())


def test_a_closed_log_is_settled_to_its_end_and_gets_no_lease(books: Books) -> None:
    device = Device().work(3)
    books.learn(device)
    assert books.code(device.export()) == "OK"
    assert lease_in(books.reply(device).data) is not None
    sealed = proof(device)
    for _ in range(2):
        books.take("release.jsonl", released(device, sealed))
    with books.database.read() as connection:
        said = registry.load_deactivation(connection, device.origin)
    assert said == Deactivation.open(sealed)
    assert books.code(device.export()) == "W102"
    reply = books.reply(device)
    assert lease_in(reply.data) is None
    assert json.loads(Parcel.from_bytes(reply.data).documents[0].payload)["size"] == device.size


def test_usage_after_the_last_record_is_held(books: Books) -> None:
    device = Device().work(2)
    books.learn(device)
    books.take("release.jsonl", released(device, proof(device)))
    assert books.code(device.export()) == "OK"
    assert books.code(device.use().export()) == "H213"


def test_a_backup_that_went_on_is_a_fork(books: Books) -> None:
    """The closed log was settled; the copy that was restored has other records in its place."""
    device = Device().work(2)
    copy = device.clone()
    books.learn(device)
    books.take("release.jsonl", released(device, proof(device)))
    assert books.code(device.export()) == "OK"
    assert books.code(copy.work(9).export()) == "H210"


def test_a_proof_may_come_alone(books: Books) -> None:
    device = Device().use()
    books.learn(device)
    assert books.take("a.proof", proof(device).to_bytes()) == "1 deactivation"


def test_leases_keep_to_the_parts_that_the_activation_gives(books: Books) -> None:
    quota = Quota("calls", "term", "license", 1000, None, "deny")
    license = make_license(quota=(quota,), devices=replace(make_license().devices, max=1))
    device = Device(license=license)
    books.learn(device)
    assert books.code(device.work(2).export()) == "OK"
    found = lease_in(books.reply(device).data)
    assert found is not None
    assert found.ceilings == (Ceiling("calls", 1000),)
    made = replace(Activation.read(device.activation), shares=(Ceiling("calls", 600),), issued_at=T0 + 1)
    moved = documents.seal("activation", made.to_dict(), world.LICENSER)
    books.take("moved.license", Parcel((device.license_envelope, moved)).to_bytes())
    found = lease_in(books.reply(device).data)
    assert found is not None
    assert found.ceilings == (Ceiling("calls", 600),)


def followed() -> tuple[Device, Device]:
    """A closed log, and one that a changed device began after it all the same."""
    old = Device().work(3)
    proof(old)
    return old, old.wait(60_000).restored().work(2)


def test_a_log_begun_after_a_closed_one_stays_and_goes_no_further(books: Books) -> None:
    old, new = followed()
    books.learn(old)
    assert books.code(old.export(0, old.size - 1)) == "OK"
    size = new.size
    assert books.code(new.export()) == "W151"
    assert lease_in(books.reply(new).data) is not None
    assert books.code(old.export()) == "W102"  # now it is known
    assert books.log(new).size == size
    assert lease_in(books.reply(new).data) is None
    assert books.code(new.work(1).export()) == "H215"
    assert books.log(new).size == size
    again = replace(Activation.read(old.activation), epoch=1, issued_at=T0 + 1)
    parts = old.license_envelope, documents.seal("activation", again.to_dict(), world.LICENSER)
    books.take("again.license", Parcel(parts).to_bytes())
    assert [o.code for o in ingest.release(books.database, NOW)] == ["W102"]
    assert lease_in(books.reply(new).data) is not None


def test_a_log_that_came_after_the_closed_one_or_its_proof_is_held(books: Books) -> None:
    old, new = followed()
    books.learn(old)
    assert books.code(old.export(0, old.size - 1)) == "OK"
    said = Deactivation(
        "L-1", old.key.public, 0, old.origin, old.size, old.frontier(old.size).root.hex(),
        old.activation.digest, Activation.read(old.activation).nonce, T0, {},
    )  # fmt: skip
    books.take("a.proof", documents.seal("deactivation", said.to_dict(), old.key).to_bytes())
    assert books.code(new.export()) == "H215"
    assert books.code(old.export()) == "W102"
    assert books.codes() == ["H215", "OK", "W102"]
