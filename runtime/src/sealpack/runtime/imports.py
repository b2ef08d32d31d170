"""Taking in what an issuer or settlement sends: licenses, activations, leases, acknowledgements, trust.

Source: specs/activation.md and specs/acknowledgement.md. A parcel is taken whole or not at all, in
whatever order its documents stand, and taking it again changes nothing. Only documents addressed to
this device are taken; what is for others is counted and left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from sealpack.format import documents, records
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, Lease
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import License
from sealpack.format.merkle import leaf_hash
from sealpack.format.trust import Trust
from sealpack.runtime import anchors, device, log, proofs, rights, timekeeper
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.state import State

# What is addressed to devices, or concerns them all.
KINDS = ("license", "activation", "lease", "acknowledgement", "root", "keyring", "revocations")

# Why a document that was good when it was stored may not be any more: its key was revoked or is gone.
_NO_LONGER = frozenset(
    {"KEY_REVOKED", "LIC_KEY_UNTRUSTED", "SIG_KEY_UNKNOWN", "SIG_KEY_ROLE", "SIG_NAMESPACE"}
)

T = TypeVar("T")


@dataclass(slots=True)
class Taken:
    """What was taken over: ids of licenses, leases and acknowledgements that are new here."""

    licenses: list[str] = field(default_factory=list)
    activations: list[str] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    acknowledgements: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    trust: list[tuple[str, int]] = field(default_factory=list)  # kind and version of what became newer
    known: int = 0  # documents that were here already, or are older
    others: int = 0  # documents for other devices or logs

    @property
    def count(self) -> int:
        """How many documents were new."""
        return sum(map(len, (self.licenses, self.activations, self.leases, self.acknowledgements)))


def take(state: State, parcels: Iterable[Parcel]) -> Taken:
    """Verify and store every document addressed to this device, in one transaction."""
    envelopes = [e for parcel in parcels for e in parcel.documents]
    signer = device.key(state.home, create=True)
    with state.write() as db:
        found = _Import(db, signer)
        found.run(envelopes)
        return found.taken


class _Import:
    """One import inside one transaction."""

    def __init__(self, db: sqlite3.Connection, signer: PrivateKey) -> None:
        self._db = db
        self._signer = signer
        self._device = device.name(signer)
        self._trusts: list[Trust] = []
        self._activated: set[str] = set()
        self.taken = Taken()

    def run(self, envelopes: list[Envelope]) -> None:
        """Trust first, then licenses, activations and leases, then what refers to logs."""
        self._ratchet(envelopes)
        self._activated = {
            made.license_id
            for made in (self._open_activation(e) for e in envelopes if _is(e, "activation"))
            if made.device_id == self._device
        }
        steps: tuple[tuple[str, Callable[[Envelope], None]], ...] = (
            ("acknowledgement", self._chain),
            ("license", self._license),
            ("activation", self._activation),
            ("lease", self._lease),
        )
        for kind, step in steps:
            for envelope in envelopes:
                if _is(envelope, kind):
                    step(envelope)
        self._open_logs()
        for envelope in envelopes:
            if _is(envelope, "acknowledgement"):
                self._acknowledge(envelope)

    def _ratchet(self, envelopes: Iterable[Envelope]) -> None:
        newer = anchors.ratchet(self._db, envelopes)
        self.taken.trust += [(documents.kind_of(envelope), _version(envelope)) for envelope in newer]
        self._trusts = anchors.current(self._db)

    def _under(self, use: Callable[[Trust], T]) -> T:
        return anchors.under_any(self._trusts, use)

    def _chain(self, envelope: Envelope) -> None:
        """The trust documents inside a verified acknowledgement count before anything else does."""
        self._ratchet(self._under(lambda trust: Acknowledgement.open(envelope, trust)).trust)

    def _license(self, envelope: Envelope) -> None:
        license = rights.verified(envelope, self._trusts).license
        if license.devices.binding == "tpm":
            raise SealpackError("DOC_CRIT", f"license {license.license_id} needs a TPM: not supported yet")
        if not self._is_ours(license):
            self.taken.others += 1
            return
        old = self._stored_license(license.license_id)
        if old is not None and _is_old(old, license):
            self.taken.known += 1
            return
        if old is None:
            self._require_no_older(license)
        rights.keep(self._db, "license", license.license_id, envelope)
        timekeeper.anchor(self._db, license.issued_at)
        if old is None:
            self._adopt_lease(license)
        self.taken.licenses.append(license.license_id)

    def _adopt_lease(self, license: License) -> None:
        """A lease that came before its license counts now if the license's issuer signed it, else it goes."""
        lease = rights.stored(self._db, "lease", license.license_id)
        if lease is None:
            return
        issued_at = max(proofs.issued_at(lease, trust, license.issuer) for trust in self._trusts)
        if issued_at:
            timekeeper.anchor(self._db, issued_at)
        else:
            rights.forget(self._db, "lease", license.license_id)

    def _is_ours(self, license: License) -> bool:
        """A license bound to devices is kept only with an activation of this one."""
        return (
            license.devices.binding == "none"
            or license.license_id in self._activated
            or rights.stored(self._db, "activation", license.license_id) is not None
        )

    def _stored_license(self, license_id: str) -> License | None:
        """The stored license, unless its signer is no longer believed: then a new one takes its place."""
        envelope = rights.stored(self._db, "license", license_id)
        if envelope is None:
            return None
        return _still(lambda: rights.verified(envelope, self._trusts).license)

    def _require_no_older(self, license: License) -> None:
        """A stored license that is no longer believed gives way to itself signed anew, or to a newer one."""
        envelope = rights.stored(self._db, "license", license.license_id)
        if envelope is None:
            return
        seq = documents.payload_fields(envelope, "license", "LIC_SCHEMA").integer("seq", lo=1)
        if license.seq < seq:
            raise SealpackError(
                "LIC_SUPERSEDED",
                f"license {license.license_id} number {license.seq} is older than {seq} here",
            )

    def _open_activation(self, envelope: Envelope) -> Activation:
        return self._under(lambda trust: Activation.open(envelope, trust))

    def _activation(self, envelope: Envelope) -> None:
        made = self._open_activation(envelope)
        if made.device_id != self._device:
            self.taken.others += 1
            return
        stored = rights.stored(self._db, "activation", made.license_id)
        # The digest is of the payload: the same words under a new signature replace a revoked one.
        same = stored is not None and stored.digest == envelope.digest
        if stored is not None and same and _still(lambda: self._open_activation(stored)) is not None:
            self.taken.known += 1
            return
        license = self._stored_license(made.license_id)
        if license is None or license.digest != made.license_digest:
            raise SealpackError(
                "LIC_MISSING", f"the activation is for a license {made.license_id} that did not come with it"
            )
        self._require_issuer(Activation, envelope, license)
        self._answer(made)
        rights.keep(self._db, "activation", made.license_id, envelope)
        timekeeper.anchor(self._db, made.issued_at)
        self.taken.activations.append(made.license_id)

    def _require_issuer(
        self,
        document: type[Activation] | type[Lease] | type[Acknowledgement],
        envelope: Envelope,
        license: License | None,
    ) -> None:
        """Nobody but its own issuer speaks for a license that is here; SIG_KEY_ROLE."""
        if license is not None:
            self._under(lambda trust: document.open(envelope, trust, license.issuer))

    def _answer(self, made: Activation) -> None:
        """Bind the activation to the one request it answers."""
        row = self._db.execute(
            "SELECT digest, answered FROM requests WHERE nonce=?", (made.nonce,)
        ).fetchone()
        if row is None or row[0] != made.request_digest:
            raise SealpackError("ACTIVATION_NONCE", "the activation answers a request this device never made")
        if row[1] is not None and row[1] != made.digest:
            raise SealpackError(
                "ACTIVATION_NONCE", "the activation answers a request that was answered before"
            )
        self._db.execute("UPDATE requests SET answered=? WHERE nonce=?", (made.digest, made.nonce))

    def _lease(self, envelope: Envelope) -> None:
        lease = self._under(lambda trust: Lease.open(envelope, trust))
        if lease.device_id != self._device:
            self.taken.others += 1
            return
        license = self._stored_license(lease.license_id)
        self._require_issuer(Lease, envelope, license)
        if license is not None:  # before that nobody can say whether its issuer speaks for the license
            timekeeper.anchor(self._db, lease.issued_at)
        stored = rights.stored(self._db, "lease", lease.license_id)
        if stored is not None:
            old = _still(lambda: self._under(lambda trust: Lease.open(stored, trust)))
            if old is not None and (old.epoch, old.lease_seq) >= (lease.epoch, lease.lease_seq):
                self.taken.known += 1
                return
        rights.keep(self._db, "lease", lease.license_id, envelope)
        self.taken.leases.append(lease.license_id)

    def _open_logs(self) -> None:
        """Every license that may run here has a log, begun when its activation is taken."""
        for license_id in rights.license_ids(self._db):
            # What is no longer believed opens no log, and does not keep the news of that from being taken.
            found = _still(lambda name=license_id: rights.read(self._db, name, self._trusts))  # type: ignore[misc]
            if found is None:
                continue
            license, activation = found.license, found.activation
            if license.devices.binding != "none" and activation is None:
                continue
            existing = log.find(self._db, license_id)
            if existing is not None and existing.epoch >= (activation.epoch if activation else 0):
                continue
            moment = timekeeper.observe(self._db)
            root = found.trust.root_digest
            log.create(self._db, self._signer, license, activation, root, self._device, moment)

    def _acknowledge(self, envelope: Envelope) -> None:
        ack = self._under(lambda trust: Acknowledgement.open(envelope, trust))
        found = log.find(self._db, ack.license_id)
        if found is None or found.origin != ack.origin or ack.device_id != self._device:
            self.taken.others += 1
            return
        license = self._stored_license(ack.license_id)
        self._require_issuer(Acknowledgement, envelope, license)
        if license is not None:
            timekeeper.anchor(self._db, ack.server_time)
        if self._is_known(ack, envelope, found):
            self.taken.known += 1
            return
        _advance(self._db, found, ack)
        rights.keep(self._db, "acknowledgement", ack.license_id, envelope)
        if ack.lease is not None:
            self._lease(ack.lease)
        writer = Writer(self._db, found, self._signer, timekeeper.observe(self._db))
        writer.add(
            records.ACKNOWLEDGED,
            digest=ack.digest,
            ack_seq=ack.ack_seq,
            size=ack.size,
            server_time=ack.server_time,
        )
        writer.finish()
        self.taken.acknowledgements.append(ack.origin)
        if ack.statement:
            self.taken.statements.append(ack.statement)

    def _is_known(self, ack: Acknowledgement, envelope: Envelope, found: Log) -> bool:
        if ack.ack_seq > found.ack_seq:
            return False
        stored = rights.stored(self._db, "acknowledgement", ack.license_id)
        same = stored is not None and stored.digest == envelope.digest
        if ack.ack_seq == found.ack_seq and not same:
            raise SealpackError("ACK_FORK", f"two acknowledgements numbered {ack.ack_seq} for {ack.origin}")
        return True


