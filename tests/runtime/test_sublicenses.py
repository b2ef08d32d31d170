"""A device under a sub-license: the delegate activates it offline, and the parent bounds it for ever."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.site import INPUT, T0, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import documents
from sealpack.format.activation import Activation, ActivationRequest, Ceiling, Lease
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Delegation, Devices, LeaseTerms, License, Provisional, Quota
from sealpack.runtime import device, machine, overview, proofs, rights, timekeeper
from sealpack.runtime.clock import Reading
from sealpack.runtime.rights import Rights

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")
OTHER = PrivateKey.from_seed(b"sealpack-test-delegate-of-others")
NAME = "L-1.ward"


def parent(**members: Any) -> License:
    """What the vendor sold to the group that delegates."""
    default = {"devices": Devices("key", 10), "delegation": Delegation((DELEGATE.public.pem,))}
    return make_license(**(default | members))


@dataclass
class Delegate:
    """Who answers requests below a parent; every field may lie."""

    parent: License = field(default_factory=parent)
    key: PrivateKey = DELEGATE
    name: str = NAME
    seq: int = 1
    stated: dict[str, Any] = field(default_factory=dict)

    @property
    def above(self) -> Envelope:
        return seal_license(self.parent)

    @property
    def sublicense(self) -> Envelope:
        named = {"license_id": self.parent.license_id, "seq": self.parent.seq, "digest": self.above.digest}
        own = {"license_id": self.name, "seq": self.seq, "issued_at": T0, "parent": named}
        return documents.seal("sublicense", {**self.stated, **own}, self.key)

    def activation(self, request: ActivationRequest, **members: Any) -> Envelope:
        made = Activation(
            self.name,
            self.sublicense.digest,
            request.device_id,
            request.device_key,
            request.digest,
            request.nonce,
            T0,
        )
        return documents.seal("activation", replace(made, **members).to_dict(), self.key)

    def lease(self, request: ActivationRequest, **members: Any) -> Envelope:
        made = Lease(self.name, request.device_id, 0, 1, T0, None, (Ceiling("calls", 1000),))
        return documents.seal("lease", replace(made, **members).to_dict(), self.key)

    def answer(self, request: ActivationRequest) -> Parcel:
        parts = self.above, self.sublicense, self.activation(request), self.lease(request)
        return Parcel(parts)


def ready(site: Site, delegate: Delegate | None = None) -> Site:
    site.pin()
    site.install()
    site.take((delegate or Delegate()).answer(site.request()))
    return site


def code_of(site: Site, *parcels: Parcel) -> str:
    with site.state() as state, state.read() as db:
        before = "\n".join(db.iterdump())
    with pytest.raises(SealpackError) as caught:
        site.take(*parcels)
    with site.state() as state, state.read() as db:
        assert "\n".join(db.iterdump()) == before
    return caught.value.code


def call(site: Site, times: int = 1) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        for _ in range(times):
            runtime.infer(INPUT)


def refusal(site: Site) -> str:
    with pytest.raises(SealpackError) as caught:
        call(site)
    return caught.value.code


def found(site: Site) -> Rights:
    with site.state() as state, state.read() as db:
        return rights.read(db, NAME, [site.trust])


def hard(site: Site) -> int:
    with site.state() as state, state.read() as db:
        clock = timekeeper.load(db)
        return 0 if clock is None else clock.hard


# --- the honest way -------------------------------------------------------------------------------------


def test_a_delegate_activates_a_machine_that_is_never_online(site: Site) -> None:
    ready(site)
    call(site)
    with site.state() as state:
        status = overview.gather(state)
    assert [entry["license_id"] for entry in status["licenses"]] == [NAME]
    assert found(site).license.parent_id == "L-1"
    with site.state() as state, state.read() as db:
        origin = db.execute("SELECT origin FROM logs").fetchone()[0]
    assert origin.startswith(f"sealpack/usage/{NAME}/dev-")


def test_the_order_of_documents_does_not_matter_and_again_changes_nothing(site: Site) -> None:
    site.pin()
    parcel = Delegate().answer(site.request())
    taken = site.take(Parcel(parcel.documents[::-1]))
    assert (taken.licenses, taken.activations, taken.leases) == ([NAME], [NAME], [NAME])
    assert site.take(parcel).count == 0


def test_a_parcel_for_another_device_is_left(
    site: Site, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    site.pin()
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other", tiny_models, site.trust).pin()
    taken = site.take(Delegate().answer(other.request()))
    assert taken.count == 0
    assert taken.others >= 3


def test_settlements_lease_goes_on_where_the_delegates_ended(site: Site) -> None:
    ready(site)
    name = device.name(device.key(site.home))
    site.take(Parcel((site.lease(name, NAME, 2, {"calls": 5000}),)))
    lease = found(site).lease
    assert lease is not None
    assert lease.lease_seq == 2


def test_a_further_sublicense_number_takes_the_place_of_the_first(site: Site) -> None:
    ready(site)
    later = Delegate(seq=2, stated={"exp": T0 + 2 * 10**8})
    assert site.take(Parcel((later.above, later.sublicense))).licenses == [NAME]
    assert found(site).license.exp == T0 + 2 * 10**8
    assert code_of(site, Parcel((later.above, Delegate().sublicense))) == "LIC_SUPERSEDED"
    other = Delegate(seq=2, stated={"exp": T0 + 10**8})
    assert code_of(site, Parcel((later.above, other.sublicense))) == "LIC_CONFLICT"


def test_a_provisional_parent_in_the_parcel_is_not_installed_by_it(site: Site) -> None:
    delegate = Delegate(parent(provisional=Provisional(3600, 10)))
    ready(site, delegate)
    with site.state() as state, state.read() as db:
        assert rights.license_ids(db) == [NAME]


# --- what bounds it -------------------------------------------------------------------------------------


def test_the_devices_share_holds_whatever_the_delegates_lease_says(site: Site) -> None:
    quota = (Quota("calls", "term", "license", 20, None, "deny"),)
    ready(site, Delegate(parent(quota=quota), stated={"devices": {"max": 1}}))
    call(site, 2)  # a tenth of 20, although this sub-license has one seat and its lease says 1000
    assert refusal(site) == "QUOTA_EXCEEDED"


def test_a_wider_sublicense_is_refused_at_the_door(site: Site) -> None:
    site.pin()
    delegate = Delegate(parent(exp=T0 + 10**8), stated={"exp": T0 + 10**8 + 1})
    assert code_of(site, delegate.answer(site.request())) == "SUBLICENSE_INVALID"


def test_an_expired_parent_ends_what_stands_below(site: Site) -> None:
    ready(site, Delegate(parent(exp=T0 + 10)))
    assert refusal(site) == "LIC_EXPIRED"


def test_a_narrower_parent_bounds_the_machine_without_a_word_of_the_delegate(site: Site) -> None:
    ready(site)
    call(site)
    newer = parent(seq=2, exp=T0 + 10)
    assert site.take(Parcel((seal_license(newer),))).licenses == ["L-1"]
    assert refusal(site) == "LIC_EXPIRED"
    assert code_of(site, Parcel((seal_license(parent(seq=2, exp=T0 + 11)),))) == "LIC_CONFLICT"


def test_replaying_the_older_parent_does_not_widen_again(site: Site) -> None:
    ready(site)
    site.take(Parcel((seal_license(parent(seq=2, exp=T0 + 10)),)))
    old = Delegate()
    site.take(Parcel((old.above, old.sublicense)))
    assert found(site).license.exp == T0 + 10


def test_a_parent_without_delegation_ends_what_stands_below(site: Site) -> None:
    ready(site)
    site.take(Parcel((seal_license(parent(seq=2, delegation=None)),)))
    assert refusal(site) == "SUBLICENSE_INVALID"
    name = device.name(device.key(site.home))
    site.take(Parcel((site.lease(name, NAME, 2, {"calls": 5}),)))  # the issuer's word is still taken


def test_what_a_parent_gave_up_stands_in_no_other_licenses_way(site: Site) -> None:
    ready(site)
    site.activate(make_license(license_id="L-7"))
    site.take(Parcel((seal_license(parent(seq=2, delegation=None)),)))
    call(site)
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        assert runtime.license_id == "L-7"


@pytest.mark.parametrize("revoked", ["L-1", NAME])
def test_a_revoked_parent_or_sublicense_ends_it(site: Site, revoked: str) -> None:
    ready(site)
    site.take(Parcel((world.make_revocations(2, licenses=[revoked]),)))
    assert refusal(site) == "LIC_REVOKED"


def test_a_revoked_delegate_key_ends_it_and_the_news_is_taken(site: Site) -> None:
    ready(site)
    gone = world.make_revocations(2, keys=[{"keyid": DELEGATE.keyid, "good": []}])
    assert site.take(Parcel((gone,))).trust == [("revocations", 2)]
    assert refusal(site) == "KEY_REVOKED"


# --- who may say what -----------------------------------------------------------------------------------


def test_a_delegate_of_another_license_is_refused(site: Site) -> None:
    site.pin()
    assert code_of(site, Delegate(key=OTHER).answer(site.request())) == "SUBLICENSE_INVALID"


@pytest.mark.parametrize("name", ["L-1", "L-2", "L-1.other"])
def test_a_delegates_activation_for_another_license_is_refused(site: Site, name: str) -> None:
    site.pin()
    request, delegate = site.request(), Delegate()
    parts = delegate.above, delegate.sublicense, delegate.activation(request, license_id=name)
    assert code_of(site, Parcel(parts)) == "SIG_KEY_UNKNOWN"


def test_a_delegates_lease_for_the_parent_is_refused(site: Site) -> None:
    ready(site)
    request = site.request()
    assert code_of(site, Parcel((Delegate().lease(request, license_id="L-1"),))) == "SIG_KEY_UNKNOWN"
    assert code_of(site, Parcel((Delegate().lease(request, lease_seq=2),))) == "SUBLICENSE_INVALID"


def test_a_sublicense_below_a_sublicense_is_refused(site: Site) -> None:
    ready(site)
    below = Delegate(key=OTHER, name=f"{NAME}.bed")
    assert code_of(site, Parcel((below.sublicense,))) == "SUBLICENSE_INVALID"
    handed_on = Delegate(stated={"delegation": {"keys": [OTHER.public.pem]}}, seq=2)
    assert code_of(site, Parcel((handed_on.above, handed_on.sublicense))) == "SUBLICENSE_INVALID"


def test_a_sublicense_without_its_parent_is_refused(site: Site) -> None:
    site.pin()
    request, delegate = site.request(), Delegate()
    assert code_of(site, Parcel((delegate.sublicense, delegate.activation(request)))) == "SIG_KEY_UNKNOWN"
    assert code_of(site, Parcel((delegate.sublicense,))) == "LIC_MISSING"


def test_an_activation_answers_one_request_once(site: Site) -> None:
    site.pin()
    request, delegate = site.request(), Delegate()
    site.take(delegate.answer(request))
    again = delegate.activation(request, issued_at=T0 + 1)
    assert code_of(site, Parcel((delegate.above, delegate.sublicense, again))) == "ACTIVATION_NONCE"


def test_ids_do_not_collide_with_licenses(site: Site) -> None:
    site.ready(make_license(license_id=NAME))
    assert code_of(site, Delegate().answer(site.request())) == "LIC_CONFLICT"


def test_a_license_does_not_take_the_id_of_a_sublicense(site: Site) -> None:
    ready(site)
    strange = make_license(license_id=NAME)
    assert code_of(site, site.reply(site.request(), strange)) == "LIC_CONFLICT"


# --- the clock ------------------------------------------------------------------------------------------


def test_nothing_a_delegate_dates_moves_the_provable_time(site: Site) -> None:
    site.pin()
    request, delegate = site.request(), Delegate()
    later = T0 + 3600
    parts = (
        delegate.above,
        delegate.sublicense,
        delegate.activation(request, issued_at=later + 10**9),
        delegate.lease(request, issued_at=later),
    )
    site.take(Parcel(parts))
    assert T0 * 1000 <= hard(site) < later * 1000
    assert proof(site) == T0


def proof(site: Site) -> int:
    with site.state() as state, state.read() as db:
        return proofs.newest(db, site.trust)


def test_a_lease_from_the_future_is_refused(site: Site) -> None:
    site.pin()
    request = site.request()
    delegate = Delegate(parent(lease=LeaseTerms(True, 86400, None, "deny")))
    parts = delegate.above, delegate.sublicense, delegate.activation(request)
    future = delegate.lease(request, issued_at=T0 + 10**9)
    assert code_of(site, Parcel((*parts, future))) == "SUBLICENSE_INVALID"


def test_a_delegate_does_not_make_its_one_lease_last_by_dating_it_again(site: Site, monkeypatch: Any) -> None:
    """Usage would never be settled; only a newer parent brings another first lease."""
    delegate = Delegate(parent(lease=LeaseTerms(True, 30 * 86_400, None, "deny", ())))
    monkeypatch.setattr(machine, "reading", lambda: Reading((T0 + 10) * 1000, 5000, "boot"))
    ready(site, delegate)
    request = ActivationRequest.open(site_request(site))
    monkeypatch.setattr(
        machine, "reading", lambda: Reading((T0 + 40 * 86_400) * 1000, 40 * 86_400_000, "boot")
    )
    assert refusal(site) == "LEASE_STALE"
    again = Parcel((delegate.above, delegate.sublicense, delegate.lease(request, issued_at=T0 + 39 * 86_400)))
    assert site.take(again).leases == []
    assert refusal(site) == "LEASE_STALE"
    renewed = Delegate(replace(delegate.parent, seq=2, issued_at=T0 + 38 * 86_400), seq=2)
    lease = renewed.lease(request, issued_at=T0 + 39 * 86_400)
    assert site.take(Parcel((renewed.above, renewed.sublicense, lease))).leases == [NAME]
    call(site)


def site_request(site: Site) -> Envelope:
    """A further request, which tells the device's name."""
    with site.state() as state:
        return device.request(state, site.trust, T0)
