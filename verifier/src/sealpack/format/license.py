"""The license: what a customer may do with which bundles, until when, and how much.

Source: specs/license.md. Times are Unix seconds UTC, intervals [nbf, exp). Quantities are integers;
an absent quantity means unlimited and 0 means none. What the fields *cause* is the runtime's business
(admission); here they are only read and checked for sense.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import ML_DSA, PublicKey
from sealpack.format.site_key import MAX_SITE_KEYS, SiteKey
from sealpack.format.trust import NAMESPACE, Trust
from sealpack.format.values import IDENTIFIER, METERS, VERSION_PATTERN, plain

BINDINGS = ("none", "key", "key+fp", "tpm")
WINDOWS = ("day", "month", "term")
ON_EXCEED = ("deny", "bill", "throttle", "warn")
ON_BACK = ("continue", "deny")
ON_STALE = ("deny", "throttle", "warn")
BILLING = ("one_time", "subscription", "metered", "committed")
RECEIPTS = ("none", "local", "required")
MAX_DELEGATES = 8
MAX_BUNDLE_KEYS = 64  # more would not fit into a document


@dataclass(frozen=True, slots=True)
class Customer:
    """Who the license is for."""

    id: str
    name: str

    @classmethod
    def parse(cls, f: Fields) -> Customer:
        """Read one."""
        return cls(f.text("id", pattern=IDENTIFIER), f.text("name", max_len=300))


@dataclass(frozen=True, slots=True)
class BundleGrant:
    """A bundle the license covers: a version range, or exactly one build by digest."""

    id: str
    min_version: str | None = None
    max_version: str | None = None
    bundle_digest: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> BundleGrant:
        """Read one."""
        return cls(
            f.text("id", pattern=NAMESPACE),
            f.text("min_version", pattern=VERSION_PATTERN, default=None),
            f.text("max_version", pattern=VERSION_PATTERN, default=None),
            f.digest("bundle_digest", default=None),
        )

    def covers(self, bundle_id: str, version: str, bundle_digest: str) -> bool:
        """Whether this grant covers that build."""
        if self.bundle_digest is not None and self.bundle_digest != bundle_digest:
            return False
        number = version_key(version)
        return (
            self.id == bundle_id
            and (self.min_version is None or version_key(self.min_version) <= number)
            and (self.max_version is None or number <= version_key(self.max_version))
        )


def version_key(version: str) -> tuple[int, ...]:
    """Versions compare by their dotted numbers; `1.2` equals `1.2.0`."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


