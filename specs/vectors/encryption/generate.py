"""Write the encryption vectors: `python specs/vectors/encryption/generate.py [FOLDER]`.

Header cases are `case.json` and `header.json`, a manifest's `encryption` member. Stream cases are `case.json`
and `stored.bin`, a payload file as it stands in a bundle; keys are test keys from fixed bytes and protect
nothing. The wrapped key is in `wrapped/wrapped-key.json`: wrapping is randomised, so it was made once, with
`--wrap`, and is only copied otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HERE = Path(__file__).parent
TEST_INPUT_KEY = hashlib.sha256(b"sealpack TEST input key").digest()
TEST_DEVICE_MLKEM_SEED = hashlib.sha512(b"sealpack TEST device ML-KEM-768 seed").digest()
TEST_DEVICE_X25519_KEY = hashlib.sha256(b"sealpack TEST device X25519 key").digest()
SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

BUNDLE_ID, RELEASE, PATH = "acme/tiny", 1, "payload/model.gguf"
SALT = hashlib.sha256(b"sealpack TEST salt").digest()[:24]
BOUND = {
    "bundle_digest": hashlib.sha256(b"a manifest").hexdigest(),
    "license_id": "lic-test-0001",
    "device_id": "dev-" + hashlib.sha256(b"a device").hexdigest()[:32],
}


def compact(value: Any) -> bytes:
    """Canonical JSON of objects, strings and integers in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def context(path: str = PATH) -> bytes:
    """The derivation context of a file."""
    return compact({"bundle_id": BUNDLE_ID, "path": path, "release_index": RELEASE})


def derive(salt: bytes = SALT, about: bytes | None = None) -> tuple[bytes, bytes, bytes]:
    """AEAD key, base nonce and commitment."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + (about or context())
    out = HKDFExpand(hashes.SHA256(), 32 + 12 + 32, info).derive(TEST_INPUT_KEY)
    return out[:32], out[32:44], out[44:]


def plain_text(size: int) -> bytes:
    """The message of every stream: byte i is i * 7 mod 251."""
    return bytes(i * 7 % 251 for i in range(size))


def chunks(plain: bytes, about: bytes | None = None) -> list[bytes]:
    """The encrypted chunks; the last one is always short."""
    key, nonce, _ = derive(SALT, about)
    base, box = int.from_bytes(nonce, "big"), AESGCM(key)
    return [
        box.encrypt((base ^ k).to_bytes(12, "big"), plain[k * 16384 : (k + 1) * 16384], None)
        for k in range(len(plain) // 16384 + 1)
    ]


def stored(parts: list[bytes], salt: bytes = SALT, commitment: bytes | None = None) -> bytes:
    """A file as it stands in the bundle."""
    return salt + (derive(salt)[2] if commitment is None else commitment) + b"".join(parts)


def flipped(data: bytes, at: int) -> bytes:
    """One bit changed."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def streams() -> dict[str, tuple[str, str, int, bytes]]:
    """Name -> description, expect, plain size, stored bytes."""
    three, two = chunks(plain_text(2 * 16384 + 100)), chunks(plain_text(16384))
    good = stored(three)
    return {
        "three-chunks": ("Two full chunks and a short one.", "ok", 32868, good),
        "full-chunk": ("16 KiB: a full chunk and an empty one.", "ok", 16384, stored(two)),
        "empty": ("No bytes: one empty chunk.", "ok", 0, stored(chunks(b""))),
        "commitment-changed": ("The commitment is of another key.", "KEY_UNWRAP", 32868, flipped(good, 24)),
        "salt-changed": ("The salt is another one.", "KEY_UNWRAP", 32868, flipped(good, 0)),
        "other-path": (
            "Encrypted under the true key, for another path, under this path's commitment.",
            "DIGEST_MISMATCH",
            100,
            stored(chunks(plain_text(100), context("payload/other.gguf"))),
        ),
        "chunks-swapped": (
            "Chunks 0 and 1 change places.",
            "DIGEST_MISMATCH",
            32868,
            stored([three[1], three[0], three[2]]),
        ),
        "last-chunk-missing": (
            "Cut after the second full chunk.",
            "DIGEST_MISMATCH",
            32768,
            stored(three[:2]),
        ),
        "cut-in-a-tag": ("The last bytes are missing.", "DIGEST_MISMATCH", 32868, good[:-120]),
        "bit-flipped": ("One bit of chunk 1.", "DIGEST_MISMATCH", 32868, flipped(good, 56 + 16400 + 5)),
    }


def header(**members: Any) -> dict[str, Any]:
    """A good header with members replaced, or removed where the value is None."""
    good: dict[str, Any] = {
        "scheme": "c2sp.org/chunked-encryption@v1",
        "aead": "AEAD_AES_256_GCM",
        "chunk_size": 16384,
        "files": [file()],
    }
    return {key: value for key, value in {**good, **members}.items() if value is not None}


