"""Write the watermark vectors: a second, plain-Python implementation of specs/watermark.md.

    python specs/vectors/watermark/generate.py [FOLDER]

It shares no code with the builder, so the two must agree by the specification alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import struct
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
DOMAIN = b"sealpack/watermark/v1"
ROOT = bytes(range(32))
CLEAN = hashlib.sha256(b"a clean model").hexdigest()
MARKED = hashlib.sha256(b"a marked copy").hexdigest()
LICENSEE, BUNDLE, LICENSE, TENSOR = "Blue Ridge Robotics", "acme/minilm", "lic-2026-0007", "layer.0.weight"


def lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def derive(key: bytes, label: bytes, *parts: bytes) -> bytes:
    return hmac.new(key, lp(DOMAIN + b"/" + label, *parts), hashlib.sha256).digest()


K_MODEL = derive(ROOT, b"model", bytes.fromhex(CLEAN))
K_LIC = derive(K_MODEL, b"licensee", LICENSEE.encode(), BUNDLE.encode())
K_SIGNS = derive(K_LIC, b"signs", TENSOR.encode())
K_DITHER = derive(K_LIC, b"dither", TENSOR.encode())


def stream(key: bytes, segment: int, count: int) -> bytes:
    return hashlib.shake_128(key + segment.to_bytes(8, "big")).digest(count)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


PARAMS = {
    "schema": "sealpack/watermark-params/v1",
    "scheme": "sealpack/watermark/v1",
    "alpha_ppb": 5_000_000,
    "share_b_ppm": 1_000_000,
    "run": 64,
    "segment": 65536,
    "min_weights": 65536,
    "weights": 22_533_888,
    "salt": derive(K_LIC, b"salt")[:16].hex(),
}
PARAMS_DIGEST = hashlib.sha256(canonical(PARAMS)).hexdigest()


# --- one small tensor, weight by weight -----------------------------------------------------------


def single(value: float) -> float:
    """The nearest float32."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def row_rms(row: list[float]) -> float:
    finite = [value for value in row if math.isfinite(value)]
    if not any(finite):
        return 0.0
    mantissa, exponent = math.frexp(math.sqrt(math.fsum(v * v for v in finite) / len(finite)))
    return math.ldexp(round(mantissa * 2048) / 2048, exponent)


def mark_row(row: list[float], signs: list[int], strength: float) -> list[float]:
    step = single(single(strength) * row_rms(row))
    return [
        single(value + sign * step) if math.isfinite(value) and value != 0 else value
        for value, sign in zip(row, signs, strict=True)
    ]


