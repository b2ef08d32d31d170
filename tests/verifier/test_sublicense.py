"""Sub-licenses: never wider than the parent in any field, and nobody else's business than the delegate's."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support import world
from support.site import make_license, seal_license
from support.world import T0

from sealpack.format import documents, meet
from sealpack.format.activation import Activation, Ceiling, Lease, device_id
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.hybrid import HybridPrivateKey
from sealpack.format.keys import ML_DSA, PrivateKey
from sealpack.format.license import (
    Allowance,
    BundleGrant,
    ClockRules,
    Delegation,
    Devices,
    IssuedUnder,
    LeaseTerms,
    License,
    PlanRef,
    Provisional,
    Quota,
    Rate,
    Use,
    open_license,
)
from sealpack.format.registry import RegistryLine
from sealpack.format.sublicense import Chain, Sublicense, delegate_name, open_sublicense, read_below
from sealpack.format.trust import Trust

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")
OTHER = PrivateKey.from_seed(b"sealpack-test-delegate-of-others")
DEVICE = PrivateKey.from_seed(b"sealpack-test-device-of-delegate")
TRUST = world.make_trust()
FULL: dict[str, Any] = {
    "bundles": (BundleGrant("acme/tiny", "1.0", "1.9"), BundleGrant("acme/words", bundle_digest="ab" * 32)),
    "use": Use("11" * 32, "MIT", ("business", "research"), ("resale",), "Acme", ack_required=True),
    "devices": Devices("key", 10, vm=False, container=False),
    "nbf": T0,
    "exp": T0 + 10_000,
    "grace_s": 60,
    "updates_until": T0 + 5_000,
    "features": ("batch",),
    "provisional": Provisional(3600, 10),
    "limits": Rate(10, None, 4, 2),
    "quota": (
        Quota("calls", "term", "license", 1000, 2000, "bill"),
        Quota("tok_out", "day", "device", 500, None, "deny"),
    ),
    "lease": LeaseTerms(True, 100, 30, "throttle", (Allowance("calls", 50),)),
    "plan": PlanRef("pro", 2),
    "watermark": "hidden",
    "clock": ClockRules("deny"),
    "issued_under": IssuedUnder(1, 1),
    "delegation": Delegation((DELEGATE.public.pem,), 5),
}


def parent_of(**members: Any) -> License:
    """A parent with every member, verified."""
    return open_license(seal_license(make_license(**(FULL | members))), TRUST)


PARENT = parent_of()


def sub(parent: License = PARENT, key: PrivateKey = DELEGATE, **stated: Any) -> Envelope:
    """A signed sub-license; `own` replaces members of the document itself."""
    own = {
        "license_id": f"{parent.license_id}.ward",
        "seq": 1,
        "issued_at": T0,
        "parent": {"license_id": parent.license_id, "seq": parent.seq, "digest": parent.digest},
    }
    return documents.seal("sublicense", {**stated, **own, **stated.pop("own", {})}, key)


def opened(envelope: Envelope, parent: License = PARENT, trust: Trust = TRUST) -> Chain:
    return open_sublicense(envelope, trust, parent)


def refused(envelope: Envelope, parent: License = PARENT, trust: Trust = TRUST) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        open_sublicense(envelope, trust, parent)
    return caught.value


# --- every field ----------------------------------------------------------------------------------------

QUOTA = {"meter": "calls", "window": "term", "scope": "device", "cap": 100, "hard_cap": 200,
         "on_exceed": "bill"}  # fmt: skip
DAILY = {"meter": "tok_out", "window": "day", "scope": "device", "cap": 500, "on_exceed": "deny"}
TERM = {"exp": None, "term_s": 500}
# field -> (what a sub-license says, the path it is refused for[, other members of the parent])
WIDER: dict[str, list[tuple[Any, ...]]] = {
    "issuer": [("Another", "issuer")],
    "bundles": [
        ([{"id": "acme/talk"}], "bundles[0]"),
        (
            [{"id": "acme/tiny", "min_version": "1.1", "max_version": "1.2"}, {"id": "acme/tiny"}],
            "bundles[1]",
        ),
        ([{"id": "acme/tiny", "min_version": "0.9", "max_version": "1.2"}], "bundles[0]"),
        ([{"id": "acme/words"}], "bundles[0]"),
        ([{"id": "acme/words", "bundle_digest": "cd" * 32}], "bundles[0]"),
    ],
    "use": [
        ({"allow": ["resale"]}, "use.allow"),
        ({"deny": []}, "use.deny"),
        ({"ack_required": False}, "use.ack_required"),
        ({"terms_digest": "22" * 32}, "use.terms_digest"),
        ({"spdx": "Apache-2.0"}, "use.spdx"),
        ({"attribution": "nobody"}, "use.attribution"),
    ],
    "devices": [
        ({"binding": "none"}, "devices.binding"),
        ({"max": 6}, "devices.max"),
        ({"vm": True}, "devices.vm"),
        ({"container": True}, "devices.container"),
    ],
    "tier": [("gold", "tier")],
    "billing": [("one_time", "billing")],
    "environment": [("test", "environment"), ("live", "environment", {"environment": "test"})],
    "enforcement": [("advisory", "enforcement")],
    "nbf": [(T0 - 1, "nbf")],
    "exp": [(T0 + 10_001, "exp"), (2**53 - 1, "exp")],
    "term_s": [(501, "term_s", TERM)],
    "grace_s": [(61, "grace_s")],
    "updates_until": [(T0 + 5_001, "updates_until")],
    "features": [(["batch", "stream"], "features")],
    "provisional": [
        ({"s": 3601}, "provisional.s"),
        ({"calls": 11}, "provisional.calls"),
        ({"s": 1, "calls": 1}, "provisional", {"provisional": None}),
    ],
    "limits": [
        ({"qps": 11}, "limits.qps"),
        ({"burst": 11}, "limits.burst"),
        ({"inflight": 5}, "limits.inflight"),
        ({"processes": 3}, "limits.processes"),
    ],
    "quota": [
        ([QUOTA | {"cap": 101}], "quota"),
        ([QUOTA | {"hard_cap": 201}], "quota"),
        ([QUOTA | {"on_exceed": "warn"}], "quota"),
        ([QUOTA | {"scope": "license", "cap": 1000, "hard_cap": 2000}], "quota"),  # five seats, not ten
        ([DAILY | {"cap": 2**53 - 1}], "quota"),
        ([DAILY | {"scope": "license"}], "quota"),
    ],
    "lease": [
        ({"required": False}, "lease.required"),
        ({"max_age_s": 101}, "lease.max_age_s"),
        ({"warn_s": 29}, "lease.warn_s"),
        ({"on_stale": "warn"}, "lease.on_stale"),
        ({"allowance": [{"meter": "calls", "amount": 51}]}, "lease.allowance"),
    ],
    "receipts": [("local", "receipts")],
    "watermark": [("no", "watermark")],
    "plan": [({"id": "free", "version": 1}, "plan")],
    "issued_under": [({"root": 1, "revocations": 2}, "issued_under")],
    "clock": [({"on_back": "continue"}, "clock.on_back")],
    "site_keys": [([], "site_keys")],
}
# Names and texts allow nothing; `seq` and `issued_at` are the document's own.
OWN = {"license_id", "seq", "issued_at", "customer", "support", "device_label", "order_ref"}


def test_every_field_of_a_license_has_a_rule_and_a_case() -> None:
    """Whoever adds a member to licenses says here what its meet is."""
    members = {f.name for f in dataclasses.fields(License)} - {"digest", "parent_id"}
    assert set(meet.RULES) == members
    assert OWN | set(WIDER) | {"delegation"} == members


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in WIDER.items() for case in cases])
def test_wider_in_one_field_is_refused_by_its_name(name: str, case: tuple[Any, ...]) -> None:
    value, path, *more = case
    parent = parent_of(**(more[0] if more else {}))
    failure = refused(sub(parent, **{name: value}), parent)
    assert failure.code == "SUBLICENSE_INVALID"
    assert failure.message.startswith(f"sublicense.{path} is wider")


NARROWER: dict[str, list[Any]] = {
    "bundles": [[{"id": "acme/tiny", "min_version": "1.0.0", "max_version": "1.5"}], []],
    "use": [{"allow": ["business"], "deny": ["resale", "military"]}],
    "devices": [{"binding": "key+fp", "max": 1}],
    "nbf": [T0 + 1],
    "exp": [T0 + 9_999],
    "term_s": [60],
    "grace_s": [0],
    "updates_until": [T0],
    "features": [[]],
    "provisional": [{"s": 0}],
    "limits": [{"qps": 1}, {"burst": 10}, {"inflight": 0}],
    "quota": [
        [QUOTA],
        [QUOTA | {"cap": 10, "on_exceed": "deny"}],
        [{"meter": "ms", "window": "day", "scope": "device", "cap": 5, "on_exceed": "warn"}],
        [QUOTA | {"scope": "license", "cap": 500, "hard_cap": 1000}],
    ],
    "lease": [{"max_age_s": 50, "warn_s": 40, "on_stale": "deny"}, {"allowance": []}],
    "clock": [{}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NARROWER.items() for value in values]
)
def test_narrower_in_one_field_is_taken(name: str, value: Any) -> None:
    found = opened(sub(**{name: value})).license
    assert meet.narrower(found, PARENT)
    assert not found.features or name != "features"


def test_a_sublicense_that_says_nothing_is_its_parent_for_one_name() -> None:
    found = opened(sub()).license
    assert (found.license_id, found.parent_id, found.seq) == ("L-1.ward", "L-1", 1)
    assert (found.devices.max, found.delegation, found.site_keys) == (5, None, None)
    assert found.quota[0] == Quota("calls", "term", "device", 100, 200, "bill")  # a tenth, not a fifth
    assert found.digest == sub().digest
    assert found.issued_at == PARENT.issued_at
    assert meet.narrower(found, PARENT)
    assert not meet.narrower(PARENT, found)


def test_what_was_opened_is_read_again_under_any_version_of_the_parent() -> None:
    assert read_below(sub(), PARENT) == opened(sub()).license
    with pytest.raises(SealpackError) as caught:
        read_below(sub(), parent_of(delegation=None))
    assert caught.value.code == "SUBLICENSE_INVALID"


def test_an_end_and_a_term_both_count() -> None:
    found = opened(sub(term_s=60)).license
    assert (found.exp, found.term_s) == (FULL["exp"], 60)
    term = parent_of(**TERM)
    found = opened(sub(term, exp=T0 + 5), term).license
    assert (found.exp, found.term_s) == (T0 + 5, 500)


def test_the_end_customer_is_the_delegates_own() -> None:
    found = opened(sub(customer={"id": "ward-3", "name": "Ward 3"}, support="it@hospital.example")).license
    assert (found.customer.id, found.support) == ("ward-3", "it@hospital.example")
    assert opened(sub()).parent.customer.id == "hospital"


def test_a_parent_without_limits_lets_the_delegate_set_them() -> None:
    bare = open_license(seal_license(make_license(delegation=FULL["delegation"])), TRUST)
    stated = {
        "exp": T0 + 5,
        "limits": {"qps": 3},
        "quota": [DAILY],
        "lease": {"required": True, "max_age_s": 9, "allowance": [{"meter": "ms", "amount": 7}]},
        "clock": {"on_back": "deny"},
        "provisional": {"s": 0, "calls": 0},
    }
    assert refused(sub(bare, **stated), bare).message.startswith("sublicense.provisional is wider")
    del stated["provisional"]
    found = opened(sub(bare, **stated), bare).license
    assert (found.exp, found.limits, found.clock) == (T0 + 5, Rate(3, 3), ClockRules("deny"))
    assert found.lease.allowance == (Allowance("ms", 7),)


@pytest.mark.parametrize(
    ("allow", "stated", "left"),
    [
        (("any",), ["research"], ("research",)),
        (("any",), ["any"], ("any",)),
        (("business",), ["business"], ("business",)),
    ],
)
def test_any_use_allows_every_word(allow: tuple[str, ...], stated: list[str], left: tuple[str, ...]) -> None:
    parent = parent_of(use=Use("11" * 32, allow=allow))
    assert opened(sub(parent, use={"allow": stated}), parent).license.use.allow == left


def test_words_that_are_not_those_of_the_parent_any_more_are_gone() -> None:
    before, after = parent_of(use=Use("11" * 32, allow=("any",))), parent_of(seq=2)
    assert opened(sub(before, use={"allow": ["any"]}), after).license.use.allow == ("business", "research")
    assert opened(sub(before, use={"allow": ["business", "x"]}), after).license.use.allow == ("business",)


# --- a later parent narrows without a word --------------------------------------------------------------


def test_a_narrower_parent_bounds_the_sublicenses_it_has() -> None:
    envelope = sub(
        exp=T0 + 9_000,
        limits={"qps": 9},
        bundles=[{"id": "acme/tiny", "min_version": "1.5", "max_version": "1.8"}, {"id": "acme/words",
                 "bundle_digest": "ab" * 32}],
    )  # fmt: skip
    later = parent_of(
        seq=2,
        exp=T0 + 50,
        limits=Rate(1),
        provisional=None,
        bundles=(BundleGrant("acme/tiny", "1.0", "1.6"), BundleGrant("acme/words", bundle_digest="cd" * 32)),
        devices=Devices("key+fp", 2),
    )
    found = opened(envelope, later).license
    assert (found.exp, found.limits.qps, found.provisional) == (T0 + 50, 1, None)
    assert found.bundles == (BundleGrant("acme/tiny", "1.5", "1.6"),)
    assert found.devices == Devices("key+fp", 2)
    assert meet.narrower(found, later)
    gone = parent_of(seq=2, bundles=(BundleGrant("acme/tiny", "2.0", "3"),))
    assert opened(envelope, gone).license.bundles == ()


def test_an_older_parent_does_not_count() -> None:
    newer = parent_of(seq=2)
    assert "number 2" in refused(sub(newer)).message
    assert (
        "number 1"
        in refused(sub(own={"parent": {"license_id": "L-1", "seq": 1, "digest": "0" * 64}})).message
    )


def test_a_parent_that_lost_its_delegates_ends_its_sublicenses() -> None:
    assert "not signed by a delegate" in refused(sub(), parent_of(seq=2, delegation=None)).message
    others = parent_of(seq=2, delegation=Delegation((OTHER.public.pem,)))
    assert "not signed by a delegate" in refused(sub(), others).message


# --- who may sign ---------------------------------------------------------------------------------------


def test_a_delegate_of_another_license_is_refused() -> None:
    other = parent_of(license_id="L-2", delegation=Delegation((OTHER.public.pem,)))
    stolen = sub(own={"license_id": "L-2.ward"}, key=DELEGATE)
    assert refused(sub(other), other).code == "SUBLICENSE_INVALID"
    assert "not L-1.NAME" in refused(stolen).message
    both = parent_of(license_id="L-2")
    assert "below L-1, not L-2" in refused(sub(), both).message


@pytest.mark.parametrize("name", ["L-1", "L-1.", "L-1.a.b", "L-2.a", "other"])
def test_a_name_outside_the_parents_is_refused(name: str) -> None:
    assert refused(sub(own={"license_id": name})).code == "SUBLICENSE_INVALID"


def test_a_sublicense_of_a_sublicense_is_refused() -> None:
    chain = opened(sub())
    below = sub(chain.license, own={"license_id": "L-1.x"})
    assert "not signed by a delegate" in refused(sub(chain.license, OTHER), chain.license).message
    assert refused(below, chain.license).code == "SUBLICENSE_INVALID"
    handed_on = sub(delegation={"keys": [OTHER.public.pem]})
    assert "cannot be handed on" in refused(handed_on).message


def test_edited_and_doubly_signed_ones_are_refused() -> None:
    good, other = sub(), sub(exp=T0 + 1)
    assert refused(replace(good, payload=other.payload)).code == "SIG_INVALID"
    twice = documents.seal("sublicense", Sublicense.read(good).to_dict(), DELEGATE, OTHER)
    assert refused(twice).code == "SUBLICENSE_INVALID"
    assert refused(seal_license(make_license())).code == "DOC_TYPE"
    assert refused(sub(own={"crit": ["x"]})).code == "DOC_CRIT"


def test_a_key_of_the_keyring_is_no_delegate() -> None:
    parent = parent_of(delegation=Delegation((world.CREATOR.public.pem,)))
    assert "stands in the keyring" in refused(sub(parent, world.CREATOR), parent).message


def test_a_revoked_delegate_key_is_refused_but_for_what_is_listed_as_good() -> None:
    good = sub()
    trust = world.make_trust(keys=[{"keyid": DELEGATE.keyid, "good": [good.digest]}])
    assert opened(good, trust=trust).license.license_id == "L-1.ward"
    assert refused(sub(exp=T0 + 1), trust=trust).code == "KEY_REVOKED"


@pytest.mark.parametrize(
    "stated",
    [
        {"exp": -1},
        {"exp": "soon"},
        {"exp": T0 - 1},
        {"limits": {"qps": -1}},
        {"limits": 5},
        {"quota": 5},
        {"quota": [5]},
        {"quota": [{}]},
        {"lease": []},
        {"lease": {"allowance": {}}},
        {"devices": {"max": -1}},
        {"own": {"seq": 0}},
    ],
)
def test_hostile_values_are_refused(stated: dict[str, Any]) -> None:
    assert refused(sub(**stated)).code == "SUBLICENSE_INVALID"


# --- what the delegate signs beside it ------------------------------------------------------------------


def activation(key: PrivateKey = DELEGATE, **members: Any) -> Envelope:
    made = Activation(
        "L-1.ward", sub().digest, device_id(DEVICE.public), DEVICE.public, "0" * 64, "0" * 32, T0
    )
    return documents.seal("activation", replace(made, **members).to_dict(), key)


def lease(key: PrivateKey = DELEGATE, **members: Any) -> Envelope:
    limits = (Ceiling("calls", 50),)
    made = Lease("L-1.ward", device_id(DEVICE.public), 0, 1, T0, T0 + 100, limits)
    return documents.seal("lease", replace(made, **members).to_dict(), key)


def test_the_delegate_speaks_for_its_own_sublicense() -> None:
    chain = opened(sub())
    assert chain.open_activation(activation()).license_id == "L-1.ward"
    assert chain.open_lease(lease()).ceilings == (Ceiling("calls", 50),)
    assert chain.open_lease(lease(expires=T0 + 1)).expires == T0 + 1


@pytest.mark.parametrize("license_id", ["L-1", "L-2", "L-1.other"])
def test_the_delegate_speaks_for_no_other_license(license_id: str) -> None:
    chain = opened(sub())
    for use, envelope in (
        (chain.open_activation, activation(license_id=license_id)),
        (chain.open_lease, lease(license_id=license_id)),
    ):
        with pytest.raises(SealpackError, match="the delegate speaks for"):
            use(envelope)
    for document in (Activation, Lease):
        envelope = activation(license_id=license_id) if document is Activation else lease()
        with pytest.raises(SealpackError) as caught:
            document.open(envelope, TRUST)
        assert caught.value.code == "SIG_KEY_UNKNOWN"


def test_a_delegate_begins_only_the_first_log() -> None:
    with pytest.raises(SealpackError) as caught:
        opened(sub()).open_activation(activation(epoch=1))
    assert caught.value.code == "SUBLICENSE_INVALID"


@pytest.mark.parametrize("members", [{"lease_seq": 2}, {"key": OTHER}])
def test_a_delegate_gives_only_the_first_lease(members: dict[str, Any]) -> None:
    with pytest.raises(SealpackError) as caught:
        opened(sub()).open_lease(lease(**members))
    assert caught.value.code == "SUBLICENSE_INVALID"


@pytest.mark.parametrize(
    "members",
    [
        {"expires": None},
        {"expires": T0 + 101},
        {"expires": 2**53 - 1},
        {"ceilings": ()},
        {"ceilings": (Ceiling("calls", 2**53 - 1),)},
        {"ceilings": (Ceiling("calls", 1, "ab" * 32),)},
    ],
)
def test_a_delegates_lease_never_says_more_than_a_first_one(members: dict[str, Any]) -> None:
    found = opened(sub()).open_lease(lease(**members))
    assert found.expires == T0 + 100
    assert min(c.limit for c in found.ceilings if c.bundle_digest is None) == 50


def test_another_delegate_of_the_same_license_does_not_activate() -> None:
    parent = parent_of(delegation=Delegation((DELEGATE.public.pem, OTHER.public.pem)))
    with pytest.raises(SealpackError, match="is not signed by the delegate of"):
        opened(sub(parent), parent).open_activation(activation(OTHER))


def test_a_lease_without_an_age_is_not_bounded_in_time() -> None:
    parent = parent_of(lease=LeaseTerms())
    chain = opened(sub(parent), parent)
    assert chain.open_lease(lease(expires=None, ceilings=(Ceiling("calls", 200),))).expires is None


# --- the delegation of a license ------------------------------------------------------------------------


def test_a_delegation_survives_reading_and_writing() -> None:
    key = HybridPrivateKey.from_seed(b"\5" * 32)
    name = delegate_name(key.public)
    wrapped = key.public.wrap(b"\1" * 32, "ab" * 32, "L-1", name)
    found = parent_of(delegation=Delegation((DELEGATE.public.pem,), None, (wrapped,))).delegation
    assert found is not None
    assert key.unwrap(found.bundle_keys[0], "L-1", name) == b"\1" * 32
    assert name.startswith("delegate-")


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"keys": ["no key"]}, "keys"),
        ({"keys": [5]}, "keys"),
        ({"keys": [PrivateKey.from_seed(b"\7" * 32, ML_DSA).public.pem]}, "ml-dsa"),
        ({"keys": [DELEGATE.public.pem] * 9}, "keys"),
        ({"keys": [], "max_devices": -1}, "max_devices"),
    ],
)
def test_a_delegation_that_makes_no_sense_is_refused(members: dict[str, Any], problem: str) -> None:
    body = make_license().to_dict() | {"delegation": members}
    with pytest.raises(SealpackError, match=problem) as caught:
        License.parse(Fields(body, "license", "LIC_SCHEMA"))
    assert caught.value.code == "LIC_SCHEMA"


def test_a_license_that_binds_no_device_has_no_delegate() -> None:
    with pytest.raises(SealpackError, match="binding other than none"):
        parent_of(devices=Devices("none"))


def test_a_registry_line_carries_a_sublicense_that_readers_must_know() -> None:
    line = RegistryLine(seal_license(PARENT), activation(), lease(), sublicense=sub())
    data = line.to_bytes()
    assert b'"crit":["sublicense"]' in data
    assert RegistryLine.from_bytes(data) == line
    assert b"crit" not in RegistryLine(seal_license(PARENT)).to_bytes()


# --- the meet in general --------------------------------------------------------------------------------

counts = st.none() | st.integers(0, 4)
few = st.integers(0, 4)
words = st.lists(st.sampled_from(["a", "b", "any"]), max_size=3, unique=True).map(tuple)
versions = st.none() | st.sampled_from(["1", "1.2", "1.2.0", "2"])
grants = st.builds(
    BundleGrant, st.sampled_from(["x/a", "x/b"]), versions, versions, st.none() | st.just("ab" * 32)
)
quotas = st.builds(
    lambda meter, window, scope, cap, more, over: Quota(
        meter, window, scope, cap, None if more is None else cap + more, over
    ),
    st.sampled_from(["calls", "ms"]),
    st.sampled_from(["day", "term"]),
    st.sampled_from(["device", "license"]),
    few,
    counts,
    st.sampled_from(["deny", "bill", "throttle", "warn"]),
)
leases = st.builds(
    LeaseTerms,
    st.booleans(),
    counts,
    counts,
    st.sampled_from(["deny", "throttle", "warn"]),
    st.lists(
        st.builds(Allowance, st.sampled_from(["calls", "ms"]), few), max_size=2, unique_by=lambda a: a.meter
    ).map(tuple),
)
licenses = st.builds(
    make_license,
    bundles=st.lists(grants, max_size=3).map(tuple),
    use=st.builds(lambda a, d, k: Use("11" * 32, None, a, d, None, k), words, words, st.booleans()),
    devices=st.builds(
        Devices, st.sampled_from(["key", "key+fp", "tpm"]), counts, st.booleans(), st.booleans()
    ),
    enforcement=st.sampled_from(["enforce", "advisory"]),
    receipts=st.sampled_from(["required", "local", "none"]),
    nbf=few,
    exp=counts,
    term_s=counts,
    grace_s=few,
    updates_until=counts,
    features=words,
    provisional=st.none() | st.builds(Provisional, few, few),
    limits=st.builds(Rate, counts, counts, counts, counts),
    quota=st.lists(quotas, max_size=3).map(tuple),
    lease=leases,
    clock=st.none() | st.builds(ClockRules, st.sampled_from(["deny", "continue"])),
)


def same(a: License, b: License) -> bool:
    return meet.narrower(a, b) and meet.narrower(b, a)


@settings(max_examples=60, deadline=None)
@given(licenses, licenses)
def test_the_meet_is_never_wider_than_either(a: License, b: License) -> None:
    both = meet.meet(a, b)
    assert meet.wider(both, a) is None
    # Shares are by the seats of the license that states them, so the lower one is compared as granted.
    assert meet.wider(both, replace(b, quota=meet.per_device(b))) is None


@settings(max_examples=60, deadline=None)
@given(licenses, licenses)
def test_the_meet_commutes_and_repeats(a: License, b: License) -> None:
    both = meet.meet(a, b)
    assert same(both, meet.meet(b, a))
    assert same(meet.meet(a, a), a)
    assert same(meet.meet(both, a), both)
    assert same(meet.meet(a, both), both)


@settings(max_examples=60, deadline=None)
@given(licenses, licenses, licenses)
def test_narrower_is_an_order_and_the_meet_its_greatest_lower_bound(
    a: License, b: License, c: License
) -> None:
    assert meet.narrower(a, a)
    assert same(meet.meet(meet.meet(a, b), c), meet.meet(a, meet.meet(b, c)))
    if meet.narrower(a, b) and meet.narrower(b, c):
        assert meet.narrower(a, c)
    if meet.narrower(c, a) and meet.narrower(c, b):
        assert meet.narrower(c, meet.meet(a, b))
