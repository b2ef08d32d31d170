"""May this call run? The checks, in the order their failures are told.

Source: specs/runtime-state.md, "Admission". Pure: everything a check needs is in :class:`Facts`. The
first failure wins. An advisory license never refuses for clock, dates, lease or quota: there a refusal
becomes a warning. Every message names the value and the limit, and the remedy the next step and whom
to call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sealpack.format.activation import Activation, Lease
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.leasing import device_share
from sealpack.format.license import LeaseTerms, License, Provisional, Quota
from sealpack.format.trust import Revocations
from sealpack.runtime.clock import TOLERANCE_MS, Times
from sealpack.runtime.fingerprint import ENOUGH, Comparison
from sealpack.runtime.words import day, duration, plural

THROTTLE_MS = 1000  # how long a throttled call waits
GLASS_MS = 7 * 86_400_000  # how long a broken glass carries a site
SOON_S = 30 * 86_400  # a license's end is announced this early, in its last third at the earliest
PERIOD_KINDS = ("day", "month", "term", "bundle")  # every call counts in one period of each kind
_DAY_MS = 86_400_000
_REPAIR = "send a new `sealpack activate request --out FILE` to the vendor and ask for a repair file"
_SETTLE = "run `sealpack sync DIR` and send the usage files to the vendor: the reply raises the limit"
_PARTS = {
    "tpm": "TPM",
    "board": "mainboard",
    "disk": "disk",
    "mac": "network card",
    "model": "model",
    "cpu": "processor",
    "gpu": "graphics card",
}
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
    needs: tuple[str, ...] = ()  # features that its manifest requires


@dataclass(frozen=True, slots=True)
class Load:
    """What else is going on under this license right now."""

    inflight: int = 0
    processes: int = 1
    bucket: int | None = None  # thousandths of a call that may start now; None without a limit


@dataclass(frozen=True, slots=True)
class Spent:
    """Accepted time used up of something: `ms` of it when the accepted time was `seen`."""

    ms: int
    seen: int

    def at(self, soft: int) -> int:
        """How much at accepted time `soft`, ms: never less than before."""
        return self.ms + max(0, soft - self.seen)


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
    clone_suspect: bool = False  # settlement said so
    virtual_machine: str = ""  # what shows that this is one
    container: str = ""
    hardware: Comparison | None = None  # with what was accepted, where that says anything
    key_store: str | None = None
    environment: str | None = None  # what the application insists on, live or test
    root_version: int = 1
    load: Load = Load()
    used: Mapping[tuple[str, str], int] = field(default_factory=dict)
    calls: int = 0  # under this license so far, with those that run now
    first_use: Spent | None = None  # accepted time since the first call
    glass: Spent | None = None  # accepted time since the glass was broken for this lease

    @property
    def provisional(self) -> Provisional | None:
        """What may be done before the activation; None when there is one, or none is needed."""
        bound = self.license.devices.binding != "none"
        return self.license.provisional if bound and self.activation is None else None

    @property
    def glass_left(self) -> int:
        """How long the broken glass still carries the site, ms; 0 without one."""
        return 0 if self.glass is None else max(0, GLASS_MS - self.glass.at(self.times.soft))


@dataclass(frozen=True, slots=True)
class Warning:
    """Something a person should know although the call may run."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The call may run, after waiting `delay_ms`; `waived` are the codes an advisory license let pass."""

    warnings: tuple[Warning, ...] = ()
    delay_ms: int = 0
    waived: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        """Both, after the longer wait."""
        delay = max(self.delay_ms, other.delay_ms)
        return Verdict(self.warnings + other.warnings, delay, self.waived + other.waived)


def admit(facts: Facts, want: Mapping[str, int]) -> Verdict:
    """Check everything for a call that uses at most `want` (meter -> units); raises the first refusal."""
    standing = check_standing(facts)
    return standing + check_rate(facts) + check_quota(facts, want)


def check_quota(facts: Facts, want: Mapping[str, int]) -> Verdict:
    """The checks that depend on the size of calls alone."""
    return _soften(facts, lambda: _check_quota(facts, want))