def round_noisily(value: float, noise: int, dropped: int) -> int:
    """float32 bits with the low `dropped` bits cleared."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return (bits + (noise << (dropped - 8)) + (1 << (dropped - 9))) >> dropped << dropped


def encode(value: float, old: float, noise: int, dtype: str) -> bytes:
    if dtype == "F32":
        return struct.pack("<f", value)
    if value == old or not math.isfinite(old):
        return store(old, dtype)
    bits = round_noisily(value, noise, 13 if dtype == "F16" else 16)
    return store(struct.unpack("<f", struct.pack("<I", bits))[0], dtype)


def store(value: float, dtype: str) -> bytes:
    if dtype == "F16":
        return struct.pack("<e", value)
    raw = struct.pack("<f", value)
    return raw if dtype == "F32" else raw[2:]


def fetch(data: bytes, dtype: str) -> list[float]:
    if dtype == "BF16":
        words = struct.iter_unpack("<H", data)
        return [struct.unpack("<f", struct.pack("<I", word << 16))[0] for (word,) in words]
    return [value for (value,) in struct.iter_unpack("<f" if dtype == "F32" else "<e", data)]


def clean_rows(dtype: str) -> list[list[float]]:
    """Five rows of 24: weights, a zero row, a row with infinities, one large, one tiny."""
    values = [(b - 127.5) / 640 for b in hashlib.shake_128(b"vector weights").digest(120)]
    rows = [values[i : i + 24] for i in range(0, 120, 24)]
    rows[1] = [0.0] * 24
    rows[2][3], rows[2][4], rows[2][5] = math.inf, -math.inf, -0.0
    rows[3] = [value * 300 for value in rows[3]]
    rows[4] = [value / 4000 for value in rows[4]]
    return [fetch(b"".join(store(single(value), dtype) for value in row), dtype) for row in rows]


def tensor_case(dtype: str) -> None:
    rows = clean_rows(dtype)
    signs = [1 if byte >> (7 - i) & 1 else -1 for byte in stream(K_SIGNS, 0, 15) for i in range(8)]
    noise = stream(K_DITHER, 0, 120)
    marked = b""
    for number, row in enumerate(rows):
        start = number * 24
        for i, value in enumerate(mark_row(row, signs[start : start + 24], 0.005)):
            marked += encode(value, row[i], noise[start + i], dtype)
    case(
        f"tensor-{dtype.lower()}",
        f"five rows of 24 {dtype} weights: plain, zero, with infinities, large, tiny",
        {
            "operation": "mark",
            "dtype": dtype,
            "rows": 5,
            "columns": 24,
            "alpha_ppb": 5_000_000,
            "share_b_ppm": 1_000_000,
            "k_lic": K_LIC.hex(),
            "tensor": TENSOR,
        },
        {"clean.bin": b"".join(store(v, dtype) for row in rows for v in row), "marked.bin": marked},
    )


# --- the vault ------------------------------------------------------------------------------------


def vault_bytes(passphrase: str) -> bytes:
    salt = bytes(range(16))
    kdf = {"name": "scrypt", "n": 16384, "r": 8, "p": 1, "salt": salt.hex()}
    header = {"schema": "sealpack/vault/v1", "kdf": kdf, "cipher": "aes-256-gcm"}
    key = hashlib.scrypt(passphrase.encode(), salt=salt, n=16384, r=8, p=1, maxmem=1 << 26, dklen=32)
    nonce = bytes(range(12))
    sealed = AESGCM(key).encrypt(nonce, canonical(CONTENT), canonical(header))
    return canonical(header | {"nonce": nonce.hex(), "ciphertext": base64.b64encode(sealed).decode()})


def commit(*parts: bytes) -> str:
    return hashlib.sha256(lp(DOMAIN, *parts)).hexdigest()


R = hashlib.sha256(b"vector randomness").digest()
COMMITMENT = commit(
    K_LIC,
    LICENSE.encode(),
    BUNDLE.encode(),
    bytes.fromhex(CLEAN),
    bytes.fromhex(MARKED),
    bytes.fromhex(PARAMS_DIGEST),
    R,
)
CONTENT = {
    "schema": "sealpack/vault-content/v1",
    "root": ROOT.hex(),
    "models": [
        {
            "digest": CLEAN,
            "files": ["model.onnx"],
            "tensors": [
                {
                    "name": TENSOR,
                    "rows": 384,
                    "columns": 384,
                    "dtype": "F32",
                    "sample": base64.b64encode(bytes(range(256))).decode(),
                },
            ],
        }
    ],
    "marks": [
        {
            "license_id": LICENSE,
            "licensee": LICENSEE,
            "bundle_id": BUNDLE,
            "model": CLEAN,
            "marked": MARKED,
            "params": PARAMS,
            "params_sha256": PARAMS_DIGEST,
            "r": R.hex(),
            "commitment": COMMITMENT,
            "time": 1_795_000_000,
        },
    ],
}


def vault_cases() -> None:
    good = vault_bytes("correct horse battery")
    ask = {"operation": "vault", "passphrase": "correct horse battery"}
    member = {
        "scheme": DOMAIN.decode(),
        "params_sha256": PARAMS_DIGEST,
        "commitment": COMMITMENT,
        "license_id": LICENSE,
    }
    case(
        "vault",
        "a vault with one mark opens",
        ask | {"root": ROOT.hex(), "member": member},
        {"vault": good, "content.json": canonical(CONTENT), "member.json": canonical(member)},
    )
    wrong = ask | {"passphrase": "correct horse batterz"}
    case(
        "vault-wrong-passphrase",
        "one letter of the passphrase differs",
        wrong,
        {"vault": good},
        expect="VAULT_INVALID",
    )
    cheap = good.replace(b'"n":16384', b'"n":32768')
    case(
        "vault-header-changed",
        "the key derivation's cost was edited",
        ask,
        {"vault": cheap},
        expect="VAULT_INVALID",
    )
    costly = good.replace(b'"n":16384', b'"n":1073741824')
    case(
        "vault-costly",
        "opening would take a terabyte of memory",
        ask,
        {"vault": costly},
        expect="VAULT_INVALID",
    )
    case("vault-cut", "the file ends early", ask, {"vault": good[:-40]}, expect="VAULT_INVALID")


def case(
    name: str,
    description: str,
    facts: dict[str, Any],
    files: dict[str, bytes] | None = None,
    *,
    expect: str = "ok",
) -> None:
    folder = OUT / name
    folder.mkdir(exist_ok=True)
    value = {"description": description, "expect": expect, **facts}
    (folder / "case.json").write_text(json.dumps(value, indent=2) + "\n")
    for file, data in (files or {}).items():
        (folder / file).write_bytes(data)


def main() -> None:
    case(
        "keys",
        "root to tensor keys",
        {
            "operation": "keys",
            "root": ROOT.hex(),
            "clean_digest": CLEAN,
            "licensee": LICENSEE,
            "bundle_id": BUNDLE,
            "tensor": TENSOR,
            "k_model": K_MODEL.hex(),
            "k_lic": K_LIC.hex(),
            "k_signs": K_SIGNS.hex(),
            "k_dither": K_DITHER.hex(),
        },
    )
    case(
        "stream",
        "the first bytes of two segments, and the signs across their border",
        {
            "operation": "stream",
            "key": K_SIGNS.hex(),
            "segment_0": stream(K_SIGNS, 0, 32).hex(),
            "segment_1": stream(K_SIGNS, 1, 32).hex(),
            "start": 65528,
            "stop": 65544,
            "signs": f"{stream(K_SIGNS, 0, 8192)[-1]:08b}{stream(K_SIGNS, 1, 1)[0]:08b}",
        },
    )
    case(
        "commitment",
        "every input length-prefixed",
        {
            "operation": "commitment",
            "k_lic": K_LIC.hex(),
            "license_id": LICENSE,
            "bundle_id": BUNDLE,
            "clean_digest": CLEAN,
            "marked_digest": MARKED,
            "params_sha256": PARAMS_DIGEST,
            "r": R.hex(),
            "commitment": COMMITMENT,
        },
    )
    case(
        "params",
        "digest of the parameters, and the strength for a number of weights",
        {
            "operation": "params",
            "params": PARAMS,
            "params_sha256": PARAMS_DIGEST,
            "alpha_ppb": {
                "65536": 5_000_000,
                "36000000": 5_000_000,
                "100000000": 3_000_000,
                "7000000000": 500_000,
                "1000000000": 948_683,
            },
        },
    )
    one, two = hashlib.sha256(b"graph").hexdigest(), hashlib.sha256(b"weights").hexdigest()
    lines = f"{one}  \n{two}  model.onnx.data\n".encode()
    case(
        "model-digest",
        "a model of one file, and one with external data",
        {
            "operation": "model-digest",
            "one": {"": one},
            "one_digest": one,
            "two": {"": one, "model.onnx.data": two},
            "two_digest": hashlib.sha256(lines).hexdigest(),
        },
    )
    for dtype in ("F32", "F16", "BF16"):
        tensor_case(dtype)
    vault_cases()


if __name__ == "__main__":
    main()
