"""Checkpoints: the note format itself, and what it must refuse (the rest is in specs/vectors)."""

from __future__ import annotations

import base64
from contextlib import AbstractContextManager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st

from sealpack.format import note
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.note import Checkpoint, cosign, open_checkpoint, open_cosignature, sign_checkpoint

DEVICE = PrivateKey.from_seed(b"sealpack test note device key 01")
WITNESS = PrivateKey.from_seed(b"sealpack test note witness key 1")
POINT = Checkpoint("log.test.example/device-1", 20_852_163, bytes(range(32)))


def refused(message: str) -> AbstractContextManager[Any]:
    return pytest.raises(SealpackError, match=f"CHECKPOINT_INVALID.*{message}")


def test_known_answer_from_the_go_note_package() -> None:
    """The example of golang.org/x/mod/sumdb/note: same key id, same signed text."""
    raw = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:]
    pem = Ed25519PublicKey.from_public_bytes(raw).public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    key = PublicKey.from_pem(pem.decode())
    signature = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    assert note.key_id("PeterNeumann", note.ED25519_NOTE, key).hex() == "c74f20a3" == signature[:4].hex()
    key.verify(signature[4:], text.encode())


def test_checkpoint_text_is_the_three_lines_of_c2sp() -> None:
    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    point = Checkpoint("example.com/behind-the-sofa", 20_852_163, root)
    assert point.text == (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_signature_is_over_the_text_and_nothing_else() -> None:
    signed = sign_checkpoint(POINT, DEVICE).decode()
    text, _, line = signed.partition("\n\n")
    blob = base64.b64decode(line.split(" ")[2])
    assert line.startswith(f"— {POINT.origin} ")
    DEVICE.public.verify(blob[4:], (text + "\n").encode())


def test_cosignature_signs_the_time_and_the_text() -> None:
    signed = cosign(sign_checkpoint(POINT, DEVICE), "witness.test.example/w1", WITNESS, 1_679_315_147)
    blob = base64.b64decode(signed.decode().splitlines()[-1].split(" ")[2])
    assert int.from_bytes(blob[4:12], "big") == 1_679_315_147
    WITNESS.public.verify(blob[12:], f"cosignature/v1\ntime 1679315147\n{POINT.text}".encode())


sizes = st.integers(0, 2**53 - 1)
roots = st.binary(min_size=32, max_size=32)


@given(sizes, roots, st.integers(0, 2**53 - 1))
def test_what_is_signed_is_what_is_opened(size: int, root: bytes, time: int) -> None:
    point = Checkpoint(POINT.origin, size, root)
    signed = sign_checkpoint(point, DEVICE)
    assert open_checkpoint(signed, DEVICE.public) == point
    both = cosign(signed, "w", WITNESS, time)
    assert open_checkpoint(both, DEVICE.public) == point
    assert open_cosignature(both, "w", WITNESS.public) == note.Cosignature(point, time)


@given(st.data())
def test_every_changed_byte_is_refused(data: st.DataObject) -> None:
    signed = bytearray(sign_checkpoint(POINT, DEVICE))
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= data.draw(st.integers(1, 255))
    with refused(""):
        open_checkpoint(bytes(signed), DEVICE.public)


@given(st.integers(1, 200))
def test_every_cut_is_refused(cut: int) -> None:
    with refused(""):
        open_checkpoint(sign_checkpoint(POINT, DEVICE)[:-cut], DEVICE.public)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    with refused(""):
        open_checkpoint(data, DEVICE.public)
    with refused(""):
        open_cosignature(data, "w", WITNESS.public)


def test_device_signature_is_no_cosignature_and_the_reverse() -> None:
    signed = cosign(sign_checkpoint(POINT, DEVICE), POINT.origin, WITNESS, 5)
    with refused("no signature"):
        open_checkpoint(signed, WITNESS.public)
    with refused("no signature"):
        open_cosignature(signed, POINT.origin, DEVICE.public)


def test_sixteen_signatures_are_read_and_seventeen_refused() -> None:
    signed = sign_checkpoint(POINT, DEVICE)
    for index in range(15):
        signed = cosign(signed, f"witness-{index}", WITNESS, index)
    assert open_cosignature(signed, "witness-14", WITNESS.public).time == 14
    with refused("already has 16"):
        cosign(signed, "one-more", WITNESS, 1)
    with refused("17 signatures"):
        open_checkpoint(signed + signed.splitlines(keepends=True)[-1], DEVICE.public)


def test_oversize_note_is_refused_before_it_is_parsed() -> None:
    with refused("the limit is 8000"):
        open_checkpoint(b"a" * 8001, DEVICE.public)


def test_signers_are_named_for_messages() -> None:
    signed = cosign(sign_checkpoint(POINT, DEVICE), "w", WITNESS, 5)
    expected = note.key_id("w", note.COSIGNATURE, WITNESS.public).hex()
    assert [name for name, _ in note.signer_ids(signed)] == [POINT.origin, "w"]
    assert note.signer_ids(signed)[1] == ("w", expected)


@pytest.mark.parametrize(
    "origin, size, root",
    [
        ("", 0, bytes(32)),
        ("with space", 0, bytes(32)),
        ("with+plus", 0, bytes(32)),
        ("two\nlines", 0, bytes(32)),
        ("log", -1, bytes(32)),
        ("log", 2**53, bytes(32)),
        ("log", 0, bytes(31)),
    ],
)
def test_no_checkpoint_can_be_made_that_could_not_be_read(origin: str, size: int, root: bytes) -> None:
    with refused(""):
        Checkpoint(origin, size, root)


def test_callers_must_name_a_key() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        sign_checkpoint(POINT)
    with pytest.raises(ValueError, match="at least one key"):
        open_checkpoint(sign_checkpoint(POINT, DEVICE))
    with pytest.raises(ValueError, match="key name"):
        cosign(sign_checkpoint(POINT, DEVICE), "a name", WITNESS, 1)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (bytes(8 + 63), "not 72 bytes"),
        (bytes(8 + 65), "not 72 bytes"),
        ((1 << 53).to_bytes(8, "big") + bytes(64), "time is out of range"),
    ],
)
def test_cosignatures_of_another_size_or_past_all_time(tail: bytes, message: str) -> None:
    blob = note.key_id("w", note.COSIGNATURE, WITNESS.public) + tail
    line = b"\xe2\x80\x94 w " + base64.b64encode(blob) + b"\n"
    with refused(message):
        open_cosignature(sign_checkpoint(POINT, DEVICE) + line, "w", WITNESS.public)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "signature is empty"),
        (bytes(4), "signature is empty"),
        (note.key_id(POINT.origin, note.ED25519_NOTE, DEVICE.public) + bytes(63), "63 bytes, not 64"),
        (note.key_id(POINT.origin, note.ED25519_NOTE, DEVICE.public) + bytes(65), "65 bytes, not 64"),
    ],
)
def test_signatures_of_another_size(blob: bytes, message: str) -> None:
    line = f"\n— {POINT.origin} {base64.b64encode(blob).decode()}\n"
    with refused(message):
        open_checkpoint((POINT.text + line).encode(), DEVICE.public)


def test_a_note_is_text() -> None:
    with refused("not UTF-8"):
        open_checkpoint(sign_checkpoint(POINT, DEVICE).replace(b"\xe2\x80\x94", b"\xff"), DEVICE.public)
