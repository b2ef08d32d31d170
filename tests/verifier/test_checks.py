"""Verification as a whole: order of checks, every flipped byte, and that nothing but a report comes back."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support import site, world
from support.world import CREATOR, LICENSER, STRANGER, BundleSpec

from sealpack.format import canonical, documents, statement
from sealpack.format.chunks import CHUNK_SIZE
from sealpack.format.container import MIMETYPE, BundleReader
from sealpack.format.dsse import Envelope, Signature
from sealpack.format.errors import SealpackError
from sealpack.format.license import BundleGrant
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Watermark
from sealpack.format.trust import Trust
from sealpack.verifier.checks import inspect_bundle, verify_bundle
from sealpack.verifier.render.text import render
from sealpack.verifier.report import Report

TRUST = world.make_trust()


@pytest.fixture()
def bundle_file(tmp_path: Path) -> Path:
    return tmp_path / "x.sealpack"


def verify(path: Path, data: bytes, trust: Trust | None = TRUST, **options: Any) -> Report:
    path.write_bytes(data)
    return verify_bundle(path, trust, **options)


def outcome(path: Path, data: bytes, trust: Trust | None = TRUST, **options: Any) -> str:
    report = verify(path, data, trust, **options)
    return report.failures[0].code or "" if report.failures else "ok"


def resigned(members: dict[str, bytes], spec: BundleSpec | None = None, **meta: bytes) -> bytes:
    """A bundle of these members, signed as they are."""
    made = spec or BundleSpec()
    everything = {"mimetype": MIMETYPE, "META/model.sig": made.sign(members), **meta, **members}
    return world.pack(everything)


def with_manifest(change: dict[str, Any], spec: BundleSpec | None = None) -> dict[str, bytes]:
    """The members of a bundle with manifest members replaced."""
    members = (spec or BundleSpec()).members()
    manifest = canonical.loads(members["manifest.json"]) | change
    return members | {"manifest.json": canonical.dumps(manifest)}


# --- good -----------------------------------------------------------------------------------------------


def test_checks_stand_in_their_order(bundle_file: Path) -> None:
    report = verify(bundle_file, BundleSpec().build())
    assert [c.id for c in report.checks] == [
        "container", "trust", "signature", "manifest", "revocation", "content", "sbom", "terms", "model",
    ]  # fmt: skip
    assert report.ok and report.exit_status == 0
    report.raise_first()
    members = BundleSpec().members()
    assert report.facts["bundle_digest"] == hashlib.sha256(members["manifest.json"]).hexdigest()


def test_with_a_key_alone_trust_is_said_to_be_unchecked(bundle_file: Path) -> None:
    report = verify(bundle_file, BundleSpec().build(), None, key=CREATOR.public)
    assert report.ok
    assert {c.id: c.status for c in report.checks}["trust"] == "skip"
    assert "revocation" not in {c.id for c in report.checks}


def test_whom_to_trust_must_be_said(bundle_file: Path) -> None:
    with pytest.raises(SealpackError) as caught:
        verify(bundle_file, b"", None)
    assert caught.value.code == "USAGE"


def test_progress_counts_payload_bytes(bundle_file: Path) -> None:
    seen: list[int] = []
    model = world.tiny_gguf(3 * CHUNK_SIZE // 4 + 10)
    verify(bundle_file, BundleSpec(model=model).build(), progress=seen.append)
    assert sum(seen) == len(model) and seen[0] == 2 * CHUNK_SIZE and len(seen) == 2


def test_verified_values_come_only_with_a_good_report(bundle_file: Path) -> None:
    good = BundleSpec().build()
    bundle_file.write_bytes(good)
    report, found = inspect_bundle(bundle_file, TRUST)
    assert report.ok and found is not None
    assert (found.manifest.bundle_id, found.statement.bundle_id) == ("acme/tiny", "acme/tiny")
    at = good.index(b"GGUF") + 200
    bundle_file.write_bytes(good[:at] + b"\xaa" + good[at + 1 :])
    assert inspect_bundle(bundle_file, TRUST)[1] is None


# --- one flipped byte anywhere --------------------------------------------------------------------------


def regions(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Named byte ranges that cover the file."""
    reader = BundleReader(io.BytesIO(data))
    end = 0
    for name, place in reader.entries.items():
        yield f"header of {name}", place.header_at, place.data_at
        yield name, place.data_at, place.data_at + place.item.size
        end = place.data_at + place.item.size
    yield "directory and end", end, len(data)


