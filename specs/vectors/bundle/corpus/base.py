"""The good bundle that the corpus damages, and the ways to damage and to sign it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from support import world
from support.world import CREATOR, T0, BundleSpec, make_keyring, make_root

from sealpack.format import canonical, dsse, statement
from sealpack.format.container import MIMETYPE
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust

SPEC = BundleSpec(model=world.tiny_gguf(8))
MEMBERS = SPEC.members()
SIG = SPEC.sign(MEMBERS)
STATEMENT: dict[str, Any] = json.loads(statement.read_signature(SIG).payload)
ROOT_2 = PrivateKey.from_scalar(0x1011)
ED = PrivateKey.from_seed(b"sealpack-test-vector-ed25519-001")
LICENSE: dict[str, Any] = {
    "license_id": "L-1", "seq": 1, "issued_at": T0, "issuer": world.ISSUER,
    "tier": "pro", "billing": "one_time",
    "customer": {"id": "c-1", "name": "Customer"}, "bundles": [{"id": "acme"}, {"id": "acme/tiny"}],
    "use": {"terms_digest": "0" * 64}, "devices": {"binding": "none"},
}  # fmt: skip
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


def trust_of(*entries: dict[str, Any], version: int = 1, **revoked: Any) -> Trust:
    keys = list(entries) or None
    return Trust.from_envelopes(make_root(), make_keyring(version, keys), world.make_revocations(**revoked))


def with_signature(envelope: dsse.Envelope, keyid: str, sig: bytes) -> dsse.Envelope:
    return dsse.Envelope(envelope.payload_type, envelope.payload, (dsse.Signature(keyid, sig),))


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def resigned(changed: dict[str, bytes], chunks: dict[str, dict[str, Any]] | None = None) -> bytes:
    """Changed files whose size and digest the manifest and the statement state rightly."""

    def restate(value: dict[str, Any]) -> None:
        for name, data in changed.items():
            entry(value, name).update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, members in (chunks or {}).items():
            entry(value, name)["chunks"].update(members)

    return restated(remade(restate, **changed))


def stale_digest(model: bytes, table: bytes, leaf: dict[str, Any]) -> bytes:
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


def terms_for(digest: str) -> bytes:
    return canonical.dumps({"schema": "sealpack/terms/v1", "spdx": "MIT", "text": "license/LICENSE",
                            "text_sha256": digest})  # fmt: skip
