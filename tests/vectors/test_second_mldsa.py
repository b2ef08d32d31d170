"""ML-DSA-65 in the second implementation against cryptography's: what signs, and every way not to."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from dilithium_py.ml_dsa import ML_DSA_65
from dilithium_py.ml_dsa.default_parameters import DEFAULT_PARAMETERS
from dilithium_py.ml_dsa.ml_dsa import ML_DSA as Dilithium
from support.second import second

from sealpack.format.errors import SealpackError
from sealpack.format.keys import ML_DSA, PrivateKey

SEEDS = [bytes([seed]) * 32 for seed in range(3)]
KEYS = [PrivateKey.from_seed(seed, ML_DSA) for seed in SEEDS]
RAW = second.read_key(KEYS[0].public.pem).raw
MESSAGE = b"DSSEv1 1 a 1 b"
CHALLENGE, RESPONSE, HINTS = slice(0, 48), slice(48, 3248), slice(3248, 3309)
EDGE = second.GAMMA1 - second.BETA


def verdicts(key: PrivateKey, signature: bytes, message: bytes = MESSAGE) -> tuple[str, str]:
    """The program's, which are cryptography's, and the second implementation's."""
    try:
        key.public.verify(signature, message)
        ours = "ok"
    except SealpackError as error:
        ours = error.code
    try:
        second.verify_signature(second.read_key(key.public.pem), signature, message)
    except second.Fail as fail:
        return ours, fail.code
    return ours, "ok"


GOOD, BAD = ("ok", "ok"), ("SIG_INVALID", "SIG_INVALID")


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
@pytest.mark.parametrize("message", [b"", MESSAGE, bytes(100_000)], ids=len)
def test_signatures_verify(key: PrivateKey, message: bytes) -> None:
    signature = key.sign(message)  # hedged: another one every time
    assert verdicts(key, signature, message) == GOOD
    assert verdicts(key, signature, message + b"\0") == BAD
    assert verdicts(KEYS[KEYS.index(key) - 1], signature, message) == BAD


@pytest.mark.parametrize("part", [CHALLENGE, RESPONSE, HINTS], ids=["c_tilde", "z", "hints"])
def test_flipped_bits(part: slice) -> None:
    rng, signature = random.Random(part.start), KEYS[0].sign(MESSAGE)
    for _ in range(12):
        at, bit = rng.randrange(part.start, part.stop), 1 << rng.randrange(8)
        flipped = signature[:at] + bytes([signature[at] ^ bit]) + signature[at + 1 :]
        assert verdicts(KEYS[0], flipped) == BAD, (at, bit)


@pytest.mark.parametrize("length", [0, 1, 2420, 3308, 3310, 4627])
def test_other_lengths(length: int) -> None:
    signature = (KEYS[0].sign(MESSAGE) * 2)[:length]
    assert verdicts(KEYS[0], signature) == ("SIG_MALFORMED", "SIG_MALFORMED")


def test_another_context() -> None:
    _, secret = ML_DSA_65.key_derive(SEEDS[0])
    assert verdicts(KEYS[0], ML_DSA_65.sign(secret, MESSAGE, ctx=b"")) == GOOD
    assert verdicts(KEYS[0], ML_DSA_65.sign(secret, MESSAGE, ctx=b"x")) == BAD


# --- the same hints, the same response, but not in the one form -------------------------------------------


def rows_of(hints: bytes) -> list[tuple[int, int]]:
    return list(zip([0, *hints[55:]], hints[55:], strict=False))


def swapped(hints: bytearray) -> None:
    """Two places of one row in falling order."""
    first = next(first for first, end in rows_of(hints) if end - first > 1)
    hints[first], hints[first + 1] = hints[first + 1], hints[first]


def padded(hints: bytearray) -> None:
    """A place behind the last row's, which nobody reads."""
    hints[54] = 7


def doubled(hints: bytearray) -> None:
    """One place of the last row twice."""
    end = hints[60]
    hints[end] = hints[end - 1]
    hints[60] += 1


def past_the_end(hints: bytearray) -> None:
    """The last row ends behind the places."""
    hints[60] = 56


def falling(hints: bytearray) -> None:
    """A row ends before it begins."""
    hints[58] = hints[57] - 1


@pytest.mark.parametrize("spoil", [swapped, padded, doubled, past_the_end, falling])
def test_hints_have_one_encoding(spoil: Any) -> None:
    while True:
        signature = KEYS[0].sign(MESSAGE)
        hints = bytearray(signature[HINTS])
        # room behind the places, some in the last row, and a row with two
        if hints[60] < 54 and hints[60] > hints[59] and any(end - first > 1 for first, end in rows_of(hints)):
            break
    assert verdicts(KEYS[0], signature) == GOOD
    sets = second._unpack_hints(bytes(hints))
    spoil(hints)
    assert second._unpack_hints(bytes(hints)) is None and sets is not None
    assert verdicts(KEYS[0], signature[: HINTS.start] + hints) == BAD


def test_the_response_is_bounded() -> None:
    """A signer who does not reject long responses makes signatures that are right but for their bound."""
    loose = Dilithium(DEFAULT_PARAMETERS["ML_DSA_65"])
    loose.beta = 0
    _, secret = loose.key_derive(SEEDS[0])
    found = 0
    for i in range(200):
        message = b"%d" % i
        signature = loose.sign(secret, message)
        z = [second.GAMMA1 - number for number in second._unpack(signature[RESPONSE], 20)]
        if max(map(abs, z)) >= EDGE and loose.verify(RAW, message, signature):
            assert verdicts(KEYS[0], signature, message) == BAD
            found += 1
        if found == 2:
            return
    pytest.fail("no such signature was made")


def test_the_bound_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest coefficient of a good signature may be as large as gamma1 - beta - 1, not larger."""
    signature = KEYS[0].sign(MESSAGE)
    longest = max(abs(second.GAMMA1 - number) for number in second._unpack(signature[RESPONSE], 20))
    for bound, verdict in ((longest + 1, True), (longest, False)):
        monkeypatch.setattr(second, "BETA", second.GAMMA1 - bound)
        assert second._mldsa65(RAW, signature, MESSAGE) is verdict


def test_it_is_quick_enough() -> None:
    signature = KEYS[0].sign(MESSAGE)
    begun = time.process_time()
    assert second._mldsa65(RAW, signature, MESSAGE)
    assert time.process_time() - begun < 1