def sampled(data: bytes, per_region: int) -> list[int]:
    """Some offsets of every region, always its first and last byte."""
    rng = random.Random(1)
    found: set[int] = set()
    for _, start, stop in regions(data):
        found |= {start, stop - 1}
        found |= {rng.randrange(start, stop) for _ in range(per_region)}
    return sorted(found)


@pytest.fixture(scope="module")
def rich() -> bytes:
    """A bundle that carries trust documents, a license and legal texts."""
    spec = BundleSpec(extra={"payload/vocab.txt": ("vocabulary", "text/plain", b"[PAD]\n")})
    digest = hashlib.sha256(spec.members()["manifest.json"]).hexdigest()
    license = site.make_license(bundles=(BundleGrant("acme/tiny", bundle_digest=digest),))
    spec.meta = {
        "META/trust/root.1.json": TRUST.root.envelope.to_bytes(),
        "META/trust/keyring.json": TRUST.keyring.envelope.to_bytes(),
        "META/trust/revocations.json": TRUST.revocations.envelope.to_bytes(),
        f"META/license/{license.license_id}.json": documents.seal(
            "license", license.to_dict(), LICENSER
        ).to_bytes(),
    }
    return spec.build()


def test_the_rich_bundle_is_good(rich: bytes, bundle_file: Path) -> None:
    report, found = inspect_bundle_bytes(bundle_file, rich)
    assert report.ok, report.failures
    assert found is not None and [li.license_id for li in found.licenses]


def inspect_bundle_bytes(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return inspect_bundle(path, TRUST)


def test_one_flipped_byte_anywhere_is_exit_3(rich: bytes, bundle_file: Path) -> None:
    for at in sampled(rich, 12):
        changed = bytearray(rich)
        changed[at] ^= 1 << at % 8
        report = verify(bundle_file, bytes(changed))
        assert report.exit_status == 3, (at, report.failures)


@pytest.mark.slow
def test_every_single_byte_flipped_is_exit_3(rich: bytes, bundle_file: Path) -> None:
    for at in range(len(rich)):
        changed = bytearray(rich)
        changed[at] ^= 1 << at % 8
        assert verify(bundle_file, bytes(changed)).exit_status == 3, at


def test_one_flipped_byte_anywhere_with_leaves_and_with_a_key(bundle_file: Path) -> None:
    """By leaves alone the payload's CRC is not looked at, but it stands twice and must agree."""
    good = BundleSpec().build()
    for at in sampled(good, 6):
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        leaves = verify(bundle_file, bytes(changed), leaves_only=True)
        assert leaves.exit_status == 3, at
        assert verify(bundle_file, bytes(changed), None, key=CREATOR.public).exit_status == 3, at


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_a_report_with_exit_3(
    rich: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(rich)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        width = data.draw(st.integers(0, 40))
        changed[at : at + width] = data.draw(st.binary(max_size=40))
    path = tmp_path_factory.getbasetemp() / "damaged.sealpack"
    report = verify(path, bytes(changed))
    assert report.exit_status == (0 if bytes(changed) == rich else 3)
    assert render(report) and report.to_dict()["verdict"] == ("pass" if report.ok else "fail")


# --- signature and statement ----------------------------------------------------------------------------


def test_an_unsigned_bundle(bundle_file: Path) -> None:
    assert outcome(bundle_file, world.pack({"mimetype": MIMETYPE} | BundleSpec().members())) == "SIG_MISSING"


def test_whose_signature_it_is(bundle_file: Path) -> None:
    assert outcome(bundle_file, BundleSpec(key=STRANGER).build()) == "SIG_KEY_UNKNOWN"
    assert outcome(bundle_file, BundleSpec(key=LICENSER).build()) == "SIG_KEY_ROLE"
    assert outcome(bundle_file, BundleSpec(bundle_id="other/tiny").build()) == "SIG_NAMESPACE"
    assert outcome(bundle_file, BundleSpec(bundle_id="acme2/tiny").build()) == "SIG_NAMESPACE"
    good = BundleSpec().build()
    assert outcome(bundle_file, good, None, key=STRANGER.public) == "SIG_KEY_UNKNOWN"
    assert outcome(bundle_file, good, None, key=world.SETTLEMENT.public) == "SIG_KEY_UNKNOWN"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"required_schemes": ("ecdsa-p256-sha256", "ml-dsa-65")}, "SIG_SCHEME"),
        ({"required_schemes": ("ed25519",)}, "SIG_SCHEME"),
        ({"required_schemes": ()}, "SIG_SCHEME"),
        ({"min_keyring": 2}, "TRUST_ROLLBACK"),
        ({"min_revocations": 2}, "TRUST_ROLLBACK"),
        ({"bundle_id": "acme/other"}, "MANIFEST_MISMATCH"),
        ({"release_index": 2}, "MANIFEST_MISMATCH"),
        ({"manifest_sha256": "0" * 64}, "DIGEST_MISMATCH"),
    ],
)
def test_what_the_statement_says(bundle_file: Path, said: dict[str, Any], code: str) -> None:
    assert outcome(bundle_file, BundleSpec(statement=said).build()) == code


