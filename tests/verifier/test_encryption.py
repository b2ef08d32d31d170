"""The encryption formats: header and wrapped key as read, and vectors opened by a reader written here."""

from __future__ import annotations

import hashlib
import hmac
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from support.world import BundleSpec

from sealpack.format import canonical
from sealpack.format.encryption import EncryptedFile, EncryptionHeader, WrappedKey
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.fields import Fields
from sealpack.format.manifest import Manifest

HOME = Path(__file__).parents[2] / "specs/vectors/encryption"
HEADERS = sorted(p.parent.name for p in HOME.glob("*/header.json"))
STREAMS = sorted(p.parent.name for p in HOME.glob("*/stored.bin"))


def case_of(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((HOME / name / "case.json").read_text())
    assert case["expect"] == "ok" or case["expect"] in CODES
    return case


def read_header(name: str) -> EncryptionHeader:
    value = canonical.loads((HOME / name / "header.json").read_bytes())
    return EncryptionHeader.parse(Fields(value, "manifest.encryption", "MANIFEST_INVALID"))


@pytest.mark.parametrize("name", HEADERS)
def test_header(name: str) -> None:
    expect = case_of(name)["expect"]
    if expect == "ok":
        written = canonical.dumps(read_header(name).to_dict())
        assert written == (HOME / name / "header.json").read_bytes()
        return
    with pytest.raises(SealpackError) as caught:
        read_header(name)
    assert caught.value.code == expect


def derive(case: dict[str, Any], salt: bytes) -> tuple[bytes, int, bytes]:
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + case["context"].encode()
    out = HKDFExpand(hashes.SHA256(), 76, info).derive(bytes.fromhex(case["input_key"]))
    return out[:32], int.from_bytes(out[32:44], "big"), out[44:]


def open_stored(case: dict[str, Any], stored: bytes) -> tuple[str, bytes]:
    """The outcome specs/encryption.md prescribes, and the plain bytes."""
    key, base, commitment = derive(case, stored[:24])
    if commitment != stored[24:56]:
        return "KEY_UNWRAP", b""
    out, at, k = bytearray(), 56, 0
    while True:
        try:
            piece = AESGCM(key).decrypt((base ^ k).to_bytes(12, "big"), stored[at : at + 16400], None)
        except (InvalidTag, ValueError):
            return "DIGEST_MISMATCH", b""
        out += piece
        at, k = at + 16400, k + 1
        if len(piece) < 16384:
            return ("ok" if at >= len(stored) else "DIGEST_MISMATCH"), bytes(out)


@pytest.mark.parametrize("name", STREAMS)
def test_stream(name: str) -> None:
    case, stored = case_of(name), (HOME / name / "stored.bin").read_bytes()
    outcome, plain = open_stored(case, stored)
    assert outcome == case["expect"]
    if outcome != "ok":
        return
    salt, commitment = stored[:24].hex(), stored[24:56].hex()
    entry = EncryptedFile("payload/model.gguf", len(plain), salt, commitment)
    assert entry.context("acme/tiny", 1) == case["context"].encode()
    assert (entry.stored_size, entry.plain_size) == (len(stored), case["plain_size"])
    key, base, said = derive(case, stored[:24])
    assert (key.hex(), base.to_bytes(12, "big").hex(), said.hex()) == (
        case["key"],
        case["base_nonce"],
        case["commitment"],
    )
    assert hashlib.sha256(plain).hexdigest() == case["plain_sha256"]
    assert hashlib.sha256(stored).hexdigest() == case["sha256"]


def test_header_of_the_stored_file_has_its_commitment() -> None:
    stored = (HOME / "three-chunks/stored.bin").read_bytes()
    (entry,) = read_header("header-good").files
    assert (entry.salt + entry.commitment) == stored[:56].hex()
    assert entry.stored_size == len(stored)


def wrapped_value() -> dict[str, Any]:
    value: dict[str, Any] = canonical.loads((HOME / "wrapped/wrapped-key.json").read_bytes())
    return value


def test_wrapped_key_opens_for_its_device_only() -> None:
    case = case_of("wrapped")
    wrapped = WrappedKey.parse(Fields(wrapped_value(), "keys[0]", "KEY_UNWRAP"))
    assert wrapped.to_dict() == wrapped_value()
    key = MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(case["test_mlkem768_seed"])),
        X25519PrivateKey.from_private_bytes(bytes.fromhex(case["test_x25519_key"])),
    )
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = wrapped.info(case["license_id"], case["device_id"])
    assert suite.decrypt(wrapped.enc_ct, key, info=info).hex() == case["input_key"]
    other = wrapped.info("lic-test-0002", case["device_id"])
    with pytest.raises(InvalidTag):
        suite.decrypt(wrapped.enc_ct, key, info=other)


