"""How things stand on this device: bundles, licenses with what is left of them, clock, receipts."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.runtime import (
    admission,
    anchors,
    api,
    closing,
    device,
    epochs,
    lapses,
    log,
    machine,
    rights,
    site_codes,
    store,
    timekeeper,
)
from sealpack.runtime.log import Log
from sealpack.runtime.rights import Rights
from sealpack.runtime.state import State
from sealpack.runtime.store import Installed
from sealpack.runtime.timekeeper import Moment
from sealpack.runtime.words import day, duration, plural

SCHEMA = "sealpack/status/v1"
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))
# What happens past a limit, where a call is not simply refused.
_PAST = {"deny": "", "bill": ", then billed", "throttle": ", then slower", "warn": ", then a warning"}
_KEPT = {None: "", "file": ", its keys in files (0600)", "tpm": ", its keys sealed in the TPM"}

Used = dict[tuple[str, str], int]


def gather(state: State) -> dict[str, Any]:
    """The status as plain values. Looks at the clock (and remembers it), changes nothing else."""
    here = device.Surroundings(state.home)
    signer = device.key(state.home) if here.key_store else None
    name = device.name(signer) if signer else None
    bundles = store.installed(state)
    with state.write() as db:
        moment = timekeeper.observe(db)
    with state.read() as db:
        trusts = anchors.believed(db)
        licenses = [
            _license(db, rights.read(db, license_id, trusts), name or "", bundles, moment, here)
            for license_id in rights.license_ids(db)
        ]
    status = {
        "schema": SCHEMA,
        "state": str(state.home.path),
        "device_id": name,
        "key_store": here.key_store,
        "runtime": machine.runtime_version(),
        "roots": [trust.root_digest for trust in trusts],
        "clock": {"accepted": moment.times.soft // 1000, "skew_s": moment.times.skew // 1000},
        "bundles": [
            {"bundle_id": b.bundle_id, "version": b.version, "bundle_digest": b.bundle_digest}
            for b in bundles
        ],
        "licenses": licenses,
    }
    return {**status, "next": _next_step(status)}


def _next_step(status: dict[str, Any]) -> str | None:
    """The next step of an installation that is not complete."""
    if not status["roots"]:
        return "run `sealpack trust pin trust.json` with the vendor's trust file"
    if not status["bundles"]:
        return "run `sealpack install BUNDLE`"
    if not status["licenses"]:
        return (
            "run `sealpack activate request --out FILE`, or `sealpack activate install REPLY` with the answer"
        )
    return None


def _license(
    db: sqlite3.Connection,
    found: Rights,
    device_id: str,
    bundles: list[Installed],
    moment: Moment,
    here: device.Surroundings,
) -> dict[str, Any]:
    license = found.license
    history = log.find(db, license.license_id)
    covered = [b for b in bundles if license.covers(b.bundle_id, b.version, b.bundle_digest)]
    used = _used(db, license.license_id)
    standing = [_standing(db, found, bundle, device_id, history, moment, used, here) for bundle in covered]
    carried = license.receipts == "required"
    ends = admission.end_of(license, history.started if history else None)
    lease_ends = admission.lease_end(license, found.lease) if found.lease else None
    return {
        "license_id": license.license_id,
        "seq": license.seq,
        "tier": license.tier,
        "customer": license.customer.name,
        "environment": license.environment,
        "support": license.support,
        "ends": ends,
        "grace_s": license.grace_s,
        "lease": None if found.lease is None else {"seq": found.lease.lease_seq, "settle_by": lease_ends},
        "quota": _quota(found, covered, moment, used),
        "standing": standing,
        "provisional": _provisional(db, found, moment),
        "break_glass": _glass(db, found, moment),
        "carried": carried,
        "receipts": None
        if history is None
        else {
            "origin": history.origin,
            "size": history.size,
            "acknowledged": history.acked_size,
            "pending": log.news_since(db, history, history.acked_size) if carried else 0,
        },
    }


def _provisional(db: sqlite3.Connection, found: Rights, moment: Moment) -> dict[str, int] | None:
    """What is left before the activation: calls and seconds; None when it is not about that."""
    license = found.license
    terms = license.provisional
    if terms is None or license.devices.binding == "none" or found.activation is not None:
        return None
    since = lapses.provisional(db, license.license_id)
    spent = since.at(moment.times.soft) if since else 0
    used = lapses.calls(db, license.license_id)
    return {
        "calls": terms.calls,
        "calls_left": max(0, terms.calls - used),
        "s": terms.s,
        "s_left": max(0, terms.s - spent // 1000),
    }


def _glass(db: sqlite3.Connection, found: Rights, moment: Moment) -> dict[str, Any] | None:
    """The glass broken for the present lease: why, since when, and how many seconds it still lasts."""
    glass = lapses.glass(db, found)
    if glass is None:
        return None
    left = glass.left(moment.times.soft)
    return {"reason": glass.reason, "began": glass.began // 1000, "left_s": left // 1000}


def _standing(
    db: sqlite3.Connection,
    found: Rights,
    bundle: Installed,
    device_id: str,
    history: Log | None,
    moment: Moment,
    used: Used,
    here: device.Surroundings,
) -> dict[str, Any]:
    """Whether a bundle may run one small call now, as admission would say it."""
    build = rights.build_of(bundle)
    facts = api.facts_of(db, found, build, device_id, history, moment, here)
    entry: dict[str, Any] = {"bundle_id": bundle.bundle_id, "version": bundle.version}
    try:
        refusal = closing.refusal(db, found.license.license_id)
        if refusal is not None:
            raise refusal
        epochs.require_allowed(db, found, moment)
        verdict = admission.admit(replace(facts, used=used), {"calls": 1, "items": 1})
        site_codes.require_entered(db, found, bundle.bundle_digest)
    except SealpackError as error:
        return {**entry, "may_run": False, "code": error.code, "detail": error.message, "next": error.remedy}
    warnings = [{"code": w.code, "detail": w.message} for w in verdict.warnings]
    return {**entry, "may_run": True, "warnings": warnings}


def _used(db: sqlite3.Connection, license_id: str) -> Used:
    """Every counter of a license."""
    rows = db.execute("SELECT period, meter, used + reserved FROM counters WHERE license_id=?", (license_id,))
    return {(period, meter): total for period, meter, total in rows}


def _quota(found: Rights, covered: list[Installed], moment: Moment, used: Used) -> list[dict[str, Any]]:
    bounds = dict.fromkeys(
        bound
        for digest in ([b.bundle_digest for b in covered] or [""])
        for bound in admission.limits_of(found.license, found.lease, moment.times.soft, digest)
    )
    return [
        {
            "meter": bound.meter,
            "period": bound.period,
            "source": "license" if bound.rule else "lease",
            "limit": bound.cap,
            "used": used.get((bound.period, bound.meter), 0),
            "left": max(0, bound.cap - used.get((bound.period, bound.meter), 0)),
            "on_exceed": _past(found, bound),
            "hard_cap": bound.rule.hard_cap if bound.rule else None,
            "amount": admission.amount(bound, bound.cap),
            "window": admission.window_of(bound, found.license),
        }
        for bound in bounds
    ]


def _past(found: Rights, bound: admission.Limit) -> str:
    """What happens past a bound: an advisory license refuses nothing there."""
    past = bound.rule.on_exceed if bound.rule else admission.at_ceiling(found.license)
    return "warn" if past == "deny" and found.license.enforcement == "advisory" else past


def to_text(status: dict[str, Any]) -> str:
    """The status for people."""
    clock = status["clock"]
    lines = [
        f"device   {status['device_id'] or 'not activated yet'}" + _KEPT[status["key_store"]],
        f"state    {status['state']}",
        f"clock    {day(clock['accepted'])}" + _skew(clock["skew_s"]),
    ]
    lines += [
        f"bundle   {b['bundle_id']} {b['version']} ({b['bundle_digest'][:16]})" for b in status["bundles"]
    ]
    for license in status["licenses"]:
        lines += _license_lines(license)
    if status["next"]:
        lines.append(f"next     {status['next']}")
    return "\n".join(lines)


def _skew(seconds: int) -> str:
    """How far the system clock is from the accepted time; nothing under a minute."""
    if abs(seconds) < 60:
        return ""
    size, unit = next(((n, u) for n, u in _UNITS if abs(seconds) >= n))
    side = "ahead" if seconds > 0 else "behind"
    return f"; the system clock is {plural(abs(seconds) // size, unit)} {side}"


def _is_told(quota: dict[str, Any], others: list[dict[str, Any]]) -> bool:
    """Whether a lease's ceiling is nothing but the end of a quota of the license."""
    return quota["source"] == "lease" and any(
        other["meter"] == quota["meter"]
        and other["source"] == "license"
        and other["period"] == quota["period"]
        and (other["hard_cap"] or other["limit"]) == quota["limit"]
        for other in others
    )


