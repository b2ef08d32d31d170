"""More devices than seats: who came last is held, whoever's registry says so."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from settlement.test_closed_seats import lease_in, proof, released
from settlement.test_sublicense_lines import DAY, Below, named, parent, renewed, settled
from support import world
from support.books import NOW, Books
from support.device import BUNDLE, T0, Device, make_license

from sealpack.format import documents
from sealpack.format.activation import Activation
from sealpack.format.license import Delegation, Devices
from sealpack.format.registry import RegistryLine
from sealpack.settlement import db, ingest

DELEGATION = parent().delegation
assert DELEGATION is not None


def give(books: Books, device: Device, at: int, **members: Any) -> None:
    """The issuer activates a device."""
    made = replace(Activation.read(device.activation), issued_at=at, **members)
    sealed = documents.seal("activation", made.to_dict(), world.LICENSER)
    line = RegistryLine(device.license_envelope, sealed, bundles=(BUNDLE,))
    books.take("given.jsonl", line.to_bytes() + b"\n")


def office(books: Books, seats: int | None, count: int) -> list[Device]:
    """Devices that were activated a day apart under a license of so many seats."""
    license = make_license(devices=Devices("key", seats))
    devices = [Device(license, number).use() for number in range(1, count + 1)]
    books.learn()
    for day, device in enumerate(devices):
        give(books, device, T0 + day * DAY)
    return devices


def codes(books: Books, devices: list[Device]) -> list[str]:
    return [books.code(device.export()) for device in devices]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_last_one_is_over_in_whatever_order_files_come(books: Books, order: tuple[int, ...]) -> None:
    devices = office(books, 2, 3)
    found = {index: books.ingest(devices[index].export())[0] for index in order}
    assert [found[index].code for index in range(3)] == ["OK", "OK", "H214"]
    assert found[2].detail.startswith("device count: 2 devices had the 2 seats of license L-1 before")
    assert [row["closed_at"] for row in books.rows(db.cases)] == [None]


@pytest.mark.parametrize("seats", [3, None])
def test_enough_seats(books: Books, seats: int | None) -> None:
    assert codes(books, office(books, seats, 3)) == ["OK"] * 3


def test_a_license_with_more_seats_sets_it_free(books: Books) -> None:
    devices = office(books, 2, 3)
    assert codes(books, devices) == ["OK", "OK", "H214"]
    renewed(books, replace(devices[0].license, seq=2, issued_at=T0 + DAY, devices=Devices("key", 3)))
    assert [o.code for o in ingest.release(books.database, NOW)] == ["OK"]


def test_a_license_with_fewer_seats_holds_nobody_who_had_one(books: Books) -> None:
    devices = office(books, 3, 3)
    renewed(books, replace(devices[0].license, seq=2, issued_at=T0 + DAY, devices=Devices("key", 1)))
    assert codes(books, devices) == ["OK"] * 3


def test_a_seat_that_was_given_back_is_free(books: Books) -> None:
    devices = office(books, 1, 2)
    assert codes(books, devices) == ["OK", "H214"]
    books.take("release.jsonl", released(devices[0], proof(devices[0])))  # dated T0, by the device
    assert [o.code for o in ingest.release(books.database, NOW)] == ["OK"]
    assert lease_in(books.reply(devices[1]).data) is not None
    # It comes back under a new activation, while the other one has the seat.
    give(books, devices[0], T0 + 3 * DAY, epoch=1)
    back = Device(devices[0].license, 1, epoch=1).use()
    assert books.code(back.export()) == "H214"


def test_a_revoked_device_has_no_seat(books: Books) -> None:
    devices = office(books, 1, 2)
    books.take("trust.json", world.make_trust(version=2, devices=[devices[0].id]).to_bytes())
    assert codes(books, devices) == ["H220", "OK"]


def test_what_travels_in_the_file_is_counted_too(books: Books) -> None:
    office(books, 1, 1)
    later = Device(make_license(devices=Devices("key", 1)), 7).use()
    made = replace(Activation.read(later.activation), issued_at=T0 + DAY)
    sealed = documents.seal("activation", made.to_dict(), world.LICENSER)
    assert books.code(later.export(activation=sealed.to_dict())) == "H214"


def test_delegates_have_their_seats_over_all_sublicenses(books: Books) -> None:
    """Whatever each delegate's own registry says; the parent's own devices are not among them."""
    above = parent(devices=Devices("key", 2), delegation=Delegation(DELEGATION.keys, 2))
    devices = [
        named(f"w{number}", number, above=above, told={"issued_at": T0 + number}).use()
        for number in (1, 2, 3)
    ]
    own = Device(above, 9).use()
    settled(books, own, *devices)
    assert codes(books, [own, *devices]) == ["OK", "OK", "OK", "H214"]
    (row,) = [row for row in books.rows(db.files) if row["code"] == "H214"]
    assert "seats of the delegates of license L-1" in row["detail"]


def test_one_device_under_two_sublicenses_has_one_seat(books: Books) -> None:
    above = parent(delegation=Delegation(DELEGATION.keys, 2))
    one = [named(name, 1, above=above, told={"issued_at": T0 + at}).use() for at, name in enumerate("ab")]
    other = named("c", 2, above=above, told={"issued_at": T0 + 9}).use()
    settled(books, Device(above, 9), *one, other)
    assert codes(books, [*one, other]) == ["OK"] * 3


def test_a_sublicense_has_its_own_seats(books: Books) -> None:
    stated = {"devices": {"max": 1}}
    devices = [Below(number=n, stated=stated, told={"issued_at": T0 + n}).use() for n in (1, 2)]
    settled(books, Device(parent(), 9), *devices)
    assert codes(books, devices) == ["OK", "H214"]
