"""Write the activation vectors: `python specs/vectors/activation/generate.py [FOLDER]`.

Each case is `case.json` and `document.json` of the `kind` stated: an activation request is checked with the
key inside it, an activation, a lease and an epoch token with the `trust.json` beside the cases.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from typing import Any

from support import world
from support.vectors import Cases
from support.world import CREATOR, LICENSER, SETTLEMENT, STRANGER, T0

from sealpack.format import canonical, confirmation, documents, dsse
from sealpack.format.activation import device_id, log_origin
from sealpack.format.dsse import Envelope
from sealpack.format.hybrid import HybridPrivateKey
from sealpack.format.keys import PrivateKey

DEVICE = PrivateKey.from_seed(b"sealpack test vector device key!")
ID = device_id(DEVICE.public)
REQUEST: dict[str, Any] = {
    "device_key": DEVICE.public.pem,
    "nonce": "00112233445566778899aabbccddeeff",
    "created": T0,
    "root_digest": "ab" * 32,
    "runtime": "sealpack 0.2.0",
    "device_label": "ward 1",
}
PARTS = "200000013000000240000003f0000004"  # board, disk, network and a kind of a later version
ACTIVATION: dict[str, Any] = {
    "license_id": "L-1",
    "license_digest": "cd" * 32,
    "device_id": ID,
    "device_key": DEVICE.public.pem,
    "request_digest": "ef" * 32,
    "nonce": "00112233445566778899aabbccddeeff",
    "issued_at": T0,
    "keys": [],
}
LEASE: dict[str, Any] = {
    "license_id": "L-1",
    "device_id": ID,
    "epoch": 0,
    "lease_seq": 1,
    "issued_at": T0,
    "expires": T0 + 86400,
    "ceilings": [{"meter": "calls", "limit": 1000}, {"meter": "ms", "limit": 9, "bundle_digest": "ab" * 32}],
}


REPAIR: dict[str, Any] = {
    "license_id": "L-1",
    "device_id": ID,
    "request_digest": "ef" * 32,
    "nonce": "00112233445566778899aabbccddeeff",
    "issued_at": T0,
    "now": T0,
}


DEACTIVATION: dict[str, Any] = {
    "license_id": "L-1",
    "device_key": DEVICE.public.pem,
    "epoch": 0,
    "origin": log_origin("L-1", ID, 0),
    "size": 12,
    "root": "ab" * 32,
    "activation": "cd" * 32,
    "nonce": "00112233445566778899aabbccddeeff",
    "closed_at": T0 + 86400,
    "used": {"calls": 7, "ms": 290},
}
SECRET = "0f" * 16
ROOT = "ab" * 32


def sealed(kind: str, members: dict[str, Any], key: PrivateKey) -> Envelope:
    """A document of any content."""
    value = {"schema": documents.schema_id(kind)} | members
    body = canonical.dumps({k: v for k, v in value.items() if v is not None})
    return dsse.sign(documents.payload_type(kind), body, key)


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file."""
    cases = Cases()

    def add(name: str, description: str, expect: str, kind: str, envelope: Envelope) -> None:
        more = {"device_id": ID} if kind in ("activation-request", "deactivation") else {}
        if name == "activation-confirmation":
            more = {"root": ROOT, "code": confirmation.code(SECRET, ID, envelope.digest, ROOT)}
        cases.add(name, description, expect, {"document.json": envelope.to_bytes()}, kind=kind, **more)

    _requests(lambda n, d, c, e: add(f"request-{n}", d, c, "activation-request", e))
    _activations(lambda n, d, c, e: add(f"activation-{n}", d, c, "activation", e))
    _repairs(lambda n, d, c, e: add(f"repair-{n}", d, c, "repair", e))
    _leases(lambda n, d, c, e: add(f"lease-{n}", d, c, "lease", e))
    _tokens(lambda n, d, c, e: add(f"token-{n}", d, c, "epoch-token", e))
    _deactivations(lambda n, d, c, e: add(f"deactivation-{n}", d, c, "deactivation", e))
    cases.write(folder)
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())