def test_schemes_are_required_with_a_key_too(bundle_file: Path) -> None:
    spec = BundleSpec(statement={"required_schemes": ("ecdsa-p256-sha256", "ml-dsa-65")})
    assert outcome(bundle_file, spec.build(), None, key=CREATOR.public) == "SIG_SCHEME"


def test_the_last_second_has_a_date(bundle_file: Path) -> None:
    last = BundleSpec(statement={"signed_at": statement.LAST_SECOND}).build()
    assert "9999-12-31" in render(verify(bundle_file, last))
    beyond = BundleSpec(statement={"signed_at": statement.LAST_SECOND + 1}).build()
    assert outcome(bundle_file, beyond) == "SIG_STATEMENT"


# --- revocation -----------------------------------------------------------------------------------------


def test_withdrawn_bundles_and_floors(bundle_file: Path) -> None:
    spec = BundleSpec(release_index=3)
    digest = hashlib.sha256(spec.members()["manifest.json"]).hexdigest()
    for lists, code in (
        ({"bundles": [digest]}, "BUNDLE_REVOKED"),
        ({"floors": [{"bundle_id": "acme/tiny", "floor": 4}]}, "BUNDLE_FLOOR"),
        ({"floors": [{"bundle_id": "acme/tiny", "floor": 3}]}, "ok"),
        ({"floors": [{"bundle_id": "acme/tiny2", "floor": 9}]}, "ok"),
    ):
        found = verify(bundle_file, spec.build(), world.make_trust(**lists))
        assert [c.code for c in found.failures] == ([] if code == "ok" else [code])
        assert found.exit_status == (0 if code == "ok" else 4)


def test_a_revoked_key_and_a_digest_that_stays_good(bundle_file: Path) -> None:
    spec = BundleSpec()
    data = spec.build()
    signed = statement.read_signature(spec.sign(spec.members())).digest
    for good, code in (([], "KEY_REVOKED"), (["0" * 64], "KEY_REVOKED"), ([signed], "ok")):
        trust = world.make_trust(keys=[{"keyid": CREATOR.keyid, "good": good}])
        assert outcome(bundle_file, data, trust) == code
    earlier = BundleSpec(statement={"signed_at": 1}).build()  # back-dated
    trust = world.make_trust(keys=[{"keyid": CREATOR.keyid, "good": [signed]}])
    assert outcome(bundle_file, earlier, trust) == "KEY_REVOKED"


def test_newer_revocations_in_the_bundle_count(bundle_file: Path) -> None:
    newer = world.make_revocations(2, keys=[{"keyid": CREATOR.keyid, "good": []}]).to_bytes()
    data = BundleSpec(meta={"META/trust/revocations.json": newer}).build()
    assert outcome(bundle_file, data) == "KEY_REVOKED"


def test_no_more_trust_is_read_than_a_trust_file_holds(bundle_file: Path) -> None:
    """Whoever carries a bundle can add to META: thousands of documents would be read for minutes."""
    envelope = Envelope(documents.payload_type("root"), b" " * 200_000, (Signature("0" * 64, b"x"),))
    meta = {f"META/trust/root.{n}.json": envelope.to_bytes() for n in range(2, 18)}
    assert sum(map(len, meta.values())) > LIMITS.parcel_bytes
    assert outcome(bundle_file, BundleSpec(meta=meta).build()) == "CONTAINER_LIMIT"
    meta.popitem()
    assert outcome(bundle_file, BundleSpec(meta=meta).build()) == "JSON_INVALID"


def test_a_bundle_stays_good_over_two_new_roots(bundle_file: Path) -> None:
    """Its own trust documents are from the first root; the verifier's root has moved on twice."""
    second, third = STRANGER, LICENSER
    root_3 = world.make_root(3, (third,), signers=(second, third))
    entries = [world.key_entry(CREATOR, ["bundle"])]
    keyring = documents.seal("keyring", {"version": 5, "issued_at": world.T0, "keys": entries}, third)
    lists = canonical.loads(world.make_revocations(5).payload)
    now = Trust.from_envelopes(root_3, keyring, documents.seal("revocations", lists, third))
    old = BundleSpec(
        meta={
            "META/trust/root.1.json": TRUST.root.envelope.to_bytes(),
            "META/trust/keyring.json": TRUST.keyring.envelope.to_bytes(),
            "META/trust/revocations.json": TRUST.revocations.envelope.to_bytes(),
        }
    )
    assert outcome(bundle_file, old.build(), now) == "ok"


