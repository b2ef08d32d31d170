"""This device's identity: its key, its name, and the request that introduces it to an issuer.

Source: specs/activation.md. The keys are made once and never leave the state directory: one signs the
checkpoints of every log, the other opens the keys of encrypted bundles.
"""

from __future__ import annotations

import secrets

from sealpack.format import documents
from sealpack.format.activation import ActivationRequest, device_id
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.hybrid import SEED_SIZE, HybridPrivateKey
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.format.trust import Trust
from sealpack.runtime import machine
from sealpack.runtime.home import Home, write_once
from sealpack.runtime.state import State


def key(home: Home, *, create: bool = False) -> PrivateKey:
    """The device key, made when missing and `create`; DEVICE_KEY_MISSING otherwise."""
    path = home.device_key
    if not path.exists():
        if not create:
            raise SealpackError("DEVICE_KEY_MISSING", f"there is no device key in {home.path}")
        write_once(path, PrivateKey.generate(ED25519).to_pem())
    found = PrivateKey.load(path)
    if found.scheme != ED25519:
        raise SealpackError("STATE_TAMPERED", f"{path} is not an Ed25519 key")
    return found


def hpke_key(home: Home, *, create: bool = False) -> HybridPrivateKey:
    """The key that keys of encrypted bundles are wrapped for, made when missing and `create`.

    DEVICE_KEY_MISSING, STATE_TAMPERED.
    """
    path = home.hpke_key
    if not path.exists():
        if not create:
            raise SealpackError(
                "DEVICE_KEY_MISSING", f"the key that opens encrypted bundles is not in {home.path}"
            )
        write_once(path, HybridPrivateKey.generate().seed)
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
    made = ActivationRequest(
        signer.public,
        secrets.token_hex(16),
        now,
        trust.root_digest,
        f"sealpack {machine.runtime_version()}",
        label,
        license_id,
        hpke_key(state.home, create=True).public,
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
