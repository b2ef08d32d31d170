"""A license in plain words: one page for the people who have to live with it.

Source: specs/license.md, "In words". Made from the license's own data and nothing else, so the same license
always gives the same page. `NOT_SAID` lists the members that the page leaves out, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sealpack.format.errors import printable
from sealpack.format.leasing import device_share
from sealpack.format.license import BundleGrant, LeaseTerms, License, Quota
from sealpack.verifier.render.markup import Html, bullets, element

SCHEMA = "sealpack/license-words/v1"
NOT_SAID = {
    "issued_under": "a matter between machines; the refusal REVLIST_OLD says it when it matters",
    "delegation.bundle_keys": "locked keys; nobody can read them",
    "site_keys.n": "how a key is locked",
    "site_keys.salt": "how a key is locked",
    "site_keys.sealed": "a locked key; nobody can read it",
    "digest": "computed, no member of the license",
}
_SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"))
_UNITS = {
    "calls": ("call", "calls"),
    "tok_in": ("input token", "input tokens"),
    "tok_out": ("output token", "output tokens"),
    "ms": ("millisecond of computing", "milliseconds of computing"),
    "items": ("row", "rows"),
}
_WINDOWS = {
    "day": "a day (UTC)",
    "month": "a calendar month (UTC)",
    "term": "in the whole life of the license",
}
_AGAIN = {"day": "until the next day begins at 00:00 UTC", "month": "until the next month begins (UTC)"}
_BILLING = {
    "one_time": "Paid once.",
    "subscription": "Paid as a subscription.",
    "metered": "Paid by use: what is counted is billed.",
    "committed": "An agreed amount is paid in any case; what goes beyond it is billed.",
}
_MARKS = {
    "no": "The model carries no mark.",
    "visible": "The model's answers may carry a visible note that this is an evaluation.",
    "hidden": "The model may carry a hidden mark that names this license. It shows where a copy came from.",
    "optional": "Whether the model carries a hidden mark that names this license is agreed elsewhere.",
}
_BINDINGS = {
    "none": "It is not bound to machines: whoever has the file may use it, and nothing has to be activated.",
    "key": "Each machine is activated once, with a key that stays on it.",
    "key+fp": "Each machine is activated once, with a key that stays on it, and known by its parts as well.",
    "tpm": "Each machine is activated once, with a key in its security chip (TPM).",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its sentences."""

    title: str
    lines: tuple[str, ...]


def sections(license: License) -> tuple[Section, ...]:
    """The page; what has nothing to say is left out."""
    parts: tuple[tuple[str, Callable[[License], Iterator[str]]], ...] = (
        ("Who and what", _who),
        ("From when, until when", _dates),
        ("On which machines", _machines),
        ("How much", _amounts),
        ("Settling usage", _settling),
        ("What it costs", _costs),
        ("What the issuer sees, and never sees", _seen),
        ("What was agreed about use, and what nothing checks", _use),
        ("Whom to call", _support),
    )
    return tuple(Section(title, tuple(map(printable, say(license)))) for title, say in parts)


# --- words ----------------------------------------------------------------------------------------------


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds} since 1970"


def _many(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _span(seconds: int) -> str:
    """Days, hours, minutes and seconds, none lost: `1 day 2 hours`."""
    parts, left = [], seconds
    for size, name in (*_SPANS, (1, "second")):
        count, left = divmod(left, size)
        if count:
            parts.append(_many(count, name))
    return " ".join(parts) or "0 seconds"


def _units(meter: str, count: int) -> str:
    return _many(count, *_UNITS[meter])


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words)


# --- the sections ---------------------------------------------------------------------------------------


