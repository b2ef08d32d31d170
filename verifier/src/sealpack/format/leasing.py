"""The one rule for lease ceilings, used by the issuer's first lease and by every acknowledgement.

Source: specs/activation.md, "Ceilings". A ceiling is absolute: the most a cumulative register of this log
may ever reach. It is what settlement has seen, plus what the license lets a site use before it settles
again (`lease.allowance`); a term quota caps it further. Meters without either are not capped by the lease:
their windowed quotas are the device's own business.
"""

from __future__ import annotations

from collections.abc import Mapping

from sealpack.format.activation import Ceiling, Lease
from sealpack.format.license import License, Quota
from sealpack.format.values import METERS


def ceilings(license: License, settled: Mapping[str, int]) -> tuple[Ceiling, ...]:
    """Ceilings per meter; `settled` maps meters to cumulative settled amounts of this log."""
    allowed = {a.meter: settled.get(a.meter, 0) + a.amount for a in license.lease.allowance}
    for quota in license.quota:
        if quota.window == "term":
            limit = _stop(quota)
            if limit is not None:
                allowed[quota.meter] = min(limit, allowed.get(quota.meter, limit))
    return tuple(Ceiling(meter, allowed[meter]) for meter in METERS if meter in allowed)


def _stop(quota: Quota) -> int | None:
    """Where a quota stops calls: its cap when it denies, else its hard cap."""
    return quota.cap if quota.on_exceed == "deny" else quota.hard_cap


def next_lease(
    license: License, device_id: str, epoch: int, lease_seq: int, now: int, settled: Mapping[str, int]
) -> Lease:
    """The lease to give at `now`; it expires after `lease.max_age_s`, never when that is absent."""
    age = license.lease.max_age_s
    return Lease(
        license.license_id,
        device_id,
        epoch,
        lease_seq,
        now,
        None if age is None else now + age,
        ceilings(license, settled),
    )
