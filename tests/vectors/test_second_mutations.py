"""Bundles changed at random: both implementations refuse or accept the same, and name the same fault."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.models import mutate_protobuf, seeds_gguf, seeds_onnx
from support import evidence, world
from support.mldsa import CREATOR_MLDSA, STRANGER_MLDSA
from support.second import mutate_bytes, mutate_json, second
from support.world import BundleSpec

from sealpack.format import canonical, dsse
from sealpack.format.container import MIMETYPE
from sealpack.format.dsse import Envelope
from sealpack.format.keys import ECDSA, ML_DSA
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle

Mutate = Callable[[random.Random], tuple[bytes, Trust]]


def license_payload() -> dict[str, Any]:
    return {
        "schema": "sealpack/license/v1",
        "license_id": "L-1",
        "seq": 1,
        "issued_at": world.T0,
        "issuer": world.ISSUER,
        "customer": {"id": "c", "name": "C"},
        "bundles": [{"id": "acme/tiny", "min_version": "1.0", "max_version": "1.9"}],
        "use": {"terms_digest": "0" * 64, "allow": ["research"]},
        "devices": {"binding": "key", "max": 2},
        "tier": "pro",
        "billing": "metered",
        "exp": world.T0 + 1000,
        "quota": [
            {
                "meter": "calls",
                "window": "day",
                "scope": "device",
                "cap": 5,
                "hard_cap": 6,
                "on_exceed": "deny",
            }
        ],
        "lease": {"required": True, "on_stale": "warn", "allowance": [{"meter": "calls", "amount": 5}]},
    }


def sealed(payload: dict[str, Any], kind: str, key: Any) -> bytes:
    return dsse.sign(f"application/vnd.sealpack.{kind}+json", canonical.dumps(payload), key).to_bytes()


def full_spec() -> BundleSpec:
    """A bundle with terms, a license and trust documents that ride along."""
    text = b"All rights reserved.\n"
    terms = {
        "schema": "sealpack/terms/v1",
        "spdx": "LicenseRef-x",
        "text": "license/LICENSE",
        "text_sha256": second.sha256(text).hex(),
    }
    return BundleSpec(
        extra={
            "license/LICENSE": ("license-text", "text/plain", text),
            "license/terms.json": ("license-terms", "application/json", canonical.dumps(terms)),
            "payload/vocab.txt": ("vocabulary", "text/plain", b"a\nb\n"),
        },
        meta={
            "META/license/L-1.json": sealed(license_payload(), "license", world.LICENSER),
            "META/trust/root.1.json": world.make_root().to_bytes(),
            "META/trust/keyring.json": world.make_keyring(2).to_bytes(),
            "META/trust/revocations.json": world.make_revocations(2).to_bytes(),
        },
        io={"task": "embedding", "pre": {"kind": "wordpiece", "vocab": "payload/vocab.txt"}},
    )


def flip_file(rng: random.Random) -> tuple[bytes, Trust]:
    """Any bytes of the file; two times in three one bit of a header or of the directory."""
    data = full_spec().build()
    if rng.randrange(3) == 0:
        return mutate_bytes(data, rng), world.make_trust()
    entries = list(second.Bundle(data).entries.values())
    heads = [(entry.at, min(entry.data_at, entry.at + 60 + len(entry.name))) for entry in entries]
    first, last = rng.choice([*heads, (entries[-1].data_at + entries[-1].size, len(data))])
    at = rng.randrange(first, last)
    flipped = data[at] ^ 1 << rng.randrange(8)
    return data[:at] + bytes([flipped]) + data[at + 1 :], world.make_trust()


def change_member(rng: random.Random) -> tuple[bytes, Trust]:
    """One entry's bytes, in a container that is canonical all the same."""
    entries = entries_of(full_spec())
    name = rng.choice(list(entries))
    change = rng.randrange(5)
    if change == 0:
        del entries[name]
    elif change == 1:
        entries["added/" + name] = entries[name]
    elif change == 2:
        other = rng.choice(list(entries))
        entries[name], entries[other] = entries[other], entries[name]
    else:
        entries[name] = mutate_bytes(entries[name], rng)
    return world.pack(entries), world.make_trust()


def entries_of(spec: BundleSpec) -> dict[str, bytes]:
    members = spec.members()
    return {"mimetype": MIMETYPE, "META/model.sig": spec.sign(members), **spec.meta, **members}


