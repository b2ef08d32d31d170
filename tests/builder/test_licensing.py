"""Licenses: what each preset gives, activation, seats, days, and the registry."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import T0
from support.world import ISSUER, LICENSER, STRANGER, make_trust

from sealpack.builder import license_files, licensing
from sealpack.builder.licensing import Issuer, Offer
from sealpack.builder.presets import DAY, PRESETS
from sealpack.format import documents
from sealpack.format.activation import Activation, ActivationRequest, Lease
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import BundleGrant, Customer, License, PlanRef, Quota, open_license
from sealpack.format.registry import RegistryLine
from sealpack.format.terms import Terms
from sealpack.format.trust import Trust

TRUST = make_trust()
WHO = Issuer(LICENSER, TRUST)
TERMS = Terms("MIT", "license/LICENSE.txt", "0" * 64, deny=("resale",), plan=PlanRef("edge", 1))
OFFER = Offer(
    preset="pro",
    license_id="L-1",
    customer=Customer("nord", "Hospital Nord"),
    grants=(BundleGrant("acme/x"),),
    terms=TERMS,
    ends=T0 + 365 * DAY,
)


def request(number: int, trust: Trust = TRUST, **members: Any) -> ActivationRequest:
    key = PrivateKey.from_seed(bytes([number]) * 32)
    made = ActivationRequest(key.public, "ab" * 16, T0, trust.root_digest, "test", **members)
    return ActivationRequest.open(documents.seal("activation-request", made.to_dict(), key))


def drafted(**members: Any) -> License:
    return licensing.draft(replace(OFFER, **members), ISSUER, T0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_license_that_opens(name: str) -> None:
    base = PRESETS[name]
    ends = T0 + 365 * DAY if base.term in ("year", "contract") else None
    issued = licensing.issue(drafted(preset=name, ends=ends), WHO)
    opened = open_license(issued.envelope, TRUST)
    assert opened.tier == name
    assert (opened.devices.binding, opened.grace_s) == (base.binding, base.grace_s)
    assert (opened.exp is None) == (ends is None)
    assert opened.term_s == base.term_s
    assert opened.use.terms_digest == TERMS.digest
    assert "resale" in opened.use.deny
    assert opened.plan == PlanRef("edge", 1)


def test_the_table_of_presets() -> None:
    """The figures of the specification's table, one by one."""
    assert PRESETS["free_dev"].quota == (Quota("calls", "day", "device", 1000, None, "deny"),)
    assert PRESETS["free_dev"].term_s == 30 * DAY
    assert (PRESETS["free_dev"].limits.qps, PRESETS["free_dev"].limits.burst) == (1, 2)
    assert PRESETS["academic"].quota == (Quota("calls", "month", "device", 100_000, None, "throttle"),)
    assert (PRESETS["academic"].devices, PRESETS["academic"].grace_s) == (10, 30 * DAY)
    assert (PRESETS["pro"].binding, PRESETS["pro"].devices) == ("key+fp", 2)
    assert PRESETS["pro"].lease.max_age_s == 45 * DAY
    assert PRESETS["commercial"].lease.max_age_s == 90 * DAY
    assert PRESETS["enterprise"].lease.max_age_s == 400 * DAY
    assert not any(PRESETS[n].lease.required for n in ("open_source", "free_dev", "academic"))


def test_what_is_given_replaces_the_preset() -> None:
    quota = (Quota("tok_out", "month", "device", 5, None, "warn"),)
    got = drafted(quota=quota, binding="key", devices=7, grace_s=0, plan=PlanRef("other", 2))
    assert (got.quota, got.devices.binding, got.devices.max) == (quota, "key", 7)
    assert (got.grace_s, got.plan) == (0, PlanRef("other", 2))
    short = drafted(preset="free_dev", ends=None, term_s=3 * DAY)
    assert (short.term_s, short.exp) == (3 * DAY, None)
    dated = drafted(preset="free_dev", ends=T0 + DAY)
    assert (dated.term_s, dated.exp) == (None, T0 + DAY)


@pytest.mark.parametrize(
    "members",
    [
        {"preset": "gold"},
        {"preset": "enterprise", "ends": None},
        {"ends": T0 + DAY, "term_s": DAY},
        {"quota": (Quota("calls", "term", "license", 9, None, "deny"),), "preset": "enterprise"},
    ],
)
def test_offers_that_make_no_sense(members: dict[str, Any]) -> None:
    with pytest.raises(SealpackError) as caught:
        drafted(**members)
    assert caught.value.code == "USAGE"


