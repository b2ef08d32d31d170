"""Write the trust vectors: `python specs/vectors/trust/generate.py [FOLDER]`.

Each case is `case.json` and `trust.json`; where there is an `update.json` (a parcel), its documents are taken
over; where there is a `document.json`, its signature is checked for `role` and `names`. `versions` are those
of root, keyring and revocations afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import json
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
from support import world
from support.mldsa import CREATOR_MLDSA, LICENSER_MLDSA, ROOT_MLDSA, STRANGER_MLDSA, MldsaKey
from support.vectors import Cases
from support.world import CREATOR, LICENSER, ROOT, STRANGER, T0, make_keyring, make_revocations, make_root

from sealpack.format import canonical, documents, dsse
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.keys import ECDSA, ML_DSA, PrivateKey, Signer

R1, R2, R3 = (PrivateKey.from_scalar(0x2000 + n) for n in (1, 2, 3))
ED = PrivateKey.from_seed(b"sealpack-test-vector-ed25519-001")


def resealed(envelope: Envelope, *keys: Signer, **members: Any) -> Envelope:
    """A document with other members (None: removed), signed by `keys`, else by the test root."""
    value = json.loads(envelope.payload) | members
    body = canonical.dumps({k: v for k, v in value.items() if v is not None})
    return dsse.sign(envelope.payload_type, body, *(keys or (ROOT,)))


def trust(
    root: Envelope | None = None, keyring: Envelope | None = None, revocations: Envelope | None = None
) -> bytes:
    """A trust file, not checked."""
    parts = {
        "root": root or make_root(),
        "keyring": keyring or make_keyring(),
        "revocations": revocations or make_revocations(),
    }
    return canonical.dumps({"schema": "sealpack/trust/v1", **{k: e.to_dict() for k, e in parts.items()}})


def of(*keys: PrivateKey, threshold: int = 1, version: int = 1, signers: Any = None) -> dict[str, Envelope]:
    """A root with these keys, and keyring and revocations signed by all of them."""
    return {
        "root": make_root(version, keys, threshold, signers),
        "keyring": resealed(make_keyring(), *keys),
        "revocations": resealed(make_revocations(), *keys),
    }


def other_spelling(key: PrivateKey) -> str:
    """The same key, its point compressed."""
    public = serialization.load_pem_public_key(key.public.pem.encode())
    point = serialization.PublicFormat.CompressedPoint
    raw = public.public_bytes(serialization.Encoding.X962, point)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    body = serialization.load_der_public_key(head + raw)
    assert body.public_numbers() == public.public_numbers()
    import base64

    text = base64.b64encode(head + raw).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def main(folder: Path) -> None:
    """Write one folder per case."""
    cases = Cases()

    def add(name: str, description: str, expect: str, data: bytes, *update: Envelope, **more: Any) -> None:
        files = {"trust.json": data}
        if update:
            files["update.json"] = Parcel(update).to_bytes()
        if "document" in more:
            files["document.json"] = more.pop("document").to_bytes()
        cases.add(name, description, expect, files, **more)

    _files(add)
    _thresholds(add)
    _updates(add)
    _steps(add)
    _signers(add)
    _mldsa_keyrings(add)
    _mldsa_roots(add)
    _mldsa_signers(add)
    cases.write(folder)


def _files(add: Any) -> None:
    good: dict[str, Any] = json.loads(trust())
    add("good", "Root, keyring and revocations of one vendor.", "ok", trust(), versions=[1, 1, 1])

    def bad(name: str, description: str, code: str, **parts: Envelope) -> None:
        add(name, description, code, trust(**parts))

    for name, description, code, value in (
        ("no-keyring", "A member is missing.", "TRUST_INVALID",
         {k: v for k, v in good.items() if k != "keyring"}),
        ("schema", "A trust file of another version.", "TRUST_INVALID",
         good | {"schema": "sealpack/trust/v2"}),
        ("root-not-an-envelope", "The root is a number.", "DSSE_INVALID", good | {"root": 1}),
        ("swapped", "Keyring and revocations in each other's place.", "DOC_TYPE",
         good | {"keyring": good["revocations"], "revocations": good["keyring"]}),
        ("not-an-object", "An array.", "TRUST_INVALID", []),
    ):  # fmt: skip
        add(name, description, code, canonical.dumps(value))
    add("not-canonical", "Written with spaces.", "JSON_INVALID", json.dumps(good).encode())
    root, keyring, lists = make_root(), make_keyring(), make_revocations()
    keys: list[dict[str, Any]] = json.loads(keyring.payload)["keys"]
    roles: dict[str, Any] = json.loads(root.payload)["roles"]
    bad("root-version-0", "Versions start at 1.", "TRUST_INVALID", root=resealed(root, version=0))
    bad(
        "root-role-missing",
        "A role of the root is missing.",
        "TRUST_INVALID",
        root=resealed(root, roles={"root": roles["root"], "keyring": roles["keyring"]}),
    )
    bad(
        "root-threshold-0",
        "A threshold of nobody.",
        "TRUST_INVALID",
        root=resealed(root, roles=roles | {"root": roles["root"] | {"threshold": 0}}),
    )
    bad(
        "root-role-empty",
        "A role of nobody: no revocations could ever follow.",
        "TRUST_INVALID",
        root=resealed(root, roles=roles | {"revocations": {"threshold": 1, "keyids": []}}),
    )
    bad(
        "root-threshold-too-high",
        "A threshold above the number of keys.",
        "TRUST_INVALID",
        root=resealed(root, roles=roles | {"root": roles["root"] | {"threshold": 2}}),
    )
    bad(
        "root-unknown-keyid",
        "A role names a key the root does not hold.",
        "TRUST_INVALID",
        root=resealed(root, roles=roles | {"root": {"threshold": 1, "keyids": ["0" * 64]}}),
    )
    bad(
        "root-keyid-twice",
        "A role names a key twice.",
        "TRUST_INVALID",
        root=resealed(root, roles=roles | {"root": {"threshold": 2, "keyids": roles["root"]["keyids"] * 2}}),
    )
    bad(
        "root-key-twice",
        "The root lists a key twice.",
        "TRUST_INVALID",
        root=resealed(root, keys=[ROOT.public.pem] * 2),
    )
    bad(
        "root-second-spelling",
        "The same key, its point compressed.",
        "KEY_MALFORMED",
        root=resealed(root, keys=[ROOT.public.pem, other_spelling(ROOT)]),
    )
    bad(
        "root-schema",
        "A root of another version of the format.",
        "TRUST_INVALID",
        root=resealed(root, schema="sealpack/root/v2"),
    )
    bad(
        "root-crit",
        "The root requires what this version does not know.",
        "DOC_CRIT",
        root=resealed(root, crit=["x"]),
    )
    bad(
        "keyring-key-twice",
        "The keyring lists a key twice.",
        "TRUST_INVALID",
        keyring=resealed(keyring, keys=[keys[0], keys[0]]),
    )
    for name, description, members in (
        ("keyring-keyid", "A keyid is not that of its key.", {"keyid": "0" * 64}),
        ("keyring-scheme", "A scheme is not that of its key.", {"scheme": "ed25519"}),
        ("keyring-role", "A role nobody knows.", {"roles": ["bundle", "king"]}),
        ("keyring-namespace", "A namespace with an empty segment.", {"namespaces": ["acme//tiny"]}),
        ("keyring-namespace-case", "A namespace in upper case.", {"namespaces": ["Acme"]}),
        ("keyring-status", "A status nobody knows.", {"status": "on-leave"}),
    ):  # fmt: skip
        bad(name, description, "TRUST_INVALID", keyring=resealed(keyring, keys=[keys[0] | members]))
    bad(
        "keyring-pem",
        "A key that is none.",
        "KEY_MALFORMED",
        keyring=resealed(keyring, keys=[keys[0] | {"pem": "-----BEGIN PUBLIC KEY-----\n"}]),
    )
    floor = {"bundle_id": "acme/tiny", "floor": 2}
    bad(
        "revocations-floor-twice",
        "One bundle has two floors.",
        "TRUST_INVALID",
        revocations=resealed(lists, floors=[floor, floor | {"floor": 0}]),
    )
    revoked = {"keyid": CREATOR.keyid, "good": []}
    bad(
        "revocations-key-twice",
        "A key is revoked twice, with other exceptions.",
        "TRUST_INVALID",
        revocations=resealed(lists, keys=[revoked, revoked | {"good": ["0" * 64]}]),
    )
    bad(
        "revocations-digest",
        "A bundle digest in upper case.",
        "TRUST_INVALID",
        revocations=resealed(lists, bundles=["A" * 64]),
    )
    bad(
        "revocations-missing",
        "No list of devices.",
        "TRUST_INVALID",
        revocations=resealed(lists, devices=None),
    )


def _thresholds(add: Any) -> None:
    add("threshold-2-of-3", "Two of three keys sign.", "ok", trust(**of(R1, R2, R3, threshold=2)))
    add(
        "threshold-short",
        "One of two needed keys signs the root.",
        "TRUST_THRESHOLD",
        trust(**of(R1, R2, threshold=2, signers=(R1,))),
    )
    once = of(R1, R2, threshold=2)
    twice = dsse.sign(once["keyring"].payload_type, once["keyring"].payload, R1, R1)
    add(
        "threshold-one-key-twice",
        "One key signs the keyring twice.",
        "TRUST_THRESHOLD",
        trust(**once | {"keyring": twice}),
    )
    sig = twice.signatures[0].sig
    spoofed = Envelope(
        twice.payload_type, twice.payload, (dsse.Signature(R1.keyid, sig), dsse.Signature(R2.keyid, sig))
    )
    add(
        "threshold-keyid-spoofed",
        "One signature under two keyids.",
        "TRUST_THRESHOLD",
        trust(**once | {"keyring": spoofed}),
    )
    add(
        "root-by-stranger",
        "A root that its own keys did not sign.",
        "TRUST_THRESHOLD",
        trust(root=make_root(signers=(STRANGER,))),
    )
    add(
        "keyring-by-stranger",
        "A keyring that the root's keys did not sign.",
        "TRUST_THRESHOLD",
        trust(keyring=resealed(make_keyring(), STRANGER)),
    )
    add(
        "revocations-by-creator",
        "Revocations signed by a key of the keyring.",
        "TRUST_THRESHOLD",
        trust(revocations=resealed(make_revocations(), CREATOR)),
    )
    extra = dsse.sign(make_keyring().payload_type, make_keyring().payload, ROOT, STRANGER)
    add("stranger-too", "A stranger's signature beside the right one.", "ok", trust(keyring=extra))


def _updates(add: Any) -> None:
    keyring, lists = resealed(make_keyring(), version=3), resealed(make_revocations(), version=3)
    newest = trust(keyring=keyring, revocations=lists)
    add("newer", "A newer keyring and newer revocations.", "ok", trust(), lists, keyring, versions=[1, 3, 3])
    add(
        "older-ignored",
        "Older ones are ignored: they were good once.",
        "ok",
        newest,
        make_keyring(),
        make_revocations(),
        versions=[1, 3, 3],
    )
    add("same", "The same ones again.", "ok", newest, keyring, lists, versions=[1, 3, 3])
    for name, document in (("keyring", keyring), ("revocations", lists)):
        add(
            f"{name}-conflict",
            "The same version with other content.",
            "TRUST_CONFLICT",
            newest,
            resealed(document, issued_at=T0 + 1),
        )
        add(
            f"{name}-forged",
            "A newer one, signed by a stranger.",
            "TRUST_THRESHOLD",
            trust(),
            resealed(document, STRANGER),
        )
    add("root-conflict", "Another root of this version.", "TRUST_CONFLICT", trust(), make_root(1, (ROOT, R1)))
    both, old, new = (ROOT, R1), (ROOT,), (R1,)
    add(
        "root-2",
        "Root 2, signed by the old and the new key.",
        "ok",
        trust(),
        make_root(2, new, signers=both),
        versions=[2, 1, 1],
    )
    add(
        "root-2-old-only",
        "Root 2, signed by the old key only.",
        "TRUST_THRESHOLD",
        trust(),
        make_root(2, new, signers=old),
    )
    add(
        "root-2-new-only",
        "Root 2, signed by the new key only.",
        "TRUST_THRESHOLD",
        trust(),
        make_root(2, new, signers=new),
    )
    third = make_root(3, (R2,), signers=(R1, R2))
    add(
        "root-2-and-3",
        "Roots 2 and 3, in any order.",
        "ok",
        trust(),
        third,
        make_root(2, new, signers=both),
        versions=[3, 1, 1],
    )
    add("root-skips", "Root 3 without root 2.", "TRUST_ROLLBACK", trust(), make_root(3, old))
    add("root-older-ignored", "An older root.", "ok", trust(**of(R1, version=2)),
        make_root(1, (ROOT,)), versions=[2, 1, 1])  # fmt: skip
    add(
        "root-2-keyring",
        "Root 2 and a keyring its key signed.",
        "ok",
        trust(),
        make_root(2, new, signers=both),
        resealed(keyring, R1),
        versions=[2, 3, 1],
    )
    add(
        "root-2-old-keyring",
        "Root 2 and a newer keyring the replaced key signed.",
        "TRUST_THRESHOLD",
        trust(),
        make_root(2, new, signers=both),
        keyring,
    )
    rotated = of(R1, version=2)
    rotated["root"] = make_root(2, new, signers=both)
    add(
        "ancestor",
        "Root 1, which signed root 2, vouches for an old keyring.",
        "ok",
        trust(**rotated | {"keyring": resealed(keyring, R1)}),
        make_root(),
        make_keyring(),
        versions=[2, 3, 1],
    )
    add("ancestor-newer", "Root 1 cannot vouch for a newer one.", "TRUST_THRESHOLD",
        trust(**rotated), make_root(), keyring)  # fmt: skip
    add("ancestor-unlinked", "A root 1 that did not sign root 2: left out, not believed.", "ok",
        trust(**of(R1, version=2)), make_root(), make_keyring(), versions=[2, 1, 1])  # fmt: skip


def _steps(add: Any) -> None:
    """Trust files that carry the roots that led to theirs."""
    one, two = make_root(1, (R1,)), make_root(2, (R1,))
    three, alone = make_root(3, (R2,), signers=(R1, R2)), make_root(3, (R2,))
    rest = {"keyring": resealed(make_keyring(), R2), "revocations": resealed(make_revocations(), R2)}

    def case(
        name: str, description: str, code: str, roots: Any, newest: Envelope = three, **more: Any
    ) -> None:
        listed = [e.to_dict() if isinstance(e, Envelope) else e for e in roots] if roots != 1 else 1
        value = json.loads(trust(newest, **rest)) | {"roots": listed}
        add(f"steps{name}", description, code, canonical.dumps(value), **more)

    foreign = dsse.sign("application/json", one.payload, R1)
    case("", "Every root since the first.", "ok", [one, two], versions=[3, 1, 1])
    case("-some", "Older ones are no longer kept.", "ok", [two], versions=[3, 1, 1])
    case("-none", "An empty list.", "ok", [], versions=[3, 1, 1])
    for name, description, roots in (
        ("-skip", "One is left out.", [one]),
        ("-order", "The newest first.", [two, one]),
        ("-twice", "One stands twice.", [one, one, two]),
        ("-own", "The file's own root among them.", [one, two, three]),
        ("-unsigned", "The first is signed by a stranger.", [make_root(1, (R1,), signers=(STRANGER,)), two]),
        ("-other-kind", "A keyring among them.", [rest["keyring"]]),
        ("-other-tool", "A document of another tool.", [foreign, two]),
        ("-many", "65 of them.", [one] * 65),
        ("-number", "A number.", 1),
    ):
        case(name, description, "TRUST_INVALID", roots)
    case("-unlinked", "The last does not vouch for the file's root.", "TRUST_INVALID", [one, two], alone)
    case("-not-an-envelope", "A number among them.", "DSSE_INVALID", [1])


def _signers(add: Any) -> None:
    good = documents.seal("license", {"n": 1}, LICENSER)

    def signed(
        name: str, description: str, code: str, document: Envelope = good, role: str = "license",
        names: tuple[str, ...] = (), data: bytes | None = None,
    ) -> None:  # fmt: skip
        add(name, description, code, data or trust(), document=document, role=role, names=names)

    signed("signer", "The license key signs for acme/tiny.", "ok", names=("acme/tiny", "acme"))
    signed(
        "signer-segment",
        "acme does not cover acmeco: namespaces are whole segments.",
        "SIG_NAMESPACE",
        names=("acmeco/tiny",),
    )
    signed(
        "signer-parent",
        "acme/tiny does not cover acme.",
        "SIG_NAMESPACE",
        names=("acme",),
        data=trust(keyring=make_keyring(1, [world.key_entry(LICENSER, ["license"], ["acme/tiny"])])),
    )
    signed("signer-unknown", "A stranger.", "SIG_KEY_UNKNOWN", documents.seal("license", {"n": 1}, STRANGER))
    signed(
        "signer-role",
        "The creator's key signs a license.",
        "SIG_KEY_ROLE",
        documents.seal("license", {"n": 1}, CREATOR),
    )
    signed(
        "signer-settlement",
        "The settlement key acknowledges.",
        "ok",
        documents.seal("acknowledgement", {"n": 1}, world.SETTLEMENT),
        "ack",
    )
    signed(
        "signer-two",
        "Two signatures.",
        "DSSE_INVALID",
        documents.seal("license", {"n": 1}, LICENSER, CREATOR),
    )
    forged = Envelope(good.payload_type, good.payload, (dsse.Signature(LICENSER.keyid, STRANGER.sign(b"x")),))
    signed("signer-forged", "A stranger's signature under the license key's id.", "SIG_INVALID", forged)
    swapped = Envelope(documents.payload_type("lease"), good.payload, good.signatures)
    signed("signer-other-kind", "A license's signature on a lease of the same bytes.", "SIG_INVALID", swapped)
    revoked = {"keyid": LICENSER.keyid, "good": []}
    signed(
        "signer-revoked",
        "The key was revoked.",
        "KEY_REVOKED",
        data=trust(revocations=make_revocations(keys=[revoked])),
    )
    signed(
        "signer-revoked-good",
        "The key was revoked, this document stays good.",
        "ok",
        data=trust(revocations=make_revocations(keys=[revoked | {"good": [good.digest]}])),
    )
    signed(
        "signer-ed25519",
        "An Ed25519 license key.",
        "ok",
        documents.seal("license", {"n": 1}, ED),
        data=trust(keyring=make_keyring(1, [world.key_entry(ED, ["license"])])),
    )


def _mldsa_keyrings(add: Any) -> None:
    """Keyrings whose entries have an ML-DSA key beside their own."""
    entry = world.key_entry(CREATOR, ["bundle"], mldsa=CREATOR_MLDSA)
    license = world.key_entry(LICENSER, ["license"], mldsa=LICENSER_MLDSA)
    add(
        "mldsa",
        "Two keys with ML-DSA keys beside them.",
        "ok",
        trust(keyring=make_keyring(1, [entry, license])),
    )
    optional = entry | {"schemes": [ECDSA]}
    add("mldsa-optional", "ML-DSA is not required.", "ok", trust(keyring=make_keyring(1, [optional])))
    add("since", "Since when a key is listed.", "ok", trust(keyring=make_keyring(1, [entry | {"since": T0}])))

    def bad(name: str, description: str, code: str, *entries: dict[str, Any], **members: Any) -> None:
        add(name, description, code, trust(keyring=resealed(make_keyring(1, list(entries)), **members)))

    bad("mldsa-no-crit", "Older readers would pass over the ML-DSA key.", "TRUST_INVALID", entry, crit=None)
    bad("mldsa-crit-other", "Another scheme is required too.", "DOC_CRIT", entry, crit=[ML_DSA, "ml-dsa-87"])
    for name, description, code, members in (
        ("pem-other-scheme", "mldsa_pem is an ECDSA key.", "TRUST_INVALID",
         {"mldsa_pem": STRANGER.public.pem}),
        ("pem-spelling", "mldsa_pem with other line ends.", "KEY_MALFORMED",
         {"mldsa_pem": CREATOR_MLDSA.public.pem.replace("\n", "\r\n")}),
        ("pem-width", "mldsa_pem on one line.", "KEY_MALFORMED", {"mldsa_pem": one_line(CREATOR_MLDSA)}),
        ("pem-ml-dsa-44", "A key of the smaller parameter set.", "KEY_MALFORMED", {"mldsa_pem": pem_44()}),
        ("alone", "An ML-DSA key without ECDSA.", "TRUST_INVALID",
         {"pem": CREATOR_MLDSA.public.pem, "keyid": CREATOR_MLDSA.keyid, "scheme": ML_DSA}),
        ("schemes-other", "A scheme there is no key for.", "TRUST_INVALID", {"schemes": [ECDSA, "ed25519"]}),
        ("schemes-without-own", "ML-DSA alone is required.", "TRUST_INVALID", {"schemes": [ML_DSA]}),
        ("schemes-none", "Nothing is required.", "TRUST_INVALID", {"schemes": []}),
        ("since-negative", "Before 1970.", "TRUST_INVALID", {"since": -1}),
    ):  # fmt: skip
        bad(f"mldsa-{name}", description, code, entry | members)
    plain = world.key_entry(CREATOR, ["bundle"])
    bad(
        "mldsa-schemes-no-key",
        "ML-DSA is required, no key.",
        "TRUST_INVALID",
        plain | {"schemes": [ECDSA, ML_DSA]},
    )
    beside_ed = world.key_entry(ED, ["license"], mldsa=LICENSER_MLDSA, schemes=("ed25519", ML_DSA))
    bad("mldsa-beside-ed25519", "An ML-DSA key beside an Ed25519 key.", "TRUST_INVALID", beside_ed)
    shared = license | {"mldsa_pem": CREATOR_MLDSA.public.pem}
    bad("mldsa-shared", "One ML-DSA key beside two keys.", "TRUST_INVALID", entry, shared)


def one_line(key: MldsaKey) -> str:
    """The PEM text with its base64 on one line."""
    lines = key.public.pem.splitlines()
    return "\n".join([lines[0], "".join(lines[1:-1]), lines[-1], ""])


def pem_44() -> str:
    """An ML-DSA-44 key."""
    public = mldsa.MLDSA44PrivateKey.from_seed_bytes(b"sealpack-test-mldsa-44-key-0001.").public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, info).decode()


def _mldsa_roots(add: Any) -> None:
    """Roots whose keys count only together with an ML-DSA key."""
    m1, m2 = ROOT_MLDSA, MldsaKey(b"sealpack-test-mldsa-key-root-002")

    def pair(*signers: Signer, version: int = 1, threshold: int = 1) -> Envelope:
        return make_root(version, (R1, R2), threshold, signers, {R1.keyid: m1, R2.keyid: m2})

    def parts(root: Envelope, *signers: Signer) -> bytes:
        return trust(root, resealed(make_keyring(), *signers), resealed(make_revocations(), *signers))

    add("mldsa-root", "A root key and the ML-DSA key beside it.", "ok", parts(pair(R1, m1), R1, m1))
    add("mldsa-root-threshold", "Two of two pairs.", "ok",
        parts(pair(R1, R2, m1, m2, threshold=2), R1, R2, m1, m2))  # fmt: skip
    one = {R1.keyid: m1}
    mixed = make_root(1, (R1, R2), 1, (R2,), one)
    add("mldsa-root-mixed", "Of a pair and a single key the single one signs.", "ok", parts(mixed, R2))
    for name, description, signers in (
        ("stripped", "The root has no ML-DSA signature.", (R1, R2)),
        ("mldsa-only", "The root has only ML-DSA signatures.", (m1, m2)),
        ("crossed", "ECDSA of one pair, ML-DSA of the other.", (R1, m2)),
        ("stranger", "ML-DSA by a stranger.", (R1, R2, STRANGER_MLDSA)),
    ):  # fmt: skip
        add(f"mldsa-root-{name}", description, "TRUST_THRESHOLD", parts(pair(*signers), R1, m1))
    good = pair(R1, m1)
    wrong = Envelope(good.payload_type, good.payload, tuple(
        dsse.Signature(s.keyid, s.sig if s.keyid == R1.keyid else s.sig[:-1] + b"\0") for s in good.signatures
    ))  # fmt: skip
    add("mldsa-root-wrong", "A wrong ML-DSA signature.", "TRUST_THRESHOLD", parts(wrong, R1, m1))
    add("mldsa-root-keyring", "The keyring has no ML-DSA signature.", "TRUST_THRESHOLD",
        trust(good, resealed(make_keyring(), R1), resealed(make_revocations(), R1, m1)))  # fmt: skip
    add("mldsa-root-revocations", "The revocations have no ML-DSA signature.", "TRUST_THRESHOLD",
        trust(good, resealed(make_keyring(), R1, m1), resealed(make_revocations(), R1)))  # fmt: skip
    half = trust(
        pair(R1, R2, m1, m2, threshold=2),
        resealed(make_keyring(), R1, R2, m1),
        resealed(make_revocations(), R1, R2, m1, m2),
    )
    add("mldsa-root-half", "Of two needed pairs one has no ML-DSA signature.", "TRUST_THRESHOLD", half)
    keys: list[dict[str, str]] = json.loads(good.payload)["keys"]
    for name, description, code, members in (
        ("no-crit", "Older readers must refuse it by name.", "TRUST_INVALID", {"crit": None}),
        ("crit-other", "Another scheme is required too.", "DOC_CRIT", {"crit": [ML_DSA, "x"]}),
        ("alone", "An ML-DSA key without ECDSA.", "TRUST_INVALID", {"keys": [*keys, m1.public.pem]}),
        ("object-single", "An object without mldsa_pem.", "TRUST_INVALID",
         {"keys": [keys[0], {"pem": R2.public.pem}]}),
        ("no-pem", "An object without pem.", "TRUST_INVALID",
         {"keys": [*keys, {"mldsa_pem": m1.public.pem}]}),
        ("shared", "One ML-DSA key beside two keys.", "TRUST_INVALID",
         {"keys": [keys[0], keys[1] | {"mldsa_pem": m1.public.pem}]}),
        ("other-scheme", "mldsa_pem is an ECDSA key.", "TRUST_INVALID",
         {"keys": [keys[0], keys[1] | {"mldsa_pem": R3.public.pem}]}),
        ("role-keyid", "A role names an ML-DSA key.", "TRUST_INVALID",
         {"roles": {r: {"threshold": 1, "keyids": [m1.keyid]} for r in ("root", "keyring", "revocations")}}),
    ):  # fmt: skip
        add(f"mldsa-root-{name}", description, code, parts(resealed(good, R1, m1, **members), R1, m1))
    following = {"version": 2}
    add("mldsa-root-2", "Root 2 puts an ML-DSA key beside the key.", "ok", trust(),
        make_root(2, signers=(ROOT, m1), mldsa={ROOT.keyid: m1}), versions=[2, 1, 1])  # fmt: skip
    add("mldsa-root-2-stripped", "Root 2 has pairs and no ML-DSA signature.", "TRUST_THRESHOLD", trust(),
        make_root(2, signers=(ROOT,), mldsa={ROOT.keyid: m1}))  # fmt: skip
    add("mldsa-root-2-old-stripped", "Root 1 has pairs; root 2, without them, is signed with ECDSA only.",
        "TRUST_THRESHOLD", parts(good, R1, m1), make_root(2, (R1, R2), signers=(R1, R2)))  # fmt: skip
    add("mldsa-root-2-dropped", "Root 1 has pairs; its pair signs a root 2 without them.", "ok",
        parts(good, R1, m1), make_root(2, (R1, R2), signers=(R1, R2, m1)), versions=[2, 1, 1])  # fmt: skip
    add("mldsa-root-update", "A newer keyring by the pair.", "ok", parts(good, R1, m1),
        resealed(make_keyring(), R1, m1, **following), versions=[1, 2, 1])  # fmt: skip
    add("mldsa-root-update-stripped", "A newer keyring without the ML-DSA signature.", "TRUST_THRESHOLD",
        parts(good, R1, m1), resealed(make_keyring(), R1, **following))  # fmt: skip


def _mldsa_signers(add: Any) -> None:
    """Documents with two signatures by one entry of the keyring."""

    def rings(*schemes: str, **revoked: Any) -> bytes:
        entries = [
            world.key_entry(CREATOR, ["license"], mldsa=CREATOR_MLDSA),
            world.key_entry(LICENSER, ["license"], mldsa=LICENSER_MLDSA, schemes=(ECDSA, *schemes)),
        ]
        return trust(keyring=make_keyring(1, entries), revocations=make_revocations(**revoked))

    required, optional = rings(ML_DSA), rings()
    good = documents.seal("license", {"n": 1}, LICENSER, LICENSER_MLDSA)
    plain = documents.seal("license", {"n": 1}, LICENSER)
    other = documents.seal("license", {"n": 2}, LICENSER_MLDSA)

    def signed(name: str, description: str, code: str, document: Envelope, data: bytes = required) -> None:
        add(
            f"signer-mldsa{name}", description, code, data, document=document, role="license", names=("acme",)
        )

    def second(sig: bytes) -> Envelope:
        ordered = sorted(
            (*plain.signatures, dsse.Signature(LICENSER_MLDSA.keyid, sig)), key=lambda s: s.keyid
        )
        return Envelope(good.payload_type, good.payload, tuple(ordered))

    sig = LICENSER_MLDSA.sign(good.signed_bytes)
    signed("", "Both signatures of one entry.", "ok", good)
    signed("-reversed", "In the other order.", "ok",
           Envelope(good.payload_type, good.payload, good.signatures[::-1]))  # fmt: skip
    signed("-stripped", "The ML-DSA signature is missing.", "SIG_SCHEME", plain)
    signed("-optional", "Not required, and there.", "ok", good, optional)
    signed("-optional-without", "Not required, not there.", "ok", plain, optional)
    signed("-optional-wrong", "Not required, wrong.", "SIG_INVALID", second(_flipped(sig)), optional)
    signed("-wrong", "One bit.", "SIG_INVALID", second(_flipped(sig)))
    signed("-short", "A byte too short.", "SIG_MALFORMED", second(sig[:-1]))
    signed("-long", "A byte too long.", "SIG_MALFORMED", second(sig + b"\0"))
    signed("-other-document", "Of another document.", "SIG_INVALID", second(other.signatures[0].sig))
    signed("-context", "With a context.", "SIG_INVALID",
           second(LICENSER_MLDSA.sign(good.signed_bytes, b"sealpack")))  # fmt: skip
    signed("-other-entry", "ML-DSA by another entry's key.", "DSSE_INVALID",
           documents.seal("license", {"n": 1}, LICENSER, CREATOR_MLDSA))  # fmt: skip
    signed("-stranger", "ML-DSA by a key nobody lists.", "DSSE_INVALID",
           documents.seal("license", {"n": 1}, LICENSER, STRANGER_MLDSA))  # fmt: skip
    signed("-spoofed", "ML-DSA by a stranger under the listed keyid.", "SIG_INVALID",
           second(STRANGER_MLDSA.sign(good.signed_bytes)))  # fmt: skip
    signed(
        "-only", "No ECDSA signature.", "DSSE_INVALID", documents.seal("license", {"n": 1}, LICENSER_MLDSA)
    )
    thrice = (*good.signatures, dsse.Signature(LICENSER_MLDSA.keyid, sig))
    signed("-twice", "Two ML-DSA signatures.", "DSSE_INVALID",
           Envelope(good.payload_type, good.payload, thrice))  # fmt: skip
    signed("-two-entries", "Two entries sign with both keys.", "DSSE_INVALID",
           documents.seal("license", {"n": 1}, LICENSER, LICENSER_MLDSA, CREATOR, CREATOR_MLDSA))  # fmt: skip
    signed("-unexpected", "The keyring has no ML-DSA key for it.", "DSSE_INVALID", good, trust())
    revoked = {"keyid": LICENSER_MLDSA.keyid, "good": []}
    signed("-revoked", "The ML-DSA key was revoked.", "KEY_REVOKED", good, rings(ML_DSA, keys=[revoked]))
    signed("-revoked-good", "It was revoked, this document stays good.", "ok", good,
           rings(ML_DSA, keys=[revoked | {"good": [good.digest]}]))  # fmt: skip


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
