"""This device's identity: its key, its name, and the request that introduces it to an issuer.

Source: specs/activation.md; specs/runtime-state.md, "Device identity". The keys are made once and never leave
the machine's TPM or, where there is none, the state directory: one signs the checkpoints of every log, the
other opens the keys of encrypted bundles.
"""

from __future__ import annotations

import secrets
import sqlite3
from functools import cached_property

from sealpack.format import documents, records
from sealpack.format.activation import Activation, ActivationRequest, device_id
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.hybrid import SEED_SIZE, HybridPrivateKey
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.format.license import License
from sealpack.format.trust import Trust
from sealpack.runtime import fingerprint, keystore, machine
from sealpack.runtime.home import Home
from sealpack.runtime.log import Log, Writer
from sealpack.runtime.state import State
from sealpack.runtime.timekeeper import Moment

DRIFT = "hardware-drift"  # specs/receipts.md


def key(home: Home, *, create: bool = False) -> PrivateKey:
    """The device key, made when missing and `create`; DEVICE_KEY_MISSING otherwise."""
    path = home.device_key
    if not keystore.holds(path):
        if not create:
            raise SealpackError("DEVICE_KEY_MISSING", f"there is no device key in {home.path}")
        seed = secrets.token_bytes(keystore.SEED_SIZE)
        keystore.keep(path, seed, PrivateKey.from_seed(seed).to_pem())
    sealed = keystore.unsealed(path)
    if sealed is not None:
        return PrivateKey.from_seed(sealed)
    found = PrivateKey.load(path)
    if found.scheme != ED25519:
        raise SealpackError("STATE_TAMPERED", f"{path} is not an Ed25519 key")
    return found


def hpke_key(home: Home, *, create: bool = False) -> HybridPrivateKey:
    """The key that keys of encrypted bundles are wrapped for, made when missing and `create`.

    DEVICE_KEY_MISSING, STATE_TAMPERED.
    """
    path = home.hpke_key
    if not keystore.holds(path):
        if not create:
            raise SealpackError(
                "DEVICE_KEY_MISSING", f"the key that opens encrypted bundles is not in {home.path}"
            )
        seed = HybridPrivateKey.generate().seed
        keystore.keep(path, seed, seed)
    sealed = keystore.unsealed(path)
    if sealed is not None:
        return HybridPrivateKey.from_seed(sealed)
    try:
        return HybridPrivateKey.from_seed(read_bounded(path, 2 * SEED_SIZE))
    except SealpackError as error:
        if error.code not in ("KEY_MALFORMED", "JSON_LIMIT"):
            raise
        raise SealpackError("STATE_TAMPERED", f"{path} is not a key that was made here") from None


def request(
    state: State, trust: Trust, now: int, *, label: str | None = None, license_id: str | None = None
) -> Envelope:
    """A new signed activation request, remembered so that only its answer is accepted.

    `now` is Unix seconds. The device keys are made here when there are none yet. USAGE for a label or
    license id that no issuer could read.
    """
    signer = key(state.home, create=True)
    hpke = hpke_key(state.home, create=True).public
    nonce = secrets.token_hex(16)
    here = Surroundings(state.home)
    made = ActivationRequest(
        signer.public,
        nonce,
        now,
        trust.root_digest,
        f"sealpack {machine.runtime_version()}",
        label,
        license_id,
        hpke,
        key_store=here.key_store,
        fingerprint=fingerprint.make(here.hardware, here.secret, nonce) or None,
    )
    envelope = documents.seal("activation-request", made.to_dict(), signer)
    try:
        ActivationRequest.open(envelope)
    except SealpackError as error:
        raise SealpackError("USAGE", error.message) from None
    with state.write() as db:
        db.execute(
            "INSERT INTO requests(nonce, digest, created) VALUES(?,?,?)", (made.nonce, envelope.digest, now)
        )
    return envelope


def name(signer: PrivateKey) -> str:
    """The device's name, from its key."""
    return device_id(signer.public)


def note_drift(
    db: sqlite3.Connection,
    found: Log | None,
    signer: PrivateKey,
    seen: fingerprint.Comparison | None,
    moment: Moment,
) -> None:
    """An event in the license's log the first time that parts are met in place of the accepted ones."""
    if found is None or seen is None or not fingerprint.is_new_drift(db, found.license_id, seen):
        return
    writer = Writer(db, found, signer, moment)
    writer.add(records.CLOCK, event=DRIFT, delta_ms=0)
    writer.finish()


class Surroundings:
    """What admission asks about this machine; read when it is first asked for, and once."""

    def __init__(self, home: Home) -> None:
        """Nothing is read yet."""
        self._home = home
        self.virtual_machine = machine.in_virtual_machine()
        self.container = machine.in_container()

    @cached_property
    def hardware(self) -> fingerprint.Hardware:
        """The parts of the machine that holds the state."""
        return fingerprint.read(self._home.path)

    @cached_property
    def secret(self) -> bytes:
        """What keys the fingerprints of this install."""
        return self._home.secret()

    def compare(
        self, db: sqlite3.Connection, license: License, activation: Activation | None
    ) -> fingerprint.Comparison | None:
        """The machine beside the one that was activated; None where the license asks for none, or old files.

        STATE_TAMPERED as of :func:`fingerprint.judge`.
        """
        if activation is None or license.devices.binding not in ("key+fp", "tpm"):
            return None
        return fingerprint.judge(db, activation, self.hardware, self.secret)

    @property
    def key_store(self) -> str | None:
        """Where the device key is: `tpm`, `file`, or None before it was made."""
        return keystore.of(self._home)
