"""Write the dsse vectors: `python specs/vectors/dsse/generate.py [FOLDER]`.

Each case is `case.json` and `envelope.json`. A reader reads the envelope strictly, then checks its first
signature with `key` (PEM).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import base64
import json
from typing import Any

from support import world
from support.mldsa import CREATOR_MLDSA
from support.vectors import Cases

from sealpack.format import canonical, documents, dsse
from sealpack.format.dsse import Envelope

KIND = documents.payload_type("license")
GOOD = dsse.sign(KIND, b'{"n":1,"schema":"sealpack/license/v1"}', world.CREATOR)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def der(r: bytes, s: bytes) -> bytes:
    """A SEQUENCE of two INTEGERs with exactly these content bytes."""
    body = b"\x02" + bytes([len(r)]) + r + b"\x02" + bytes([len(s)]) + s
    return b"\x30" + bytes([len(body)]) + body


def parts() -> tuple[bytes, bytes]:
    """r and s of the good signature, as encoded."""
    sig = GOOD.signatures[0].sig
    r = sig[4 : 4 + sig[3]]
    return r, sig[4 + len(r) + 2 :]


def edited(**members: Any) -> bytes:
    """The good envelope with members replaced (None: removed), written canonically."""
    value = GOOD.to_dict() | members
    return canonical.dumps({k: v for k, v in value.items() if v is not None})


def signature(sig: bytes | str, **more: Any) -> bytes:
    """The good envelope with another signature."""
    text = sig if isinstance(sig, str) else base64.b64encode(sig).decode()
    return edited(signatures=[{"keyid": world.CREATOR.keyid, "sig": text, **more}])


def main(folder: Path) -> None:
    """Write one folder per case."""
    cases = Cases()

    def add(name: str, description: str, expect: str, data: bytes, key: Any = world.CREATOR) -> None:
        cases.add(name, description, expect, {"envelope.json": data}, key=key.public.pem)

    good, sig = GOOD.to_bytes(), GOOD.signatures[0].sig
    r, s = parts()
    payload = base64.b64encode(GOOD.payload).decode()
    add("good", "An ECDSA P-256 signature.", "ok", good)
    ed = dsse.sign(KIND, GOOD.payload, world.SETTLEMENT)
    add("good-ed25519", "An Ed25519 signature.", "ok", ed.to_bytes(), world.SETTLEMENT)
    both = dsse.sign(KIND, GOOD.payload, world.CREATOR, world.CREATOR)
    add(
        "signed-twice",
        "The envelope itself may hold a signature twice; thresholds count keys.",
        "ok",
        both.to_bytes(),
    )
    _mldsa(add)
    keyid = Envelope(KIND, GOOD.payload, (dsse.Signature("0" * 64, sig),))
    add(
        "keyid-spoofed", "A keyid is a hint: the signature still verifies by the key.", "ok", keyid.to_bytes()
    )

    add(
        "payload-changed",
        "One character of the payload.",
        "SIG_INVALID",
        edited(payload=base64.b64encode(GOOD.payload.replace(b"1,", b"2,")).decode()),
    )
    add(
        "payload-reserialised",
        "The same JSON with a space.",
        "SIG_INVALID",
        edited(payload=base64.b64encode(json.dumps(json.loads(GOOD.payload)).encode()).decode()),
    )
    add(
        "type-changed",
        "Another payload type.",
        "SIG_INVALID",
        edited(payloadType=documents.payload_type("lease")),
    )
    add("signature-flipped", "One bit of s.", "SIG_INVALID", signature(sig[:-1] + bytes([sig[-1] ^ 1])))
    add("wrong-key", "Another key.", "SIG_INVALID", good, world.STRANGER)
    add(
        "ed25519-short",
        "63 bytes.",
        "SIG_INVALID",
        Envelope(
            KIND, GOOD.payload, (dsse.Signature(world.SETTLEMENT.keyid, ed.signatures[0].sig[:63]),)
        ).to_bytes(),
        world.SETTLEMENT,
    )
    raw = int.from_bytes(r, "big").to_bytes(32, "big") + int.from_bytes(s, "big").to_bytes(32, "big")
    for name, description, value in (
        ("der-raw", "r and s as 64 bytes, not DER.", raw),
        ("der-trailing", "A byte after the SEQUENCE.", sig + b"\0"),
        ("der-long-length", "A length in its long form.", b"\x30\x81" + sig[1:]),
        (
            "der-padded-integer",
            "A leading zero r does not need.",
            der(b"\0" + r if r[0] < 128 else b"\0\0" + r[1:], s),
        ),
        ("der-negative", "A negative r.", der(b"\x80" + r[1:].rjust(31, b"\1"), s)),
        ("der-cut", "The last byte is missing.", sig[:-1]),
        ("der-empty", "No bytes.", b""),
        ("r-zero", "r = 0.", der(b"\0", s)),
        ("s-zero", "s = 0.", der(r, b"\0")),
        ("r-order", "r = the group's order.", der(b"\0" + ORDER.to_bytes(32, "big"), s)),
        (
            "s-plus-order",
            "s + the group's order: equal modulo, not in range.",
            der(r, (int.from_bytes(s, "big") + ORDER).to_bytes(33, "big")),
        ),
    ):
        add(name, description, "SIG_MALFORMED", signature(value))
    flat = base64.b64encode(sig).decode()
    for name, description, data in (
        ("no-signatures", "An empty list.", edited(signatures=[])),
        ("signatures-missing", "No member `signatures`.", edited(signatures=None)),
        ("payload-missing", "No member `payload`.", edited(payload=None)),
        ("extra-member", "A fourth member.", edited(note="x")),
        ("extra-signature-member", "A member `cert` beside the signature.", signature(sig, cert="x")),
        ("keyid-upper-case", "Hex in upper case.", signature(sig, keyid=world.CREATOR.keyid.upper())),
        ("keyid-missing", "No keyid.", edited(signatures=[{"sig": flat}])),
        ("base64-url-safe", "The other alphabet.", edited(payload="_-__")),
        (
            "base64-unpadded",
            "Padding left away.",
            edited(payload=payload.rstrip("=") if "=" in payload else payload[:-1]),
        ),
        ("base64-non-canonical", "Bits beyond the last byte are set.", edited(payload="QR==")),
        ("base64-newline", "A line break inside.", edited(payload=payload[:8] + "\n" + payload[8:])),
        ("signature-base64-url-safe", "The other alphabet in sig.", signature("_" + flat[1:])),
        ("payload-number", "payload is a number.", edited(payload=1)),
        ("signatures-object", "signatures is an object.", edited(signatures={})),
        ("many-signatures", "65 signatures.", edited(signatures=GOOD.to_dict()["signatures"] * 65)),
        ("not-an-object", "An array.", b"[]"),
    ):
        add(name, description, "DSSE_INVALID", data)
    add("not-canonical", "A space after a colon.", "JSON_INVALID", good.replace(b'":', b'": ', 1))
    add(
        "duplicate-payload", "payload stands twice.", "JSON_INVALID", good.replace(b"{", b'{"payload":"",', 1)
    )
    add("deep", "An envelope nested too deep.", "JSON_LIMIT", b'{"payload":' + b"[" * 20 + b"]" * 20 + b"}")
    cases.write(folder)


def _mldsa(add: Any) -> None:
    message = dsse.pae(KIND, GOOD.payload)
    sig = CREATOR_MLDSA.sign(message)
    for name, description, expect, value in (
        ("good-mldsa", "An ML-DSA-65 signature.", "ok", sig),
        ("mldsa-flipped", "One bit of an ML-DSA signature.", "SIG_INVALID", sig[:-1] + bytes([sig[-1] ^ 1])),
        ("mldsa-context", "An ML-DSA signature with a context.", "SIG_INVALID",
         CREATOR_MLDSA.sign(message, b"x")),
        ("mldsa-payload", "An ML-DSA signature over the payload alone.", "SIG_INVALID",
         CREATOR_MLDSA.sign(GOOD.payload)),
        ("mldsa-short", "3308 bytes.", "SIG_MALFORMED", sig[:-1]),
        ("mldsa-long", "3310 bytes.", "SIG_MALFORMED", sig + b"\0"),
        ("mldsa-44", "An ML-DSA-44 signature.", "SIG_MALFORMED", CREATOR_MLDSA.sign_44(message)),
    ):  # fmt: skip
        envelope = Envelope(KIND, GOOD.payload, (dsse.Signature(CREATOR_MLDSA.keyid, value),))
        add(name, description, expect, envelope.to_bytes(), CREATOR_MLDSA)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
