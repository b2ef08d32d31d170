"""A small world with fixed keys: one vendor, its trust, and bundles made from bytes.

The keys are test keys, derived from fixed numbers; they protect nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import documents, statement
from sealpack.format.chunks import CHUNK_SIZE, digest_blocks
from sealpack.format.container import MIMETYPE, Member, write_bundle
from sealpack.format.keys import ECDSA, ML_DSA, PrivateKey, Signer
from sealpack.format.manifest import ChunkRef, FileEntry, Manifest
from sealpack.format.trust import Trust

T0 = 1_790_000_000  # 2026-09-21
ISSUER = "Acme Models (test)"

ROOT = PrivateKey.from_scalar(0x1001)
CREATOR = PrivateKey.from_scalar(0x1002)
LICENSER = PrivateKey.from_scalar(0x1003)
SETTLEMENT = PrivateKey.from_seed(b"sealpack-test-settlement-key-001")
STRANGER = PrivateKey.from_scalar(0x1099)


def key_entry(
    key: PrivateKey,
    roles: list[str],
    namespaces: list[str] | None = None,
    mldsa: Signer | None = None,
    schemes: tuple[str, ...] = (ECDSA, ML_DSA),
) -> dict[str, Any]:
    """A keyring member; with `mldsa` that key signs beside it, as `schemes` require."""
    second = {} if mldsa is None else {"mldsa_pem": mldsa.public.pem, "schemes": list(schemes)}
    return second | {
        "keyid": key.keyid,
        "pem": key.public.pem,
        "scheme": key.scheme,
        "issuer": ISSUER,
        "roles": roles,
        "namespaces": namespaces or ["acme"],
        "status": "active",
    }


def make_root(
    version: int = 1,
    keys: tuple[PrivateKey, ...] = (ROOT,),
    threshold: int = 1,
    signers: tuple[Signer, ...] | None = None,
    mldsa: dict[str, Signer] | None = None,
) -> documents.Envelope:
    """A root whose every role has the same keys and threshold; `mldsa`: keyid -> the key beside it."""
    beside = mldsa or {}
    role = {"threshold": threshold, "keyids": [k.keyid for k in keys]}
    payload = {
        "version": version,
        "keys": [
            {"pem": k.public.pem, "mldsa_pem": beside[k.keyid].public.pem}
            if k.keyid in beside
            else k.public.pem
            for k in keys
        ],
        **({"crit": [ML_DSA]} if beside else {}),
        "roles": {"root": role, "keyring": role, "revocations": role},
    }
    return documents.seal("root", payload, *(signers or (*keys, *beside.values())))


def make_keyring(version: int = 1, entries: list[dict[str, Any]] | None = None) -> documents.Envelope:
    """The keyring of the vendor."""
    default = [
        key_entry(CREATOR, ["bundle"]),
        key_entry(LICENSER, ["license"]),
        key_entry(SETTLEMENT, ["settlement", "ack", "witness"]),
    ]
    keys = entries or default
    crit = {"crit": [ML_DSA]} if any("mldsa_pem" in entry for entry in keys) else {}
    payload = {"version": version, "issued_at": T0, "keys": keys} | crit
    return documents.seal("keyring", payload, ROOT)


def make_revocations(version: int = 1, **members: Any) -> documents.Envelope:
    """A revocation list, empty unless told."""
    payload = {
        "version": version,
        "issued_at": T0,
        "keys": [],
        "bundles": [],
        "licenses": [],
        "devices": [],
        "floors": [],
    } | members
    return documents.seal("revocations", payload, ROOT)


def make_trust(**revoked: Any) -> Trust:
    """The vendor's trust."""
    return Trust.from_envelopes(make_root(), make_keyring(), make_revocations(**revoked))


