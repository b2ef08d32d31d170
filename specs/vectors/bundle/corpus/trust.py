"""Faults of trust: who signed, what was withdrawn, and what rides along in META."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support import world
from support.world import CREATOR, LICENSER, ROOT, STRANGER, make_keyring, make_root

from corpus.base import LICENSE, MEMBERS, ROOT_2, SIG, STATEMENT, Add, packed, restated, said, trust_of
from sealpack.format import canonical, documents, dsse, statement
from sealpack.format.keys import PrivateKey
from sealpack.format.manifest import Manifest
from sealpack.format.trust import Trust


def cases(add: Add) -> None:
    """The whole group."""
    trust = world.make_trust()
    carried = {"trust__root.1.json": trust.root.envelope.to_bytes(),
               "trust__keyring.json": trust.keyring.envelope.to_bytes(),
               "trust__revocations.json": trust.revocations.envelope.to_bytes()}  # fmt: skip
    add("good-carried", "Trust documents ride along.", "ok", packed(**carried))
    _policy(add)
    _meta(add)
    _roots(add)
    _lists(add)
    _licenses(add)


def _policy(add: Add) -> None:
    creator, licenser = world.key_entry(CREATOR, ["bundle"]), world.key_entry(LICENSER, ["license"])
    add(
        "namespace",
        "The key may sign for other names only.",
        "SIG_NAMESPACE",
        packed(),
        trust_of(dict(creator, namespaces=["other", "acme/tin"]), licenser),
    )
    add(
        "namespace-exact",
        "A namespace may be the whole id.",
        "ok",
        packed(),
        trust_of(dict(creator, namespaces=["acme/tiny"]), licenser),
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


def _roots(add: Add) -> None:
    """Roots that ride along."""

    def bad(name: str, description: str, code: str, trust: Trust | None = None, **meta: bytes) -> None:
        add(f"root-{name}", description, code, packed(**meta), trust, check="trust")

    def two(*signers: PrivateKey, keys: tuple[PrivateKey, ...] = (ROOT_2,), **more: Any) -> bytes:
        return make_root(2, keys, signers=signers, **more).to_bytes()

    bad("old-keys-only", "Root 2 has other keys, which did not sign it.", "TRUST_THRESHOLD",
        trust__root_2_json=two(ROOT))  # fmt: skip
    bad("new-keys-only", "Root 2 is signed by its own keys only.", "TRUST_THRESHOLD",
        trust__root_2_json=two(ROOT_2))  # fmt: skip
    bad("stranger", "Root 2 of a stranger.", "TRUST_THRESHOLD",
        trust__root_2_json=two(STRANGER, keys=(STRANGER,)))  # fmt: skip
    one = make_root(2, (ROOT, ROOT_2), 2, (ROOT,))
    doubled = dsse.Envelope(one.payload_type, one.payload, one.signatures * 2)
    bad("one-key-twice", "One key signs twice, two are needed.", "TRUST_THRESHOLD",
        trust__root_2_json=doubled.to_bytes())  # fmt: skip
    alias = dsse.Envelope(one.payload_type, one.payload, (
        one.signatures[0], dsse.Signature(ROOT_2.keyid, one.signatures[0].sig)))  # fmt: skip
    bad("one-key-two-names", "One signature under two keyids.", "TRUST_THRESHOLD",
        trust__root_2_json=alias.to_bytes())  # fmt: skip
    bad("conflict", "Root 1 with other content.", "TRUST_CONFLICT",
        trust__root_1_json=make_root(1, (ROOT, ROOT_2), signers=(ROOT,)).to_bytes())  # fmt: skip
    changes: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
        "threshold-zero": ("No signature is needed.", lambda v: v["roles"]["root"].update(threshold=0)),
        "threshold-two": ("More signatures are needed than there are keys.",
                          lambda v: v["roles"]["root"].update(threshold=2)),
        "no-role": ("A role is missing.", lambda v: v["roles"].pop("revocations")),
        "key-unlisted": ("A role names a key that is not listed.",
                         lambda v: v["roles"]["keyring"].update(keyids=["0" * 64])),
        "key-twice": ("A key is listed twice.", lambda v: v["keys"].append(v["keys"][0])),
        "keyid-twice": ("A role names a key twice.", lambda v: v["roles"]["root"].update(
            keyids=v["roles"]["root"]["keyids"] * 2)),
        "pem-spelling": ("A key in another PEM spelling.",
                         lambda v: v.update(keys=[v["keys"][0].replace("\n", "\r\n")])),
        "pem-junk": ("A key that is none.", lambda v: v.update(keys=["key"])),
    }  # fmt: skip
    for name, (description, change) in changes.items():
        value = json.loads(make_root(2, (ROOT,)).payload)
        change(value)
        data = dsse.sign("application/vnd.sealpack.root+json", canonical.dumps(value), ROOT).to_bytes()
        code = "KEY_MALFORMED" if name.startswith("pem") else "TRUST_INVALID"
        bad(name, description, code, trust__root_2_json=data)


def _lists(add: Add) -> None:
    """Keyrings and revocations that ride along."""

    def bad(name: str, description: str, code: str, trust: Trust | None = None, **meta: bytes) -> None:
        add(f"carried-{name}", description, code, packed(**meta), trust, check="trust")

    forged = documents.seal("keyring", json.loads(make_keyring(2).payload), STRANGER).to_bytes()
    bad("keyring-forged", "A stranger's keyring.", "TRUST_THRESHOLD", trust__keyring_json=forged)
    own = documents.seal("keyring", json.loads(make_keyring(2).payload), CREATOR).to_bytes()
    bad("keyring-own", "The creator signs a keyring.", "TRUST_THRESHOLD", trust__keyring_json=own)
    added = make_keyring(1, [world.key_entry(CREATOR, ["bundle"])]).to_bytes()
    bad("keyring-conflict", "A keyring of the same version, other keys.", "TRUST_CONFLICT",
        trust__keyring_json=added)  # fmt: skip
    unsigned = json.loads(make_keyring(2).to_bytes())
    unsigned["signatures"] = []
    bad("keyring-unsigned", "A keyring nobody signed.", "DSSE_INVALID",
        trust__keyring_json=canonical.dumps(unsigned))  # fmt: skip
    signed = make_keyring(2)
    payload = signed.payload.replace(b"Acme", b"Acne")
    changed = dsse.Envelope(signed.payload_type, payload, signed.signatures).to_bytes()
    bad("keyring-changed", "A letter of a signed keyring.", "TRUST_THRESHOLD",
        trust__keyring_json=changed)  # fmt: skip
    rolled = trust_of(version=3)
    add("carried-keyring-old", "An older keyring: left aside.", "ok",
        packed(trust__keyring_json=make_keyring(2).to_bytes()), rolled)  # fmt: skip
    gone = make_keyring(2, [world.key_entry(LICENSER, ["license"])]).to_bytes()
    add("carried-keyring-drops", "A newer keyring no longer lists the signer.", "SIG_KEY_UNKNOWN",
        packed(trust__keyring_json=gone))  # fmt: skip
    narrowed = make_keyring(2, [world.key_entry(CREATOR, ["license"])]).to_bytes()
    add("carried-keyring-role", "A newer keyring takes the signer's role away.", "SIG_KEY_ROLE",
        packed(trust__keyring_json=narrowed))  # fmt: skip
    revoked = world.make_revocations(2, keys=[{"keyid": CREATOR.keyid, "good": []}]).to_bytes()
    add("carried-key-revoked", "Newer revocations withdraw the signer's key.", "KEY_REVOKED",
        packed(trust__revocations_json=revoked))  # fmt: skip
    floor = world.make_revocations(2, floors=[{"bundle_id": "acme/tiny", "floor": 2}]).to_bytes()
    add("carried-floor", "Newer revocations raise the floor.", "BUNDLE_FLOOR",
        packed(trust__revocations_json=floor))  # fmt: skip
    back = restated(MEMBERS, signed_at=1)
    add("back-dated", "A revoked key signs under an old date.", "KEY_REVOKED", back,
        world.make_trust(keys=[{"keyid": CREATOR.keyid, "good": []}]))  # fmt: skip
    retired = dict(world.key_entry(CREATOR, ["bundle"]), status="retired")
    add(
        "key-retired",
        "The signer's key is retired: old bundles stay good.",
        "ok",
        packed(),
        trust_of(retired),
    )
    entries = [world.key_entry(STRANGER, ["bundle"], ["other"]), world.key_entry(CREATOR, ["bundle"])]
    add("namespace-other-issuer", "Another issuer's key signs for this name.", "SIG_NAMESPACE",
        packed(sig=said(STATEMENT, STRANGER)), trust_of(*entries))  # fmt: skip
    prefix = world.key_entry(CREATOR, ["bundle"], ["acme/ti"])
    add("namespace-prefix", "A namespace that is only the first letters.", "SIG_NAMESPACE", packed(),
        trust_of(prefix))  # fmt: skip
    settle = packed(sig=said(STATEMENT, LICENSER))
    for role in ("settlement", "ack", "witness"):
        add(f"role-{role}", f"A key of role {role} signs a bundle.", "SIG_KEY_ROLE", settle,
            trust_of(world.key_entry(LICENSER, [role])))  # fmt: skip
    junk = world.make_revocations(2).to_bytes()
    add("carried-keyring-as-root", "A keyring under the name of a root.", "CONTAINER_META",
        packed(trust__root_2_json=make_keyring(2).to_bytes()))  # fmt: skip
    add("carried-license-as-keyring", "A license under the name of a keyring.", "CONTAINER_META",
        packed(trust__keyring_json=documents.seal("license", LICENSE, LICENSER).to_bytes()))  # fmt: skip
    add("carried-other-tool", "A document of another tool under the name of a keyring.", "CONTAINER_META",
        packed(trust__keyring_json=dsse.sign("application/json", b"{}", ROOT).to_bytes()))  # fmt: skip
    add("carried-revocations-as-license", "Revocations under the name of a license.", "DOC_TYPE",
        packed(license__L_1_json=junk))  # fmt: skip


def _licenses(add: Add) -> None:
    """Licenses that ride along."""

    def bad(name: str, description: str, code: str, key: PrivateKey = LICENSER, trust: Trust | None = None,
            **members: Any) -> None:  # fmt: skip
        license = documents.seal("license", LICENSE | members, key).to_bytes()
        add(f"license-{name}", description, code, packed(license__L_1_json=license), trust, check="licenses")

    bad("creator", "The bundle's key signs a license.", "LIC_KEY_UNTRUSTED", CREATOR)
    bad("revoked", "A license that was revoked.", "LIC_REVOKED", trust=world.make_trust(licenses=["L-1"]))
    elsewhere = [world.key_entry(CREATOR, ["bundle"]), world.key_entry(LICENSER, ["license"], ["other"])]
    bad("other-issuer", "Another issuer's license key.", "LIC_KEY_UNTRUSTED", trust=trust_of(*elsewhere))
    bad("id-traversal", "A license id that is a path.", "LIC_SCHEMA", license_id="../L-1")
    bad("id-other", "A license with another id than its file.", "CONTAINER_META", license_id="L-2")
    bad("seq-zero", "Sequence number 0.", "LIC_SCHEMA", seq=0)
    bad("tier-number", "The tier is a number.", "LIC_SCHEMA", tier=7)
    bad("no-bundles", "A license for nothing.", "CONTAINER_META", bundles=[])
    bad("digest-other", "A license for another build.", "CONTAINER_META",
        bundles=[{"id": "acme/tiny", "bundle_digest": "0" * 64}])  # fmt: skip
    bad("binding-unknown", "A binding nobody knows.", "LIC_SCHEMA", devices={"binding": "honour"})
    bad("crit", "A condition this version does not know.", "DOC_CRIT", crit=["moon"])
    kind = "application/vnd.sealpack.license+json"
    good = documents.seal("license", LICENSE, LICENSER)
    changed = dsse.Envelope(kind, good.payload.replace(b'"pro"', b'"max"'), good.signatures)
    add("license-changed", "A word of a signed license.", "LIC_SIG_INVALID",
        packed(license__L_1_json=changed.to_bytes()), check="licenses")  # fmt: skip
    spoofed = dsse.Envelope(kind, good.payload, (
        dsse.Signature(LICENSER.keyid, STRANGER.sign(good.signed_bytes)),))  # fmt: skip
    add("license-spoofed", "A stranger signs under the license key's keyid.", "LIC_SIG_INVALID",
        packed(license__L_1_json=spoofed.to_bytes()), check="licenses")  # fmt: skip
