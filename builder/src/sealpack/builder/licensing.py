"""Issuing licenses: the document, the activation of a device, its first lease, the registry line.

Source: specs/license.md, specs/activation.md, specs/registry-line.md. Pure: keys, trust and `now` are
passed in; files are :mod:`sealpack.builder.license_files`.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sealpack.builder import signing
from sealpack.builder.build_record import BuildRecord
from sealpack.builder.presets import PRESETS, Preset
from sealpack.format import documents
from sealpack.format.activation import Activation, ActivationRequest
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
    License,
    PlanRef,
    Quota,
    Use,
    open_license,
)
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.format.terms import Terms
from sealpack.format.trust import Trust
from sealpack.format.values import METERS

_QUOTA = re.compile(
    rf"(?P<meter>{'|'.join(METERS)})=(?P<cap>[0-9]{{1,15}})/(?P<window>{'|'.join(WINDOWS)})"
    r"(?P<rules>(,[a-z]+(=[0-9]{1,15})?)*)"
)
_ALLOWANCE = re.compile(rf"(?P<meter>{'|'.join(METERS)})=(?P<amount>[0-9]{{1,15}})")
FIRST_LEASE = 1
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


def preset(name: str) -> Preset:
    """A preset by name; USAGE lists them."""
    if name not in PRESETS:
        raise SealpackError("USAGE", f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def draft(offer: Offer, issuer: str, now: int) -> License:
    """The license an offer becomes: the preset's values with the offer's own in their place."""
    base = preset(offer.preset)
    nbf = now if offer.starts is None else offer.starts
    if offer.term_s is not None and offer.ends is not None:
        raise SealpackError("USAGE", "a license ends on a day or after a term, not both")
    term_s = base.term_s if offer.term_s is None and offer.ends is None else offer.term_s
    ends = None if term_s is not None else _ends(offer, base)
    devices = Devices(offer.binding or base.binding, offer.devices or base.devices)
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
        limits=base.limits,
        quota=quota,
        lease=replace(base.lease, allowance=offer.allowance),
        receipts=base.receipts,
        watermark=base.watermark,
        plan=offer.plan or offer.terms.plan,
    )


def _ends(offer: Offer, base: Preset) -> int | None:
    if offer.ends is None and base.term in ("contract", "year"):
        raise SealpackError("USAGE", f"a {offer.preset} license needs its last day: give --until")
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

    def parcel(self, trust: Trust) -> Parcel:
        """The file for the customer: trust documents first, then what was issued."""
        parts = (*trust.chain, self.envelope, self.activation, self.lease)
        return Parcel(tuple(part for part in parts if part is not None))

    def line(self, bundles: tuple[BundleFact, ...] = ()) -> RegistryLine:
        """The line for settlement."""
        return RegistryLine(self.envelope, self.activation, self.lease, bundles)


def issue(license: License, issuer: Issuer) -> Issued:
    """Check a license's own sense (USAGE), sign it, and read it back as a customer's machine would."""
    payload = license.to_dict()
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
) -> Issued:
    """Add the activation of the requesting device and its first lease.

    `lines` are the registry's; they say which seats are taken. The device that asks again keeps its
    seat. `records` are of encrypted builds that it may open. DEVICE_LIMIT, LEASE_MISMATCH, TRUST_INVALID;
    BUNDLE_MISMATCH for a record of another build, USAGE for a device that has no key to wrap for.
    """
    license = issued.license
    _check_request(request, license, issuer.trust)
    keys = _wrapped_keys(license, request, records)
    seats = license.devices.max
    others = _other_devices(license, request.device_id, lines, issuer.trust)
    if seats is not None and len(others) >= seats:
        raise SealpackError(
            "DEVICE_LIMIT", f"license {license.license_id} has {seats} seats, all {len(others)} are taken"
        )
    activation = Activation(
        license_id=license.license_id,
        license_digest=license.digest,
        device_id=request.device_id,
        device_key=request.device_key,
        request_digest=request.digest,
        nonce=request.nonce,
        issued_at=now,
        device_label=request.device_label or license.device_label,
        keys=keys,
    )
    lease = next_lease(license, request.device_id, 0, FIRST_LEASE, now, {})
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
    if builds and request.hpke_key is None:
        raise SealpackError(
            "USAGE",
            f"device {request.device_id} sent no key to wrap the keys of encrypted bundles for",
            remedy="update sealpack on the device and ask for a new `activate request`",
        )
    return tuple(
        request.hpke_key.wrap(record.key.input_key, digest, license.license_id, request.device_id)
        for digest, record in sorted(builds.items())
        if request.hpke_key is not None
    )


def _check_request(request: ActivationRequest, license: License, trust: Trust) -> None:
    if request.license_id not in (None, license.license_id):
        raise SealpackError(
            "LEASE_MISMATCH", f"the request asks for {request.license_id}, not {license.license_id}"
        )
    if trust.root.version == 1 and request.root_digest != trust.root_digest:
        raise SealpackError(
            "TRUST_INVALID",
            f"the device trusts root {request.root_digest[:16]}, this is {trust.root_digest[:16]}",
            remedy="issue under the trust file that the device has pinned",
        )


def _other_devices(license: License, device_id: str, lines: Iterable[RegistryLine], trust: Trust) -> set[str]:
    """Devices the registry shows activated under the license, the asking one left out.

    A seat stays taken when the key that gave it was revoked: the device asks again and keeps it.
    """
    found = set()
    for envelope in (line.activation for line in lines if line.activation is not None):
        _activation(envelope, trust)
        f = documents.payload_fields(envelope, "activation")
        if f.text("license_id") == license.license_id:
            found.add(f.text("device_id"))
    return found - {device_id}


@dataclass(frozen=True, slots=True)
class Registered:
    """A license of the registry and the devices activated under it.

    `revoked` is None while it counts; else what was revoked: "key", that signed it, or "license".
    """

    license: License
    revoked: str | None
    devices: tuple[str, ...] = ()


def registered(lines: Iterable[RegistryLine], trust: Trust) -> tuple[Registered, ...]:
    """Every license of a registry in the order of issue, also those of a revoked key: these unverified.

    Every other fault of a document is raised: the codes of `open_license` and `Activation.open`.
    """
    found: dict[str, Registered] = {}
    for line in lines:
        one = _registered(line.license, trust)
        one = found.setdefault(one.license.license_id, one)
        made = None if line.activation is None else _activation(line.activation, trust)
        if made is not None:
            devices = tuple(sorted({*one.devices, made.device_id}))
            found[one.license.license_id] = replace(one, devices=devices)
    return tuple(found.values())


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
