"""Faults between files that are each well formed: manifest, resources, content, SBOM, terms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from support import world
from support.rawzip import Raw, build
from support.world import CREATOR, BundleSpec

from corpus.base import (
    MEMBERS,
    SIG,
    SPEC,
    Add,
    entry,
    flip,
    packed,
    remade,
    resigned,
    restated,
    stale_digest,
    terms_for,
)
from sealpack.format import canonical
from sealpack.format.chunks import digest_blocks
from sealpack.format.container import MIMETYPE


def cases(add: Add) -> None:
    """The whole group."""
    add("good", "A bundle of one GGUF model.", "ok", packed())
    add("good-key", "The same, with nothing but the creator's key.", "ok", packed(), key=CREATOR.public.pem)
    _consistency(add)
    _manifest(add)
    _content(add)
    _chunks(add)
    _encrypted(add)
    _terms(add)


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
    changed = flip(MEMBERS[name])
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
        resigned({name: changed, "sbom.cdx.json": world.sbom_for(whole)}),
    )
    leaf = {"sha256": hashlib.sha256(table).hexdigest()}
    add(
        "leaf-right-whole-wrong",
        "The leaves are right, the whole-file digest is not.",
        "DIGEST_MISMATCH",
        stale_digest(changed, table, leaf),
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
        resigned({table_name: b""}, {name: {"sha256": hashlib.sha256(b"").hexdigest()}}),
    )
    sbom = json.loads(MEMBERS["sbom.cdx.json"])
    sbom["components"][0]["hashes"][0]["content"] = "0" * 64
    data = json.dumps(sbom).encode()
    add(
        "sbom-other-model",
        "The SBOM names another model digest.",
        "SBOM_INVALID",
        resigned({"sbom.cdx.json": data}),
    )
    terms = {"license/terms.json": ("license-terms", "application/json", terms_for("0" * 64)),
             "license/LICENSE": ("license-text", "text/plain", b"text")}  # fmt: skip
    add(
        "terms-other-text",
        "The terms name another text.",
        "TERMS_MISMATCH",
        BundleSpec(model=SPEC.model, extra=terms).build(),
    )
    terms["license/terms.json"] = (
        *terms["license/terms.json"][:2],
        terms_for(hashlib.sha256(b"text").hexdigest()),
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


def _manifest(add: Add) -> None:
    """Members of a rightly signed manifest that no reader may take."""

    def bad(name: str, description: str, change: Callable[[dict[str, Any]], Any], code: str = "") -> None:
        add(f"manifest-{name}", description, code or "MANIFEST_INVALID", restated(remade(change)),
            check="manifest")  # fmt: skip

    model = "payload/model.gguf"

    def file(name: str, /, **members: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda v: entry(v, name).update(members)

    bad("file-twice", "A file is listed twice.", lambda v: v["files"].insert(0, v["files"][0]))
    bad("files-unsorted", "Files in another order.", lambda v: v["files"].reverse())
    bad("files-none", "No files.", lambda v: v.update(files=[]))
    bad("file-traversal", "A file that is a path out.", file("card.md", name="../card.md"), "CONTAINER_NAME")
    bad("file-absolute", "A file with an absolute path.", file("card.md", name="/card.md"), "CONTAINER_NAME")
    bad("file-in-meta", "A file in META.", file("card.md", name="META/card.md"), "SIG_RESOURCES")
    bad("model-none", "No model.", file(model, role="asset"))
    bad("model-two", "Two models.", file("card.md", role="model"))
    bad("role-unknown", "A file of a role nobody knows.", file("card.md", role="startup-script"))
    bad("size-negative", "A size below zero.", file("card.md", size=-1))
    bad("size-text", "A size that is a text.", file("card.md", size="7"))
    bad(
        "media-type",
        "A media type that breaks a line.",
        file("card.md", media_type="text/x\r\nSet-Cookie: a"),
    )
    bad("kind-unknown", "A kind nobody knows.", lambda v: v.update(kind="pickle"))
    bad("tier-unknown", "A quality tier nobody knows.", lambda v: v.update(quality_tier="Certified"))
    bad("version-text", "A version that is no version.", lambda v: v.update(version="latest"))
    bad("release-zero", "Release 0.", lambda v: v.update(release_index=0))
    bad("id-traversal", "A bundle id that is a path out.", lambda v: v.update(bundle_id="acme/../x"))
    bad("name-long", "A name of 5,000 characters.", lambda v: v.update(name="x" * 5000))
    bad("vocabulary-outside", "A vocabulary that is no file of the bundle.", lambda v: v.update(
        io={"task": "embedding", "pre": {"kind": "wordpiece", "vocab": "/etc/passwd"}}))  # fmt: skip
    bad("pre-unknown", "Pre-processing that would run code.", lambda v: v.update(
        io={"task": "embedding", "pre": {"kind": "python", "code": "import os"}}))  # fmt: skip
    bad("chunk-size", "Chunks of 2 MiB.", lambda v: entry(v, model)["chunks"].update(chunk_size=2 << 20))
    bad("chunk-count", "Two leaves for one chunk.", lambda v: entry(v, model)["chunks"].update(count=2))
    bad("chunk-count-huge", "2^52 leaves.", lambda v: entry(v, model)["chunks"].update(count=1 << 52))
    bad("chunks-none", "A model without chunk table.", lambda v: entry(v, model).pop("chunks"))
    bad("chunks-elsewhere", "A card with a chunk table.", lambda v: entry(v, "card.md").update(
        chunks=entry(v, model)["chunks"]))  # fmt: skip
    bad("table-other", "The table's name is that of the card.", lambda v: entry(v, model)["chunks"].update(
        table="card.md"))  # fmt: skip
    bad("table-role", "The table is not listed as one.", file("chunks/0.sha256c", role="asset"))
    bad("watermark-no-crit", "A mark that readers may overlook.", lambda v: v.update(watermark={
        "scheme": "x", "params_sha256": "0" * 64, "commitment": "0" * 64, "license_id": "L-1"}))  # fmt: skip
    bad("crit-absent", "encryption in crit, but there is none.", lambda v: v.update(crit=["encryption"]))


def _big() -> bytes:
    """A GGUF of 2 MiB, nearly all zeros, whose chunks all differ."""
    model = bytearray(world.tiny_gguf((2 << 20) // 4 - 64))
    head = len(model) - (2 << 20) + 256
    model[head:] = bytes(len(model) - head)
    model += bytes(-len(model) % (1 << 20))
    for chunk in range(1, len(model) >> 20):
        model[chunk << 20] = chunk
    return bytes(model)


BIG = BundleSpec(model=_big())


def _chunks(add: Add) -> None:
    """A model of several chunks, and its table."""
    members, name, table_name = BIG.members(), "payload/model.gguf", "chunks/0.sha256c"
    sig, model, table, size = BIG.sign(members), BIG.model, members[table_name], 1 << 20

    def bad(case: str, description: str, code: str, changed: dict[str, bytes]) -> None:
        add(f"chunks-{case}", description, code, packed(members | changed, sig))

    bad("reordered", "Two chunks change places.", "CHUNK_MISMATCH",
        {name: model[size : 2 * size] + model[:size] + model[2 * size :]})  # fmt: skip
    bad("repeated", "One chunk stands in another's place.", "CHUNK_MISMATCH",
        {name: model[:size] * 2 + model[2 * size :]})  # fmt: skip
    bad("spliced", "A chunk of another build.", "CHUNK_MISMATCH",
        {name: model[:size] + bytes(size) + model[2 * size :]})  # fmt: skip
    bad("truncated", "The last chunk is missing.", "MANIFEST_MISMATCH", {name: model[:-size]})
    bad("appended", "A chunk more.", "MANIFEST_MISMATCH", {name: model + bytes(size)})
    bad("last-byte", "The last byte of the last chunk.", "CHUNK_MISMATCH", {name: flip(model)})
    bad("table-reordered", "Two leaves change places.", "DIGEST_MISMATCH",
        {table_name: table[32:64] + table[:32] + table[64:]})  # fmt: skip
    bad("table-emptied", "The table is empty.", "MANIFEST_MISMATCH", {table_name: b""})
    bad("table-longer", "A leaf more.", "MANIFEST_MISMATCH", {table_name: table + bytes(32)})


def _ciphertext(salt: bytes, commitment: bytes, plain_size: int = 100) -> bytes:
    """A stored file as an encrypted one looks; verification needs no key, so none was used."""
    return salt + commitment + bytes(plain_size + 16 * (plain_size // 16384 + 1))


SALT, COMMITMENT = b"s" * 24, b"c" * 32
SEALED = BundleSpec(model=_ciphertext(SALT, COMMITMENT))


def _sealed(
    change: Callable[[dict[str, Any]], Any] = lambda _: None, crit: bool = True, **more: Any
) -> bytes:
    """A bundle whose manifest says it is encrypted; `change` sees the manifest."""
    members = (BundleSpec(model=SEALED.model, **more) if more else SEALED).members()
    value = json.loads(members["manifest.json"])
    value["encryption"] = {
        "scheme": "c2sp.org/chunked-encryption@v1", "aead": "AEAD_AES_256_GCM", "chunk_size": 16384,
        "files": [{"name": "payload/model.gguf", "plain_size": 100, "salt": SALT.hex(),
                   "commitment": COMMITMENT.hex()}],
    }  # fmt: skip
    value["crit"] = ["encryption"]
    change(value)
    return restated(members | {"manifest.json": canonical.dumps(value)})


def _encrypted(add: Add) -> None:
    def bad(name: str, description: str, change: Callable[[dict[str, Any]], Any], code: str = "") -> None:
        add(f"encrypted-{name}", description, code or "MANIFEST_INVALID", _sealed(change))

    def head(**members: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda v: v["encryption"].update(members)

    def file(**members: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda v: v["encryption"]["files"][0].update(members)

    def stripped(value: dict[str, Any]) -> None:
        del value["encryption"], value["crit"]

    add("encrypted", "An encrypted model is verified without a key.", "ok", _sealed())
    bad("stripped", "The flag is taken away: noise would be run.", stripped, "MANIFEST_MISMATCH")
    bad("crit-stripped", "The flag is not critical: an old reader would run noise.", lambda v: v.pop("crit"))
    bad("commitment", "The manifest commits to another key than the file.", file(commitment="0" * 64),
        "MANIFEST_MISMATCH")  # fmt: skip
    bad("salt", "The manifest states another salt than the file.", file(salt="0" * 48), "MANIFEST_MISMATCH")
    bad("size", "Another plain size.", file(plain_size=101))
    bad("size-huge", "A plain size of 2^53 - 1.", file(plain_size=2**53 - 1))
    bad("other-file", "A file that is not there.", file(name="payload/other.gguf"))
    bad("outside-payload", "The card is encrypted.", file(name="card.md"))
    bad("none", "No file is encrypted.", head(files=[]))
    bad("scheme", "Another scheme.", head(scheme="rot13"))
    bad("aead", "Another cipher.", head(aead="AEAD_NULL"))
    bad("chunk-size", "Chunks of 1 byte.", head(chunk_size=1))
    bad("key-inside", "The key stands in the manifest.", head(key="0" * 64))
    extra = {"payload/w.bin": ("model-data", "application/octet-stream", bytes(8))}
    add("encrypted-half", "Some weights are plain.", "MANIFEST_INVALID", _sealed(extra=extra))
    members = SEALED.members()
    good = _sealed()
    swapped = flip(SEALED.model)
    at = good.rindex(SEALED.model)
    changed = good[:at] + swapped + good[at + len(swapped) :]
    add("encrypted-tampered", "A bit of the ciphertext.", "CHUNK_MISMATCH", changed)
    assert members["payload/model.gguf"] == SEALED.model


def _terms(add: Add) -> None:
    text = ("license-text", "text/plain", b"text")
    good = json.loads(terms_for(hashlib.sha256(b"text").hexdigest()))

    def bad(
        name: str,
        description: str,
        terms: dict[str, Any],
        code: str = "TERMS_MISMATCH",
        at: str = "license/terms.json",
    ) -> None:
        data = ("license-terms", "application/json", canonical.dumps(terms))
        spec = BundleSpec(model=SPEC.model, extra={at: data, "license/LICENSE": text})
        add(f"terms-{name}", description, code, spec.build())

    bad("elsewhere", "Terms under another name.", good, at="license/other.json")
    bad("text-traversal", "A text out of the bundle.", good | {"text": "../LICENSE"}, "DOC_SCHEMA")
    bad("text-manifest", "The card stands in for the text.", good | {"text": "card.md"}, "DOC_SCHEMA")
    bad("plan", "A plan the manifest does not name.", good | {"plan": {"id": "p", "version": 1}})
    bad("schema", "Terms of another version.", good | {"schema": "sealpack/terms/v9"}, "DOC_SCHEMA")
    two = {name: ("sbom", "application/json", MEMBERS["sbom.cdx.json"]) for name in ("a.json",)}
    add("sbom-two", "Two SBOMs.", "SBOM_INVALID", BundleSpec(model=SPEC.model, extra=two).build())
    none = resigned_roles("sbom.cdx.json", "asset")
    add("sbom-none", "No SBOM.", "SBOM_INVALID", none)


def resigned_roles(name: str, role: str) -> bytes:
    """A file under another role."""
    return restated(remade(lambda v: entry(v, name).update(role=role)))
