"""Issuing licenses: the document, the activation of a device, its first lease, the registry line.

Source: specs/license.md, specs/activation.md, specs/registry-line.md. Pure: keys, trust and `now` are
passed in; files are :mod:`sealpack.builder.license_files`.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from sealpack.builder import answering, seats, signing
from sealpack.builder.build_record import BuildRecord
from sealpack.builder.presets import PRESETS, Preset
from sealpack.format import documents
from sealpack.format.activation import Activation, ActivationRequest, names_machine
from sealpack.format.confirmation import code, heard
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import Signer
from sealpack.format.leasing import next_lease
from sealpack.format.license import (
    ON_EXCEED,
    WINDOWS,
    Allowance,
    BundleGrant,
    Customer,
    Devices,
    IssuedUnder,
    LeaseTerms,
    License,
    PlanRef,
    Quota,
    Rate,
    Use,
    open_license,
)
from sealpack.format.registry import BundleFact, Confirmed, RegistryLine
from sealpack.format.terms import Terms
from sealpack.format.trust import Trust
from sealpack.format.values import FEATURE, IDENTIFIER, METERS, plain

_QUOTA = re.compile(
    rf"(?P<meter>{'|'.join(METERS)})=(?P<cap>[0-9]{{1,15}})/(?P<window>{'|'.join(WINDOWS)})"
    r"(?P<rules>(,[a-z]+(=[0-9]{1,15})?)*)"
)
_ALLOWANCE = re.compile(rf"(?P<meter>{'|'.join(METERS)})=(?P<amount>[0-9]{{1,15}})")
FIRST_LEASE = 1
MAX_TIER = 64  # characters
MAX_KEYS = 128  # in one activation: more would not fit into a document


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues: the license key, the trust it stands in, and the ML-DSA key where that asks for one."""

    key: Signer
    trust: Trust
    mldsa: Signer | None = None

    @property
    def name(self) -> str:
        """The issuer as the keyring calls the key's owner; SIG_KEY_UNKNOWN or SIG_KEY_ROLE."""
        return self.trust.entry(self.key.keyid, "license", "").issuer

    @property
    def signers(self) -> tuple[Signer, ...]:
        """The keys that sign what is issued, as the keyring asks; SIG_SCHEME, SIG_KEY_UNKNOWN.

        A key that the keyring does not list is refused when what it signed is read back.
        """
        entry = self.trust.keyring.entries.get(self.key.keyid)
        return (self.key,) if entry is None else signing.signers(entry, self.key, self.mldsa)


@dataclass(frozen=True, slots=True)
class Offer:
    """What is asked for; None means: as the preset says. Times are Unix seconds, dates local days."""

    preset: str
    license_id: str
    customer: Customer
    grants: tuple[BundleGrant, ...]
    terms: Terms
    starts: int | None = None
    ends: int | None = None
    term_s: int | None = None
    grace_s: int | None = None
    quota: tuple[Quota, ...] = ()
    allowance: tuple[Allowance, ...] = ()
    binding: str | None = None
    devices: int | None = None
    plan: PlanRef | None = None
    environment: str = "live"
    enforcement: str = "enforce"
    seq: int = 1
    support: str | None = None
    order_ref: str | None = None
    device_label: str | None = None
    features: tuple[str, ...] = ()
    profile: Preset | None = None  # the values behind `preset`, when that is no built-in name
    limits: Rate = field(default_factory=Rate)
    vm: bool | None = None
    container: bool | None = None
    settle_s: int | None = None  # 0: no lease
    on_stale: str | None = None


def is_tier(name: str) -> bool:
    """Whether a license may state this as its `tier`."""
    return len(name) <= MAX_TIER and re.fullmatch(IDENTIFIER, name) is not None