def test_wrapped_key_opens_by_the_standards_alone() -> None:
    """X-Wing and the RFC 9180 key schedule, step by step, without the library's HPKE."""
    case, wrapped = case_of("wrapped"), WrappedKey.parse(Fields(wrapped_value(), "k", "KEY_UNWRAP"))
    kem_text, their_point, sealed = wrapped.enc_ct[:1088], wrapped.enc_ct[1088:1120], wrapped.enc_ct[1120:]
    mlkem = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(case["test_mlkem768_seed"]))
    x25519 = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["test_x25519_key"]))
    agreed = x25519.exchange(X25519PublicKey.from_public_bytes(their_point))
    own_point = x25519.public_key().public_bytes_raw()
    joined = mlkem.decapsulate(kem_text) + agreed + their_point + own_point + bytes.fromhex("5c2e2f2f5e5c")
    shared = hashlib.sha3_256(joined).digest()

    suite = b"HPKE" + bytes.fromhex("647a00010002")

    def extract(salt: bytes, label: bytes, data: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + data, "sha256")

    info = wrapped.info(case["license_id"], case["device_id"])
    schedule = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")

    def expand(label: bytes, size: int) -> bytes:
        labelled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + schedule
        return HKDFExpand(hashes.SHA256(), size, labelled).derive(secret)

    opened = AESGCM(expand(b"key", 32)).decrypt(expand(b"base_nonce", 12), sealed, b"")
    assert opened.hex() == case["input_key"]


@pytest.mark.parametrize(
    "fault",
    [{"kem": "X25519"}, {"enc_ct": "AAAA"}, {"enc_ct": "!"}, {"bundle_digest": "ab"}, {"note": "extra"}],
)
def test_faulty_wrapped_key(fault: dict[str, str]) -> None:
    with pytest.raises(SealpackError) as caught:
        WrappedKey.parse(Fields(wrapped_value() | fault, "keys[0]", "KEY_UNWRAP"))
    assert caught.value.code == "KEY_UNWRAP"


def manifest_with(encryption: dict[str, Any], model: bytes) -> bytes:
    value = json.loads(BundleSpec(model=model).members()["manifest.json"])
    return canonical.dumps(value | {"encryption": encryption, "crit": ["encryption"]})


def test_manifest_reads_its_header_strictly() -> None:
    stored = (HOME / "three-chunks/stored.bin").read_bytes()
    header = read_header("header-good").to_dict()
    manifest = Manifest.from_bytes(manifest_with(header, stored))
    assert manifest.encryption_header == read_header("header-good")
    assert manifest.to_bytes() == manifest.data
    for wrong, model in (
        (header | {"aead": "none"}, stored),
        (header, stored[:-1]),  # the stored size cannot be that of the plain one
        (read_header("header-two-files").to_dict(), stored),  # names a file the bundle has not
    ):
        with pytest.raises(SealpackError) as caught:
            Manifest.from_bytes(manifest_with(wrong, model))
        assert caught.value.code == "MANIFEST_INVALID"


def test_weights_left_plain_are_refused() -> None:
    header = EncryptionHeader((EncryptedFile("payload/vocab.txt", 4, "00" * 24, "11" * 32),))
    vocabulary = {"payload/vocab.txt": ("vocabulary", "text/plain", bytes(header.files[0].stored_size))}
    value = json.loads(BundleSpec(extra=vocabulary).members()["manifest.json"])
    with pytest.raises(SealpackError, match=r"payload/model\.gguf is not encrypted"):
        Manifest.from_bytes(canonical.dumps(value | {"encryption": header.to_dict(), "crit": ["encryption"]}))


def test_generator_still_makes_them(tmp_path: Path) -> None:
    runpy.run_path(str(HOME / "generate.py"))["main"](tmp_path)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    kept = {p.relative_to(HOME): p.read_bytes() for p in HOME.glob("*/*") if p.suffix in (".json", ".bin")}
    assert made == kept
