"""Encrypted files opened into memory: vectors, every order of reading, and each fault by its code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from sealpack.format import chunked, chunks
from sealpack.format.chunked import FileCipher
from sealpack.format.encryption import EncryptedFile
from sealpack.format.errors import SealpackError
from sealpack.runtime.decrypt import DecryptedFile, PlainStream, StoredFile

VECTORS = Path(__file__).parents[2] / "specs/vectors/encryption"
STREAMS = sorted(p.parent.name for p in VECTORS.glob("*/stored.bin"))
KEY, MIB = bytes(range(32)), 1 << 20
# Around every edge: empty, inside a chunk, whole chunks, around leaves, chunks that lie in two leaves.
SIZES = (0, 1, 16384, 16385, MIB - 1, MIB, 64 * 16384 - 1, 64 * 16384, 3 * MIB + 4321, 8 * MIB)


def table_of(stored: bytes) -> bytes:
    return b"".join(hashlib.sha256(stored[at : at + MIB]).digest() for at in range(0, len(stored), MIB))


def opened(stored: bytes, size: int, cipher: FileCipher, table: bytes | None = None) -> DecryptedFile:
    def read_into(at: int, view: memoryview) -> None:
        view[:] = stored[at : at + len(view)]

    table = table_of(stored) if table is None else table
    return DecryptedFile(StoredFile("payload/model.gguf", size, table, read_into), cipher)


def sealed(size: int) -> tuple[bytes, bytes, FileCipher]:
    plain = random.Random(size).randbytes(size)
    cipher = FileCipher.derive(KEY, bytes(24), b"{}")
    blocks = [plain[at : at + MIB] for at in range(0, size, MIB)]
    return plain, b"".join(chunked.encrypted(cipher, blocks)), cipher


def test_vectors() -> None:
    outcomes = {}
    for name in STREAMS:
        case = json.loads((VECTORS / name / "case.json").read_text())
        stored = (VECTORS / name / "stored.bin").read_bytes()
        outcomes[name] = (outcome(case, stored), case["expect"])
    assert [name for name, (got, want) in outcomes.items() if got != want] == []
    assert {want for _, want in outcomes.values()} == {"ok", "KEY_UNWRAP", "DIGEST_MISMATCH"}


def outcome(case: dict[str, Any], stored: bytes) -> str:
    """As an installed bundle is opened: the header says what the stored file begins with."""
    entry = EncryptedFile("payload/model.gguf", case["plain_size"], stored[:24].hex(), stored[24:56].hex())
    try:
        if len(stored) != entry.stored_size:
            raise SealpackError("DIGEST_MISMATCH", "another size")  # the manifest's own check
        cipher = FileCipher.open(bytes.fromhex(case["input_key"]), entry, "acme/tiny", 1)
        file = opened(stored, entry.plain_size, cipher)
        plain = file.to_bytes()
        file.close()
    except SealpackError as error:
        return error.code
    assert hashlib.sha256(plain).hexdigest() == case["plain_sha256"]
    return "ok"


@pytest.mark.parametrize("size", SIZES)
def test_all_of_it_in_every_form(size: int) -> None:
    plain, stored, cipher = sealed(size)
    file = opened(stored, size, cipher)
    assert (file.size, file.to_bytes()) == (size, plain)
    memory = file.to_memory()
    assert memory == plain and memory.readonly
    descriptor = file.to_memory_file()
    try:
        assert os.pread(descriptor, size + 1, 0) == plain
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size + 1)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)
    file.close()
    file.close()


@pytest.mark.parametrize("seed", range(4))
def test_reading_in_any_order(seed: int) -> None:
    size = 3 * MIB + 4321
    plain, stored, cipher = sealed(size)
    file, chance = opened(stored, size, cipher), random.Random(seed)
    for _ in range(60):
        at, count = chance.randrange(size + 10), chance.choice((1, 100, 16384, 70_000, 2 * MIB))
        view = bytearray(count)
        got = file.read_into(at, memoryview(view))
        assert bytes(view[:got]) == plain[at : at + count]
    stream = io.BufferedReader(PlainStream(file))
    stream.seek(-5, os.SEEK_END)
    assert stream.read() == plain[-5:]
    stream.seek(MIB)
    stream.seek(3, os.SEEK_CUR)
    assert stream.read(7) == plain[MIB + 3 : MIB + 10]
    file.close()


def read_all(stored: bytes, size: int, cipher: FileCipher, table: bytes) -> str:
    file = opened(stored, size, cipher, table)
    try:
        file.to_bytes()
    except SealpackError as error:
        return error.code
    finally:
        file.close()
    return "ok"


def test_a_changed_bit_is_a_leaf_that_does_not_fit() -> None:
    _, stored, cipher = sealed(2 * MIB + 500)
    table = table_of(stored)
    for at in (60, MIB - 1, MIB, 2 * MIB, len(stored) - 1):
        changed = bytearray(stored)
        changed[at] ^= 1
        assert read_all(bytes(changed), 2 * MIB + 500, cipher, table) == "CHUNK_MISMATCH"
        assert read_all(bytes(changed), 2 * MIB + 500, cipher, table_of(bytes(changed))) == "DIGEST_MISMATCH"


def test_what_another_licensee_encrypts_under_the_true_key_is_caught_by_its_leaf() -> None:
    plain, stored, cipher = sealed(2 * MIB)
    other = bytearray(plain)
    other[1_500_000] ^= 1
    blocks = [bytes(other[:MIB]), bytes(other[MIB:])]
    forged = b"".join(chunked.encrypted(cipher, blocks))
    assert read_all(forged, 2 * MIB, cipher, table_of(forged)) == "ok"  # every tag fits
    assert read_all(forged, 2 * MIB, cipher, table_of(stored)) == "CHUNK_MISMATCH"


def test_chunks_in_each_others_place() -> None:
    _, stored, cipher = sealed(5 * 16384)
    one, two, three = map(chunked.chunk_at, (1, 2, 3))
    swapped = stored[:one] + stored[two:three] + stored[one:two] + stored[three:]
    assert len(swapped) == len(stored)
    assert read_all(swapped, 5 * 16384, cipher, table_of(stored)) == "CHUNK_MISMATCH"
    assert read_all(swapped, 5 * 16384, cipher, table_of(swapped)) == "DIGEST_MISMATCH"


def test_table_and_prefix_are_compared_first() -> None:
    _, stored, cipher = sealed(MIB)
    for table in (b"", table_of(stored) + bytes(32)):
        with pytest.raises(SealpackError) as caught:
            opened(stored, MIB, cipher, table)
        assert caught.value.code == "CHUNK_MISMATCH"
    with pytest.raises(SealpackError) as caught:
        opened(b"\1" + stored[1:], MIB, cipher)
    assert caught.value.code == "MANIFEST_MISMATCH"


def test_a_failing_disk_is_no_verdict() -> None:
    _, stored, cipher = sealed(MIB)

    def read_into(at: int, view: memoryview) -> None:
        if at:
            raise OSError(5, "Input/output error")
        view[:] = stored[: len(view)]

    file = DecryptedFile(StoredFile("payload/model.gguf", MIB, table_of(stored), read_into), cipher)
    with pytest.raises(SealpackError) as caught:
        file.to_bytes()
    assert caught.value.code == "IO_ERROR"
    file.close()


def test_sequential_reading_hashes_each_leaf_once() -> None:
    size = 8 * MIB
    _, stored, cipher = sealed(size)
    asked: list[int] = []

    def read_into(at: int, view: memoryview) -> None:
        asked.append(at)
        view[:] = stored[at : at + len(view)]

    file = DecryptedFile(StoredFile("payload/model.gguf", size, table_of(stored), read_into), cipher)
    for at in range(0, size, 100_000):
        file.read_into(at, memoryview(bytearray(100_000)))
    file.close()
    assert sorted(asked) == [0] + [n * MIB for n in range(chunks.chunk_count(len(stored)))]