def _requests(add: Any) -> None:
    def made(key: PrivateKey = DEVICE, **members: Any) -> Envelope:
        return sealed("activation-request", REQUEST | members, key)

    good = made()
    add("good", "A request signed by the key it introduces.", "ok", good)
    add("stranger", "Signed by another key.", "SIG_INVALID", made(STRANGER))
    add(
        "two-signatures",
        "Two signatures.",
        "DOC_SCHEMA",
        Envelope(good.payload_type, good.payload, good.signatures * 2),
    )
    (signature,) = good.signatures
    renamed = replace(good, signatures=(replace(signature, keyid=STRANGER.keyid),))
    add("keyid", "The signature names another key.", "SIG_KEY_UNKNOWN", renamed)
    add("p256", "A device key of another scheme.", "DOC_SCHEMA", made(CREATOR, device_key=CREATOR.public.pem))
    add("nonce", "A nonce of another length.", "DOC_SCHEMA", made(nonce="00"))
    add("key", "A device key that is none.", "KEY_MALFORMED", made(device_key="key"))
    add("label", "A label of 101 characters.", "DOC_SCHEMA", made(device_label="x" * 101))
    hybrid = HybridPrivateKey.from_seed(b"sealpack test vector hybrid key!").public.data
    add("hpke-key", "With a key to wrap keys for.", "ok", made(hpke_key=dsse.b64encode(hybrid)))
    short = dsse.b64encode(hybrid[:-32])
    add("hpke-key-short", "The half of a hybrid key.", "DOC_SCHEMA", made(hpke_key=short))
    add("fingerprint", "With hardware parts, of an unknown kind too.", "ok", made(fingerprint=PARTS))
    add("fingerprint-odd", "A part cut short.", "DOC_SCHEMA", made(fingerprint=PARTS[:-1]))
    add("fingerprint-many", "17 parts.", "DOC_SCHEMA", made(fingerprint="10000000" * 17))
    add("key-store", "Keys sealed in a TPM.", "ok", made(key_store="tpm"))
    add("key-store-unknown", "Keys nobody knows where.", "DOC_SCHEMA", made(key_store="pocket"))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", made(crit=["tpm-quote"]))
    add("kind", "An activation.", "DOC_TYPE", sealed("activation", ACTIVATION, DEVICE))
    changed = good.payload.replace(b"ward 1", b"ward 2")
    add(
        "changed",
        "The label was changed.",
        "SIG_INVALID",
        Envelope(good.payload_type, changed, good.signatures),
    )


def _activations(add: Any) -> None:
    def made(key: PrivateKey = LICENSER, **members: Any) -> Envelope:
        return sealed("activation", ACTIVATION | members, key)

    add("good", "An activation of the device.", "ok", made())
    add("settlement", "Settlement may not activate.", "SIG_KEY_ROLE", made(SETTLEMENT))
    add("stranger", "Signed by a stranger.", "SIG_KEY_UNKNOWN", made(STRANGER))
    add(
        "other-device", "Id and key are of two devices.", "DEVICE_MISMATCH", made(device_id="dev-" + "0" * 32)
    )
    add("device-id", "An id of another form.", "DOC_SCHEMA", made(device_id="ward-1"))
    add("license-digest", "No license digest.", "DOC_SCHEMA", made(license_digest=None))
    add("fingerprint", "Bound to the hardware of the request.", "ok", made(fingerprint=PARTS))
    add("fingerprint-odd", "Hardware parts of another form.", "DOC_SCHEMA", made(fingerprint="tpm"))
    add("keys", "Wrapped keys that are no objects.", "DOC_SCHEMA", made(keys=["k"]))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", made(crit=["x"]))
    add("kind", "A lease.", "DOC_TYPE", sealed("lease", LEASE, LICENSER))
    add("confirmation", "With a secret, and the code it gives.", "ok", made(confirmation=SECRET))
    add("confirmation-short", "A secret of another length.", "DOC_SCHEMA", made(confirmation="0f"))
    share = {"meter": "calls", "limit": 600}
    add("shares", "With its own part of a license-wide quota.", "ok", made(shares=[share]))
    add(
        "shares-meter", "A part of an unknown meter.", "DOC_SCHEMA", made(shares=[share | {"meter": "miles"}])
    )


def _deactivations(add: Any) -> None:
    def made(key: PrivateKey = DEVICE, **members: Any) -> Envelope:
        return sealed("deactivation", DEACTIVATION | members, key)

    good = made()
    add("good", "A device ended its log.", "ok", good)
    add("unused", "Nothing was ever used.", "ok", made(used={}))
    add("stranger", "Signed by another key.", "SIG_INVALID", made(STRANGER))
    twice = Envelope(good.payload_type, good.payload, good.signatures * 2)
    add("two-signatures", "Two signatures.", "DOC_SCHEMA", twice)
    add("p256", "A device key of another scheme.", "DOC_SCHEMA", made(CREATOR, device_key=CREATOR.public.pem))
    (signature,) = good.signatures
    renamed = replace(good, signatures=(replace(signature, keyid=STRANGER.keyid),))
    add("keyid", "The signature names another key.", "SIG_KEY_UNKNOWN", renamed)
    add("other-license", "The log of another license.", "DOC_SCHEMA", made(origin=log_origin("L-2", ID, 0)))
    add("other-epoch", "Another log than it says.", "DOC_SCHEMA", made(epoch=1))
    add("size-1", "A log that ends with its first record.", "DOC_SCHEMA", made(size=1))
    add("meter", "An unknown meter.", "DOC_SCHEMA", made(used={"miles": 1}))
    add("meter-0", "A meter that counted nothing is left out.", "DOC_SCHEMA", made(used={"calls": 0}))
    add("nonce", "A nonce of another length.", "DOC_SCHEMA", made(nonce="00"))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", made(crit=["x"]))
    add("kind", "A request.", "DOC_TYPE", sealed("activation-request", REQUEST, DEVICE))
    changed = Envelope(good.payload_type, good.payload.replace(b'"calls":7', b'"calls":6'), good.signatures)
    add("changed", "What was used was changed.", "SIG_INVALID", changed)


