"""A device whose vendor signs with ML-DSA too: nothing is taken without both signatures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import world
from support.mldsa import CREATOR_MLDSA, LICENSER_MLDSA, ROOT_MLDSA
from support.site import INPUT, Site, make_license
from support.world import CREATOR, LICENSER, ROOT, SETTLEMENT

import sealpack.runtime
from sealpack.format import dsse
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.trust import Trust


def resigned(envelope: Envelope, *keys: world.Signer) -> Envelope:
    return dsse.sign(envelope.payload_type, envelope.payload, *keys)


def hybrid_keyring(version: int = 1) -> Envelope:
    entries = [
        world.key_entry(CREATOR, ["bundle"], mldsa=CREATOR_MLDSA),
        world.key_entry(LICENSER, ["license"], mldsa=LICENSER_MLDSA),
        world.key_entry(SETTLEMENT, ["settlement", "ack", "witness"]),
    ]
    return world.make_keyring(version, entries)


def hybrid_trust() -> Trust:
    root = world.make_root(mldsa={ROOT.keyid: ROOT_MLDSA})
    rings = (hybrid_keyring(), world.make_revocations())
    return Trust.from_envelopes(root, *(resigned(e, ROOT, ROOT_MLDSA) for e in rings))


@pytest.fixture
def hybrid(site: Site) -> Site:
    return replace(site, trust=hybrid_trust()).pin()


def reply(site: Site) -> tuple[Envelope, Envelope, Envelope]:
    """License, activation, both with two signatures, and the first lease."""
    license, activation, lease = site.reply(site.request(), make_license()).documents
    twice = (resigned(e, LICENSER, LICENSER_MLDSA) for e in (license, activation))
    return *twice, lease


def refused(site: Site, *documents: Envelope) -> str:
    with pytest.raises(SealpackError) as caught:
        site.take(Parcel(documents))
    return caught.value.code


def test_a_device_runs_what_was_signed_twice(hybrid: Site) -> None:
    hybrid.install(mldsa_key=CREATOR_MLDSA)
    taken = hybrid.take(Parcel(reply(hybrid)))
    assert (taken.licenses, taken.activations, taken.leases) == (["L-1"], ["L-1"], ["L-1"])
    with sealpack.runtime.open("acme/tiny", state=hybrid.state_dir, threads=1) as runtime:
        runtime.infer(INPUT)


def test_a_stripped_bundle_is_not_installed(hybrid: Site) -> None:
    with pytest.raises(SealpackError) as caught:
        hybrid.install()
    assert caught.value.code == "SIG_SCHEME"
    assert list(hybrid.home.store.iterdir()) == []


def test_a_stripped_license_or_activation_is_refused_whole(hybrid: Site) -> None:
    license, activation, lease = reply(hybrid)
    assert refused(hybrid, resigned(license, LICENSER), activation, lease) == "SIG_SCHEME"
    assert refused(hybrid, license, resigned(activation, LICENSER), lease) == "SIG_SCHEME"
    assert refused(hybrid, license, resigned(activation, LICENSER, CREATOR_MLDSA), lease) == "DSSE_INVALID"
    assert hybrid.take(Parcel((license, activation, lease))).count == 3


def test_a_newer_keyring_asks_for_more_from_then_on(site: Site) -> None:
    site.pin()
    single = site.reply(site.request(), make_license()).documents
    twice = [resigned(e, LICENSER, LICENSER_MLDSA) for e in single[:2]]
    assert refused(site, *twice) == "DSSE_INVALID"  # nobody can check the second signature yet
    site.take(Parcel((hybrid_keyring(2),)))
    assert refused(site, *single) == "SIG_SCHEME"
    assert site.take(Parcel((*twice, single[2]))).count == 3
