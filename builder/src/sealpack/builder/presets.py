"""Named license profiles: the usual ways to sell a model, as one table.

Source: specs/license.md, "Presets". A preset is only a set of defaults for `license issue`; what counts
is what the issued license says.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealpack.format.license import ClockRules, LeaseTerms, Provisional, Quota, Rate

DAY = 86400
_UNLIMITED = Rate()
_NO_LEASE = LeaseTerms()


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults for a license.

    `term` is "forever", "first-start" (counts from the first start), "year" (calendar) or "contract"
    (must be given). `over` says what a quota given without its own rule does past its cap, and
    `hard_percent` where its hard cap lies, in percent of the cap.
    """

    allow: tuple[str, ...]
    deny: tuple[str, ...] = ()
    binding: str = "none"
    devices: int | None = None
    vm: bool = True
    container: bool = True
    term: str = "forever"
    term_s: int | None = None
    grace_s: int = 0
    limits: Rate = _UNLIMITED
    quota: tuple[Quota, ...] = ()
    over: str = "deny"
    hard_percent: int | None = None
    lease: LeaseTerms = _NO_LEASE
    watermark: str = "no"
    billing: str = "one_time"
    receipts: str = "required"
    provisional: Provisional | None = None
    clock: ClockRules | None = None


def _settle_every(days: int) -> LeaseTerms:
    """A lease that ends after `days`, with a warning for the last third."""
    return LeaseTerms(True, days * DAY, days * DAY // 3, "deny")


PRESETS: dict[str, Preset] = {
    "open_source": Preset(allow=("any",), receipts="local"),
    "free_dev": Preset(
        allow=("evaluation",),
        deny=("production",),
        term="first-start",
        term_s=30 * DAY,
        limits=Rate(qps=1, burst=2, inflight=1),
        quota=(Quota("calls", "day", "device", 1000, None, "deny"),),
        watermark="visible",
        receipts="local",
    ),
    "academic": Preset(
        allow=("research",),
        deny=("business",),
        binding="key",
        devices=10,
        term="year",
        grace_s=30 * DAY,
        limits=Rate(qps=5, inflight=2),
        quota=(Quota("calls", "month", "device", 100_000, None, "throttle"),),
        over="throttle",
        watermark="hidden",
    ),
    "pro": Preset(
        allow=("business",),
        binding="key+fp",
        devices=2,
        term="year",
        grace_s=14 * DAY,
        limits=Rate(qps=10, inflight=4),
        over="bill",
        hard_percent=125,
        lease=_settle_every(45),
        watermark="hidden",
        billing="subscription",
    ),
    "commercial": Preset(
        allow=("business",),
        binding="key+fp",
        term="year",
        grace_s=30 * DAY,
        over="bill",
        lease=_settle_every(90),
        watermark="hidden",
        billing="committed",
    ),
    "enterprise": Preset(
        allow=("business", "affiliates", "unlimited-deployment"),
        binding="key",
        term="contract",
        grace_s=60 * DAY,
        over="warn",
        lease=_settle_every(400),
        watermark="optional",
        billing="committed",
    ),
}
