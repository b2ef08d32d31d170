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
from support import world
from support.vectors import Cases
from support.world import CREATOR, LICENSER, ROOT, STRANGER, T0, make_keyring, make_revocations, make_root

from sealpack.format import canonical, documents, dsse
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey

R1, R2, R3 = (PrivateKey.from_scalar(0x2000 + n) for n in (1, 2, 3))
ED = PrivateKey.from_seed(b"sealpack-test-vector-ed25519-001")


def resealed(envelope: Envelope, *keys: PrivateKey, **members: Any) -> Envelope:
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
    _signers(add)
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


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