def _who(license: License) -> Iterator[str]:
    below = f", below license {license.parent_id}" if license.parent_id else ""
    yield (
        f"License {license.license_id}, number {license.seq}{below}, of the kind {license.tier}: "
        f"for {license.customer.name} ({license.customer.id})."
    )
    yield f"{license.issuer} issued it on {_day(license.issued_at)}."
    if license.order_ref:
        yield f"Your order: {license.order_ref}."
    for grant in license.bundles:
        yield f"You may use {_grant(grant)}."
    if license.updates_until is not None:
        yield (
            f"Releases made after {_day(license.updates_until)} are not covered; earlier ones go on running."
        )
    if license.features:
        yield f"Beyond the base it covers: {_listed(license.features)}."
    if license.environment == "test":
        yield (
            "This is a test license: usage is recorded and never billed. Not for earnest use: machines that "
            "were started with `sealpack run --require-live` refuse it."
        )
    if license.enforcement == "advisory":
        yield (
            "It only advises: past dates, quotas and settlements it warns and never refuses. All is still "
            "recorded and billed."
        )


def _grant(grant: BundleGrant) -> str:
    low, high = grant.min_version, grant.max_version
    if low and high:
        versions = f" {low} to {high}"
    elif low:
        versions = f" {low} and later"
    elif high:
        versions = f" up to {high}"
    else:
        versions = " in every version"
    build = f", only the build {grant.bundle_digest}" if grant.bundle_digest else ""
    return f"{grant.id}{versions}{build}"


def _dates(license: License) -> Iterator[str]:
    yield f"It begins on {_day(license.nbf)}." if license.nbf else "It begins at once."
    if license.term_s is not None:
        end = f"{_span(license.term_s)} after the first call on a machine"
        yield f"It ends {end}."
    elif license.exp is not None:
        end = _day(license.exp)
        yield f"It ends on {end}."
    else:
        yield "It has no end."
    if license.term_s is not None or license.exp is not None:
        after = "calls are refused (LIC_EXPIRED)"
        if license.enforcement == "advisory":
            after = "calls go on with a warning"
        if license.grace_s:
            until = f", until {_day(license.exp + license.grace_s)}" if license.exp is not None else ""
            yield f"For {_span(license.grace_s)} after that it goes on with a warning{until}. Then {after}."
        else:
            yield f"After that {after}; there is no time of grace."
        yield (
            "Time is counted in UTC by the machine's clock, and by how long it ran where the clock falls"
            " behind."
        )
    elif license.grace_s:
        yield f"A time of grace of {_span(license.grace_s)} is stated, and has no end to follow."
    if license.clock is not None and license.clock.on_back == "deny":
        yield "While the clock is more than 24 hours behind, calls are refused (CLOCK_BACK)."


def _machines(license: License) -> Iterator[str]:
    devices = license.devices
    yield _BINDINGS[devices.binding]
    if devices.binding != "none":
        yield "To activate one: `sealpack activate request` there, and send the file or code to the issuer."
    if devices.max is None:
        yield "Any number of machines."
    else:
        yield f"At most {_many(devices.max, 'machine')}."
    if license.device_label:
        yield f"Meant for the machine called {license.device_label}."
    refused = [name for name, allowed in (("virtual machines", devices.vm), ("containers", devices.container))
               if not allowed]  # fmt: skip
    yield (
        f"Not in {' and not in '.join(refused)}."
        if refused
        else "Virtual machines and containers may be used."
    )
    if license.provisional is not None:
        yield (
            f"Before it is activated, a machine may make {_units('calls', license.provisional.calls)} "
            f"within {_span(license.provisional.s)}, once. They are recorded and billed."
        )
    for site_key in license.site_keys or ():
        yield f"The build {site_key.bundle_digest} opens with a site code that is sent to you separately."
    if license.delegation is not None:
        most = license.delegation.max_devices
        limit = "any number of machines" if most is None else f"at most {_many(most, 'machine')} in all"
        keys = _many(len(license.delegation.keys), "key")
        yield f"You may give out licenses below this one, with {keys}, for {limit}."


