"""The sub-license: a delegate of a license gives one machine or site a part of it.

Source: specs/sublicense.md. It is signed by a key that the parent license names, and says only what differs.
What counts is the meet of both (:mod:`sealpack.format.meet`), so no sub-license can widen anything. Nothing
a delegate signs says anything about the time, or about another license than its own sub-license.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sealpack.format import documents
from sealpack.format.activation import Activation, Lease
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.hybrid import HybridPublicKey
from sealpack.format.keys import PublicKey
from sealpack.format.leasing import next_lease
from sealpack.format.license import License
from sealpack.format.meet import RULES, meet, per_device, wider
from sealpack.format.trust import Trust
from sealpack.format.values import IDENTIFIER

_CODE = "SUBLICENSE_INVALID"
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  # what follows the parent's id and a dot
_OWN = {"schema", "license_id", "seq", "issued_at", "parent", "crit"}  # of the document, not of a license
_NESTED = ("use", "devices", "limits", "lease", "provisional", "clock")  # whose members are stated one by one
FIRST_LEASE = 1


@dataclass(frozen=True, slots=True)
class ParentRef:
    """The very license a sub-license was written under."""

    license_id: str
    seq: int
    digest: str

    @classmethod
    def parse(cls, f: Fields) -> ParentRef:
        """Read one."""
        return cls(f.text("license_id", pattern=IDENTIFIER), f.integer("seq", lo=1), f.digest("digest"))


@dataclass(frozen=True, slots=True)
class Sublicense:
    """A sub-license as it stands there. `stated` are the members of a license that it says."""

    license_id: str
    seq: int
    issued_at: int
    parent: ParentRef
    stated: Mapping[str, Any]
    digest: str = field(default="", compare=False)

    @classmethod
    def read(cls, envelope: Envelope) -> Sublicense:
        """Read one that is not verified; DOC_TYPE, SUBLICENSE_INVALID."""
        f = documents.payload_fields(envelope, "sublicense", _CODE)
        f.crit(())
        parent = ParentRef.parse(f.sub("parent"))
        made = cls(
            f.text("license_id", pattern=IDENTIFIER),
            f.integer("seq", lo=1),
            f.integer("issued_at"),
            parent,
            {name: f.raw(name) for name in sorted(f.keys()) if name in RULES and name not in _OWN},
            envelope.digest,
        )
        above, _, name = made.license_id.rpartition(".")
        if above != parent.license_id or "." in name or not name:
            raise f.fail("license_id", f"is {made.license_id!r}, not {parent.license_id}.NAME")
        if "delegation" in made.stated:
            raise f.fail("delegation", "cannot be handed on")
        return made

    def to_dict(self) -> dict[str, Any]:
        """The payload without `schema`."""
        parent = {"license_id": self.parent.license_id, "seq": self.parent.seq, "digest": self.parent.digest}
        own = {"license_id": self.license_id, "seq": self.seq, "issued_at": self.issued_at, "parent": parent}
        return {**self.stated, **own}


@dataclass(frozen=True, slots=True)
class Chain:
    """A verified sub-license under its verified parent. `license` is what both allow."""

    parent: License
    sublicense: Sublicense
    license: License
    key: PublicKey  # of the delegate who signed it

    def signed(self, envelope: Envelope) -> bool:
        """Whether a document claims to be by the delegate; what it opens still has to verify."""
        return _signer(envelope) == self.key.keyid

    def open_activation(self, envelope: Envelope) -> Activation:
        """An activation by the same delegate for this very sub-license; SUBLICENSE_INVALID and DOC_SCHEMA."""
        self._verify(envelope)
        made = Activation.read(envelope)
        if made.license_id != self.license.license_id:
            raise _not_its_own("activation", made.license_id, self)
        if made.epoch != 0:  # else every further log would begin with a lease of its own
            raise SealpackError(_CODE, f"a delegate begins a device's first log alone, not log {made.epoch}")
        return made

    def open_lease(self, envelope: Envelope) -> Lease:
        """The delegate's one lease, the first, as far as it says no more than a first lease of this license.

        Every later one comes from settlement: a delegate cannot go on where usage is never settled.
        SUBLICENSE_INVALID.
        """
        self._verify(envelope)
        lease = Lease.read(envelope)
        if lease.license_id != self.license.license_id:
            raise _not_its_own("lease", lease.license_id, self)
        if lease.lease_seq != FIRST_LEASE:
            raise SealpackError(_CODE, f"a delegate gives lease {FIRST_LEASE} alone, not {lease.lease_seq}")
        first = next_lease(self.license, lease.device_id, lease.epoch, FIRST_LEASE, lease.issued_at, {})
        ends = [end for end in (lease.expires, first.expires) if end is not None]
        both = lease.ceilings + first.ceilings  # admission keeps every one
        return replace(lease, expires=min(ends, default=None), ceilings=tuple(dict.fromkeys(both)))

    def _verify(self, envelope: Envelope) -> None:
        if not self.signed(envelope):
            kind, name = documents.kind_of(envelope), self.license.license_id
            raise SealpackError(_CODE, f"{kind} is not signed by the delegate of {name}")
        self.key.verify(envelope.signatures[0].sig, envelope.signed_bytes)


def _not_its_own(kind: str, license_id: str, chain: Chain) -> SealpackError:
    return SealpackError(
        _CODE, f"{kind} is for {license_id}, the delegate speaks for {chain.license.license_id}"
    )


def _signer(envelope: Envelope) -> str:
    """The one keyid; empty when there are several signatures."""
    return envelope.signatures[0].keyid if len(envelope.signatures) == 1 else ""


def delegate_name(key: HybridPublicKey) -> str:
    """In whose name the keys of encrypted builds are wrapped for a delegate; no device has such a one."""
    return "delegate-" + hashlib.sha256(key.data).hexdigest()[:32]


def open_sublicense(envelope: Envelope, trust: Trust, parent: License) -> Chain:
    """Verify a sub-license under `parent`, itself opened under `trust`.

    SUBLICENSE_INVALID names what is wrong: no such delegate, another parent, or the field that is wider than
    the very license it was written under. Under a later version of the parent it is narrowed silently: what
    the parent lost, its sub-licenses lose. KEY_REVOKED, SIG_INVALID, DOC_TYPE, DOC_CRIT.
    """
    sub = Sublicense.read(envelope)
    key = _delegate(envelope, trust, parent)
    key.verify(envelope.signatures[0].sig, envelope.signed_bytes)
    return Chain(parent, sub, _narrowed(sub, parent), key)


def read_below(envelope: Envelope, parent: License) -> License:
    """What a sub-license that was opened before and a version of its parent allow; SUBLICENSE_INVALID.

    No signature and no revocation is looked at, only whether the parent names the key.
    """
    _named(envelope, parent)
    return _narrowed(Sublicense.read(envelope), parent)


def _narrowed(sub: Sublicense, parent: License) -> License:
    """The meet, once the parent is found to be this one's."""
    _check_parent(sub, parent)
    granted = grant(parent)
    stated = _stated(sub, granted)
    if sub.parent.digest == parent.digest:
        path = wider(stated, granted, sub.stated)
        if path is not None:
            raise SealpackError(
                _CODE,
                f"sublicense.{path} is wider than in license {parent.license_id}, which it stands below",
            )
    return replace(meet(granted, stated), parent_id=parent.license_id, digest=sub.digest)


