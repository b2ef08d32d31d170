"""The meet of two licenses: what both allow, field by field.

Source: specs/sublicense.md, "Meet". Every member of a license has one rule in :data:`RULES`: when a value is
wider than another, and what is left when both hold. A field without a rule fails the tests. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from sealpack.format.license import (
    BINDINGS,
    ON_STALE,
    RECEIPTS,
    Allowance,
    BundleGrant,
    ClockRules,
    Devices,
    LeaseTerms,
    License,
    Provisional,
    Quota,
    Rate,
    Use,
    version_key,
)

_ENFORCEMENT = ("advisory", "enforce")
_ANY = "any"  # of `use.allow`: every use
_PAST_CAP = ("warn", "bill", "throttle", "deny")  # from the widest to the narrowest


@dataclass(frozen=True, slots=True)
class Rule:
    """How one field is compared and met.

    `wider(a, b)` is the path in which `a` is wider than `b`, or None; `meet(a, b)` the field of both, `b`
    being the lower one of the chain.
    """

    wider: Callable[[License, License], str | None]
    meet: Callable[[License, License], Any]


def wider(a: License, b: License, names: Iterable[str] | None = None) -> str | None:
    """The first path in which `a` allows more than `b`, or None; `names` are the fields to look at."""
    chosen = RULES if names is None else [name for name in RULES if name in set(names)]
    found = (RULES[name].wider(a, b) for name in chosen)
    return next((path for path in found if path is not None), None)


def narrower(a: License, b: License) -> bool:
    """Whether `a` allows nothing that `b` does not."""
    return wider(a, b) is None


def meet(upper: License, lower: License) -> License:
    """What both allow. Who it is for and how it is named comes from `lower`, who bills from `upper`."""
    return replace(lower, **{name: rule.meet(upper, lower) for name, rule in RULES.items()})


# --- rules of one value ---------------------------------------------------------------------------------


def _more(a: int | None, b: int | None) -> bool:
    """Whether `a` is more than `b`; None is unlimited."""
    return b is not None and (a is None or a > b)


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _least_rule(name: str) -> Rule:
    """The smaller one; None is unlimited."""
    get = attrgetter(name)
    return Rule(
        lambda a, b: name if _more(get(a), get(b)) else None,
        lambda a, b: _least(get(a), get(b)),
    )


def _latest_rule(name: str) -> Rule:
    get = attrgetter(name)
    return Rule(lambda a, b: name if get(a) < get(b) else None, lambda a, b: max(get(a), get(b)))


def _ranked_rule(name: str, order: Sequence[str]) -> Rule:
    """The one that stands later in `order`, which goes from the widest to the narrowest."""
    get = attrgetter(name)
    return Rule(
        lambda a, b: name if order.index(get(a)) < order.index(get(b)) else None,
        lambda a, b: max(get(a), get(b), key=order.index),
    )


def _upper_rule(name: str) -> Rule:
    """The upper one's alone; another value is refused: it would change who bills, or how."""
    get = attrgetter(name)
    return Rule(lambda a, b: name if get(a) != get(b) else None, lambda a, b: get(a))


def _lower_rule(name: str) -> Rule:
    """The lower one's own: names and texts allow nothing."""
    get = attrgetter(name)
    return Rule(lambda a, b: None, lambda a, b: get(b))


# --- bundles --------------------------------------------------------------------------------------------


def _bundles_wider(a: License, b: License) -> str | None:
    for i, grant in enumerate(a.bundles):
        whole = _grant(grant, grant)  # None when its versions exclude each other
        if whole is not None and not any(_grant(grant, other) == whole for other in b.bundles):
            return f"bundles[{i}]"
    return None


def _spelled(version: str | None) -> str | None:
    """A version spelled one way: `1.2.0` is `1.2`."""
    return None if version is None else ".".join(map(str, version_key(version))) or "0"


def _grant(a: BundleGrant, b: BundleGrant) -> BundleGrant | None:
    """What both grants cover; None when nothing can be."""
    digests = {a.bundle_digest, b.bundle_digest} - {None}
    if a.id != b.id or len(digests) > 1:
        return None
    low = [v for v in (_spelled(a.min_version), _spelled(b.min_version)) if v is not None]
    high = [v for v in (_spelled(a.max_version), _spelled(b.max_version)) if v is not None]
    least, most = max(low, key=version_key, default=None), min(high, key=version_key, default=None)
    if least is not None and most is not None and version_key(least) > version_key(most):
        return None
    return BundleGrant(a.id, least, most, next(iter(digests), None))