def _leases(add: Any) -> None:
    def made(key: PrivateKey = SETTLEMENT, **members: Any) -> Envelope:
        return sealed("lease", LEASE | members, key)

    add("good", "A lease from settlement.", "ok", made())
    add("issuer", "A first lease from the license issuer.", "ok", made(LICENSER))
    add("creator", "A bundle key may not lease.", "SIG_KEY_ROLE", made(CREATOR))
    add("never-expires", "No expiry.", "ok", made(expires=None))
    add("negative", "A ceiling below 0.", "DOC_SCHEMA", made(ceilings=[{"meter": "calls", "limit": -1}]))
    add(
        "meter",
        "A ceiling of an unknown meter.",
        "DOC_SCHEMA",
        made(ceilings=[{"meter": "miles", "limit": 1}]),
    )
    add("above-2-53", "A ceiling JSON cannot carry exactly.", "JSON_INVALID", _huge(made()))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", made(crit=["x"]))
    under = {"root": 1, "revocations": 3}
    add("issued-under", "Trust documents it was issued under.", "ok", made(issued_under=under))
    add("issued-under-root-0", "Roots count from 1.", "DOC_SCHEMA", made(issued_under=under | {"root": 0}))


def _tokens(add: Any) -> None:
    token = {"license_id": "L-1", "device_id": ID, "epoch": 2, "issued_at": T0, "reason": "disk replaced"}

    def made(key: PrivateKey = SETTLEMENT, **members: Any) -> Envelope:
        return sealed("epoch-token", token | members, key)

    add("good", "Settlement lets the device begin log 2.", "ok", made())
    add("issuer", "The license issuer does, without a reason.", "ok", made(LICENSER, reason=None))
    add("creator", "A bundle key may not.", "SIG_KEY_ROLE", made(CREATOR))
    add("stranger", "Signed by a stranger.", "SIG_KEY_UNKNOWN", made(STRANGER))
    add("epoch-0", "The first log needs no token.", "DOC_SCHEMA", made(epoch=0))
    add("device-id", "An id of another form.", "DOC_SCHEMA", made(device_id="ward-1"))
    add("reason", "A reason of 501 characters.", "DOC_SCHEMA", made(reason="x" * 501))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", made(crit=["x"]))
    add("kind", "A lease.", "DOC_TYPE", sealed("lease", LEASE, SETTLEMENT))


def _repairs(add: Any) -> None:
    def made(key: PrivateKey = LICENSER, **members: Any) -> Envelope:
        return sealed("repair", REPAIR | members, key)

    add("good", "It is now.", "ok", made())
    add("epoch", "It allows another log.", "ok", made(now=None, epoch=1))
    add("fingerprint", "It accepts other hardware.", "ok", made(now=None, fingerprint="0a1b2c3d"))
    add("nothing", "It repairs nothing.", "DOC_SCHEMA", made(now=None))
    add("negative", "A time before 1970.", "DOC_SCHEMA", made(now=-1))
    add("nonce", "It answers nothing.", "DOC_SCHEMA", made(nonce=None))
    add("fingerprint-odd", "Hardware that is none.", "DOC_SCHEMA", made(fingerprint="0a1b2c3"))
    add("settlement", "Settlement may not repair.", "SIG_KEY_ROLE", made(SETTLEMENT))
    add("stranger", "Signed by a stranger.", "SIG_KEY_UNKNOWN", made(STRANGER))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", made(crit=["clears"]))
    add("kind", "A lease.", "DOC_TYPE", sealed("lease", LEASE, LICENSER))


def _huge(good: Envelope) -> Envelope:
    body = good.payload.replace(b'"limit":1000', b'"limit":9007199254740992')
    return dsse.sign(good.payload_type, body, SETTLEMENT)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
