"""Faults that fuzzing and the bounds found, each held by name."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from support import world

from fuzz import bounds, models
from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.onnx_header import read_onnx_header
from sealpack.format.root import _signed
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle


@pytest.mark.parametrize("version", ["\ud800", "1.6\n", "x", "", 1.6, {}, "1" * 1000])
def test_an_sbom_names_its_version_in_two_numbers(version: object, tmp_path: Path) -> None:
    """A lone surrogate went into the report's facts, and printing them as JSON ended in a traceback."""
    spec = world.BundleSpec()
    members = spec.members()
    sbom = json.loads(members["sbom.cdx.json"]) | {"specVersion": version}
    data = json.dumps(sbom).encode()
    entries = canonical.loads(members["manifest.json"])
    for entry in entries["files"]:
        if entry["name"] == "sbom.cdx.json":
            entry |= {"size": len(data), "sha256": world.hashlib.sha256(data).hexdigest()}
    members |= {"sbom.cdx.json": data, "manifest.json": canonical.dumps(entries)}
    path = tmp_path / "x.sealpack"
    everything = {"mimetype": world.MIMETYPE, "META/model.sig": spec.sign(members), **members}
    path.write_bytes(world.pack(everything))
    report = verify_bundle(path, world.make_trust())
    assert [c.code for c in report.failures] == ["SBOM_INVALID"]


def test_places_in_json_are_spelled_out_only_for_errors() -> None:
    """Text made for every value under one long name took the square of the document's length."""
    with pytest.raises(ValueError, match=r"^\$\.a\[1\]\.k{60}: float has no canonical form$"):
        canonical.dumps({"a": [1, {"k" * 100: 1.5}]})
    with pytest.raises(ValueError, match=r"^\$: integer"):
        canonical.dumps(2**53)


def test_names_of_nested_onnx_graphs_are_bounded() -> None:
    """Every tensor of a nested graph held the names of all graphs around it: 128 KiB for ten bytes."""
    for make in (bounds.onnx_scopes, bounds.onnx_long_scopes):
        with pytest.raises(SealpackError) as caught:
            read_onnx_header(io.BytesIO(make(1 << 18)))
        assert caught.value.code == "MODEL_UNSAFE"
    fine = models.onnx_model(models.block(1, models.block(4, "A")))
    assert read_onnx_header(io.BytesIO(fine)).node_count == 1


def test_a_trust_update_checks_each_signature_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many old roots and many old keyrings: each keyring was verified under each root."""
    key, other, count = PrivateKey.from_scalar(0x77), PrivateKey.from_scalar(0x78), 20
    trust = Trust.from_envelopes(world.make_root(2), world.make_keyring(5), world.make_revocations())

    def old_root(number: int, *keys: PrivateKey) -> Envelope:
        both = {"threshold": len(keys), "keyids": [k.keyid for k in keys]}
        roles = {"root": {"threshold": 1, "keyids": [key.keyid]}, "keyring": both, "revocations": both}
        payload = {"version": 1, "number": number, "keys": [k.public.pem for k in keys], "roles": roles}
        return documents.seal("root", payload, key)

    def old_keyring(number: int) -> Envelope:
        return documents.seal("keyring", {"version": 1, "issued_at": number, "keys": []}, key)

    chain = [old_root(n, key, other) for n in range(count)]
    chain += [old_root(count, key), *(old_keyring(n) for n in range(count))]
    checks: list[PublicKey] = []
    verify = PublicKey.verify

    def counted(self: PublicKey, signature: bytes, message: bytes) -> None:
        checks.append(self)
        verify(self, signature, message)

    monkeypatch.setattr(PublicKey, "verify", counted)
    _signed.cache_clear()
    assert trust.update(chain) == trust
    assert len(checks) <= 4 * len(chain)