def change_manifest(rng: random.Random) -> tuple[bytes, Trust]:
    """One member of the manifest, signed by the creator."""
    spec = full_spec()
    members = spec.members()
    manifest = mutate_json(json.loads(members["manifest.json"]), rng)
    members["manifest.json"] = canonical.dumps(manifest)
    signature = spec.sign(members)
    return world.pack(
        {"mimetype": MIMETYPE, "META/model.sig": signature, **spec.meta, **members}
    ), world.make_trust()


def change_statement(rng: random.Random) -> tuple[bytes, Trust]:
    """One member of the statement or of the Sigstore bundle around it, signed by the creator."""
    entries = entries_of(full_spec())
    around = json.loads(entries["META/model.sig"])
    statement = json.loads(Envelope.from_dict(around["dsseEnvelope"]).payload)
    if rng.random() < 0.8:
        payload = canonical.dumps(mutate_json(statement, rng))
        signed = dsse.sign("application/vnd.in-toto+json", payload, world.CREATOR)
        around["dsseEnvelope"] = signed.to_dict()
    else:
        around = mutate_json(around, rng)
    entries["META/model.sig"] = canonical.dumps(around)
    return world.pack(entries), world.make_trust()


def change_license(rng: random.Random) -> tuple[bytes, Trust]:
    entries = entries_of(full_spec())
    payload = mutate_json(license_payload(), rng)
    entries["META/license/L-1.json"] = sealed(payload, "license", world.LICENSER)
    return world.pack(entries), world.make_trust()


def change_trust(rng: random.Random) -> tuple[bytes, Trust]:
    """One member of a trust document that rides along, signed by the root."""
    entries = entries_of(full_spec())
    name = rng.choice([name for name in entries if name.startswith("META/trust/")])
    envelope = Envelope.from_bytes(entries[name])
    payload = canonical.dumps(mutate_json(json.loads(envelope.payload), rng))
    entries[name] = dsse.sign(envelope.payload_type, payload, world.ROOT).to_bytes()
    return world.pack(entries), world.make_trust()


def change_content(rng: random.Random) -> tuple[bytes, Trust]:
    """The model, the SBOM or the terms before everything is digested and signed."""
    spec = full_spec()
    if rng.random() < 0.6:
        head = mutate_bytes(spec.model[:200], rng) if rng.random() < 0.9 else b""
        spec.model = head + spec.model[200 : rng.choice([len(spec.model), len(spec.model) - 4])]
    elif rng.random() < 0.5:
        role, media, data = spec.extra["license/terms.json"]
        changed = canonical.dumps(mutate_json(json.loads(data), rng))
        spec.extra["license/terms.json"] = (role, media, changed)
    else:
        sbom = json.loads(spec.members()["sbom.cdx.json"])
        changed = json.dumps(mutate_json(sbom, rng)).encode()
        spec.extra["sbom.cdx.json"] = ("sbom", "application/vnd.cyclonedx+json", changed)
    return spec.build(), world.make_trust()


HYBRID = BundleSpec(mldsa_key=CREATOR_MLDSA)
HYBRID_ENTRIES: dict[str, bytes] = {}


def change_hybrid(rng: random.Random) -> tuple[bytes, Trust]:
    """A bundle with two signatures, the keyring that lists their keys, or what requires them."""
    schemes = rng.choice([(ECDSA, ML_DSA), (ECDSA,), (ML_DSA,), (ECDSA, "ed25519")])
    entry = world.key_entry(world.CREATOR, ["bundle"], mldsa=CREATOR_MLDSA, schemes=schemes)
    if rng.random() < 0.2:
        del entry["mldsa_pem"]
    keyring = json.loads(world.make_keyring(2, [entry]).payload)
    if rng.random() < 0.5:
        keyring = mutate_json(keyring, rng)
    sealed = dsse.sign("application/vnd.sealpack.keyring+json", canonical.dumps(keyring), world.ROOT)
    entries = dict(HYBRID_ENTRIES) or hybrid_entries()
    name = "META/model.mldsa65.sig"
    change = rng.randrange(5)
    if change == 0:
        del entries[name]
    elif change == 1:
        entries[name] = mutate_bytes(entries[name], rng)
    elif change == 2:
        envelope = Envelope.from_dict(json.loads(entries["META/model.sig"])["dsseEnvelope"])
        entries[name] = STRANGER_MLDSA.sign(envelope.signed_bytes)
    head = {n: entries[n] for n in ("mimetype", "META/model.sig", name) if n in entries}
    trusted = {"META/trust/keyring.json": sealed.to_bytes()}
    return world.pack(head | trusted | entries), world.make_trust()


