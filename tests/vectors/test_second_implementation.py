"""specs/check/sealpack_check.py, written from the pages alone, comes to the same verdicts as the program."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sealpack.format import canonical, dsse
from sealpack.format.container import MIMETYPE
from sealpack.format.dsse import Envelope
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import verify_usage
from sealpack.verifier.checks import verify_bundle
from tests.support import world
from tests.support.world import BundleSpec

SPECS = Path(__file__).parents[2] / "specs"
SCRIPT = SPECS / "check" / "sealpack_check.py"
VECTORS = SPECS / "vectors"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sealpack_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


second = load_script()


def test_it_needs_the_standard_library_only() -> None:
    names = {line.split()[1].split(".")[0] for line in SCRIPT.read_text().splitlines() if is_import(line)}
    assert len(names) > 10 and names <= set(sys.stdlib_module_names)


def is_import(line: str) -> bool:
    return line.lstrip().startswith(("import ", "from ")) and " import" in " " + line


# --- vectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", second.CASES)
def test_vectors(name: str) -> None:
    cases = [folder for folder in second.vector_cases(VECTORS) if folder.parent.name == name]
    found = {folder.name: second.run_case(folder) for folder in cases}
    assert found and {case: pair for case, pair in found.items() if pair[0] != pair[1]} == {}


# --- the same bundles, mutated --------------------------------------------------------------------------

Mutate = Callable[[random.Random], tuple[bytes, Trust]]
ODD: tuple[Any, ...] = (0, 1, -1, 2**53 - 1, True, "", "x", "acme", "ACME/x", "0" * 64, [], {}, "2026-02-30")


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


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def mutate_json(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One change somewhere: left out, replaced, doubled, swapped, or another spelling."""
    value = json.loads(json.dumps(value))
    inside, key = rng.choice(list(places(value)))
    old, change = inside[key], rng.randrange(6)
    if change == 0:
        del inside[key]
    elif change == 1:
        inside[key] = rng.choice(ODD)
    elif change == 2 and isinstance(old, str):
        inside[key] = rng.choice([old.upper(), old + "x", old[:-1], old * 2, old + "\n", "a/" + old])
    elif change == 3 and isinstance(old, int):
        inside[key] = max(-1, old + rng.choice([1, -1, 1 << 20]))
    elif isinstance(inside, list):
        inside.append(inside[rng.randrange(len(inside))])
    else:
        other = rng.choice(list(inside))
        inside[key], inside[other] = inside[other], inside[key]
    return value


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    size = len(data)
    at = rng.choice(
        [rng.randrange(size), rng.randrange(min(8000, size)), -rng.randrange(1, min(900, size)) % size]
    )
    change = rng.randrange(4)
    if change == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if change == 1:
        return data[:at] + bytes(rng.randrange(1, 5)) + data[at:]
    return data[:at] + data[at + rng.randrange(1, 5) :] if change == 2 else data[:at]


def flip_file(rng: random.Random) -> tuple[bytes, Trust]:
    return mutate_bytes(full_spec().build(), rng), world.make_trust()


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


MUTATIONS: dict[Mutate, int] = {
    flip_file: 30,
    change_member: 30,
    change_manifest: 40,
    change_statement: 30,
    change_license: 30,
    change_trust: 30,
    change_content: 30,
}


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_mutated_bundles(mutate: Mutate, tmp_path: Path) -> None:
    differ = {}
    for seed in range(MUTATIONS[mutate]):
        ours, theirs = verdicts(*mutate(random.Random(seed)), tmp_path / "x.sealpack")
        if (ours == "ok") != (theirs == "ok"):
            differ[seed] = (ours, theirs)
    assert differ == {}
