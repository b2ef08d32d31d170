"""Evidence for tests: an assessor's key, a trust that lists it, documents, and bundles that carry them."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from sealpack.format import canonical, documents
from sealpack.format.container import MIMETYPE
from sealpack.format.dsse import Envelope
from sealpack.format.evidence import io_digest
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust
from sealpack.verifier import tiers
from support import world
from support.world import BundleSpec, key_entry, pack

ASSESSOR = PrivateKey.from_scalar(0x1004)
ASSESSOR_NAME = "Institute for Model Testing (test)"
DAY = 86_400
NAME = "evidence/test.json"
SAMPLE = {"input": {"prompt": "a", "max_tokens": 1}, "expect": {"text": "b"}}
IO: dict[str, Any] = {"task": "text-generation", "samples": [SAMPLE] * 3}
PUBLISHED = tiers.published()[-1].sha256
MET = [{"metric": "bits_per_token", "max": "4"}]
GONE = object()


def keyring(**creator: Any) -> Envelope:
    """The vendor's keyring: the creator may sign evidence too, the assessor is an issuer of its own."""
    entries = [
        key_entry(world.CREATOR, ["bundle", "evidence"]) | creator,
        key_entry(world.LICENSER, ["license"]),
        key_entry(ASSESSOR, ["evidence"]) | {"issuer": ASSESSOR_NAME},
    ]
    return world.make_keyring(entries=entries)


def trust(**revoked: Any) -> Trust:
    """The vendor's trust with that keyring."""
    return Trust.from_envelopes(world.make_root(), keyring(), world.make_revocations(**revoked))


def payload(**members: Any) -> dict[str, Any]:
    """What the assessor says of the test bundle; `data__rows=…` changes a member inside, GONE removes it."""
    model = hashlib.sha256(world.tiny_gguf()).hexdigest()
    value: dict[str, Any] = {
        "evaluator": ASSESSOR_NAME,
        "issued_at": world.T0 - DAY,
        "valid_until": world.T0 + 364 * DAY,
        "subject": {
            "kind": "gguf",
            "files": [{"name": "payload/model.gguf", "sha256": model}],
            "io_sha256": io_digest(IO),
            "bundle_id": "acme/tiny",
        },
        "task": "text-generation",
        "data": {"name": "letters", "digest": "12" * 32, "format": "jsonl", "rows": 2000, "fields": ["text"],
                 "license": "CC0-1.0", "source": "https://example.com/letters"},
        "metrics": [
            {"name": "bits_per_token", "value": "3.250000", "n": 4000, "higher_is_better": False,
             "unit": "bit", "baseline": "8.000000"},
            {"name": "exact_match", "value": "0.75", "n": 1250, "higher_is_better": True, "baseline": "0"},
        ],
        "performance": {"calls": 1250, "latency_us": {"p50": 900, "p90": 1200, "p99": 2500},
                        "throughput": "1034.5", "peak_memory_bytes": 1 << 26, "load_us": 12_000},
        "environment": {"engine": "llama.cpp", "engine_version": "0.3.36", "sealpack": "0.3.0",
                        "os": "Linux 6.1", "arch": "x86_64", "threads": 1, "cpu": "Test CPU", "cores": 4},
        "method": {"evaluated": 1250, "seed": 7, "batch": 1, "warmup": 1, "metered": False, "context": 256},
        "samples": {"passed": 3, "total": 3},
        "notes": "made for tests",
    }  # fmt: skip
    for name, member in members.items():
        value = changed(value, name, member)
    return value


def changed(value: dict[str, Any], path: str, member: Any) -> dict[str, Any]:
    """A copy of `value` with the member at a path like `data__rows` replaced, added or removed."""
    value = copy.deepcopy(value)
    *way, last = path.split("__")
    at: Any = value
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    key: Any = int(last) if isinstance(at, list) else last
    if member is GONE:
        del at[key]
    else:
        at[key] = member
    return value


def sealed(key: PrivateKey = ASSESSOR, **members: Any) -> Envelope:
    """The document, signed; its schema may be replaced too."""
    value = {"schema": "sealpack/evidence/v1"} | payload(**members)
    return documents.dsse.sign(documents.payload_type("evidence"), canonical.dumps(value), key)


def spec(*evidence: bytes, **members: Any) -> BundleSpec:
    """A bundle that carries the documents given."""
    names = [NAME, "evidence/more.json", "evidence/third.json"]
    extra = {n: ("evidence", "application/json", d) for n, d in zip(names, evidence, strict=False)}
    return BundleSpec(io=IO, extra=extra | members.pop("extra", {}), **members)


def claim(tier: str, thresholds: list[dict[str, str]] | None = None, *policies: str) -> dict[str, Any]:
    """Manifest members that claim a tier by the published policy."""
    proof = {
        "policies": list(policies or (PUBLISHED,)),
        "thresholds": MET if thresholds is None else thresholds,
    }
    return {"quality_tier": tier, "tier_proof": proof}


FULL: dict[str, Any] = {"intended_use": "tests", "support": "help@acme.example", "recertify_by": "2027-09-01"}


def bundle(made: BundleSpec, **manifest: Any) -> bytes:
    """The bundle's bytes with members of its manifest replaced, all signed."""
    members = made.members()
    value = canonical.loads(members["manifest.json"], max_bytes=1 << 24) | manifest
    members["manifest.json"] = canonical.dumps(value)
    return pack({"mimetype": MIMETYPE, "META/model.sig": made.sign(members), **members})
