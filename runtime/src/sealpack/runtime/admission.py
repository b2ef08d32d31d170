"""May this call run? The checks, in the order their failures are told.

Source: specs/runtime-state.md, "Admission". Pure: everything a check needs is in :class:`Facts`. The
first failure wins. An advisory license never refuses for clock, dates, lease or quota: there a refusal
becomes a warning. Every message names the value and the limit, and the remedy the next step and whom
to call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sealpack.format.activation import Activation, Lease
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.license import License, Quota
from sealpack.format.trust import Revocations
from sealpack.runtime.clock import TOLERANCE_MS, Times
from sealpack.runtime.words import day, plural

THROTTLE_MS = 1000  # how long a throttled call waits
PERIOD_KINDS = ("day", "month", "term", "bundle")  # every call counts in one period of each kind
_DAY_MS = 86_400_000
_LAST_SECOND = 253_402_300_799  # of the year 9999; calendars know no later one


@dataclass(frozen=True, slots=True)
class Build:
    """The bundle the call wants to use."""

    bundle_id: str
    version: str
    bundle_digest: str
    release_index: int
    signer: str
    signed_digest: str
    signed_at: int
    license_id: str | None = None  # of a marked build: the one license that opens it


@dataclass(frozen=True, slots=True)
class Load:
    """What else is going on under this license right now."""

    inflight: int = 0
    processes: int = 1
    bucket: int | None = None  # thousandths of a call that may start now; None without a limit


@dataclass(frozen=True, slots=True)
class Facts:
    """All that admission looks at. `used` maps (period, meter) to used plus reserved."""

    license: License
    activation: Activation | None
    lease: Lease | None
    revocations: Revocations
    device_id: str
    build: Build
    times: Times
    epoch: int = 0
    started: int | None = None  # ms, the first admitted call under this license
    terms_accepted: bool = False
    virtual_machine: bool = False
    container: bool = False
    load: Load = Load()
    used: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Warning:
    """Something a person should know although the call may run."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The call may run, after waiting `delay_ms`."""

    warnings: tuple[Warning, ...] = ()
    delay_ms: int = 0


def admit(facts: Facts, want: Mapping[str, int]) -> Verdict:
    """Check everything for a call that uses at most `want` (meter -> units); raises the first refusal."""
    standing = check_standing(facts)
    _check_rate(facts)
    quota = _soften(facts, lambda: _check_quota(facts, want))
    return Verdict(standing.warnings + quota.warnings, max(standing.delay_ms, quota.delay_ms))


def check_standing(facts: Facts) -> Verdict:
    """The checks that do not depend on load or on the size of a call, for opening and for status."""
    _check_document(facts)
    _check_revocation(facts)
    _check_device(facts)
    clock = _soften(facts, lambda: _check_clock(facts))
    dates = _soften(facts, lambda: _check_dates(facts))
    lease = _soften(facts, lambda: _check_lease(facts))
    _check_terms(facts)
    return Verdict(clock.warnings + dates.warnings + lease.warnings, lease.delay_ms)


def _soften(facts: Facts, check: Callable[[], Verdict]) -> Verdict:
    try:
        return check()
    except SealpackError as error:
        if facts.license.enforcement != "advisory":
            raise
        return Verdict((Warning(error.code, error.message),))


def refuse(facts: Facts, code: str, message: str, remedy: str | None = None) -> SealpackError:
    """A refusal with the license's support contact in its remedy."""
    step = remedy or CODES[code].remedy
    support = facts.license.support
    contact = f"{step}; support: {support}" if support else step
    return SealpackError(code, message, remedy=contact, license_id=facts.license.license_id)


def _check_document(facts: Facts) -> None:
    license, build = facts.license, facts.build
    if not license.covers(build.bundle_id, build.version, build.bundle_digest):
        raise refuse(facts, "BUNDLE_MISMATCH", f"license {license.license_id} does not cover {_named(build)}")
    if build.license_id not in (None, license.license_id):
        raise refuse(
            facts,
            "BUNDLE_MISMATCH",
            f"{_named(build)} was made for license {build.license_id}, not {license.license_id}",
        )


