"""Write the bundle vectors: `python specs/vectors/bundle/generate.py [FOLDER]`.

Each case is `case.json` and `bundle.sealpack.gz`, gzip of a bundle to be verified, content and all: with the
public key in `key` (and the ML-DSA key in `mldsa_key`) where given, else with the case's own `trust.json`,
else with the one beside the cases. `check` names the check that fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import hashlib
import json
from collections.abc import Callable
from typing import Any

from support import world
from support.mldsa import CREATOR_MLDSA, LICENSER_MLDSA, STRANGER_MLDSA
from support.rawzip import Raw, build
from support.vectors import Cases
from support.world import CREATOR, LICENSER, ROOT, STRANGER, T0, BundleSpec, make_keyring, make_root

from sealpack.format import canonical, documents, dsse, statement
from sealpack.format.chunks import digest_blocks
from sealpack.format.container import MIMETYPE
from sealpack.format.keys import PrivateKey
from sealpack.format.manifest import Manifest
from sealpack.format.trust import Trust

SPEC = BundleSpec(model=world.tiny_gguf(8))
SPEC_HYBRID = BundleSpec(model=world.tiny_gguf(8), mldsa_key=CREATOR_MLDSA)
MEMBERS = SPEC.members()
SIG = SPEC.sign(MEMBERS)
STATEMENT: dict[str, Any] = json.loads(statement.read_signature(SIG).payload)
ROOT_2 = PrivateKey.from_scalar(0x1011)
Add = Callable[..., None]


def packed(members: dict[str, bytes] = MEMBERS, sig: bytes | None = SIG, **meta: bytes) -> bytes:
    """A canonical container of the members, the signature and more META entries."""
    signature = {"META/model.sig": sig} if sig is not None else {}
    named = {f"META/{_name(n)}": d for n, d in meta.items()}
    return world.pack({"mimetype": MIMETYPE, **signature, **named, **members})


def _name(keyword: str) -> str:
    """trust__root_2_json is trust/root.2.json; names with a dot are taken as they are."""
    if "." in keyword:
        return keyword.replace("__", "/")
    folder, _, name = keyword.partition("__")
    return f"{folder}/{name.replace('L_', 'L-').replace('_', '.')}"


def sigstore(envelope: dsse.Envelope, **members: Any) -> bytes:
    """META/model.sig around an envelope."""
    keyid = envelope.signatures[0].keyid
    return canonical.dumps({
        "mediaType": statement.SIGSTORE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": keyid}, "tlogEntries": []},
        "dsseEnvelope": envelope.to_dict(),
    } | members)  # fmt: skip


def said(value: Any, key: PrivateKey = CREATOR, kind: str = statement.PAYLOAD_TYPE) -> bytes:
    """META/model.sig over any statement."""
    return sigstore(dsse.sign(kind, canonical.dumps(value), key))


def altered(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A copy of the good statement, changed."""
    value: dict[str, Any] = json.loads(json.dumps(STATEMENT))
    change(value)
    return value


def restated(members: dict[str, bytes], **more: Any) -> bytes:
    """Any members, rightly signed."""
    return packed(members, BundleSpec(statement=more).sign(members))


def remade(change: Callable[[dict[str, Any]], None], **members: bytes) -> dict[str, bytes]:
    """The members with a changed manifest."""
    value = json.loads(MEMBERS["manifest.json"])
    change(value)
    return MEMBERS | members | {"manifest.json": canonical.dumps(value)}


