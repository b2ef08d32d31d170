"""The one rule for lease ceilings, used by the issuer's first lease and by every acknowledgement.

Source: specs/activation.md, "Ceilings". A ceiling is absolute: the most a cumulative register of this log
may ever reach. It is what settlement has seen, plus what the license lets a site use before it settles
again (`lease.allowance`); a term quota caps it further. Meters without either are not capped by the lease:
their windowed quotas are the device's own business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sealpack.format.activation import Ceiling, Lease
from sealpack.format.license import IssuedUnder, License, Quota
from sealpack.format.values import METERS


def ceilings(
    license: License, settled: Mapping[str, int], shares: Iterable[Ceiling] = ()
) -> tuple[Ceiling, ...]:
    """Ceilings per meter; `settled` maps meters to cumulative settled amounts of this log.

    `shares` are the activation's, in place of the equal parts.

    A quota of a day or a month renews, so no cumulative number follows from it. A license-wide quota is
    shared out equally among the license's devices: offline, only a partition can keep it.
    """
    allowed = {a.meter: settled.get(a.meter, 0) + a.amount for a in license.lease.allowance}
    own = {share.meter: share.limit for share in shares}
    for quota in license.quota:
        share = device_share(quota, license.devices.max)
        if share is not None and quota.scope == "license":
            share = own.get(quota.meter, share)
        if share is not None:
            allowed[quota.meter] = min(share, allowed.get(quota.meter, share))
    return tuple(Ceiling(meter, allowed[meter]) for meter in METERS if meter in allowed)


def device_share(quota: Quota, devices: int | None) -> int | None:
    """The most one device may use under a term quota in the license's whole life; None: no such bound."""
    if quota.window != "term" or quota.on_exceed not in ("deny", "bill"):
        return None
    most = quota.hard_cap if quota.hard_cap is not None or quota.on_exceed == "bill" else quota.cap
    if most is None:
        return None
    return most // (devices or 1) if quota.scope == "license" else most


def next_lease(
    license: License,
    device_id: str,
    epoch: int,
    lease_seq: int,
    now: int,
    settled: Mapping[str, int],
    issued_under: IssuedUnder | None = None,
    shares: Iterable[Ceiling] = (),
) -> Lease:
    """The lease to give at `now`; it expires after `lease.max_age_s`, never when that is absent.

    `issued_under` are the trust documents that go with it; `shares` the activation's.
    """
    age = license.lease.max_age_s
    return Lease(
        license.license_id,
        device_id,
        epoch,
        lease_seq,
        now,
        None if age is None else now + age,
        ceilings(license, settled, shares),
        issued_under,
    )
