"""Faults of the signatures: META/model.sig, the statement in it, and the ML-DSA signature (mldsa.py)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from support import world
from support.world import CREATOR, LICENSER, SETTLEMENT, STRANGER

from corpus import mldsa
from corpus.base import (
    ED,
    SIG,
    STATEMENT,
    Add,
    altered,
    flip,
    packed,
    said,
    sigstore,
    trust_of,
    with_signature,
)
from sealpack.format import canonical, dsse, statement


def cases(add: Add) -> None:
    """The whole group."""
    add("other-key", "Checked with another key.", "SIG_KEY_UNKNOWN", packed(), key=STRANGER.public.pem)
    _signature(add)
    _der(add)
    _keyids(add)
    _envelope(add)
    _statement(add)
    _members(add)
    mldsa.cases(add)


def _signature(add: Add) -> None:
    good = statement.read_signature(SIG)
    signature = good.signatures[0]
    flat: dict[str, Any] = json.loads(SIG)["dsseEnvelope"]

    def bad(name: str, description: str, expect: str, sig: bytes | None, **more: Any) -> None:
        add(name, description, expect, packed(sig=sig), check="signature", **more)

    bad("unsigned", "No META/model.sig.", "SIG_MISSING", None)
    twice = dsse.Envelope(good.payload_type, good.payload, (signature, signature))
    bad("two-signatures", "Two signatures.", "SIG_MALFORMED", sigstore(twice))
    bad(
        "no-signatures",
        "An empty list of signatures.",
        "SIG_MALFORMED",
        SIG.replace(canonical.dumps(flat["signatures"]), b"[]"),
    )
    bad(
        "signature-flipped",
        "One bit.",
        "SIG_INVALID",
        sigstore(with_signature(good, signature.keyid, flip(signature.sig))),
    )
    bad(
        "signature-der",
        "Not DER.",
        "SIG_MALFORMED",
        sigstore(with_signature(good, signature.keyid, b"\x30\x00")),
    )
    bad(
        "signature-zero",
        "r = s = 0.",
        "SIG_MALFORMED",
        sigstore(with_signature(good, signature.keyid, bytes.fromhex("3006020100020100"))),
    )
    url_safe = dict(
        flat, signatures=[{"keyid": signature.keyid, "sig": "_" + flat["signatures"][0]["sig"][1:]}]
    )
    bad(
        "signature-url-safe",
        "The other base64 alphabet.",
        "SIG_MALFORMED",
        sigstore(good, dsseEnvelope=url_safe),
    )
    bad("unknown-key", "A stranger's signature.", "SIG_KEY_UNKNOWN", said(STATEMENT, STRANGER))
    bad(
        "keyid-spoofed",
        "A stranger signs under the creator's keyid.",
        "SIG_INVALID",
        sigstore(with_signature(good, CREATOR.keyid, STRANGER.sign(good.signed_bytes))),
    )
    bad(
        "keyid-other",
        "The creator's signature under the licenser's keyid.",
        "SIG_KEY_ROLE",
        sigstore(with_signature(good, LICENSER.keyid, signature.sig)),
    )
    bad(
        "hint-other",
        "The hint names another key than the keyid.",
        "SIG_MALFORMED",
        sigstore(good, verificationMaterial={"publicKey": {"hint": "0" * 64}, "tlogEntries": []}),
    )
    bad("wrong-role", "Signed by the license key.", "SIG_KEY_ROLE", said(STATEMENT, LICENSER))
    bad("extra-member", "A member beside the envelope.", "SIG_MALFORMED", sigstore(good, note="x"))
    bad(
        "certificate",
        "A certificate instead of a key.",
        "SIG_MALFORMED",
        sigstore(good, verificationMaterial={"certificate": {"rawBytes": ""}, "tlogEntries": []}),
    )
    bad(
        "media-type",
        "Another Sigstore bundle version.",
        "SIG_MALFORMED",
        sigstore(good, mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
    )
    bad("payload-type", "Another payload type.", "SIG_STATEMENT", said(STATEMENT, kind="application/json"))
    bad(
        "payload-changed",
        "A character of the signed payload.",
        "SIG_INVALID",
        sigstore(
            dsse.Envelope(
                good.payload_type, good.payload.replace(b"acme/tiny", b"acme/tinz"), good.signatures
            )
        ),
    )
    spaced = json.dumps(STATEMENT).encode()
    bad(
        "payload-reserialised",
        "The same statement with spaces, old signature.",
        "SIG_INVALID",
        sigstore(dsse.Envelope(good.payload_type, spaced, good.signatures)),
    )
    bad(
        "payload-not-canonical",
        "A statement with spaces, rightly signed.",
        "JSON_INVALID",
        sigstore(dsse.sign(good.payload_type, spaced, CREATOR)),
    )
    bad("not-canonical", "META/model.sig with a space.", "JSON_INVALID", SIG.replace(b":", b": ", 1))
    bad("not-json", "META/model.sig is no JSON.", "JSON_INVALID", b"signature")
    bad(
        "scheme-swapped",
        "Signed with the Ed25519 form of trust.",
        "SIG_SCHEME",
        said(STATEMENT, ED),
        trust=trust_of(world.key_entry(ED, ["bundle"])),
    )
    second = {"model.mldsa65.sig": bytes(3309)}
    add(
        "mldsa-unchecked", "An ML-DSA signature, and no key to check it with.", "SIG_SCHEME", packed(**second)
    )


def _statement(add: Add) -> None:
    def bad(name: str, description: str, expect: str, change: Callable[[dict[str, Any]], None]) -> None:
        add(name, description, expect, packed(sig=said(altered(change))))

    def own(**members: Any) -> Callable[[dict[str, Any]], None]:
        return lambda v: v["predicate"]["x-sealpack"].update(members)

    def listed(change: Callable[[list[Any]], Any]) -> Callable[[dict[str, Any]], None]:
        def apply(value: dict[str, Any]) -> None:
            resources = value["predicate"]["resources"]
            change(resources)
            joined = b"".join(bytes.fromhex(r["digest"]) for r in resources)
            value["subject"][0]["digest"]["sha256"] = hashlib.sha256(joined).hexdigest()

        return apply

    bad("statement-type", "Another statement type.", "SIG_STATEMENT", lambda v: v.update(_type="x"))
    bad("predicate-type", "Another predicate.", "SIG_STATEMENT", lambda v: v.update(predicateType="x"))
    bad(
        "no-own-members",
        "A model signature without x-sealpack.",
        "SIG_STATEMENT",
        lambda v: v["predicate"].pop("x-sealpack"),
    )
    bad("own-schema", "x-sealpack of another version.", "SIG_STATEMENT", own(schema="sealpack/signature/v2"))
    bad(
        "serialization",
        "More is ignored than META.",
        "SIG_STATEMENT",
        lambda v: v["predicate"]["serialization"].update(ignore_paths=["META", "payload"]),
    )
    bad(
        "hash-type",
        "Another hash.",
        "SIG_STATEMENT",
        lambda v: v["predicate"]["serialization"].update(hash_type="blake2b"),
    )
    bad(
        "subject",
        "The subject is not the digest of the resources.",
        "SIG_SUBJECT",
        lambda v: v["subject"][0]["digest"].update(sha256="0" * 64),
    )
    bad(
        "subject-name",
        "The subject has another name.",
        "SIG_SUBJECT",
        lambda v: v["subject"][0].update(name="acme/other"),
    )
    bad("two-subjects", "Two subjects.", "SIG_SUBJECT", lambda v: v["subject"].append(v["subject"][0]))
    bad("resources-missing", "One file is not signed.", "SIG_RESOURCES", listed(lambda r: r.pop(0)))
    bad(
        "resources-extra",
        "A file that is not there is signed.",
        "SIG_RESOURCES",
        listed(lambda r: r.append({"name": "z", "algorithm": "sha256", "digest": "0" * 64})),
    )
    bad(
        "resources-duplicate", "A file is signed twice.", "SIG_RESOURCES", listed(lambda r: r.insert(0, r[0]))
    )
    bad("resources-unsorted", "Two files change places.", "SIG_RESOURCES", listed(lambda r: r.reverse()))
    bad(
        "resources-algorithm",
        "A file is signed with another hash.",
        "SIG_STATEMENT",
        listed(lambda r: r[0].update(algorithm="md5")),
    )
    bad(
        "resources-digest",
        "A signed digest differs from the manifest's.",
        "SIG_RESOURCES",
        listed(lambda r: r[0].update(digest="0" * 64)),
    )
    bad(
        "schemes-unknown",
        "ML-DSA is required, and there is no such signature.",
        "SIG_SCHEME",
        own(required_schemes=["ecdsa-p256-sha256", "ml-dsa-65"]),
    )
    bad(
        "schemes-other",
        "A scheme this version does not know is required.",
        "SIG_SCHEME",
        own(required_schemes=["ecdsa-p256-sha256", "slh-dsa-128s"]),
    )
    bad(
        "schemes-mldsa-only",
        "ML-DSA without ECDSA is required.",
        "SIG_SCHEME",
        own(required_schemes=["ml-dsa-65"]),
    )
    bad("schemes-none", "No scheme is required.", "SIG_SCHEME", own(required_schemes=[]))
    bad("min-keyring", "A newer keyring is required.", "TRUST_ROLLBACK", own(min_keyring=2))
    bad("min-revocations", "Newer revocations are required.", "TRUST_ROLLBACK", own(min_revocations=2))
    bad("signed-at", "A time no calendar has.", "SIG_STATEMENT", own(signed_at=2**53 - 1))
    bad(
        "release-other",
        "Statement and manifest name different releases.",
        "MANIFEST_MISMATCH",
        own(release_index=2),
    )
    bad("manifest-digest", "Another manifest's digest.", "DIGEST_MISMATCH", own(manifest_sha256="0" * 64))


def _der(add: Add) -> None:
    """Spellings of the signature's two numbers that a lenient decoder takes."""
    good = statement.read_signature(SIG)
    r, s = decode_dss_signature(good.signatures[0].sig)
    size = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # the order of P-256
    der = good.signatures[0].sig

    def bad(name: str, description: str, expect: str, sig: bytes) -> None:
        data = packed(sig=sigstore(with_signature(good, good.signatures[0].keyid, sig)))
        add(f"der-{name}", description, expect, data, check="signature")

    bad("trailing", "A byte behind the signature.", "SIG_MALFORMED", der + b"\0")
    bad("cut", "The last byte is missing.", "SIG_MALFORMED", der[:-1])
    bad("empty", "A signature of no bytes.", "SIG_MALFORMED", b"")
    bad("long-length", "A length in two bytes where one is enough.", "SIG_MALFORMED",
        b"\x30\x81" + der[1:])  # fmt: skip
    bad("leading-zero", "A zero before r.", "SIG_MALFORMED", _pair(r, s, b"\0"))
    bad("negative", "r is negative.", "SIG_MALFORMED", _pair(-r, s))
    bad("r-zero", "r = 0.", "SIG_MALFORMED", encode_dss_signature(0, s))
    bad("s-zero", "s = 0.", "SIG_MALFORMED", encode_dss_signature(r, 0))
    bad("r-order", "r is the order of the curve.", "SIG_MALFORMED", encode_dss_signature(size, s))
    bad("r-plus-order", "r + the order of the curve.", "SIG_MALFORMED", encode_dss_signature(r + size, s))
    bad("raw", "r and s as 64 raw bytes.", "SIG_MALFORMED", r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    bad("swapped", "r and s change places.", "SIG_INVALID", encode_dss_signature(s, r))
    bad("one-one", "r = s = 1.", "SIG_INVALID", encode_dss_signature(1, 1))


def _pair(r: int, s: int, before: bytes = b"") -> bytes:
    """Two numbers in DER, also negative ones; `before` stands before the first."""
    both = [number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True) for number in (r, s)]
    both[0] = before + both[0]
    body = b"".join(b"\2" + bytes([len(data)]) + data for data in both)
    return b"\x30" + bytes([len(body)]) + body