@dataclass(frozen=True, slots=True)
class Use:
    """Declared use: shown, acknowledged, stamped in the log; never enforced and never claimed to be."""

    terms_digest: str
    spdx: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    attribution: str | None = None
    ack_required: bool = False

    @classmethod
    def parse(cls, f: Fields) -> Use:
        """Read one."""
        return cls(
            f.digest("terms_digest"),
            f.text("spdx", max_len=200, default=None),
            f.texts("allow", default=(), max_items=64),
            f.texts("deny", default=(), max_items=64),
            f.text("attribution", max_len=1000, default=None),
            f.boolean("ack_required", default=False),
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """A cap on one meter in one window.

    `cap` is what is included; past it `on_exceed` decides. `hard_cap` stops even a billing quota.
    """

    meter: str
    window: str
    scope: str
    cap: int
    hard_cap: int | None
    on_exceed: str

    @classmethod
    def parse(cls, f: Fields) -> Quota:
        """Read one; a hard cap below the cap makes no sense."""
        cap, hard = f.integer("cap"), f.integer("hard_cap", default=None)
        if hard is not None and hard < cap:
            raise f.fail("hard_cap", "is below cap")
        return cls(
            f.choice("meter", METERS),
            f.choice("window", WINDOWS),
            f.choice("scope", ("device", "license")),
            cap,
            hard,
            f.choice("on_exceed", ON_EXCEED),
        )


@dataclass(frozen=True, slots=True)
class Devices:
    """How many machines, and how tightly the license is bound to each."""

    binding: str = "none"
    max: int | None = None
    vm: bool = True
    container: bool = True

    @classmethod
    def parse(cls, f: Fields) -> Devices:
        """Read one."""
        return cls(
            f.choice("binding", BINDINGS),
            f.integer("max", default=None),
            f.boolean("vm", default=True),
            f.boolean("container", default=True),
        )


@dataclass(frozen=True, slots=True)
class Rate:
    """Limits per second and at once; absent is unlimited."""

    qps: int | None = None
    burst: int | None = None
    inflight: int | None = None
    processes: int | None = None

    @classmethod
    def parse(cls, f: Fields) -> Rate:
        """Read one."""
        return cls(*(f.integer(name, default=None) for name in ("qps", "burst", "inflight", "processes")))


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of a meter a site may use before it settles again."""

    meter: str
    amount: int

    @classmethod
    def parse(cls, f: Fields) -> Allowance:
        """Read one."""
        return cls(f.choice("meter", METERS), f.integer("amount"))


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How often usage must be settled for the license to go on, and how much may run up meanwhile."""

    required: bool = False
    max_age_s: int | None = None
    warn_s: int | None = None
    on_stale: str = "warn"
    allowance: tuple[Allowance, ...] = ()

    @classmethod
    def parse(cls, f: Fields) -> LeaseTerms:
        """Read one."""
        return cls(
            f.boolean("required"),
            f.integer("max_age_s", default=None),
            f.integer("warn_s", default=None),
            f.choice("on_stale", ON_STALE, default="deny"),
            f.objects("allowance", Allowance.parse, max_items=len(METERS), default=()),
        )


@dataclass(frozen=True, slots=True)
class PlanRef:
    """The price plan that rates this license's usage."""

    id: str
    version: int

    @classmethod
    def parse(cls, f: Fields) -> PlanRef:
        """Read one."""
        return cls(f.text("id", pattern=IDENTIFIER), f.integer("version", lo=1))


@dataclass(frozen=True, slots=True)
class IssuedUnder:
    """Versions of the trust documents that existed when a document was issued: no device may know less."""

    root: int
    revocations: int

    @classmethod
    def parse(cls, f: Fields) -> IssuedUnder:
        """Read one."""
        return cls(f.integer("root", lo=1), f.integer("revocations", lo=1))

    @classmethod
    def of(cls, trust: Trust) -> IssuedUnder:
        """What is known now."""
        return cls(trust.root.version, trust.revocations.version)

    def is_newer_than(self, root: int, revocations: int) -> bool:
        """Whether who knows these versions lacks something; lists begin anew with a root (specs/trust.md)."""
        return self.root > root or (self.root == root and self.revocations > revocations)


@dataclass(frozen=True, slots=True)
class Delegation:
    """Who may give out sub-licenses below a license (specs/sublicense.md), and to how many machines.

    `keys` are public keys in PEM; `bundle_keys` the keys of encrypted builds, wrapped for the delegate.
    """

    keys: tuple[str, ...]
    max_devices: int | None = None
    bundle_keys: tuple[WrappedKey, ...] = ()

    @classmethod
    def parse(cls, f: Fields) -> Delegation:
        """Read one."""
        return cls(
            f.array("keys", lambda item, path: _delegate_key(item, path, f.code), max_items=MAX_DELEGATES),
            f.integer("max_devices", default=None),
            f.objects("bundle_keys", WrappedKey.parse, max_items=MAX_BUNDLE_KEYS, default=()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The member."""
        members: dict[str, Any] = plain(self, leave_out=("bundle_keys",))
        wrapped = [key.to_dict() for key in self.bundle_keys]
        return {**members, **({"bundle_keys": wrapped} if wrapped else {})}


def _delegate_key(item: Any, path: str, code: str) -> str:
    try:
        key = PublicKey.from_pem(item if isinstance(item, str) else "")
    except SealpackError as error:
        raise SealpackError(code, f"{path}: {error.message}") from None
    if key.scheme == ML_DSA:
        raise SealpackError(code, f"{path} is an {ML_DSA} key: that only signs beside another")
    return key.pem


@dataclass(frozen=True, slots=True)
class Provisional:
    """What an install may do before it is activated: seconds and calls, once."""

    s: int
    calls: int

    @classmethod
    def parse(cls, f: Fields) -> Provisional:
        """Read one."""
        return cls(f.integer("s"), f.integer("calls"))


@dataclass(frozen=True, slots=True)
class ClockRules:
    """What a wall clock more than 24 h behind accepted time does: `continue` with a warning, or `deny`."""

    on_back: str

    @classmethod
    def parse(cls, f: Fields) -> ClockRules:
        """Read one."""
        return cls(f.choice("on_back", ON_BACK, default="continue"))


@dataclass(frozen=True, slots=True)
class License:
    """A verified license. `digest` names this very document in other ones."""

    license_id: str
    seq: int
    issued_at: int
    issuer: str
    customer: Customer
    bundles: tuple[BundleGrant, ...]
    use: Use
    devices: Devices
    tier: str
    billing: str
    environment: str = "live"
    enforcement: str = "enforce"
    support: str | None = None
    device_label: str | None = None
    order_ref: str | None = None
    nbf: int = 0
    exp: int | None = None
    term_s: int | None = None
    grace_s: int = 0
    updates_until: int | None = None
    features: tuple[str, ...] = ()
    provisional: Provisional | None = None
    limits: Rate = Rate()
    quota: tuple[Quota, ...] = ()
    lease: LeaseTerms = LeaseTerms()
    receipts: str = "required"
    watermark: str | None = None
    plan: PlanRef | None = None
    issued_under: IssuedUnder | None = None
    clock: ClockRules | None = None
    site_keys: tuple[SiteKey, ...] | None = None
    delegation: Delegation | None = None
    parent_id: str | None = None  # of the license a sub-license stands below; no member of the document
    digest: str = field(default="", compare=False)

    @classmethod
    def parse(cls, f: Fields, digest: str = "") -> License:
        """Read a verified payload; LIC_SCHEMA names the field that is wrong."""
        f.crit(())
        exp, term_s = f.integer("exp", default=None), f.integer("term_s", default=None)
        nbf = f.integer("nbf", default=0)
        if exp is not None and (term_s is not None or exp <= nbf):
            raise f.fail("exp", "must be after nbf, and stand alone without term_s")
        limits, lease = f.sub("limits", default=None), f.sub("lease", default=None)
        plan, provisional = f.sub("plan", default=None), f.sub("provisional", default=None)
        return cls(
            license_id=f.text("license_id", pattern=IDENTIFIER),
            seq=f.integer("seq", lo=1),
            issued_at=f.integer("issued_at"),
            issuer=f.text("issuer", max_len=200),
            customer=Customer.parse(f.sub("customer")),
            bundles=f.objects("bundles", BundleGrant.parse, max_items=256),
            use=Use.parse(f.sub("use")),
            devices=Devices.parse(f.sub("devices")),
            tier=f.text("tier", max_len=64),
            billing=f.choice("billing", BILLING),
            environment=f.choice("environment", ("live", "test"), default="live"),
            enforcement=f.choice("enforcement", ("enforce", "advisory"), default="enforce"),
            support=f.text("support", max_len=300, default=None),
            device_label=f.text("device_label", max_len=100, default=None),
            order_ref=f.text("order_ref", max_len=200, default=None),
            nbf=nbf,
            exp=exp,
            term_s=term_s,
            grace_s=f.integer("grace_s", default=0),
            updates_until=f.integer("updates_until", default=None),
            features=f.texts("features", default=(), max_items=256),
            provisional=Provisional.parse(provisional) if provisional else None,
            limits=Rate.parse(limits) if limits else Rate(),
            quota=f.objects("quota", Quota.parse, max_items=64, default=()),
            lease=LeaseTerms.parse(lease) if lease else LeaseTerms(),
            receipts=f.choice("receipts", RECEIPTS, default="required"),
            watermark=f.choice("watermark", ("no", "visible", "hidden", "optional"), default=None),
            plan=PlanRef.parse(plan) if plan else None,
            issued_under=IssuedUnder.parse(under) if (under := f.sub("issued_under", default=None)) else None,
            clock=ClockRules.parse(clock) if (clock := f.sub("clock", default=None)) else None,
            site_keys=f.objects("site_keys", SiteKey.parse, max_items=MAX_SITE_KEYS, default=None),
            delegation=_delegation(f),
            digest=digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`; absent members are left out."""
        members: dict[str, Any] = plain(self, leave_out=("digest", "delegation", "parent_id"))
        if self.delegation is not None:
            members["delegation"] = self.delegation.to_dict()
        return members

    def covers(self, bundle_id: str, version: str, bundle_digest: str) -> bool:
        """Whether a build is licensed here."""
        return any(grant.covers(bundle_id, version, bundle_digest) for grant in self.bundles)


def _delegation(f: Fields) -> Delegation | None:
    """Only a license that binds devices can be delegated: what a file alone opens needs no sub-license."""
    found = f.sub("delegation", default=None)
    if found is None:
        return None
    if f.sub("devices").text("binding") == "none":
        raise f.fail("delegation", "needs devices.binding other than none")
    return Delegation.parse(found)


def open_license(envelope: Envelope, trust: Trust) -> License:
    """Verify and read a license.

    LIC_KEY_UNTRUSTED when the signer may not issue it, LIC_SIG_INVALID when the signature is wrong,
    LIC_UNREADABLE or LIC_SCHEMA when the content is. A key's namespaces must cover every bundle id.
    """
    if documents.kind_of(envelope) != "license":
        raise SealpackError("DOC_TYPE", f"this is a {documents.kind_of(envelope)}, expected a license")
    try:
        entry = trust.verify(envelope, "license")
    except SealpackError as error:
        code = _LICENSE_CODES.get(error.code)
        if code is None:
            raise
        raise SealpackError(code, f"license: {error.message}") from None
    license = License.parse(documents.payload_fields(envelope, "license", "LIC_SCHEMA"), envelope.digest)
    for grant in license.bundles:
        if not entry.covers(grant.id):
            raise SealpackError("LIC_KEY_UNTRUSTED", f"{entry.issuer} may not license {grant.id}")
    if entry.issuer != license.issuer:
        raise SealpackError("LIC_KEY_UNTRUSTED", f"issuer {license.issuer!r} is not the key's owner")
    return license


_LICENSE_CODES = {
    "SIG_KEY_UNKNOWN": "LIC_KEY_UNTRUSTED",
    "SIG_KEY_ROLE": "LIC_KEY_UNTRUSTED",
    "SIG_INVALID": "LIC_SIG_INVALID",
    "SIG_MALFORMED": "LIC_SIG_INVALID",
    "DSSE_INVALID": "LIC_UNREADABLE",
}
