"""Admission, pure: the order in which refusals are told, the edges of each limit, and the words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support import world
from support.site import T0, make_license

from sealpack.format.activation import Activation, Ceiling, Lease
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, LeaseTerms, License, Quota, Rate
from sealpack.format.trust import Revocations
from sealpack.runtime.admission import Build, Facts, Load, Verdict, admit, check_standing
from sealpack.runtime.clock import Times

DEVICE = "dev-" + "0" * 32
DIGEST = "ab" * 32
BUILD = Build("acme/tiny", "1.0.0", DIGEST, 3, world.CREATOR.keyid, "cd" * 32, T0)
DAY = 86_400
WANT = {"calls": 1, "tok_in": 5, "tok_out": 100, "items": 1}


def at(seconds: int) -> Times:
    return Times(seconds * 1000, seconds * 1000, 0)


def activation(device: str = DEVICE) -> Activation:
    return Activation("L-1", "00" * 32, device, world.SETTLEMENT.public, "00" * 32, "00" * 16, T0)


def lists(**members: Any) -> Revocations:
    return world.make_trust(**members).revocations


def facts(license: License | None = None, **members: Any) -> Facts:
    default = Facts(license or make_license(), activation(), None, lists(), DEVICE, BUILD, at(T0 + DAY))
    return replace(default, **members)


def code(found: Facts) -> str:
    with pytest.raises(SealpackError) as caught:
        admit(found, WANT)
    return caught.value.code


# Every fault at once; the list is in the documented order. Fixing the first reveals the next.
FAULTY = facts(
    make_license(
        bundles=(),
        nbf=T0 + 9 * DAY,
        lease=LeaseTerms(required=True, on_stale="deny"),
        use=replace(make_license().use, ack_required=True),
        limits=Rate(qps=1, processes=1, inflight=1),
        quota=(Quota("calls", "day", "device", 0, None, "deny"),),
    ),
    activation=None,
    revocations=lists(bundles=[DIGEST]),
    times=Times(T0 * 1000, None, 0),
    load=Load(inflight=1, processes=2, bucket=0),
)


def fixed(found: Facts, **license: Any) -> Facts:
    return replace(found, license=replace(found.license, **license))


FIXES = [
    ("BUNDLE_MISMATCH", lambda f: fixed(f, bundles=make_license().bundles)),
    ("BUNDLE_REVOKED", lambda f: replace(f, revocations=lists())),
    ("NOT_ACTIVATED", lambda f: replace(f, activation=activation())),
    ("CLOCK_UNREADABLE", lambda f: replace(f, times=at(T0))),
    ("LIC_NOT_YET_VALID", lambda f: fixed(f, nbf=0)),
    ("LEASE_STALE", lambda f: fixed(f, lease=LeaseTerms())),
    ("TERMS_NOT_ACCEPTED", lambda f: replace(f, terms_accepted=True)),
    ("RATE_LIMITED", lambda f: replace(f, load=replace(f.load, bucket=1000))),
    ("PROCESS_LIMIT", lambda f: replace(f, load=replace(f.load, processes=1))),
    ("CONCURRENCY_LIMIT", lambda f: replace(f, load=replace(f.load, inflight=0))),
    ("QUOTA_EXCEEDED", lambda f: fixed(f, quota=())),
]


def test_the_first_failure_wins_in_the_documented_order() -> None:
    found = FAULTY
    for expected, fix in FIXES:
        assert code(found) == expected
        found = fix(found)
    assert admit(found, WANT) == Verdict()


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"revocations": lists(floors=[{"bundle_id": "acme/tiny", "floor": 4}])}, "BUNDLE_FLOOR"),
        ({"revocations": lists(licenses=["L-1"])}, "LIC_REVOKED"),
        ({"revocations": lists(devices=[DEVICE])}, "DEVICE_REVOKED"),
        ({"revocations": lists(keys=[{"keyid": BUILD.signer, "good": []}])}, "KEY_REVOKED"),
        ({"activation": activation("dev-" + "1" * 32)}, "DEVICE_MISMATCH"),
        ({"license": make_license(devices=Devices("key", vm=False)), "virtual_machine": "QEMU"}, "VM_DENIED"),
        (
            {"license": make_license(devices=Devices("key", container=False)), "container": "/.dockerenv"},
            "CONTAINER_DENIED",
        ),
        ({"build": replace(BUILD, license_id="L-2")}, "BUNDLE_MISMATCH"),
        ({"lease": Lease("L-1", "dev-" + "1" * 32, 0, 1, T0, None, ())}, "LEASE_MISMATCH"),
        ({"lease": Lease("L-1", DEVICE, 4, 1, T0, None, ())}, "EPOCH_MISMATCH"),
    ],
)
def test_each_refusal_has_its_code(members: dict[str, Any], expected: str) -> None:
    assert code(facts(**members)) == expected


def test_a_revoked_key_still_vouches_for_what_is_listed() -> None:
    good = lists(keys=[{"keyid": BUILD.signer, "good": [BUILD.signed_digest]}])
    assert admit(facts(revocations=good), WANT) == Verdict()


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        (T0 + 6 * DAY, None),
        (T0 + 10 * DAY - 1, "warning"),
        (T0 + 10 * DAY, "warning"),
        (T0 + 13 * DAY - 1, "warning"),
        (T0 + 13 * DAY, "LIC_EXPIRED"),
    ],
)
def test_the_end_and_the_grace_are_exact(now: int, outcome: str | None) -> None:
    found = facts(make_license(exp=T0 + 10 * DAY, grace_s=3 * DAY), times=at(now))
    if outcome == "LIC_EXPIRED":
        assert code(found) == outcome
    else:
        assert [w.code for w in check_standing(found).warnings] == (["LIC_EXPIRED"] if outcome else [])


def test_a_term_runs_from_the_first_start() -> None:
    license = make_license(term_s=30 * DAY)
    assert check_standing(facts(license, times=at(T0 + 900 * DAY))) == Verdict()
    started = facts(license, started=T0 * 1000, times=at(T0 + 30 * DAY))
    assert code(started) == "LIC_EXPIRED"


@pytest.mark.parametrize(("on_stale", "outcome"), [("deny", "LEASE_STALE"), ("throttle", 1000), ("warn", 0)])
def test_a_stale_lease_does_what_the_license_says(on_stale: str, outcome: object) -> None:
    terms = LeaseTerms(required=True, max_age_s=45 * DAY, on_stale=on_stale)
    lease = Lease("L-1", DEVICE, 0, 1, T0, None, ())
    found = facts(make_license(lease=terms), lease=lease, times=at(T0 + 45 * DAY))
    if on_stale == "deny":
        assert code(found) == outcome
    else:
        verdict = admit(found, WANT)
        assert (verdict.delay_ms, [w.code for w in verdict.warnings]) == (outcome, ["LEASE_STALE"])


def test_a_lease_warns_before_it_ends() -> None:
    terms = LeaseTerms(required=True, max_age_s=45 * DAY, warn_s=7 * DAY, on_stale="deny")
    found = facts(make_license(lease=terms), lease=Lease("L-1", DEVICE, 0, 1, T0, None, ()))
    assert check_standing(replace(found, times=at(T0 + 37 * DAY))) == Verdict()
    (warning,) = check_standing(replace(found, times=at(T0 + 38 * DAY))).warnings
    assert "sealpack sync" in warning.message


def quota(on_exceed: str, hard: int | None = None, meter: str = "tok_out") -> License:
    return make_license(quota=(Quota(meter, "month", "device", 1000, hard, on_exceed),))


PERIOD = ("month:2026-09", "tok_out")


@pytest.mark.parametrize(
    ("license", "used", "outcome"),
    [
        (quota("deny"), 800, Verdict()),
        (quota("deny"), 900, 0),
        (quota("deny"), 901, "QUOTA_EXCEEDED"),
        (quota("bill", 1250), 901, 0),
        (quota("bill", 1250), 1150, 0),
        (quota("bill", 1250), 1151, "HARD_CAP"),
        (quota("throttle"), 901, 1000),
        (quota("warn"), 99_999, 0),
        (quota("deny", meter="ms"), 899, Verdict()),
        (quota("deny", meter="ms"), 999, 0),
        (quota("deny", meter="ms"), 1000, "QUOTA_EXCEEDED"),
    ],
)
def test_quota_edges(license: License, used: int, outcome: object) -> None:
    meter = license.quota[0].meter
    found = facts(license, used={("month:2026-09", meter): used})
    if isinstance(outcome, str):
        assert code(found) == outcome
    elif isinstance(outcome, Verdict):
        assert admit(found, WANT) == outcome
    else:
        verdict = admit(found, WANT)
        assert (verdict.delay_ms, len(verdict.warnings)) == (outcome, 1)


def test_a_quota_refusal_says_how_much_is_left_when_it_renews_and_whom_to_call() -> None:
    with pytest.raises(SealpackError) as caught:
        admit(facts(quota("deny"), used={PERIOD: 950}), WANT)
    assert caught.value.message == (
        "950 of 1,000 output tokens are used this month (UTC); this call needs up to 100, 50 left"
    )
    assert caught.value.remedy == (
        "ask for at most 50 tokens, or wait until 2026-10-01 00:00 UTC, or ask the vendor for more; "
        "support: help@acme.example"
    )


def test_the_lower_of_license_and_lease_counts() -> None:
    lease = Lease("L-1", DEVICE, 0, 1, T0, None, (Ceiling("tok_out", 500, DIGEST), Ceiling("calls", 10**9)))
    found = facts(quota("warn"), lease=lease, used={(f"bundle:{DIGEST}", "tok_out"): 401})
    with pytest.raises(SealpackError) as caught:
        admit(found, WANT)
    assert caught.value.code == "UNSETTLED_LIMIT"
    assert "until usage is settled" in caught.value.message
    assert "sealpack sync" in caught.value.remedy
    other = replace(found, build=replace(BUILD, bundle_digest="ef" * 32))
    assert admit(other, WANT) == Verdict()


def test_advisory_turns_dates_lease_clock_and_quota_into_warnings_and_nothing_else() -> None:
    license = make_license(
        enforcement="advisory",
        exp=T0 + 1,
        lease=LeaseTerms(required=True, on_stale="deny"),
        quota=(Quota("calls", "day", "device", 0, None, "deny"),),
    )
    found = facts(license)
    assert {w.code for w in admit(found, WANT).warnings} == {"LIC_EXPIRED", "LEASE_STALE", "QUOTA_EXCEEDED"}
    unreadable = replace(found, times=Times(T0 * 1000, None, 0))
    assert "CLOCK_UNREADABLE" in {w.code for w in admit(unreadable, WANT).warnings}
    assert code(replace(found, revocations=lists(licenses=["L-1"]))) == "LIC_REVOKED"


@given(
    used=st.integers(0, 2000),
    need=st.integers(0, 2000),
    cap=st.integers(0, 2000),
    hard=st.none() | st.integers(0, 2000),
)
def test_an_admitted_call_never_passes_a_denying_cap(
    used: int, need: int, cap: int, hard: int | None
) -> None:
    bound = hard if hard is not None and hard >= cap else None
    license = make_license(quota=(Quota("items", "term", "device", cap, bound, "deny"),))
    found = facts(license, used={("term", "items"): used})
    want = {"calls": 1, "items": need}
    if used + need <= cap:
        near = (cap - used - need) * 10 < cap
        assert [w.code for w in admit(found, want).warnings] == ["QUOTA_EXCEEDED"] * near
    else:
        with pytest.raises(SealpackError):
            admit(found, want)


def test_calls_do_not_stop_without_a_warning() -> None:
    """Below a tenth of what may be used every call says what is left, and what to do about it."""

    def told(license: License, used: int, lease: Lease | None = None) -> list[tuple[str, str]]:
        found = facts(license, used={("term", "calls"): used, ("month:2026-09", "calls"): used}, lease=lease)
        return [(w.code, w.message) for w in admit(found, WANT).warnings]

    month = make_license(quota=(Quota("calls", "month", "device", 100, None, "deny"),))
    assert told(month, 89) == []
    assert told(month, 90) == [
        ("QUOTA_EXCEEDED", "9 of 100 calls left this month (UTC): ask the vendor for more")
    ]
    day = make_license(quota=(Quota("calls", "day", "device", 100, None, "deny"),))
    assert told(day, 99) == [], "it renews by itself"
    lease = Lease("L-1", DEVICE, 0, 1, T0, None, (Ceiling("calls", 100),))
    ((code, message),) = told(make_license(), 99, lease)
    assert (code, message[:46]) == ("UNSETTLED_LIMIT", "0 of 100 calls left until usage is settled: ru")
    warns = make_license(lease=LeaseTerms(required=True, on_stale="warn"))
    assert told(warns, 99, lease) == [], "nothing stops there"
    part = make_license(
        quota=(Quota("calls", "term", "license", 200, None, "deny"),), devices=Devices("key", 2)
    )
    assert told(part, 99, lease) == [
        ("QUOTA_EXCEEDED", "0 of 100 calls left as this machine's part: ask the vendor for more")
    ]


def test_a_refusal_says_which_clock_to_look_at() -> None:
    license = make_license(exp=T0 + 86_400)
    ahead = facts(license, times=Times(T0 * 1000, (T0 + 10**8) * 1000, 10**11))
    with pytest.raises(SealpackError) as caught:
        admit(ahead, WANT)
    assert caught.value.remedy.startswith("if the system clock is wrong, set it: it is 1,157 days ahead")
    behind = facts(license, times=Times((T0 + 10**8) * 1000, (T0 + 10**8) * 1000, -(10**11)))
    with pytest.raises(SealpackError) as caught:
        admit(behind, WANT)
    assert caught.value.remedy.startswith(
        "the system clock is 1,157 days behind known time: if it is right, send"
    )
    assert "ask for a repair file; else ask the vendor" in caught.value.remedy