def _keyids(add: Add) -> None:
    good = statement.read_signature(SIG)
    der = good.signatures[0].sig

    def bad(name: str, description: str, expect: str, keyid: Any) -> None:
        flat = json.loads(SIG)
        flat["dsseEnvelope"]["signatures"][0]["keyid"] = keyid
        flat["verificationMaterial"]["publicKey"]["hint"] = keyid
        add(f"keyid-{name}", description, expect, packed(sig=canonical.dumps(flat)), check="signature")

    bad("upper-case", "The keyid in capitals.", "SIG_MALFORMED", CREATOR.keyid.upper())
    bad("empty", "An empty keyid.", "SIG_MALFORMED", "")
    bad("short", "The first 16 characters of the keyid.", "SIG_MALFORMED", CREATOR.keyid[:16])
    bad("number", "The keyid is a number.", "SIG_MALFORMED", 7)
    bad("unknown", "A keyid nobody has.", "SIG_KEY_UNKNOWN", "0" * 64)
    lines = CREATOR.public.pem.replace("\n", "\r\n").encode()
    bad("other-pem", "The keyid of the key's other PEM spelling.", "SIG_KEY_UNKNOWN",
        hashlib.sha256(lines).hexdigest())  # fmt: skip
    settled = sigstore(with_signature(good, SETTLEMENT.keyid, der))
    add(
        "keyid-ed25519",
        "The signature under the keyid of an Ed25519 key.",
        "SIG_KEY_ROLE",
        packed(sig=settled),
    )
    ed = trust_of(world.key_entry(ED, ["bundle"]))
    claimed = sigstore(with_signature(good, ED.keyid, der))
    add("keyid-ed25519-bundle", "Under an Ed25519 key that may sign bundles.", "SIG_SCHEME",
        packed(sig=claimed), ed)  # fmt: skip