def hybrid_entries() -> dict[str, bytes]:
    """The entries of the bundle with two signatures; signed once, which takes a while."""
    data = HYBRID.build()
    bundle = second.Bundle(data)
    HYBRID_ENTRIES.update({name: bytes(bundle.stored(name)) for name in bundle.entries})
    HYBRID_ENTRIES.pop("META/pad.0", None)
    return dict(HYBRID_ENTRIES)


def change_evidence(rng: random.Random) -> tuple[bytes, Trust]:
    """A claimed tier: its evidence, how it is proven, or the manifest around both."""
    value = {"schema": "sealpack/evidence/v1"} | evidence.payload()
    said = evidence.claim(rng.choice(["Verified", "Enterprise-Ready"])) | evidence.FULL
    change = rng.randrange(4)
    if change == 0:
        value = mutate_json(value, rng)
    elif change == 1:
        said = mutate_json(said, rng)
    elif change == 2:
        place = rng.choice(["method__evaluated", "samples__passed", "issued_at", "valid_until"])
        value = evidence.changed(value, place, rng.choice([19, 20, 199, 200, 3, 2, world.T0, world.T0 + 1]))
    signer = rng.choice([evidence.ASSESSOR, evidence.ASSESSOR, world.CREATOR])
    signed = dsse.sign("application/vnd.sealpack.evidence+json", canonical.dumps(value), signer)
    documents = [signed.to_bytes()] * rng.choice([1, 1, 1, 2])
    return evidence.bundle(evidence.spec(*documents), **said), evidence.trust()


def change_model(rng: random.Random) -> tuple[bytes, Trust]:
    """An ONNX or GGUF header with a change of its fields or bytes."""
    onnx = rng.random() < 0.7
    model = rng.choice(list(seeds_onnx() if onnx else seeds_gguf()))
    changed = mutate_protobuf(model, rng) if onnx and rng.random() < 0.6 else None
    model = changed or mutate_bytes(model, rng)
    spec = BundleSpec(model=model, model_name="payload/model", kind="onnx" if onnx else "gguf")
    spec.extra = {"payload/w.bin": ("model-data", "application/octet-stream", bytes(72))}
    return spec.build(), world.make_trust()


def verdicts(data: bytes, trust: Trust, path: Path) -> tuple[str, str]:
    """Our code, and that of the second implementation; "ok" is a pass."""
    path.write_bytes(data)
    report = verify_bundle(path, trust)
    ours = "ok" if report.ok else report.failures[0].code
    try:
        second.verify_bundle(data, second.load_trust(trust.to_bytes()))
    except second.Fail as fail:
        return ours, fail.code
    return ours, "ok"


# Two members changed places, so one document has two faults; the pages do not say which is named.
SAME_FAULT = {
    frozenset(pair) for pair in (("KEY_MALFORMED", "TRUST_INVALID"), ("TRUST_THRESHOLD", "TRUST_INVALID"))
}
MUTATIONS: dict[Mutate, int] = {
    flip_file: 40,
    change_member: 30,
    change_manifest: 40,
    change_statement: 30,
    change_license: 30,
    change_trust: 30,
    change_content: 30,
    change_hybrid: 30,
    change_evidence: 40,
    change_model: 60,
}


def differences(mutate: Mutate, seeds: range, path: Path) -> dict[int, tuple[str, str]]:
    """Seeds of which the verdicts differ, or the faults are named by codes that do not say the same."""
    differ = {}
    for seed in seeds:
        ours, theirs = verdicts(*mutate(random.Random(seed)), path)
        if ours != theirs and frozenset((ours, theirs)) not in SAME_FAULT:
            differ[seed] = (ours, theirs)
    return differ


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_mutated_bundles(mutate: Mutate, tmp_path: Path) -> None:
    assert differences(mutate, range(MUTATIONS[mutate]), tmp_path / "x.sealpack") == {}


@pytest.mark.slow
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_mutated_bundles_by_the_thousand(mutate: Mutate, tmp_path: Path) -> None:
    first = MUTATIONS[mutate]
    assert differences(mutate, range(first, 11 * first), tmp_path / "x.sealpack") == {}
