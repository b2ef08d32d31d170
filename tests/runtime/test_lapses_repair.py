"""Repairs: what an issuer's word changes on a device, once, and what nobody else's word changes."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from support import world
from support.acts import refused
from support.clocks import Clocks
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import documents
from sealpack.format.activation import ActivationRequest
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey, Signer
from sealpack.format.license import ClockRules
from sealpack.format.repair import Repair
from sealpack.runtime import proofs, receipts, rights, sync, timekeeper
from sealpack.runtime.clock import ClockState

T0 = world.T0
DAY = 86_400


def repair_for(request: ActivationRequest, key: Signer = world.LICENSER, **members: Any) -> Envelope:
    values = {
        "license_id": "L-1",
        "device_id": request.device_id,
        "request_digest": request.digest,
        "nonce": request.nonce,
        "issued_at": T0 + DAY,
        "now": T0 + DAY,
    } | members
    return documents.seal("repair", Repair(**values).to_dict(), key)


def call(site: Site) -> tuple[str, ...]:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        return tuple(w.code for w in runtime.infer(INPUT).warnings)


def stored(site: Site) -> ClockState:
    with site.state() as state, state.read() as db:
        found = timekeeper.load(db)
    assert found is not None
    return found


def stranded(site: Site, clocks: Clocks) -> Site:
    """A clock that stood in 2036 long enough to be believed, and is right again."""
    site.ready(make_license(clock=ClockRules("deny")))
    call(site)
    clocks.wall += 3650 * DAY
    call(site)
    clocks.run(DAY)
    call(site)
    clocks.wall -= 3650 * DAY
    found = refused("CLOCK_BACK", lambda: call(site))
    assert "`sealpack activate request`" in found.remedy
    return site


def test_a_repair_tells_the_device_what_time_it_is(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    before = stored(site)
    taken = site.take(Parcel((repair_for(site.request()),)))
    assert (taken.repairs, taken.count) == (["L-1"], 1)
    assert call(site) == ()
    after = stored(site)
    assert before.soft - after.soft > 3600 * DAY * 1000
    assert after.soft >= after.hard
    with site.state() as state, state.read() as db:
        (told,) = [r for r in receipts.recent(db, 1, 999) if r.body.get("event") == "repaired"]
    assert told.body["delta_ms"] < -3600 * DAY * 1000


def test_a_repair_is_never_below_what_is_proven(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    hard = stored(site).hard
    site.take(Parcel((repair_for(site.request(), issued_at=T0, now=0),)))
    assert stored(site).soft == clocks.wall * 1000 >= stored(site).hard >= hard
    site.take(Parcel((repair_for(site.request(), issued_at=T0, now=T0 + 999 * DAY),)))
    assert stored(site).soft == clocks.wall * 1000  # it never raises anything


def test_a_repair_counts_once(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    repair = repair_for(site.request())
    site.take(Parcel((repair,)))
    clocks.run(40 * DAY)
    call(site)
    soft = stored(site).soft
    again = site.take(Parcel((repair,)))
    assert (again.repairs, again.known) == ([], 1)
    assert stored(site).soft == soft


def test_a_request_has_one_answer(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    request = site.request()
    site.take(Parcel((repair_for(request),)))
    refused("ACTIVATION_NONCE", lambda: site.take(Parcel((repair_for(request, now=T0),))))
    answered = site.request()
    site.take(site.reply(answered, make_license(clock=ClockRules("deny"))))
    refused("ACTIVATION_NONCE", lambda: site.take(Parcel((repair_for(answered),))))


def test_a_repair_of_a_request_nobody_made(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    for members in ({"nonce": "0" * 32}, {"request_digest": "0" * 64}):
        repair = repair_for(site.request(), **members)
        refused("ACTIVATION_NONCE", lambda one=repair: site.take(Parcel((one,))))
    refused("CLOCK_BACK", lambda: call(site))


def test_a_repair_for_another_device_is_left(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    taken = site.take(Parcel((repair_for(site.request(), device_id="dev-" + "0" * 32),)))
    assert (taken.repairs, taken.others) == ([], 1)
    refused("CLOCK_BACK", lambda: call(site))


def test_who_may_repair(site: Site, clocks: Clocks) -> None:
    site.ready()
    clocks.run(DAY)
    call(site)
    request = site.request()
    before = stored(site)
    refused("SIG_KEY_UNKNOWN", lambda: site.take(Parcel((repair_for(request, world.STRANGER),))))
    refused("SIG_KEY_ROLE", lambda: site.take(Parcel((repair_for(request, world.SETTLEMENT),))))
    refused("LIC_MISSING", lambda: site.take(Parcel((repair_for(request, license_id="L-2"),))))
    assert stored(site) == before


def test_another_issuer_cannot_repair(site: Site, clocks: Clocks) -> None:
    other = PrivateKey.from_scalar(0x2003)
    entries = [
        world.key_entry(world.CREATOR, ["bundle"]),
        world.key_entry(world.LICENSER, ["license"]),
        world.key_entry(world.SETTLEMENT, ["settlement", "ack", "witness"]),
        world.key_entry(other, ["license"]) | {"issuer": "Other Models (test)"},
    ]
    stranded(site, clocks)
    site.take(Parcel((world.make_keyring(2, entries),)))
    before = stored(site)
    refused("SIG_KEY_ROLE", lambda: site.take(Parcel((repair_for(site.request(), other),))))
    assert stored(site) == before
    refused("CLOCK_BACK", lambda: call(site))


def test_the_order_in_a_parcel_does_not_matter(tmp_path: Any, site: Site, clocks: Clocks) -> None:
    ends = set()
    for number, order in enumerate(permutations(range(2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        clocks.wall, clocks.up = T0 + 10, 5
        one = stranded(Site(folder, site.models, site.trust), clocks)
        newer = seal_license(make_license(seq=2, issued_at=T0 + 9, clock=ClockRules("deny")))
        both = (repair_for(one.request()), newer)
        one.take(Parcel(tuple(both[i] for i in order)))
        found = stored(one)
        ends.add((found.hard, found.soft, found.own))
    assert len(ends) == 1


def test_a_repair_comes_with_the_stick(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    stick = site.folder / "stick"
    stick.mkdir()
    (stick / "help.parcel").write_bytes(Parcel((repair_for(site.request()),)).to_bytes())
    with site.state() as state:
        assert sync.visit(state, stick).taken.repairs == ["L-1"]
        assert sync.visit(state, stick).taken.known == 1


def test_a_repair_that_is_not_about_the_clock_leaves_it_alone(site: Site, clocks: Clocks) -> None:
    stranded(site, clocks)
    site.take(Parcel((repair_for(site.request(), now=None, epoch=3),)))
    refused("CLOCK_BACK", lambda: call(site))
    with site.state() as state, state.read() as db:
        envelope = rights.stored(db, "repair", "L-1")
    assert envelope is not None
    assert Repair.open(envelope, site.trust).epoch == 3


def test_a_repair_accepts_other_hardware(site: Site, clocks: Clocks) -> None:
    site.ready()
    request = site.request()
    site.take(Parcel((repair_for(request, now=None, fingerprint="a0123456" * 3),)))
    with site.state() as state, state.read() as db:
        row = db.execute("SELECT nonce, fingerprint FROM hardware WHERE license_id='L-1'").fetchone()
    assert row == (request.nonce, "a0123456" * 3)


def test_a_stored_repair_proves_its_time(site: Site, clocks: Clocks) -> None:
    site.ready()
    site.take(Parcel((repair_for(site.request(), issued_at=T0 + 5 * DAY, now=None, epoch=1),)))
    assert stored(site).hard == (T0 + 5 * DAY) * 1000
    with site.state() as state, state.read() as db:
        assert proofs.newest(db, site.trust) == T0 + 5 * DAY