def test_a_key_may_only_license_its_namespaces() -> None:
    with pytest.raises(SealpackError) as caught:
        licensing.issue(drafted(grants=(BundleGrant("globex/x"),)), WHO)
    assert caught.value.code == "LIC_KEY_UNTRUSTED"
    with pytest.raises(SealpackError) as caught:
        licensing.issue(drafted(), Issuer(STRANGER, TRUST))
    assert caught.value.code == "LIC_KEY_UNTRUSTED"


def test_activation_binds_device_request_and_license() -> None:
    issued = licensing.issue(drafted(), WHO)
    asked = request(1, device_label="ward-3")
    got = licensing.activate(issued, WHO, asked, now=T0 + 5)
    assert got.activation is not None
    assert got.lease is not None
    activation = Activation.open(got.activation, TRUST)
    assert (activation.request_digest, activation.nonce) == (asked.digest, asked.nonce)
    assert (activation.license_digest, activation.device_id) == (issued.license.digest, asked.device_id)
    lease = Lease.open(got.lease, TRUST)
    assert (lease.expires, lease.epoch, lease.ceilings) == (T0 + 5 + 45 * DAY, 0, ())
    kinds = [documents.kind_of(e) for e in got.parcel(TRUST).documents]
    assert kinds == ["root", "keyring", "revocations", "license", "activation", "lease"]
    assert Parcel.from_bytes(got.parcel(TRUST).to_bytes()) == got.parcel(TRUST)


def test_license_wide_quota_is_shared_out_in_absolute_parts() -> None:
    quota = (Quota("calls", "term", "license", 1001, None, "deny"),)
    issued = licensing.issue(drafted(quota=quota, devices=4), WHO)
    lines: list[RegistryLine] = []
    limits = []
    for number in range(1, 5):
        got = licensing.activate(issued, WHO, request(number), now=T0, lines=lines)
        assert got.lease is not None
        limits += [c.limit for c in Lease.open(got.lease, TRUST).ceilings]
        lines.append(got.line())
    assert limits == [250] * 4
    assert sum(limits) <= 1001


def test_seats_are_counted_by_device() -> None:
    issued = licensing.issue(drafted(devices=2), WHO)
    lines = [licensing.activate(issued, WHO, request(n), now=T0).line() for n in (1, 2)]
    licensing.activate(issued, WHO, request(2), now=T0, lines=lines)  # the same device again
    with pytest.raises(SealpackError) as caught:
        licensing.activate(issued, WHO, request(3), now=T0, lines=lines)
    assert caught.value.code == "DEVICE_LIMIT"
    other = licensing.issue(drafted(license_id="L-2", devices=1), WHO)
    licensing.activate(other, WHO, request(3), now=T0, lines=lines)


def test_requests_for_something_else_are_refused() -> None:
    issued = licensing.issue(drafted(), WHO)
    with pytest.raises(SealpackError) as caught:
        licensing.activate(issued, WHO, request(1, license_id="L-9"), now=T0)
    assert caught.value.code == "LEASE_MISMATCH"
    stranger = make_trust(licenses=["x"])
    assert stranger.root_digest == TRUST.root_digest  # the root alone decides
    other_root = replace(request(1), root_digest="0" * 64)
    with pytest.raises(SealpackError) as caught:
        licensing.activate(issued, WHO, other_root, now=T0)
    assert caught.value.code == "TRUST_INVALID"


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("calls=1000/day", Quota("calls", "day", "device", 1000, 1250, "bill")),
        ("calls=1000/day,deny", Quota("calls", "day", "device", 1000, None, "deny")),
        ("tok_out=5/term,license,warn", Quota("tok_out", "term", "license", 5, None, "warn")),
        ("ms=0/month,bill,hard=9", Quota("ms", "month", "device", 0, 9, "bill")),
    ],
)
def test_quotas_as_people_write_them(text: str, quota: Quota) -> None:
    assert licensing.parse_quota(text, PRESETS["pro"]) == quota


@pytest.mark.parametrize(
    "text",
    [
        "calls",
        "calls=1000",
        "calls=-1/day",
        "calls=1/week",
        "words=1/day",
        "calls=9/day,hard=8",
        "calls=1/day,x",
    ],
)
def test_quotas_that_are_none(text: str) -> None:
    with pytest.raises(SealpackError) as caught:
        licensing.parse_quota(text, PRESETS["pro"])
    assert caught.value.code == "USAGE"


