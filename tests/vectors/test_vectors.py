"""Every vector of the core formats gives the code it states, and its generator still writes it."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealpack.format import canonical, confirmation, qr
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, Lease
from sealpack.format.container import BundleReader
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.evidence import open_evidence
from sealpack.format.keys import PublicKey
from sealpack.format.license import open_license
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.repair import Repair
from sealpack.format.sublicense import open_sublicense
from sealpack.format.trust import Trust
from sealpack.verifier import signed_document
from sealpack.verifier.checks import verify_bundle

VECTORS = Path(__file__).parents[2] / "specs" / "vectors"
Case = dict[str, Any]


def check_canonical(folder: Path, case: Case) -> None:
    limits = {k: case[k] for k in ("max_bytes", "max_depth") if k in case}
    data = (folder / "input.json").read_bytes()
    assert canonical.dumps(canonical.loads(data, **limits)) == data


def check_dsse(folder: Path, case: Case) -> None:
    data = (folder / "envelope.json").read_bytes()
    envelope = Envelope.from_bytes(data)
    assert envelope.to_bytes() == data
    PublicKey.from_pem(case["key"]).verify(envelope.signatures[0].sig, envelope.signed_bytes)


def check_container(folder: Path, _case: Case) -> None:
    data = gzip.decompress((folder / "bundle.sealpack.gz").read_bytes())
    BundleReader(io.BytesIO(data))


def check_bundle(folder: Path, case: Case, tmp_path: Path) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(gzip.decompress((folder / "bundle.sealpack.gz").read_bytes()))
    trust = trust_of(folder) if "key" not in case else None
    key = PublicKey.from_pem(case["key"]) if "key" in case else None
    mldsa_key = PublicKey.from_pem(case["mldsa_key"]) if "mldsa_key" in case else None
    report = verify_bundle(path, trust, key=key, mldsa_key=mldsa_key)
    assert report.exit_status == (CODES[case["expect"]].exit if case["expect"] != "ok" else 0)
    if "check" in case:
        assert [c.id for c in report.failures] == [case["check"]]
    report.raise_first()


def trust_of(folder: Path) -> Trust:
    own = folder / "trust.json"
    return Trust.load((own if own.exists() else folder.parent / "trust.json").read_bytes())


def check_trust(folder: Path, case: Case) -> None:
    trust = trust_of(folder)
    if (folder / "update.json").exists():
        trust = trust.update(Parcel.from_bytes((folder / "update.json").read_bytes()).documents)
    if (folder / "document.json").exists():
        envelope = Envelope.from_bytes((folder / "document.json").read_bytes())
        trust.verify(envelope, case["role"], case.get("names", ()))
    if "versions" in case:
        assert [trust.root.version, trust.keyring.version, trust.revocations.version] == case["versions"]


def check_license(folder: Path, case: Case) -> None:
    license = open_license(Envelope.from_bytes((folder / "license.json").read_bytes()), trust_of(folder))
    if "covers" in case:
        assert [license.covers(*build) for build in case["covers"]] == case["covered"]


def check_sublicense(folder: Path, case: Case) -> None:
    trust = trust_of(folder)
    parent = open_license(Envelope.from_bytes((folder / "parent.json").read_bytes()), trust)
    envelope = Envelope.from_bytes((folder / "sublicense.json").read_bytes())
    assert open_sublicense(envelope, trust, parent).license.to_dict() == case["license"]


def check_activation(folder: Path, case: Case) -> None:
    envelope = Envelope.from_bytes((folder / "document.json").read_bytes())
    if case["kind"] == "activation-request":
        request = ActivationRequest.open(envelope)
        assert case["device_id"] == request.device_id
    elif case["kind"] == "activation":
        made = Activation.open(envelope, trust_of(folder))
        if "code" in case:
            assert made.confirmation is not None
            root = case["root"]
            assert confirmation.code(made.confirmation, made.device_id, made.digest, root) == case["code"]
    elif case["kind"] == "deactivation":
        assert Deactivation.open(envelope).device_id == case.get("device_id")
    elif case["kind"] == "epoch-token":
        EpochToken.open(envelope, trust_of(folder))
    elif case["kind"] == "repair":
        Repair.open(envelope, trust_of(folder))
    else:
        Lease.open(envelope, trust_of(folder))


def check_acknowledgement(folder: Path, _case: Case) -> None:
    trust = trust_of(folder)
    opened = Acknowledgement.open(Envelope.from_bytes((folder / "acknowledgement.json").read_bytes()), trust)
    if opened.lease is not None:
        Lease.open(opened.lease, trust)


def check_evidence(folder: Path, case: Case) -> None:
    envelope = Envelope.from_bytes((folder / "evidence.json").read_bytes())
    evidence, _ = open_evidence(envelope, trust_of(folder), case["bundle_id"])
    if (folder / "manifest.json").exists():
        manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
        evidence.check_subject(manifest.kind, manifest.files, manifest.io)


def check_manifest(folder: Path, _case: Case) -> None:
    data = (folder / "manifest.json").read_bytes()
    assert len(data) < LIMITS.document_bytes
    manifest = Manifest.from_bytes(data)
    assert json.loads(manifest.to_bytes()).items() <= json.loads(data).items()


def check_qr(folder: Path, case: Case) -> None:
    document = qr.join((folder / "scanned.txt").read_text().splitlines())
    assert document == (folder / "document.json").read_bytes()
    assert qr.join(qr.frames(document, 6)) == document


def check_signed_document(folder: Path, _case: Case) -> None:
    report = signed_document.verify((folder / "document.json").read_bytes(), trust_of(folder))
    if code := report.checks[-1].code:
        raise SealpackError(code, report.checks[-1].detail)


CHECKS: dict[str, Callable[..., None]] = {
    "signed-document": check_signed_document,
    "canonical-json": check_canonical,
    "dsse": check_dsse,
    "container": check_container,
    "bundle": check_bundle,
    "trust": check_trust,
    "license": check_license,
    "sublicense": check_sublicense,
    "activation": check_activation,
    "acknowledgement": check_acknowledgement,
    "manifest": check_manifest,
    "evidence": check_evidence,
    "qr": check_qr,
}


def folders() -> list[tuple[str, Path]]:
    return [(f, case.parent) for f in CHECKS for case in sorted((VECTORS / f).glob("*/case.json"))]


@pytest.mark.parametrize(("name", "folder"), [pytest.param(f, p, id=f"{f}-{p.name}") for f, p in folders()])
def test_vector(name: str, folder: Path, tmp_path: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    assert case["description"] and (case["expect"] == "ok" or case["expect"] in CODES)
    more = (tmp_path,) if name == "bundle" else ()
    found = "ok"
    try:
        CHECKS[name](folder, case, *more)
    except SealpackError as error:
        found = error.code
    assert found == case["expect"]


@pytest.mark.parametrize("name", CHECKS)
def test_generator_writes_exactly_these_cases(name: str, tmp_path: Path) -> None:
    script = VECTORS / name / "generate.py"
    spec = importlib.util.spec_from_file_location(f"generate_{name.replace('-', '_')}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    assert contents(tmp_path) == contents(VECTORS / name) != {}


def contents(folder: Path) -> dict[str, bytes]:
    """Files by relative name; compressed ones unpacked, since another zlib packs otherwise."""
    return {
        path.relative_to(folder).as_posix(): gzip.decompress(data) if path.suffix == ".gz" else data
        for path in (*folder.glob("*.json"), *folder.glob("*.bin"), *folder.glob("*/*"))
        if "__pycache__" not in path.parts and path.suffix != ".py"
        for data in (path.read_bytes(),)
    }