def _envelope(add: Add) -> None:
    """Members of META/model.sig and of the envelope in it."""
    good = json.loads(SIG)

    def bad(name: str, description: str, change: Callable[[dict[str, Any]], Any], code: str = "") -> None:
        value = json.loads(SIG)
        change(value)
        add(f"sig-{name}", description, code or "SIG_MALFORMED", packed(sig=canonical.dumps(value)),
            check="signature")  # fmt: skip

    def inner(value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = value["dsseEnvelope"]
        return found

    payload, sig = inner(good)["payload"], inner(good)["signatures"][0]["sig"]
    bad("no-envelope", "No envelope.", lambda v: v.pop("dsseEnvelope"))
    bad("no-material", "No verification material.", lambda v: v.pop("verificationMaterial"))
    bad("no-media-type", "No media type.", lambda v: v.pop("mediaType"))
    bad("envelope-extra", "A member more in the envelope.", lambda v: inner(v).update(note="x"))
    bad("signature-extra", "A certificate in the signature.",
        lambda v: inner(v)["signatures"][0].update(cert="x"))  # fmt: skip
    bad("no-keyid", "No keyid.", lambda v: inner(v)["signatures"][0].pop("keyid"))
    bad("signatures-object", "signatures is an object.", lambda v: inner(v).update(signatures={}))
    bad("signatures-65", "65 signatures.", lambda v: inner(v).update(signatures=inner(v)["signatures"] * 65))
    bad("second-stranger", "A stranger signs too.", lambda v: inner(v)["signatures"].append(
        json.loads(said(STATEMENT, STRANGER))["dsseEnvelope"]["signatures"][0]))  # fmt: skip
    bad("payload-object", "The payload is not encoded.", lambda v: inner(v).update(payload=STATEMENT))
    bad("payload-empty", "An empty payload.", lambda v: inner(v).update(payload=""), "SIG_INVALID")
    bad("base64-unpadded", "base64 without its padding.",
        lambda v: inner(v)["signatures"][0].update(sig=sig.rstrip("=")))  # fmt: skip
    bad(
        "base64-lines",
        "base64 in lines.",
        lambda v: inner(v).update(payload=payload[:76] + "\n" + payload[76:]),
    )
    bad("base64-bits", "Unused bits of the last character are set.",
        lambda v: inner(v)["signatures"][0].update(
        sig=_loose(der_text=sig)))  # fmt: skip
    bad("base64-data-after", "Characters behind the padding.",
        lambda v: inner(v)["signatures"][0].update(sig=sig + "AAAA"))  # fmt: skip
    bad("log-entry", "A transparency log entry nobody can check.",
        lambda v: v["verificationMaterial"].update(tlogEntries=[{}]))  # fmt: skip
    bad("timestamp", "A timestamp nobody can check.",
        lambda v: v["verificationMaterial"].update(timestampVerificationData={}))  # fmt: skip
    bad("key-inside", "The key to check with comes with the bundle.",
        lambda v: v["verificationMaterial"]["publicKey"].update(rawBytes=CREATOR.public.pem))  # fmt: skip
    bad("payload-type-case", "The payload type in capitals.",
        lambda v: inner(v).update(payloadType=statement.PAYLOAD_TYPE.upper()), "SIG_STATEMENT")  # fmt: skip


def _loose(der_text: str) -> str:
    """The same bytes in base64 that no encoder writes; one byte is added where the text has no slack."""
    raw = base64.b64decode(der_text)
    raw += b"\0" * (len(raw) % 3 == 0)
    text = base64.b64encode(raw).decode().rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1] + "=" * (-len(text) % 4)