def file(**members: Any) -> dict[str, Any]:
    """A good member of `files`, changed likewise."""
    path = members.get("name") or PATH
    good: dict[str, Any] = {
        "name": PATH,
        "plain_size": 32868,
        "salt": SALT.hex(),
        "commitment": derive(SALT, context(path))[2].hex(),
    }
    return {key: value for key, value in {**good, **members}.items() if value is not None}


OTHER = file(name="payload/a.bin", salt=hashlib.sha256(b"sealpack TEST salt 2").digest()[:24].hex())
BAD = "MANIFEST_INVALID"
HEADERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "header-good": ("One file.", "ok", header()),
    "header-two-files": ("Two files, by name.", "ok", header(files=[OTHER, file()])),
    "header-other-scheme": ("A scheme nobody knows.", BAD, header(scheme="c2sp.org/chunked-encryption@v2")),
    "header-other-aead": ("AES-128 is not offered.", BAD, header(aead="AEAD_AES_128_GCM")),
    "header-chunk-size": ("Chunks are 16 KiB.", BAD, header(chunk_size=65536)),
    "header-no-files": ("Nothing is encrypted.", BAD, header(files=[])),
    "header-unsorted": ("Files by name.", BAD, header(files=[file(), OTHER])),
    "header-file-twice": ("A file twice.", BAD, header(files=[file(), file(salt="00" * 24)])),
    "header-salt-twice": (
        "One salt for two files.",
        BAD,
        header(files=[file(name="payload/a.bin"), file()]),
    ),
    "header-salt-short": ("Salts are 24 bytes.", BAD, header(files=[file(salt="00" * 16)])),
    "header-no-commitment": ("The commitment is missing.", BAD, header(files=[file(commitment=None)])),
    "header-outside-payload": ("Only payload is encrypted.", BAD, header(files=[file(name="card.md")])),
    "header-extra-member": ("The header is closed.", BAD, header(key="AAAA")),
    "header-size-negative": ("A negative size.", BAD, header(files=[file(plain_size=-1)])),
}


def device_key() -> MLKEM768X25519PrivateKey:
    """The device's test key."""
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(TEST_DEVICE_MLKEM_SEED),
        X25519PrivateKey.from_private_bytes(TEST_DEVICE_X25519_KEY),
    )


def wrap_info() -> bytes:
    """The HPKE info of the wrapped key."""
    return b"sealpack/wrapped-key/v1\0" + compact(BOUND)


def wrap() -> bytes:
    """A new wrapped key; other bytes every time."""
    sealed = SUITE.encrypt(TEST_INPUT_KEY, device_key().public_key(), info=wrap_info())
    text = base64.b64encode(sealed).decode("ascii")
    return compact({"bundle_digest": BOUND["bundle_digest"], "kem": "MLKEM768_X25519", "enc_ct": text})


def write(folder: Path, case: dict[str, Any], name: str, data: bytes) -> None:
    """One case."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(case, indent=2) + "\n")
    (folder / name).write_bytes(data)


def main(folder: Path) -> None:
    """Write every case below `folder`."""
    for name, (description, expect, value) in HEADERS.items():
        write(folder / name, {"description": description, "expect": expect}, "header.json", compact(value))
    key, nonce, commitment = derive()
    known = {"input_key": TEST_INPUT_KEY.hex(), "salt": SALT.hex(), "context": context().decode()}
    derived = {"key": key.hex(), "base_nonce": nonce.hex(), "commitment": commitment.hex()}
    for name, (description, expect, size, data) in streams().items():
        case: dict[str, Any] = {"description": description, "expect": expect, "plain_size": size, **known}
        if expect == "ok":
            digests = {
                "plain_sha256": hashlib.sha256(plain_text(size)).hexdigest(),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            case |= {**derived, **digests}
        write(folder / name, case, "stored.bin", data)
    case = {
        "description": "A key wrapped for a device; its test key is made from these seeds.",
        "expect": "ok",
        "input_key": TEST_INPUT_KEY.hex(),
        "test_mlkem768_seed": TEST_DEVICE_MLKEM_SEED.hex(),
        "test_x25519_key": TEST_DEVICE_X25519_KEY.hex(),
        "license_id": BOUND["license_id"],
        "device_id": BOUND["device_id"],
    }
    kept = HERE / "wrapped/wrapped-key.json"
    write(folder / "wrapped", case, "wrapped-key.json", kept.read_bytes())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments == ["--wrap"]:
        (HERE / "wrapped").mkdir(exist_ok=True)
        (HERE / "wrapped/wrapped-key.json").write_bytes(wrap())
        arguments = []
    main(Path(arguments[0]) if arguments else HERE)
