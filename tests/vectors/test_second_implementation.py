"""specs/check/sealpack_check.py, written from the pages alone, comes to the same verdicts as the program."""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.second import SCRIPT, VECTORS, mutate_bytes, mutate_json, second
from support.world import BundleSpec

from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import verify_usage
from sealpack.verifier.checks import verify_bundle


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


def test_mutated_trust_files() -> None:
    """A trust file with roots that led to its own, and one member of it or of a document inside changed."""
    roots = [make_root(version, random.Random(version)) for version in (1, 2, 3)]
    envelopes = [
        documents.seal("root", root, *set(signers(root, "root") + signers(old, "root")))
        for root, old in zip(roots, [roots[0], *roots], strict=False)
    ]
    newest = [make_doc(kind, roots[2], random.Random(1)) for kind in ("keyring", "revocations")]
    whole = json.loads(Trust.from_envelopes(envelopes[2], *newest).after(envelopes[:2]).to_bytes())
    differ, passed = {}, 0
    for seed in range(80):
        data = canonical.dumps(mutate_json(whole, random.Random(seed)))
        codes = [code_of(Trust.load, data), code_of(second.load_trust, data)]
        passed += codes == ["ok", "ok"]
        if codes[0] != codes[1]:
            differ[seed] = codes
    assert differ == {} and 0 < passed < 80


def code_of(read: Any, *arguments: Any) -> str:
    try:
        read(*arguments)
    except (SealpackError, second.Fail) as error:
        return error.code
    return "ok"


# --- samples of earlier versions --------------------------------------------------------------------------

RELEASES = sorted(path.parent for path in (Path(__file__).parents[1] / "releases").glob("*/trust.json"))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_what_an_earlier_version_made(release: Path) -> None:
    trust = second.load_trust((release / "trust.json").read_bytes())
    beside = release / "creator.mldsa.pub.pem"
    more = (beside.read_text(),) if beside.exists() else ()
    pair = second.given_pair((release / "creator.pub.pem").read_text(), *more)
    bundle = (release / "bundle.sealpack").read_bytes()
    assert second.verify_bundle(bundle, trust) == second.verify_bundle(bundle, None, pair)
    manifest = second.verify_bundle(bundle, trust)
    opened = {}
    for envelope in second.read_parcel((release / "sample.license").read_bytes()):
        kind = envelope.type.removeprefix("application/vnd.sealpack.").removesuffix("+json")
        openers = {
            "license": second.open_license,
            "activation": second.open_activation,
            "lease": second.open_lease,
        }
        if kind in openers:
            opened[kind] = openers[kind](envelope, trust)
    [request] = second.read_parcel((release / "device.request").read_bytes())
    device = second.open_request(request)
    assert {opened["activation"]["device_id"], opened["lease"]["device_id"]} == {device}
    digest = opened["activation"]["license_digest"]
    assert second.license_covers(opened["license"], manifest["bundle_id"], manifest["version"], digest)
    usage = second.Usage((release / "sample.usage.gz").read_bytes())
    [acknowledgement] = second.read_parcel((release / "sample.ack").read_bytes())
    said = second.open_acknowledgement(acknowledgement, trust)
    assert (usage.codes, usage.tree.size, usage.tree.root().hex()) == ([], said["size"], said["root"])
    for line in (release / "registry.jsonl").read_bytes().splitlines():
        second.read_registry_line(line)


@pytest.mark.parametrize(("more", "code"), [(0, "ok"), (1, "CONTAINER_LIMIT")])
def test_a_file_outside_payload_has_a_bound(more: int, code: str, tmp_path: Path) -> None:
    data = BundleSpec(extra={"a.bin": ("asset", "application/x", bytes((16 << 20) + more))}).build()
    (tmp_path / "x").write_bytes(data)
    found = code_of(verify_bundle(tmp_path / "x", world.make_trust()).raise_first)
    assert (
        found == code_of(second.verify_bundle, data, second.load_trust(world.make_trust().to_bytes())) == code
    )


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