def check_standing(facts: Facts) -> Verdict:
    """The checks that do not depend on load or on the size of a call, for opening and for status."""
    _check_document(facts)
    _check_revocation(facts)
    verdict = _check_device(facts)
    _check_clone(facts)
    verdict += _soften(facts, lambda: _check_clock(facts))
    verdict += _soften(facts, lambda: _check_dates(facts))
    verdict += _soften(facts, lambda: _check_lease(facts))
    _check_terms(facts)
    require_features(facts.license, facts.build.needs, _named(facts.build))
    return verdict


def _soften(facts: Facts, check: Callable[[], Verdict]) -> Verdict:
    try:
        return check()
    except SealpackError as error:
        if facts.license.enforcement != "advisory" or error.code == "NOT_ACTIVATED":
            raise
        return Verdict((Warning(error.code, error.message),), waived=(error.code,))


def refuse(facts: Facts, code: str, message: str, remedy: str | None = None) -> SealpackError:
    """A refusal with the license's support contact in its remedy."""
    return refusal(facts.license, code, message, remedy)


def refusal(license: License, code: str, message: str, remedy: str | None = None) -> SealpackError:
    """A refusal under a license, with its support contact in the remedy."""
    step = remedy or CODES[code].remedy
    contact = f"{step}; support: {license.support}" if license.support else step
    support = {"support": license.support} if license.support else {}
    return SealpackError(code, message, remedy=contact, license_id=license.license_id, **support)


def require_features(license: License, words: Iterable[str], who: str) -> None:
    """FEATURE_NOT_LICENSED unless the license has all these words; `who` needs them."""
    missing = [word for word in words if word not in license.features]
    if missing:
        has = ", ".join(license.features) or "none"
        message = f"{who} needs {', '.join(missing)}; license {license.license_id} has {has}"
        raise refusal(license, "FEATURE_NOT_LICENSED", message)


def _check_document(facts: Facts) -> None:
    license, build = facts.license, facts.build
    if not license.covers(build.bundle_id, build.version, build.bundle_digest):
        raise refuse(facts, "BUNDLE_MISMATCH", f"license {license.license_id} does not cover {_named(build)}")
    if build.license_id not in (None, license.license_id, license.parent_id):
        raise refuse(
            facts,
            "BUNDLE_MISMATCH",
            f"{_named(build)} was made for license {build.license_id}, not {license.license_id}",
        )
    if facts.environment not in (None, license.environment):
        raise environment_mismatch(license, facts.environment)