def _license_lines(license: dict[str, Any]) -> list[str]:
    ends = f"until {day(license['ends'])}" if license["ends"] else "without an end date"
    lines = [f"license  {license['license_id']} ({license['tier']}) for {license['customer']}, {ends}"]
    if license["lease"] and license["lease"]["settle_by"]:
        lines.append(f"  lease    settle by {day(license['lease']['settle_by'])}")
    if provisional := license["provisional"]:
        left = f"{provisional['calls_left']:,} of {plural(provisional['calls'], 'call')}"
        hours = f"{duration(provisional['s_left'])} of {duration(provisional['s'])}"
        lines.append(f"  provisional {left} and {hours} left; next: `sealpack activate request --out FILE`")
    if glass := license["break_glass"]:
        left = f"{duration(glass['left_s'])} left" if glass["left_s"] else "over"
        lines.append(f"  break-glass since {day(glass['began'])}, {left}: {glass['reason']}")
    for quota in filter(lambda quota: not _is_told(quota, license["quota"]), license["quota"]):
        left = f"{quota['left']:,} of {quota['amount']} left {quota['window']}"
        past = f" up to {quota['hard_cap']:,}" if quota["hard_cap"] and quota["on_exceed"] == "bill" else ""
        lines.append(f"  quota    {left}{_PAST[quota['on_exceed']]}{past}")
    for entry in license["standing"]:
        verdict = "may run" if entry["may_run"] else f"may not run: {entry['code']}: {entry['detail']}"
        lines.append(f"  {entry['bundle_id']} {entry['version']} {verdict}")
        lines += [f"    warning {w['code']}: {w['detail']}" for w in entry.get("warnings", ())]
        if not entry["may_run"]:
            steps = entry["next"].removesuffix(f"; support: {license['support']}").split("; ")
            lines += [f"    next: {steps[0]}", *(f"          {step}" for step in steps[1:])]
    receipts = license["receipts"]
    if receipts:
        pending = f"{receipts['pending']:,} to carry to the vendor"
        kept = "they stay on this machine"
        lines.append(f"  receipts {receipts['size']:,}, {pending if license['carried'] else kept}")
    if license["support"]:
        lines.append(f"  support  {license['support']}")
    return lines