def settled(base: LeaseTerms, settle_s: int | None, on_stale: str | None) -> LeaseTerms:
    """A lease with another age (0: none), which warns for its last third, or with another end.

    USAGE when there is no lease to say something about.
    """
    if settle_s == 0:
        base = LeaseTerms()
    elif settle_s is not None:
        rule = base.on_stale if base.required else "deny"
        base = replace(base, required=True, max_age_s=settle_s, warn_s=settle_s // 3, on_stale=rule)
    if on_stale is None:
        return base
    if not base.required:
        raise SealpackError("USAGE", "nothing has to be settled here: give --lease-days with --on-stale")
    return replace(base, on_stale=on_stale)


def _lease(offer: Offer, base: Preset) -> LeaseTerms:
    made = settled(base.lease, offer.settle_s, offer.on_stale)
    if not offer.allowance:
        return made
    rule = "deny" if made == LeaseTerms() else made.on_stale  # an allowance is meant to be kept
    return replace(made, allowance=offer.allowance, on_stale=rule)


def _limits(offer: Offer, base: Preset) -> Rate:
    return replace(base.limits, **plain(offer.limits))


def preset(name: str) -> Preset:
    """A preset by name; USAGE lists them."""
    if name not in PRESETS:
        raise SealpackError("USAGE", f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def draft(offer: Offer, issuer: str, now: int) -> License:
    """The license an offer becomes: the preset's values with the offer's own in their place."""
    base = offer.profile or preset(offer.preset)
    for word in offer.features:
        if not re.fullmatch(FEATURE, word):
            raise SealpackError("USAGE", f"feature {word!r} does not fit the pattern {FEATURE}")
    nbf = now if offer.starts is None else offer.starts
    if offer.term_s is not None and offer.ends is not None:
        raise SealpackError("USAGE", "a license ends on a day or after a term, not both")
    term_s = base.term_s if offer.term_s is None and offer.ends is None else offer.term_s
    ends = None if term_s is not None else _ends(offer, base)
    devices = Devices(
        offer.binding or base.binding,
        offer.devices or base.devices,
        base.vm if offer.vm is None else offer.vm,
        base.container if offer.container is None else offer.container,
    )
    quota = offer.quota or base.quota
    _check_shareable(quota, devices)
    return License(
        license_id=offer.license_id,
        seq=offer.seq,
        issued_at=now,
        issuer=issuer,
        customer=offer.customer,
        bundles=offer.grants,
        use=_use(offer.terms, base),
        devices=devices,
        tier=offer.preset,
        billing=base.billing,
        environment=offer.environment,
        enforcement=offer.enforcement,
        support=offer.support,
        device_label=offer.device_label,
        order_ref=offer.order_ref,
        nbf=nbf,
        exp=ends,
        term_s=term_s,
        grace_s=base.grace_s if offer.grace_s is None else offer.grace_s,
        features=offer.features,
        provisional=base.provisional,
        clock=base.clock,
        limits=_limits(offer, base),
        quota=quota,
        lease=_lease(offer, base),
        receipts=base.receipts,
        watermark=base.watermark,
        plan=offer.plan or offer.terms.plan,
    )


def _ends(offer: Offer, base: Preset) -> int | None:
    if offer.ends is None and base.term in ("contract", "year"):
        raise SealpackError("USAGE", f"preset {offer.preset} needs the last day: give --until")
    return offer.ends


def _check_shareable(quota: tuple[Quota, ...], devices: Devices) -> None:
    """Offline, only equal parts can keep a license-wide total: the parts must be countable."""
    for rule in quota:
        if rule.scope == "license" and rule.window == "term" and devices.max is None:
            raise SealpackError(
                "USAGE", f"a license-wide quota on {rule.meter} is shared out by seats: give --devices"
            )


def _use(terms: Terms, base: Preset) -> Use:
    return Use(
        terms_digest=terms.digest,
        spdx=terms.spdx,
        allow=base.allow,
        deny=tuple(dict.fromkeys((*base.deny, *terms.deny))),
        attribution=terms.attribution,
        ack_required=terms.ack_required,
    )


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed license with what was issued beside it."""

    license: License
    envelope: Envelope
    activation: Envelope | None = None
    lease: Envelope | None = None
    device_id: str | None = None

    @property
    def holds_hardware(self) -> bool:
        """False for an activation under `key+fp` whose request told too little (old runtime, container)."""
        if self.activation is None or self.license.devices.binding != "key+fp":
            return True
        f = documents.payload_fields(self.activation, "activation")
        return names_machine(f.text("fingerprint", default=None))

    def parcel(self, trust: Trust) -> Parcel:
        """The file for the customer: trust documents first, then what was issued."""
        parts = (*trust.chain, self.envelope, self.activation, self.lease)
        return Parcel(tuple(part for part in parts if part is not None))

    def line(self, bundles: tuple[BundleFact, ...] = ()) -> RegistryLine:
        """The line for settlement."""
        return RegistryLine(self.envelope, self.activation, self.lease, bundles)


def issue(license: License, issuer: Issuer) -> Issued:
    """Check a license's own sense (USAGE), sign it, and read it back as a customer's machine would.

    It states the trust documents that go with it.
    """
    payload = replace(license, issued_under=IssuedUnder.of(issuer.trust)).to_dict()
    License.parse(Fields(payload, "license", "USAGE"))
    envelope = documents.seal("license", payload, *issuer.signers)
    return Issued(open_license(envelope, issuer.trust), envelope)


def activate(
    issued: Issued,
    issuer: Issuer,
    request: ActivationRequest,
    *,
    now: int,
    lines: Iterable[RegistryLine] = (),
    records: Iterable[BuildRecord] = (),
    secret: str | None = None,
) -> Issued:
    """Add the activation of the requesting device and its first lease.

    `lines` are the registry's; they say which seats are taken. The device that asks again keeps its
    seat; one that closed goes on with a new log. `records` are of encrypted builds that it may open; `secret`
    (hex) is for its confirmation code, random otherwise. DEVICE_LIMIT, LEASE_MISMATCH, TRUST_INVALID;
    UNSETTLED_LIMIT when other devices hold all of a license-wide quota;
    BUNDLE_MISMATCH for a record of another build, USAGE for a device that has no key to wrap for.
    """
    license = issued.license
    _check_request(request, license, issuer.trust)
    keys = _wrapped_keys(license, request, records)
    found = seats.of_license(lines, license.license_id, issuer.trust)
    seats.require_free(license, found, request.device_id)
    seat = found.get(request.device_id)
    shares = seats.shares_for(license, found, request.device_id, now)
    epoch = 0 if seat is None else seat.next_epoch
    activation = answering.activation(license, request, keys, now, secret=secret, epoch=epoch, shares=shares)
    under = IssuedUnder.of(issuer.trust)
    settled = {} if seat is None else seat.before  # its counters are of all its logs
    lease = next_lease(license, request.device_id, epoch, FIRST_LEASE, now, settled, under, shares)
    return replace(
        issued,
        activation=documents.seal("activation", activation.to_dict(), *issuer.signers),
        lease=documents.seal("lease", lease.to_dict(), *issuer.signers),
        device_id=request.device_id,
    )


def _wrapped_keys(
    license: License, request: ActivationRequest, records: Iterable[BuildRecord]
) -> tuple[WrappedKey, ...]:
    """The key of each build, once, for the asking device."""
    builds = {record.bundle_digest: record for record in records}
    if len(builds) > MAX_KEYS:
        raise SealpackError("USAGE", f"an activation holds the keys of {MAX_KEYS} builds, not {len(builds)}")
    for record in builds.values():
        record.check_license(license)
    if not builds:
        return ()
    device_key = answering.hpke_key(request)
    return tuple(
        device_key.wrap(record.key.input_key, digest, license.license_id, request.device_id)
        for digest, record in sorted(builds.items())
    )


def _check_request(request: ActivationRequest, license: License, trust: Trust) -> None:
    answering.check(request, license)
    if trust.root.version == 1 and request.root_digest != trust.root_digest:
        raise SealpackError(
            "TRUST_INVALID",
            f"the device trusts root {request.root_digest[:16]}, this is {trust.root_digest[:16]}",
            remedy="issue under the trust file that the device has pinned",
        )


@dataclass(frozen=True, slots=True)
class Registered:
    """A license of the registry and the devices that have a seat under it.

    `revoked` is None while it counts; else what was revoked: "key", that signed it, or "license".
    """

    license: License
    revoked: str | None
    devices: tuple[str, ...] = ()


def registered(lines: Sequence[RegistryLine], trust: Trust) -> tuple[Registered, ...]:
    """Every license of a registry in the order of issue, also those of a revoked key: these unverified.

    Of a renewed license the newest document counts.

    Every other fault of a document is raised: the codes of `open_license` and `Activation.open`.
    """
    found: dict[str, Registered] = {}
    for line in lines:
        one = _registered(line.license, trust)
        one = found.setdefault(one.license.license_id, one)
        own = line.activation if line.sublicense is None else None
        made = None if own is None else _activation(own, trust)
        if made is not None:
            devices = tuple(sorted({*one.devices, made.device_id}))
            found[one.license.license_id] = replace(one, devices=devices)
        if one.license.seq < (newer := _registered(line.license, trust)).license.seq:
            kept = found[one.license.license_id]
            found[one.license.license_id] = replace(newer, devices=kept.devices)
    return tuple(replace(one, devices=_active(one, lines, trust)) for one in found.values())


def _active(one: Registered, lines: Sequence[RegistryLine], trust: Trust) -> tuple[str, ...]:
    held = seats.of_license(lines, one.license.license_id, trust)
    return tuple(name for name in one.devices if held[name].closed is None)


def _registered(envelope: Envelope, trust: Trust) -> Registered:
    try:
        license = open_license(envelope, trust)
    except SealpackError as error:
        if error.code != "KEY_REVOKED":
            raise
        fields = documents.payload_fields(envelope, "license", "LIC_SCHEMA")
        return Registered(License.parse(fields, envelope.digest), "key")
    return Registered(license, "license" if license.license_id in trust.revocations.licenses else None)


def _activation(envelope: Envelope, trust: Trust) -> Activation | None:
    """None for one that a revoked key signed: devices refuse it."""
    try:
        return Activation.open(envelope, trust)
    except SealpackError as error:
        if error.code != "KEY_REVOKED":
            raise
        return None


def newest(lines: Iterable[RegistryLine], license_id: str, trust: Trust) -> Issued:
    """The newest document of a license in the registry; LIC_MISSING, and the codes of `open_license`."""
    found = None
    for line in lines:
        fields = documents.payload_fields(line.license, "license", "LIC_SCHEMA")
        seq = fields.integer("seq", lo=1)
        if fields.text("license_id") == license_id and (found is None or seq > found[0]):
            found = seq, line.license
    if found is None:
        raise SealpackError(
            "LIC_MISSING",
            f"license {license_id} is not in the registry",
            remedy="see `sealpack license list`",
        )
    return Issued(open_license(found[1], trust), found[1])


def release(
    proof: Envelope,
    trust: Trust,
    lines: Sequence[RegistryLine],
    *,
    now: int,
    acknowledgement: Envelope | None = None,
) -> tuple[Deactivation, RegistryLine]:
    """What a device's proof says, and the registry line that frees its seat.

    `acknowledgement` shows that settlement has the closed log to its end. LIC_MISSING, DEVICE_MISMATCH,
    EPOCH_MISMATCH, USAGE, ACK_FORK, and SIG_INVALID for a proof that the device did not sign.
    """
    said = Deactivation.open(proof)
    known = newest(lines, said.license_id, trust)
    held = seats.of_license(lines, said.license_id, trust)
    seats.check_proof(said, held, lines)
    if acknowledgement is not None:
        seats.check_settled(said, acknowledgement, trust, known.license.issuer)
    before = held[said.device_id].released_at  # registered before: the lease's end does not move
    return said, RegistryLine(
        known.envelope,
        deactivation=proof,
        acknowledgement=acknowledgement,
        released_at=before or now,
    )


def renew(license: License, issuer: Issuer, lines: Sequence[RegistryLine], *, now: int) -> tuple[Issued, ...]:
    """Issue `license`, the next document of one in the registry, and give every active device its own anew.

    An activation answers the same request as before and keeps keys, log and confirmation secret. One `Issued`
    a device; one without a device when none is active.
    """
    issued = issue(license, issuer)
    held = seats.of_license(lines, license.license_id, issuer.trust)
    active = {name: seat for name, seat in sorted(held.items()) if seat.closed is None}
    if license.devices.max is not None and len(active) > license.devices.max:
        raise SealpackError(
            "DEVICE_LIMIT",
            f"{len(active)} devices are active under license {license.license_id}, the renewal has "
            f"{license.devices.max} seats",
        )
    given = []
    for name, seat in active.items():
        shares = seats.shares_for(issued.license, held, name, now)
        made = replace(
            seat.activation,
            license_digest=issued.license.digest,
            issued_at=max(now, seat.activation.issued_at + 1),
            shares=shares,
        )
        under = IssuedUnder.of(issuer.trust)
        lease = next_lease(issued.license, name, made.epoch, FIRST_LEASE, now, seat.before, under, shares)
        given.append(
            replace(
                issued,
                activation=documents.seal("activation", made.to_dict(), *issuer.signers),
                lease=documents.seal("lease", lease.to_dict(), *issuer.signers),
                device_id=name,
            )
        )
        equal = {meter: part for meter, (_, part) in seats.parts(issued.license).items()}
        given_now = {**seat.given, **equal, **{share.meter: share.limit for share in shares}}
        held[name] = replace(seat, given=given_now)
    return tuple(given) or (issued,)


def activate_all(
    issued: Issued,
    issuer: Issuer,
    requests: Iterable[ActivationRequest],
    *,
    now: int,
    lines: Sequence[RegistryLine],
    records: Sequence[BuildRecord] = (),
) -> tuple[Issued, ...]:
    """Answer many requests under one license, as :func:`activate` does each; all or none."""
    given: list[Issued] = []
    for request in requests:
        known = (*lines, *(one.line() for one in given))
        given.append(activate(issued, issuer, request, now=now, lines=known, records=records))
    return tuple(given)


def parcel_of(issued: Sequence[Issued], trust: Trust) -> Parcel:
    """One file for several devices under one license: each machine takes what is addressed to it."""
    own = [part for one in issued for part in (one.activation, one.lease) if part is not None]
    return Parcel((*trust.chain, issued[0].envelope, *own))


def confirm(
    license_id: str, typed: str, trust: Trust, lines: Sequence[RegistryLine], *, now: int
) -> tuple[seats.Seat, RegistryLine]:
    """Which device a confirmation code is of, and the registry line that says so; CONFIRMATION_INVALID."""
    asked, known = heard(typed), newest(lines, license_id, trust)
    roots = [root.digest for root in trust.chain if documents.kind_of(root) == "root"]
    for seat in seats.of_license(lines, license_id, trust).values():
        made = seat.activation
        if made.confirmation is not None and asked in (
            code(made.confirmation, made.device_id, made.digest, root) for root in roots
        ):
            return seat, RegistryLine(known.envelope, confirmed=Confirmed(made.digest, now))
    raise SealpackError(
        "CONFIRMATION_INVALID",
        f"{asked} is of no device under license {license_id}",
        remedy="ask for the code that `sealpack activate status` shows there, or issue the reply again",
    )


def parse_quota(text: str, base: Preset) -> Quota:
    """`METER=CAP/WINDOW[,deny|bill|throttle|warn][,device|license][,hard=N]`; USAGE names the part."""
    found = _QUOTA.fullmatch(text)
    if found is None:
        raise SealpackError(
            "USAGE", f"quota {text!r} is not like calls=1000/day,deny or tok_out=5000000/month,bill"
        )
    cap = int(found["cap"])
    over, scope, hard = base.over, "device", None
    for rule in found["rules"].split(",")[1:]:
        name, _, value = rule.partition("=")
        if name in ON_EXCEED and not value:
            over = name
        elif name in ("device", "license") and not value:
            scope = name
        elif name == "hard" and value:
            hard = int(value)
        else:
            raise SealpackError("USAGE", f"quota {text!r}: {rule!r} is not a known rule")
    if hard is None and over == "bill" and base.hard_percent is not None:
        hard = cap * base.hard_percent // 100
    if hard is not None and hard < cap:
        raise SealpackError("USAGE", f"quota {text!r}: the hard cap is below the cap")
    return Quota(found["meter"], found["window"], scope, cap, hard, over)


def parse_allowance(text: str) -> Allowance:
    """`METER=AMOUNT`: what a site may use before it settles again."""
    found = _ALLOWANCE.fullmatch(text)
    if found is None:
        raise SealpackError("USAGE", f"allowance {text!r} is not like calls=100000")
    return Allowance(found["meter"], int(found["amount"]))


def zone(name: str) -> zoneinfo.ZoneInfo:
    """A time zone by its IANA name; USAGE when there is none."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise SealpackError("USAGE", f"unknown time zone {name!r}") from None


def day_start(day: dt.date, tz: zoneinfo.ZoneInfo) -> int:
    """The first instant of a local day, Unix seconds."""
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=tz).timestamp())


def day_end(day: dt.date, tz: zoneinfo.ZoneInfo) -> int:
    """The instant after a local day: licenses end with the customer's day, devices compare seconds."""
    return day_start(day + dt.timedelta(days=1), tz)


def year_later(now: int, tz: zoneinfo.ZoneInfo) -> dt.date:
    """The local day one year after `now`; 29 February becomes 28."""
    today = dt.datetime.fromtimestamp(now, tz).date()
    try:
        return today.replace(year=today.year + 1)
    except ValueError:
        return today.replace(year=today.year + 1, day=28)
