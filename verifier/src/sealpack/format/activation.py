"""Activation without a network: the request a device makes, the activation and the lease it gets.

Source: specs/activation.md. A request is signed by the device key it introduces. An activation binds
one device to one license; a lease carries absolute ceilings (never increments) for one device log and
says until when usage must be settled. Both are signed by the license issuer or by settlement.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents
from sealpack.format.confirmation import SECRET
from sealpack.format.dsse import Envelope, b64decode, b64encode
from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.hybrid import PUBLIC_SIZE, HybridPublicKey
from sealpack.format.keys import PublicKey
from sealpack.format.license import IssuedUnder
from sealpack.format.trust import Trust
from sealpack.format.values import IDENTIFIER, METERS, plain

NONCE = r"[0-9a-f]{32}"
DEVICE_ID = r"dev-[0-9a-f]{32}"
ORIGIN = r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,399}"
FINGERPRINT = r"([0-9a-f]{8}){1,16}"  # hardware parts, keyed by the nonce of the request that told them
KEY_STORES = ("file", "tpm")


def device_id(key: PublicKey) -> str:
    """The name of a device: the first 128 bits of the SHA-256 of its first key's 32 bytes."""
    return "dev-" + hashlib.sha256(key.raw()).hexdigest()[:32]


def names_machine(fingerprint: str | None) -> bool:
    """Whether a fingerprint tells a machine from others of its model: two of TPM, board, disk, network."""
    kinds = {fingerprint[start] for start in range(0, len(fingerprint), 8)} if fingerprint else set()
    return len(kinds & set("1234")) >= 2


def log_origin(license_id: str, device: str, epoch: int) -> str:
    """The origin line of a device log's checkpoints: one tree per (device, license, epoch)."""
    return f"sealpack/usage/{license_id}/{device}/{epoch}"


def _hpke_key(f: Fields) -> HybridPublicKey:
    data = b64decode(f.text("hpke_key", max_len=2 * PUBLIC_SIZE), f"{f.what}.hpke_key", f.code)
    try:
        return HybridPublicKey.from_bytes(data)
    except SealpackError as error:
        raise f.fail("hpke_key", f"is no hybrid key: {error.message}") from None