def _bundles_meet(a: License, b: License) -> tuple[BundleGrant, ...]:
    both = (_grant(upper, lower) for lower in b.bundles for upper in a.bundles)
    return tuple(dict.fromkeys(grant for grant in both if grant is not None))


# --- use ------------------------------------------------------------------------------------------------


def _use_wider(a: License, b: License) -> str | None:
    mine, other = a.use, b.use
    if _ANY not in other.allow and not set(mine.allow) <= set(other.allow):
        return "use.allow"
    if not set(other.deny) <= set(mine.deny):
        return "use.deny"
    if other.ack_required and not mine.ack_required:
        return "use.ack_required"
    fixed = ("terms_digest", "spdx", "attribution")  # the terms themselves are the licensor's
    return next((f"use.{name}" for name in fixed if getattr(mine, name) != getattr(other, name)), None)


def _use_meet(a: License, b: License) -> Use:
    upper, lower = a.use, b.use
    if _ANY in upper.allow:
        allow = lower.allow
    elif _ANY in lower.allow:
        allow = upper.allow
    else:
        allow = tuple(word for word in lower.allow if word in upper.allow)
    deny = tuple(dict.fromkeys((*upper.deny, *lower.deny)))
    required = upper.ack_required or lower.ack_required
    return replace(upper, allow=allow, deny=deny, ack_required=required)


# --- devices, limits, quota, lease, provisional ---------------------------------------------------------


def _devices_wider(a: License, b: License) -> str | None:
    mine, other = a.devices, b.devices
    if BINDINGS.index(mine.binding) < BINDINGS.index(other.binding):
        return "devices.binding"
    if _more(mine.max, other.max):
        return "devices.max"
    both = ("vm", "container")
    return next((f"devices.{name}" for name in both if getattr(mine, name) > getattr(other, name)), None)


def _devices_meet(a: License, b: License) -> Devices:
    x, y = a.devices, b.devices
    binding = max(x.binding, y.binding, key=BINDINGS.index)
    return Devices(binding, _least(x.max, y.max), x.vm and y.vm, x.container and y.container)


def _rates(license: License) -> Rate:
    """The limits with the burst spelled out: without one it is the calls of a second."""
    limits = license.limits
    return replace(limits, burst=limits.qps if limits.burst is None else limits.burst)


_RATES = ("qps", "burst", "inflight", "processes")


def _limits_wider(a: License, b: License) -> str | None:
    mine, other = _rates(a), _rates(b)
    return next((f"limits.{n}" for n in _RATES if _more(getattr(mine, n), getattr(other, n))), None)


def _limits_meet(a: License, b: License) -> Rate:
    upper, lower = _rates(a), _rates(b)
    return Rate(*(_least(getattr(upper, name), getattr(lower, name)) for name in _RATES))


def per_device(license: License) -> tuple[Quota, ...]:
    """The quotas as one device keeps them: a license-wide one for the term is shared out equally.

    The seats of the license that states it count, so that fewer seats below do not make larger shares.
    """
    seats = license.devices.max or 1
    return tuple(
        replace(
            rule,
            scope="device",
            cap=rule.cap // seats,
            hard_cap=None if rule.hard_cap is None else rule.hard_cap // seats,
        )
        if (rule.scope, rule.window) == ("license", "term")
        else rule
        for rule in license.quota
    )


def _keeps(a: Quota, b: Quota) -> bool:
    """Whether whoever keeps `a` keeps `b` too."""
    return (
        (a.meter, a.window, a.scope) == (b.meter, b.window, b.scope)
        and a.cap <= b.cap
        and not _more(_end(a), _end(b))
        and _PAST_CAP.index(a.on_exceed) >= _PAST_CAP.index(b.on_exceed)
    )


def _end(rule: Quota) -> int | None:
    """Where a rule stops for good."""
    return rule.cap if rule.on_exceed == "deny" else rule.hard_cap


def _quota_wider(a: License, b: License) -> str | None:
    """Whether `a` lacks a rule of `b`, or has a weaker one in its place."""
    mine = per_device(a)
    for rule in per_device(b):
        if not any(_keeps(own, rule) for own in mine):
            return "quota"
    return None


def _quota_meet(a: License, b: License) -> tuple[Quota, ...]:
    """Both lists count; a rule that another one keeps anyway is left out."""
    kept: list[Quota] = []
    for rule in (*per_device(a), *per_device(b)):
        if not any(_keeps(other, rule) for other in kept):
            kept = [*(other for other in kept if not _keeps(rule, other)), rule]
    return tuple(kept)