def _named(build: Build) -> str:
    return f"{build.bundle_id} {build.version}"


def _check_revocation(facts: Facts) -> None:
    lists, build, license = facts.revocations, facts.build, facts.license
    good = lists.keys.get(build.signer)
    if good is not None and build.signed_digest not in good:
        raise refuse(facts, "KEY_REVOKED", f"the key that signed {_named(build)} was revoked")
    if build.bundle_digest in lists.bundles:
        raise refuse(facts, "BUNDLE_REVOKED", f"{_named(build)} was withdrawn")
    floor = lists.floors.get(build.bundle_id, 0)
    if build.release_index < floor:
        raise refuse(
            facts, "BUNDLE_FLOOR", f"{_named(build)} is release {build.release_index}, the least is {floor}"
        )
    if license.license_id in lists.licenses:
        raise refuse(facts, "LIC_REVOKED", f"license {license.license_id} was revoked")
    if facts.device_id in lists.devices:
        raise refuse(facts, "DEVICE_REVOKED", f"device {facts.device_id} was revoked")


def _check_device(facts: Facts) -> None:
    devices, activation = facts.license.devices, facts.activation
    if devices.binding != "none":
        if activation is None:
            raise refuse(facts, "NOT_ACTIVATED", f"license {facts.license.license_id} has no activation here")
        if activation.device_id != facts.device_id:
            raise refuse(
                facts,
                "DEVICE_MISMATCH",
                f"license is for device {activation.device_id}, this is {facts.device_id}",
            )
    if facts.virtual_machine and not devices.vm:
        raise refuse(facts, "VM_DENIED", "the license does not allow virtual machines")
    if facts.container and not devices.container:
        raise refuse(facts, "CONTAINER_DENIED", "the license does not allow containers")


def _check_clock(facts: Facts) -> Verdict:
    if facts.times.expiry is None:
        raise refuse(facts, "CLOCK_UNREADABLE", "the system clock gives no usable time")
    behind = -facts.times.skew
    if behind <= TOLERANCE_MS:
        return Verdict()
    return Verdict((Warning("CLOCK_BACK", f"the clock is {behind // 3_600_000} hours behind known time"),))


