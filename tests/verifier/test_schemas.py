"""The JSON Schemas fit the documents the code writes, and refuse what the code refuses."""

from __future__ import annotations

import copy
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import evidence, world

from sealpack.format import canonical, documents, statement
from sealpack.format.acknowledgement import Acknowledgement, FileOutcome, HeldRange
from sealpack.format.activation import Activation, ActivationRequest, Lease, device_id, log_origin
from sealpack.format.container import BundleReader
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope, b64encode
from sealpack.format.encryption import WrappedKey
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.evidence import open_evidence
from sealpack.format.fields import Fields
from sealpack.format.hybrid import HybridPrivateKey
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.format.leasing import next_lease
from sealpack.format.license import (
    Allowance,
    BundleGrant,
    Customer,
    Devices,
    LeaseTerms,
    License,
    PlanRef,
    Provisional,
    Quota,
    Rate,
    Use,
    open_license,
)
from sealpack.format.manifest import Manifest
from sealpack.format.repair import Repair
from sealpack.format.trust import Keyring, Revocations, Root, Trust
from sealpack.verifier.checks import verify_bundle

SCHEMAS = Path(__file__).parents[2] / "specs/schemas"
DEVICE = PrivateKey.from_seed(b"sealpack-test-device-key-0000001")
assert DEVICE.scheme == ED25519
DEVICE_ID = device_id(DEVICE.public)


