"""Sub-licensing: what an issuer hands to a delegate, and what the delegate gives to a device.

Source: specs/sublicense.md. Pure: keys, trust and `now` are passed in. The delegate's own registry keeps the
account of its devices; each device also keeps its share by itself, whatever the delegate writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sealpack.builder import answering, seats
from sealpack.builder.build_record import BuildRecord
from sealpack.format import documents
from sealpack.format.activation import Activation, ActivationRequest
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.hybrid import HybridPrivateKey, HybridPublicKey
from sealpack.format.keys import PublicKey, Signer
from sealpack.format.leasing import next_lease
from sealpack.format.license import MAX_BUNDLE_KEYS, Delegation, License, open_license
from sealpack.format.registry import RegistryLine
from sealpack.format.sublicense import FIRST_LEASE, NAME, Chain, Sublicense, delegate_name, open_sublicense
from sealpack.format.trust import Trust


def delegated(
    license: License,
    keys: Sequence[PublicKey],
    *,
    max_devices: int | None = None,
    hybrid: HybridPublicKey | None = None,
    records: Iterable[BuildRecord] = (),
) -> License:
    """The license with delegates who may sub-license it, and the keys of encrypted builds for their key."""
    builds = {record.bundle_digest: record for record in records}
    if len(builds) > MAX_BUNDLE_KEYS:
        raise SealpackError(
            "USAGE", f"a delegate is given at most {MAX_BUNDLE_KEYS} builds, not {len(builds)}"
        )
    for record in builds.values():
        record.check_license(license)
    wrapped = tuple(
        hybrid.wrap(record.key.input_key, digest, license.license_id, delegate_name(hybrid))
        for digest, record in sorted(builds.items())
        if hybrid is not None
    )
    return replace(license, delegation=Delegation(tuple(key.pem for key in keys), max_devices, wrapped))


@dataclass(frozen=True, slots=True)
class Delegate:
    """Who sub-licenses: the delegate's key, the parent it stands in, and the trust behind that."""

    key: Signer
    parent: Envelope
    trust: Trust
    hybrid: HybridPrivateKey | None = None

    @property
    def license(self) -> License:
        """The parent, verified; LIC_REVOKED."""
        found = open_license(self.parent, self.trust)
        if found.license_id in self.trust.revocations.licenses:
            raise SealpackError("LIC_REVOKED", f"license {found.license_id} was revoked")
        return found


@dataclass(frozen=True, slots=True)
class Given:
    """A sub-license with what was signed beside it."""

    chain: Chain
    parent: Envelope
    sublicense: Envelope
    activation: Envelope | None = None
    lease: Envelope | None = None

    def parcel(self, trust: Trust) -> Parcel:
        """The file for the device."""
        parts = (*trust.chain, self.parent, self.sublicense, self.activation, self.lease)
        return Parcel(tuple(part for part in parts if part is not None))

    @property
    def line(self) -> RegistryLine:
        """The line of the delegate's registry."""
        return RegistryLine(self.parent, self.activation, self.lease, sublicense=self.sublicense)


def sublicense(delegate: Delegate, name: str, stated: Mapping[str, Any], *, now: int, seq: int = 1) -> Given:
    """Sign a sub-license and read it back as a device would; SUBLICENSE_INVALID names what is wider."""
    parent = delegate.license
    if not re.fullmatch(NAME, name):
        raise SealpackError("USAGE", f"name {name[:80]!r} is not of letters, digits, hyphens and underscores")
    above = {"license_id": parent.license_id, "seq": parent.seq, "digest": parent.digest}
    own = {"license_id": f"{parent.license_id}.{name}", "seq": seq, "issued_at": now, "parent": above}
    envelope = documents.seal("sublicense", {**stated, **own}, delegate.key)
    return Given(open_sublicense(envelope, delegate.trust, parent), delegate.parent, envelope)


def next_seq(lines: Iterable[RegistryLine], license_id: str) -> int:
    """The number of the next version of a sub-license."""
    known = [Sublicense.read(line.sublicense) for line in lines if line.sublicense is not None]
    return max((sub.seq for sub in known if sub.license_id == license_id), default=0) + 1


def activate(
    given: Given,
    delegate: Delegate,
    request: ActivationRequest,
    *,
    now: int,
    lines: Iterable[RegistryLine] = (),
) -> Given:
    """Add the activation of the requesting device, its first lease and the keys the delegate was given.

    `lines` are the delegate's registry. DEVICE_LIMIT when its seats, or those of the sub-license, are taken;
    LEASE_MISMATCH for a request for another license, KEY_UNWRAP when a key was not wrapped for this delegate.
    """
    license = given.chain.license
    answering.check(request, license)
    _check_seats(given.chain, request.device_id, tuple(lines))
    keys = _rewrapped(given.chain, delegate, request)
    activation = answering.activation(license, request, keys, now)
    lease = next_lease(license, request.device_id, 0, FIRST_LEASE, now, {})
    return replace(
        given,
        activation=documents.seal("activation", activation.to_dict(), delegate.key),
        lease=documents.seal("lease", lease.to_dict(), delegate.key),
    )


