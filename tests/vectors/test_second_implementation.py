"""specs/check/sealpack_check.py, written from the pages alone, comes to the same verdicts as the program."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.support import world
from tests.support.world import BundleSpec

from sealpack.format import canonical, documents, dsse
from sealpack.format.container import MIMETYPE
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import verify_usage
from sealpack.verifier.checks import verify_bundle

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


# --- usage files and trust updates ----------------------------------------------------------------------


def mutate_usage(plain: bytes, rng: random.Random) -> bytes:
    """A byte, or one line left out, doubled, moved or changed; packed or not."""
    lines = plain.splitlines(keepends=True)
    at, change = rng.randrange(len(lines)), rng.randrange(5)
    if change == 0:
        lines = [mutate_bytes(plain, rng)]
    elif change == 1:
        del lines[at]
    elif change == 2:
        lines.insert(at, rng.choice(lines))
    elif change == 3:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines[at] = canonical.dumps(mutate_json(json.loads(lines[at]), rng)) + b"\n"
    data = b"".join(lines)
    return gzip.compress(data, mtime=0) if rng.random() < 0.5 else data


@pytest.mark.parametrize("name", ["good", "good-rotation", "good-after-a-crash", "good-continued"])
def test_mutated_usage_files(name: str) -> None:
    folder = VECTORS / "usage" / name
    plain = gzip.decompress((folder / "usage.gz").read_bytes())
    pem = json.loads((folder / "case.json").read_text())["device"]
    differ = {}
    for seed in range(25):
        data = mutate_usage(plain, random.Random(seed))
        report, again = verify_usage(data, PublicKey.from_pem(pem)), second.Usage(data, second.read_key(pem))
        ours = report.findings[0].code if report.findings else "ok"
        theirs = again.codes[0] if again.codes else "ok"
        if (ours, report.accepted) != (theirs, again.accepted):
            differ[seed] = (ours, report.accepted, theirs, again.accepted)
    assert differ == {}


KEYS = [PrivateKey.from_scalar(0x3000 + i) for i in range(3)]


def make_update(rng: random.Random) -> tuple[Trust, list[Envelope]]:
    """A trust under root 1 or 2 of three, and some roots, a keyring and revocations to import."""
    roots = [make_root(version, rng) for version in (1, 2, 3)]
    before = [roots[0], *roots]  # a new root needs the known one's keys too
    signed = [
        documents.seal("root", root, *set(signers(root, "root") + signers(old, "root")))
        for root, old in zip(roots, before, strict=False)
    ]
    start = rng.randrange(2)
    keyring, revocations = (make_doc(kind, roots[start], rng) for kind in ("keyring", "revocations"))
    trust = Trust.from_envelopes(signed[start], keyring, revocations)
    update = [envelope for envelope in signed if rng.random() < 0.6]
    update += [make_doc(kind, rng.choice(roots), rng) for kind in ("keyring", "revocations")]
    rng.shuffle(update)
    return trust, update


def make_root(version: int, rng: random.Random) -> dict[str, Any]:
    roles = {}
    for name in ("root", "keyring", "revocations"):
        chosen = rng.sample(KEYS, rng.randint(1, 2))
        roles[name] = {"threshold": rng.randint(1, len(chosen)), "keyids": [key.keyid for key in chosen]}
    return {"version": version, "keys": [key.public.pem for key in KEYS], "roles": roles}


def signers(root: dict[str, Any], role: str) -> list[PrivateKey]:
    return [key for key in KEYS if key.keyid in root["roles"][role]["keyids"]]


def make_doc(kind: str, root: dict[str, Any], rng: random.Random) -> Envelope:
    body: dict[str, Any] = {"version": rng.randint(1, 3), "issued_at": rng.randint(0, 1), "keys": []}
    if kind == "revocations":
        body |= {"bundles": [], "licenses": [], "devices": [], "floors": []}
    return documents.seal(kind, body, *signers(root, kind))


def test_trust_updates() -> None:
    differ, passed = {}, 0
    for seed in range(60):
        trust, update = make_update(random.Random(seed))
        try:
            new = trust.update(update)
            ours = ["ok", new.root.digest, new.keyring.envelope.digest, new.revocations.envelope.digest]
        except SealpackError as error:
            ours = [error.code]
        try:
            known = second.load_trust(trust.to_bytes())
            again = second.update_trust(known, [second.to_envelope(e.to_dict()) for e in update])
            theirs = ["ok", *(d.envelope.digest for d in (again.root, again.keyring, again.revocations))]
        except second.Fail as fail:
            theirs = [fail.code]
        passed += ours[0] == "ok"
        if (ours[0] == "ok" or theirs[0] == "ok") and ours != theirs:
            differ[seed] = (ours, theirs)
    assert differ == {} and passed > 10


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, trust = tmp_path / "x.sealpack", tmp_path / "trust.json"
    bundle.write_bytes(BundleSpec().build())
    found = []
    for belief in (world.make_trust(), world.make_trust(floors=[{"bundle_id": "acme/tiny", "floor": 2}])):
        trust.write_bytes(belief.to_bytes())
        found.append(second.main(["verify", str(bundle), "--trust", str(trust)]))
    bundle.write_bytes(bundle.read_bytes()[:-1])
    found.append(second.main(["verify", str(bundle), "--trust", str(trust)]))
    assert found == [0, 4, 3]
    printed = capsys.readouterr().out
    assert "PASS" in printed and "BUNDLE_FLOOR" in printed and "CONTAINER_TAIL" in printed
