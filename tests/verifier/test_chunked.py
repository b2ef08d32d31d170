"""Encrypting and opening chunks, against the vectors that outside code made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sealpack.format import chunked
from sealpack.format.chunked import FileCipher
from sealpack.format.encryption import EncryptedFile, WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.hybrid import HybridPrivateKey, HybridPublicKey

HOME = Path(__file__).parents[2] / "specs/vectors/encryption"
GOOD = ("three-chunks", "full-chunk", "empty")
KEY, CONTEXT = bytes(range(32)), b"{}"


def case_of(name: str) -> tuple[dict[str, Any], bytes]:
    return json.loads((HOME / name / "case.json").read_text()), (HOME / name / "stored.bin").read_bytes()


def plain_of(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(size))


def cipher_of(case: dict[str, Any], stored: bytes) -> FileCipher:
    return FileCipher.derive(bytes.fromhex(case["input_key"]), stored[:24], case["context"].encode())


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("block", [16384, 32768, 1 << 20])
def test_encrypts_to_the_vectors_bytes(name: str, block: int) -> None:
    case, stored = case_of(name)
    plain = plain_of(case["plain_size"])
    blocks = [plain[at : at + block] for at in range(0, len(plain), block)]
    made = b"".join(chunked.encrypted(cipher_of(case, stored), blocks))
    assert made == stored
    assert len(made) == chunked.stored_size(len(plain))


@pytest.mark.parametrize("name", GOOD)
def test_opens_the_vectors_chunks(name: str) -> None:
    case, stored = case_of(name)
    plain, cipher = plain_of(case["plain_size"]), cipher_of(case, stored)
    for number in range(chunked.chunk_count(len(plain))):
        wanted = plain[number * 16384 : (number + 1) * 16384]
        out = bytearray(len(wanted))
        sealed = stored[chunked.chunk_at(number) : chunked.chunk_at(number + 1)]
        cipher.open_into(number, sealed, memoryview(out))
        assert out == wanted


@pytest.mark.parametrize("name", GOOD)
def test_opens_a_run_of_whole_chunks(name: str) -> None:
    case, stored = case_of(name)
    plain, cipher = plain_of(case["plain_size"]), cipher_of(case, stored)
    for first in range(len(plain) // 16384 + 1):
        wanted = plain[first * 16384 : len(plain) // 16384 * 16384]
        out = bytearray(len(wanted))
        cipher.open_run(first, memoryview(stored)[chunked.chunk_at(first) :], memoryview(out))
        assert out == wanted
    if len(plain) < 16384:
        return
    changed = bytearray(stored)
    changed[chunked.chunk_at(0) + 7] ^= 1
    with pytest.raises(SealpackError, match="chunk 0 does not open") as caught:
        cipher.open_run(0, memoryview(changed)[56:], memoryview(bytearray(16384)))
    assert caught.value.code == "DIGEST_MISMATCH"


@pytest.mark.parametrize(("number", "cut"), [(1, slice(None)), (0, slice(-1)), (0, slice(15))])
def test_a_chunk_of_another_place_or_length_does_not_open(number: int, cut: slice) -> None:
    cipher = FileCipher.derive(KEY, bytes(24), CONTEXT)
    sealed = cipher.encrypt(0, b"weights")
    with pytest.raises(SealpackError) as caught:
        cipher.open_into(number, sealed[cut], memoryview(bytearray(7)))
    assert caught.value.code == "DIGEST_MISMATCH"


def test_only_the_last_block_may_be_cut() -> None:
    cipher = FileCipher.derive(KEY, bytes(24), CONTEXT)
    with pytest.raises(ValueError, match="16384"):
        list(chunked.encrypted(cipher, [b"x" * 5, b"y" * 16384]))


def test_the_commitment_is_compared_before_anything_is_opened() -> None:
    entry = EncryptedFile("payload/model.gguf", 5, "00" * 24, "11" * 32)
    with pytest.raises(SealpackError) as caught:
        FileCipher.open(KEY, entry, "acme/tiny", 1)
    assert caught.value.code == "KEY_UNWRAP"
    true = FileCipher.derive(KEY, bytes(24), entry.context("acme/tiny", 1))
    entry = EncryptedFile("payload/model.gguf", 5, "00" * 24, true.commitment.hex())
    assert FileCipher.open(KEY, entry, "acme/tiny", 1).prefix == bytes(24) + true.commitment
    for id_, release in (("acme/other", 1), ("acme/tiny", 2)):
        with pytest.raises(SealpackError):
            FileCipher.open(KEY, entry, id_, release)


def test_keys_and_salts_are_fresh() -> None:
    assert len({chunked.new_input_key() for _ in range(50)}) == 50
    assert len({chunked.new_salt() for _ in range(50)}) == 50
    assert (len(chunked.new_input_key()), len(chunked.new_salt())) == (32, 24)
    assert KEY.hex() not in repr(FileCipher.derive(KEY, bytes(24), CONTEXT))


# --- the device's hybrid key ------------------------------------------------------------------------

DIGEST, OTHER = "ab" * 32, "cd" * 32


def test_a_wrapped_key_opens_where_it_was_wrapped_for() -> None:
    device = HybridPrivateKey.generate()
    public = HybridPublicKey.from_bytes(device.public.data)
    wrapped = public.wrap(KEY, DIGEST, "L-1", "dev-1")
    assert device.unwrap(wrapped, "L-1", "dev-1") == KEY
    assert HybridPrivateKey.from_seed(device.seed).unwrap(wrapped, "L-1", "dev-1") == KEY
    assert public.wrap(KEY, DIGEST, "L-1", "dev-1") != wrapped
    assert device.seed.hex() not in repr(device)


@pytest.mark.parametrize(
    ("digest", "license_id", "device_id", "own"),
    [
        (OTHER, "L-1", "dev-1", True),
        (DIGEST, "L-2", "dev-1", True),
        (DIGEST, "L-1", "dev-2", True),
        (DIGEST, "L-1", "dev-1", False),
    ],
    ids=["bundle", "license", "device id", "device key"],
)
def test_and_nowhere_else(digest: str, license_id: str, device_id: str, own: bool) -> None:
    device = HybridPrivateKey.generate()
    wrapped = device.public.wrap(KEY, DIGEST, "L-1", "dev-1")
    reader = device if own else HybridPrivateKey.generate()
    with pytest.raises(SealpackError) as caught:
        reader.unwrap(WrappedKey(digest, wrapped.enc_ct), license_id, device_id)
    assert caught.value.code == "KEY_UNWRAP"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_an_input_key_is_an_input_key(size: int) -> None:
    device = HybridPrivateKey.generate()
    wrapped = device.public.wrap(bytes(size), DIGEST, "L-1", "dev-1")
    with pytest.raises(SealpackError) as caught:
        device.unwrap(wrapped, "L-1", "dev-1")
    assert caught.value.code == "KEY_UNWRAP"


def test_keys_that_are_none() -> None:
    good = HybridPrivateKey.from_seed(bytes(32)).public.data
    for data in (good[:-1], good + b"\0", b"\xff" * 1216):
        with pytest.raises(SealpackError) as caught:
            HybridPublicKey.from_bytes(data)
        assert caught.value.code == "KEY_MALFORMED"
    small = HybridPublicKey.from_bytes(good[:-32] + bytes(32))
    with pytest.raises(SealpackError) as caught:
        small.wrap(KEY, DIGEST, "L-1", "dev-1")
    assert caught.value.code == "KEY_MALFORMED"
    with pytest.raises(SealpackError) as caught:
        HybridPrivateKey.from_seed(bytes(31))
    assert caught.value.code == "KEY_MALFORMED"


def test_the_seed_is_that_of_x_wing() -> None:
    """First key pair of draft-connolly-cfrg-xwing-kem, appendix "Test vectors"."""
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    public = HybridPrivateKey.from_seed(seed).public.data
    assert public.hex().startswith("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5")