def _check_dates(facts: Facts) -> Verdict:
    license = facts.license
    if facts.times.soft < license.nbf * 1000:
        raise refuse(facts, "LIC_NOT_YET_VALID", f"license is valid from {day(license.nbf)}")
    ends = end_of(license, facts.started)
    if ends is not None and facts.times.expiry is not None:
        late = facts.times.expiry - ends * 1000
        if late >= license.grace_s * 1000:
            grace = f" and {license.grace_s // 86400} days of grace" if license.grace_s else ""
            now = day(facts.times.expiry // 1000)
            raise refuse(facts, "LIC_EXPIRED", f"license ended {day(ends)}{grace}, it is {now} now")
        if late >= 0:
            until = day(ends + license.grace_s)
            return Verdict((Warning("LIC_EXPIRED", f"license ended {day(ends)}; grace until {until}"),))
    if license.updates_until is not None and facts.build.signed_at > license.updates_until:
        raise refuse(
            facts,
            "UPDATE_NOT_COVERED",
            f"{_named(facts.build)} is of {day(facts.build.signed_at)}, updates are covered until "
            f"{day(license.updates_until)}",
        )
    return Verdict()


def end_of(license: License, started: int | None) -> int | None:
    """When the license ends, Unix seconds; a term runs from the first start (`started`, ms)."""
    if license.term_s is not None and started is not None:
        return started // 1000 + license.term_s
    return license.exp


def _check_lease(facts: Facts) -> Verdict:
    terms, lease = facts.license.lease, facts.lease
    if lease is not None:
        _check_lease_address(facts, lease)
    if not terms.required:
        return Verdict()
    carry = "run `sealpack sync DIR`, send the files to the vendor, and sync again with the reply"
    if lease is None:
        raise refuse(facts, "LEASE_STALE", "the license needs a lease and none is installed", carry)
    ends = lease_end(facts.license, lease)
    if ends is None or facts.times.expiry is None:
        return Verdict()
    left = ends - facts.times.expiry // 1000
    if left <= 0:
        message = f"usage was due to be settled by {day(ends)}"
        if terms.on_stale == "deny":
            raise refuse(facts, "LEASE_STALE", message, carry)
        wait = THROTTLE_MS if terms.on_stale == "throttle" else 0
        return Verdict((Warning("LEASE_STALE", message),), wait)
    if terms.warn_s is not None and left <= terms.warn_s:
        return Verdict((Warning("LEASE_STALE", f"settle usage by {day(ends)}: {carry}"),))
    return Verdict()


def _check_lease_address(facts: Facts, lease: Lease) -> None:
    if (lease.device_id, lease.license_id) != (facts.device_id, facts.license.license_id):
        raise refuse(facts, "LEASE_MISMATCH", f"lease is for {lease.license_id} on {lease.device_id}")
    if lease.epoch != facts.epoch:
        raise refuse(
            facts, "EPOCH_MISMATCH", f"lease is for epoch {lease.epoch}, the log is epoch {facts.epoch}"
        )


def lease_end(license: License, lease: Lease) -> int | None:
    """When usage must be settled, Unix seconds: the lease's own end or the license's age limit."""
    limits = [lease.expires]
    if license.lease.max_age_s is not None:
        limits.append(lease.issued_at + license.lease.max_age_s)
    return min((limit for limit in limits if limit is not None), default=None)


def _check_terms(facts: Facts) -> None:
    if facts.license.use.ack_required and not facts.terms_accepted:
        raise refuse(
            facts,
            "TERMS_NOT_ACCEPTED",
            f"the terms of license {facts.license.license_id} were not accepted yet",
            f"run `sealpack terms show {facts.build.bundle_id}`, then `sealpack terms accept`",
        )


def _check_rate(facts: Facts) -> None:
    limits, load = facts.license.limits, facts.load
    if limits.qps is not None and load.bucket is not None and load.bucket < 1000:
        rate = f"the license allows {plural(limits.qps, 'call')} per second"
        wait = f"; try again in {-(-(1000 - load.bucket) // limits.qps)} ms" if limits.qps else ""
        raise refuse(facts, "RATE_LIMITED", rate + wait)
    if limits.processes is not None and load.processes > limits.processes:
        running = plural(load.processes, "process", "processes")
        raise refuse(
            facts, "PROCESS_LIMIT", f"{running} running under this license, {limits.processes} allowed"
        )
    if limits.inflight is not None and load.inflight >= limits.inflight:
        running = plural(load.inflight, "call")
        raise refuse(facts, "CONCURRENCY_LIMIT", f"{running} running already, {limits.inflight} allowed")


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound on a counter: from a quota rule or from a lease ceiling (`rule` None)."""

    period: str
    meter: str
    cap: int
    rule: Quota | None


def limits_of(license: License, lease: Lease | None, soft: int, bundle_digest: str) -> Iterator[Limit]:
    """Every bound that counts for a call on this build at accepted time `soft` (ms)."""
    for rule in license.quota:
        yield Limit(period_of(rule.window, soft), rule.meter, rule.cap, rule)
    for ceiling in lease.ceilings if lease else ():
        if ceiling.bundle_digest in (None, bundle_digest):
            period = f"bundle:{bundle_digest}" if ceiling.bundle_digest else "term"
            yield Limit(period, ceiling.meter, ceiling.limit, None)


def period_of(window: str, soft: int) -> str:
    """The counter period of a window at accepted time `soft` (ms): UTC days and months."""
    if window == "day":
        return f"day:{soft // _DAY_MS}"
    if window == "month":
        return _utc(soft).strftime("month:%Y-%m")
    return "term"


def _utc(soft: int) -> datetime:
    return datetime.fromtimestamp(min(soft // 1000, _LAST_SECOND), UTC)


def periods(soft: int, bundle_digest: str) -> tuple[str, ...]:
    """All periods a call counts in."""
    return (period_of("day", soft), period_of("month", soft), "term", f"bundle:{bundle_digest}")


def _check_quota(facts: Facts, want: Mapping[str, int]) -> Verdict:
    warnings: list[Warning] = []
    delay = 0
    bounds = limits_of(facts.license, facts.lease, facts.times.soft, facts.build.bundle_digest)
    for bound in bounds:
        used = facts.used.get((bound.period, bound.meter), 0)
        # Milliseconds are only known afterwards: a call needs at least one to be left.
        needed = max(1, want.get(bound.meter, 0)) if bound.meter == "ms" else want.get(bound.meter, 0)
        if bound.rule is not None and bound.rule.hard_cap is not None:
            _require(facts, bound, "HARD_CAP", used, needed, bound.rule.hard_cap)
        if used + needed <= bound.cap:
            continue
        on_exceed = bound.rule.on_exceed if bound.rule else "deny"
        if on_exceed == "deny":
            _require(facts, bound, "QUOTA_EXCEEDED", used, needed, bound.cap)
        warnings.append(Warning("QUOTA_EXCEEDED", _quota_message(bound, used, needed, bound.cap)))
        delay = max(delay, THROTTLE_MS if on_exceed == "throttle" else 0)
    return Verdict(tuple(warnings), delay)


def _require(facts: Facts, bound: Limit, code: str, used: int, needed: int, cap: int) -> None:
    if used + needed <= cap:
        return
    message = _quota_message(bound, used, needed, cap)
    if bound.rule is None:
        step = "run `sealpack sync DIR` and send the usage files to the vendor: the reply raises the limit"
        raise refuse(facts, code, message, step)
    less = f"ask for at most {cap - used} tokens" if bound.meter == "tok_out" and used < cap else None
    steps = [step for step in (less, _renews(bound, facts.times.soft)) if step]
    raise refuse(facts, code, message, ", or ".join((*steps, "ask the vendor for more")))


_UNITS = {
    "calls": ("call", "calls"),
    "tok_in": ("input token", "input tokens"),
    "tok_out": ("output token", "output tokens"),
    "ms": ("ms", "ms"),
    "items": ("row", "rows"),
}
_WINDOWS = {"day": "today (UTC)", "month": "this month (UTC)", "term": "for this license"}


def amount(bound: Limit, units: int) -> str:
    """So many units of a bound's meter, for people: `1,000 calls`."""
    return plural(units, *_UNITS[bound.meter])


def window_of(bound: Limit) -> str:
    """The time a bound is for, in words."""
    return _WINDOWS[bound.rule.window] if bound.rule else "until usage is settled"


def _quota_message(bound: Limit, used: int, needed: int, cap: int) -> str:
    are = "is" if cap == 1 else "are"
    message = f"{used:,} of {amount(bound, cap)} {are} used {window_of(bound)}"
    left = max(0, cap - used)
    return f"{message}; this call needs up to {needed:,}, {left:,} left" if needed > 1 else message


def _renews(bound: Limit, soft: int) -> str | None:
    """When a window starts again, in words."""
    assert bound.rule is not None
    now = _utc(soft)
    if bound.rule.window == "day":
        return f"wait until {day((soft // _DAY_MS + 1) * 86400)}"
    if bound.rule.window == "month":
        year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        return f"wait until {year}-{month:02}-01 00:00 UTC"
    return None