def _still(read: Callable[[], T]) -> T | None:
    """What `read` makes of a stored document; None when its signer is no longer believed."""
    try:
        return read()
    except SealpackError as error:
        if error.code not in _NO_LONGER:
            raise
        return None


def _is(envelope: Envelope, kind: str) -> bool:
    return documents.kind_of(envelope) == kind


def _version(envelope: Envelope) -> int:
    """Of a trust document that was verified."""
    return documents.payload_fields(envelope, documents.kind_of(envelope)).integer("version")


def _is_old(old: License, new: License) -> bool:
    """True for the license already here; refuses an older or a contradicting one."""
    if new.seq == old.seq and new.digest != old.digest:
        raise SealpackError(
            "LIC_CONFLICT", f"two different licenses {new.license_id} carry the number {new.seq}"
        )
    if new.seq < old.seq:
        raise SealpackError(
            "LIC_SUPERSEDED", f"license {new.license_id} number {new.seq} is older than {old.seq} here"
        )
    return new.seq == old.seq


def _advance(db: sqlite3.Connection, found: Log, ack: Acknowledgement) -> None:
    """Move the acknowledged tree on, after comparing it with ours; ACK_FORK when they differ."""
    if ack.size > found.size:
        raise SealpackError(
            "ACK_FORK", f"settlement acknowledged {ack.size} receipts, this log has {found.size}"
        )
    if ack.size < found.acked_size:
        raise SealpackError(
            "ACK_FORK", f"acknowledgement {ack.ack_seq} goes back from {found.acked_size} to {ack.size}"
        )
    lines = log.leaves(db, found.log, found.acked_size, ack.size)
    tree = found.acked.extend(map(leaf_hash, lines))
    if tree.size != ack.size or tree.root.hex() != ack.root:
        raise SealpackError(
            "ACK_FORK", f"the acknowledged receipts up to {ack.size} are not the ones of this log"
        )
    found.acked_size, found.acked, found.ack_seq = ack.size, tree, ack.ack_seq
    log.store_acknowledged(db, found)