def _members(add: Add) -> None:
    """What the key's holder may not say."""

    def bad(name: str, description: str, expect: str, change: Callable[[dict[str, Any]], Any]) -> None:
        add(f"statement-{name}", description, expect, packed(sig=said(altered(change))), check="signature")

    def own(**members: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda v: v["predicate"]["x-sealpack"].update(members)

    def lacks(name: str) -> Callable[[dict[str, Any]], Any]:
        return lambda v: v["predicate"]["x-sealpack"].pop(name)

    bad("id-upper-case", "A bundle id in capitals.", "SIG_STATEMENT", own(bundle_id="ACME/tiny"))
    bad("id-traversal", "A bundle id that is a path out.", "SIG_STATEMENT", own(bundle_id="../tiny"))
    bad("id-number", "A bundle id that is a number.", "SIG_STATEMENT", own(bundle_id=7))
    bad("release-zero", "Release 0.", "SIG_STATEMENT", own(release_index=0))
    bad("release-text", "A release that is a text.", "SIG_STATEMENT", own(release_index="1"))
    bad("release-true", "A release that is true.", "SIG_STATEMENT", own(release_index=True))
    bad("digest-upper-case", "The manifest's digest in capitals.", "SIG_STATEMENT",
        own(manifest_sha256="A" * 64))  # fmt: skip
    bad("no-schemes", "Nothing is said of schemes.", "SIG_STATEMENT", lacks("required_schemes"))
    bad("no-minimum", "Nothing is said of the keyring's version.", "SIG_STATEMENT", lacks("min_keyring"))
    bad("no-digest", "The manifest is not named.", "SIG_STATEMENT", lacks("manifest_sha256"))
    bad("minimum-negative", "A minimum below zero.", "SIG_STATEMENT", own(min_revocations=-1))
    bad("signed-before-1970", "Signed before 1970.", "SIG_STATEMENT", own(signed_at=-1))
    bad("no-resources", "No resources.", "SIG_STATEMENT", lambda v: v["predicate"].pop("resources"))
    bad("resources-object", "The resources are an object.", "SIG_STATEMENT",
        lambda v: v["predicate"].update(resources={}))  # fmt: skip
    many = [{"name": f"{n:04}", "algorithm": "sha256", "digest": "0" * 64} for n in range(4097)]
    bad("resources-4097", "4,097 resources.", "SIG_STATEMENT", lambda v: v["predicate"].update(
        resources=many))  # fmt: skip
    bad("resource-traversal", "A file outside the bundle.", "SIG_STATEMENT",
        lambda v: v["predicate"]["resources"][0].update(name="../card.md"))  # fmt: skip
    bad("digest-short", "A digest of 62 characters.", "SIG_STATEMENT",
        lambda v: v["predicate"]["resources"][0].update(digest="0" * 62))  # fmt: skip
    bad("symlinks", "Links are allowed.", "SIG_STATEMENT",
        lambda v: v["predicate"]["serialization"].update(allow_symlinks=True))  # fmt: skip
    bad("shards", "Files are hashed in shards.", "SIG_STATEMENT",
        lambda v: v["predicate"]["serialization"].update(method="shards"))  # fmt: skip
    bad("predicate-text", "The predicate is a text.", "SIG_STATEMENT", lambda v: v.update(predicate="x"))
    bad("no-subject", "No subject.", "SIG_SUBJECT", lambda v: v.pop("subject"))
    bad("subject-more", "The subject has a second digest.", "SIG_SUBJECT",
        lambda v: v["subject"][0]["digest"].update(sha512="0"))  # fmt: skip
