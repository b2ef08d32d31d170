"""Licenses, activations, leases: what they cover and whom they are for. Single faults: the vectors."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support import world
from support.site import make_license

from sealpack.format import canonical, documents
from sealpack.format.activation import Activation, ActivationRequest, Ceiling, Lease, device_id, log_origin
from sealpack.format.encryption import WRAPPED_SIZE, WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.hybrid import HybridPrivateKey
from sealpack.format.keys import PrivateKey
from sealpack.format.leasing import ceilings, device_share, next_lease
from sealpack.format.license import (
    Allowance,
    BundleGrant,
    Devices,
    LeaseTerms,
    License,
    Quota,
    open_license,
    version_key,
)
from sealpack.format.trust import Trust

TRUST = world.make_trust()
DEVICE = PrivateKey.from_seed(b"sealpack-test-device-key-0000002")
DEVICE_ID = device_id(DEVICE.public)
NONCE = "0" * 32
VERSION = st.lists(st.integers(0, 999), min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments)
    return caught.value.code


# --- versions and grants --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"),
    [("1", "2"), ("1.9", "1.10"), ("1.2", "1.2.1"), ("1.2.3", "2"), ("0.9.9.9", "1.0"), ("0", "0.0.1")],
)
def test_versions_compare_by_number(low: str, high: str) -> None:
    assert version_key(low) < version_key(high)


@given(VERSION)
def test_trailing_zeros_do_not_count(version: str) -> None:
    if version.count(".") < 3:
        assert version_key(version) == version_key(version + ".0")


@given(VERSION, VERSION, VERSION)
def test_a_grant_covers_its_range(low: str, high: str, version: str) -> None:
    grant = BundleGrant("acme/a", low, high)
    inside = version_key(low) <= version_key(version) <= version_key(high)
    assert grant.covers("acme/a", version, "0" * 64) == inside
    assert not grant.covers("acme/b", version, "0" * 64)


def test_a_grant_by_digest_covers_one_build() -> None:
    grant = BundleGrant("acme/a", bundle_digest="1" * 64)
    assert grant.covers("acme/a", "1.0", "1" * 64)
    assert not grant.covers("acme/a", "1.0", "2" * 64)
    license = make_license(bundles=(grant, BundleGrant("acme/b")))
    assert license.covers("acme/b", "7", "2" * 64) and not license.covers("acme/a", "7", "2" * 64)


# --- opening a license ----------------------------------------------------------------------------------


def sealed(license: License, key: PrivateKey = world.LICENSER, **members: Any) -> documents.Envelope:
    payload = {k: v for k, v in (license.to_dict() | members).items() if v is not None}
    return documents.seal("license", payload, key)


def test_a_license_round_trip() -> None:
    license = make_license(
        exp=world.T0 + 10,
        quota=(Quota("calls", "day", "device", 5, 9, "bill"),),
        lease=LeaseTerms(True, 3600, 60, "deny", (Allowance("calls", 7),)),
    )
    envelope = sealed(license)
    opened = open_license(envelope, TRUST)
    assert opened == license
    assert opened.digest == envelope.digest


def test_who_may_license_what() -> None:
    license = make_license()
    assert code_of(open_license, sealed(license, world.STRANGER), TRUST) == "LIC_KEY_UNTRUSTED"
    assert code_of(open_license, sealed(license, world.CREATOR), TRUST) == "LIC_KEY_UNTRUSTED"
    foreign = replace(license, bundles=(BundleGrant("acme/tiny"), BundleGrant("other/tiny")))
    assert code_of(open_license, sealed(foreign), TRUST) == "LIC_KEY_UNTRUSTED"
    assert code_of(open_license, sealed(replace(license, issuer="Other")), TRUST) == "LIC_KEY_UNTRUSTED"
    good = sealed(license)
    forged = replace(good, payload=good.payload.replace(b'"seq":1', b'"seq":2'))
    assert code_of(open_license, forged, TRUST) == "LIC_SIG_INVALID"
    assert code_of(open_license, replace(good, signatures=good.signatures * 2), TRUST) == "LIC_UNREADABLE"
    revoked = world.make_trust(keys=[{"keyid": world.LICENSER.keyid, "good": []}])
    assert code_of(open_license, good, revoked) == "KEY_REVOKED"
    kept = world.make_trust(keys=[{"keyid": world.LICENSER.keyid, "good": [good.digest]}])
    assert open_license(good, kept) == license


def test_another_issuers_license_key_is_not_ours() -> None:
    """Two vendors in one keyring: each licenses its own namespace only."""
    entries = [
        world.key_entry(world.LICENSER, ["license"]),
        world.key_entry(world.STRANGER, ["license"], ["beta"]) | {"issuer": "Beta (test)"},
    ]
    trust = Trust.from_envelopes(world.make_root(), world.make_keyring(1, entries), world.make_revocations())
    assert open_license(sealed(make_license()), trust).license_id == "L-1"
    theirs = make_license(issuer="Beta (test)", bundles=(BundleGrant("beta/x"),))
    assert open_license(sealed(theirs, world.STRANGER), trust).issuer == "Beta (test)"
    ours = replace(theirs, bundles=(BundleGrant("acme/tiny"),))
    assert code_of(open_license, sealed(ours, world.STRANGER), trust) == "LIC_KEY_UNTRUSTED"


@pytest.mark.parametrize(
    "members",
    [
        {"exp": world.T0, "nbf": world.T0},
        {"exp": world.T0, "term_s": 5},
        {"seq": 0},
        {"seq": -1},
        {"nbf": -1},
        {"grace_s": -1},
        {"customer": {"id": "x y", "name": "n"}},
        {"bundles": [{"id": "Acme"}]},
        {"bundles": [{"id": "acme/a", "min_version": "1.x"}]},
        {"billing": "free"},
        {"devices": {"binding": "none", "max": -1}},
        {"devices": {"binding": "dongle"}},
        {
            "quota": [
                {
                    "meter": "calls",
                    "window": "day",
                    "scope": "device",
                    "cap": 5,
                    "hard_cap": 4,
                    "on_exceed": "bill",
                }
            ]
        },
        {"quota": [{"meter": "watts", "window": "day", "scope": "device", "cap": 5, "on_exceed": "bill"}]},
        {"quota": [{"meter": "calls", "window": "week", "scope": "device", "cap": 5, "on_exceed": "bill"}]},
        {"limits": {"qps": -1}},
        {"lease": {"required": 1}},
        {"use": {}},
        {"license_id": "../x"},
        {"tier": 5},
    ],
)
def test_what_makes_no_sense(members: dict[str, Any]) -> None:
    assert code_of(open_license, sealed(make_license(), **members), TRUST) == "LIC_SCHEMA"


def test_critical_names_nobody_knows() -> None:
    assert code_of(open_license, sealed(make_license(), crit=["escrow"], escrow=1), TRUST) == "DOC_CRIT"
    assert open_license(sealed(make_license(), escrow=1), TRUST) == make_license()


# --- activation -----------------------------------------------------------------------------------------


def request(key: PrivateKey = DEVICE, **members: Any) -> documents.Envelope:
    made = ActivationRequest(DEVICE.public, NONCE, world.T0, TRUST.root_digest, "0.2.0", "ward 3", "L-1")
    return documents.seal("activation-request", made.to_dict() | members, key)


def test_a_request_proves_its_own_key() -> None:
    opened = ActivationRequest.open(request())
    assert (opened.device_id, opened.nonce, opened.digest) == (DEVICE_ID, NONCE, request().digest)
    assert code_of(ActivationRequest.open, request(PrivateKey.from_seed(b"x" * 32))) == "SIG_INVALID"
    assert code_of(ActivationRequest.open, request(device_key=world.CREATOR.public.pem)) == "DOC_SCHEMA"
    assert code_of(ActivationRequest.open, request(device_key="x")) == "KEY_MALFORMED"
    assert code_of(ActivationRequest.open, request(nonce="0" * 31)) == "DOC_SCHEMA"
    assert code_of(ActivationRequest.open, request(crit=["tpm"])) == "DOC_CRIT"


def test_a_request_carries_the_key_that_weights_are_wrapped_for() -> None:
    key = HybridPrivateKey.from_seed(b"sealpack-test-hybrid-key-0000001").public
    made = replace(ActivationRequest.open(request()), hpke_key=key)
    opened = ActivationRequest.open(documents.seal("activation-request", made.to_dict(), DEVICE))
    assert opened.hpke_key == key and opened == made
    for faulty in ("", "AAAA", "no base64", 7, base64.b64encode(key.data + b"x").decode()):
        assert code_of(ActivationRequest.open, request(hpke_key=faulty)) == "DOC_SCHEMA"


def activation(**members: Any) -> documents.Envelope:
    made = Activation("L-1", "1" * 64, DEVICE_ID, DEVICE.public, "2" * 64, NONCE, world.T0)
    return documents.seal("activation", made.to_dict() | members, world.LICENSER)


def test_an_activation_is_for_one_device() -> None:
    opened = Activation.open(activation(), TRUST)
    assert opened.device_id == DEVICE_ID and opened.keys == ()
    other = PrivateKey.from_seed(b"y" * 32).public.pem
    assert code_of(Activation.open, activation(device_key=other), TRUST) == "DEVICE_MISMATCH"
    assert code_of(Activation.open, activation(device_key=world.CREATOR.public.pem), TRUST) == "KEY_MALFORMED"
    self_signed = documents.seal("activation", canonical.loads(activation().payload), DEVICE)
    assert code_of(Activation.open, self_signed, TRUST) == "SIG_KEY_UNKNOWN"


def test_wrapped_keys_come_with_an_activation() -> None:
    wrapped = WrappedKey("3" * 64, bytes(WRAPPED_SIZE))
    made = replace(Activation.open(activation(), TRUST), keys=(wrapped,))
    again = Activation.open(documents.seal("activation", made.to_dict(), world.LICENSER), TRUST)
    assert again == made
    short = wrapped.to_dict() | {"enc_ct": "AAAA"}
    for faulty in ([short], [wrapped.to_dict()] * 2, [{}], "x"):
        assert code_of(Activation.open, activation(keys=faulty), TRUST) == "DOC_SCHEMA"


# --- leases ---------------------------------------------------------------------------------------------


def test_leases_come_from_the_issuer_or_from_settlement() -> None:
    lease = Lease("L-1", DEVICE_ID, 0, 1, world.T0, world.T0 + 60, (Ceiling("calls", 5),))
    for key in (world.LICENSER, world.SETTLEMENT):
        assert Lease.open(documents.seal("lease", lease.to_dict(), key), TRUST) == lease
    for key, code in ((world.CREATOR, "SIG_KEY_ROLE"), (DEVICE, "SIG_KEY_UNKNOWN")):
        assert code_of(Lease.open, documents.seal("lease", lease.to_dict(), key), TRUST) == code


def test_a_license_wide_quota_is_a_partition() -> None:
    """The shares of all devices together never exceed the cap."""
    quota = Quota("calls", "term", "license", 1000, None, "deny")
    for devices in (1, 3, 7, 1000, 1001):
        share = device_share(quota, devices)
        assert share is not None and share * devices <= 1000
    assert device_share(replace(quota, window="day"), 3) is None
    assert device_share(replace(quota, on_exceed="warn"), 3) is None
    assert device_share(replace(quota, on_exceed="bill"), 3) is None
    assert device_share(replace(quota, on_exceed="bill", hard_cap=1300), 2) == 650
    assert device_share(replace(quota, scope="device"), 5) == 1000


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_ceilings_are_absolute_and_only_grow_with_what_is_settled(settled: int, more: int) -> None:
    license = make_license(
        lease=LeaseTerms(True, 60, allowance=(Allowance("calls", 100),)), devices=Devices("key", 1)
    )
    (first,) = ceilings(license, {"calls": settled})
    (second,) = ceilings(license, {"calls": settled + more})
    assert (first.limit, second.limit) == (settled + 100, settled + more + 100)
    assert next_lease(license, DEVICE_ID, 0, 2, world.T0, {"calls": settled}).ceilings == (first,)


def test_a_term_quota_caps_the_allowance_and_a_daily_one_says_nothing_of_a_lease() -> None:
    license = make_license(
        lease=LeaseTerms(True, 60, allowance=(Allowance("calls", 100), Allowance("ms", 7))),
        quota=(
            Quota("calls", "term", "device", 150, None, "deny"),
            Quota("ms", "day", "device", 1, None, "deny"),
            Quota("items", "term", "device", 9, None, "deny"),
        ),
    )
    given = {c.meter: c.limit for c in ceilings(license, {"calls": 120, "ms": 5})}
    assert given == {"calls": 150, "ms": 12, "items": 9}
    assert {c.meter: c.limit for c in ceilings(license, {"calls": 20})}["calls"] == 120


def test_names_of_devices_and_logs() -> None:
    assert DEVICE_ID.startswith("dev-") and len(DEVICE_ID) == 36
    assert log_origin("L-1", DEVICE_ID, 3) == f"sealpack/usage/L-1/{DEVICE_ID}/3"