def release(
    proof: Envelope,
    trust: Trust,
    lines: Sequence[RegistryLine],
    *,
    now: int,
    acknowledgement: Envelope | None = None,
) -> tuple[Deactivation, RegistryLine] | None:
    """What the proof of a device below a license says, and the line that frees its seat.

    None when no sub-license of that id is in `lines`. DEVICE_MISMATCH for a device without a seat, USAGE and
    ACK_FORK for an acknowledgement that is not of the closed log, SIG_INVALID.
    """
    said = Deactivation.open(proof)
    below = [line for line in lines if _is_of(line, said.license_id)]
    if not below:
        return None
    newest = max(below, key=_seq)
    given = [Activation.read(line.activation) for line in below if line.activation is not None]
    if (said.device_id, said.activation) not in {(made.device_id, made.digest) for made in given}:
        raise SealpackError(
            "DEVICE_MISMATCH",
            f"the registry has no activation {said.activation[:16]} of {said.device_id} "
            f"under license {said.license_id}",
            remedy="check which sub-license and registry the proof belongs to",
        )
    if acknowledgement is not None:
        seats.check_settled(said, acknowledgement, trust, open_license(newest.license, trust).issuer)
    before = [  # registered before: the lease's end does not move
        line.released_at
        for line in below
        if line.released_at is not None
        and line.deactivation is not None
        and Deactivation.open(line.deactivation).device_id == said.device_id
    ]
    return said, RegistryLine(
        newest.license,
        deactivation=proof,
        acknowledgement=acknowledgement,
        released_at=min(before, default=now),
        sublicense=newest.sublicense,
    )


def _is_of(line: RegistryLine, license_id: str) -> bool:
    return line.sublicense is not None and Sublicense.read(line.sublicense).license_id == license_id


def _seq(line: RegistryLine) -> int:
    return 0 if line.sublicense is None else Sublicense.read(line.sublicense).seq


def _check_seats(chain: Chain, device: str, lines: Sequence[RegistryLine]) -> None:
    """Seats are counted for the sub-license and, over all below the same parent, for the delegate.

    One of a closed device is free.
    """
    taken: dict[str, set[str]] = {}
    for line in lines:
        if line.activation is not None and line.sublicense is not None:
            made = Activation.read(line.activation)
            taken.setdefault(made.license_id, set()).add(made.device_id)
    for line in lines:
        if line.deactivation is not None and line.sublicense is not None:
            said = Deactivation.open(line.deactivation)  # for good: a delegate begins no further log
            taken.get(said.license_id, set()).discard(said.device_id)
    parent, license = chain.parent, chain.license
    below = [held for name, held in taken.items() if name.startswith(f"{parent.license_id}.")]
    most = parent.delegation.max_devices if parent.delegation is not None else 0
    whole = [n for n in (parent.devices.max, most) if n is not None]
    for name, held, limit in (
        (license.license_id, taken.get(license.license_id, set()), license.devices.max),
        (f"{parent.license_id} (yours to give)", set().union(*below), min(whole, default=None)),
    ):
        others = held - {device}
        if limit is not None and len(others) >= limit:
            raise SealpackError(
                "DEVICE_LIMIT", f"license {name} has {limit} seats, all {len(others)} are taken"
            )


def _rewrapped(chain: Chain, delegate: Delegate, request: ActivationRequest) -> tuple[WrappedKey, ...]:
    """The keys that the delegate was given, for the device, of the builds its sub-license still covers."""
    delegation, license = chain.parent.delegation, chain.license
    wrapped = delegation.bundle_keys if delegation is not None else ()
    named = {grant.bundle_digest for grant in license.bundles}
    wanted = [key for key in wrapped if None in named or key.bundle_digest in named]
    if not wanted:
        return ()
    if delegate.hybrid is None:
        raise SealpackError("USAGE", "the license brings keys of encrypted bundles: give --hpke-key")
    device_key = answering.hpke_key(request)
    name, parent_id = delegate_name(delegate.hybrid.public), chain.parent.license_id
    return tuple(
        device_key.wrap(
            delegate.hybrid.unwrap(key, parent_id, name),
            key.bundle_digest,
            license.license_id,
            request.device_id,
        )
        for key in wanted
    )