def entry(value: dict[str, Any], name: str) -> dict[str, Any]:
    """A file of a manifest."""
    found: dict[str, Any] = next(f for f in value["files"] if f["name"] == name)
    return found


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file most of them are checked with."""
    cases = Cases()

    def add(
        name: str, description: str, expect: str, data: bytes, trust: Trust | None = None, **more: Any
    ) -> None:
        files = {"bundle.sealpack.gz": data}
        if trust is not None:
            files["trust.json"] = trust.to_bytes()
        cases.add(name, description, expect, files, **more)

    _good(add)
    _signature(add)
    _statement(add)
    _consistency(add)
    _content(add)
    _policy(add)
    _meta(add)
    _hybrid(add)
    cases.write(folder)
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())


def _good(add: Add) -> None:
    add("good", "A bundle of one GGUF model.", "ok", packed())
    add("good-key", "The same, with nothing but the creator's key.", "ok", packed(), key=CREATOR.public.pem)
    trust = world.make_trust()
    carried = {"trust__root.1.json": trust.root.envelope.to_bytes(),
               "trust__keyring.json": trust.keyring.envelope.to_bytes(),
               "trust__revocations.json": trust.revocations.envelope.to_bytes()}  # fmt: skip
    add("good-carried", "Trust documents ride along.", "ok", packed(**carried))
    add("other-key", "Checked with another key.", "SIG_KEY_UNKNOWN", packed(), key=STRANGER.public.pem)


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
        sigstore(_with(good, signature.keyid, _flip(signature.sig))),
    )
    bad("signature-der", "Not DER.", "SIG_MALFORMED", sigstore(_with(good, signature.keyid, b"\x30\x00")))
    bad(
        "signature-zero",
        "r = s = 0.",
        "SIG_MALFORMED",
        sigstore(_with(good, signature.keyid, bytes.fromhex("3006020100020100"))),
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
        sigstore(_with(good, CREATOR.keyid, STRANGER.sign(good.signed_bytes))),
    )
    bad(
        "keyid-other",
        "The creator's signature under the licenser's keyid.",
        "SIG_KEY_ROLE",
        sigstore(_with(good, LICENSER.keyid, signature.sig)),
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
        trust=_trust(world.key_entry(ED, ["bundle"])),
    )
    mldsa = {"model.mldsa65.sig": bytes(3309)}
    add("mldsa-unchecked", "An ML-DSA signature, and no key to check it with.", "SIG_SCHEME", packed(**mldsa))


ED = PrivateKey.from_seed(b"sealpack-test-vector-ed25519-001")


def _trust(*entries: dict[str, Any], version: int = 1, **revoked: Any) -> Trust:
    keys = list(entries) or None
    return Trust.from_envelopes(make_root(), make_keyring(version, keys), world.make_revocations(**revoked))


def _with(envelope: dsse.Envelope, keyid: str, sig: bytes) -> dsse.Envelope:
    return dsse.Envelope(envelope.payload_type, envelope.payload, (dsse.Signature(keyid, sig),))


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _hybrid(add: Add) -> None:
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
         _flip(statement.sign_mldsa(plain, CREATOR_MLDSA)), plain, optional)  # fmt: skip
    case("hybrid-unexpected", "A right one, and the keyring has no ML-DSA key.", "SIG_SCHEME", second,
         trust=world.make_trust())  # fmt: skip
    for name, description, expect, mldsa in (
        ("flipped", "One bit.", "SIG_INVALID", _flip(second)),
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
    flipped = sigstore(_with(good, CREATOR.keyid, _flip(good.signatures[0].sig)))
    case(
        "hybrid-ecdsa-flipped", "The ML-DSA signature is right, ECDSA is not.", "SIG_INVALID", second, flipped
    )
    swapped = sigstore(_with(good, CREATOR_MLDSA.keyid, second))
    case("hybrid-swapped", "ML-DSA in the place of ECDSA.", "SIG_KEY_UNKNOWN", second, swapped)
    spoofed = sigstore(_with(good, CREATOR.keyid, second))
    case("hybrid-spoofed", "ML-DSA under the ECDSA keyid.", "SIG_MALFORMED", second, spoofed)
    revoked = {"keyid": CREATOR_MLDSA.keyid, "good": []}
    case("hybrid-revoked", "The ML-DSA key was revoked.", "KEY_REVOKED", second,
         trust=hybrid_trust(keys=[revoked]))  # fmt: skip
    case("hybrid-revoked-good", "It was revoked, this statement stays good.", "ok", second,
         trust=hybrid_trust(keys=[revoked | {"good": [good.digest]}]))  # fmt: skip


def hybrid_trust(schemes: tuple[str, ...] = ("ecdsa-p256-sha256", "ml-dsa-65"), **revoked: Any) -> Trust:
    """A keyring whose two keys have ML-DSA keys beside them."""
    return _trust(
        world.key_entry(CREATOR, ["bundle"], mldsa=CREATOR_MLDSA, schemes=schemes),
        world.key_entry(LICENSER, ["license"], mldsa=LICENSER_MLDSA),
        **revoked,
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


def _consistency(add: Add) -> None:
    add(
        "other-bundle-id",
        "The manifest names another bundle.",
        "MANIFEST_MISMATCH",
        restated(remade(lambda v: v.update(bundle_id="acme/other"))),
    )
    add(
        "manifest-swapped",
        "Another manifest than the signed one.",
        "DIGEST_MISMATCH",
        packed(remade(lambda v: v.update(name="Other"))),
    )
    without = {n: d for n, d in MEMBERS.items() if n != "manifest.json"}
    add("manifest-missing", "No manifest.", "MANIFEST_MISMATCH", packed(without))
    add(
        "file-missing",
        "A signed file is not there.",
        "SIG_RESOURCES",
        packed({n: d for n, d in MEMBERS.items() if n != "card.md"}),
    )
    add("file-added", "A file nobody signed.", "SIG_RESOURCES", packed(MEMBERS | {"extra.txt": b"x"}))
    add(
        "file-unlisted",
        "A signed file the manifest does not list.",
        "SIG_RESOURCES",
        restated(MEMBERS | {"extra.txt": b"x"}),
    )
    add(
        "size-stated",
        "The manifest states another size.",
        "MANIFEST_MISMATCH",
        restated(remade(lambda v: entry(v, "card.md").update(size=8))),
    )
    add(
        "digest-stated",
        "The manifest states another digest, the statement the true one.",
        "SIG_RESOURCES",
        restated(remade(lambda v: entry(v, "card.md").update(sha256="0" * 64))),
    )
    add(
        "kind-stated",
        "The manifest says onnx.",
        "MANIFEST_MISMATCH",
        restated(remade(lambda v: v.update(kind="onnx"))),
    )
    add(
        "schema-stated",
        "A manifest of another version.",
        "MANIFEST_INVALID",
        restated(remade(lambda v: v.update(schema="sealpack/manifest/v2"))),
    )
    add(
        "crit-unknown",
        "The manifest requires what this version does not know.",
        "DOC_CRIT",
        restated(remade(lambda v: v.update(crit=["quantum"]))),
    )


def _content(add: Add) -> None:
    name, table_name = "payload/model.gguf", "chunks/0.sha256c"
    changed = _flip(MEMBERS[name])
    add(
        "payload-changed-content",
        "One bit of the model.",
        "CHUNK_MISMATCH",
        packed(MEMBERS | {name: changed}),
    )
    add("card-changed", "A word of the card.", "DIGEST_MISMATCH", packed(MEMBERS | {"card.md": b"# Tinz\n"}))
    table = digest_blocks([changed]).table
    add(
        "table-changed",
        "Model and chunk table changed together.",
        "DIGEST_MISMATCH",
        packed(MEMBERS | {name: changed, table_name: table}),
    )
    whole = hashlib.sha256(changed).hexdigest()
    add(
        "leaf-wrong",
        "The whole-file digest is right, the signed leaf is not.",
        "CHUNK_MISMATCH",
        _resigned({name: changed, "sbom.cdx.json": world.sbom_for(whole)}),
    )
    leaf = {"sha256": hashlib.sha256(table).hexdigest()}
    add(
        "leaf-right-whole-wrong",
        "The leaves are right, the whole-file digest is not.",
        "DIGEST_MISMATCH",
        _stale_digest(changed, table, leaf),
    )
    add(
        "table-digest",
        "The manifest states another digest of the table.",
        "CHUNK_MISMATCH",
        restated(remade(lambda v: entry(v, name)["chunks"].update(sha256="0" * 64))),
    )
    add(
        "table-short",
        "The table lacks a leaf, signed so.",
        "CHUNK_MISMATCH",
        _resigned({table_name: b""}, {name: {"sha256": hashlib.sha256(b"").hexdigest()}}),
    )
    sbom = json.loads(MEMBERS["sbom.cdx.json"])
    sbom["components"][0]["hashes"][0]["content"] = "0" * 64
    for case, description, data in (
        ("sbom-other-model", "The SBOM names another model digest.", json.dumps(sbom).encode()),
        ("sbom-not-json", "The SBOM is no JSON.", b"<bom/>"),
        ("sbom-duplicate-key", "A key of the SBOM stands twice.", 
         b'{"bomFormat":"x",' + MEMBERS["sbom.cdx.json"][1:]),
        ("sbom-spdx", "Another format.", json.dumps(sbom | {"bomFormat": "SPDX"}).encode()),
        ("sbom-deep", "An SBOM nested 100000 levels.", b"[" * 100_000),
        ("sbom-shape", "components is a number.", json.dumps(sbom | {"components": 1}).encode()),
    ):  # fmt: skip
        add(case, description, "SBOM_INVALID", _resigned({"sbom.cdx.json": data}))
    for case, description, code, data in (
        ("model-unknown", "The model is text.", "MANIFEST_MISMATCH", b"not a model at all, only text"),
        ("model-cut", "The GGUF is cut short.", "MODEL_TRUNCATED", MEMBERS[name][:40]),
        ("model-count", "A GGUF that states 2^60 tensors.", "MODEL_UNSAFE",
         MEMBERS[name][:8] + (1 << 60).to_bytes(8, "little") + MEMBERS[name][16:]),
    ):  # fmt: skip
        add(case, description, code, BundleSpec(model=data).build())
    terms = {"license/terms.json": ("license-terms", "application/json", _terms("0" * 64)),
             "license/LICENSE": ("license-text", "text/plain", b"text")}  # fmt: skip
    add(
        "terms-other-text",
        "The terms name another text.",
        "TERMS_MISMATCH",
        BundleSpec(model=SPEC.model, extra=terms).build(),
    )
    terms["license/terms.json"] = (
        *terms["license/terms.json"][:2],
        _terms(hashlib.sha256(b"text").hexdigest()),
    )
    add("good-terms", "Terms and text agree.", "ok", BundleSpec(model=SPEC.model, extra=terms).build())
    places = [Raw(n, d) for n, d in [("mimetype", MIMETYPE), ("META/model.sig", SIG)]]
    rest = [n for n in MEMBERS if not n.startswith(("payload/", "manifest"))]
    head = [
        *places,
        Raw("manifest.json", MEMBERS["manifest.json"]),
        *(Raw(n, MEMBERS[n]) for n in sorted(rest)),
    ]
    add("payload-stripped", "The payload is left away.", "SIG_RESOURCES", build(head))


def _terms(digest: str) -> bytes:
    return canonical.dumps({"schema": "sealpack/terms/v1", "spdx": "MIT", "text": "license/LICENSE",
                            "text_sha256": digest})  # fmt: skip


def _resigned(changed: dict[str, bytes], chunks: dict[str, dict[str, Any]] | None = None) -> bytes:
    """Changed files whose size and digest the manifest and the statement state rightly."""

    def restate(value: dict[str, Any]) -> None:
        for name, data in changed.items():
            entry(value, name).update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, members in (chunks or {}).items():
            entry(value, name)["chunks"].update(members)

    return restated(remade(restate, **changed))


def _stale_digest(model: bytes, table: bytes, leaf: dict[str, Any]) -> bytes:
    """A model and its table, both as signed, under the digest of another model."""

    def restate(value: dict[str, Any]) -> None:
        entry(value, "payload/model.gguf")["chunks"].update(leaf)
        entry(value, "chunks/0.sha256c").update(leaf)

    members = remade(restate, **{"payload/model.gguf": model, "chunks/0.sha256c": table})
    stated = {f["name"]: f["sha256"] for f in json.loads(members["manifest.json"])["files"]}
    digest = hashlib.sha256(members["manifest.json"]).hexdigest()
    resources = stated | {"manifest.json": digest, "mimetype": hashlib.sha256(MIMETYPE).hexdigest()}
    signed = statement.Statement(resources, SPEC.bundle_id, 1, digest, T0)
    return packed(members, statement.sign(signed, CREATOR))


def _policy(add: Add) -> None:
    creator, licenser = world.key_entry(CREATOR, ["bundle"]), world.key_entry(LICENSER, ["license"])
    add(
        "namespace",
        "The key may sign for other names only.",
        "SIG_NAMESPACE",
        packed(),
        _trust(dict(creator, namespaces=["other", "acme/tin"]), licenser),
    )
    add(
        "namespace-exact",
        "A namespace may be the whole id.",
        "ok",
        packed(),
        _trust(dict(creator, namespaces=["acme/tiny"]), licenser),
    )
    digest = statement.read_signature(SIG).digest
    for name, description, code, revoked in (
        ("key-revoked", "The key was revoked: signing times can be back-dated.", "KEY_REVOKED",
         {"keys": [{"keyid": CREATOR.keyid, "good": []}]}),
        ("key-revoked-good", "The key was revoked, this signature stays good.", "ok",
         {"keys": [{"keyid": CREATOR.keyid, "good": [digest]}]}),
        ("bundle-revoked", "This build was withdrawn.", "BUNDLE_REVOKED",
         {"bundles": [Manifest.from_bytes(MEMBERS["manifest.json"]).bundle_digest]}),
        ("floor", "Releases below 2 are no longer allowed.", "BUNDLE_FLOOR",
         {"floors": [{"bundle_id": "acme/tiny", "floor": 2}]}),
        ("floor-at", "Release 1 is at the floor.", "ok",
         {"floors": [{"bundle_id": "acme/tiny", "floor": 1}]}),
    ):  # fmt: skip
        add(name, description, code, packed(), world.make_trust(**revoked))


def _meta(add: Add) -> None:
    def carry(name: str, description: str, expect: str, trust: Trust | None = None, **meta: bytes) -> None:
        add(name, description, expect, packed(**meta), trust)

    digest = Manifest.from_bytes(MEMBERS["manifest.json"]).bundle_digest
    newer = world.make_revocations(2, bundles=[digest]).to_bytes()
    carry(
        "carried-revocation",
        "Newer revocations ride along and withdraw this build.",
        "BUNDLE_REVOKED",
        trust__revocations_json=newer,
    )
    forged = documents.seal("revocations", json.loads(world.make_revocations(2).payload), STRANGER)
    carry(
        "carried-forged",
        "Revocations signed by a stranger.",
        "TRUST_THRESHOLD",
        trust__revocations_json=forged.to_bytes(),
    )
    other = world.make_revocations(licenses=["x"]).to_bytes()
    carry(
        "carried-conflict",
        "Revocations of the same version, other content.",
        "TRUST_CONFLICT",
        trust__revocations_json=other,
    )
    carry(
        "carried-other-kind",
        "A keyring under the name of revocations.",
        "CONTAINER_META",
        trust__revocations_json=make_keyring().to_bytes(),
    )
    second = make_root(2, (ROOT,)).to_bytes()
    carry(
        "carried-root-version",
        "Root 2 under the name of root 3.",
        "CONTAINER_META",
        trust__root_3_json=second,
    )
    carry("carried-root", "Root 2 rides along.", "ok", trust__root_2_json=second)
    carry(
        "carried-root-skips",
        "Root 3 rides along, root 2 does not.",
        "TRUST_ROLLBACK",
        trust__root_3_json=make_root(3, (ROOT,)).to_bytes(),
    )
    carry("carried-not-json", "Junk in place of a keyring.", "JSON_INVALID", trust__keyring_json=b"junk")
    add(
        "carried-not-json-key",
        "The same, checked with a key only: nothing may ride along.",
        "JSON_INVALID",
        packed(trust__keyring_json=b"junk"),
        key=CREATOR.public.pem,
    )
    rotated = make_root(2, (ROOT_2,), signers=(ROOT, ROOT_2))
    now = Trust.from_envelopes(
        rotated, documents.seal("keyring", json.loads(make_keyring(2).payload), ROOT_2),
        documents.seal("revocations", json.loads(world.make_revocations(2).payload), ROOT_2),
    )  # fmt: skip
    old = {"trust__root_1_json": make_root().to_bytes(), "trust__keyring_json": make_keyring().to_bytes()}
    carry("carried-older", "What was good before the root's keys changed.", "ok", now, **old)
    carry(
        "carried-older-unproven",
        "An old keyring without the root that vouched for it.",
        "TRUST_THRESHOLD",
        now,
        trust__keyring_json=old["trust__keyring_json"],
    )
    license = documents.seal("license", LICENSE, LICENSER).to_bytes()
    carry("license", "A license rides along.", "ok", license__L_1_json=license)
    carry("license-name", "A license under another name.", "CONTAINER_META", license__L_2_json=license)
    carry(
        "license-forged",
        "A license signed by a stranger.",
        "LIC_KEY_UNTRUSTED",
        license__L_1_json=documents.seal("license", LICENSE, STRANGER).to_bytes(),
    )
    elsewhere = dict(LICENSE, bundles=[{"id": "acme/other"}])
    carry(
        "license-other-bundle",
        "A license for another bundle.",
        "CONTAINER_META",
        license__L_1_json=documents.seal("license", elsewhere, LICENSER).to_bytes(),
    )
    carry(
        "license-other-kind",
        "A lease in place of a license.",
        "DOC_TYPE",
        license__L_1_json=documents.seal("lease", LICENSE, LICENSER).to_bytes(),
    )
    add(
        "license-key-only",
        "A license rides along, and only a key is given.",
        "SIG_KEY_UNKNOWN",
        packed(license__L_1_json=license),
        key=CREATOR.public.pem,
    )


LICENSE: dict[str, Any] = {
    "license_id": "L-1", "seq": 1, "issued_at": T0, "issuer": world.ISSUER,
    "tier": "pro", "billing": "one_time",
    "customer": {"id": "c-1", "name": "Customer"}, "bundles": [{"id": "acme"}, {"id": "acme/tiny"}],
    "use": {"terms_digest": "0" * 64}, "devices": {"binding": "none"},
}  # fmt: skip

if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
