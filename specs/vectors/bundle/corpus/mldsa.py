"""Faults of the second signature, ML-DSA-65, which belong to the group of signatures."""

from __future__ import annotations

import hashlib
from typing import Any

from support import world
from support.mldsa import CREATOR_MLDSA, LICENSER_MLDSA, STRANGER_MLDSA
from support.world import CREATOR, LICENSER, BundleSpec

from corpus.base import MEMBERS, SIG, Add, flip, packed, sigstore, trust_of, with_signature
from sealpack.format import dsse, statement
from sealpack.format.trust import Trust

SPEC_HYBRID = BundleSpec(model=world.tiny_gguf(8), mldsa_key=CREATOR_MLDSA)


def cases(add: Add) -> None:
    """A second signature, ML-DSA-65, over the same bytes."""
    both, plain = SPEC_HYBRID.sign(MEMBERS), SIG
    second = statement.sign_mldsa(both, CREATOR_MLDSA)
    signed = statement.read_signature(both).signed_bytes
    required, optional = hybrid_trust(), hybrid_trust(schemes=("ecdsa-p256-sha256",))

    def case(
        name: str,
        description: str,
        expect: str,
        mldsa: bytes | None,
        sig: bytes = both,
        trust: Trust | None = required,
        **more: Any,
    ) -> None:
        meta = {} if mldsa is None else {"model.mldsa65.sig": mldsa}
        check = {"check": "signature"} if expect != "ok" else {}
        add(name, description, expect, packed(sig=sig, **meta), trust=trust, **check, **more)

    key, mldsa_key = CREATOR.public.pem, CREATOR_MLDSA.public.pem
    given: dict[str, Any] = {"trust": None, "key": key, "mldsa_key": mldsa_key}
    case("hybrid", "Both signatures, which keyring and statement require.", "ok", second)
    case("hybrid-keys", "The same, with nothing but the creator's keys.", "ok", second, **given)
    case("hybrid-key-alone", "The ML-DSA key was not given.", "SIG_SCHEME", second, trust=None, key=key)
    case(
        "hybrid-keys-plain", "An ML-DSA key was given, no such signature.", "SIG_SCHEME", None, plain, **given
    )
    case("hybrid-keys-other", "Another ML-DSA key was given.", "SIG_INVALID", second,
         **given | {"mldsa_key": STRANGER_MLDSA.public.pem})  # fmt: skip
    case("hybrid-stripped", "The ML-DSA signature was taken away.", "SIG_SCHEME", None)
    case("hybrid-keyring-only", "Only the keyring requires it.", "ok",
         statement.sign_mldsa(plain, CREATOR_MLDSA), plain)  # fmt: skip
    case("hybrid-keyring-stripped", "Only the keyring requires it; not there.", "SIG_SCHEME", None, plain)
    case("hybrid-payload-only", "Only the statement requires it.", "ok", second, trust=optional)
    case("hybrid-payload-stripped", "Only the statement requires it; not there.", "SIG_SCHEME", None,
         trust=optional)  # fmt: skip
    case("hybrid-optional", "Nobody requires it, it is not there.", "ok", None, plain, optional)
    case("hybrid-optional-flipped", "Nobody requires it, it is wrong.", "SIG_INVALID",
         flip(statement.sign_mldsa(plain, CREATOR_MLDSA)), plain, optional)  # fmt: skip
    case("hybrid-unexpected", "A right one, and the keyring has no ML-DSA key.", "SIG_SCHEME", second,
         trust=world.make_trust())  # fmt: skip
    for name, description, expect, mldsa in (
        ("flipped", "One bit.", "SIG_INVALID", flip(second)),
        ("zero", "Zeros.", "SIG_INVALID", bytes(3309)),
        ("other-entry", "By the ML-DSA key of another entry.", "SIG_INVALID", LICENSER_MLDSA.sign(signed)),
        ("stranger", "By nobody's key.", "SIG_INVALID", STRANGER_MLDSA.sign(signed)),
        ("other-statement", "Over another statement.", "SIG_INVALID",
         statement.sign_mldsa(plain, CREATOR_MLDSA)),
        ("payload", "Over the payload, not its encoding.", "SIG_INVALID",
         CREATOR_MLDSA.sign(statement.read_signature(both).payload)),
        ("context", "With a context.", "SIG_INVALID", CREATOR_MLDSA.sign(signed, b"sealpack")),
        ("prehashed", "Over a digest.", "SIG_INVALID", CREATOR_MLDSA.sign(hashlib.sha512(signed).digest())),
        ("short", "A byte too short.", "SIG_MALFORMED", second[:-1]),
        ("long", "A byte too long.", "SIG_MALFORMED", second + b"\0"),
        ("empty", "No bytes.", "SIG_MALFORMED", b""),
        ("ml-dsa-44", "Another parameter set.", "SIG_MALFORMED", CREATOR_MLDSA.sign_44(signed)),
        ("ecdsa", "The ECDSA signature again.", "SIG_MALFORMED", CREATOR.sign(signed)),
        ("base64", "Not raw.", "SIG_MALFORMED", dsse.b64encode(second).encode()),
    ):  # fmt: skip
        case(f"hybrid-{name}", description, expect, mldsa)
    good = statement.read_signature(both)
    flipped = sigstore(with_signature(good, CREATOR.keyid, flip(good.signatures[0].sig)))
    case(
        "hybrid-ecdsa-flipped", "The ML-DSA signature is right, ECDSA is not.", "SIG_INVALID", second, flipped
    )
    swapped = sigstore(with_signature(good, CREATOR_MLDSA.keyid, second))
    case("hybrid-swapped", "ML-DSA in the place of ECDSA.", "SIG_KEY_UNKNOWN", second, swapped)
    spoofed = sigstore(with_signature(good, CREATOR.keyid, second))
    case("hybrid-spoofed", "ML-DSA under the ECDSA keyid.", "SIG_MALFORMED", second, spoofed)
    revoked = {"keyid": CREATOR_MLDSA.keyid, "good": []}
    case("hybrid-revoked", "The ML-DSA key was revoked.", "KEY_REVOKED", second,
         trust=hybrid_trust(keys=[revoked]))  # fmt: skip
    case("hybrid-revoked-good", "It was revoked, this statement stays good.", "ok", second,
         trust=hybrid_trust(keys=[revoked | {"good": [good.digest]}]))  # fmt: skip


def hybrid_trust(schemes: tuple[str, ...] = ("ecdsa-p256-sha256", "ml-dsa-65"), **revoked: Any) -> Trust:
    """A keyring whose two keys have ML-DSA keys beside them."""
    return trust_of(
        world.key_entry(CREATOR, ["bundle"], mldsa=CREATOR_MLDSA, schemes=schemes),
        world.key_entry(LICENSER, ["license"], mldsa=LICENSER_MLDSA),
        **revoked,
    )
