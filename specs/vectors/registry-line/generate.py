"""Write the registry line vectors: `python specs/vectors/registry-line/generate.py [FOLDER]`.

Each case is `case.json` and `line.json`, one line without its LF. `expect` is "ok" or the code a reader
raises; a good case also gives the line's SHA-256, and the license id its verified license states.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from sealpack.format import canonical, documents
from sealpack.format.keys import PrivateKey

ISSUER = PrivateKey.from_scalar(0x7001)  # a test key, it protects nothing
DEVICE = PrivateKey.from_seed(b"sealpack test vector device key!")
T0 = 1_790_000_000


def digest(text: str) -> str:
    """A digest that stands for something."""
    return hashlib.sha256(text.encode()).hexdigest()


DEVICE_ID = "dev-" + hashlib.sha256(DEVICE.public.raw()).hexdigest()[:32]
LICENSE = documents.seal(
    "license",
    {
        "license_id": "test-license",
        "seq": 1,
        "issued_at": T0,
        "issuer": "acme",
        "customer": {"id": "nord", "name": "Hospital Nord"},
        "bundles": [{"id": "acme/minilm"}],
        "use": {"terms_digest": digest("terms")},
        "devices": {"binding": "key", "max": 2},
        "tier": "pro",
        "billing": "subscription",
        "nbf": T0,
        "exp": T0 + 31_536_000,
    },
    ISSUER,
)
ACTIVATION = documents.seal(
    "activation",
    {
        "license_id": "test-license",
        "license_digest": LICENSE.digest,
        "device_id": DEVICE_ID,
        "device_key": DEVICE.public.pem,
        "request_digest": digest("request"),
        "nonce": "00112233445566778899aabbccddeeff",
        "issued_at": T0,
        "epoch": 0,
    },
    ISSUER,
)
LEASE = documents.seal(
    "lease",
    {
        "license_id": "test-license",
        "device_id": DEVICE_ID,
        "epoch": 0,
        "lease_seq": 1,
        "issued_at": T0,
        "expires": T0 + 3_888_000,
        "ceilings": [],
    },
    ISSUER,
)
DEACTIVATION = documents.seal(
    "deactivation",
    {
        "license_id": "test-license",
        "device_key": DEVICE.public.pem,
        "epoch": 0,
        "origin": f"sealpack/usage/test-license/{DEVICE_ID}/0",
        "size": 12,
        "root": digest("tree"),
        "activation": ACTIVATION.digest,
        "nonce": "00112233445566778899aabbccddeeff",
        "closed_at": T0 + 86_400,
        "used": {"calls": 7},
    },
    DEVICE,
)
ACKNOWLEDGEMENT = documents.seal(
    "acknowledgement",
    {
        "origin": f"sealpack/usage/test-license/{DEVICE_ID}/0",
        "license_id": "test-license",
        "device_id": DEVICE_ID,
        "epoch": 0,
        "size": 12,
        "root": digest("tree"),
        "ack_seq": 1,
        "server_time": T0 + 90_000,
    },
    ISSUER,
)
BUNDLE = {
    "bundle_digest": digest("manifest"),
    "bundle_id": "acme/minilm",
    "version": "1.2.0",
    "release_index": 3,
    "name": "MiniLM",
}
FULL: dict[str, Any] = {
    "schema": "sealpack/registry-line/v1",
    "license": LICENSE.to_dict(),
    "activation": ACTIVATION.to_dict(),
    "lease": LEASE.to_dict(),
    "bundles": [BUNDLE],
}


RELEASED = {
    "activation": None,
    "lease": None,
    "bundles": [],
    "deactivation": DEACTIVATION.to_dict(),
    "released_at": T0 + 90_000,
}


def but(**members: Any) -> bytes:
    """The full line with members replaced, or removed where the value is None."""
    changed = {key: value for key, value in {**FULL, **members}.items() if value is not None}
    return canonical.dumps(changed)


CASES: dict[str, tuple[str, str, bytes]] = {
    "activated": ("License, activation, lease and bundle.", "ok", but()),
    "license-only": ("No device asked yet.", "ok", but(activation=None, lease=None, bundles=[])),
    "released": ("A device gave its seat back.", "ok", but(**RELEASED)),
    "settled": (
        "And settlement has its log to the end.",
        "ok",
        but(**RELEASED, acknowledgement=ACKNOWLEDGEMENT.to_dict()),
    ),
    "confirmed": (
        "A confirmation code was read out.",
        "ok",
        but(
            activation=None,
            lease=None,
            bundles=[],
            confirmed={"activation": ACTIVATION.digest, "at": T0 + 500},
        ),
    ),
    "released-without-time": (
        "When the proof came is missing.",
        "REGISTRY_INVALID",
        but(**{**RELEASED, "released_at": None}),
    ),
    "time-without-proof": ("A time of no proof.", "REGISTRY_INVALID", but(released_at=T0)),
    "confirmed-without-time": (
        "When the code was read out is missing.",
        "REGISTRY_INVALID",
        but(confirmed={"activation": ACTIVATION.digest}),
    ),
    "deactivation-of-another-kind": (
        "An activation where the proof belongs.",
        "REGISTRY_INVALID",
        but(**{**RELEASED, "deactivation": ACTIVATION.to_dict()}),
    ),
    "unknown-member": ("A member of a later version is ignored.", "ok", but(colour="blue")),
    "unknown-crit": ("A critical name nobody knows.", "DOC_CRIT", but(crit=["colour"])),
    "other-schema": ("Another record.", "REGISTRY_INVALID", but(schema="sealpack/parcel/v1")),
    "no-license": ("The license is missing.", "REGISTRY_INVALID", but(license=None)),
    "no-bundles": ("The list must be there, if empty.", "REGISTRY_INVALID", but(bundles=None)),
    "kinds-swapped": (
        "A lease where the activation belongs.",
        "REGISTRY_INVALID",
        but(activation=LEASE.to_dict()),
    ),
    "license-not-an-envelope": ("A bare payload.", "DSSE_INVALID", but(license={"license_id": "x"})),
    "envelope-without-signature": (
        "An unsigned license.",
        "DSSE_INVALID",
        but(license={**LICENSE.to_dict(), "signatures": []}),
    ),
    "bundle-digest-short": (
        "A digest cut short.",
        "REGISTRY_INVALID",
        but(bundles=[{**BUNDLE, "bundle_digest": "abc"}]),
    ),
    "release-index-0": (
        "Releases count from 1.",
        "REGISTRY_INVALID",
        but(bundles=[{**BUNDLE, "release_index": 0}]),
    ),
    "not-canonical": ("A space.", "JSON_INVALID", but().replace(b'"bundles":', b'"bundles": ', 1)),
    "two-lines": ("Two lines are not one.", "JSON_INVALID", but() + b"\n" + but()),
}


def main(folder: Path) -> None:
    """Write every case below `folder`."""
    for name, (description, expect, data) in CASES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        case = {"description": description, "expect": expect}
        if expect == "ok":
            case |= {"sha256": hashlib.sha256(data).hexdigest(), "license_id": "test-license"}
        (folder / name / "case.json").write_text(json.dumps(case, indent=2) + "\n")
        (folder / name / "line.json").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