@dataclass(frozen=True, slots=True)
class ActivationRequest:
    """What a device asks with. `digest` is what the activation will answer to."""

    device_key: PublicKey
    nonce: str
    created: int
    root_digest: str
    runtime: str
    device_label: str | None = None
    license_id: str | None = None
    hpke_key: HybridPublicKey | None = None  # what keys of encrypted bundles are wrapped for
    key_store: str | None = None  # where the device says that its private keys are
    fingerprint: str | None = None
    digest: str = field(default="", compare=False)

    @property
    def device_id(self) -> str:
        """The device's name, from its key."""
        return device_id(self.device_key)

    @classmethod
    def open(cls, envelope: Envelope) -> ActivationRequest:
        """Verify the request against the key inside it, then read it."""
        f, key = documents.self_signed(envelope, "activation-request")
        return cls(
            key,
            f.text("nonce", pattern=NONCE),
            f.integer("created"),
            f.digest("root_digest"),
            f.text("runtime", max_len=200),
            f.text("device_label", max_len=100, default=None),
            f.text("license_id", pattern=IDENTIFIER, default=None),
            _hpke_key(f) if "hpke_key" in f else None,
            f.choice("key_store", KEY_STORES, default=None),
            f.text("fingerprint", pattern=FINGERPRINT, default=None),
            envelope.digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest", "device_key", "hpke_key"))
        if self.hpke_key is not None:
            members["hpke_key"] = b64encode(self.hpke_key.data)
        return {**members, "device_key": self.device_key.pem}


@dataclass(frozen=True, slots=True)
class Activation:
    """The answer: this device may use that license. `keys` open encrypted bundles, one build each.

    `shares` are this device's parts of license-wide quotas where they are not the equal ones; `confirmation`
    is the hex secret of the code that tells the issuer that this activation arrived.
    """

    license_id: str
    license_digest: str
    device_id: str
    device_key: PublicKey
    request_digest: str
    nonce: str
    issued_at: int
    epoch: int = 0
    device_label: str | None = None
    keys: tuple[WrappedKey, ...] = ()
    shares: tuple[Ceiling, ...] = ()
    confirmation: str | None = None
    fingerprint: str | None = None  # as in the request it answers
    digest: str = field(default="", compare=False)

    @classmethod
    def open(cls, envelope: Envelope, trust: Trust, issuer: str | None = None) -> Activation:
        """Verify (role `license`) and read; DEVICE_MISMATCH when id and key disagree.

        With `issuer`, the license's, only that issuer's keys count (SIG_KEY_ROLE).
        """
        trust.verify(envelope, "license", issuer=issuer)
        return cls.read(envelope)

    @classmethod
    def read(cls, envelope: Envelope) -> Activation:
        """Read one that was verified, or whose signer is known to be revoked; codes as of :meth:`open`."""
        f = documents.payload_fields(envelope, "activation")
        f.crit(())
        key = PublicKey.from_pem(f.text("device_key"))
        made = cls(
            f.text("license_id", pattern=IDENTIFIER),
            f.digest("license_digest"),
            f.text("device_id", pattern=DEVICE_ID),
            key,
            f.digest("request_digest"),
            f.text("nonce", pattern=NONCE),
            f.integer("issued_at"),
            f.integer("epoch", default=0),
            f.text("device_label", max_len=100, default=None),
            f.objects("keys", WrappedKey.parse, max_items=256, default=()),
            f.objects("shares", Ceiling.parse, max_items=len(METERS), default=()),
            f.text("confirmation", pattern=SECRET, default=None),
            f.text("fingerprint", pattern=FINGERPRINT, default=None),
            envelope.digest,
        )
        if len({wrapped.bundle_digest for wrapped in made.keys}) != len(made.keys):
            raise f.fail("keys", "holds two keys for one bundle")
        if made.device_id != device_id(key):
            raise SealpackError("DEVICE_MISMATCH", "activation names another device than its key")
        return made

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest", "device_key", "keys", "shares"))
        if self.shares:
            members["shares"] = plain(self.shares)
        return {**members, "device_key": self.device_key.pem, "keys": [key.to_dict() for key in self.keys]}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most a register may ever reach in this log: cumulative, so importing it twice adds nothing.

    `bundle_digest` absent means the sum over all bundles of the license.
    """

    meter: str
    limit: int
    bundle_digest: str | None = None

    @classmethod
    def parse(cls, f: Fields) -> Ceiling:
        """Read one."""
        return cls(f.choice("meter", METERS), f.integer("limit"), f.digest("bundle_digest", default=None))


@dataclass(frozen=True, slots=True)
class Lease:
    """Absolute ceilings for one device under one license, good until `expires`."""

    license_id: str
    device_id: str
    epoch: int
    lease_seq: int
    issued_at: int
    expires: int | None
    ceilings: tuple[Ceiling, ...]
    issued_under: IssuedUnder | None = None
    digest: str = field(default="", compare=False)

    @classmethod
    def open(cls, envelope: Envelope, trust: Trust, issuer: str | None = None) -> Lease:
        """Verify (role `license` or `ack`) and read; `issuer` as for :meth:`Activation.open`."""
        verify_any(trust, envelope, ("ack", "license"), issuer)
        return cls.read(envelope)

    @classmethod
    def read(cls, envelope: Envelope) -> Lease:
        """Read one whose signature was checked."""
        f = documents.payload_fields(envelope, "lease")
        f.crit(())
        return cls(
            f.text("license_id", pattern=IDENTIFIER),
            f.text("device_id", pattern=DEVICE_ID),
            f.integer("epoch"),
            f.integer("lease_seq", lo=1),
            f.integer("issued_at"),
            f.integer("expires", default=None),
            f.objects("ceilings", Ceiling.parse, max_items=256),
            IssuedUnder.parse(under) if (under := f.sub("issued_under", default=None)) else None,
            envelope.digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        members: dict[str, Any] = plain(self, leave_out=("digest",))
        return members


def verify_any(trust: Trust, envelope: Envelope, roles: tuple[str, ...], issuer: str | None) -> None:
    """Verify under the first role the signer has; the last failure is reported."""
    for role in roles[:-1]:
        try:
            trust.verify(envelope, role, issuer=issuer)
            return
        except SealpackError as error:
            if error.code != "SIG_KEY_ROLE":
                raise
    trust.verify(envelope, roles[-1], issuer=issuer)
