"""`build --encrypt`: the bundle, its record, the same build again, and keys for devices."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder.conftest import T0, Builder, sealpack
from support.split import split_gguf
from support.world import tiny_gguf

from sealpack.builder import license_files, licensing
from sealpack.builder.assemble import Encryption, MarkOrder
from sealpack.builder.build_record import BuildRecord, record_path
from sealpack.builder.encrypt import BuildKey
from sealpack.builder.watermark.vault import Vault
from sealpack.format import canonical, documents
from sealpack.format.activation import Activation, ActivationRequest
from sealpack.format.chunked import FileCipher, chunk_at, chunk_count
from sealpack.format.container import BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.hybrid import HybridPrivateKey
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.format.license import open_license
from sealpack.format.manifest import Manifest
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle

PASSPHRASE = "correct horse battery"
KEY = BuildKey(bytes(range(32)))


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """The passphrase file."""
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


def manifest_of(path: Path) -> Manifest:
    with BundleReader.open(path) as bundle:
        return Manifest.from_bytes(bundle.read("manifest.json"))


def plain_files(path: Path, key: bytes) -> dict[str, bytes]:
    """Every encrypted file of a bundle, opened chunk by chunk."""
    manifest = manifest_of(path)
    assert manifest.encryption_header is not None
    found = {}
    with BundleReader.open(path) as bundle:
        for entry in manifest.encryption_header.files:
            stored = b"".join(bundle.blocks(entry.name))
            cipher = FileCipher.open(key, entry, manifest.bundle_id, manifest.release_index)
            assert stored.startswith(cipher.prefix)
            out = bytearray(entry.plain_size)
            for number in range(chunk_count(entry.plain_size)):
                place = memoryview(out)[number * 16384 : (number + 1) * 16384]
                cipher.open_into(number, stored[chunk_at(number) : chunk_at(number + 1)], place)
            found[entry.name] = bytes(out)
    return found


def build_encrypted(home: Path, model: Path, out: Path, words: Path, *more: str | Path) -> int:
    options = ("--config", home / "sealpack.toml", "--seal-passphrase-file", words)
    return sealpack("build", model, "--encrypt", "--out", out, *options, *more)


@pytest.fixture
def bundle(home: Path, gguf_model: Path, tmp_path: Path, words: Path) -> Path:
    out = tmp_path / "e.sealpack"
    assert build_encrypted(home, gguf_model, out, words) == 0
    return out


def record_of(bundle: Path) -> BuildRecord:
    return BuildRecord.open(record_path(bundle), PASSPHRASE)


def test_only_the_record_opens_the_weights(bundle: Path, gguf_model: Path, trust: Trust) -> None:
    assert verify_bundle(bundle, trust).ok
    weights, manifest, record = gguf_model.read_bytes(), manifest_of(bundle), record_of(bundle)
    assert plain_files(bundle, record.key.input_key) == {"payload/model.gguf": weights}
    assert weights[100:200] not in bundle.read_bytes()
    assert record.bundle_digest == manifest.bundle_digest
    assert (record_path(bundle).stat().st_mode & 0o777) == 0o600
    assert record.key.input_key not in record_path(bundle).read_bytes()
    assert record.key.input_key.hex() not in repr(record)


def test_external_weights_are_encrypted_and_other_files_are_not(
    build: Builder, external_model: Path, tmp_path: Path
) -> None:
    made = build(external_model, tmp_path / "e.sealpack", encryption=Encryption(KEY))
    header = made.manifest.encryption_header
    assert header is not None
    assert [f.name for f in header.files] == ["payload/model.onnx", "payload/weights/net.bin"]
    assert plain_files(made.path, KEY.input_key) == {
        "payload/model.onnx": external_model.read_bytes(),
        "payload/weights/net.bin": (external_model.parent / "weights/net.bin").read_bytes(),
    }
    with BundleReader.open(made.path) as opened:
        sbom = json.loads(opened.read("sbom.cdx.json"))
    properties = [p["value"] for p in sbom["metadata"]["component"]["properties"]]
    assert any("decrypted in memory" in value for value in properties)


def test_every_build_has_its_own_key_and_salts(
    home: Path, gguf_model: Path, tmp_path: Path, words: Path
) -> None:
    for name in ("a", "b"):
        assert (
            build_encrypted(home, gguf_model, tmp_path / f"{name}.sealpack", words, "--signed-at", "1") == 0
        )
    a, b = (record_of(tmp_path / f"{name}.sealpack") for name in "ab")
    assert a.key.input_key != b.key.input_key
    assert a.key.salts != b.key.salts
    assert a.bundle_digest != b.bundle_digest


def test_the_record_makes_the_same_build_again(
    home: Path,
    gguf_model: Path,
    bundle: Path,
    words: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check = ("build", gguf_model, "--config", home / "sealpack.toml", "--check", bundle)
    assert sealpack(*check, "--seal-passphrase-file", words) == 0
    moved = record_path(bundle).rename(tmp_path / "elsewhere.seal")
    assert sealpack(*check, "--seal", moved, "--seal-passphrase-file", words) == 0
    assert sealpack(*check, "--seal-passphrase-file", words) == 1
    assert "FILE_MISSING" in capsys.readouterr().err
    gguf_model.write_bytes(gguf_model.read_bytes()[:-1] + b"\x55")
    assert sealpack(*check, "--seal", moved, "--seal-passphrase-file", words) == 3
    assert "payload/model.gguf" in capsys.readouterr().out


def test_a_record_is_never_replaced_and_none_is_left_after_a_failure(
    home: Path, gguf_model: Path, bundle: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, kept = bundle.read_bytes(), record_path(bundle).read_bytes()
    assert build_encrypted(home, gguf_model, bundle, words, "--force") == 2
    assert "OUTPUT_EXISTS" in capsys.readouterr().err
    assert (bundle.read_bytes(), record_path(bundle).read_bytes()) == (before, kept)
    record_path(bundle).unlink()
    assert build_encrypted(home, gguf_model, bundle, words) == 2  # the bundle is there
    assert not record_path(bundle).exists()


def test_a_bundle_that_cannot_appear_takes_its_record_with_it(
    build: Builder, gguf_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise SealpackError("STORE_FULL", "no space left")

    monkeypatch.setattr("sealpack.format.files._publish", fails)
    record, written = tmp_path / "e.seal", []
    real = BuildRecord.write

    def write(self: BuildRecord, path: Path, passphrase: str) -> None:
        written.append(path)
        monkeypatch.undo()
        real(self, path, passphrase)
        monkeypatch.setattr("sealpack.format.files._publish", fails)

    monkeypatch.setattr(BuildRecord, "write", write)
    with pytest.raises(SealpackError, match="no space left"):
        build(gguf_model, tmp_path / "e.sealpack", encryption=Encryption(KEY, record, PASSPHRASE))
    assert written == [record]
    assert not record.exists() and not (tmp_path / "e.sealpack").exists()


@pytest.mark.parametrize("short", ["", "seven77"])
def test_a_passphrase_that_is_none(
    home: Path, gguf_model: Path, tmp_path: Path, short: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").write_text(short + "\n")
    assert build_encrypted(home, gguf_model, tmp_path / "e.sealpack", tmp_path / "short") == 2
    assert "KEY_UNREADABLE" in capsys.readouterr().err
    assert not list(tmp_path.glob("e.*"))


def test_options_that_need_encrypt(home: Path, gguf_model: Path, tmp_path: Path) -> None:
    options = ("--config", home / "sealpack.toml", "--out", tmp_path / "e.sealpack")
    assert sealpack("build", gguf_model, *options, "--seal", tmp_path / "e.seal") == 2


def test_a_tier_is_not_claimed_for_what_nobody_can_judge(
    home: Path, gguf_model: Path, tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.sealpack"
    assert build_encrypted(home, gguf_model, out, words, "--tier", "Verified") == 4
    assert "TIER_UNPROVEN" in capsys.readouterr().err
    assert build_encrypted(home, gguf_model, out, words, "--tier", "Experimental") == 0


def test_a_split_model_is_encrypted_as_the_one_it_is_merged_to(
    build: Builder, tmp_path: Path, trust: Trust
) -> None:
    pytest.importorskip("gguf")
    tinylm = Path(__file__).parents[2] / "builder/src/sealpack/builder/demo/data/tinylm-q8_0.gguf"
    first = split_gguf(tinylm, tmp_path / "parts", 3, prefix="tinylm")
    plain, sealed = tmp_path / "p.sealpack", tmp_path / "e.sealpack"
    build(first, plain)
    build(first, sealed, encryption=Encryption(KEY))
    with BundleReader.open(plain) as bundle:
        merged = b"".join(bundle.blocks("payload/model.gguf"))
    assert plain_files(sealed, KEY.input_key) == {"payload/model.gguf": merged}
    assert verify_bundle(sealed, trust).ok


def test_a_marked_copy_is_encrypted_after_it_was_marked(
    build: Builder, onnx_model: Path, tmp_path: Path, trust: Trust
) -> None:
    vault = Vault.create(tmp_path / "v.vault", PASSPHRASE, scrypt_n=1 << 14)
    mark = MarkOrder(vault, "Nord", "L-1", T0)
    made = build(onnx_model, tmp_path / "m.sealpack", mark=mark, encryption=Encryption(KEY))
    assert made.manifest.watermark is not None and verify_bundle(made.path, trust).ok
    (weights,) = plain_files(made.path, KEY.input_key).values()
    assert weights != onnx_model.read_bytes() and len(weights) == onnx_model.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["home", "onnx"]  # no marked copy


def test_without_a_terminal_the_option_is_named(
    home: Path, gguf_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--config", home / "sealpack.toml", "--out", tmp_path / "e.sealpack")
    assert sealpack("build", gguf_model, "--encrypt", *options) == 2
    assert "--seal-passphrase-file" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_model(build: Builder, tmp_path: Path) -> None:
    model, peaks = tmp_path / "big.gguf", []
    for values in (1 << 20, 1 << 23):  # 4 and 32 MiB
        model.write_bytes(tiny_gguf(values))
        tracemalloc.start()
        build(model, tmp_path / f"{values}.sealpack", encryption=Encryption(KEY))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (8 << 20)


# --- the record ---------------------------------------------------------------------------------------


def damaged(data: bytes) -> Iterator[bytes]:
    value = canonical.loads(data)
    yield b""
    yield b"{}"
    yield data[:-1]
    yield canonical.dumps(value | {"schema": "sealpack/vault/v1"})
    yield canonical.dumps(value | {"cipher": "none"})
    yield canonical.dumps(value | {"nonce": "00" * 12})
    yield canonical.dumps(value | {"ciphertext": "!"})
    yield canonical.dumps(value | {"kdf": value["kdf"] | {"n": (1 << 16) + 1}})
    yield canonical.dumps(value | {"kdf": value["kdf"] | {"n": 1 << 30}})


def test_a_record_fits_its_schemas(bundle: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = Path(__file__).parents[2] / "specs/schemas"
    for name, value in (
        ("build-record", canonical.loads(record_path(bundle).read_bytes())),
        ("build-record-content", record_of(bundle)._to_dict()),
    ):
        schema = json.loads((schemas / f"{name}.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(value, schema)


def test_a_damaged_record_and_a_wrong_passphrase(bundle: Path, tmp_path: Path) -> None:
    record = record_path(bundle)
    for data in damaged(record.read_bytes()):
        (tmp_path / "bad.seal").write_bytes(data)
        with pytest.raises(SealpackError) as caught:
            BuildRecord.open(tmp_path / "bad.seal", PASSPHRASE)
        assert caught.value.code == "RECORD_INVALID"
    with pytest.raises(SealpackError) as caught:
        BuildRecord.open(record, "another passphrase")
    assert caught.value.code == "RECORD_INVALID"


@pytest.mark.parametrize("wrong", [{"input_key": "AAAA"}, {"files": [{"name": "x", "salt": "00"}]}])
def test_a_record_of_other_content(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, object]
) -> None:
    record = record_of(bundle)
    content = record._to_dict() | wrong
    monkeypatch.setattr(BuildRecord, "_to_dict", lambda _: content)
    record.write(tmp_path / "odd.seal", PASSPHRASE)
    with pytest.raises(SealpackError) as caught:
        BuildRecord.open(tmp_path / "odd.seal", PASSPHRASE)
    assert caught.value.code == "RECORD_INVALID"


# --- keys for devices ---------------------------------------------------------------------------------


class Device:
    """A device that asks."""

    def __init__(self, trust: Trust, folder: Path, *, hybrid: bool = True) -> None:
        self.key = PrivateKey.generate(ED25519)
        self.hybrid = HybridPrivateKey.generate()
        hpke = self.hybrid.public if hybrid else None
        made = ActivationRequest(self.key.public, "ab" * 16, T0, trust.root_digest, "test", hpke_key=hpke)
        envelope = documents.seal("activation-request", made.to_dict(), self.key)
        assert ActivationRequest.open(envelope).hpke_key == hpke
        self.id = made.device_id
        self.path = folder / "request.json"
        self.path.write_bytes(Parcel((envelope,)).to_bytes())


def issue(home: Path, *more: str | Path) -> int:
    return sealpack("license", "issue", "--project", home, "--customer", "Nord", *more)


COMMERCIAL = ("--preset", "commercial", "--until", "2090-01-01")


def test_the_key_reaches_the_device_that_asked_and_no_other(
    home: Path, bundle: Path, words: Path, trust: Trust, tmp_path: Path
) -> None:
    device, out = Device(trust, tmp_path), tmp_path / "n.license"
    seal = ("--seal", record_path(bundle), "--seal-passphrase-file", words)
    asked = ("--bundle", bundle, "--request", device.path, "--out", out)
    assert issue(home, *COMMERCIAL, *asked, *seal) == 0
    (envelope,) = Parcel.from_bytes(out.read_bytes(), "l").of_kind("activation")
    activation = Activation.open(envelope, trust)
    (wrapped,) = activation.keys
    names = (activation.license_id, activation.device_id)
    assert device.hybrid.unwrap(wrapped, *names) == record_of(bundle).key.input_key
    with pytest.raises(SealpackError, match="not wrapped for this device"):
        HybridPrivateKey.generate().unwrap(wrapped, *names)
    assert hashlib.sha256(record_of(bundle).key.input_key).hexdigest() not in out.read_text()


def test_refusals(
    home: Path,
    bundle: Path,
    words: Path,
    trust: Trust,
    tmp_path: Path,
    gguf_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = Device(trust, tmp_path)
    seal = ("--seal", record_path(bundle), "--seal-passphrase-file", words)
    asked = ("--bundle", bundle, "--request", device.path)

    def refused(code: str, said: str, *arguments: str | Path) -> None:
        assert issue(home, *arguments) != 0
        err = capsys.readouterr().err
        assert f"error[{code}]" in err and said in err

    refused("USAGE", "binds no device", "--preset", "open_source", "--bundle", bundle)
    refused("USAGE", "binds no device", "--preset", "open_source", *asked, *seal)
    refused("USAGE", "record of its build", *COMMERCIAL, *asked)
    refused("USAGE", "--request", *COMMERCIAL, "--bundle", bundle, *seal)
    other = tmp_path / "o.sealpack"
    assert build_encrypted(home, gguf_model, other, words) == 0
    wrong = ("--seal", record_path(other), "--seal-passphrase-file", words)
    refused("USAGE", "record of its build", *COMMERCIAL, *asked, *wrong)
    refused("BUNDLE_MISMATCH", "does not cover", *COMMERCIAL, *asked, *seal, *wrong)
    old = Device(trust, tmp_path, hybrid=False)
    refused("USAGE", "sent no key", *COMMERCIAL, "--bundle", bundle, "--request", old.path, *seal)
    assert not list((home / "licenses").glob("*.license"))


def test_a_license_that_binds_no_device_does_not_ride_along(
    build: Builder, home: Path, gguf_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = build(gguf_model, tmp_path / "p.sealpack").path
    out = tmp_path / "free.license"
    assert issue(home, "--preset", "open_source", "--bundle", plain, "--out", out) == 0
    (envelope,) = Parcel.from_bytes(out.read_bytes(), "l").of_kind("license")
    with pytest.raises(SealpackError, match="binds no device"):
        build(gguf_model, tmp_path / "e.sealpack", encryption=Encryption(KEY), licenses=(envelope,))
    assert not (tmp_path / "e.sealpack").exists()


def test_an_activation_holds_so_many_keys(home: Path, trust: Trust, tmp_path: Path, build: Builder) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(tiny_gguf())
    made = build(model, tmp_path / "p.sealpack")
    plain, out = made.manifest, tmp_path / "n.license"
    assert issue(home, *COMMERCIAL, "--bundle", made.path, "--out", out) == 0
    device = Device(trust, tmp_path)
    (envelope,) = Parcel.from_bytes(out.read_bytes(), "l").of_kind("license")
    issued = licensing.Issued(open_license(envelope, trust), envelope)
    issuer = licensing.Issuer(PrivateKey.load(home / "keys/license.pem"), trust)
    request = license_files.read_request(device.path.read_bytes(), "request")
    records = [BuildRecord(f"{n:064x}", plain.bundle_id, plain.version, 1, KEY) for n in range(129)]
    with pytest.raises(SealpackError, match="128 builds"):
        licensing.activate(issued, issuer, request, now=T0, records=records)
    full = licensing.activate(issued, issuer, request, now=T0, records=records[:128])
    assert full.activation is not None
    assert len(Activation.open(full.activation, trust).keys) == 128