# --- what rides in META ---------------------------------------------------------------------------------


def license_entry(key: Any = LICENSER, **members: Any) -> bytes:
    license = site.make_license(**{"bundles": (BundleGrant("acme/tiny"),)} | members)
    return documents.seal("license", license.to_dict(), key).to_bytes()


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("META/license/L-1.json", license_entry(), "ok"),
        ("META/license/L-2.json", license_entry(), "CONTAINER_META"),
        ("META/license/L-1.json", license_entry(bundles=(BundleGrant("acme/big"),)), "CONTAINER_META"),
        ("META/license/L-1.json", license_entry(STRANGER), "LIC_KEY_UNTRUSTED"),
        ("META/license/L-1.json", license_entry(bundles=(BundleGrant("other/x"),)), "LIC_KEY_UNTRUSTED"),
        ("META/license/L-1.json", license_entry(issuer="Somebody else"), "LIC_KEY_UNTRUSTED"),
        ("META/license/L-1.json", world.make_root().to_bytes(), "DOC_TYPE"),
        ("META/license/L-1.json", b"{}", "DSSE_INVALID"),
        ("META/license/L-1.json", b"\xff" * 100, "JSON_INVALID"),
        ("META/license/L-1.json", b"[" * 5000, "JSON_LIMIT"),
        ("META/license/L-1.json", b" " * 600_000, "CONTAINER_LIMIT"),
        ("META/trust/keyring.json", world.make_root().to_bytes(), "CONTAINER_META"),
        ("META/trust/keyring.json", license_entry(), "CONTAINER_META"),
        ("META/trust/root.2.json", world.make_root().to_bytes(), "CONTAINER_META"),
        ("META/trust/root.3.json", world.make_root(3).to_bytes(), "TRUST_ROLLBACK"),
        ("META/trust/keyring.json", b"", "JSON_INVALID"),
        ("META/model.mldsa65.sig", b"\0" * 3309, "SIG_SCHEME"),
    ],
)
def test_members_of_meta(bundle_file: Path, name: str, data: bytes, code: str) -> None:
    assert outcome(bundle_file, BundleSpec(meta={name: data}).build()) == code


def test_meta_is_read_with_a_key_alone_as_far_as_it_can_be(bundle_file: Path) -> None:
    for name, data, code in (
        ("META/trust/keyring.json", world.make_root().to_bytes(), "CONTAINER_META"),
        ("META/trust/keyring.json", b"x", "JSON_INVALID"),
        ("META/license/L-1.json", license_entry(), "SIG_KEY_UNKNOWN"),
        ("META/model.mldsa65.sig", b"x", "SIG_SCHEME"),
    ):
        spec = BundleSpec(meta={name: data})
        assert outcome(bundle_file, spec.build(), None, key=CREATOR.public) == code


def test_a_revoked_license_may_not_ride_along(bundle_file: Path) -> None:
    data = BundleSpec(meta={"META/license/L-1.json": license_entry()}).build()
    assert outcome(bundle_file, data, world.make_trust(licenses=["L-1"])) == "LIC_REVOKED"
    assert outcome(bundle_file, data, world.make_trust(licenses=["L-10"])) == "ok"


def test_a_marked_bundle_takes_only_its_own_license(bundle_file: Path) -> None:
    for marked_for, code in (("L-1", "ok"), ("L-2", "CONTAINER_META")):
        mark = Watermark("sealpack/gaussian/v1", "0" * 64, "1" * 64, marked_for)
        members = with_manifest({"watermark": canonical.loads(watermark_json(mark)), "crit": ["watermark"]})
        data = resigned(members, **{"META/license/L-1.json": license_entry()})
        assert outcome(bundle_file, data) == code


def watermark_json(mark: Watermark) -> bytes:
    return canonical.dumps(
        {
            "scheme": mark.scheme,
            "params_sha256": mark.params_sha256,
            "commitment": mark.commitment,
            "license_id": mark.license_id,
        }
    )


# --- manifest, content ----------------------------------------------------------------------------------


def file_change(name: str, **members: Any) -> dict[str, bytes]:
    """Members whose manifest says something else of one file; everything signed."""
    files = canonical.loads(BundleSpec().members()["manifest.json"])["files"]
    return with_manifest({"files": [f | members if f["name"] == name else f for f in files]})


