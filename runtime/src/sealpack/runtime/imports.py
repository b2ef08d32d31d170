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
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import License
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.repair import Repair
from sealpack.format.sublicense import Chain, Sublicense
from sealpack.format.trust import Trust
from sealpack.runtime import (
    anchors,
    clones,
    closing,
    device,
    epochs,
    fingerprint,
    keystore,
    lapses,
    log,
    proofs,
    rights,
    sublicenses,
    timekeeper,
)
from sealpack.runtime.home import Home
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.state import Connection, State

# What is addressed to devices, or concerns them all.
KINDS = (
    *("license", "sublicense", "activation", "lease", "epoch-token", "repair", "acknowledgement"),
    *("root", "keyring", "revocations"),
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
    tokens: list[str] = field(default_factory=list)  # licenses under which a further log may begin
    repairs: list[str] = field(default_factory=list)  # licenses whose issuer repaired something
    trust: list[tuple[str, int]] = field(default_factory=list)  # kind and version of what became newer
    known: int = 0  # documents that were here already, or are older
    others: int = 0  # documents for other devices or logs

    @property
    def count(self) -> int:
        """How many documents were new."""
        kinds = (self.licenses, self.activations, self.leases, self.acknowledgements, self.repairs)
        return sum(map(len, kinds)) + len(self.tokens)


def take(state: State, parcels: Iterable[Parcel]) -> Taken:
    """Verify and store every document addressed to this device, in one transaction."""
    envelopes = [e for parcel in parcels for e in parcel.documents]
    signer = device.key(state.home, create=True)
    with state.write() as db:
        found = _Import(db, signer, keystore.of(state.home), state.home)
        found.run(envelopes)
        return found.taken


class _Import:
    """One import inside one transaction."""

    def __init__(self, db: Connection, signer: PrivateKey, key_store: str | None, home: Home) -> None:
        self._home = home
        self._db = db
        self._signer = signer
        self._key_store = key_store
        self._device = device.name(signer)
        self._trusts: list[Trust] = []
        self._activated: set[str] = set()
        self._rolled_back: set[str] = set()
        self._elsewhere: set[str] = set()  # licenses that came with another device's activation
        self._below: dict[str, sublicenses.Pair] = {}  # sub-licenses here and those that come, by id
        self.taken = Taken()

    def run(self, envelopes: list[Envelope]) -> None:
        """Trust first, then licenses, activations and leases, then what refers to logs."""
        self._ratchet(envelopes)
        self._below = sublicenses.gather(self._db, envelopes)
        for made, _ in (self._open_activation(e) for e in envelopes if _is(e, "activation")):
            mine = made.device_id == self._device
            (self._activated if mine else self._elsewhere).add(made.license_id)
        steps: tuple[tuple[str, Callable[[Envelope], None]], ...] = (
            ("acknowledgement", self._chain),
            ("license", self._license),
            ("sublicense", self._sublicense),
            ("activation", self._activation),
            ("lease", self._lease),
            ("epoch-token", self._token),
        )
        for kind, step in steps:
            for envelope in envelopes:
                if _is(envelope, kind):
                    step(envelope)
        self._open_logs()
        for envelope in envelopes:
            if _is(envelope, "repair"):
                self._repair(envelope)
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
        if license.devices.binding == "tpm" and self._key_store != keystore.TPM:
            raise SealpackError(
                "DOC_CRIT",
                f"license {license.license_id} is bound to a TPM, and the keys of this machine are in files",
                remedy="use a machine with a TPM that this user may use (/dev/tpmrm0) and a new state"
                " directory, or ask the vendor for a license bound by key+fp",
            )
        if rights.stored(self._db, "sublicense", license.license_id) is not None:
            raise SealpackError("LIC_CONFLICT", f"there is a sub-license {license.license_id} here")
        self._renew_parent(envelope, license)
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
        """A license bound to devices is kept only with an activation of this one, or for provisional use.

        What came with another device's activation was sent to that one.
        """
        return (
            license.devices.binding == "none"
            or license.license_id in self._activated
            or rights.stored(self._db, "activation", license.license_id) is not None
            or (
                license.provisional is not None
                and license.license_id not in self._elsewhere
                and not any(pair.parent_id == license.license_id for pair in self._below.values())
            )
        )

    def _stored_license(self, license_id: str) -> License | None:
        """The stored license, unless its signer is no longer believed: then a new one takes its place."""
        envelope = rights.stored(self._db, "license", license_id)
        if envelope is None:
            return self._stored_sublicense(license_id)
        return rights.still(lambda: rights.verified(envelope, self._trusts).license)

    def _stored_sublicense(self, license_id: str) -> License | None:
        """What a stored sub-license and its parent allow."""
        envelope = rights.stored(self._db, "sublicense", license_id)
        parent = rights.stored(self._db, "parent", license_id)
        if envelope is None or parent is None:
            return None
        return rights.still(lambda: rights.chain(envelope, parent, self._trusts)[0].license)

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

    def _open_activation(self, envelope: Envelope) -> tuple[Activation, Chain | None]:
        """With the sub-license whose delegate signed it."""
        found = self._chain_below(envelope)
        if found is not None:
            return found.open_activation(envelope), found
        return self._under(lambda trust: Activation.open(envelope, trust)), None

    def _open_lease(self, envelope: Envelope) -> tuple[Lease, Chain | None]:
        """With the sub-license whose delegate signed it."""
        found = self._chain_below(envelope)
        if found is not None:
            return found.open_lease(envelope), found
        return self._under(lambda trust: Lease.open(envelope, trust)), None

    def _chain_below(self, envelope: Envelope) -> Chain | None:
        """The sub-license that a document is about, when its delegate signed the document."""
        name = sublicenses.license_id(envelope)
        pair = self._below.get(name)
        listed = any(sig.keyid in t.keyring.entries for t in self._trusts for sig in envelope.signatures)
        if pair is None or pair.parent is None or listed:  # by an issuer, whom no delegate's fault concerns
            return None
        found, _ = rights.chain(pair.sublicense, pair.parent, self._trusts)
        return found if found.signed(envelope) else None

    def _sublicense(self, envelope: Envelope) -> None:
        said = Sublicense.read(envelope)
        pair = self._below[said.license_id]
        if pair.parent is None:
            raise SealpackError(
                "LIC_MISSING", f"sub-license {said.license_id} came without license {said.parent.license_id}"
            )
        license = rights.chain(envelope, pair.parent, self._trusts)[0].license
        if rights.stored(self._db, "license", said.license_id) is not None:
            raise SealpackError("LIC_CONFLICT", f"there is a license {said.license_id} here, of another kind")
        activated = rights.stored(self._db, "activation", said.license_id) is not None
        if said.license_id not in self._activated and not activated:
            self.taken.others += 1
            return
        old = rights.stored(self._db, "sublicense", said.license_id)
        if old is not None and _is_old(Sublicense.read(old), said):
            self.taken.known += 1
            return
        rights.keep(self._db, "sublicense", said.license_id, envelope)
        rights.keep(self._db, "parent", said.license_id, pair.parent)
        timekeeper.anchor(self._db, license.issued_at)
        if old is None:
            self._adopt_lease(license)
        self.taken.licenses.append(said.license_id)

    def _renew_parent(self, envelope: Envelope, license: License) -> None:
        """A newer parent bounds the sub-licenses below it from now on."""
        for name in sublicenses.below(self._db, license):
            rights.keep(self._db, "parent", name, envelope)
            timekeeper.anchor(self._db, license.issued_at)
            self.taken.licenses.append(license.license_id)

    def _activation(self, envelope: Envelope) -> None:
        made, below = self._open_activation(envelope)
        if made.device_id != self._device:
            self.taken.others += 1
            return
        stored = rights.stored(self._db, "activation", made.license_id)
        # The digest is of the payload: the same words under a new signature replace a revoked one.
        old = None if stored is None else rights.still(lambda: self._open_activation(stored)[0])
        if old is not None and (old.digest == made.digest or _is_older(made, old)):
            self.taken.known += 1
            return
        closing.require_newer(self._db, made)
        license = self._stored_license(made.license_id)
        if license is None or license.digest != made.license_digest:
            raise SealpackError(
                "LIC_MISSING", f"the activation is for a license {made.license_id} that did not come with it"
            )
        if below is None:
            self._require_issuer(Activation, envelope, license)
        self._answer(made, again=stored is not None and _renews(made, Activation.read(stored)))
        rights.keep(self._db, "activation", made.license_id, envelope)
        clones.decide(self._db, made.license_id, made.epoch)
        if below is None:  # what a delegate dated proves nothing about the time
            timekeeper.anchor(self._db, made.issued_at)
        self.taken.activations.append(made.license_id)

    def _require_issuer(
        self,
        document: type[Activation | Lease | EpochToken | Repair | Acknowledgement],
        envelope: Envelope,
        license: License | None,
    ) -> None:
        """Nobody but its own issuer speaks for a license that is here; SIG_KEY_ROLE."""
        if license is not None:
            self._under(lambda trust: document.open(envelope, trust, license.issuer))

    def _answer(self, made: Activation | Repair, *, again: bool = False) -> None:
        """Bind an activation or a repair to the one request it answers; a renewal may answer it `again`."""
        what = "activation" if isinstance(made, Activation) else "repair"
        row = self._db.execute(
            "SELECT digest, answered FROM requests WHERE nonce=?", (made.nonce,)
        ).fetchone()
        if row is None or row[0] != made.request_digest:
            raise SealpackError("ACTIVATION_NONCE", f"the {what} answers a request this device never made")
        if not again and row[1] is not None and row[1] != made.digest:
            raise SealpackError("ACTIVATION_NONCE", f"the {what} answers a request that was answered before")
        self._db.execute("UPDATE requests SET answered=? WHERE nonce=?", (made.digest, made.nonce))

    def _lease(self, envelope: Envelope) -> None:
        lease, below = self._open_lease(envelope)
        if lease.device_id != self._device:
            self.taken.others += 1
            return
        license = self._stored_license(lease.license_id)
        if below is not None:
            sublicenses.require_past(self._db, lease)
        elif license is not None:  # before that nobody can say whether its issuer speaks for the license
            self._require_issuer(Lease, envelope, license)
            timekeeper.anchor(self._db, lease.issued_at)
        stored = rights.stored(self._db, "lease", lease.license_id)
        if stored is not None:
            old = rights.still(lambda: self._open_lease(stored)[0])
            if old is not None and (_rank(old) >= _rank(lease) or _is_dated_again(below, old)):
                self.taken.known += 1
                return
        rights.keep(self._db, "lease", lease.license_id, envelope)
        self.taken.leases.append(lease.license_id)

    def _token(self, envelope: Envelope) -> None:
        """Leave to begin a further log, from the issuer of a license that is here; the highest one counts."""
        token = self._under(lambda trust: EpochToken.open(envelope, trust))
        license = self._stored_license(token.license_id)
        if token.device_id != self._device or license is None:
            self.taken.others += 1
            return
        self._require_issuer(EpochToken, envelope, license)
        stored = rights.stored(self._db, "epoch-token", token.license_id)
        if stored is not None:
            old = rights.still(lambda: self._under(lambda trust: EpochToken.open(stored, trust)))
            if old is not None and old.epoch >= token.epoch:
                self.taken.known += 1
                return
        rights.keep(self._db, "epoch-token", token.license_id, envelope)
        self._decide(token.license_id, token.epoch)
        self.taken.tokens.append(token.license_id)

    def _decide(self, license_id: str, epoch: int) -> None:
        """After a fork settlement takes no more of the log: the one that the issuer names begins."""
        history = log.find(self._db, license_id)
        if not clones.decide(self._db, license_id, epoch) or history is None or history.epoch >= epoch:
            return
        found = rights.read(self._db, license_id, self._trusts)
        if epochs.begin_named(self._db, self._signer, found, history, epoch):
            return
        moment, root = timekeeper.observe(self._db), found.trust.root_digest
        end = clones.end_of(self._db, history)
        log.create(
            self._db, self._signer, found.license, found.activation, root, self._device, moment,
            epoch=epoch, after=end,
        )  # fmt: skip

    def _repair(self, envelope: Envelope) -> None:
        """An issuer's word about this device; only for a license that is here, by its own issuer."""
        made = self._under(lambda trust: Repair.open(envelope, trust))
        if made.device_id != self._device:
            self.taken.others += 1
            return
        license = self._stored_license(made.license_id)
        if license is None:
            raise SealpackError("LIC_MISSING", f"the repair is for license {made.license_id}, not known here")
        self._require_issuer(Repair, envelope, license)
        row = self._db.execute("SELECT answered FROM requests WHERE nonce=?", (made.nonce,)).fetchone()
        if row is not None and row[0] == made.digest:
            self.taken.known += 1
            return
        self._answer(made)
        rights.keep(self._db, "repair", made.license_id, envelope)
        self._decide(made.license_id, made.epoch or 0)
        if made.license_id in self._rolled_back:  # it may be leave for the log that this device waits for
            self._open_logs()
        timekeeper.anchor(self._db, made.issued_at)
        if made.now is not None:
            moved = timekeeper.repair(self._db, made.now)
            if made.license_id not in self._rolled_back:
                lapses.note_repaired(self._db, self._signer, made.license_id, moved)
        activation = rights.stored(self._db, "activation", made.license_id)
        if made.fingerprint is not None and activation is not None:
            accepted, _ = self._open_activation(activation)
            fingerprint.replace(self._db, accepted, made.nonce, made.fingerprint, self._home.secret())
        self.taken.repairs.append(made.license_id)

    def _open_logs(self) -> None:
        """Every license that may run here has a log, begun when its activation is taken."""
        for license_id in rights.license_ids(self._db):
            # What is no longer believed opens no log, and does not keep the news of that from being taken.
            found = rights.still(lambda name=license_id: rights.read(self._db, name, self._trusts))  # type: ignore[misc]
            if found is None:
                continue
            license, activation = found.license, found.activation
            if license.devices.binding != "none" and activation is None and license.provisional is None:
                continue
            moment = timekeeper.observe(self._db)
            try:
                existing = epochs.catch_up(self._db, self._signer, found, moment)
            except SealpackError as error:
                if error.code not in epochs.STOPPED:
                    raise
                self._rolled_back.add(license_id)  # the remedy may be among what comes
                continue
            self._rolled_back.discard(license_id)
            if existing is not None and existing.epoch >= (activation.epoch if activation else 0):
                continue
            root = found.trust.root_digest
            log.create(self._db, self._signer, license, activation, root, self._device, moment)

    def _acknowledge(self, envelope: Envelope) -> None:
        ack = self._under(lambda trust: Acknowledgement.open(envelope, trust))
        found = log.find(self._db, ack.license_id)
        frozen = self._freeze(ack, envelope, found)
        older = log.by_origin(self._db, ack.origin)
        if older is not None and found is not None and older.log != found.log and not frozen:
            self._require_issuer(Acknowledgement, envelope, self._stored_license(ack.license_id))
            self._acknowledge_older(ack, older)
            return
        if found is None or found.origin != ack.origin or ack.device_id != self._device:
            if frozen:
                self._tell(ack)
            else:
                self.taken.others += 1
            return
        license = self._stored_license(ack.license_id)
        self._require_issuer(Acknowledgement, envelope, license)
        if license is not None:
            timekeeper.anchor(self._db, ack.server_time)
        if self._is_known(ack, envelope, found):
            self.taken.known += 1
            return
        try:
            _advance(self._db, found, ack)
        except SealpackError:
            if not frozen:
                raise
            self._tell(ack)  # settlement holds the other machine's history
            return
        if not ack.frozen:
            rights.forget(self._db, clones.KIND, ack.license_id)
        rights.keep(self._db, "acknowledgement", ack.license_id, envelope)
        if ack.lease is not None:
            self._lease(ack.lease)
        if not log.is_closed(self._db, found) and ack.license_id not in self._rolled_back:
            writer = Writer(self._db, found, self._signer, timekeeper.observe(self._db))
            writer.add(
                records.ACKNOWLEDGED,
                digest=ack.digest,
                ack_seq=ack.ack_seq,
                size=ack.size,
                server_time=ack.server_time,
            )
            writer.finish()
        self._tell(ack)

    def _acknowledge_older(self, ack: Acknowledgement, older: Log) -> None:
        """A log that ended, or that was lost with a newer state: only how far it was taken counts."""
        if ack.ack_seq <= older.ack_seq or ack.size > older.size:
            self.taken.known += 1
            return
        _advance(self._db, older, ack)
        self._tell(ack)

    def _tell(self, ack: Acknowledgement) -> None:
        self.taken.acknowledgements.append(ack.origin)
        if ack.statement:
            self.taken.statements.append(ack.statement)

    def _freeze(self, ack: Acknowledgement, envelope: Envelope, found: Log | None) -> bool:
        """Remember a fork that settlement states; False for none, or one that is decided already."""
        license = self._stored_license(ack.license_id)
        if not ack.frozen or ack.device_id != self._device or license is None:
            return False
        self._require_issuer(Acknowledgement, envelope, license)
        if clones.is_decided(self._db, ack, found):
            return False
        rights.keep(self._db, clones.KIND, ack.license_id, envelope)
        return True

    def _is_known(self, ack: Acknowledgement, envelope: Envelope, found: Log) -> bool:
        if ack.ack_seq > found.ack_seq:
            return False
        stored = rights.stored(self._db, "acknowledgement", ack.license_id)
        same = stored is not None and stored.digest == envelope.digest
        if ack.ack_seq == found.ack_seq and not same:
            raise SealpackError("ACK_FORK", f"two acknowledgements numbered {ack.ack_seq} for {ack.origin}")
        return True


def _is(envelope: Envelope, kind: str) -> bool:
    return documents.kind_of(envelope) == kind


def _version(envelope: Envelope) -> int:
    """Of a trust document that was verified."""
    return documents.payload_fields(envelope, documents.kind_of(envelope)).integer("version")


def _renews(made: Activation, old: Activation) -> bool:
    """Whether an activation is the one here given again, later, for the newer license that came with it.

    The license here is `made`'s by now, and licenses only ever get newer.
    """
    same = (made.nonce, made.epoch) == (old.nonce, old.epoch)
    return same and made.license_digest != old.license_digest and made.issued_at > old.issued_at


def _is_older(made: Activation, old: Activation) -> bool:
    """Whether an activation for the same license document was given before the one here."""
    return made.license_digest == old.license_digest and (made.epoch, made.issued_at) < (
        old.epoch,
        old.issued_at,
    )


def _is_dated_again(below: Chain | None, old: Lease) -> bool:
    """Whether a delegate gives its first lease anew: one for each document of the parent counts."""
    return below is not None and old.issued_at >= below.parent.issued_at


def _rank(lease: Lease) -> tuple[int, int, int]:
    """Which of two leases counts. A renewal's is numbered as the first one, and later."""
    return lease.epoch, lease.lease_seq, lease.issued_at


def _is_old(old: License | Sublicense, new: License | Sublicense) -> bool:
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
    back = ack.size < found.acked_size  # settlement was restored from a backup, and asks for the rest again
    start, known = (0, Frontier()) if back else (found.acked_size, found.acked)
    tree = known.extend(map(leaf_hash, log.leaves(db, found.log, start, ack.size)))
    if tree.size != ack.size or tree.root.hex() != ack.root:
        raise SealpackError(
            "ACK_FORK", f"the acknowledged receipts up to {ack.size} are not the ones of this log"
        )
    found.acked_size, found.acked, found.ack_seq = ack.size, tree, ack.ack_seq
    log.store_acknowledged(db, found)