def environment_mismatch(license: License, wanted: str | None) -> SealpackError:
    """ENV_MISMATCH: the license that is here is of the other kind."""
    return refusal(
        license,
        "ENV_MISMATCH",
        f"license {license.license_id} is a {license.environment} license, a {wanted} license is asked for",
        f"install a {wanted} license with `sealpack activate install FILE`",
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
    for name in (license.license_id, license.parent_id):
        if name in lists.licenses:
            raise refuse(facts, "LIC_REVOKED", f"license {name} was revoked")
    if facts.device_id in lists.devices:
        raise refuse(facts, "DEVICE_REVOKED", f"device {facts.device_id} was revoked")
    _check_revocations_age(facts)


def _check_revocations_age(facts: Facts) -> None:
    """Who issued the license or the lease knew this list, and sent it along: it was left out on the way."""
    lease, known = facts.lease, facts.revocations.version
    for under in (facts.license.issued_under, lease.issued_under if lease else None):
        if under is not None and under.is_newer_than(facts.root_version, known):
            raise refuse(
                facts,
                "REVLIST_OLD",
                f"this machine knows revocation list {known} of root {facts.root_version}, "
                f"the license goes with list {under.revocations} of root {under.root}",
            )


def _check_clone(facts: Facts) -> None:
    if facts.clone_suspect:
        raise refuse(
            facts,
            "CLONE_SUSPECT",
            f"settlement received two histories of {facts.device_id}: this state was copied to a second"
            " machine, or set back",
            "stop the other machine, ask the vendor for leave to begin a new log on this one, and run"
            " `sealpack activate install FILE` with the answer",
        )


def _check_device(facts: Facts) -> Verdict:
    devices, activation = facts.license.devices, facts.activation
    verdict = Verdict()
    if devices.binding != "none":
        if activation is None:
            verdict = _check_provisional(facts, 1)
        elif activation.device_id != facts.device_id:
            raise refuse(
                facts,
                "DEVICE_MISMATCH",
                f"license is for device {activation.device_id}, this is {facts.device_id}",
            )
        else:
            verdict = _check_hardware(facts)
    if facts.virtual_machine and not devices.vm:
        message = f"the license does not allow virtual machines, and {facts.virtual_machine}"
        raise refuse(facts, "VM_DENIED", message)
    if facts.container and not devices.container:
        message = f"the license does not allow containers; this is one: {facts.container}"
        raise refuse(facts, "CONTAINER_DENIED", message)
    return verdict


def _check_hardware(facts: Facts) -> Verdict:
    """Whether this is still the machine that was activated; a part or two may be another."""
    found, binding = facts.hardware, facts.license.devices.binding
    if binding == "tpm" and facts.key_store != "tpm":
        raise refuse(facts, "HW_CHANGED", "the license is bound to a TPM, and the device key is in a file")
    if binding not in ("key+fp", "tpm") or found is None:
        return Verdict()
    if not found.held:
        few = "the activation names too few parts of this machine to hold it to them"
        return Verdict((Warning("HW_CHANGED", few),))
    if not found.readable:
        hidden = ", ".join(_PARTS[kind] for kind in found.hidden)
        step = "run it as the same user and outside a sandbox; else " + _REPAIR
        raise refuse(facts, "HW_CHANGED", f"more than half of the hardware cannot be read: {hidden}", step)
    others = ", ".join(_PARTS[kind] for kind in found.changed)
    message = f"{found.score} % of the hardware is what was activated, {ENOUGH} % is needed; other: {others}"
    if found.score < ENOUGH or (binding == "tpm" and "tpm" in found.changed):
        raise refuse(facts, "HW_CHANGED", message, _REPAIR)
    return Verdict((Warning("HW_CHANGED", f"{message}; {_REPAIR}"),)) if found.changed else Verdict()


def _check_provisional(facts: Facts, calls: int) -> Verdict:
    """Before the activation: what the license lets every install do once."""
    if facts.license.devices.binding == "none" or facts.activation is not None:
        return Verdict()
    terms = facts.provisional
    if terms is None:
        raise refuse(facts, "NOT_ACTIVATED", f"license {facts.license.license_id} has no activation here")
    ask = "run `sealpack activate request --out FILE` and send the file to the vendor"
    spent = 0 if facts.first_use is None else facts.first_use.at(facts.times.soft)
    if facts.calls + calls > terms.calls:
        used = f"{min(facts.calls, terms.calls):,} of {plural(terms.calls, 'call')} are used"
        raise refuse(facts, "NOT_ACTIVATED", f"provisional use ended: {used}", ask)
    if spent >= terms.s * 1000:
        raise refuse(facts, "NOT_ACTIVATED", f"provisional use ended: {duration(terms.s)} are over", ask)
    left = f"{plural(terms.calls - facts.calls, 'call')} and {duration(terms.s - spent // 1000)} left"
    return Verdict((Warning("NOT_ACTIVATED", f"provisional use, {left}: {ask}"),))


def _check_clock(facts: Facts) -> Verdict:
    if facts.times.expiry is None:
        raise refuse(facts, "CLOCK_UNREADABLE", "the system clock gives no usable time")
    behind = -facts.times.skew
    if behind <= TOLERANCE_MS:
        return Verdict()
    message = f"the clock is {duration(behind // 1000)} behind known time"
    rules = facts.license.clock
    if rules is not None and rules.on_back == "deny":
        step = (
            "set the clock to the right time; if it is right, send a new `sealpack activate request` to the"
            " vendor and ask for a repair"
        )
        raise refuse(facts, "CLOCK_BACK", f"{message}, the license allows 24", step)
    return Verdict((Warning("CLOCK_BACK", f"{message}: set it; if it is right, {_REPAIR}"),))


def _by_which_clock(facts: Facts, ends: int, step: str) -> str:
    """What to do about an end (Unix seconds) that has passed; where one of two clocks alone says so, that."""
    skew = facts.times.skew
    apart = duration(abs(skew) // 1000)
    if skew > TOLERANCE_MS and facts.times.soft < ends * 1000:
        return f"if the system clock is wrong, set it: it is {apart} ahead of known time; else {step}"
    if skew < -TOLERANCE_MS and facts.times.soft + skew < ends * 1000:
        return f"the system clock is {apart} behind known time: if it is right, {_REPAIR}; else {step}"
    return step


def _check_dates(facts: Facts) -> Verdict:
    license = facts.license
    verdict = Verdict()
    if facts.times.soft < license.nbf * 1000:
        raise refuse(facts, "LIC_NOT_YET_VALID", f"license is valid from {day(license.nbf)}")
    ends = end_of(license, facts.started)
    if ends is not None and facts.times.expiry is not None:
        late = facts.times.expiry - ends * 1000
        if late >= license.grace_s * 1000:
            grace = f", its {duration(license.grace_s)} of grace too" if license.grace_s else ""
            now = day(facts.times.expiry // 1000)
            step = _by_which_clock(facts, ends + license.grace_s, CODES["LIC_EXPIRED"].remedy)
            verdict = _past(facts, "LIC_EXPIRED", f"license ended {day(ends)}{grace}, it is {now} now", step)
        elif late >= 0:
            until = day(ends + license.grace_s)
            verdict = Verdict((Warning("LIC_EXPIRED", f"license ended {day(ends)}; grace until {until}"),))
        elif -late <= 1000 * min(SOON_S, (ends - _begin_of(license, facts.started)) // 3):
            soon = f"license ends {day(ends)}, in {duration(-(late // 1000))}"
            verdict = Verdict((Warning("LIC_EXPIRED", f"{soon}: ask the vendor for the next one"),))
    if license.updates_until is not None and facts.build.signed_at > license.updates_until:
        raise refuse(
            facts,
            "UPDATE_NOT_COVERED",
            f"{_named(facts.build)} is of {day(facts.build.signed_at)}, updates are covered until "
            f"{day(license.updates_until)}",
        )
    return verdict


def _past(facts: Facts, code: str, message: str, remedy: str | None = None) -> Verdict:
    """Something has lapsed: a warning while a broken glass carries the site, else the refusal."""
    left = facts.glass_left
    if left:
        return Verdict((Warning(code, f"{message}; break-glass for another {duration(left // 1000)}"),))
    step = remedy or CODES[code].remedy
    if facts.glass is None:
        step += '; if that takes too long, `sealpack status --break-glass "REASON"` gives 7 days, once'
    raise refuse(facts, code, message, step)


def _begin_of(license: License, started: int | None) -> int:
    """When the time that :func:`end_of` ends began, Unix seconds."""
    if license.term_s is not None and started is not None:
        return started // 1000
    return max(license.nbf, license.issued_at)


def end_of(license: License, started: int | None) -> int | None:
    """When the license ends, Unix seconds; a term runs from the first start (`started`, ms).

    A sub-license may have both an end and a term, from its parent and its own: the earlier one counts.
    """
    ends = [] if license.exp is None else [license.exp]
    if license.term_s is not None and started is not None:
        ends.append(started // 1000 + license.term_s)
    return min(ends, default=None)


def _check_lease(facts: Facts) -> Verdict:
    terms, lease = facts.license.lease, facts.lease
    if lease is not None:
        _check_lease_address(facts, lease)
    if not terms.required:
        return Verdict()
    carry = "run `sealpack sync DIR`, send the files to the vendor, and sync again with the reply"
    if lease is None and facts.provisional is not None:
        return Verdict()  # the first lease comes with the activation
    if lease is None:
        return _past(facts, "LEASE_STALE", "the license needs a lease and none is installed", carry)
    ends = lease_end(facts.license, lease)
    if ends is None or facts.times.expiry is None:
        return Verdict()
    left = ends - facts.times.expiry // 1000
    if left <= 0:
        message = f"usage was due to be settled by {day(ends)}"
        if terms.on_stale == "deny":
            return _past(facts, "LEASE_STALE", message, _by_which_clock(facts, ends, carry))
        wait = THROTTLE_MS if terms.on_stale == "throttle" else 0
        return Verdict((Warning("LEASE_STALE", message),), wait)
    early = (ends - lease.issued_at) // 3 if terms.warn_s is None else terms.warn_s
    if left <= early:
        return Verdict((Warning("LEASE_STALE", f"settle usage by {day(ends)}: {carry}"),))
    return Verdict()


def _check_lease_address(facts: Facts, lease: Lease) -> None:
    if (lease.device_id, lease.license_id) != (facts.device_id, facts.license.license_id):
        raise refuse(facts, "LEASE_MISMATCH", f"lease is for {lease.license_id} on {lease.device_id}")
    if lease.epoch > facts.epoch:  # ceilings are cumulative over all logs: a log of its own may be newer
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
            f"run `sealpack terms show {facts.build.bundle_id}`, then "
            f"`sealpack terms accept {facts.build.bundle_id}`",
        )


def check_rate(facts: Facts) -> Verdict:
    """The checks that depend on what else runs; whoever passes has a place, and takes from the bucket."""
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
    return Verdict()


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


def stops_at(bound: Limit) -> int | None:
    """Where a bound stops calls; None for one that never does."""
    if bound.rule is None or bound.rule.on_exceed == "deny":
        return bound.cap
    return bound.rule.hard_cap


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
    _check_provisional(facts, want.get("calls", 0))
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
            warnings += _near(facts, bound, used + needed)
            continue
        code, on_exceed = "QUOTA_EXCEEDED", bound.rule.on_exceed if bound.rule else "deny"
        if bound.rule is None:
            _check_share(facts, bound, used, needed)
            code, on_exceed = "UNSETTLED_LIMIT", at_ceiling(facts.license)
            if facts.glass_left and on_exceed == "deny":
                on_exceed = "warn"
        if on_exceed == "deny":
            _require(facts, bound, code, used, needed, bound.cap)
        stops = bound.rule.hard_cap if bound.rule else None
        end = "" if stops is None else f"; calls stop at {stops:,}"
        warnings.append(Warning(code, _quota_message(bound, used, needed, bound.cap) + end))
        delay = max(delay, THROTTLE_MS if on_exceed == "throttle" else 0)
    return Verdict(tuple(warnings), delay)


def _near(facts: Facts, bound: Limit, used: int) -> list[Warning]:
    """What to do before calls stop, told when less than a tenth is left; a day's quota renews by itself."""
    stop = stops_at(bound)
    if stop is None or (stop - used) * 10 >= stop or (bound.rule and bound.rule.window == "day"):
        return []
    if bound.rule is None and at_ceiling(facts.license) != "deny":
        return []
    settles = bound.rule is None and not is_share(facts.license, bound)
    code = "UNSETTLED_LIMIT" if settles else "QUOTA_EXCEEDED"
    step = _SETTLE if settles else "ask the vendor for more"
    left = f"{stop - used:,} of {amount(bound, stop)} left {window_of(bound, facts.license)}"
    return [Warning(code, f"{left}: {step}")]


def is_share(license: License, bound: Limit) -> bool:
    """Whether a lease's ceiling is all that a quota lets this device have: settling cannot raise it."""
    shares = (device_share(rule, license.devices.max) for rule in license.quota if rule.meter == bound.meter)
    return bound.rule is None and any(share is not None and bound.cap >= share for share in shares)


def at_ceiling(license: License) -> str:
    """What happens at a lease's ceiling: as the license says for a stale lease, else deny."""
    return "deny" if license.lease == LeaseTerms() else license.lease.on_stale


def _check_share(facts: Facts, bound: Limit, used: int, needed: int) -> None:
    """Past this device's share of a quota no settlement helps: refused as the quota itself refuses."""
    for rule in facts.license.quota:
        share = device_share(rule, facts.license.devices.max)
        if rule.meter == bound.meter and share is not None and used + needed > share:
            code = "QUOTA_EXCEEDED" if rule.hard_cap is None else "HARD_CAP"
            _require(facts, replace(bound, cap=share, rule=rule), code, used, needed, share)


def _require(facts: Facts, bound: Limit, code: str, used: int, needed: int, cap: int) -> None:
    if used + needed <= cap:
        return
    message = _quota_message(bound, used, needed, cap)
    if bound.rule is None:
        raise refuse(facts, code, message, _SETTLE)
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


def window_of(bound: Limit, license: License | None = None) -> str:
    """The time a bound is for, in words."""
    if license is not None and is_share(license, bound):
        return "as this machine's part"
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
