"""Keys: one spelling, two schemes, strict signatures, and key files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings, strategies as st
from support.world import CREATOR, SETTLEMENT, STRANGER

from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ED25519, SCHEMES, PrivateKey, PublicKey

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PEM = CREATOR.public.pem
MESSAGE = b"message"


def code_of(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments, **more)
    return caught.value.code


def pem_of(key: Any) -> str:
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    data: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, info)
    return data.decode()


@pytest.mark.parametrize("key", [CREATOR, SETTLEMENT])
def test_sign_and_verify(key: PrivateKey) -> None:
    signature = key.sign(MESSAGE)
    key.public.verify(signature, MESSAGE)
    assert key.sign(MESSAGE) == signature  # deterministic
    assert code_of(key.public.verify, signature, b"other") == "SIG_INVALID"
    assert PublicKey.from_pem(key.public.pem) == key.public
    assert key.keyid == hashlib.sha256(key.public.pem.encode()).hexdigest()


def body(pem: str) -> str:
    return "".join(pem.splitlines()[1:-1])


def spelled(body: str, width: int = 64, head: str = "PUBLIC KEY", end: str = "\n") -> str:
    lines = [body[i : i + width] for i in range(0, len(body), width)]
    return end.join([f"-----BEGIN {head}-----", *lines, f"-----END {head}-----", ""])


def compressed() -> str:
    """The same key with its point compressed."""
    public = serialization.load_pem_public_key(PEM.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    raw = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    return spelled(base64.b64encode(head + raw).decode())


@pytest.mark.parametrize(
    "pem",
    [
        PEM[:-1],
        PEM + "\n",
        " " + PEM,
        "key of Acme\n" + PEM,
        PEM.replace("\n", "\r\n"),
        spelled(body(PEM), width=76),
        spelled(body(PEM), width=1000),
        compressed(),
        PEM + PEM,
    ],
)
def test_a_second_spelling_is_refused(pem: str) -> None:
    assert spelled(body(PEM)) == PEM
    assert code_of(PublicKey.from_pem, pem) == "KEY_MALFORMED"


@pytest.mark.parametrize(
    "key",
    [
        ec.derive_private_key(7, ec.SECP384R1()),
        ec.derive_private_key(7, ec.SECP256K1()),
        ed448.Ed448PrivateKey.from_private_bytes(bytes(57)),
        x25519.X25519PrivateKey.from_private_bytes(bytes(32)),
    ],
)
def test_other_curves_are_refused(key: Any) -> None:
    assert code_of(PublicKey.from_pem, pem_of(key)) == "KEY_MALFORMED"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert code_of(PrivateKey.from_pem, pem) in ("KEY_MALFORMED", "KEY_UNREADABLE")


def test_a_curve_nobody_knows_is_refused() -> None:
    """cryptography tells it by an exception of its own, which is no ValueError."""
    der = base64.b64decode(body(PEM))
    p256 = bytes.fromhex("2a8648ce3d030107")
    assert der.count(p256) == 1
    unknown = der.replace(p256, p256[:-1] + b"\x63")
    with pytest.raises(SealpackError, match=r"KEY_MALFORMED.*unsupported key: Curve"):
        PublicKey.from_pem(spelled(base64.b64encode(unknown).decode()))


def test_rsa_is_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert code_of(PublicKey.from_pem, pem_of(key)) == "KEY_MALFORMED"


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "key",
        "ключ",
        "\ud800",
        "\0",
        PEM[:60],
        spelled("AAAA"),
        spelled(body(PEM), head="RSA PUBLIC KEY"),
        "x" * 5000,
    ],
)
def test_what_is_no_key(pem: str) -> None:
    assert code_of(PublicKey.from_pem, pem) == "KEY_MALFORMED"


def test_a_point_off_the_curve() -> None:
    der = bytearray(base64.b64decode(body(PEM)))
    der[-1] ^= 1
    assert code_of(PublicKey.from_pem, spelled(base64.b64encode(der).decode())) == "KEY_MALFORMED"


# --- ECDSA signatures ---------------------------------------------------------------------------------

SIG = CREATOR.sign(MESSAGE)
R, S = decode_dss_signature(SIG)


@pytest.mark.parametrize("r", [0, R, ORDER, ORDER + R])
@pytest.mark.parametrize("s", [0, S, ORDER, ORDER + S])
def test_r_and_s_are_in_range(r: int, s: int) -> None:
    if (r, s) == (R, S):
        CREATOR.public.verify(SIG, MESSAGE)
        return
    assert code_of(CREATOR.public.verify, encode_dss_signature(r, s), MESSAGE) == "SIG_MALFORMED"


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        SIG[:-1],
        SIG + b"\0",
        b"\x30\x81" + SIG[1:],
        b"\x31" + SIG[1:],
        R.to_bytes(32, "big") + S.to_bytes(32, "big"),
        bytes.fromhex("300702020001020101"),  # a leading zero that is not needed
        bytes.fromhex("3006020181020101"),  # negative r
        bytes.fromhex("3080020101020101" + "0000"),  # indefinite length
        bytes.fromhex("3009020101020101020101"),  # a third integer
    ],
)
def test_only_strict_der(signature: bytes) -> None:
    assert code_of(CREATOR.public.verify, signature, MESSAGE) == "SIG_MALFORMED"


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(SIG) - 1), st.integers(0, 7))
def test_any_flipped_bit_fails(at: int, bit: int) -> None:
    changed = SIG[:at] + bytes([SIG[at] ^ 1 << bit]) + SIG[at + 1 :]
    assert code_of(CREATOR.public.verify, changed, MESSAGE) in ("SIG_INVALID", "SIG_MALFORMED")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_no_signature(signature: bytes) -> None:
    for key in (CREATOR, SETTLEMENT):
        assert code_of(key.public.verify, signature, MESSAGE) in ("SIG_INVALID", "SIG_MALFORMED")


def test_the_hash_and_the_key_count() -> None:
    private: Any = serialization.load_pem_private_key(CREATOR.to_pem(), None)
    sha512 = private.sign(MESSAGE, ec.ECDSA(hashes.SHA512()))
    assert code_of(CREATOR.public.verify, sha512, MESSAGE) == "SIG_INVALID"
    assert code_of(STRANGER.public.verify, SIG, MESSAGE) == "SIG_INVALID"
    assert code_of(CREATOR.public.verify, SETTLEMENT.sign(MESSAGE), MESSAGE) == "SIG_MALFORMED"
    assert code_of(SETTLEMENT.public.verify, SIG, MESSAGE) == "SIG_INVALID"


# --- private keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_key_files(scheme: str, tmp_path: Path) -> None:
    key, path = PrivateKey.generate(scheme), tmp_path / "key.pem"
    path.write_bytes(key.to_pem())
    assert PrivateKey.load(path).public == key.public
    assert code_of(PrivateKey.load, path, b"pass") == "KEY_UNREADABLE"
    path.write_bytes(key.to_pem(b"pass"))
    assert PrivateKey.load(path, b"pass").public == key.public
    assert code_of(PrivateKey.load, path, b"wrong") == "KEY_UNREADABLE"
    assert code_of(PrivateKey.load, path) == "KEY_UNREADABLE"


def test_key_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\0 no key")
    (tmp_path / "pub").write_text(PEM)
    for name in ("x", "pub", "missing", "."):
        with pytest.raises(SealpackError, match=str(tmp_path)) as caught:
            PrivateKey.load(tmp_path / name)
        assert caught.value.code == "KEY_UNREADABLE"


def test_schemes() -> None:
    assert (CREATOR.scheme, SETTLEMENT.scheme) == (ECDSA, ED25519)
    assert code_of(PrivateKey.generate, "rsa") == "USAGE"
    assert len(SETTLEMENT.public.raw()) == 32
    assert code_of(CREATOR.public.raw) == "KEY_MALFORMED"


def test_nothing_prints_a_private_key() -> None:
    for key in (CREATOR, SETTLEMENT):
        assert "PRIVATE" not in repr(key) and "object at" not in repr(key)