def _amounts(license: License) -> Iterator[str]:
    limits = license.limits
    if limits.qps is not None:
        burst = f", {_units('calls', limits.burst)} in a burst" if limits.burst is not None else ""
        most = f"At most {_units('calls', limits.qps)} a second{burst}"
        yield f"{most}; more is refused; trying again a moment later helps."
    elif limits.burst is not None:
        yield f"A burst of {_units('calls', limits.burst)} is stated without a rate, and limits nothing."
    if limits.inflight is not None:
        yield f"At most {_units('calls', limits.inflight)} at the same time."
    if limits.processes is not None:
        yield f"At most {_many(limits.processes, 'program')} with the model loaded at the same time."
    for quota in license.quota:
        yield _quota(license, quota)
    if not license.quota:
        yield "No quota: the number of calls is not limited."


def _quota(license: License, quota: Quota) -> str:
    """What is included and, with the numbers worked out, what happens past it."""
    where = "on each machine" if quota.scope == "device" else "for all machines together"
    said = f"{_units(quota.meter, quota.cap)} {_WINDOWS[quota.window]} {where}. {_past(license, quota)}"
    share = device_share(quota, license.devices.max)
    if quota.scope == "license":
        if share is not None and license.devices.max:
            most = share * license.devices.max
            said += f" Each of the {license.devices.max:,} machines may use {share:,} of {most:,}."
        else:
            said += " A machine knows its own use only: the sum is made when usage is settled."
    return said


