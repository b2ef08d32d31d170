"""A signing key is revoked: what it signed stops here, and what its successor signs takes its place."""

from __future__ import annotations

from typing import Any

import pytest
from support import world
from support.acts import refused
from support.site import INPUT, T0, Site, make_license

from adversarial.tools import members, open_runtime, statuses
from sealpack.format import documents
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey
from sealpack.runtime import anchors, device

SUCCESSOR = PrivateKey.from_scalar(0x1013)
SETTLEMENT_2 = PrivateKey.from_seed(b"sealpack-test-settlement-key-002")


def keyring() -> Envelope:
    """The vendor's keys with both successors; the old ones stay listed."""
    return world.make_keyring(
        2,
        [
            world.key_entry(world.CREATOR, ["bundle"]),
            world.key_entry(world.LICENSER, ["license"]),
            world.key_entry(world.SETTLEMENT, ["settlement", "ack", "witness"]),
            world.key_entry(SUCCESSOR, ["license"]),
            world.key_entry(SETTLEMENT_2, ["settlement", "ack", "witness"]),
        ],
    )


def revoke(key: PrivateKey, version: int = 2) -> Envelope:
    return world.make_revocations(version, keys=[{"keyid": key.keyid, "good": []}])


def anew(envelope: Envelope, key: PrivateKey, **changed: Any) -> Envelope:
    """The same words, signed by another key."""
    return documents.seal(documents.kind_of(envelope), members(envelope) | changed, key)


@pytest.fixture
def issued(site: Site) -> tuple[Site, Parcel]:
    """A device that answered one call, and the parcel it was activated with."""
    site.pin()
    site.install()
    parcel = site.reply(site.request(), make_license())
    site.take(parcel)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    return site, parcel


def test_a_revoked_license_key_stops_the_license_it_signed(issued: tuple[Site, Parcel]) -> None:
    """The list is taken although the license here was signed by that very key."""
    site, parcel = issued
    site.take(Parcel((revoke(world.LICENSER),)))
    refused("KEY_REVOKED", lambda: open_runtime(site))
    refused("KEY_REVOKED", lambda: site.take(parcel))
    assert statuses(site) == ["ok"]


def test_a_running_runtime_stops_too(issued: tuple[Site, Parcel]) -> None:
    site, _ = issued
    with open_runtime(site) as runtime:
        site.take(Parcel((revoke(world.LICENSER),)))
        refused("KEY_REVOKED", lambda: runtime.infer(INPUT))
    assert statuses(site) == ["ok"]


def test_a_key_that_left_the_keyring_stops_what_it_signed(issued: tuple[Site, Parcel]) -> None:
    site, _ = issued
    without = world.make_keyring(
        2, [world.key_entry(world.CREATOR, ["bundle"]), world.key_entry(SUCCESSOR, ["license"])]
    )
    site.take(Parcel((without,)))
    refused("LIC_KEY_UNTRUSTED", lambda: open_runtime(site))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("asked", [False, True], ids=["the same words", "a newer license to a new request"])
def test_an_honest_customer_goes_on_with_what_the_successor_signs(
    issued: tuple[Site, Parcel], together: bool, asked: bool
) -> None:
    site, parcel = issued
    answer = site.reply(site.request(), make_license(seq=2)) if asked else parcel
    license, activation, lease = answer.documents
    reply = (anew(license, SUCCESSOR), anew(activation, SUCCESSOR), lease)
    news = (keyring(), revoke(world.LICENSER))
    if together:
        site.take(Parcel((*reply, *news)))
    else:
        site.take(Parcel(news))
        refused("KEY_REVOKED", lambda: open_runtime(site))
        site.take(Parcel(reply))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    assert statuses(site) == ["ok", "ok"]


def test_no_older_license_comes_in_the_place_of_a_revoked_one(issued: tuple[Site, Parcel]) -> None:
    site, _ = issued
    newer = make_license(seq=5)
    site.take(Parcel((documents.seal("license", newer.to_dict(), world.LICENSER), keyring())))
    site.take(Parcel((revoke(world.LICENSER),)))
    older = documents.seal("license", make_license(seq=4).to_dict(), SUCCESSOR)
    refused("LIC_SUPERSEDED", lambda: site.take(Parcel((older,))))


def test_a_lease_of_a_revoked_settlement_key_gives_way_to_its_successors(issued: tuple[Site, Parcel]) -> None:
    site, _ = issued
    name = device.name(device.key(site.home))
    lease = site.lease(name, "L-1", 5, {"calls": 10})
    site.take(Parcel((lease,)))
    site.take(Parcel((keyring(), revoke(world.SETTLEMENT))))
    refused("KEY_REVOKED", lambda: open_runtime(site))
    refused("KEY_REVOKED", lambda: site.take(Parcel((site.lease(name, "L-1", 6, {"calls": 10**6}),))))
    site.take(Parcel((anew(lease, SETTLEMENT_2),)))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    assert statuses(site) == ["ok", "ok"]


def test_a_revocation_is_not_taken_back_by_an_older_list(issued: tuple[Site, Parcel]) -> None:
    site, _ = issued
    site.take(Parcel((revoke(world.LICENSER, 3),)))
    for older in (world.make_revocations(1), world.make_revocations(2)):
        site.take(Parcel((older,)))
        refused("KEY_REVOKED", lambda: open_runtime(site))
    with site.state() as state:
        (trust,) = anchors.load(state)
    assert trust.revocations.version == 3


def test_a_revoked_device_stops_and_a_running_one_too(issued: tuple[Site, Parcel]) -> None:
    site, _ = issued
    name = device.name(device.key(site.home))
    with open_runtime(site) as runtime:
        site.take(Parcel((world.make_revocations(2, devices=[name]),)))
        refused("DEVICE_REVOKED", lambda: runtime.infer(INPUT))
    refused("DEVICE_REVOKED", lambda: open_runtime(site))
    assert statuses(site) == ["ok"]
    more = site.lease(name, "L-1", 9, {"calls": 10**6}, issued_at=T0 + 9)
    site.take(Parcel((more,)))
    refused("DEVICE_REVOKED", lambda: open_runtime(site))