def test_a_whole_digest_that_is_wrong_while_leaves_are_right(bundle_file: Path) -> None:
    members = file_change("payload/model.gguf", sha256="0" * 64)
    spec = BundleSpec()
    resources = {n: hashlib.sha256(d).hexdigest() for n, d in {"mimetype": MIMETYPE, **members}.items()}
    resources["payload/model.gguf"] = "0" * 64
    said = statement.Statement(resources, "acme/tiny", 1, resources["manifest.json"], world.T0)
    everything = {"mimetype": MIMETYPE, "META/model.sig": statement.sign(said, spec.key), **members}
    data = world.pack(everything)
    assert outcome(bundle_file, data) == "DIGEST_MISMATCH"
    assert outcome(bundle_file, data, leaves_only=True) == "SBOM_INVALID"  # which names the right digest


def test_sizes_names_and_kinds_that_disagree(bundle_file: Path) -> None:
    assert outcome(bundle_file, resigned(file_change("card.md", size=6))) == "MANIFEST_MISMATCH"
    assert outcome(bundle_file, resigned(file_change("card.md", sha256="0" * 64))) == "SIG_RESOURCES"
    assert outcome(bundle_file, resigned(with_manifest({"kind": "onnx"}))) == "MANIFEST_MISMATCH"
    extra = {**BundleSpec().members(), "notes.md": b"not in the manifest"}
    assert outcome(bundle_file, resigned(extra)) == "SIG_RESOURCES"
    assert outcome(bundle_file, resigned(with_manifest({"version": "x"}))) == "MANIFEST_INVALID"
    assert outcome(bundle_file, resigned(with_manifest({"crit": ["colour"]}))) == "DOC_CRIT"


def test_every_changed_file_is_named(bundle_file: Path) -> None:
    spec = BundleSpec(extra={"payload/vocab.txt": ("vocabulary", "text/plain", b"[PAD]\n")})
    members = spec.members()
    signature = spec.sign(members)
    members |= {"card.md": b"# Other", "payload/vocab.txt": b"[UNK]\n"}
    report = verify(bundle_file, world.pack({"mimetype": MIMETYPE, "META/model.sig": signature, **members}))
    assert [(c.code, c.detail.split()[0]) for c in report.failures] == [
        ("DIGEST_MISMATCH", "card.md"),
        ("CHUNK_MISMATCH", "payload/vocab.txt:"),
    ]


def test_the_changed_chunk_is_named(bundle_file: Path) -> None:
    model = world.tiny_gguf(3 * CHUNK_SIZE // 4)
    spec = BundleSpec(model=model)
    members = spec.members()
    signature = spec.sign(members)
    at = 2 * CHUNK_SIZE + 77
    members[spec.model_name] = model[:at] + bytes([model[at] ^ 1]) + model[at + 1 :]
    data = world.pack({"mimetype": MIMETYPE, "META/model.sig": signature, **members})
    for leaves_only in (False, True):
        report = verify(bundle_file, data, leaves_only=leaves_only)
        assert [c.detail for c in report.failures] == ["payload/model.gguf: chunk 2 was changed"]


def test_metadata_has_its_own_limit(bundle_file: Path) -> None:
    notes = {"notes.md": ("asset", "text/markdown", bytes((16 << 20) + 1))}
    assert outcome(bundle_file, BundleSpec(extra=notes).build()) == "CONTAINER_LIMIT"


# --- the machine, and the page --------------------------------------------------------------------------


def test_a_failing_disk_is_no_verdict(bundle_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle_file.write_bytes(BundleSpec().build())

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(BundleReader, "blocks", fail)
    with pytest.raises(SealpackError) as caught:
        verify_bundle(bundle_file, TRUST)
    assert caught.value.code == "IO_ERROR"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "none", "FILE_MISSING"), (tmp_path, "IO_ERROR")):
        with pytest.raises(SealpackError) as caught:
            verify_bundle(path, TRUST)
        assert caught.value.code == code


def test_nothing_a_file_says_reaches_the_terminal_raw(bundle_file: Path) -> None:
    """An issuer's name is shown; escape sequences in it are spelled out."""
    entry = world.key_entry(CREATOR, ["bundle"]) | {"issuer": "Acme\x1b[2J\u202e"}
    trust = Trust.from_envelopes(
        world.make_root(), world.make_keyring(entries=[entry]), world.make_revocations()
    )
    report = verify(bundle_file, BundleSpec().build(), trust)
    assert report.ok
    assert all(line.isprintable() for line in render(report).split("\n"))
    assert "\\x1b[2J\\u202e" in render(report)