def _lease_wider(a: License, b: License) -> str | None:
    mine, other = a.lease, b.lease
    if other.required and not mine.required:
        return "lease.required"
    if _more(mine.max_age_s, other.max_age_s):
        return "lease.max_age_s"
    if (mine.warn_s or 0) < (other.warn_s or 0):
        return "lease.warn_s"
    if ON_STALE.index(mine.on_stale) > ON_STALE.index(other.on_stale):
        return "lease.on_stale"
    allowed = {entry.meter: entry.amount for entry in mine.allowance}
    if any(_more(allowed.get(entry.meter), entry.amount) for entry in other.allowance):
        return "lease.allowance"
    return None


def _lease_meet(a: License, b: License) -> LeaseTerms:
    x, y = a.lease, b.lease
    warn = [value for value in (x.warn_s, y.warn_s) if value is not None]
    amounts: dict[str, int] = {}
    for entry in (*x.allowance, *y.allowance):
        amounts[entry.meter] = min(entry.amount, amounts.get(entry.meter, entry.amount))
    return LeaseTerms(
        x.required or y.required,
        _least(x.max_age_s, y.max_age_s),
        max(warn, default=None),
        min(x.on_stale, y.on_stale, key=ON_STALE.index),
        tuple(Allowance(meter, amount) for meter, amount in amounts.items()),
    )


def _provisional_wider(a: License, b: License) -> str | None:
    mine, other = a.provisional, b.provisional
    if mine is None:
        return None
    if other is None:
        return "provisional"
    return next(
        (f"provisional.{n}" for n in ("s", "calls") if getattr(mine, n) > getattr(other, n)),
        None,
    )


def _provisional_meet(a: License, b: License) -> Provisional | None:
    x, y = a.provisional, b.provisional
    return None if x is None or y is None else Provisional(min(x.s, y.s), min(x.calls, y.calls))


def _features_wider(a: License, b: License) -> str | None:
    return None if set(a.features) <= set(b.features) else "features"


def _features_meet(a: License, b: License) -> tuple[str, ...]:
    return tuple(word for word in b.features if word in a.features)


def _not_handed_on(name: str) -> Rule:
    """Nothing below has it."""
    get = attrgetter(name)
    return Rule(lambda a, b: name if get(a) not in (None, get(b)) else None, lambda a, b: None)


def _denies_back(license: License) -> bool:
    return license.clock is not None and license.clock.on_back == "deny"


def _clock_meet(a: License, b: License) -> ClockRules | None:
    return b.clock if _denies_back(b) or a.clock is None else a.clock


# In the order in which a reader meets them. `digest` and `parent_id` are no members of the document.
RULES: dict[str, Rule] = {
    "license_id": _lower_rule("license_id"),
    "seq": _lower_rule("seq"),
    "issued_at": Rule(lambda a, b: None, lambda a, b: a.issued_at),  # the only one the issuer vouches for
    "issuer": _upper_rule("issuer"),
    "customer": _lower_rule("customer"),  # the end customer; who is billed stands in the parent
    "bundles": Rule(_bundles_wider, _bundles_meet),
    "use": Rule(_use_wider, _use_meet),
    "devices": Rule(_devices_wider, _devices_meet),
    "tier": _upper_rule("tier"),
    "billing": _upper_rule("billing"),
    "environment": _upper_rule("environment"),  # `test` is not billed, `live` is not what was sold as a test
    "enforcement": _ranked_rule("enforcement", _ENFORCEMENT),
    "support": _lower_rule("support"),
    "device_label": _lower_rule("device_label"),
    "order_ref": _lower_rule("order_ref"),
    "nbf": _latest_rule("nbf"),
    "exp": _least_rule("exp"),
    "term_s": _least_rule("term_s"),
    "grace_s": _least_rule("grace_s"),
    "updates_until": _least_rule("updates_until"),
    "features": Rule(_features_wider, _features_meet),
    "provisional": Rule(_provisional_wider, _provisional_meet),
    "limits": Rule(_limits_wider, _limits_meet),
    "quota": Rule(_quota_wider, _quota_meet),
    "lease": Rule(_lease_wider, _lease_meet),
    "receipts": _ranked_rule("receipts", RECEIPTS),
    "watermark": _upper_rule("watermark"),
    "plan": _upper_rule("plan"),
    "issued_under": _upper_rule("issued_under"),
    "clock": Rule(
        lambda a, b: "clock.on_back" if _denies_back(b) and not _denies_back(a) else None, _clock_meet
    ),
    "site_keys": _not_handed_on("site_keys"),
    "delegation": _not_handed_on("delegation"),  # one step, never two
}