def _named(envelope: Envelope, parent: License) -> PublicKey:
    """The key of the parent's delegate who claims to have signed."""
    named = parent.delegation.keys if parent.delegation is not None else ()
    keys = {key.keyid: key for key in map(PublicKey.from_pem, named)}
    key = keys.get(_signer(envelope))
    if key is None:
        raise SealpackError(_CODE, f"sublicense is not signed by a delegate of license {parent.license_id}")
    return key


def _delegate(envelope: Envelope, trust: Trust, parent: License) -> PublicKey:
    key = _named(envelope, parent)
    if key.keyid in trust.keyring.entries:
        raise SealpackError(_CODE, f"delegate key {key.keyid[:16]} stands in the keyring: it needs its own")
    revoked = trust.revocations.keys.get(key.keyid)
    if revoked is not None and envelope.digest not in revoked:
        raise SealpackError("KEY_REVOKED", f"delegate key {key.keyid[:16]} was revoked")
    return key


def _check_parent(sub: Sublicense, parent: License) -> None:
    if sub.parent.license_id != parent.license_id:
        raise SealpackError(_CODE, f"sublicense is below {sub.parent.license_id}, not {parent.license_id}")
    if sub.parent.seq > parent.seq or (sub.parent.seq == parent.seq and sub.parent.digest != parent.digest):
        raise SealpackError(
            _CODE, f"sublicense is below number {sub.parent.seq} of {parent.license_id}, here is {parent.seq}"
        )


def grant(parent: License) -> License:
    """What a license gives to each device of its delegates: shares by its own seats, and no handing on."""
    most = parent.delegation.max_devices if parent.delegation is not None else 0
    seats = [count for count in (parent.devices.max, most) if count is not None]
    devices = replace(parent.devices, max=min(seats, default=None))
    return replace(parent, quota=per_device(parent), devices=devices, delegation=None, site_keys=None)


def _stated(sub: Sublicense, granted: License) -> License:
    """The sub-license as a whole license: what it does not say is as granted."""
    members = granted.to_dict()
    for name, value in sub.stated.items():
        members[name] = _over(members.get(name), value) if name in _NESTED else value
    for name, other in (("exp", "term_s"), ("term_s", "exp")):
        if name in sub.stated:
            members.pop(other, None)  # an end or a term: the meet keeps both
    members["quota"] = _merged(granted.to_dict()["quota"], members["quota"], ("meter", "window"))
    if isinstance(members["lease"], dict):
        inherited = granted.to_dict()["lease"]["allowance"]
        merged = _merged(inherited, members["lease"].get("allowance"), ("meter",))
        members["lease"] = {**members["lease"], "allowance": merged}
    members |= {"license_id": sub.license_id, "seq": sub.seq}
    return License.parse(Fields(members, "sublicense", _CODE), sub.digest)


def _over(granted: Any, value: Any) -> Any:
    return {**granted, **value} if isinstance(granted, dict) and isinstance(value, dict) else value


def _merged(granted: list[Any], stated: Any, names: tuple[str, ...]) -> Any:
    """The stated rules, and those granted for what none of them is about."""
    if not isinstance(stated, list) or not all(isinstance(rule, dict) for rule in stated):
        return stated  # for the reader to refuse
    about = {tuple(str(rule.get(name)) for name in names) for rule in stated}
    return [*stated, *(rule for rule in granted if tuple(rule[name] for name in names) not in about)]