def _past(license: License, quota: Quota) -> str:
    again = f" {_AGAIN[quota.window]}" if quota.window in _AGAIN else ""
    unit, cap, hard = _UNITS[quota.meter][1], quota.cap, quota.hard_cap

    def refused(bound: int, code: str) -> str:
        if license.enforcement == "advisory":
            return f"Past {bound:,} calls go on with a warning."
        return f"What goes past {bound:,} is refused{again} ({code})."

    if quota.on_exceed == "deny":
        beside = "" if hard is None else f" A hard cap of {hard:,} stands beside it."
        return refused(cap, "QUOTA_EXCEEDED") + beside
    over = max(1, cap // 10) if hard is None else max(0, min(max(1, cap // 10), hard - cap))
    words = {
        "bill": f"More is billed: of {cap + over:,} {unit}, {cap:,} are included and {over:,} "
        f"{'is' if over == 1 else 'are'} billed.",
        "throttle": f"Past {cap:,} each call waits one second first.",
        "warn": f"Past {cap:,} calls go on with a warning.",
    }[quota.on_exceed]
    return words if hard is None else f"{words} {refused(hard, 'HARD_CAP')}"


def _settling(license: License) -> Iterator[str]:
    if license.receipts != "required":
        yield "Nothing has to be settled: what is counted stays on the machine."
    lease = license.lease
    if lease == LeaseTerms():
        if license.receipts == "required":
            yield "Usage is settled when the issuer asks: `sealpack sync DIR`. Nothing stops without it."
        return
    if not lease.required:
        yield "No machine stops because usage was not settled in time."
    late = _late(license)
    if lease.max_age_s is not None:
        rule = "at least every" if lease.required else "it is agreed to settle every"
        yield (
            f"Settle usage {rule} {_span(lease.max_age_s)}: `sealpack sync DIR`, send the files to the "
            "issuer, and `sealpack sync DIR` again with the reply."
        )
        if lease.required:
            warned = lease.max_age_s // 3 if lease.warn_s is None else lease.warn_s
            yield f"{_span(warned)} before that it warns. Later {late} (LEASE_STALE)."
    elif lease.required:
        yield "Each machine needs a lease from the issuer; it comes with the activation."
    for allowance in lease.allowance:
        yield (
            f"Between two settlements {_units(allowance.meter, allowance.amount)} on each machine. "
            f"Past them {late} (UNSETTLED_LIMIT)."
        )
    if lease.on_stale == "deny" and license.enforcement == "enforce":
        yield (
            'If work must go on and nobody can settle: `sealpack status --break-glass "REASON"` gives 7 more '
            "days, once for each lease. It is recorded, and usage is billed as always."
        )


def _late(license: License) -> str:
    if license.enforcement == "advisory":
        return "calls go on with a warning"
    return {
        "deny": "calls are refused until usage was settled",
        "throttle": "each call waits one second first",
        "warn": "calls go on with a warning",
    }[license.lease.on_stale]


def _costs(license: License) -> Iterator[str]:
    yield _BILLING[license.billing]
    if license.plan is not None:
        yield f"Prices stand in the price plan {license.plan.id}, version {license.plan.version}, not here."


def _seen(license: License) -> Iterator[str]:
    if license.receipts == "required":
        yield (
            "When you send usage files, the issuer sees: how many calls, tokens, rows and milliseconds, and "
            "when; on which of your machines and with which model; whether they went well; which limits were "
            "reached; the machine's clock; and the names of cost centres where you give them."
        )
    elif license.receipts == "local":
        yield "Receipts are kept on the machine for your own accounts; the issuer sees nothing of them."
    else:
        yield "No receipts are asked for; the issuer sees nothing."
    yield (
        "Never: what you ask and what is answered, names of users or patients, addresses, or anything that "
        "could be computed back into them. The program opens no connection to anybody."
    )
    if license.watermark is not None:
        yield _MARKS[license.watermark]


def _use(license: License) -> Iterator[str]:
    use = license.use
    if use.allow:
        yield f"Agreed: {_listed(use.allow)}."
    if use.deny:
        yield f"Not agreed: {_listed(use.deny)}."
    if use.attribution:
        yield f"To be named as: {use.attribution}"
    yield "No program can check this, and none does: it is between you and the issuer."
    named = f" ({use.spdx})" if use.spdx else ""
    yield (
        f"The full legal text{named} comes with the bundle: `sealpack terms show BUNDLE`, fingerprint "
        f"{use.terms_digest}. Where it and this page differ, it counts."
    )
    if use.ack_required:
        yield "It has to be accepted before the first call: `sealpack terms accept BUNDLE`."


def _support(license: License) -> Iterator[str]:
    yield license.support or f"{license.issuer}; the license names no other contact."
    yield "How things stand on a machine: `sealpack status`."


# --- the page -------------------------------------------------------------------------------------------


def to_dict(license: License) -> dict[str, Any]:
    """The page for programs."""
    page = [{"title": s.title, "lines": list(s.lines)} for s in sections(license)]
    return {"schema": SCHEMA, "license_id": license.license_id, "digest": license.digest, "sections": page}


def to_text(license: License) -> str:
    """The page for a terminal."""
    return "\n\n".join("\n".join((s.title, *(f"  - {line}" for line in s.lines))) for s in sections(license))


def to_markdown(license: License) -> str:
    """The page as Markdown."""
    parts = [f"# License {_md(license.license_id)}"]
    parts += ["\n".join((f"## {s.title}", "", *(f"- {_md(x)}" for x in s.lines))) for s in sections(license)]
    return "\n\n".join(parts)


def _md(text: str) -> str:
    """Text in which nothing but our own code spans is markup: names come from documents."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _escaped(text)
    return "`".join(_escaped(part) if n % 2 == 0 else part for n, part in enumerate(parts))


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|&" else char for char in text)


def to_html(license: License) -> str:
    """The page as one HTML file that loads nothing."""
    title = f"License {license.license_id}"
    body = [element("h1", title)]
    for section in sections(license):
        body += [element("h2", section.title), bullets(section.lines)]
    head = (Html('<meta charset="utf-8">'), element("title", title), element("style", Html(_STYLE)))
    lines = Html("\n").join((*head, *body))
    return f'<!doctype html>\n<html lang="en">\n{lines}\n</html>'


_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-bottom: 0 } ul { margin-top: .3rem }
"""
