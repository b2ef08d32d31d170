"""What the verifier looks for inside files that are known to be the signed ones: SBOM, terms, model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.world import BundleSpec, pack, sbom_for, tiny_gguf

from sealpack.format import canonical
from sealpack.format.container import MIMETYPE, BundleReader
from sealpack.format.encryption import EncryptedFile, EncryptionHeader
from sealpack.format.errors import SealpackError
from sealpack.format.terms import Terms
from sealpack.verifier import hashing
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.report import Report

TRUST = world.make_trust()
Files = dict[str, tuple[str, str, bytes]]
LICENSE: Files = {"license/LICENSE.txt": ("license-text", "text/plain", b"Test license.\n")}


def verify(folder: Path, spec: BundleSpec, **manifest: Any) -> Report:
    """The report on a bundle; `manifest` replaces members of its manifest, and all is signed."""
    members = spec.members()
    value = canonical.loads(members["manifest.json"]) | manifest
    members["manifest.json"] = canonical.dumps(value)
    path = folder / "x.sealpack"
    path.write_bytes(pack({"mimetype": MIMETYPE, "META/model.sig": spec.sign(members), **members}))
    return verify_bundle(path, TRUST)


def failure(report: Report) -> tuple[str, str]:
    (only,) = report.failures
    return only.id, only.code or ""


# --- SBOM -----------------------------------------------------------------------------------------------


def test_exactly_one_sbom(tmp_path: Path) -> None:
    second: Files = {"b.cdx.json": ("sbom", "application/json", sbom_for("0" * 64))}
    assert failure(verify(tmp_path, BundleSpec(extra=second))) == ("sbom", "SBOM_INVALID")
    none: Files = {"sbom.cdx.json": ("asset", "application/json", b"{}")}
    assert failure(verify(tmp_path, BundleSpec(extra=none))) == ("sbom", "SBOM_INVALID")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"components":{}}',
        b'{"bomFormat":"CycloneDX","components":[]}',
        b'{"bomFormat":"CycloneDX","components":[1],"specVersion":"1.6"}',
        b'{"bomFormat":"CycloneDX","components":[{"hashes":[{"alg":"SHA-256","content":[]}],'
        b'"type":"machine-learning-model"}],"specVersion":"1.6"}',
        b"[" * 100_000,
        b"1" * 10_000,
        sbom_for(hashlib.sha256(tiny_gguf()).hexdigest())[:-1] + b',"size":1e999}',  # infinite
        sbom_for("0" * 64),
        sbom_for(hashlib.sha256(tiny_gguf()).hexdigest()).decode().encode("utf-16"),
        json.dumps({"bomFormat": "SPDX", "specVersion": "1.6", "components": []}).encode(),
    ],
)
def test_what_is_no_sbom_of_this_model(tmp_path: Path, data: bytes) -> None:
    faulty: Files = {"sbom.cdx.json": ("sbom", "application/json", data)}
    assert failure(verify(tmp_path, BundleSpec(extra=faulty))) == ("sbom", "SBOM_INVALID")


def test_an_sbom_may_hold_fractions(tmp_path: Path) -> None:
    """CycloneDX has them for measured values; what is signed as a document has none."""
    data = sbom_for(hashlib.sha256(tiny_gguf()).hexdigest())[:-1] + b',"value":0.75}'
    fractions: Files = {"sbom.cdx.json": ("sbom", "application/json", data)}
    assert verify(tmp_path, BundleSpec(extra=fractions)).ok


# --- terms ----------------------------------------------------------------------------------------------


def terms(name: str = "license/terms.json", **members: Any) -> Files:
    text = LICENSE["license/LICENSE.txt"][2]
    value = {"spdx": "LicenseRef-test", "text": "license/LICENSE.txt"}
    value |= {"text_sha256": hashlib.sha256(text).hexdigest(), "schema": "sealpack/terms/v1"} | members
    return LICENSE | {name: ("license-terms", "application/json", canonical.dumps(value))}


def test_terms_that_agree(tmp_path: Path) -> None:
    report = verify(tmp_path, BundleSpec(extra=terms()))
    assert report.ok
    data = terms()["license/terms.json"][2]
    assert report.facts["license_terms"] == {
        "spdx": "LicenseRef-test",
        "digest": Terms.from_bytes(data).digest,
        "text": "license/LICENSE.txt",
        "ack_required": False,
    }
    plan = {"id": "edge-pro", "version": 2}
    assert verify(tmp_path, BundleSpec(extra=terms(plan=plan)), plan=plan).ok


@pytest.mark.parametrize(
    ("extra", "manifest", "code"),
    [
        (terms(text_sha256="0" * 64), {}, "TERMS_MISMATCH"),
        (terms(text="license/OTHER.txt"), {}, "TERMS_MISMATCH"),
        (terms(name="license/more.json"), {}, "TERMS_MISMATCH"),
        (terms(plan={"id": "edge-pro", "version": 2}), {}, "TERMS_MISMATCH"),
        (terms(), {"plan": {"id": "edge-pro", "version": 1}}, "TERMS_MISMATCH"),
        (terms(schema="sealpack/plan/v1"), {}, "DOC_SCHEMA"),
        (LICENSE | {"license/terms.json": ("license-terms", "text/plain", b"x")}, {}, "JSON_INVALID"),
    ],
)
def test_terms_that_do_not(tmp_path: Path, extra: Files, manifest: dict[str, Any], code: str) -> None:
    assert failure(verify(tmp_path, BundleSpec(extra=extra), **manifest)) == ("terms", code)


# --- model ----------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def onnx_model(location: str | None = None, domain: str = "") -> bytes:
    """One node and one tensor of two floats, in a file of its own if `location` is given."""
    weights = field(9, bytes(8))
    if location is not None:
        pairs = (("location", location), ("offset", "0"), ("length", "8"))
        weights = field(14, 1) + b"".join(field(13, field(1, k) + field(2, v)) for k, v in pairs)
    tensor = field(1, 2) + field(2, 1) + field(8, "w") + weights
    node = field(1, "w") + field(2, "y") + field(4, "Relu") + field(7, domain)
    graph = field(1, node) + field(2, "g") + field(5, tensor)
    return field(1, 9) + field(7, graph) + field(8, field(2, 20))


def onnx_spec(data: bytes, weights: dict[str, bytes] | None = None) -> BundleSpec:
    files: Files = {n: ("model-data", "application/octet-stream", d) for n, d in (weights or {}).items()}
    return BundleSpec(kind="onnx", model_name="payload/model.onnx", model=data, extra=files)


def test_onnx_models(tmp_path: Path) -> None:
    report = verify(tmp_path, onnx_spec(onnx_model()))
    assert report.ok and report.facts["custom_operators"] == []
    report = verify(tmp_path, onnx_spec(onnx_model(domain="acme.ops")))
    assert report.ok and report.facts["custom_operators"] == ["acme.ops"]


@pytest.mark.parametrize(
    ("location", "weights", "ok"),
    [
        ("w.bin", {"payload/w.bin": bytes(8)}, True),
        ("w.bin", {"payload/w.bin": bytes(7)}, False),
        ("w.bin", {}, False),
        ("w.bin", {"payload/sub/w.bin": bytes(8)}, False),
        ("w.bin", {"payload/W.bin": bytes(8)}, False),
        ("sub/w.bin", {"payload/sub/w.bin": bytes(8)}, True),
        ("../card.md", {"payload/w.bin": bytes(8)}, False),
        ("/etc/passwd", {"payload/w.bin": bytes(8)}, False),
        ("sub/../../card.md", {"payload/w.bin": bytes(8)}, False),
        ("", {"payload/w.bin": bytes(8)}, False),
    ],
)
def test_external_data_stays_inside(
    tmp_path: Path, location: str, weights: dict[str, bytes], ok: bool
) -> None:
    report = verify(tmp_path, onnx_spec(onnx_model(location), weights))
    if ok:
        assert report.ok, report.failures
    else:
        assert failure(report) == ("model", "MODEL_UNSAFE")


def test_models_of_another_kind(tmp_path: Path) -> None:
    assert failure(verify(tmp_path, BundleSpec(kind="onnx"))) == ("model", "MANIFEST_MISMATCH")
    assert failure(verify(tmp_path, BundleSpec(model=onnx_model()))) == ("model", "MANIFEST_MISMATCH")
    assert failure(verify(tmp_path, BundleSpec(model=b"plain text"))) == ("model", "MANIFEST_MISMATCH")
    assert failure(verify(tmp_path, BundleSpec(model=b""))) == ("model", "MANIFEST_MISMATCH")
    assert failure(verify(tmp_path, BundleSpec(model=world.tiny_gguf()[:60]))) == ("model", "MODEL_TRUNCATED")


def test_an_encrypted_model_is_not_looked_into(tmp_path: Path) -> None:
    entry = EncryptedFile("payload/model.gguf", 100, "00" * 24, "11" * 32)
    head = bytes.fromhex(entry.salt + entry.commitment)
    spec = BundleSpec(model=head.ljust(entry.stored_size, b"\x5a"))
    header = EncryptionHeader((entry,)).to_dict()
    report = verify(tmp_path, spec, encryption=header, crit=["encryption"])
    assert report.ok and report.facts["encrypted"] is True
    assert "without a key" in report.checks[-1].detail
    # The flag taken away again is another manifest, which nobody signed.
    stripped = spec.members()
    signed = {n: d for n, d in stripped.items() if n != "manifest.json"}
    value = canonical.loads(stripped["manifest.json"]) | {"encryption": header, "crit": ["encryption"]}
    signature = spec.sign(signed | {"manifest.json": canonical.dumps(value)})
    path = tmp_path / "stripped.sealpack"
    path.write_bytes(pack({"mimetype": MIMETYPE, "META/model.sig": signature, **stripped}))
    assert failure(verify_bundle(path, TRUST)) == ("manifest", "DIGEST_MISMATCH")


# --- checksums, disks -----------------------------------------------------------------------------------


def test_a_payload_checksum_that_is_wrong_everywhere(tmp_path: Path) -> None:
    """Local header and directory agree on a CRC that the signed bytes do not have."""
    data = BundleSpec().build()
    path = tmp_path / "x.sealpack"
    path.write_bytes(data)
    with BundleReader.open(path) as bundle:
        crc = bundle.entries["payload/model.gguf"].item.crc.to_bytes(4, "little")
    assert data.count(crc) == 2
    path.write_bytes(data.replace(crc, b"\1\2\3\4"))
    assert failure(verify_bundle(path, TRUST)) == ("content", "CONTAINER_CRC")
    assert verify_bundle(path, TRUST, leaves_only=True).ok  # CRCs say nothing that leaves do not


def test_a_disk_that_fails_midway_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(BundleSpec().build())
    real = BundleReader.read

    def read(self: BundleReader, name: str, limit: int | None = None) -> bytes:
        if name == "card.md":
            raise OSError(5, "Input/output error")
        return real(self, name, limit)

    monkeypatch.setattr(BundleReader, "read", read)
    with pytest.raises(SealpackError) as caught:
        verify_bundle(path, TRUST)
    assert caught.value.code == "IO_ERROR" and "x.sealpack" in caught.value.message


# --- a file that changes --------------------------------------------------------------------------------

SAME_CRC = 0x1DB710641  # the polynomial: bytes changed by it have the checksum they had


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("card.md", "content"),
        ("sbom.cdx.json", "sbom"),
        ("license/terms.json", "terms"),
        ("evidence/own.json", "evidence"),
    ],
)
def test_facts_are_never_taken_from_bytes_swapped_in_after_hashing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: str
) -> None:
    terms = Terms("MIT", "license/LICENSE.txt", hashlib.sha256(b"Test license.\n").hexdigest(), None)
    extra: Files = LICENSE | {
        "license/terms.json": ("license-terms", "application/json", terms.to_bytes()),
        "evidence/own.json": ("evidence", "application/json", b'{"accuracy": "0.91"}'),
    }
    path = tmp_path / "x.sealpack"
    path.write_bytes(BundleSpec(extra=extra).build())
    with BundleReader.open(path) as bundle:
        at = bundle.entries[name].data_at

    def hashed_then_swapped(*args: Any) -> hashing.Content:
        found = hash_all(*args)
        with path.open("r+b") as file:
            file.seek(at)
            changed = int.from_bytes(file.read(5), "little") ^ SAME_CRC
            file.seek(at)
            file.write(changed.to_bytes(5, "little"))
        return found

    hash_all = hashing.check_content
    monkeypatch.setattr(hashing, "check_content", hashed_then_swapped)
    assert failure(verify_bundle(path, TRUST)) == (step, "DIGEST_MISMATCH")