def test_days_are_the_customers() -> None:
    berlin = licensing.zone("Europe/Berlin")
    spring = dt.date(2026, 3, 29)  # 23 hours long
    assert licensing.day_end(spring, berlin) - licensing.day_start(spring, berlin) == 23 * 3600
    assert licensing.day_end(dt.date(2026, 12, 31), berlin) == 1798758000
    leap = int(dt.datetime(2028, 2, 29, tzinfo=dt.UTC).timestamp())
    assert licensing.year_later(leap, licensing.zone("UTC")) == dt.date(2029, 2, 28)
    with pytest.raises(SealpackError):
        licensing.zone("Mars/Olympus")


def test_registry_keeps_every_line(tmp_path: Path) -> None:
    registry = tmp_path / "registry.jsonl"
    assert license_files.read_registry(registry) == ()
    for number in (1, 2):
        issued = licensing.issue(drafted(license_id=f"L-{number}"), WHO)
        out = tmp_path / f"{number}.license"
        license_files.deliver(out, issued.parcel(TRUST), registry, issued.line(), overwrite=False)
    lines = license_files.read_registry(registry)
    assert [open_license(line.license, TRUST).license_id for line in lines] == ["L-1", "L-2"]
    with pytest.raises(SealpackError) as caught:
        license_files.deliver(out, issued.parcel(TRUST), registry, issued.line(), overwrite=False)
    assert caught.value.code == "OUTPUT_EXISTS"
    assert len(license_files.read_registry(registry)) == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_what_a_revoked_key_signed_is_listed_as_such() -> None:
    issued = [licensing.issue(drafted(license_id=f"L-{n}", devices=2), WHO) for n in (1, 2, 3)]
    active = [licensing.activate(issued[0], WHO, request(n), now=T0) for n in (2, 1)]
    lines = [*(each.line() for each in active), issued[1].line(), issued[2].line()]

    def listed(trust: Trust) -> list[tuple[str, str | None, int]]:
        found = licensing.registered(lines, trust)
        return [(one.license.license_id, one.revoked, len(one.devices)) for one in found]

    assert listed(TRUST) == [("L-1", None, 2), ("L-2", None, 0), ("L-3", None, 0)]
    assert listed(make_trust(licenses=["L-2"]))[1] == ("L-2", "license", 0)
    good = [issued[0].envelope.digest, issued[1].envelope.digest, active[0].line().activation.digest]  # type: ignore[union-attr]
    revoked = make_trust(keys=[{"keyid": LICENSER.keyid, "good": sorted(good)}])
    assert listed(revoked) == [("L-1", None, 1), ("L-2", None, 0), ("L-3", "key", 0)]
    with pytest.raises(SealpackError) as caught:  # anything else that is wrong with a line is told
        licensing.registered([RegistryLine(documents.seal("license", drafted().to_dict(), STRANGER))], TRUST)
    assert caught.value.code == "LIC_KEY_UNTRUSTED"
    stranger = documents.seal("activation", {"license_id": "L-1"}, STRANGER)
    with pytest.raises(SealpackError) as caught:
        licensing.registered([RegistryLine(issued[0].envelope, stranger)], TRUST)
    assert caught.value.code == "SIG_KEY_UNKNOWN"


def test_a_seat_stays_taken_when_the_key_that_gave_it_was_revoked() -> None:
    """Under a new key the device asks again and keeps it; nobody else gets it meanwhile."""
    issued = licensing.issue(drafted(devices=1), WHO)
    lines = [licensing.activate(issued, WHO, request(1), now=T0).line()]
    revoked = make_trust(keys=[{"keyid": LICENSER.keyid, "good": [issued.envelope.digest]}])
    later = Issuer(LICENSER, revoked)
    with pytest.raises(SealpackError) as caught:
        licensing.activate(issued, later, request(2, revoked), now=T0, lines=lines)
    assert caught.value.code == "DEVICE_LIMIT"
    assert licensing.activate(issued, later, request(1, revoked), now=T0, lines=lines).device_id


def test_a_damaged_registry_names_its_line(tmp_path: Path) -> None:
    registry = tmp_path / "registry.jsonl"
    line = licensing.issue(drafted(), WHO).line().to_bytes()
    registry.write_bytes(line + b"\n" + line[:50] + b"\n")
    with pytest.raises(SealpackError, match="line 2") as caught:
        license_files.read_registry(registry)
    assert caught.value.code == "REGISTRY_INVALID"