def tiny_gguf(values: int = 1024) -> bytes:
    """A well-formed GGUF with one F32 tensor of `values` numbers; no engine would run it."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, values, 0, 0)
    return head + bytes(-len(head) % 32) + struct.pack(f"<{values}f", *range(values))


def sbom_for(model_sha256: str) -> bytes:
    """The least SBOM the verifier takes."""
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "components": [
                {
                    "type": "machine-learning-model",
                    "name": "m",
                    "bom-ref": "model",
                    "hashes": [{"alg": "SHA-256", "content": model_sha256}],
                }
            ],
        }
    ).encode()


@dataclass
class BundleSpec:
    """Everything a test bundle is made of; change a field to make a faulty one."""

    bundle_id: str = "acme/tiny"
    version: str = "1.0.0"
    release_index: int = 1
    kind: str = "gguf"
    model_name: str = "payload/model.gguf"
    model: bytes = field(default_factory=tiny_gguf)
    extra: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)  # name -> role, media, bytes
    meta: dict[str, bytes] = field(default_factory=dict)
    io: dict[str, Any] = field(default_factory=lambda: {"task": "text-generation"})
    engine: dict[str, Any] = field(default_factory=lambda: {"name": "llama.cpp"})
    key: PrivateKey = CREATOR
    mldsa_key: Signer | None = None
    statement: dict[str, Any] = field(default_factory=dict)
    requires_features: tuple[str, ...] | None = None

    def members(self) -> dict[str, bytes]:
        """Every entry outside META but mimetype, with its bytes."""
        model_sha = hashlib.sha256(self.model).hexdigest()
        files: dict[str, tuple[str, str, bytes]] = {
            self.model_name: ("model", "application/octet-stream", self.model),
            "sbom.cdx.json": ("sbom", "application/vnd.cyclonedx+json", sbom_for(model_sha)),
            "card.md": ("card", "text/markdown", b"# Tiny\n"),
            **self.extra,
        }
        entries, number = [], 0
        for name in sorted(files):
            role, media, data = files[name]
            chunks = None
            if name.startswith("payload/"):
                blocks = [data[i : i + CHUNK_SIZE] for i in range(0, len(data), CHUNK_SIZE)]
                table = digest_blocks(blocks).table
                table_name = f"chunks/{number}.sha256c"
                number += 1
                files[table_name] = ("chunk-table", "application/octet-stream", table)
                chunks = ChunkRef(table_name, CHUNK_SIZE, len(table) // 32, hashlib.sha256(table).hexdigest())
            entries.append(_entry(name, role, media, data, chunks))
        for name in sorted(n for n in files if n.startswith("chunks/")):
            entries.append(_entry(name, *files[name], None))
        manifest = Manifest(
            self.bundle_id,
            self.version,
            self.release_index,
            self.kind,
            "Tiny",
            "Experimental",
            tuple(sorted(entries, key=lambda e: e.name)),
            self.engine,
            self.io,
            requires_features=self.requires_features,
        )
        return {"manifest.json": manifest.to_bytes()} | {n: v[2] for n, v in files.items()}

    def sign(self, members: dict[str, bytes]) -> bytes:
        """META/model.sig over the members and mimetype."""
        resources = {n: hashlib.sha256(d).hexdigest() for n, d in {"mimetype": MIMETYPE, **members}.items()}
        said: dict[str, Any] = {
            "bundle_id": self.bundle_id,
            "release_index": self.release_index,
            "manifest_sha256": resources["manifest.json"],
            "signed_at": T0,
            **({"required_schemes": (ECDSA, ML_DSA)} if self.mldsa_key else {}),
        } | self.statement
        return statement.sign(statement.Statement(resources, **said), self.key)

    def build(self) -> bytes:
        """The bundle's bytes."""
        members = self.members()
        signature = self.sign(members)
        signed = {"META/model.sig": signature}
        if self.mldsa_key is not None:
            signed["META/model.mldsa65.sig"] = statement.sign_mldsa(signature, self.mldsa_key)
        return pack({"mimetype": MIMETYPE, **signed, **self.meta, **members})


def _entry(name: str, role: str, media: str, data: bytes, chunks: ChunkRef | None) -> FileEntry:
    return FileEntry(name, role, media, len(data), hashlib.sha256(data).hexdigest(), chunks)


def pack(entries: dict[str, bytes]) -> bytes:
    """Entries as a canonical container."""
    out = io.BytesIO()
    write_bundle(out, [Member.of_bytes(name, data) for name, data in entries.items()])
    return out.getvalue()