def checker(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def full_license() -> License:
    """Every member written."""
    return License(
        license_id="L-1",
        seq=1,
        issued_at=world.T0,
        issuer=world.ISSUER,
        customer=Customer("hospital", "Hospital Nord"),
        bundles=(BundleGrant("acme/tiny", "1.0", "1.9", "22" * 32),),
        use=Use("11" * 32, "LicenseRef-acme", ("business",), ("resale",), "by Acme", True),
        devices=Devices("key", 2, False, True),
        tier="pro",
        billing="metered",
        support="help@acme.example",
        device_label="ward 3",
        order_ref="PO-7",
        nbf=world.T0,
        exp=world.T0 + 86400,
        grace_s=60,
        updates_until=world.T0,
        features=("batch",),
        provisional=Provisional(3600, 10),
        limits=Rate(1, 2, 3, 4),
        quota=(Quota("calls", "term", "license", 1000, 1250, "bill"),),
        lease=LeaseTerms(True, 45 * 86400, 15 * 86400, "deny", (Allowance("calls", 500),)),
        watermark="hidden",
        plan=PlanRef("edge-pro", 1),
    )


def payload(envelope: Envelope) -> Any:
    return json.loads(envelope.payload)


def seal(kind: str, value: dict[str, Any], key: PrivateKey) -> Envelope:
    """Sign a whole payload, `schema` included, as it is."""
    members = {name: member for name, member in value.items() if name != "schema"}
    envelope = documents.seal(kind, members, key)
    if value.get("schema") == documents.schema_id(kind):
        return envelope
    body = canonical.dumps(value)
    return documents.dsse.sign(documents.payload_type(kind), body, key)


@cache
def examples() -> dict[str, Any]:
    """One real document for every schema."""
    trust = world.make_trust(
        keys=[{"keyid": world.STRANGER.keyid, "good": ["33" * 32]}],
        bundles=["44" * 32],
        licenses=["L-0"],
        devices=["dev-" + "5" * 32],
        floors=[{"bundle_id": "acme/tiny", "floor": 1}],
    )
    root, keyring, revocations = trust.envelopes
    license = full_license()
    sealed = documents.seal("license", license.to_dict(), world.LICENSER)
    asked = ActivationRequest(
        *(DEVICE.public, "0" * 32, world.T0, trust.root_digest, "sealpack 0.2.0", "ward 3", "L-1"),
        key_store="tpm",
        fingerprint="2000000130000002",
    )
    request = documents.seal("activation-request", asked.to_dict(), DEVICE)
    value = json.loads((SCHEMAS.parent / "vectors/encryption/wrapped/wrapped-key.json").read_text())
    wrapped = WrappedKey.parse(Fields(value, "keys[0]"))
    given = Activation(
        "L-1",
        sealed.digest,
        DEVICE_ID,
        DEVICE.public,
        request.digest,
        "0" * 32,
        world.T0,
        0,
        "ward 3",
        (wrapped,),
        fingerprint="2000000130000002",
    )
    activation = documents.seal("activation", given.to_dict(), world.LICENSER)
    lease = documents.seal(
        "lease", next_lease(license, DEVICE_ID, 0, 1, world.T0, {}).to_dict(), world.LICENSER
    )
    ack = Acknowledgement(
        log_origin("L-1", DEVICE_ID, 0),
        "L-1",
        DEVICE_ID,
        0,
        11,
        "66" * 32,
        1,
        world.T0,
        (FileOutcome("77" * 32, "OK", 11, "all of it"),),
        (HeldRange(11, 20, "H201", "waits"),),
        previous="88" * 32,
        prune_below=5,
        statement="11 accepted",
        checkpoint="note",
        trust=trust.envelopes,
        lease=lease,
        frozen=True,
    )
    repair = Repair("L-1", DEVICE_ID, "ef" * 32, "0" * 32, world.T0, world.T0, 1, "0a1b2c3d")
    token = EpochToken("L-1", DEVICE_ID, 2, world.T0, "disk replaced")
    origin = log_origin("L-1", DEVICE_ID, 0)
    ended = Deactivation(
        "L-1", DEVICE.public, 0, origin, 9, "aa" * 32, "bb" * 32, "0" * 32, world.T0, {"calls": 3}
    )
    bundle = world.BundleSpec()
    members = bundle.members()
    return {
        "root": payload(root),
        "keyring": payload(keyring),
        "revocations": payload(revocations),
        "trust": json.loads(trust.to_bytes()),
        "license": payload(sealed),
        "activation-request": payload(request),
        "activation": payload(activation),
        "lease": payload(lease),
        "repair": payload(documents.seal("repair", repair.to_dict(), world.LICENSER)),
        "deactivation": payload(documents.seal("deactivation", ended.to_dict(), DEVICE)),
        "epoch-token": payload(documents.seal("epoch-token", token.to_dict(), world.LICENSER)),
        "acknowledgement": payload(documents.seal("acknowledgement", ack.to_dict(), world.SETTLEMENT)),
        "parcel": json.loads(Parcel((sealed, activation, lease)).to_bytes()),
        "manifest": json.loads(members["manifest.json"]),
        "evidence": {"schema": "sealpack/evidence/v1"} | evidence.payload(),
        "signature": payload(statement.read_signature(bundle.sign(members))),
        "error": SealpackError("LIC_EXPIRED", "license L-1 ended", exp=world.T0).to_dict(),
        "problem": SealpackError(
            "LIC_EXPIRED", "license L-1 ended", support="help@acme.example"
        ).to_problem(),
    }


def _trusted() -> Trust:
    return world.make_trust()


def _read_root(value: Any) -> object:
    return Root.parse(seal("root", value, world.ROOT))


def _read_keyring(value: Any) -> object:
    return Keyring.parse(seal("keyring", value, world.ROOT), _trusted().root)


def _read_revocations(value: Any) -> object:
    return Revocations.parse(seal("revocations", value, world.ROOT), _trusted().root)


READERS: dict[str, Callable[[Any], object]] = {
    "root": _read_root,
    "keyring": _read_keyring,
    "revocations": _read_revocations,
    "trust": lambda value: Trust.load(canonical.dumps(value)),
    "license": lambda value: open_license(seal("license", value, world.LICENSER), _trusted()),
    "activation-request": lambda value: ActivationRequest.open(seal("activation-request", value, DEVICE)),
    "activation": lambda value: Activation.open(seal("activation", value, world.LICENSER), _trusted()),
    "lease": lambda value: Lease.open(seal("lease", value, world.LICENSER), _trusted()),
    "repair": lambda value: Repair.open(seal("repair", value, world.LICENSER), _trusted()),
    "deactivation": lambda value: Deactivation.open(seal("deactivation", value, DEVICE)),
    "epoch-token": lambda value: EpochToken.open(seal("epoch-token", value, world.LICENSER), _trusted()),
    "acknowledgement": lambda value: Acknowledgement.open(
        seal("acknowledgement", value, world.SETTLEMENT), _trusted()
    ),
    "parcel": lambda value: Parcel.from_bytes(canonical.dumps(value)),
    "manifest": lambda value: Manifest.from_bytes(canonical.dumps(value)),
    "evidence": lambda value: open_evidence(
        seal("evidence", value, evidence.ASSESSOR), evidence.trust(), "acme/tiny"
    ),
    "signature": lambda value: statement.Statement.from_bytes(canonical.dumps(value)),
}
GONE = object()
# Schema, path to a member, and a value that must not stand there (GONE: the member is missing).
FAULTS: list[tuple[str, str, Any]] = [
    ("root", "version", 0),
    ("root", "keys", ["no key"]),
    ("root", "roles.keyring", GONE),
    ("root", "roles.root.threshold", 0),
    ("root", "crit", ["colour"]),
    ("keyring", "schema", "sealpack/root/v1"),
    ("keyring", "keys.0.scheme", "rsa"),
    ("keyring", "keys.0.roles", ["king"]),
    ("keyring", "keys.0.namespaces", ["Acme"]),
    ("keyring", "keys.0.status", "revoked"),
    ("revocations", "keys.0.keyid", "ab"),
    ("revocations", "bundles", ["AA" * 32]),
    ("revocations", "floors.0.floor", "1"),
    ("revocations", "devices", GONE),
    ("trust", "schema", "sealpack/trust/v2"),
    ("trust", "keyring", GONE),
    ("trust", "root.signatures", []),
    ("trust", "root.note", "x"),
    ("license", "license_id", "L 1"),
    ("license", "term_s", 5),
    ("license", "quota.0.meter", "tokens"),
    ("license", "quota.0.cap", -1),
    ("license", "devices.binding", "usb"),
    ("license", "use.terms_digest", GONE),
    ("license", "customer", "hospital"),
    ("license", "bundles.0.min_version", "1.02"),
    ("license", "lease.allowance.0.amount", "500"),
    ("license", "crit", ["colour"]),
    ("activation-request", "nonce", "0"),
    ("activation-request", "device_key", GONE),
    ("activation-request", "created", -1),
    ("activation-request", "hpke_key", "AAAA"),
    ("activation", "device_id", "dev-1"),
    ("activation", "license_digest", GONE),
    ("activation", "keys", ["key"]),
    ("lease", "ceilings.0.limit", -1),
    ("lease", "ceilings.0.meter", "money"),
    ("lease", "epoch", True),
    ("lease", "issued_at", GONE),
    ("repair", "now", -1),
    ("repair", "nonce", GONE),
    ("repair", "fingerprint", "0a1b2c3"),
    ("deactivation", "size", 1),
    ("deactivation", "used", {"calls": 0}),
    ("deactivation", "used", {"miles": 1}),
    ("deactivation", "root", GONE),
    ("activation", "confirmation", "0f"),
    ("activation", "shares", [{"meter": "miles", "limit": 1}]),
    ("epoch-token", "epoch", 0),
    ("epoch-token", "device_id", GONE),
    ("epoch-token", "reason", "x" * 501),
    ("acknowledgement", "frozen", "yes"),
    ("acknowledgement", "outcomes.0.code", "X1"),
    ("acknowledgement", "ack_seq", 0),
    ("acknowledgement", "root", "66"),
    ("acknowledgement", "origin", " "),
    ("acknowledgement", "trust.0.payload", "a"),
    ("parcel", "documents.0.payloadType", "application/json"),
    ("parcel", "documents.0.signatures.0.sig", "_w=="),
    ("parcel", "documents", GONE),
    ("manifest", "kind", "pickle"),
    ("manifest", "files.0.role", "model"),
    ("manifest", "files.0.name", "a/../b"),
    ("manifest", "files.0.size", -1),
    ("manifest", "files.0.sha256", "AB" * 32),
    ("manifest", "release_index", 0),
    ("manifest", "version", "v1"),
    ("manifest", "encryption", {"scheme": "rot13"}),
    ("manifest", "crit", ["colour"]),
    ("manifest", "tier_proof", {"policies": []}),
    ("manifest", "tier_proof", {"policies": ["ab"]}),
    ("manifest", "tier_proof", {"policies": ["ab" * 32], "thresholds": [{"metric": "mae"}]}),
    ("manifest", "tier_proof", {"policies": ["ab" * 32], "thresholds": [{"metric": "mae", "max": 3}]}),
    ("evidence", "schema", "sealpack/evidence/v2"),
    ("evidence", "evaluator", GONE),
    ("evidence", "issued_at", 253_402_300_800),
    ("evidence", "subject.files", []),
    ("evidence", "subject.files.0.name", "card.md"),
    ("evidence", "subject.kind", "agent"),
    ("evidence", "data.format", "pickle"),
    ("evidence", "data.rows", 0),
    ("evidence", "metrics", []),
    ("evidence", "metrics.0.value", "3e2"),
    ("evidence", "metrics.0.n", 0),
    ("evidence", "performance.throughput", ".5"),
    ("evidence", "environment.threads", 0),
    ("evidence", "method.seed", -1),
    ("evidence", "samples", GONE),
    ("evidence", "crit", ["oath"]),
    ("manifest", "io", {"task": "divination"}),
    ("signature", "predicateType", "https://model_signing/signature/v2.0"),
    ("signature", "predicate.serialization.ignore_paths", []),
    ("signature", "predicate.x-sealpack", GONE),
    ("signature", "predicate.resources.0.algorithm", "blake3"),
    ("signature", "subject", []),
]


def changed(value: Any, path: str, member: Any) -> Any:
    """A copy of `value` with one member replaced, added or removed."""
    value = copy.deepcopy(value)
    *way, last = path.split(".")
    at = value
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if member is GONE:
        del at[last]
    else:
        at[last] = member
    return value


@pytest.mark.parametrize("name", [*READERS, "error", "problem"])
def test_schema_fits_the_document(name: str) -> None:
    value = examples()[name]
    checker(name).validate(value)
    if name in READERS:
        READERS[name](value)


@pytest.mark.parametrize("name", [n for n in READERS if n not in ("trust", "parcel", "signature")])
def test_members_of_later_versions_are_ignored(name: str) -> None:
    value = examples()[name] | {"later": 1}
    checker(name).validate(value)
    READERS[name](value)


@pytest.mark.parametrize(("name", "path", "member"), FAULTS, ids=lambda v: None if v is GONE else str(v)[:30])
def test_schema_and_reader_refuse(name: str, path: str, member: Any) -> None:
    value = changed(examples()[name], path, member)
    assert not checker(name).is_valid(value)
    with pytest.raises(SealpackError) as caught:
        READERS[name](value)
    assert caught.value.spec.exit == 3


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.sealpack"
    path.write_bytes(world.BundleSpec().build())
    return path


def test_report_of_a_good_bundle(bundle: Path) -> None:
    good = verify_bundle(bundle, world.make_trust()).to_dict()
    check = checker("report")
    check.validate(good)
    assert good["verdict"] == "pass" and good["bundle_id"] == "acme/tiny"
    check.validate(verify_bundle(bundle, key=world.CREATOR.public, leaves_only=True).to_dict())
    failing = changed(good, "checks.0.status", "fail")
    for wrong in (
        failing,  # a failure has a code
        changed(failing, "checks.0.code", "CONTAINER_TAIL"),  # and then the verdict is fail
        changed(good, "verdict", "fail"),
        changed(good, "verdict", "maybe"),
        changed(good, "checks", []),
        changed(good, "bundle_digest", "ab"),
        changed(good, "schema", GONE),
    ):
        assert not check.is_valid(wrong)


def test_report_of_a_bad_bundle(bundle: Path) -> None:
    data = bytearray(bundle.read_bytes())
    data[data.index(b"# Tiny")] ^= 1
    bundle.write_bytes(data)
    for report in (
        verify_bundle(bundle, world.make_trust()),
        verify_bundle(bundle, key=world.STRANGER.public),
    ):
        assert not report.ok
        checker("report").validate(report.to_dict())


@pytest.mark.parametrize("code", CODES)
def test_every_error_fits_its_schema(code: str) -> None:
    checker("error").validate(SealpackError(code, "what happened").to_dict())
    checker("problem").validate(SealpackError(code, "what happened").to_problem())


@pytest.mark.parametrize(
    ("path", "member"), [("code", "lic-expired"), ("exit", 0), ("remedy", GONE), ("trace", "x")]
)
def test_faulty_errors(path: str, member: Any) -> None:
    assert not checker("error").is_valid(changed(examples()["error"], path, member))


PAGES = {
    "root": "trust",
    "revocations": "trust",
    "license": "license",
    "activation-request": "activation",
    "repair": "activation",
    "lease": "activation",
    "manifest": "manifest",
    "evidence": "evidence",
    "signature": "signature",
    "error": "errors",
    "problem": "errors",
}


@pytest.mark.parametrize(("name", "page"), PAGES.items())
def test_the_specification_shows_the_real_document(name: str, page: str) -> None:
    text = (SCHEMAS.parent / f"{page}.md").read_text()
    assert f"    {canonical.dumps(examples()[name]).decode()}\n" in text


def test_the_container_example_is_the_real_bundle() -> None:
    data = world.BundleSpec().build()
    page = (SCHEMAS.parent / "container.md").read_text()
    for part in (data[:30], data[30:58], data[-98:-66], data[-66:-34], data[-34:-2], data[-2:]):
        assert f"    {part.hex(' ')}\n" in page
    with BundleReader(io.BytesIO(data)) as bundle:
        for name, placed in bundle.entries.items():
            assert f"| `{name}` | {placed.header_at} | {placed.data_at} | {placed.item.size} |" in page


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the package openssl")
def test_the_shell_recipe_does_what_the_specification_says(tmp_path: Path) -> None:
    page = (SCHEMAS.parent / "signature.md").read_text()
    recipe = page.split("```sh\n")[1].split("```")[0]
    (tmp_path / "creator.pub.pem").write_text(world.CREATOR.public.pem)
    with zipfile.ZipFile(io.BytesIO(world.BundleSpec().build())) as archive:
        archive.extractall(tmp_path / "d")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", recipe], cwd=tmp_path, capture_output=True, text=True, check=False)

    good = run()
    assert (good.returncode, good.stdout.splitlines()) == (
        0,
        ["Verified OK", "every file is signed, none is changed"],
    )
    (tmp_path / "d/extra").touch()
    assert run().returncode != 0
    (tmp_path / "d/extra").unlink()
    (tmp_path / "d/card.md").write_text("# Tinx\n")
    assert run().returncode != 0


def test_a_request_with_a_key_to_wrap_for_fits_its_schema() -> None:
    asked = examples()["activation-request"]
    public = HybridPrivateKey.from_seed(bytes(32)).public
    checker("activation-request").validate(asked | {"hpke_key": b64encode(public.data)})
    envelope = documents.seal("activation-request", asked | {"hpke_key": b64encode(public.data)}, DEVICE)
    assert ActivationRequest.open(envelope).hpke_key == public
